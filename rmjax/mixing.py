"""Mixing: a group of representations becomes one, with known proportions.

Everything here is a pure function of arrays. A training batch holds
`groups * members` items, the members of a group adjacent, so item
`g * members + i` is member i of group g.

A new mixing is one function with the signature of `MixFn` and one entry in
`MIXINGS`:

    def halves(keys, h, members, beta):
        weights = jnp.full((len(keys), members), 1 / members)
        return mix(h, weights), weights

    MIXINGS["halves"] = Mixing(halves)
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from rmjax.errors import InputError

# (keys [groups], h [groups * members, ...], members, beta)
#   -> (mixed h [groups, ...], weights [groups, members])
MixFn = Callable[[jax.Array, jax.Array, int, float | None], tuple[jax.Array, jax.Array]]


def sample_weights(keys: jax.Array, members: int, beta: float | None) -> jax.Array:
    """Draw convex mixing weights, one row a group.

    A row depends on its group's key alone, so the weights do not change with the
    number of devices that share the groups.

    Args:
        keys: typed random keys `[groups]`.
        members: images in a group, at least 1.
        beta: concentration of the symmetric Dirichlet distribution. Below one it
            favours a single member, above one an even mix. 0 or None draws
            uniformly from the simplex, which is the Dirichlet of concentration 1.

    Returns:
        Weights `[groups, members]`, float32, rows sum to one.

    Raises:
        InputError: `members` below 1 or `beta` below 0.

    References:
        Bui, Yu, Collomosse, RepMix, ECCV 2022, https://arxiv.org/abs/2207.02063
    """
    if members < 1:
        raise InputError(f"mixing members is {members}; a group has at least 1 member")
    if beta is not None and beta < 0:
        raise InputError(
            f"mixing beta is {beta}; it must be positive, or 0 for uniform"
        )
    alpha = jnp.full((members,), beta or 1.0, jnp.float32)
    return jax.vmap(lambda key: jax.random.dirichlet(key, alpha))(keys)


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


def mix_dirichlet(
    keys: jax.Array, h: jax.Array, members: int, beta: float | None
) -> tuple[jax.Array, jax.Array]:
    """Mix every group of `members` items with Dirichlet weights."""
    weights = sample_weights(keys, members, beta)
    return mix(h, weights), weights


def mix_nothing(
    keys: jax.Array, h: jax.Array, members: int, beta: float | None
) -> tuple[jax.Array, jax.Array]:
    """Leave every item as it is: each is a group of one, with weight one."""
    return h, jnp.ones((h.shape[0], 1), jnp.float32)


@dataclass(frozen=True)
class Mixing:
    """A way of mixing.

    Attributes:
        mix_fn: pure function, see `MixFn`.
        levels: where the network is cut. None leaves it to the config; one level is
            fixed; of several, each training step draws one at random.
        members: images in a group. None leaves it to the config.
    """

    mix_fn: MixFn
    levels: tuple[int, ...] | None = None
    members: int | None = None


# References:
#   mixup: Zhang et al., ICLR 2018, https://arxiv.org/abs/1710.09412. Its Beta(a, a)
#     is the Dirichlet of two members.
#   manifold: Verma et al., ICML 2019, https://arxiv.org/abs/1806.05236. Its ResNets
#     mix the input or the output of the first or the second residual stage.
MIXINGS: dict[str, Mixing] = {
    "repmix": Mixing(mix_dirichlet),
    "none": Mixing(mix_nothing, members=1),
    "mixup": Mixing(mix_dirichlet, levels=(0,)),
    "manifold": Mixing(mix_dirichlet, levels=(0, 2, 3)),
}


def get_mixing(name: str) -> Mixing:
    """Return the mixing called `name`.

    Raises:
        InputError: no such mixing; the message lists the choices.
    """
    if name not in MIXINGS:
        raise InputError(f"unknown mixing '{name}'; choose from {', '.join(MIXINGS)}")
    return MIXINGS[name]
