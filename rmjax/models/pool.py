"""Max-pooling whose gradient on CPU reads each window's choice instead of searching it."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from rmjax.utils.platform import target_platform


def max_pool(x: jax.Array) -> jax.Array:
    """Take the maximum of 3x3 pixels at every second pixel, as torch's ResNet does.

    Args:
        x: `[batch, H, W, channels]`.

    Returns:
        `[batch, ceil(H / 2), ceil(W / 2), channels]`. Of equal maxima the first one, row
        by row, receives the gradient.
    """
    if target_platform() != "cpu":
        return nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
    return _pool(x)


@jax.custom_vjp
def _pool(x: jax.Array) -> jax.Array:
    return _choose(x)[0]


def _forward(x: jax.Array) -> tuple[jax.Array, tuple]:
    best, chosen = _choose(x)
    return best, (chosen, jnp.zeros((0, *x.shape[1:3])))


def _choose(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return each window's maximum and which of its pixels that is, 0..8."""
    rows, cols = ((n + 1) // 2 for n in x.shape[1:3])
    border = ((0, 0), (1, 1), (1, 1), (0, 0))
    x = jnp.pad(x, border, constant_values=-jnp.inf)
    places = (divmod(i, 3) for i in range(9))
    best, *others = (
        x[:, top : top + 2 * rows - 1 : 2, left : left + 2 * cols - 1 : 2]
        for top, left in places
    )
    chosen = jnp.zeros(best.shape, jnp.int8)
    for i, pixel in enumerate(others, 1):
        chosen = jnp.where(pixel > best, jnp.int8(i), chosen)
        best = jnp.maximum(best, pixel)
    return best, chosen


def _backward(kept: tuple, gradient: jax.Array) -> tuple[jax.Array]:
    chosen, like = kept
    given = [jnp.where(chosen == i, gradient, 0) for i in range(9)]
    # Pixels in even rows and columns are the middle of one window alone; others lie in
    # two or four windows, at opposite edges.
    even = given[4], given[5] + _next(given[3], 2)
    odd = (
        given[7] + _next(given[1], 1),
        given[8]
        + _next(given[6], 2)
        + _next(given[2], 1)
        + _next(_next(given[0], 1), 2),
    )
    out = jnp.stack([jnp.stack(row, axis=3) for row in (even, odd)], axis=2)
    batch, rows, cols, channels = gradient.shape
    out = out.reshape(batch, 2 * rows, 2 * cols, channels)
    out = out[:, : like.shape[1], : like.shape[2]]
    return (jax.lax.optimization_barrier(out),)


def _next(x: jax.Array, axis: int) -> jax.Array:
    """Return for each window what is given by the next one along an axis."""
    pad = [(0, int(i == axis)) for i in range(x.ndim)]
    return jax.lax.slice_in_dim(jnp.pad(x, pad), 1, None, axis=axis)


_pool.defvjp(_forward, _backward)
