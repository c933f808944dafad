"""How generators enlarge: interpolators to half pixels, and products with them."""

import jax
import jax.numpy as jnp
import numpy as np

from rmjax.corruptions import linear

REACH = 3  # samples on either side of the centre
# From the centre of a coarse pixel to those of the two fine ones in it.
_PHASES = (-0.25, 0.25)


def _nearest(distance: np.ndarray) -> np.ndarray:
    return (np.abs(distance) < 0.5).astype(float)


def _linear(distance: np.ndarray) -> np.ndarray:
    return np.maximum(1 - np.abs(distance), 0)


def _cubic(distance: np.ndarray, a: float) -> np.ndarray:
    """Keys' cubic convolution, https://doi.org/10.1109/TASSP.1981.1163711."""
    x = np.abs(distance)
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * (x**3 - 5 * x**2 + 8 * x - 4)
    return np.where(x < 1, near, np.where(x < 2, far, 0))


def _windowed_sinc(distance: np.ndarray, beta: float) -> np.ndarray:
    """Ideal low-pass in a Kaiser window, as StyleGAN3 enlarges."""
    inside = np.sqrt(np.maximum(1 - (distance / (REACH + 0.25)) ** 2, 0))
    return np.sinc(distance) * np.i0(beta * inside) / np.i0(beta)


def _interpolators() -> np.ndarray:
    """Return the taps of every way to enlarge, `[ways, 2, 2 * REACH + 1]`.

    The last one leaves the coarse samples where they are and puts means between them,
    as zeros between samples and a filter of 1-2-1 do: half a fine pixel to one side.
    """
    at = np.arange(-REACH, REACH + 1) - np.array(_PHASES)[:, None]
    ways = [
        _nearest(at),
        _linear(at),
        _cubic(at, -0.5),
        _cubic(at, -0.75),
        _windowed_sinc(at, 2.0),
        _windowed_sinc(at, 5.65),
        _linear(at + _PHASES[0]),
    ]
    return np.stack([way / way.sum(-1, keepdims=True) for way in ways])


INTERPOLATORS = _interpolators().astype(np.float32)
BILINEAR = INTERPOLATORS[1]


def enlarge(images: jax.Array, taps: jax.Array | np.ndarray) -> jax.Array:
    """Double the size by a separable interpolator; edges are repeated.

    Args:
        images: `[batch, H, W, C]`.
        taps: of the two fine pixels of a coarse one, `[2, 2 * REACH + 1]`.

    Returns:
        `[batch, 2 H, 2 W, C]`.
    """
    rows, columns = (_matrix(size, jnp.asarray(taps)) for size in images.shape[1:3])
    return jax.vmap(lambda image: linear.apply(rows, columns, image))(images)


def _matrix(size: int, taps: jax.Array) -> jax.Array:
    """Return the matrix `[2 size, size]` that doubles an axis."""
    places = np.arange(size)[:, None] + np.arange(-REACH, REACH + 1)
    places = np.repeat(np.clip(places, 0, size - 1), 2, axis=0)
    return linear.dense(places, jnp.tile(taps, (size, 1)), size)


def halve(images: jax.Array) -> jax.Array:
    """Average blocks of 2x2 pixels of `[batch, H, W, C]`, both even."""
    batch, height, width, channels = images.shape
    blocks = images.reshape(batch, height // 2, 2, width // 2, 2, channels)
    return blocks.mean((2, 4))


def fold(images: jax.Array) -> jax.Array:
    """Turn the 2x2 pixels of each block into channels, `[batch, H/2, W/2, 4 C]`."""
    batch, height, width, channels = images.shape
    blocks = images.reshape(batch, height // 2, 2, width // 2, 2, channels)
    blocks = blocks.transpose(0, 1, 3, 2, 4, 5)
    return blocks.reshape(batch, height // 2, width // 2, 4 * channels)


def unfold(maps: jax.Array) -> jax.Array:
    """Turn every four channels into 2x2 pixels, as sub-pixel convolution does."""
    batch, height, width, channels = maps.shape
    blocks = maps.reshape(batch, height, width, 2, 2, channels // 4)
    blocks = blocks.transpose(0, 1, 3, 2, 4, 5)
    return blocks.reshape(batch, 2 * height, 2 * width, channels // 4)


def convolve(maps: jax.Array, kernels: jax.Array) -> jax.Array:
    """Correlate `[batch, H, W, in]` with `[k, k, in, out]`, k odd; edges are repeated."""
    reach = kernels.shape[0] // 2
    around = ((0, 0), (reach, reach), (reach, reach), (0, 0))
    return jax.lax.conv_general_dilated(
        jnp.pad(maps, around, mode="edge"),
        kernels,
        window_strides=(1, 1),
        padding="VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
