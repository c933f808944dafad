"""Batches of pictures, some adjacent ones to each generator."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from rmjax.simulate.render import simulate_many

# What a key is folded with for a generator's: `simulate` splits it into a few, which small
# numbers would give again.
_GENERATOR = 2**20


def simulate_groups(
    keys: jax.Array,
    images: jax.Array,
    sources: jax.Array,
    *,
    each: int,
    without: Sequence[str] = (),
) -> jax.Array:
    """Have a generator of its own render every `each` adjacent pictures.

    Args:
        keys: typed keys `[images]`; the first of a group draws its generator too.
        images: `[images, H, W, 3]` in [0, 1], see `simulate`.
        sources: of the images, int `[images]`, alike in a group; those of source 0, real,
            stay as they are.
        each: pictures of a generator.
        without: parts that the generators do without, see `simulate`.

    Returns:
        Images of the same shape.
    """
    grouped = (-1, each)
    pictures = images.reshape(*grouped, *images.shape[1:])
    keys = keys.reshape(grouped)
    generators = jax.vmap(lambda key: jax.random.fold_in(key, _GENERATOR))(keys[:, 0])
    rendered = simulate_many(generators, keys, pictures, without)
    real = sources.reshape(grouped)[..., None, None, None] == 0
    return jnp.where(real, pictures, rendered).reshape(images.shape)
