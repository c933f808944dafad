"""What makes a forward pass without gradients fast on a CPU."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from rmjax.models.conv import PREPARED

PyTree = Any

CHUNK_BYTES = 2**22  # of the largest activation; a core's cache has 1 or 2 MiB


def chunk_size(activations: PyTree, batch_size: int, backend: str) -> int:
    """Return how many images to run at once.

    On a CPU what one layer leaves should still be in the caches when the next one
    reads it; elsewhere the whole batch fills the device better.

    Args:
        activations: shapes and types, leaves `[batch_size, ...]`.
        batch_size: images in the batch.
        backend: JAX's name of it.
    """
    if backend != "cpu":
        return batch_size
    largest = max(x.size * x.dtype.itemsize for x in jax.tree.leaves(activations))
    return max(1, min(batch_size, CHUNK_BYTES * batch_size // max(largest, 1)))


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
) -> dict:
    """Return `variables` with the kernels that the network transforms for `inputs`.

    They are a function of the parameters, and computed anew in every call where they
    are not given.

    Args:
        apply: a Linen module's.
        variables: its own.
        inputs: shape and type of what it will be applied to.
    """

    @jax.jit
    def transform(variables: PyTree) -> PyTree:  # the network itself is dead code
        x = jnp.zeros(inputs.shape, inputs.dtype)
        return apply(variables, x, mutable=[PREPARED])[1]

    return {**variables, **transform(variables)}
