"""Where a parquet file or a WebDataset says what an image is, and what it says."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import PurePosixPath

from rmjax.data.dataset import REAL
from rmjax.data.parts import UNSPECIFIED, Entry
from rmjax.errors import InputError

# The words for the splits, those of the Hub.
_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev", "development"), "val"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}


_LISTED = 50  # columns that an error message names, at most


@dataclass(frozen=True)
class Columns:
    """Where a parquet file or a WebDataset says what an image is.

    A parquet file says it in columns, with dots for nested fields (`meta.model`). A
    sample of a WebDataset says it in its JSON file, by a key with dots likewise, or in
    its member `cls` or `txt`.

    Attributes:
        image: the column of the encoded image; empty for the only one that looks like
            it. Of a WebDataset the suffix of the image, such as `left.jpg`; empty for
            all suffixes of images.
        source: what made the image; empty where it is not asked for.
        semantic: what it shows; empty where nothing says so.
        split: `train`, `val` or `test`; empty for what the names of the files say.
        group: what else must stay in the split of the image; empty where images have
            nothing to do with each other.
        real: what the sources of the real photographs are called, or their numbers;
            they become `real`.
    """

    image: str = ""
    source: str = ""
    semantic: str = ""
    split: str = ""
    group: str = ""
    real: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.real and not self.source:
            raise InputError(
                f"real is {', '.join(self.real)}: say too where the source stands"
            )

    def labels(self) -> dict[str, str]:
        """Return the columns of the labels that are asked for, by what they say."""
        names = ("source", "semantic", "split", "group")
        return {name: getattr(self, name) for name in names if getattr(self, name)}

    def entry(self, path: str, split: str, labels: Mapping[str, str]) -> Entry:
        """Return an image.

        Args:
            path: what it is called.
            split: what the name of its file says.
            labels: those that are asked for, by what they say.
        """
        source = labels.get("source", "")
        return Entry(
            path,
            REAL if source in self.real else source,
            labels.get("semantic", UNSPECIFIED),
            labels.get("group", path),
            labels.get("split", split),
            stated=source if source in self.real else "",
        )


def list_columns(names: Iterable[str]) -> str:
    """Return the names of columns in words; of many, the first."""
    first = [*islice(names, _LISTED + 1)]
    more = ", ..." if first[_LISTED:] else ""
    return ", ".join(first[:_LISTED]) + more


def label_name(role: str, value: object, where: str) -> str:
    """Return a label as a name.

    Args:
        role: what it says: `source`, `semantic`, `split` or `group`.
        value: text, a whole number or a truth value.
        where: file and row, for error messages.

    Raises:
        InputError: there is none, it is of another type, a number below 0 (which the
            Hub writes where there is no label), or a split of another name.
    """
    if value is None or value == "":
        raise InputError(f"{where}: no {role}; give each image one, or leave it out")
    if not isinstance(value, str | int):
        kind = type(value).__name__
        raise InputError(
            f"{where}: {role} is a {kind}; a label is text or a whole number"
        )
    if isinstance(value, int) and value < 0 and role != "group":
        raise InputError(f"{where}: {role} is {value}, by which the Hub says: no label")
    name = str(value)
    if role == "split":
        if name.lower() not in _SPLITS:
            raise InputError(f"{where}: split {name!r}; give train, val or test")
        return _SPLITS[name.lower()]
    return name


def splits_of_files(names: Sequence[str]) -> list[str]:
    """Return the split that the name of each file says, as the Hub reads names.

    A word such as `train` or `validation`, with no letter beside it, in the file's name
    or else in that of a folder.

    Args:
        names: relative to the place, such as `data/train-00000-of-00002.parquet`.

    Returns:
        `train`, `val` or `test` of each, or, where they do not say at least two
        of these, empty texts.

    Raises:
        InputError: a file says none among others that do, or one says two.
    """
    splits = [_split_of(name) for name in names]
    if len(set(splits) - {""}) < 2:
        return [""] * len(names)
    if "" in splits:
        raise InputError(
            f"{names[splits.index('')]}: its name says no split, as those of other "
            "files do; name it so, or give the column of the split"
        )
    return splits


def _split_of(name: str) -> str:
    for part in reversed(PurePosixPath(name).parts):
        words = re.split(r"[^a-z]+", part.lower())
        found = {_SPLITS[word] for word in words if word in _SPLITS}
        if len(found) > 1:
            raise InputError(f"{name}: its name says {' and '.join(sorted(found))}")
        if found:
            return found.pop()
    return ""


def in_order(names: Iterable[str]) -> list[str]:
    """Return names in the order of the alphabet, or of numbers if they all are some."""
    known = list(names)
    numbers = all(name.isascii() and name.isdecimal() for name in known)
    return sorted(known, key=int if numbers else None)


def real_first(names: Iterable[str]) -> tuple[str, ...]:
    """Return names, each once, in their order but for `real`, which is first."""
    unlike = dict.fromkeys(names)
    return tuple(sorted(unlike, key=lambda name: name != REAL))
