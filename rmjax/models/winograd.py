"""3x3 convolutions with fewer multiplications, by Winograd's minimal filtering.

Each `tile` x `tile` patch of the output is computed in a transformed space, in which
the convolution is a product for each of `(tile + 2)**2` places: 2.25 times fewer
multiplications than the definition for tiles of 2, 4 times for tiles of 4, whose
rounding errors are some 10 times larger.

References:
    Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, CVPR 2016,
    https://arxiv.org/abs/1509.09308 (the matrices: section 4.1 and its successors)
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

# tile -> matrices of the input (B^T), the kernel (G) and the output (A^T).
TRANSFORMS = {
    2: (
        ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1)),
        ((1, 0, 0), (1 / 2, 1 / 2, 1 / 2), (1 / 2, -1 / 2, 1 / 2), (0, 0, 1)),
        ((1, 1, 1, 0), (0, 1, -1, -1)),
    ),
    4: (
        (
            (4, 0, -5, 0, 1, 0),
            (0, -4, -4, 1, 1, 0),
            (0, 4, -4, -1, 1, 0),
            (0, -2, -1, 2, 1, 0),
            (0, 2, -1, -2, 1, 0),
            (0, 4, 0, -5, 0, 1),
        ),
        (
            (1 / 4, 0, 0),
            (-1 / 6, -1 / 6, -1 / 6),
            (-1 / 6, 1 / 6, -1 / 6),
            (1 / 24, 1 / 12, 1 / 6),
            (1 / 24, -1 / 12, 1 / 6),
            (0, 0, 1),
        ),
        (
            (1, 1, 1, 1, 1, 0),
            (0, 1, -1, 2, -2, 0),
            (0, 1, 1, 4, 4, 0),
            (0, 1, -1, 8, -8, 1),
        ),
    ),
}


def transform_kernel(kernel: jax.Array, tile: int) -> jax.Array:
    """Return kernel `[3, 3, in, out]` as `convolve_tiles` needs it.

    Returns:
        `[(tile + 2)**2, in, out]`.
    """
    _, matrix, _ = TRANSFORMS[tile]
    rows = [_combine(kernel, weights) for weights in matrix]
    return jnp.stack([_combine(row, weights) for row in rows for weights in matrix])


def convolve_tiles(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolve 3x3 with stride 1 and a border of one zero.

    Args:
        x: `[batch, H, W, in]`, of any size: the last tiles are cut off.
        kernel: `[(tile + 2)**2, in, out]`, of `transform_kernel`.

    Returns:
        `[batch, H, W, out]`.
    """
    side = round(len(kernel) ** 0.5)
    tile = side - 2
    into, _, back = TRANSFORMS[tile]
    batch, height, width, channels = x.shape
    down, across = -(-height // tile), -(-width // tile)
    ends = ((1, n * tile + 1 - size) for n, size in ((down, height), (across, width)))
    x = jnp.pad(x, ((0, 0), *ends, (0, 0)))
    lines = [x[:, i : i + (down - 1) * tile + 1 : tile] for i in range(side)]
    places = []
    for weights in into:
        line = _combine(lines, weights)
        columns = [
            line[:, :, j : j + (across - 1) * tile + 1 : tile] for j in range(side)
        ]
        places += [_combine(columns, row).reshape(-1, channels) for row in into]
    products = jnp.einsum("ptc,pcd->ptd", jnp.stack(places), kernel)
    products = products.reshape(side, side, batch, down, across, -1)
    out = [
        [_combine([_combine(column, row) for column in products], line) for row in back]
        for line in back
    ]
    out = jnp.stack([jnp.stack(row, axis=3) for row in out], axis=2)
    out = out.reshape(batch, down * tile, across * tile, -1)
    return out[:, :height, :width]


def _combine(arrays: Sequence[jax.Array], weights: Sequence[float]) -> jax.Array:
    """Return the weighted sum, without what 0 and 1 would multiply."""
    terms = [
        x if w == 1 else np.asarray(w, x.dtype) * x
        for x, w in zip(arrays, weights, strict=True)
        if w
    ]
    return sum(terms[1:], terms[0])
