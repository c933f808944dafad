"""Parameters by severity."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp


def pick(values: Sequence[float], severity: jax.Array) -> jax.Array:
    """Return `values[severity - 1]` as float32; `severity` 1..5 may be traced."""
    return jnp.asarray(values, jnp.float32)[severity - 1]
