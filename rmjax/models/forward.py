"""What makes a forward pass without gradients fast on a CPU."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from rmjax.models.conv import PREPARED

PyTree = Any

CHUNK_BYTES = 2**22  # of the largest activation; a core's cache has 1 or 2 MiB


def map_chunks(
    function: Callable[[jax.Array], PyTree], x: jax.Array, size: int
) -> PyTree:
    """Return `function(x)`, run on at most `size` examples at a time.

    Args:
        function: `[items, ...] -> [items, ...]` leaves, each item by itself.
        x: `[batch, ...]`.
        size: at least 1. The chunks are equal; zeros fill the last one up.
    """
    batch = len(x)
    if batch <= size:
        return function(x)
    count = -(-batch // size)
    size = -(-batch // count)
    x = jnp.pad(x, ((0, count * size - batch), *[(0, 0)] * (x.ndim - 1)))
    result = jax.lax.map(function, x.reshape(count, size, *x.shape[1:]))
    return jax.tree.map(lambda y: y.reshape(-1, *y.shape[2:])[:batch], result)


def prepare(
    apply: Callable[..., Any], variables: PyTree, inputs: jax.ShapeDtypeStruct
) -> tuple[dict, int]:
    """Prepare a forward pass for images of one size.

    Args:
        apply: a Linen module's.
        variables: its own.
        inputs: shape `[1, H, W, channels]` and type of what it will be applied to.

    Returns:
        `variables` with the kernels that the network transforms for such inputs, which
        it else computes in every call; and how many images to run at once on a CPU,
        so that what one layer leaves is still in the caches when the next one reads it.
    """
    largest = 1

    @jax.jit
    def transform(variables: PyTree) -> PyTree:  # the network itself is dead code
        nonlocal largest
        x = jnp.zeros(inputs.shape, inputs.dtype)
        outputs, transformed = apply(variables, x, mutable=[PREPARED])
        largest = max(x.size * x.dtype.itemsize for x in jax.tree.leaves(outputs))
        return transformed

    return {**variables, **transform(variables)}, max(CHUNK_BYTES // largest, 1)
