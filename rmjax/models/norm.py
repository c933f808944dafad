"""Batch normalisation with torch's running statistics."""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from rmjax.utils.platform import target_platform

MOMENTUM = 0.1
EPSILON = 1e-5

Pool = Callable[[jax.Array], jax.Array]


def widen(dtype: Any) -> Any:
    """Return the type for sums over many values of type `dtype`: float32 at least."""
    return jnp.promote_types(dtype, jnp.float32)


class BatchNorm(nn.Module):
    """Normalise each channel over batch and space.

    Parameters `scale` and `bias` (where `affine`), statistics (collection `batch_stats`)
    `mean` and `var`, all `[channels]`. In training the batch's biased variance normalises
    and its unbiased one goes into the running average, as torch does; Flax's own layer
    stores the biased one.

    Attributes:
        axis_name: mapped axis over which training statistics are shared, so that all
            replicas normalise as one batch. None keeps them per replica.
        dtype: type of the output; statistics are taken in float32 or wider.
        affine: whether a learned scale and bias follow.
    """

    axis_name: str | None = None
    dtype: Any = jnp.float32
    affine: bool = True

    @nn.compact
    def __call__(
        self, x: jax.Array, *, train: bool, pool: Pool | None = None
    ) -> jax.Array:
        """Normalise x `[batch, ..., channels]`; `train` also updates the statistics.

        Args:
            x: what to normalise.
            train: see above.
            pool: what to return `pool(y)` with for the normalised y, for a function that
                takes maxima of places channel by channel. Those of x are the same places
                (where a scale is negative, of -x), and fewer values are normalised.
        """
        channels = x.shape[-1]
        scale, bias = jnp.ones(channels), jnp.zeros(channels)
        if self.affine:
            scale = self.param("scale", nn.initializers.ones, (channels,))
            bias = self.param("bias", nn.initializers.zeros, (channels,))
        ra_mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,))
        ra_var = self.variable("batch_stats", "var", jnp.ones, (channels,))

        wide = widen(x.dtype)
        running = ra_mean.value
        sign: jax.Array | int = 1
        if pool is not None:
            sign = jnp.where(scale < 0, -1, 1).astype(x.dtype)
            x, running, scale = x * sign, running * sign, scale * sign
        if not train:
            y = (x if pool is None else pool(x)).astype(wide) - running
            y = y * (jax.lax.rsqrt(ra_var.value + EPSILON) * scale)
            return (y + bias).astype(self.dtype)
        axis_name = None if self.is_initializing() else self.axis_name
        # See `_measure_once`. The running mean is known before the maps are, so that XLA
        # can take the sums while a convolution puts them out: a pass less. A narrow type
        # rounds maps far from it by more than the sums lose there. Wider ones need a
        # shift that is near from the first step on, which is in the maps alone.
        first = x.reshape(-1, channels)[0]
        near = first if x.dtype == wide else running.astype(wide)
        y, mean, var = _normalize(x, near, scale, bias, axis_name, pool)
        if not self.is_initializing():
            count = x.size // channels
            if axis_name is not None:
                count *= jax.lax.axis_size(axis_name)
            unbiased = var * (count / max(count - 1, 1))
            ra_mean.value = (1 - MOMENTUM) * ra_mean.value + MOMENTUM * mean * sign
            ra_var.value = (1 - MOMENTUM) * ra_var.value + MOMENTUM * unbiased
        return y.astype(self.dtype)


@partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _normalize(
    x: jax.Array,
    near: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    axis_name: str | None,
    pool: Pool | None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return normalised maps `[..., channels]` and their mean and biased variance.

    Of `pool(x)` with the statistics of x, where there is a pool. The gradients are those
    of the maps alone, written down: two sums over rows, taken in one pass, where
    automatic differentiation takes three and more memory.
    """
    y, mean, var, _ = _pool_and_normalize(x, near, scale, bias, axis_name, pool)
    return y, mean, var


def _pool_and_normalize(x, near, scale, bias, axis_name, pool):
    rows = x.reshape(-1, x.shape[-1]).astype(near.dtype)
    # A CPU reads maps from its caches twice for less than shifted squares cost it.
    measure = _measure_twice if target_platform() == "cpu" else _measure_once
    mean, var = measure(rows, near, axis_name)
    best, spread = (x, None) if pool is None else jax.vjp(pool, x)
    centred = best.astype(near.dtype) - mean
    y = centred * (jax.lax.rsqrt(var + EPSILON) * scale) + bias
    return y, mean, var, (best, spread)


def _measure_twice(
    rows: jax.Array, near: jax.Array, axis_name: str | None
) -> tuple[jax.Array, jax.Array]:
    """Return mean and biased variance, one after the other: two passes and exchanges."""
    mean = _mean(jnp.mean(rows, axis=0), axis_name)
    centred = rows - mean
    return mean, _mean(jnp.mean(centred * centred, axis=0), axis_name)


def _measure_once(
    rows: jax.Array, near: jax.Array, axis_name: str | None
) -> tuple[jax.Array, jax.Array]:
    """Return mean and biased variance by one pass over the maps and one exchange.

    The mean of squares less the square of the mean keeps nothing of a variance that is
    small beside that square. So the sums are those of the distances from `near`: if that
    is one of the values, its square is at most `rows` times the variance.

    Replicas are put together as published: no square of a mean is subtracted. For this
    each needs the numbers of all. Gathering them takes one way round a torus where a sum
    takes two; it is 8 bytes per channel and replica, 54 MB of a ResNet-50 on 256 chips.

    References:
        Chan, Golub, LeVeque, Updating Formulae and a Pairwise Algorithm for Computing
            Sample Variances, 1979, equation 2.1
    """
    off = rows - near
    first, second = jnp.mean(off, axis=0), jnp.mean(off * off, axis=0)
    mean, var = near + first, jnp.maximum(second - first * first, 0)
    if axis_name is None:
        return mean, var
    gathered = jax.lax.all_gather(jnp.stack([mean, var]), axis_name)
    means, variances = gathered[:, 0], gathered[:, 1]
    mean = jnp.mean(means, axis=0)
    return mean, jnp.mean(variances + (means - mean) ** 2, axis=0)


def _forward(x, near, scale, bias, axis_name, pool):
    y, *statistics, pooled = _pool_and_normalize(x, near, scale, bias, axis_name, pool)
    mean, var = statistics
    return (y, mean, var), (x, pooled, scale, mean, jax.lax.rsqrt(var + EPSILON))


def _backward(axis_name, pool, kept, gradients):
    x, (best, spread), scale, mean, inverse = kept
    gradient, *_ = gradients

    def standard(x):
        return (x.astype(mean.dtype) - mean) * inverse

    # What the pool has not chosen has no gradient of its own, and adds nothing.
    places = tuple(range(x.ndim - 1))
    bias = jnp.sum(gradient, axis=places)
    slope = jnp.sum(gradient * standard(best), axis=places)
    shift, tilt = _mean(jnp.stack([bias, slope]) / (x.size // len(mean)), axis_name)
    if spread is not None:
        (gradient,) = spread(gradient.astype(x.dtype))
    given = (gradient - shift - standard(x) * tilt) * (inverse * scale)
    return given.astype(x.dtype), jnp.zeros_like(mean), slope, bias


_normalize.defvjp(_forward, _backward)


def _mean(values: jax.Array, axis_name: str | None) -> jax.Array:
    if axis_name is None:
        return values
    # Divided before it is sent, within the sums' own program: after, it is one more.
    return jax.lax.psum(values / jax.lax.axis_size(axis_name), axis_name)
