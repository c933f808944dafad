"""What corruptions are made of: parameters by severity, rounding, draws for pixels.

An image takes 150,000 draws or more, and JAX's own generators would take longer over
them than the corruption itself. `bits`, `uniform` and `normal` hash a counter instead,
keyed by `jax.random`, so that a draw depends on its key and its place alone, under any
transformation. They are as good as the eye and a statistic ask.

References:
    The mixing function is Wellons' `lowbias32`, found by search for the least bias,
    https://nullprogram.com/blog/2018/07/31/
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from rmjax.utils.platform import target_platform

SEVERITIES = (1, 2, 3, 4, 5)


def pick(values: Sequence[float], severity: jax.Array) -> jax.Array:
    """Return `values[severity - 1]` as float32; `severity` 1..5 may be traced.

    By comparisons: for images side by side, a look-up in a table is a slow gather.
    """
    picked = jnp.float32(values[0])
    for at, value in zip(SEVERITIES[1:], values[1:], strict=True):
        picked = jnp.where(severity == at, jnp.float32(value), picked)
    return picked


def look_up(table: jax.Array, places: jax.Array) -> jax.Array:
    """Return `table[places]`, places being in range; the table has one axis."""
    flat = places.reshape(-1)
    read = table.at[flat].get(mode="promise_in_bounds", wrap_negative_indices=False)
    return read.reshape(places.shape)


def in_turn(function: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """Let a TPU map a function over images side by side by a loop.

    For those that look something up: one image's table fits its fast memory, several do
    not. Gradients pass, as `jax.custom_batching.sequential_vmap` alone lets none.
    """
    if target_platform() != "tpu":
        return function
    looped = jax.custom_batching.sequential_vmap

    def backward(args: tuple, gradient: jax.Array) -> tuple:
        return looped(lambda args, g: jax.vjp(function, *args)[1](g))(args, gradient)

    wrapped = jax.custom_vjp(looped(function))
    wrapped.defvjp(lambda *args: (looped(function)(*args), args), backward)
    return wrapped


def _through(step: Callable[[jax.Array], jax.Array]) -> Callable:
    """Give a step function the gradient of the identity, which it follows on average."""
    passing = jax.custom_jvp(lambda x: step(x))
    passing.defjvp(lambda primals, tangents: (step(*primals), *tangents))
    return passing


round_through, floor_through = _through(jnp.round), _through(jnp.floor)


def round_half_up(x: jax.Array) -> jax.Array:
    """Round, halves up, whatever way they were computed; gradients pass.

    What is a thousandth below a half counts as one, lest float error decide what becomes
    of halves, of which means of 8-bit values have many.
    """
    return floor_through(x + (0.5 + 1e-3))


def bits(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Draw uint32 of any value, for at most 2**32 places; not for cryptography."""
    offset, salt = jax.random.bits(key, (2,), "uint32")
    place = jnp.zeros(shape, jnp.uint32)
    stride = 1
    for axis in reversed(range(len(shape))):
        place += stride * jax.lax.broadcasted_iota(jnp.uint32, shape, axis)
        stride *= shape[axis]
    return _mix(_mix(place + offset) + salt)


def uniform(
    key: jax.Array,
    shape: tuple[int, ...],
    minval: float | jax.Array = 0.0,
    maxval: float | jax.Array = 1.0,
) -> jax.Array:
    """Draw float32 in [minval, maxval), in steps of 2**-24 of the range."""
    fraction = (bits(key, shape) >> 8).astype(jnp.float32) * 2.0**-24
    return minval + (maxval - minval) * fraction


def normal(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Draw float32 from the standard normal distribution, within 5.4 deviations."""
    return to_normal(uniform(key, shape, -1.0, 1.0))


def to_normal(draws: jax.Array) -> jax.Array:
    """Turn draws of `uniform` in [-1, 1) into standard normal ones."""
    # The middle of each step: never -1 or 1, whose quantiles are infinite.
    return jnp.sqrt(2.0) * jax.lax.erf_inv(draws + 2.0**-24)


def _mix(word: jax.Array) -> jax.Array:
    """Map uint32 one to one so that every bit in changes half of the bits out."""
    word = (word ^ (word >> 16)) * jnp.uint32(0x7FEB352D)
    word = (word ^ (word >> 15)) * jnp.uint32(0x846CA68B)
    return word ^ (word >> 16)
