"""3x3 convolutions with fewer multiplications, by Winograd's minimal filtering.

Each 2x2 tile of the output is computed from 4x4 pixels in a transformed space, where
the convolution is one matrix product for each of the 16 places: 2.25 times fewer
multiplications than by the definition. The gradient of the input is such a convolution
itself; that of the kernel is 16 products of the transformed tiles of input and output,
transformed back. Automatic differentiation would keep and add up all that lies between.

References:
    Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, CVPR 2016,
    https://arxiv.org/abs/1509.09308 (the matrices of F(2x2, 3x3): section 4.1)
"""

from collections.abc import Sequence
from functools import reduce
from operator import add

import jax
import jax.numpy as jnp
import numpy as np

from rmjax.models.norm import widen

TILE, SIDE = 2, 4
INPUT = ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1))  # B^T
KERNEL = ((1, 0, 0), (1 / 2, 1 / 2, 1 / 2), (1 / 2, -1 / 2, 1 / 2), (0, 0, 1))  # G
OUTPUT = ((1, 1, 1, 0), (0, 1, -1, -1))  # A^T

Weights = Sequence[Sequence[float]] | np.ndarray
Places = list[jax.Array]  # 16 matrices, row by row; separate ones need no copy


@jax.custom_vjp
def convolve_winograd(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolve 3x3 with stride 1 and a border of one zero.

    Args:
        x: `[batch, H, W, in]`, of any size: the last tiles are cut off.
        kernel: `[3, 3, in, out]`.

    Returns:
        `[batch, H, W, out]` in the type of `x`. The products are in float32 at least.
    """
    return convolve_tiles(x, transform_kernel(kernel))


def _forward(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple]:
    return convolve_winograd(x, kernel), (x, kernel)


def _backward(kept: tuple, gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = kept
    return _gradient_of_input(kernel, gradient), _gradient_of_kernel(x, gradient)


convolve_winograd.defvjp(_forward, _backward)


@jax.jit
def transform_kernel(kernel: jax.Array) -> Places:
    """Return kernel `[3, 3, in, out]` as `convolve_tiles` needs it, 16 x `[in, out]`.

    In float32 at least, like the tiles: their sums would round a narrower type again.
    """
    return _sandwich(kernel.astype(widen(kernel.dtype)), KERNEL)


@jax.jit
def convolve_tiles(x: jax.Array, kernel: Places) -> jax.Array:
    """Do what `convolve_winograd` does, with a kernel of `transform_kernel`."""
    # Sixteen products of large matrices, and not one batched product: its operands would
    # first have to be copied next to each other.
    products = [tile @ matrix for tile, matrix in zip(_tiles(x), kernel, strict=True)]
    return _assemble(products, x)


@jax.jit
def _gradient_of_input(kernel: jax.Array, gradient: jax.Array) -> jax.Array:
    """Convolve the output's gradient with the kernel turned by half, `out` to `in`."""
    turned = transform_kernel(kernel[::-1, ::-1])
    tiles = _tiles(gradient)
    products = [tile @ matrix.T for tile, matrix in zip(tiles, turned, strict=True)]
    return _assemble(products, gradient)


@jax.jit
def _gradient_of_kernel(x: jax.Array, gradient: jax.Array) -> jax.Array:
    """Return `[3, 3, in, out]`, G^T (sum over tiles of (B^T x B)^T (A dy A^T)) G."""
    dtype = widen(x.dtype)
    outputs = _cut(gradient.astype(dtype), np.transpose(OUTPUT), TILE, 0)
    pairs = zip(_tiles(x), outputs, strict=True)
    places = jnp.stack([tile.T @ output for tile, output in pairs])
    places = places.reshape(SIDE, SIDE, *places.shape[1:])
    rows = _sandwich(places, np.transpose(KERNEL))
    return jnp.stack(rows).reshape(3, 3, *rows[0].shape).astype(x.dtype)


def _tiles(x: jax.Array) -> Places:
    """Return the transformed tiles of maps, 16 x `[tiles, channels]`."""
    return _cut(x.astype(widen(x.dtype)), INPUT, SIDE, 1)


def _cut(x: jax.Array, weights: Weights, side: int, before: int) -> Places:
    """Transform squares of `side` pixels, one each `TILE` pixels, from both sides.

    The first begins `before` pixels before the first pixel; zeros lie around.
    """
    down, across = (-(-n // TILE) for n in x.shape[1:3])
    ends = ((down, x.shape[1]), (across, x.shape[2]))
    pad = [(before, (n - 1) * TILE + side - before - size) for n, size in ends]
    x = jnp.pad(x, ((0, 0), *pad, (0, 0)))
    # Tiles overlap by half: strided slices at each offset cut all of them without a
    # gather. Rows are combined before columns are cut, as that is separable.
    lines = [x[:, i : i + (down - 1) * TILE + 1 : TILE] for i in range(side)]
    places = []
    for row in weights:
        line = _combine(lines, row)
        columns = [
            line[:, :, j : j + (across - 1) * TILE + 1 : TILE] for j in range(side)
        ]
        places += [_combine(columns, w).reshape(-1, x.shape[-1]) for w in weights]
    return places


def _assemble(products: Places, like: jax.Array) -> jax.Array:
    """Return the maps that products of tiles stand for, of the size and type of `like`."""
    batch, height, width, _ = like.shape
    down, across = -(-height // TILE), -(-width // TILE)
    products = [product.reshape(batch, down, across, -1) for product in products]
    lines = [products[i * SIDE : (i + 1) * SIDE] for i in range(SIDE)]
    # A tile's four pixels are stacked behind their row and their column, so that one
    # reshape interleaves all tiles.
    pixels = [
        [_combine([_combine(line, w) for line in lines], row) for w in OUTPUT]
        for row in OUTPUT
    ]
    maps = jnp.stack([jnp.stack(row, axis=3) for row in pixels], axis=2)
    maps = maps.reshape(batch, down * TILE, across * TILE, -1)
    return maps[:, :height, :width].astype(like.dtype)


def _sandwich(square: jax.Array, weights: Weights) -> list[jax.Array]:
    """Transform the first two axes from both sides, to a list row by row."""
    rows = [_combine(list(square), row) for row in weights]
    return [_combine(list(row), column) for row in rows for column in weights]


def _combine(arrays: Sequence[jax.Array], weights: Sequence[float]) -> jax.Array:
    """Return the weighted sum, without what 0 and 1 would multiply."""
    terms = [
        x if w == 1 else jnp.asarray(w, x.dtype) * x
        for x, w in zip(arrays, weights, strict=True)
        if w
    ]
    return reduce(add, terms)
