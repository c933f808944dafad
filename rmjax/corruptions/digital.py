"""Corruptions of colour and geometry. Images are `[H, W, 3]` in [0, 1], severities 1..5."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np

from rmjax.corruptions import primitives
from rmjax.corruptions.jpeg import jpeg
from rmjax.corruptions.linear import (
    apply,
    apply_chosen,
    apply_sparse,
    box,
    gaussian_reflected,
    sparse,
)
from rmjax.corruptions.primitives import in_turn, look_up, pick, round_half_up
from rmjax.utils.platform import target_platform

PIXELATE = (0.6, 0.5, 0.4, 0.3, 0.25)
JPEG_QUALITIES = (25, 18, 15, 10, 7)
# At 224 px, in pixels: size of the displacements before they are smoothed, sigma of
# that smoothing, largest shift of a corner of the affine map.
ELASTIC = (
    (488, 170.8, 24.4),
    (488, 19.52, 48.8),
    (12.2, 2.44, 4.88),
    (17.08, 2.44, 4.88),
    (29.28, 2.44, 4.88),
)


def brightness(key: jax.Array, image: jax.Array, severity: jax.Array) -> jax.Array:
    """Raise the HSV value, hue and saturation kept; `key` is not used."""
    value = jnp.max(image, axis=-1, keepdims=True)
    raised = jnp.minimum(value + pick((0.1, 0.2, 0.3, 0.4, 0.5), severity), 1)
    # Black has no hue: it becomes grey.
    return jnp.where(value > 0, image / jnp.where(value > 0, value, 1), 1) * raised


def contrast(key: jax.Array, image: jax.Array, severity: jax.Array) -> jax.Array:
    """Shrink the deviations from each channel's mean; `key` is not used."""
    mean = jnp.mean(image, axis=(0, 1))
    return (image - mean) * pick((0.4, 0.3, 0.2, 0.1, 0.05), severity) + mean


def saturate(key: jax.Array, image: jax.Array, severity: jax.Array) -> jax.Array:
    """Scale and shift the HSV saturation; `key` is not used.

    What a channel lacks of the value goes with the saturation. Grey counts as a red
    of no saturation, as HSV conversions have it.
    """
    scale = pick((0.3, 0.1, 2, 5, 20), severity)
    shift = pick((0, 0, 0, 0.1, 0.2), severity)
    value = jnp.max(image, axis=-1, keepdims=True)
    spread = value - jnp.min(image, axis=-1, keepdims=True)
    saturation = spread / jnp.where(value > 0, value, 1)
    changed = jnp.clip(saturation * scale + shift, 0, 1)
    lack = (value - image) / jnp.where(spread > 0, spread, 1)
    lack = jnp.where(spread > 0, lack, jnp.array([0.0, 1.0, 1.0]))
    return value * (1 - changed * lack)


def pixelate(key: jax.Array, image: jax.Array, severity: jax.Array) -> jax.Array:
    """Scale down and up again by box filters, 8 bits between; `key` is not used."""
    if target_platform() == "cpu":
        branches = [partial(_down_up, scale=scale) for scale in PIXELATE]
        return jax.lax.switch(severity - 1, branches, image)
    rows, columns = (_pixelate_tables(size) for size in image.shape[:2])

    def choose(way: int) -> tuple[jax.Array, jax.Array]:
        return (
            jnp.asarray(rows[way])[severity - 1],
            jnp.asarray(columns[way])[severity - 1],
        )

    small = round_half_up(apply(*choose(0), image) * 255) / 255
    return apply(*choose(1), small)


def jpeg_compression(
    key: jax.Array, image: jax.Array, severity: jax.Array
) -> jax.Array:
    """Encode and decode as JPEG with halved chroma; `key` is not used."""
    return jpeg(image, pick(JPEG_QUALITIES, severity))


def elastic_transform(
    key: jax.Array, image: jax.Array, severity: jax.Array
) -> jax.Array:
    """Warp by a random affine map, then by smooth random displacements.

    Lengths are those of 224 px, in proportion to the shorter side. Severities 1 and 2
    warp more than 3 to 5: that is the published order.
    """
    height, width = image.shape[:2]
    unit = min(height, width) / 224
    alphas, sigmas, shifts = (np.array(ELASTIC) * unit).T.tolist()
    key_affine, key_field = jax.random.split(key)
    row, column = jnp.mgrid[:height, :width].astype(jnp.float32)

    affine = _random_affine(key_affine, height, width, pick(shifts, severity))
    source = (row * down + column * right + shift for down, right, shift in affine.T)
    image = in_turn(partial(_sample, repeat_edge=False))(image, *source)

    field = primitives.uniform(key_field, (height, width, 2), -1.0, 1.0)
    field = apply_chosen(gaussian_reflected, sigmas, severity, field)
    field *= pick(alphas, severity)
    sample = in_turn(partial(_sample, repeat_edge=True))
    return sample(image, row + field[..., 0], column + field[..., 1])


def _random_affine(
    key: jax.Array, height: int, width: int, shift: jax.Array
) -> jax.Array:
    """Return `[3, 2]`: where (row, column, 1) comes from when three points move."""
    arm = min(height, width) // 3
    centre = jnp.array([height // 2, width // 2])
    points = centre + arm * jnp.array([[1.0, 1.0], [-1.0, 1.0], [-1.0, -1.0]])
    moved = points + shift * jax.random.uniform(key, (3, 2), minval=-1, maxval=1)
    return jnp.linalg.solve(jnp.column_stack([moved, jnp.ones(3)]), points)


def _sample(
    image: jax.Array, row: jax.Array, column: jax.Array, *, repeat_edge: bool
) -> jax.Array:
    """Read `[H, W, C]` at fractional places `[H, W]`, bilinear, mirrored outside."""
    height, width, channels = image.shape
    row, column = _fold(row, height, repeat_edge), _fold(column, width, repeat_edge)
    top, left = jnp.floor(row), jnp.floor(column)
    down, right = row - top, column - left
    upper, left = top.astype(jnp.int32) * width, left.astype(jnp.int32)
    lower = jnp.where(down > 0, upper + width, upper)
    beside = jnp.where(right > 0, left + 1, left)

    # A loop, so that the places are computed once and not for every channel.
    def read(plane: jax.Array) -> jax.Array:
        at = partial(look_up, plane)
        above = (1 - right) * at(upper + left) + right * at(upper + beside)
        below = (1 - right) * at(lower + left) + right * at(lower + beside)
        return (1 - down) * above + down * below

    planes = image.reshape(-1, channels).T
    unroll = target_platform() != "cpu"
    _, planes = jax.lax.scan(
        lambda _, plane: (None, read(plane)), None, planes, unroll=unroll
    )
    return jnp.moveaxis(planes, 0, -1)


def _fold(at: jax.Array, size: int, repeat_edge: bool) -> jax.Array:
    """Mirror any places into [0, size - 1]; an edge counts once or twice."""
    first, period = (-0.5, 2 * size) if repeat_edge else (0, 2 * size - 2)
    phase = (at - first) / period
    phase -= jnp.floor(phase)
    folded = first + period * jnp.minimum(phase, 1 - phase)
    return jnp.clip(folded, 0, size - 1)


def _down_up(image: jax.Array, *, scale: float) -> jax.Array:
    height, width = image.shape[:2]
    low = _low(height, scale), _low(width, scale)
    down = sparse(box(height, low[0])), sparse(box(width, low[1]))
    small = round_half_up(apply_sparse(*down, image) * 255) / 255  # Pillow's way
    # Up, a box takes one sample. In a loop, lest the compiler compute that sample anew
    # for each pixel that shows it.
    rows, columns = (
        sparse(box(m, n), taps=1)[0][:, 0]
        for m, n in zip(low, (height, width), strict=True)
    )
    return jax.lax.map(lambda row: row[columns], small)[rows]


def _low(size: int, scale: float) -> int:
    return int(size * scale)


@cache
def _pixelate_tables(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return all severities' matrices down and up, `[5, low, size]`, `[5, size, low]`.

    Those of fewer samples than the most have zeros in the place of the others.
    """
    most = _low(size, max(PIXELATE))
    down, up = (
        np.zeros((len(PIXELATE), *shape), np.float32)
        for shape in ((most, size), (size, most))
    )
    for i, scale in enumerate(PIXELATE):
        low = _low(size, scale)
        down[i, :low] = box(size, low)
        up[i, :, :low] = box(low, size)
    return down, up
