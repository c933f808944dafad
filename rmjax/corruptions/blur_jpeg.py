"""Blur and JPEG at random, the training augmentation of a baseline.

References:
    Wang et al., CNN-generated images are surprisingly easy to spot... for now, CVPR
    2020, https://arxiv.org/abs/1912.11035, section 3.2
"""

import jax
import jax.numpy as jnp
import numpy as np

from rmjax.corruptions.dispatch import map_kinds
from rmjax.corruptions.jpeg import jpeg
from rmjax.corruptions.linear import apply, dense
from rmjax.corruptions.primitives import round_through

MAX_SIGMA = 3.0  # of the blur, uniform from 0, in pixels
MIN_QUALITY = 30  # of JPEG, uniform to 100
_RADIUS = 12  # of the blur: 4 of the greatest deviations


def random_blur_jpeg(keys: jax.Array, images: jax.Array, rate: float) -> jax.Array:
    """Blur each image with probability `rate`, then compress it with probability `rate`.

    Published with a rate of 0.5 or 0.1, and with one of two JPEG encoders by chance,
    here by that of `rmjax.corruptions.jpeg`.

    Args:
        keys: `[batch]`, one an image.
        images: float `[batch, H, W, 3]` in [0, 1].
        rate: of each, in [0, 1].

    Returns:
        float32 like `images`, rounded to multiples of 1/255 where it was changed.
    """

    def draw(key: jax.Array) -> tuple[jax.Array, ...]:
        key_blurred, key_sigma, key_coded, key_quality = jax.random.split(key, 4)
        sigma = jax.random.uniform(key_sigma, maxval=MAX_SIGMA)
        quality = jax.random.randint(key_quality, (), MIN_QUALITY, 101)
        # Kind 0, the only one, or none.
        blurred, coded = (
            jnp.where(jax.random.bernoulli(drawn, rate), 0, 1)
            for drawn in (key_blurred, key_coded)
        )
        return blurred, sigma, coded, quality

    blurred, sigma, coded, quality = jax.vmap(draw)(keys)
    images = map_kinds([_blur], blurred, images, sigma)
    return map_kinds([jpeg], coded, images, quality)


def _blur(image: jax.Array, sigma: jax.Array) -> jax.Array:
    """Blur by a Gaussian of `sigma` pixels (traced), edges repeated; 8 bits after it."""
    offsets = np.arange(-_RADIUS, _RADIUS + 1)
    weights = jnp.exp(-0.5 * (offsets / jnp.maximum(sigma, 1e-3)) ** 2)
    weights = weights / weights.sum()

    def matrix(size: int) -> jax.Array:
        at = np.clip(np.arange(size)[:, None] + offsets, 0, size - 1)
        return dense(at, jnp.broadcast_to(weights, at.shape), size)

    height, width = image.shape[:2]
    blurred = apply(matrix(height), matrix(width), image)
    return round_through(jnp.clip(blurred, 0, 1) * 255) / 255
