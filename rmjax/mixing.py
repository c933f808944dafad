"""Mixing: several representations become one, with known proportions.

Everything here is a pure function of arrays. There are two ways to find who is mixed
with whom:

    groups  the data pipeline draws `members` images together, adjacent in the batch,
            and each group becomes one sample: as many backbone passes a sample as the
            group has members
    pairs   the data pipeline draws single images, and each is mixed with `members - 1`
            others of its block, a fixed number of adjacent images: as many samples as
            images, one backbone pass each

A new mixing is one function of the config's `mix` section and one entry in `MIXINGS`:

    def halves(level, members, beta, block):
        def mix_fn(keys, h):
            weights = jnp.full((len(h) // members, members), 1 / members)
            return Mixed(mix(h, weights), weights, adjacent(weights))

        return Mixing(mix_fn, levels=(level,), drawn=members, unit=members)

    MIXINGS["halves"] = halves

References:
    Bui, Yu, Collomosse, RepMix, ECCV 2022, https://arxiv.org/abs/2207.02063 (groups)
    Zhang et al., mixup, ICLR 2018, https://arxiv.org/abs/1710.09412, section 2: a batch
        mixed with itself, permuted, does as well as two batches (pairs)
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rmjax.errors import InputError

# What an image's key is folded with, for each draw of `mix_pairs`.
_KEY_WEIGHTS, _KEY_SHIFTS = range(2)


class Mixed(NamedTuple):
    """Mixed samples, and what went into them.

    Attributes:
        h: the samples `[samples, ...]`.
        weights: float32 `[samples, members]`, rows sum to one.
        places: int32 `[samples, members]`, which images of the batch were mixed.
    """

    h: jax.Array
    weights: jax.Array
    places: jax.Array


# (keys `[images]`, one an image; representations `[images, ...]`) -> the samples.
MixFn = Callable[[jax.Array, jax.Array], Mixed]


@dataclass(frozen=True)
class Mixing:
    """A way of mixing, its settings filled in.

    Attributes:
        mix_fn: pure function, see `MixFn`.
        levels: where the network is cut; of several, each training step draws one.
        drawn: images that the data pipeline draws together, adjacent in the batch: the
            first of them from a shuffled pass, the others at random.
        unit: adjacent images that are mixed with no others. Whole units go to a device,
            so what is mixed does not depend on the devices.
    """

    mix_fn: MixFn
    levels: tuple[int, ...]
    drawn: int
    unit: int


def make_mixing(
    name: str, *, level: int, members: int, beta: float, block: int
) -> Mixing:
    """Return the mixing called `name` with the settings of a config's `mix` section.

    Args:
        name: key of `MIXINGS`.
        level: where to mix, 0..6, for those that leave it open.
        members: images in a sample, at least 1.
        beta: concentration of the weights, see `sample_weights`.
        block: adjacent images that pairs are formed within.

    Raises:
        InputError: no such mixing (the message lists the choices), or a setting out of
            range.
    """
    if name not in MIXINGS:
        raise InputError(f"unknown mixing '{name}'; choose from {', '.join(MIXINGS)}")
    if not 0 <= level <= 6:
        raise InputError(f"mix.level = {level}: give a level from 0 to 6")
    if members < 1:
        raise InputError(f"mix.members = {members}: a sample has at least 1 member")
    if beta < 0:
        raise InputError(f"mix.beta = {beta}: give a positive one, or 0 for uniform")
    return MIXINGS[name](level, members, beta, block)


def sample_weights(keys: jax.Array, members: int, beta: float | None) -> jax.Array:
    """Draw convex mixing weights, one row a sample.

    A row depends on its sample's key alone, so the weights do not change with the
    number of devices that share the samples.

    Args:
        keys: typed random keys `[samples]`.
        members: images in a sample, at least 1.
        beta: concentration of the symmetric Dirichlet distribution. Below one it
            favours a single member, above one an even mix. 0 or None draws
            uniformly from the simplex, which is the Dirichlet of concentration 1.

    Returns:
        Weights `[samples, members]`, float32, rows sum to one.

    References:
        Bui, Yu, Collomosse, RepMix, ECCV 2022, https://arxiv.org/abs/2207.02063
    """
    alpha = jnp.full((members,), beta or 1.0, jnp.float32)
    return jax.vmap(lambda key: jax.random.dirichlet(key, alpha))(keys)


def sample_partners(keys: jax.Array, members: int, block: int) -> jax.Array:
    """Draw whom each image of a block is mixed with: cyclic shifts of the block.

    The shifts of a block are distinct and none is zero, so no image meets itself or
    the same partner twice in a sample, and every image is in `members` samples.

    Args:
        keys: typed random keys `[blocks]`.
        members: images in a sample, the first being the image itself; 1..`block`.
        block: images in a block.

    Returns:
        Places `[blocks * block, members]`, int32.
    """

    def shifts(key: jax.Array) -> jax.Array:
        drawn = 1 + jax.random.permutation(key, block - 1)[: members - 1]
        return jnp.concatenate([jnp.zeros(1, jnp.int32), drawn.astype(jnp.int32)])

    drawn = jax.vmap(shifts)(keys)[:, None]
    within = (jnp.arange(block, dtype=jnp.int32)[:, None] + drawn) % block
    starts = block * jnp.arange(len(keys), dtype=jnp.int32)
    return (starts[:, None, None] + within).reshape(-1, members)


def adjacent(weights: jax.Array) -> jax.Array:
    """Return the places of groups that lie one after the other, in `weights`' shape."""
    return jnp.arange(weights.size, dtype=jnp.int32).reshape(weights.shape)


def mix(x: jax.Array, weights: jax.Array) -> jax.Array:
    """Combine the members of each group with the given weights.

    Args:
        x: items `[groups * members, ...]`, members of a group adjacent.
        weights: `[groups, members]`.

    Returns:
        `[groups, ...]` in the type of `x`; the sum itself is taken in the wider of
        the two types.
    """
    groups, members = weights.shape
    x_groups = x.reshape(groups, members, *x.shape[1:])
    w = weights.reshape(groups, members, *(1,) * (x.ndim - 1))
    return (x_groups * w).sum(axis=1).astype(x.dtype)


def mix_places(x: jax.Array, weights: jax.Array, places: jax.Array) -> jax.Array:
    """Combine items from anywhere: row i is `sum_j weights[i, j] * x[places[i, j]]`.

    Args:
        x: items `[items, ...]`.
        weights: `[samples, members]`.
        places: int `[samples, members]`.

    Returns:
        `[samples, ...]`, type and sum as in `mix`.
    """
    # Member by member: all of them at once would hold `members` copies of a map.
    w = weights.reshape(*weights.shape, *(1,) * (x.ndim - 1))
    terms = [x[places[:, j]] * w[:, j] for j in range(weights.shape[1])]
    return sum(terms[1:], terms[0]).astype(x.dtype)


def mix_groups(keys: jax.Array, h: jax.Array, *, members: int, beta: float) -> Mixed:
    """Mix every group of `members` adjacent images into one sample."""
    weights = sample_weights(keys[::members], members, beta)
    return Mixed(mix(h, weights), weights, adjacent(weights))


def mix_pairs(
    keys: jax.Array, h: jax.Array, *, members: int, beta: float, block: int
) -> Mixed:
    """Mix every image with `members - 1` others of its block into one sample each.

    The first weight of a sample is its own image's. Weights are drawn by the image's
    key, the shifts of a block by that of its first image.
    """
    fold = jax.vmap(jax.random.fold_in, (0, None))
    weights = sample_weights(fold(keys, _KEY_WEIGHTS), members, beta)
    places = sample_partners(fold(keys[::block], _KEY_SHIFTS), members, block)
    return Mixed(mix_places(h, weights, places), weights, places)


def mix_nothing(keys: jax.Array, h: jax.Array) -> Mixed:
    """Leave every image as it is: a sample of one, with weight one."""
    weights = jnp.ones((len(h), 1), jnp.float32)
    return Mixed(h, weights, adjacent(weights))


def _groups(level: int, members: int, beta: float, block: int) -> Mixing:
    mix_fn = partial(mix_groups, members=members, beta=beta)
    return Mixing(mix_fn, (level,), drawn=members, unit=members)


def _pairs(level: int, members: int, beta: float, block: int) -> Mixing:
    if members > block:
        raise InputError(
            f"mix.members = {members} is more than mix.block = {block}, the images "
            "that they are chosen from"
        )
    mix_fn = partial(mix_pairs, members=members, beta=beta, block=block)
    return Mixing(mix_fn, (level,), drawn=1, unit=block)


def _nothing(level: int, members: int, beta: float, block: int) -> Mixing:
    return Mixing(mix_nothing, (level,), drawn=1, unit=1)


def _at(levels: tuple[int, ...], make: Callable[..., Mixing]) -> Callable[..., Mixing]:
    """Return `make` with its own levels instead of the config's."""
    return lambda *settings: replace(make(*settings), levels=levels)


# Functions of (level, members, beta, block).
# References:
#   mixup: Zhang et al., ICLR 2018, https://arxiv.org/abs/1710.09412. Its Beta(a, a)
#     is the Dirichlet of two members.
#   manifold: Verma et al., ICML 2019, https://arxiv.org/abs/1806.05236. Its ResNets
#     mix the input or the output of the first or the second residual stage.
MIXINGS: dict[str, Callable[[int, int, float, int], Mixing]] = {
    "repmix": _groups,
    "none": _nothing,
    "mixup": _at((0,), _groups),
    "manifold": _at((0, 2, 3), _groups),
    "pairs": _pairs,
    "manifold_pairs": _at((0, 2, 3), _pairs),
}
