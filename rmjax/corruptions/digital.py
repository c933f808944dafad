"""Corruptions of colour and geometry. Images are `[H, W, 3]` in [0, 1], severities 1..5."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from rmjax.corruptions.jpeg import jpeg
from rmjax.corruptions.linear import apply, apply_chosen, box, gaussian_reflected
from rmjax.corruptions.severity import pick

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
    """Raise the HSV value; `key` is not used."""
    hue, saturation, value = _rgb_to_hsv(image)
    value = jnp.clip(value + pick((0.1, 0.2, 0.3, 0.4, 0.5), severity), 0, 1)
    return _hsv_to_rgb(hue, saturation, value)


def contrast(key: jax.Array, image: jax.Array, severity: jax.Array) -> jax.Array:
    """Shrink the deviations from each channel's mean; `key` is not used."""
    mean = jnp.mean(image, axis=(0, 1))
    return (image - mean) * pick((0.4, 0.3, 0.2, 0.1, 0.05), severity) + mean


def saturate(key: jax.Array, image: jax.Array, severity: jax.Array) -> jax.Array:
    """Scale and shift the HSV saturation; `key` is not used."""
    hue, saturation, value = _rgb_to_hsv(image)
    scale, shift = (
        pick((0.3, 0.1, 2, 5, 20), severity),
        pick((0, 0, 0, 0.1, 0.2), severity),
    )
    return _hsv_to_rgb(hue, jnp.clip(saturation * scale + shift, 0, 1), value)


def pixelate(key: jax.Array, image: jax.Array, severity: jax.Array) -> jax.Array:
    """Scale down and up again by box filters, 8 bits between; `key` is not used."""
    branches = [partial(_down_up, scale=scale) for scale in PIXELATE]
    return jax.lax.switch(severity - 1, branches, image)


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

    here = jnp.stack([row, column, jnp.ones_like(row)], axis=-1)
    affine = _random_affine(key_affine, height, width, pick(shifts, severity))
    source = jnp.einsum("hwi,ij->hwj", here, affine, precision="highest")
    image = _sample(image, source[..., 0], source[..., 1], repeat_edge=False)

    field = jax.random.uniform(key_field, (height, width, 2), minval=-1, maxval=1)
    field = apply_chosen(gaussian_reflected, sigmas, severity, field)
    field *= pick(alphas, severity)
    return _sample(image, row + field[..., 0], column + field[..., 1], repeat_edge=True)


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
    pixels = image.reshape(-1, channels)
    top, left = jnp.floor(row), jnp.floor(column)
    down, right = (row - top)[..., None], (column - left)[..., None]
    rows = [_mirror(top.astype(jnp.int32) + i, height, repeat_edge) for i in (0, 1)]
    columns = [_mirror(left.astype(jnp.int32) + i, width, repeat_edge) for i in (0, 1)]
    upper, lower = (
        (1 - right) * pixels[r * width + columns[0]]
        + right * pixels[r * width + columns[1]]
        for r in rows
    )
    return (1 - down) * upper + down * lower


def _mirror(at: jax.Array, size: int, repeat_edge: bool) -> jax.Array:
    """Fold any integer places into `0..size - 1`; an edge counts once or twice."""
    period = 2 * size if repeat_edge else 2 * size - 2
    at %= period
    return jnp.where(at < size, at, period - (1 if repeat_edge else 0) - at)


def _down_up(image: jax.Array, *, scale: float) -> jax.Array:
    height, width = image.shape[:2]
    low = int(height * scale), int(width * scale)
    small = apply(box(height, low[0]), box(width, low[1]), image)
    small = jnp.round(small * 255) / 255
    return apply(box(low[0], height), box(low[1], width), small)


def _rgb_to_hsv(image: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return hue in [0, 1), saturation and value in [0, 1], `[H, W]` each."""
    red, green, blue = (image[..., i] for i in range(3))
    value = jnp.max(image, axis=-1)
    spread = value - jnp.min(image, axis=-1)
    divisor = jnp.where(spread > 0, spread, 1)
    hue = jnp.where(
        value == red,
        (green - blue) / divisor,
        jnp.where(
            value == green, 2 + (blue - red) / divisor, 4 + (red - green) / divisor
        ),
    )
    saturation = spread / jnp.where(value > 0, value, 1)
    return (hue / 6) % 1, saturation, value


def _hsv_to_rgb(hue: jax.Array, saturation: jax.Array, value: jax.Array) -> jax.Array:
    sector = (jnp.array([5.0, 3.0, 1.0]) + 6 * hue[..., None]) % 6
    ramp = jnp.clip(jnp.minimum(sector, 4 - sector), 0, 1)
    return value[..., None] * (1 - saturation[..., None] * ramp)
