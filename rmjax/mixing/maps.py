"""Mixes that take each part of a representation from one member, or its statistics.

A part is a region, a place or a channel. Labels are mixed in the proportion in which
parts were taken.
"""

import math

import jax
import jax.numpy as jnp

from rmjax.mixing.samples import (
    KEY_PLACES,
    KEY_WEIGHTS,
    Mixed,
    adjacent,
    draw_pairs,
    fold_keys,
    own_label,
    sample_weights,
)


def mix_boxes(keys: jax.Array, h: jax.Array, *, beta: float) -> Mixed:
    """Paste a box of each group's second map into its first one.

    The box has the proportions of the map and covers a Beta(beta, beta) share of it
    where it lies inside; its centre is uniform, and what hangs over the border is cut.

    Args:
        keys: `[images]`.
        h: maps `[2 * groups, H, W, channels]`.
        beta: of the share; 0 is uniform, as published.

    References:
        Yun et al., CutMix, ICCV 2019, https://arxiv.org/abs/1905.04899
    """
    first, second = h[::2], h[1::2]
    shares = sample_weights(fold_keys(keys[::2], KEY_WEIGHTS), 2, beta)[:, 1]
    centres = jax.vmap(lambda key: jax.random.uniform(key, (2,)))(
        fold_keys(keys[::2], KEY_PLACES)
    )
    rows, columns = (
        jnp.abs((jnp.arange(size) + 0.5) / size - centre[:, None])
        < jnp.sqrt(shares)[:, None] / 2
        for size, centre in zip(h.shape[1:3], centres.T, strict=True)
    )
    inside = rows[:, :, None] & columns[:, None]
    share = jnp.mean(inside, axis=(1, 2), dtype=jnp.float32)
    weights = jnp.stack([1 - share, share], axis=1)
    mixed = jnp.where(inside[..., None], second, first)
    return Mixed(mixed, weights, adjacent(weights))


def mix_channels(keys: jax.Array, h: jax.Array, *, members: int, beta: float) -> Mixed:
    """Take every channel from one member of its group, whole.

    Args:
        keys: `[images]`.
        h: `[groups * members, ..., channels]`.
        members: images in a group.
        beta: of the Dirichlet weights by which a channel falls to a member.

    References:
        Liu et al., ShuffleMix, 2023, https://arxiv.org/abs/2305.18684
    """
    parts = (*(1,) * (h.ndim - 2), h.shape[-1])
    return _mix_parts(keys, h, parts, members=members, beta=beta)


def mix_tokens(keys: jax.Array, h: jax.Array, *, members: int, beta: float) -> Mixed:
    """Take every place of a map, all its channels, from one member of its group.

    Args:
        keys: `[images]`.
        h: maps `[groups * members, H, W, channels]`, or tokens
            `[groups * members, tokens, channels]`.
        members: images in a group.
        beta: of the Dirichlet weights by which a place falls to a member.

    References:
        Liu et al., TokenMix, ECCV 2022, https://arxiv.org/abs/2207.08409; their tokens
        are taken in blocks, and the proportion of labels follows the attention.
    """
    return _mix_parts(keys, h, (*h.shape[1:-1], 1), members=members, beta=beta)


def _mix_parts(
    keys: jax.Array,
    h: jax.Array,
    parts: tuple[int, ...],
    *,
    members: int,
    beta: float,
) -> Mixed:
    """Take each of `parts` (a shape that broadcasts to a member's) from one member."""
    own = keys[::members]
    weights = sample_weights(fold_keys(own, KEY_WEIGHTS), members, beta)
    chosen = jax.vmap(lambda key, w: jax.random.choice(key, members, shape=parts, p=w))(
        fold_keys(own, KEY_PLACES), weights
    )
    taken = chosen[:, None] == jnp.arange(members).reshape(1, -1, *(1,) * len(parts))
    counts = taken.reshape(len(own), members, -1).sum(axis=-1)
    shares = counts.astype(jnp.float32) / math.prod(parts)
    groups = h.reshape(len(own), members, *h.shape[1:])
    mixed = jnp.where(taken, groups, jnp.zeros_like(groups)).sum(axis=1)
    return Mixed(mixed, shares, adjacent(shares))


def mix_statistics(keys: jax.Array, h: jax.Array, *, beta: float, block: int) -> Mixed:
    """Give half of the maps a mean and deviation mixed with those of another map.

    Each channel's statistics over its places; the label stays that of the image. No
    gradient passes through the statistics.

    Args:
        keys: `[images]`.
        h: maps `[images, H, W, channels]`, or tokens `[images, tokens, channels]`.
        beta: of the weights of the own and the other statistics; published: 0.1.
        block: adjacent images that the others are chosen from.

    References:
        Zhou et al., MixStyle, ICLR 2021, https://arxiv.org/abs/2104.02008; there the
        half is of the steps, here of the images.
    """
    weights, places = draw_pairs(keys, 2, beta, block)
    applied = jax.vmap(jax.random.bernoulli)(fold_keys(keys, KEY_PLACES))
    weights = jnp.where(applied[:, None], weights, jnp.array([1.0, 0.0]))
    x, over = h.astype(jnp.float32), tuple(range(1, h.ndim - 1))
    mean = jax.lax.stop_gradient(x.mean(over, keepdims=True))
    deviation = jax.lax.stop_gradient(jnp.sqrt(x.var(over, keepdims=True) + _EPSILON))

    def mixed(of: jax.Array) -> jax.Array:
        return jnp.einsum("im,im...->i...", weights, of[places])

    x = (x - mean) / deviation * mixed(deviation) + mixed(mean)
    return own_label(x.astype(h.dtype))


_EPSILON = 1e-6  # added to a variance, as published
