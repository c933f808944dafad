"""The mixings by name, declared as data.

A new one is one function and one entry in `MIXINGS`:

    def mix_halves(keys, h, *, members):
        weights = jnp.full((len(h) // members, members), 1 / members)
        return Mixed(combine(h, weights), weights, adjacent(weights))

    MIXINGS["halves"] = Recipe(mix_halves, takes=("members",), among="group")
"""

from collections.abc import Callable
from functools import partial
from numbers import Integral, Real
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from rmjax.errors import InputError
from rmjax.mixing.maps import mix_boxes, mix_channels, mix_statistics, mix_tokens
from rmjax.mixing.samples import (
    Mixed,
    Mixing,
    mix_factorial,
    mix_groups,
    mix_nothing,
    mix_pairs,
)
from rmjax.mixing.spectra import mix_amplitudes, mix_phases
from rmjax.utils.choose import choose
from rmjax.utils.keys import check_key

DEEPEST = 6  # the level of the embedding
DEEPEST_MAP = 4  # after it representations are vectors: the pool comes first


class Recipe(NamedTuple):
    """A mixing before its settings are known.

    Attributes:
        function: pure function `(keys, h, **settings)`, see `rmjax.mixing.MixFn`.
        takes: which of the settings `members`, `beta`, `block` and `band` it is given.
        among: what an image is mixed with: "group", the images that the data pipeline
            drew together for one sample; "block", the others of its block of adjacent
            images, where every image begins a sample; "alone", nothing.
        levels: where it mixes, each training step at one of them; empty: at
            `mix.level`.
        members: images in a sample; 0: `mix.members`.
        deepest: the last level whose representations it can mix.
        maps: whether these have to be maps, with places.
        partners: who is drawn together, key of `rmjax.data.partners.PARTNERS`; empty:
            `mix.partners`.
    """

    function: Callable[..., Mixed]
    takes: tuple[str, ...] = ()
    among: Literal["group", "block", "alone"] = "group"
    levels: tuple[int, ...] = ()
    members: int = 0
    deepest: int = DEEPEST
    maps: bool = False
    partners: str = ""


_WEIGHTS = ("members", "beta")
_BLOCK = ("beta", "block")

# References, beside those of the functions:
#   mixup: Zhang et al., ICLR 2018, https://arxiv.org/abs/1710.09412. Its Beta(a, a)
#     is the Dirichlet of two members.
#   manifold: Verma et al., ICML 2019, https://arxiv.org/abs/1806.05236. Its ResNets
#     mix the input or the output of the first or the second residual stage.
#   cutmix mixes the pixels; mixstyle after the first or the second residual stage
#     (published: both, or more); amplitude and phase the pixels.
MIXINGS: dict[str, Recipe] = {
    "repmix": Recipe(mix_groups, _WEIGHTS),
    "none": Recipe(mix_nothing, among="alone"),
    "mixup": Recipe(mix_groups, _WEIGHTS, levels=(0,)),
    "manifold": Recipe(mix_groups, _WEIGHTS, levels=(0, 2, 3)),
    "pairs": Recipe(mix_pairs, ("members", *_BLOCK), "block"),
    "manifold_pairs": Recipe(mix_pairs, ("members", *_BLOCK), "block", (0, 2, 3)),
    "cutmix": Recipe(mix_boxes, ("beta",), levels=(0,), members=2, maps=True),
    "channels": Recipe(mix_channels, _WEIGHTS),
    "tokens": Recipe(mix_tokens, _WEIGHTS, deepest=DEEPEST_MAP, maps=True),
    "mixstyle": Recipe(mix_statistics, _BLOCK, "block", (2, 3), 2, maps=True),
    "amplitude": Recipe(mix_amplitudes, (*_BLOCK, "band"), "block", (0,), 2, maps=True),
    "phase": Recipe(mix_phases, (*_BLOCK, "band"), "block", (0,), 2, maps=True),
    "factorial": Recipe(mix_factorial, ("beta",), members=4, partners="factorial"),
}


def make_mixing(
    name: str = "repmix",
    *,
    level: int | None = None,
    members: int = 2,
    beta: float = 0.4,
    block: int = 16,
    partners: str = "any",
    band: tuple[float, float] = (0.0, 0.1),
    maps: bool = True,
) -> Mixing:
    """Return the mixing called `name`, by default RepMix as published.

    Args:
        name: key of `MIXINGS`.
        level: where to mix, 0..6, for those that leave it open: 0 the network's input
            (in `rmjax train` the pixels that it is made of), 1 after the stem, 2..5
            after the residual stages, 6 the embedding. None: 5, as published, or the
            last before it that has a map, where one is needed.
        members: images in a sample, at least 1, for those that leave it open.
        beta: concentration of the weights, see `sample_weights`; 0: uniform.
        block: adjacent images that are mixed among each other, for those within blocks.
        partners: who is drawn together into a group, key of
            `rmjax.data.partners.PARTNERS`; only the data pipeline asks.
        band: least and greatest frequency whose amplitudes or phases are mixed, in
            cycles a pixel.
        maps: whether there are any: stored features are vectors.

    Raises:
        InputError: no such mixing (the message lists the choices), or a setting out of
            range.
    """
    recipe = choose("mixing", name, MIXINGS)
    if recipe.maps and not maps:
        raise InputError(
            f"mix.name = '{name}': this mixing takes places of a map, and stored features "
            "are vectors"
        )
    level = min(5, recipe.deepest) if level is None else level
    if not isinstance(level, Integral) or not 0 <= level <= DEEPEST:
        raise InputError(f"mix.level = {level}: give a level from 0 to {DEEPEST}")
    if not recipe.levels and level > recipe.deepest:
        raise InputError(
            f"mix.level = {level}: this mixing takes places of a map; give a level from "
            f"0 to {recipe.deepest}"
        )
    if not isinstance(members, Integral) or members < 1:
        raise InputError(f"mix.members = {members}: a sample has at least 1 member")
    if not isinstance(beta, Real) or beta < 0:
        raise InputError(f"mix.beta = {beta}: give a positive one, or 0 for uniform")
    if len(band) != 2 or not 0 <= band[0] < band[1]:
        raise InputError(
            f"mix.band = {tuple(band)}: give a least and a greater frequency, in "
            "cycles a pixel, such as (0.0, 0.1)"
        )
    members = recipe.members or members
    settings = {"members": members, "beta": beta, "block": block, "band": band}
    mix_fn = partial(recipe.function, **{key: settings[key] for key in recipe.takes})
    levels = recipe.levels or (level,)
    if recipe.among == "alone":
        return Mixing(mix_fn, levels, drawn=1, unit=1)
    if recipe.among == "block":
        _check_block(members, block, partners)
        return Mixing(mix_fn, levels, drawn=1, unit=block)
    if recipe.partners and partners not in ("any", recipe.partners):
        raise InputError(
            f"mix.partners = '{partners}': mixing '{name}' finds its own; leave 'any'"
        )
    return Mixing(mix_fn, levels, members, members, recipe.partners or partners)


def _check_block(members: int, block: int, partners: str) -> None:
    if not isinstance(block, Integral) or members > block:
        raise InputError(
            f"mix.members = {members} is more than mix.block = {block}, the images "
            "that they are chosen from"
        )
    if partners != "any":
        raise InputError(
            f"mix.partners = '{partners}': only the members of groups, drawn together, "
            "can be chosen; here they are the others of a block: leave 'any'"
        )


def mix(
    key: jax.Array,
    h: jax.Array,
    name: str = "repmix",
    *,
    members: int = 2,
    beta: float = 0.4,
    block: int = 16,
    band: tuple[float, float] = (0.0, 0.1),
) -> Mixed:
    """Mix the representations of a batch by the mixing called `name`.

    For a network of any kind, wherever you cut it; `rmjax.RepMix` takes a
    `make_mixing` instead and cuts itself. It works under `jit`, `vmap` and `grad`:

        mixed = rmjax.mix(key, h, "repmix", members=2)
        targets = mixed.targets(sources, num_sources)
        loss = optax.softmax_cross_entropy(head(mixed.h), targets).mean()

    Args:
        key: one random key; image i draws by the i-th of its split.
        h: float `[images, ...]`: images, maps `[images, H, W, channels]`, tokens
            `[images, tokens, channels]` or vectors `[images, channels]`. The members of
            a group are adjacent.
        name: key of `MIXINGS`.
        members: see `make_mixing`, as for the next three.
        beta: likewise.
        block: likewise.
        band: likewise.

    Returns:
        The samples, and what went into each, see `Mixed`.

    Raises:
        InputError: no such mixing (the message lists the choices), a setting out of
            range, `key` or `h` of another kind, or images that are no whole number of
            groups or blocks.
    """
    settings: dict[str, Any] = {"members": members, "beta": beta, "block": block}
    settings["band"] = tuple(band)
    make_mixing(name, **settings)
    check_key(key)
    recipe = MIXINGS[name]
    # Those of pixels need rows and columns, those of maps places.
    least = 4 if recipe.maps and recipe.levels == (0,) else 3 if recipe.maps else 2
    h = jnp.asarray(h)
    if h.ndim < least or not jnp.issubdtype(h.dtype, jnp.floating):
        shape = {2: "[images, ...]", 3: "[images, places, channels]"}
        raise InputError(
            f"h is {h.dtype} {list(h.shape)}: the mixing '{name}' takes floats "
            + shape.get(least, "[images, H, W, channels]")
        )
    return _mix(key, h, name, **settings)


# One program compiles sooner than each of the steps by itself.
@partial(jax.jit, static_argnames=("name", "members", "beta", "block", "band"))
def _mix(key: jax.Array, h: jax.Array, name: str, **settings: Any) -> Mixed:
    return make_mixing(name, **settings)(jax.random.split(key, len(h)), h)
