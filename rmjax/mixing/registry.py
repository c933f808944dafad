"""The mixings by name.

A new one is one function of `Settings` and one entry in `MIXINGS`:

    def halves(s):
        def mix_fn(keys, h):
            weights = jnp.full((len(h) // s.members, s.members), 1 / s.members)
            return Mixed(mix(h, weights), weights, adjacent(weights))

        return Mixing(mix_fn, levels=(s.level,), drawn=s.members, unit=s.members)

    MIXINGS["halves"] = halves
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from rmjax.errors import InputError
from rmjax.mixing.maps import mix_boxes, mix_channels, mix_statistics, mix_tokens
from rmjax.mixing.samples import (
    MixFn,
    Mixing,
    mix_factorial,
    mix_groups,
    mix_nothing,
    mix_pairs,
)
from rmjax.mixing.spectra import mix_amplitudes, mix_phases


class Settings(NamedTuple):
    """What a config's `mix` section says beside the name.

    Attributes:
        level: where to mix, 0..6, for those that leave it open.
        members: images in a sample, at least 1, for those that leave it open.
        beta: concentration of the weights, see `sample_weights`.
        block: adjacent images that pairs are formed within.
        partners: whom groups are made of, key of `rmjax.data.partners.PARTNERS`.
        band: least and greatest frequency whose amplitudes or phases are mixed, in
            cycles a pixel.
    """

    level: int
    members: int
    beta: float
    block: int
    partners: str
    band: tuple[float, float]


def make_mixing(name: str, **settings: int | float | str | tuple) -> Mixing:
    """Return the mixing called `name` with the settings of a config's `mix` section.

    Args:
        name: key of `MIXINGS`.
        settings: the fields of `Settings`.

    Raises:
        InputError: no such mixing (the message lists the choices), or a setting out of
            range.
    """
    s = Settings(**settings)
    if name not in MIXINGS:
        raise InputError(f"unknown mixing '{name}'; choose from {', '.join(MIXINGS)}")
    if not 0 <= s.level <= 6:
        raise InputError(f"mix.level = {s.level}: give a level from 0 to 6")
    if s.members < 1:
        raise InputError(f"mix.members = {s.members}: a sample has at least 1 member")
    if s.beta < 0:
        raise InputError(f"mix.beta = {s.beta}: give a positive one, or 0 for uniform")
    if len(s.band) != 2 or not 0 <= s.band[0] < s.band[1]:
        raise InputError(
            f"mix.band = {tuple(s.band)}: give a least and a greater frequency, in "
            "cycles a pixel, such as (0.0, 0.1)"
        )
    return MIXINGS[name](s)


def _nothing(s: Settings) -> Mixing:
    return Mixing(mix_nothing, (s.level,), drawn=1, unit=1)


def _groups(mix_fn: MixFn, s: Settings, members: int) -> Mixing:
    return Mixing(mix_fn, (s.level,), members, members, s.partners)


def _of_members(function: Callable) -> Callable[[Settings], Mixing]:
    """Return groups of the config's members, mixed by `function`."""

    def make(s: Settings) -> Mixing:
        mix_fn = partial(function, members=s.members, beta=s.beta)
        return _groups(mix_fn, s, s.members)

    return make


def _boxes(s: Settings) -> Mixing:
    return _groups(partial(mix_boxes, beta=s.beta), s, members=2)


def _factorial(s: Settings) -> Mixing:
    if s.partners not in ("any", "factorial"):
        raise InputError(
            f"mix.partners = '{s.partners}': mixing 'factorial' finds its own; leave "
            "'any'"
        )
    chosen = s._replace(partners="factorial")
    return _groups(partial(mix_factorial, beta=s.beta), chosen, members=4)


def _blocks(mix_fn: MixFn, s: Settings, members: int) -> Mixing:
    """Return samples that are mixed within blocks of images drawn one by one."""
    if members > s.block:
        raise InputError(
            f"mix.members = {members} is more than mix.block = {s.block}, the images "
            "that they are chosen from"
        )
    if s.partners != "any":
        raise InputError(
            f"mix.partners = '{s.partners}': only the members of groups, drawn together, "
            "can be chosen; here they are the others of a block: leave 'any'"
        )
    mix_fn = partial(mix_fn, beta=s.beta, block=s.block)
    return Mixing(mix_fn, (s.level,), drawn=1, unit=s.block)


def _pairs(s: Settings) -> Mixing:
    return _blocks(partial(mix_pairs, members=s.members), s, s.members)


def _statistics(s: Settings) -> Mixing:
    return _blocks(mix_statistics, s, members=2)


def _in_band(mix_fn: MixFn) -> Callable[[Settings], Mixing]:
    return lambda s: _blocks(partial(mix_fn, band=s.band), s, members=2)


def _at(
    levels: tuple[int, ...], make: Callable[[Settings], Mixing]
) -> Callable[[Settings], Mixing]:
    """Return `make` with its own levels instead of the config's."""
    return lambda s: replace(make(s), levels=levels)


def _on_maps(make: Callable[[Settings], Mixing]) -> Callable[[Settings], Mixing]:
    """Return `make`, refusing the levels that have no map."""

    def checked(s: Settings) -> Mixing:
        if s.level > 4:
            raise InputError(
                f"mix.level = {s.level}: this mixing takes places of a map; give a "
                "level from 0 to 4"
            )
        return make(s)

    return checked


# References, beside those of the functions:
#   mixup: Zhang et al., ICLR 2018, https://arxiv.org/abs/1710.09412. Its Beta(a, a)
#     is the Dirichlet of two members.
#   manifold: Verma et al., ICML 2019, https://arxiv.org/abs/1806.05236. Its ResNets
#     mix the input or the output of the first or the second residual stage.
#   cutmix mixes the pixels; mixstyle after the first or the second residual stage
#     (published: both, or more); amplitude and phase the pixels.
MIXINGS: dict[str, Callable[[Settings], Mixing]] = {
    "repmix": _of_members(mix_groups),
    "none": _nothing,
    "mixup": _at((0,), _of_members(mix_groups)),
    "manifold": _at((0, 2, 3), _of_members(mix_groups)),
    "pairs": _pairs,
    "manifold_pairs": _at((0, 2, 3), _pairs),
    "cutmix": _at((0,), _boxes),
    "channels": _of_members(mix_channels),
    "tokens": _on_maps(_of_members(mix_tokens)),
    "mixstyle": _at((2, 3), _statistics),
    "amplitude": _at((0,), _in_band(mix_amplitudes)),
    "phase": _at((0,), _in_band(mix_phases)),
    "factorial": _factorial,
}
