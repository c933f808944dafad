"""How generators enlarge and filter planes, and the interpolators to half pixels.

Images are planes here, `[channels, batch, H, W]`: three channels in the place of rows or
columns would leave most of an accelerator's lanes empty.
"""

from functools import reduce
from operator import add

import jax
import jax.numpy as jnp
import numpy as np

from rmjax.corruptions import linear
from rmjax.corruptions.linear import Matrix

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


def enlarge(planes: jax.Array, taps: jax.Array | np.ndarray) -> jax.Array:
    """Double the size by a separable interpolator; edges are repeated.

    Args:
        planes: `[..., H, W]`.
        taps: of the two fine pixels of a coarse one, `[2, 2 * REACH + 1]`.

    Returns:
        `[..., 2 H, 2 W]`.
    """
    return _multiply(
        planes, *(_matrix(n, jnp.asarray(taps)) for n in planes.shape[-2:])
    )


def halve(planes: jax.Array) -> jax.Array:
    """Average blocks of 2x2 pixels of `[..., H, W]`, both even."""
    return _multiply(planes, *(_mean_matrix(size) for size in planes.shape[-2:]))


def _multiply(planes: jax.Array, rows: Matrix, columns: Matrix) -> jax.Array:
    """Apply `[h, H]` along the rows and `[w, W]` along the columns of `[..., H, W]`."""
    planes = jnp.einsum("hH,...HW->...hW", rows, planes, precision="highest")
    return jnp.einsum("wW,...hW->...hw", columns, planes, precision="highest")


def _mean_matrix(size: int) -> np.ndarray:
    """Return the matrix `[size / 2, size]` that averages pairs."""
    return np.repeat(np.eye(size // 2, dtype=np.float32) / 2, 2, axis=1)


def _matrix(size: int, taps: jax.Array) -> jax.Array:
    """Return the matrix `[2 size, size]` that doubles an axis."""
    places = np.arange(size)[:, None] + np.arange(-REACH, REACH + 1)
    places = np.repeat(np.clip(places, 0, size - 1), 2, axis=0)
    return linear.dense(places, jnp.tile(taps, (size, 1)), size)


def fold(planes: jax.Array) -> jax.Array:
    """Turn `[C, batch, H, W]` into planes of the 2x2 pixels of each block.

    Returns:
        `[4 C, batch, H / 2, W / 2]`.
    """
    phases = [planes[..., i::2, j::2] for i in range(2) for j in range(2)]
    return jnp.concatenate(phases)


def unfold(planes: jax.Array) -> jax.Array:
    """Undo `fold`, as sub-pixel convolution enlarges."""
    count, batch, height, width = planes.shape
    phases = planes.reshape(2, 2, count // 4, batch, height, width)
    return phases.transpose(2, 3, 4, 0, 5, 1).reshape(
        count // 4, batch, 2 * height, 2 * width
    )


def convolve(planes: jax.Array, kernels: jax.Array) -> jax.Array:
    """Correlate `[in, batch, H, W]` with `[k, k, in, out]`, k odd; edges are repeated.

    As one product with all neighbours: of so few channels a convolution is slow on any
    processor.

    Returns:
        `[out, batch, H, W]`.
    """
    neighbours = jnp.concatenate(_neighbours(planes, kernels.shape[0]))
    kernels = kernels.reshape(-1, kernels.shape[-1])
    return jnp.einsum("io,ibhw->obhw", kernels, neighbours)


def filter_planes(planes: jax.Array, kernels: jax.Array) -> jax.Array:
    """Correlate each plane of `[C, batch, H, W]` with its own kernel of `[k, k, C]`.

    Exact in float32 everywhere, as pixels have to be: a sum and not a product of matrices.
    """
    weights = kernels.reshape(-1, kernels.shape[-1], 1, 1, 1)
    neighbours = _neighbours(planes, kernels.shape[0])
    return reduce(add, (w * x for w, x in zip(weights, neighbours, strict=True)))


def _neighbours(planes: jax.Array, size: int) -> list[jax.Array]:
    """Return planes moved to each place of a window of `size`, row by row of it."""
    reach = size // 2
    height, width = planes.shape[-2:]
    around = ((0, 0), (0, 0), (reach, reach), (reach, reach))
    # Once: a compiler that fuses what makes the planes computes them anew for each place.
    padded = jax.lax.optimization_barrier(jnp.pad(planes, around, mode="edge"))
    return [
        padded[..., i : i + height, j : j + width]
        for i in range(size)
        for j in range(size)
    ]
