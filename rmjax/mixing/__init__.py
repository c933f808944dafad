"""Mixing: several representations become one, with known proportions.

Everything here is a pure function of arrays: see `Mixing`, `MixFn` and `MIXINGS`.
"""

from rmjax.mixing.registry import MIXINGS, Recipe, make_mixing
from rmjax.mixing.samples import (
    Mixed,
    MixFn,
    Mixing,
    adjacent,
    fold_keys,
    mix,
    mix_nothing,
    mix_places,
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
    "fold_keys",
    "make_mixing",
    "mix",
    "mix_nothing",
    "mix_places",
    "sample_partners",
    "sample_weights",
]
