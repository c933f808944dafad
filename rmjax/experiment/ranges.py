"""What the values of a config may be: one table, checked before anything is begun."""

import math
from dataclasses import dataclass
from numbers import Integral, Real

from ml_collections import ConfigDict

from rmjax.configs.probe import get_config as probe
from rmjax.errors import InputError
from rmjax.experiment.config import default_config, flatten

# Every input transform and the stages of every network need so many pixels.
MIN_SIDE = 16
MAX_SIDE = 65_535  # of a JPEG file
# Devices compute in 32 bits.
MAX_INT = 2**31 - 1
MAX_FLOAT = 3e38


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included unless said otherwise.

    Attributes:
        low: the least.
        high: the greatest.
        whole: integers alone.
        open_low: more than `low`.
        open_high: less than `high`.
    """

    low: float
    high: float = MAX_FLOAT
    whole: bool = False
    open_low: bool = False
    open_high: bool = False

    def __contains__(self, value: object) -> bool:
        """Tell whether a value is a number of this range; booleans are none."""
        if isinstance(value, bool) or not isinstance(value, Real):
            return False
        number = float(value)
        return (
            math.isfinite(number)
            and self.low <= number <= self.high
            and not (self.open_low and number == self.low)
            and not (self.open_high and number == self.high)
            and (isinstance(value, Integral) or not self.whole)
        )

    def __str__(self) -> str:
        """Say in words what is right."""
        if self.high in (MAX_INT, MAX_FLOAT):
            low = f"{'more than' if self.open_low else 'at least'} {self.low:g}"
            low = f"{low}, a whole number" if self.whole else low
            return f"{low}, up to {self.high:.10g}"
        what = "an integer" if self.whole else "a number"
        low = f"{'above' if self.open_low else 'from'} {self.low:g}"
        high = f"{'below ' if self.open_high else ''}{self.high:.10g}"
        return f"{what} {low} {'up to' if self.open_low else 'to'} {high}"


def _integers(low: int, high: int = MAX_INT) -> Range:
    return Range(low, high, whole=True)


_SHARE = Range(0, 1)
_POSITIVE = Range(0, open_low=True)
_DECAY = Range(0, 1, open_high=True)

# By key; of a tuple, for each of its entries.
RANGES: dict[str, Range] = {
    "seed": _integers(0, 2**32 - 1),
    "data.cells_seed": _integers(0, 2**32 - 1),
    "data.resize": _integers(0, MAX_SIDE),
    "data.size": _integers(MIN_SIDE, MAX_SIDE),
    "data.crop": _integers(MIN_SIDE, MAX_SIDE),
    "data.eval_resize": _integers(0, MAX_SIDE),
    "data.eval_size": _integers(MIN_SIDE, MAX_SIDE),
    "data.cache_mib": _integers(0),
    "data.workers": _integers(0, 1024),
    "model.embedding_dim": _integers(1, 65_536),
    "model.gated_source": _integers(0),
    "model.mean": _SHARE,
    "model.std": _POSITIVE,
    "model.vit.width": _integers(1, 65_536),
    "model.vit.depth": _integers(1, 1024),
    "model.vit.heads": _integers(1, 1024),
    "model.vit.mlp": _integers(1, 262_144),
    "model.vit.patch": _integers(1, 1024),
    "model.vit.grid": _integers(1, 4096),
    "model.vit.registers": _integers(0, 1024),
    "model.vit.rotary": Range(0),
    "model.vit.epsilon": _POSITIVE,
    "corrupt.rate": _SHARE,
    "corrupt.severities": _integers(1, 5),
    "simulate.generators": _integers(0, 4095),
    "mix.level": _integers(0, 6),
    "mix.members": _integers(1),
    "mix.block": _integers(1),
    "mix.beta": Range(0),
    "mix.band": _SHARE,
    "fit.images": _integers(1),
    "fit.memory_gib": _POSITIVE,
    "optim.lr": _POSITIVE,
    "optim.lr_decay": Range(0, 1, open_low=True),
    "optim.b1": _DECAY,
    "optim.b2": _DECAY,
    "optim.eps": _POSITIVE,
    "optim.weight_decay": Range(0),
    "batch_size": _integers(1),
    "accumulate_steps": _integers(1),
    "eval_batch_size": _integers(1),
    "num_epochs": _integers(1),
    "steps_per_epoch": _integers(0),
    "eval_every_epochs": _integers(1),
    "patience": _integers(1),
    "keep_best": _integers(0),
    "num_devices": _integers(0),
    "log_every_steps": _integers(1),
    "checkpoint_every_steps": _integers(1),
}

# Where a number may stand in place of names.
OR_NUMBER: dict[str, Range] = {"data.train_cells": _integers(1)}

# What is cut, and what from: where the second is 0, from images as they are.
_CUTS = (
    ("data.crop", "data.size"),
    ("data.size", "data.resize"),
    ("data.eval_size", "data.eval_resize"),
)

# What is asked of images: of stored features none of it can be, so that they leave it at
# the values of the config `probe`.
_OF_IMAGES = (
    "data.name",
    "data.resize",
    "data.size",
    "data.crop",
    "data.flip",
    "data.eval_resize",
    "data.eval_size",
    "data.filter",
    "data.squash",
    "data.workers",
    "model.init",
    "model.input",
    "model.mean",
    "model.std",
    "corrupt.rate",
    "simulate.generators",
)


def check_values(config: ConfigDict) -> None:
    """Check every value of a config: its type, its range, and that they fit together.

    What a name stands for is checked where it is looked up.

    Raises:
        InputError: one of them is not right; the message names its key.
    """
    values = flatten(config)
    for key, default in flatten(default_config()).items():
        if key not in values:
            raise InputError(f"the config has no key {key}")
        value = values[key]
        if not isinstance(default, tuple):
            _check_value(key, value, value, default)
            continue
        if not isinstance(value, tuple | list):
            raise InputError(f"{key} = {value!r}: give a tuple, such as ('a', 'b')")
        for entry in value:
            _check_value(key, value, entry, "")
    for part, whole in _CUTS:
        side, available = config[part], config[whole]
        if available and side > available:
            raise InputError(
                f"{part} = {side} px is larger than {whole} = {available} px, what it "
                "is cut from"
            )
    if config.data.features:
        _check_of_images(values)


def _check_of_images(values: dict[str, object]) -> None:
    wanted = flatten(probe())
    wrong = [
        f"{key}={wanted[key]!r}" for key in _OF_IMAGES if values[key] != wanted[key]
    ]
    if wrong:
        raise InputError(
            "data.features: stored features are no images, which could be cut, changed "
            f"or rendered: start from --config probe, or set {', '.join(wrong)}"
        )


def _check_value(key: str, value: object, entry: object, default: object) -> None:
    """Check one entry of a value, which is the value itself unless that is a tuple."""
    if key in RANGES:
        right, wanted = entry in RANGES[key], str(RANGES[key])
    elif isinstance(default, bool):
        right, wanted = isinstance(entry, bool), "True or False"
    else:
        right, wanted = isinstance(entry, str), "text"
        if key in OR_NUMBER:
            right |= entry in OR_NUMBER[key]
            wanted = f"names, or one number: {OR_NUMBER[key]}"
    if not right:
        raise InputError(f"{key} = {value!r}: give {wanted}")
