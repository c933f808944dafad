"""Mixing: several representations become one, with known proportions.

Everything here is a pure function of arrays: see `Mixing`, `MixFn` and `MIXINGS`.
"""

from rmjax.mixing.registry import MIXINGS, Recipe, make_mixing, mix
from rmjax.mixing.samples import (
    Mixed,
    MixFn,
    Mixing,
    adjacent,
    combine,
    combine_places,
    fold_keys,
    mix_labels,
    mix_nothing,
    sample_partners,
    sample_weights,
)

__all__ = [
    "MIXINGS",
    "MixFn",
    "Mixed",
    "Mixing",
    "Recipe",
    "adjacent",
    "combine",
    "combine_places",
    "fold_keys",
    "make_mixing",
    "mix",
    "mix_labels",
    "mix_nothing",
    "sample_partners",
    "sample_weights",
]
