"""The text of a grid, read into axes of alternatives, and what these multiply to."""

import hashlib
import math
import re
from collections.abc import Sequence
from itertools import product

from ml_collections import ConfigDict

from rmjax.errors import InputError
from rmjax.experiment.config import apply_changes, flatten
from rmjax.sweep.grids import GRIDS, Alternative

# Keys that the command itself sets, and by which option.
OWN_KEYS = {"seed": "--seeds"}
LONGEST_VALUE = 40  # characters in a label
LONGEST = 100  # characters of a label

_CLOSING = {"(": ")", "[": "]", "{": "}"}
Axis = tuple[Alternative, ...]


def parse_grid(text: str, config: ConfigDict, name: str) -> list[Axis]:
    """Read a grid such as `mix.name=none,repmix level`.

    Args:
        text: words of `KEY=VALUE,VALUE...` or names of `GRIDS`; blanks and commas in
            brackets or quotes divide nothing.
        config: says which keys there are, and of which type their values.
        name: of the config, for messages.

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
        for key in dict.fromkeys(key for a in axis for key in a.changes):
            if key in owner:
                raise InputError(
                    f"grid: '{owner[key]}' and '{word}' both change {key}; give each "
                    "key once"
                )
            owner[key] = word
    return axes


def expand(axes: Sequence[Axis]) -> list[Alternative]:
    """Return every combination, one alternative of each axis, the last axis fastest."""
    found = []
    for chosen in product(*axes):
        label = ",".join(alternative.label for alternative in chosen)
        changes = {k: v for a in chosen for k, v in a.changes.items()}
        found.append(Alternative(_shorten(label, LONGEST), changes))
    return found


def split(text: str, separator: str | None) -> list[str]:
    """Split at a separator (None: blanks) that is not inside of brackets or quotes.

    Raises:
        InputError: a bracket or quote without its other end.
    """
    parts, open_ends, quote = [""], [], None
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


def _read_axis(word: str, config: ConfigDict, name: str) -> Axis:
    key, equals, values = word.partition("=")
    keys = flatten(config)
    if key in GRIDS and not (equals and key in keys):
        alternatives = _pick(key, values, word) if equals else GRIDS[key]
        for changed in (k for a in alternatives for k in a.changes):
            if changed not in keys:
                raise InputError(f"grid: '{word}' changes {changed}, no key of {name}")
        return tuple(alternative.resolve(config) for alternative in alternatives)
    if not equals:
        raise InputError(
            f"grid: unknown grid '{word}'; give KEY=VALUE,VALUE,... or one of "
            + ", ".join(GRIDS)
        )
    found = [read_value(key, text, config, name) for text in _values(values, word)]
    return tuple(Alternative(f"{key}={_safe(value)}", {key: value}) for value in found)


def _pick(grid: str, values: str, word: str) -> Axis:
    """Return the alternatives of a named grid that `values` lists, in its order."""
    known = {a.label.partition("=")[2]: a for a in GRIDS[grid]}
    chosen = _values(values, word)
    for value in chosen:
        if value not in known:
            raise InputError(
                f"grid: '{word}': {grid} has no {value}; it has {', '.join(known)}"
            )
    return tuple(known[value] for value in chosen)


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
    digest = hashlib.sha256(repr(value).encode()).hexdigest()[:6]
    if len(plain) > LONGEST_VALUE:
        return f"{plain[: LONGEST_VALUE - 7]}-{digest}"
    return plain if plain == text else f"{plain.strip('-')}-{digest}"


def _shorten(label: str, longest: int) -> str:
    if len(label) <= longest:
        return label
    return f"{label[: longest - 7]}-{hashlib.sha256(label.encode()).hexdigest()[:6]}"
