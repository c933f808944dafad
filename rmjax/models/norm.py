"""Batch normalisation with torch's running statistics."""

from functools import partial
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
        axis_name = None if self.is_initializing() else self.axis_name
        y, mean, var = _normalize(x.reshape(-1, channels), scale, bias, axis_name)
        if not self.is_initializing():
            count = x.size // channels
            if axis_name is not None:
                count *= jax.lax.axis_size(axis_name)
            unbiased = var * (count / max(count - 1, 1))
            ra_mean.value = (1 - MOMENTUM) * ra_mean.value + MOMENTUM * mean
            ra_var.value = (1 - MOMENTUM) * ra_var.value + MOMENTUM * unbiased
        return y.reshape(x.shape).astype(self.dtype)


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def _normalize(
    rows: jax.Array, scale: jax.Array, bias: jax.Array, axis_name: str | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return normalised rows `[rows, channels]` and their mean and biased variance.

    The gradients are those of the first alone, written down: two sums over rows, taken
    in one pass, where automatic differentiation takes three and more memory.
    """
    mean = _mean(jnp.mean(rows, axis=0), axis_name)
    centred = rows - mean
    var = _mean(jnp.mean(centred * centred, axis=0), axis_name)
    return centred * (jax.lax.rsqrt(var + EPSILON) * scale) + bias, mean, var


def _forward(rows, scale, bias, axis_name):
    y, mean, var = _normalize(rows, scale, bias, axis_name)
    return (y, mean, var), (rows, scale, mean, jax.lax.rsqrt(var + EPSILON))


def _backward(axis_name, kept, gradients):
    rows, scale, mean, inverse = kept
    gradient, *_ = gradients
    standard = (rows - mean) * inverse
    bias = jnp.sum(gradient, axis=0)
    slope = jnp.sum(gradient * standard, axis=0)
    shift, tilt = _mean(jnp.stack([bias, slope]) / len(rows), axis_name)
    return (gradient - shift - standard * tilt) * (inverse * scale), slope, bias


_normalize.defvjp(_forward, _backward)


def _mean(values: jax.Array, axis_name: str | None) -> jax.Array:
    return values if axis_name is None else jax.lax.pmean(values, axis_name)
