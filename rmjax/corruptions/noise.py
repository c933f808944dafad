"""Corruptions by noise. Images are `[H, W, 3]` in [0, 1], severities 1..5."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np

from rmjax.corruptions.severity import pick

# Shot noise: photons at full intensity; counts are cut off where fewer than one in
# 10**9 are beyond.
PHOTONS = (60, 25, 12, 5, 3)
COUNTS = 128


def gaussian_noise(key: jax.Array, image: jax.Array, severity: jax.Array) -> jax.Array:
    """Add normal noise, drawn for every channel value."""
    deviation = pick((0.08, 0.12, 0.18, 0.26, 0.38), severity)
    return jnp.clip(image + deviation * jax.random.normal(key, image.shape), 0, 1)


def speckle_noise(key: jax.Array, image: jax.Array, severity: jax.Array) -> jax.Array:
    """Multiply every channel value by normal noise around one."""
    deviation = pick((0.15, 0.2, 0.35, 0.45, 0.6), severity)
    return jnp.clip(image * (1 + deviation * jax.random.normal(key, image.shape)), 0, 1)


def impulse_noise(key: jax.Array, image: jax.Array, severity: jax.Array) -> jax.Array:
    """Set a share of the channel values to 0 or 1, half each."""
    share = pick((0.03, 0.06, 0.09, 0.17, 0.27), severity)
    draw = jax.random.uniform(key, image.shape)
    return jnp.where(draw < share / 2, 0, jnp.where(draw < share, 1, image))


def shot_noise(key: jax.Array, image: jax.Array, severity: jax.Array) -> jax.Array:
    """Replace every channel value by a Poisson count of photons.

    The intensity is rounded to 8 bits, so that one table of 256 distributions serves;
    a count is found in it by bisection of a uniform draw.
    """
    cumulative = jnp.asarray(_poisson_tables())[severity - 1].reshape(-1)
    first = jnp.round(image * 255).astype(jnp.int32) * COUNTS
    draw = jax.random.uniform(key, image.shape)
    count = jnp.zeros(image.shape, jnp.int32)
    for bit in (64, 32, 16, 8, 4, 2, 1):
        below = cumulative[first + count + bit - 1] < draw
        count = jnp.where(below, count + bit, count)
    return jnp.clip(count / pick(PHOTONS, severity), 0, 1)


@cache
def _poisson_tables() -> np.ndarray:
    """Return P(count <= k), `[severity, intensity, COUNTS]`."""
    mean = np.arange(256) / 255 * np.array(PHOTONS)[:, None]
    ratios = mean[..., None] / np.arange(1, COUNTS)  # P(k) / P(k - 1)
    terms = np.cumprod(np.concatenate([np.exp(-mean)[..., None], ratios], -1), axis=-1)
    return np.cumsum(terms, axis=-1).astype(np.float32)
