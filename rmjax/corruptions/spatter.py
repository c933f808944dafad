"""Spatter: drops of water with a lit rim, or mud."""

from functools import reduce
from operator import add

import jax
import jax.numpy as jnp
import numpy as np

from rmjax.corruptions import primitives
from rmjax.corruptions.linear import apply, apply_chosen, gaussian
from rmjax.corruptions.primitives import pick
from rmjax.utils.platform import target_platform

SIGMAS = (4.0, 3.0, 2.0, 1.0, 1.0)
WATER = (175, 238, 238)
MUD = (63, 42, 20)
MUD_SIGMA = 1.5
EMBOSS = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]])
# A rim's light reaches as far from the contour of a drop, in pixels.
RIM = 20


def spatter(key: jax.Array, image: jax.Array, severity: jax.Array) -> jax.Array:
    """Splash water (severities 1 to 3) or mud (4 and 5) on `[H, W, 3]` in [0, 1]."""
    mean = pick((0.65, 0.65, 0.65, 0.65, 0.67), severity)
    deviation = pick((0.3, 0.3, 0.3, 0.3, 0.4), severity)
    liquid = mean + deviation * primitives.normal(key, (*image.shape[:2], 1))
    liquid = apply_chosen(gaussian, SIGMAS, severity, liquid)[..., 0]
    threshold = pick((0.69, 0.68, 0.68, 0.65, 0.65), severity)
    liquid = jnp.where(liquid < threshold, 0, liquid)
    strength = pick((0.6, 0.6, 0.5, 0, 0), severity)
    return jax.lax.cond(severity > 3, _mud, _water, image, liquid, strength)


def _mud(image: jax.Array, liquid: jax.Array, strength: jax.Array) -> jax.Array:
    height, width = liquid.shape
    cover = (liquid > 0).astype(image.dtype)[..., None]
    cover = apply(gaussian(height, MUD_SIGMA), gaussian(width, MUD_SIGMA), cover)
    cover = jnp.where(cover < 0.8, 0, cover)
    return image * (1 - cover) + cover * jnp.array(MUD) / 255


def _water(image: jax.Array, liquid: jax.Array, strength: jax.Array) -> jax.Array:
    """Light the drops by an embossed map of the distance to their contours."""
    level = jnp.floor(liquid * 255)
    rim = jnp.round(_box3(_distance(_contours(level), RIM)))
    rim = jnp.clip(_filter3(_equalize(rim, RIM + 1), EMBOSS), 0, 255)
    light = level * _box3(rim)
    light *= strength / jnp.maximum(jnp.max(light), 1)
    return image + light[..., None] * jnp.array(WATER) / 255


def _contours(level: jax.Array, low: float = 50, high: float = 150) -> jax.Array:
    """Find edges `[H, W]` as Canny does: Sobel, thinning, two thresholds.

    Weak edges count next to strong ones, up to three steps away: the contours of
    thresholded drops are strong nearly everywhere.

    References:
        Canny, A Computational Approach to Edge Detection, PAMI 1986.
    """
    sobel = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])
    right, down = (_filter3(level, kernel, "edge") for kernel in (sobel, sobel.T))
    across, along = jnp.abs(right), jnp.abs(down)
    size = across + along
    height, width = level.shape
    padded = jnp.pad(size, 1)

    def thin(row: int, column: int) -> jax.Array:
        """Whether it is no less than its neighbour there, and more than the opposite."""
        there = padded[1 + row :, 1 + column :][:height, :width]
        opposite = padded[1 - row :, 1 - column :][:height, :width]
        return (size >= there) & (size > opposite)

    flat, steep = np.tan(np.pi / 8), np.tan(3 * np.pi / 8)
    diagonal = jnp.where(right * down >= 0, thin(1, 1), thin(1, -1))
    crest = jnp.where(along > steep * across, thin(1, 0), diagonal)
    crest = jnp.where(along < flat * across, thin(0, 1), crest)
    weak, edges = crest & (size > low), crest & (size > high)
    # Loops here and below keep the compiler from computing inner steps many times.
    unroll = target_platform() != "cpu"
    return jax.lax.fori_loop(
        0, 3, lambda _, edges: weak & _grow(edges), edges, unroll=unroll
    )


def _grow(mask: jax.Array) -> jax.Array:
    """Extend a mask `[H, W]` by one pixel in all eight directions."""
    padded = jnp.pad(mask, 1)
    rows = padded[:-2] | padded[1:-1] | padded[2:]
    return rows[:, :-2] | rows[:, 1:-1] | rows[:, 2:]


def _distance(edges: jax.Array, limit: int) -> jax.Array:
    """Return the distance to the nearest edge in pixels, at most `limit`.

    Squared distances along the columns, then over the rows of those.
    """
    squared = jnp.where(edges, 0.0, 2.0 * limit**2)
    for axis in (0, 1):
        squared = _nearer(squared, limit, axis)
    return jnp.minimum(jnp.sqrt(squared), limit)


def _nearer(squared: jax.Array, limit: int, axis: int) -> jax.Array:
    """Return the least of squared distance + offset**2 along an axis of `[H, W]`."""
    margin = [(limit, limit) if axis == a else (0, 0) for a in (0, 1)]
    padded = jnp.pad(squared, margin, constant_values=2.0 * limit**2)

    def compare(least: jax.Array, offset: jax.Array) -> tuple[jax.Array, None]:
        start = limit + offset
        shifted = jax.lax.dynamic_slice_in_dim(padded, start, least.shape[axis], axis)
        return jnp.minimum(least, shifted + 1.0 * offset**2), None

    offsets = jnp.arange(-limit, limit + 1)
    unroll = 4 if target_platform() == "cpu" else len(offsets)
    return jax.lax.scan(compare, squared, offsets, unroll=unroll)[0]


def _equalize(levels: jax.Array, count: int) -> jax.Array:
    """Spread levels 0..count - 1 over 0..255 so that all are about equally frequent."""
    frequency = jnp.sum(levels.reshape(-1) == jnp.arange(count)[:, None], axis=1)
    lowest = frequency[jnp.argmax(frequency > 0)]
    rank = jnp.cumsum(frequency) - lowest
    table = jnp.round(255 * rank / jnp.maximum(levels.size - lowest, 1))
    return jnp.maximum(table, 0)[levels.astype(jnp.int32)]


def _box3(x: jax.Array) -> jax.Array:
    return _filter3(x, np.full((3, 3), 1 / 9))


def _filter3(x: jax.Array, kernel: np.ndarray, mode: str = "reflect") -> jax.Array:
    """Correlate `[H, W]` with a 3x3 kernel."""
    height, width = x.shape
    padded = jnp.pad(x, 1, mode=mode)
    return reduce(
        add,
        (
            float(kernel[i, j]) * padded[i : i + height, j : j + width]
            for i, j in np.argwhere(kernel)
        ),
    )
