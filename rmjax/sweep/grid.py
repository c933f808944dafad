"""Grids: those with a name, and the text of a grid read into cells' changes.

A grid is several axes; an axis is a list of points, each a label `KEY=VALUE` and what it
changes of a config. Labels become names of folders.
"""

import hashlib
import logging
import math
import re
from collections.abc import Callable, Mapping
from itertools import product
from pathlib import Path

from ml_collections import ConfigDict

from rmjax.corruptions import SEEN
from rmjax.errors import InputError
from rmjax.experiment.config import apply_changes, flatten
from rmjax.experiment.run import load_run_config
from rmjax.mixing import make_mixing

logger = logging.getLogger(__name__)

Changes = dict[str, object]  # value by key of a config
Choice = Changes | Callable[[ConfigDict], Changes]  # or what makes them for a config
Point = tuple[str, Changes]

# Keys that the command itself sets, and by which option.
OWN_KEYS = {"seed": "--seeds"}
LONGEST_VALUE = 40  # characters in a label
LONGEST = 100  # characters of a label

_CLOSING = {"(": ")", "[": "]", "{": "}"}

# --------------------------------------------------------------------- grids with a name


def _mixing(name: str, **settings: object) -> Callable[[ConfigDict], Changes]:
    """Mix in a way, where what a config trains on can be mixed so."""
    settings = {"name": name, "partners": "any"} | settings

    def changes(config: ConfigDict) -> Changes:
        make_mixing(name, maps=not config.data.features)
        return {f"mix.{key}": value for key, value in settings.items()}

    return changes


def _corruptions(kinds: int) -> Changes:
    """Train with the first kinds of corruption, or with none."""
    if not kinds:
        return {"corrupt.rate": 0.0}
    return {"corrupt.rate": 0.95, "corrupt.names": SEEN[:kinds]}


def _prnu(config: ConfigDict) -> Changes:
    """The mean residual needs pixels at the same places, in testing as well."""
    tested = config.data
    sizes = dict.fromkeys(("data.size", "data.crop"), tested.eval_size)
    changes = {"fit.name": "prnu", "model.input": "wiener", "data.flip": False}
    return changes | sizes | {"data.resize": tested.eval_resize}


def _frozen(fit: str, folder: str) -> Callable[[ConfigDict], Changes]:
    """Fit a head to what the network of a run makes of images, brought to its sizes."""

    def changes(config: ConfigDict) -> Changes:
        try:
            of_run = flatten(load_run_config(Path(folder)))
        except InputError as error:
            made = f"`rmjax convert FILE --out {folder}` makes it of its weights"
            raise InputError(
                f"its network is looked for in {folder}, {made} ({error})"
            ) from error
        taken = {
            k: v for k, v in of_run.items() if k.startswith("model.") or k in _SIZES
        }
        return taken | {"fit.name": fit, "model.init": folder}

    return changes


_SIZES = {
    f"data.{key}"
    for key in (
        "resize",
        "size",
        "crop",
        "eval_resize",
        "eval_size",
        "filter",
        "squash",
    )
}


# Each with the distribution of weights that it was published with, where that is not
# the config's. Equal numbers of images a step; give steps_per_epoch for as many steps.
_MIXINGS = {
    "none": _mixing("none"),
    "repmix": _mixing("repmix"),
    "same_source": _mixing("repmix", partners="same_source"),
    "same_semantic": _mixing("repmix", partners="same_semantic"),
    "factorial": _mixing("factorial"),
    "pairs": _mixing("pairs"),
    "mixup": _mixing("mixup"),
    "manifold": _mixing("manifold"),
    "cutmix": _mixing("cutmix", beta=1.0),
    "tokens": _mixing("tokens", level=4),
    "channels": _mixing("channels"),
    "mixstyle": _mixing("mixstyle", beta=0.1),
    "amplitude": _mixing("amplitude", beta=1.0),
    "phase": _mixing("phase", beta=1.0),
}

# What earlier work does, each in its published form but for the config's schedule
# (docs/baselines.md). `plain` and `blur_jpeg` have the config's network and learning rate;
# those of other networks were chosen by validation loss on `scenes256_unseen`.
_ALONE: Changes = {"mix.name": "none", "loss": "attribution"}
_METHODS: dict[str, Choice] = {
    "repmix": {"mix.name": "repmix", "loss": "compound"},
    "plain": _ALONE,
    "blur_jpeg": _ALONE | {"corrupt.recipe": "blur_jpeg", "corrupt.rate": 0.5},
    "frank_cnn": _ALONE
    | {"model.arch": "frank_cnn", "model.input": "logdct", "optim.lr": 1e-3},
    "frank_ridge": {"fit.name": "ridge", "model.input": "logdct"},
    "yu_net": _ALONE | {"model.arch": "yu_net", "model.input": "rgb", "optim.lr": 3e-4},
    "patch_cnn": {"mix.name": "none", "loss": "contrastive"}
    | {"model.arch": "patch_cnn", "model.input": "rgb", "optim.lr": 1e-3},
    "prnu": _prnu,
    "eigenfaces": {"fit.name": "eigenfaces", "model.input": "rgb"},
    "probe": {"fit.name": "probe"},
    "knn": {"fit.name": "knn"},
    # Large networks of others, which `rmjax convert` made these runs of.
    "clip_lr": _frozen("probe", "runs/clip"),
    "clip_knn": _frozen("knn", "runs/clip"),
    "dinov2_lr": _frozen("probe", "runs/dinov2"),
    "dinov2_knn": _frozen("knn", "runs/dinov2"),
}

# The axes with a name: the ablations of the paper, and comparisons with other work. Each
# is the text of an axis of one key, or changes by value, of one key or several.
# References:
#   Bui, Yu, Collomosse, RepMix, ECCV 2022, https://arxiv.org/abs/2207.02063
GRIDS: dict[str, str | Mapping[str, Choice]] = {
    "level": "mix.level=0,1,2,3,4,5,6",
    # A batch that groups of 1 to 4 all divide, so that steps are of as many images; a
    # step has fewer samples where they have more members, and an epoch more steps.
    "members": {f"{n}": {"mix.members": n, "batch_size": 48} for n in (1, 2, 3, 4)},
    # 1 is the uniform distribution of weights; 0 would be the same once more.
    "beta": "mix.beta=0.1,0.4,1.0",
    "loss": "loss=compound,ungated,attribution",
    "method": _METHODS,
    "mixing": _MIXINGS,
    "embedding": "model.embedding_dim=64,128,256,512",
    "input": "model.input=rgb,residual,logdct",
    "corruptions": {f"{n}": _corruptions(n) for n in (0, 1, 3, 7, 15)},
}

# ----------------------------------------------------------------------- grids as a text


def read_grid(text: str, config: ConfigDict, name: str) -> list[Point]:
    """Read a grid such as `mix.name=none,repmix level` into all its combinations.

    Args:
        text: words of `KEY=VALUE,VALUE...` or names of `GRIDS`; blanks and commas in
            brackets or quotes divide nothing.
        config: says which keys there are, and of which type their values.
        name: of the config, for messages.

    Returns:
        One point of each axis at a time, the last axis fastest.

    Raises:
        InputError: an empty grid, axis or value, an unknown key or name, a value of
            another type, or a key in two axes.
    """
    words = [word for word in split(text, None) if word]
    if not words:
        raise InputError(
            "grid: it is empty; give KEY=VALUE,VALUE,... or one of " + ", ".join(GRIDS)
        )
    axes = [_read_axis(word, config, name) for word in words]
    owner: dict[str, str] = {}
    for word, axis in zip(words, axes, strict=True):
        for key in dict.fromkeys(key for _, changes in axis for key in changes):
            if key in owner:
                raise InputError(
                    f"grid: '{owner[key]}' and '{word}' both change {key}; give each "
                    "key once"
                )
            owner[key] = word
    points = []
    for chosen in product(*axes):
        label = ",".join(label for label, _ in chosen)
        changes = {k: v for _, changes in chosen for k, v in changes.items()}
        points.append((_shorten(label, LONGEST, label), changes))
    return points


def split(text: str, separator: str | None) -> list[str]:
    """Split at a separator (None: blanks) that is not inside of brackets or quotes.

    Raises:
        InputError: a bracket or quote without its other end.
    """
    parts: list[str] = [""]
    open_ends: list[str] = []
    quote = None
    for letter in text:
        if quote:
            quote = None if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        elif letter in _CLOSING:
            open_ends.append(_CLOSING[letter])
        elif letter in _CLOSING.values():
            if not open_ends or open_ends.pop() != letter:
                raise InputError(f"grid: '{letter}' closes nothing in: {text}")
        elif not open_ends:
            if letter.isspace() if separator is None else letter == separator:
                parts.append("")
                continue
        parts[-1] += letter
    if quote or open_ends:
        raise InputError(f"grid: no {quote or open_ends[-1]} at the end of: {text}")
    return parts


def read_value(key: str, text: str, config: ConfigDict, name: str) -> object:
    """Return a value as the type that the config's key has.

    Raises:
        InputError: no such key, one that an option sets, or a value of another type.
    """
    keys = flatten(config)
    if key in OWN_KEYS:
        raise InputError(f"grid: {key} is set by {OWN_KEYS[key]}; leave it out")
    if key not in keys:
        raise InputError(f"grid: unknown key '{key}'; the keys are {', '.join(keys)}")
    if isinstance(keys[key], str) and text[:1] in "'\"" and text[:1] == text[-1:]:
        text = text[1:-1]  # so an empty text can be written
    value = flatten(apply_changes(config, [f"--config.{key}={text}"], name))[key]
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"grid: {key}={text} is not a finite number")
    return value


def _read_axis(word: str, config: ConfigDict, name: str) -> list[Point]:
    key, equals, text = word.partition("=")
    # A key of the config goes before a grid of its name.
    if equals and (key in flatten(config) or key not in GRIDS):
        read = [read_value(key, value, config, name) for value in _values(text, word)]
        return [(f"{key}={_safe(value)}", {key: value}) for value in read]
    if key not in GRIDS:
        raise InputError(
            f"grid: unknown grid '{word}'; give KEY=VALUE,VALUE,... or one of "
            + ", ".join(GRIDS)
        )
    axis = _named_axis(key, config, name)
    chosen = _values(text, word) if equals else list(axis)
    for value in chosen:
        if value not in axis:
            raise InputError(
                f"grid: '{word}': {key} has no {value}; it has {', '.join(axis)}"
            )
    points = []
    for label, choice in (axis[value] for value in chosen):
        try:
            changes = choice(config) if callable(choice) else choice
        except InputError as error:
            if equals:  # it was asked for by its name
                raise InputError(f"grid: {label}: {error}") from error
            logger.warning("grid: %s is left out: %s", label, error)
            continue
        for changed in changes:
            if changed not in flatten(config):
                raise InputError(f"grid: '{key}' changes {changed}, no key of {name}")
        points.append((label, changes))
    return points


def _named_axis(
    grid: str, config: ConfigDict, name: str
) -> dict[str, tuple[str, Choice]]:
    """Return label and changes of an entry of `GRIDS`, by value."""
    axis = GRIDS[grid]
    if isinstance(axis, str):
        points = _read_axis(axis, config, name)
        return {label.partition("=")[2]: (label, changes) for label, changes in points}
    return {value: (f"{grid}={value}", choice) for value, choice in axis.items()}


def _values(values: str, word: str) -> list[str]:
    texts = [text.strip() for text in split(values, ",")]
    if not all(texts):
        what = "has an empty value" if len(texts) > 1 else "has no values"
        raise InputError(f"grid: '{word}' {what}; give KEY=VALUE,VALUE,...")
    return texts


def _safe(value: object) -> str:
    """Write a value so that it is part of a folder's name, and tells it from others."""
    parts = value if isinstance(value, tuple) else (value,)
    text = "+".join(str(part) for part in parts) or "empty"
    plain = re.sub(r"[^\w.+-]+", "-", text, flags=re.ASCII)
    if plain != text and len(plain) <= LONGEST_VALUE:
        return f"{plain.strip('-')}-{_digest(repr(value))}"
    return _shorten(plain, LONGEST_VALUE, repr(value))


def _shorten(text: str, longest: int, whole: str) -> str:
    """Cut a text, if it is too long, and end it in the digest of what it stands for."""
    if len(text) <= longest:
        return text
    return f"{text[: longest - 7]}-{_digest(whole)}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:6]
