"""Severities, the parameters that go with them, and rounding that passes gradients."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

SEVERITIES = (1, 2, 3, 4, 5)


def pick(values: Sequence[float], severity: jax.Array) -> jax.Array:
    """Return `values[severity - 1]` as float32; `severity` 1..5 may be traced."""
    return jnp.asarray(values, jnp.float32)[severity - 1]


def _through(step: Callable[[jax.Array], jax.Array]) -> Callable:
    """Give a step function the gradient of the identity, which it follows on average."""
    passing = jax.custom_jvp(lambda x: step(x))
    passing.defjvp(lambda primals, tangents: (step(*primals), *tangents))
    return passing


round_through, floor_through = _through(jnp.round), _through(jnp.floor)
