"""Linear operators along one axis, as matrices: blur and resampling.

As products with small matrices they are fast on processors and accelerators alike,
exact at the edges, and differentiable. Matrices are made once a size, in NumPy.
"""

from collections.abc import Callable, Sequence
from functools import cache, reduce
from operator import add

import jax
import jax.numpy as jnp
import numpy as np

from rmjax.utils.platform import target_platform

Matrix = jax.Array | np.ndarray
# Places and weights of the samples that make up each output.
Sparse = tuple[Matrix, Matrix]


def apply(rows: Matrix, columns: Matrix, image: jax.Array) -> jax.Array:
    """Apply `[h, H]` along the rows and `[w, W]` along the columns of `[H, W, C]`."""
    image = jnp.einsum("hH,HWc->hWc", rows, image, precision="highest")
    return jnp.einsum("wW,hWc->hwc", columns, image, precision="highest")


def apply_chosen(
    make: Callable[[int, float], np.ndarray],
    values: Sequence[float],
    severity: jax.Array,
    image: jax.Array,
) -> jax.Array:
    """Apply the operator of one severity, `make(size, values[severity - 1])`, both ways.

    Args:
        make: gives a square matrix for a size and a value.
        values: one for each severity.
        severity: 1..5, may be traced.
        image: `[H, W, C]`.
    """
    rows, columns = (
        jnp.asarray(np.stack([make(size, value) for value in values]))[severity - 1]
        for size in image.shape[:2]
    )
    return apply(rows, columns, image)


def gaussian_weights(sigma: float, truncate: float) -> np.ndarray:
    """Return weights that sum to one, out to `truncate` deviations, rounded."""
    radius = int(truncate * sigma + 0.5)
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    return weights / weights.sum()


@cache
def gaussian(size: int, sigma: float) -> np.ndarray:
    """Return the blur `[size, size]` that repeats the edges, cut off at 4 deviations."""
    weights = gaussian_weights(sigma, truncate=4)
    radius = len(weights) // 2
    at = np.arange(size)[:, None] + np.arange(-radius, radius + 1)
    return _gather(np.clip(at, 0, size - 1), weights, size)


@cache
def gaussian_reflected(size: int, sigma: float) -> np.ndarray:
    """Return the blur `[size, size]` that mirrors at the edges, cut off at 3 deviations."""
    weights = gaussian_weights(sigma, truncate=3)
    radius = len(weights) // 2
    at = (np.arange(size)[:, None] + np.arange(-radius, radius + 1)) % (2 * size)
    return _gather(np.where(at < size, at, 2 * size - 1 - at), weights, size)


@cache
def box(inputs: int, outputs: int) -> np.ndarray:
    """Return Pillow's box resampling `[outputs, inputs]`, down or up."""
    scale = inputs / outputs
    stretch = max(scale, 1)
    centre = (np.arange(outputs)[:, None] + 0.5) * scale
    at = (np.arange(inputs) + 0.5 - centre) / stretch
    matrix = ((at > -0.5) & (at <= 0.5)).astype(float)
    return (matrix / matrix.sum(1, keepdims=True)).astype(np.float32)


@cache
def triangle(inputs: int, outputs: int) -> np.ndarray:
    """Return Pillow's bilinear resampling `[outputs, inputs]`, smoothing where smaller."""
    scale = inputs / outputs
    stretch = max(scale, 1)
    centre = (np.arange(outputs)[:, None] + 0.5) * scale
    matrix = np.maximum(1 - np.abs((np.arange(inputs) + 0.5 - centre) / stretch), 0)
    return (matrix / matrix.sum(1, keepdims=True)).astype(np.float32)


@cache
def nearest(inputs: int, outputs: int) -> np.ndarray:
    """Return Pillow's nearest-neighbour resampling `[outputs, inputs]`."""
    matrix = np.zeros((outputs, inputs), np.float32)
    places = ((np.arange(outputs) + 0.5) * inputs / outputs).astype(int)
    matrix[np.arange(outputs), places] = 1
    return matrix


@cache
def centre_zoom(size: int, factor: float) -> np.ndarray:
    """Return the bilinear enlargement `[size, size]` of the middle of an axis.

    The middle ceil(size / factor) samples are stretched, ends on ends, to
    round(that * factor), of which the middle `size` stay.
    """
    inner = int(np.ceil(size / factor))
    outer = int(round(inner * factor))
    start, trim = (size - inner) // 2, (outer - size) // 2
    at = (np.arange(size) + trim) * (inner - 1) / (outer - 1)
    left = np.clip(np.floor(at).astype(int), 0, inner - 2)
    matrix = np.zeros((size, size), np.float32)
    matrix[np.arange(size), start + left] = 1 - (at - left)
    matrix[np.arange(size), start + left + 1] = at - left
    return matrix


def sparse(matrix: np.ndarray, taps: int | None = None) -> Sparse:
    """Turn a matrix `[outputs, inputs]` of few entries a row into sums of samples.

    Args:
        matrix: of no more than `taps` entries in a row.
        taps: how many samples an output is summed from; None for as many as needed.

    Returns:
        Places and weights of the samples, `[outputs, taps]` each.
    """
    taps = taps or int(np.count_nonzero(matrix, axis=1).max())
    places = np.argsort(matrix == 0, axis=1, kind="stable")[:, :taps]
    weights = np.take_along_axis(matrix, places, axis=1)
    return places.astype(np.int32), weights.astype(np.float32)


def centre_zooms(size: int, factors: Sequence[float]) -> Sparse:
    """Return `centre_zoom` of all factors, `[factors, size, 2]` each."""
    zooms = [sparse(centre_zoom(size, factor), taps=2) for factor in factors]
    places, weights = zip(*zooms, strict=True)
    return np.stack(places), np.stack(weights)


def apply_sparse(rows: Sparse, columns: Sparse, image: jax.Array) -> jax.Array:
    """Apply sparse operators along the rows and the columns of `[H, W, C]`.

    Accelerators multiply by the whole matrices, whose zeros cost them less than
    gathers of rows and columns would.
    """
    if target_platform() != "cpu":
        height, width = image.shape[:2]
        return apply(dense(*rows, height), dense(*columns, width), image)
    places, weights = map(jnp.asarray, rows)
    taps = range(places.shape[1])
    image = reduce(add, (weights[:, i, None, None] * image[places[:, i]] for i in taps))
    places, weights = map(jnp.asarray, columns)
    taps = range(places.shape[1])
    return reduce(add, (weights[:, i, None] * image[:, places[:, i]] for i in taps))


def dense(places: Matrix, weights: Matrix, inputs: int) -> jax.Array:
    """Return the matrix `[outputs, inputs]` that `sparse` has made places and weights of."""
    columns = jnp.arange(inputs)
    taps = range(places.shape[1])
    return reduce(
        add,
        (
            jnp.where(places[:, i, None] == columns, weights[:, i, None], 0)
            for i in taps
        ),
    )


def _gather(at: np.ndarray, weights: np.ndarray, size: int) -> np.ndarray:
    """Return the matrix whose row i puts `weights` at the columns `at[i]`."""
    matrix = np.zeros((size, size))
    rows = np.arange(size)[:, None]
    np.add.at(matrix, (rows, at), np.broadcast_to(weights, at.shape))
    return matrix.astype(np.float32)
