"""Batch normalisation with torch's running statistics."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

MOMENTUM = 0.1
EPSILON = 1e-5


def widen(dtype: Any) -> Any:
    """Return the type for sums over many values of type `dtype`: float32 at least."""
    return jnp.promote_types(dtype, jnp.float32)


class BatchNorm(nn.Module):
    """Normalise each channel over batch and space.

    Parameters `scale` and `bias`, statistics (collection `batch_stats`) `mean` and
    `var`, all `[channels]`. In training the batch's biased variance normalises and
    its unbiased one goes into the running average, as torch does; Flax's own layer
    stores the biased one.

    Attributes:
        axis_name: mapped axis over which training statistics are shared, so that all
            replicas normalise as one batch. None keeps them per replica.
        dtype: type of the output; statistics are taken in float32 or wider.
    """

    axis_name: str | None = None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Normalise x `[batch, ..., channels]`; `train` also updates the statistics."""
        channels = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        ra_mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,))
        ra_var = self.variable("batch_stats", "var", jnp.ones, (channels,))

        x = x.astype(widen(x.dtype))
        if not train:
            y = (x - ra_mean.value) * (jax.lax.rsqrt(ra_var.value + EPSILON) * scale)
            return (y + bias).astype(self.dtype)
        rows = x.reshape(-1, channels)
        count = rows.shape[0]
        mean = _mean_rows(rows, self.axis_name)
        centred = rows - mean
        var = _mean_rows(centred * centred, self.axis_name)
        if self.axis_name is not None and not self.is_initializing():
            count *= jax.lax.axis_size(self.axis_name)
        if not self.is_initializing():
            unbiased = var * (count / max(count - 1, 1))
            ra_mean.value = (1 - MOMENTUM) * ra_mean.value + MOMENTUM * mean
            ra_var.value = (1 - MOMENTUM) * ra_var.value + MOMENTUM * unbiased
        y = centred * (jax.lax.rsqrt(var + EPSILON) * scale) + bias
        return y.reshape(x.shape).astype(self.dtype)


def _mean_rows(rows: jax.Array, axis_name: str | None) -> jax.Array:
    mean = jnp.mean(rows, axis=0)
    return mean if axis_name is None else jax.lax.pmean(mean, axis_name)
