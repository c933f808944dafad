"""Samples of several images: who is mixed, in what proportion, and the mix itself.

There are two ways to find who is mixed with whom:

    groups  the data pipeline draws `members` images together, adjacent in the batch,
            and each group becomes one sample: as many backbone passes a sample as the
            group has members
    pairs   the data pipeline draws single images, and each is mixed with `members - 1`
            others of its block, a fixed number of adjacent images: as many samples as
            images, one backbone pass each

References:
    Bui, Yu, Collomosse, RepMix, ECCV 2022, https://arxiv.org/abs/2207.02063 (groups)
    Zhang et al., mixup, ICLR 2018, https://arxiv.org/abs/1710.09412, section 2: a batch
        mixed with itself, permuted, does as well as two batches (pairs)
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rmjax.errors import InputError

# What an image's key is folded with, for each draw that a mix takes from it.
KEY_WEIGHTS, KEY_SHIFTS, KEY_PLACES = range(3)
# For a gamma variate. At least 0.95 of them are accepted: all 8 fail in 1 of 10**10 draws.
PROPOSALS = 8


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

    def targets(self, labels: jax.Array, num_labels: int) -> jax.Array:
        """Return what the samples are to be classified as, in the mixed proportions.

        Args:
            labels: of the images that were mixed, int `[images]`, such as their sources.
            num_labels: how many there are.

        Returns:
            float32 `[samples, num_labels]`, rows sum to one: for
            `optax.softmax_cross_entropy` and the like.
        """
        members = jnp.asarray(labels)[self.places]
        return mix_labels(members, self.weights, num_labels)


# (keys `[images]`, one an image; representations `[images, ...]`) -> the samples.
MixFn = Callable[[jax.Array, jax.Array], Mixed]


@dataclass(frozen=True)
class Mixing:
    """A way of mixing, its settings filled in: a `MixFn` that says where it belongs.

    Attributes:
        mix_fn: pure function, see `MixFn`.
        levels: where the network is cut; of several, each training step draws one.
        drawn: images that the data pipeline draws together, adjacent in the batch: the
            first of them from a shuffled pass, the others as `partners` says.
        unit: adjacent images that are mixed with no others. Whole units go to a device,
            so what is mixed does not depend on the devices.
        partners: key of `rmjax.data.partners.PARTNERS`.
    """

    mix_fn: MixFn
    levels: tuple[int, ...]
    drawn: int
    unit: int
    partners: str = "any"

    def __call__(self, keys: jax.Array, h: jax.Array) -> Mixed:
        """Mix, see `MixFn`.

        Raises:
            InputError: the images are no whole number of units.
        """
        if len(h) % self.unit:
            raise InputError(
                f"{len(h)} images can't be mixed {self.unit} by {self.unit}: give a "
                "multiple, or change members or block"
            )
        return self.mix_fn(keys, h)


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
    draw = partial(_log_gamma, alpha=beta or 1.0)
    own = jax.vmap(lambda key: jax.random.split(key, members))(keys)
    return jax.nn.softmax(jax.vmap(jax.vmap(draw))(own), axis=-1)


def _log_gamma(key: jax.Array, alpha: float) -> jax.Array:
    """Draw the logarithm of a gamma variate, as `jax.random.loggamma` does.

    That draws until it accepts a number: loops whose length nobody knows before, at
    each turn of which a GPU waits for the host. Here as many are drawn as will do. The
    numbers are the same, but for one in 10,000 where `alpha` is 1, and fewer elsewhere.

    References:
        Marsaglia and Tsang, A Simple Method for Generating Gamma Variables, ACM
            Transactions on Mathematical Software 26(3), 2000 (below 1: section 6)
    """
    key, boost_key = jax.random.split(key)
    d = (alpha if alpha >= 1 else alpha + 1) - 1 / 3
    c = 1 / 3 / d**0.5

    def next_keys(key: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
        key, x_key, u_key = jax.random.split(key, 3)
        x_key, first_key = jax.random.split(x_key)
        _, second_key = jax.random.split(x_key)
        return key, jnp.stack([first_key, second_key, u_key])

    _, keys = jax.lax.scan(next_keys, key, length=PROPOSALS)
    first, second = jax.vmap(jax.vmap(jax.random.normal))(keys[:, :2]).T
    x = jnp.where(1 + c * first > 0, first, second)
    log_v = 3 * jnp.log(1 + c * x)  # NaN, which is not accepted, where both fail
    u = jax.vmap(jax.random.uniform)(keys[:, 2])
    accepted = jnp.log(u) < x * x / 2 + d * (1 - jnp.exp(log_v) + log_v)
    drawn = math.log(d) + log_v[jnp.argmax(accepted)]
    if alpha >= 1:
        return drawn
    return drawn - jax.random.exponential(boost_key) / alpha


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


def mix_labels(labels: jax.Array, weights: jax.Array, num_labels: int) -> jax.Array:
    """Return the share of each label in a sample, float32 `[samples, num_labels]`.

    Args:
        labels: of the members, int `[samples, members]`.
        weights: `[samples, members]`.
        num_labels: how many there are.
    """
    one_hot = jax.nn.one_hot(labels, num_labels)
    return jnp.sum(weights[..., None] * one_hot, axis=1)


def combine(x: jax.Array, weights: jax.Array) -> jax.Array:
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


def combine_places(x: jax.Array, weights: jax.Array, places: jax.Array) -> jax.Array:
    """Combine items from anywhere: row i is `sum_j weights[i, j] * x[places[i, j]]`.

    Args:
        x: items `[items, ...]`.
        weights: `[samples, members]`.
        places: int `[samples, members]`.

    Returns:
        `[samples, ...]`, type and sum as in `combine`.
    """
    # Member by member: all of them at once would hold `members` copies of a map.
    w = weights.reshape(*weights.shape, *(1,) * (x.ndim - 1))
    terms = [x[places[:, j]] * w[:, j] for j in range(weights.shape[1])]
    return sum(terms[1:], terms[0]).astype(x.dtype)


def mix_groups(keys: jax.Array, h: jax.Array, *, members: int, beta: float) -> Mixed:
    """Mix every group of `members` adjacent images into one sample."""
    weights = sample_weights(keys[::members], members, beta)
    return Mixed(combine(h, weights), weights, adjacent(weights))


def mix_pairs(
    keys: jax.Array, h: jax.Array, *, members: int, beta: float, block: int
) -> Mixed:
    """Mix every image with `members - 1` others of its block into one sample each."""
    weights, places = draw_pairs(keys, members, beta, block)
    return Mixed(combine_places(h, weights, places), weights, places)


def mix_nothing(keys: jax.Array, h: jax.Array) -> Mixed:
    """Leave every image as it is: a sample of one, with weight one."""
    return own_label(h)


def mix_factorial(keys: jax.Array, h: jax.Array, *, beta: float) -> Mixed:
    """Mix two sources crossed with two semantics, in independent proportions.

    A group is (source a, semantic p), (a, q), (b, p), (b, q): what the partners
    "factorial" draw. The weight of a member is that of its source times that of its
    semantic, both from a Dirichlet distribution of their own. In a mix of two random
    images the one that gives more of its content also gives more of its source, so a
    network may read the proportions, and the label, off the content. Here the content
    of a sample says nothing of its label: the same proportion of the semantics comes
    with every proportion of the sources. Our own.
    """
    own = keys[::4]
    of_sources = sample_weights(fold_keys(own, KEY_WEIGHTS), 2, beta)
    of_semantics = sample_weights(fold_keys(own, KEY_SHIFTS), 2, beta)
    weights = (of_sources[:, :, None] * of_semantics[:, None]).reshape(-1, 4)
    return Mixed(combine(h, weights), weights, adjacent(weights))


def own_label(h: jax.Array) -> Mixed:
    """Return samples `[images, ...]` that keep the label of their image alone."""
    weights = jnp.ones((len(h), 1), jnp.float32)
    return Mixed(h, weights, adjacent(weights))


def draw_pairs(
    keys: jax.Array, members: int, beta: float, block: int
) -> tuple[jax.Array, jax.Array]:
    """Draw weights and places `[images, members]` of samples within blocks.

    The first weight of a sample is its own image's. Weights are drawn by the image's
    key, the shifts of a block by that of its first image.
    """
    weights = sample_weights(fold_keys(keys, KEY_WEIGHTS), members, beta)
    shifts = fold_keys(keys[::block], KEY_SHIFTS)
    return weights, sample_partners(shifts, members, block)


def fold_keys(keys: jax.Array, draw: int) -> jax.Array:
    """Derive the keys of one draw from those of images, `[images]` each."""
    return jax.vmap(jax.random.fold_in, (0, None))(keys, draw)
