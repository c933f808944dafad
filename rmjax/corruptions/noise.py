"""Corruptions by noise. Images are `[H, W, 3]` in [0, 1], severities 1..5."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np

from rmjax.corruptions import primitives
from rmjax.corruptions.primitives import pick
from rmjax.utils.platform import target_platform

# Shot noise: photons at full intensity; counts are cut off where fewer than one in
# 10**9 are beyond.
PHOTONS = (60, 25, 12, 5, 3)
COUNTS = 128


def gaussian_noise(key: jax.Array, image: jax.Array, severity: jax.Array) -> jax.Array:
    """Add normal noise, drawn for every channel value."""
    deviation = pick((0.08, 0.12, 0.18, 0.26, 0.38), severity)
    return jnp.clip(image + deviation * primitives.normal(key, image.shape), 0, 1)


def speckle_noise(key: jax.Array, image: jax.Array, severity: jax.Array) -> jax.Array:
    """Multiply every channel value by normal noise around one."""
    deviation = pick((0.15, 0.2, 0.35, 0.45, 0.6), severity)
    return jnp.clip(image * (1 + deviation * primitives.normal(key, image.shape)), 0, 1)


def impulse_noise(key: jax.Array, image: jax.Array, severity: jax.Array) -> jax.Array:
    """Set a share of the channel values to 0 or 1, half each."""
    share = pick((0.03, 0.06, 0.09, 0.17, 0.27), severity)
    draw = primitives.uniform(key, image.shape)
    return jnp.where(draw < share / 2, 0, jnp.where(draw < share, 1, image))


def shot_noise(key: jax.Array, image: jax.Array, severity: jax.Array) -> jax.Array:
    """Replace every channel value by a Poisson count of photons.

    The intensity is rounded to 8 bits, so that one table of 256 distributions serves.

    References:
        Walker, An Efficient Method for Generating Discrete Random Variables with
        General Distributions, 1977: a draw picks a column of the table, and what is
        left of it decides between the column's own count and its alias.
    """
    draw = primitives.bits(key, image.shape)
    level = jnp.round(image * 255).astype(jnp.int32)
    column = (draw % COUNTS).astype(jnp.int32)
    table = jnp.asarray(_poisson_table())[severity - 1]
    places = level * COUNTS + column
    if target_platform() == "tpu":  # which lays images out in planes
        word = primitives.in_turn(primitives.look_up)(table, places.transpose(2, 0, 1))
        word = word.transpose(1, 2, 0)
    else:
        word = primitives.look_up(table, places)
    count = jnp.where(draw >> 8 < word >> 7, column, (word % COUNTS).astype(jnp.int32))
    return jnp.clip(count / pick(PHOTONS, severity), 0, 1)


@cache
def _poisson_table() -> np.ndarray:
    """Return uint32 `[severity, intensity * COUNTS]`: share * 2**24, and below it alias.

    One word, as looking it up is most of the work. A share is rounded up, so that the
    draws of 24 bits that are under it stay under it.
    """
    mean = np.arange(256) / 255 * np.array(PHOTONS)[:, None]
    ratios = mean[..., None] / np.arange(1, COUNTS)  # P(k) / P(k - 1)
    terms = np.cumprod(np.concatenate([np.exp(-mean)[..., None], ratios], -1), axis=-1)
    left = (terms * (COUNTS / terms.sum(-1, keepdims=True))).reshape(-1, COUNTS)
    share = np.ones(left.shape)
    alias = np.tile(np.arange(COUNTS), (len(left), 1))
    rows = np.arange(len(left))
    done = np.zeros(left.shape, bool)
    for _ in range(COUNTS - 1):  # the least is filled up from the greatest
        least = np.where(done, np.inf, left).argmin(-1)
        greatest = np.where(done, -np.inf, left).argmax(-1)
        share[rows, least], alias[rows, least] = left[rows, least], greatest
        left[rows, greatest] -= 1 - left[rows, least]
        done[rows, least] = True
    # A share of one needs no alias: that it is a little less changes nothing.
    share = np.minimum(np.ceil(share.astype(np.float32) * 2.0**24), 2**24 - 1)
    words = share.astype(np.uint32) * COUNTS + alias.astype(np.uint32)
    return words.reshape(len(PHOTONS), 256 * COUNTS)
