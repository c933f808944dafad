"""The labels of a collection, which stand where those of a data set would."""

from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from logging import getLogger
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rmjax.data.columns import real_first
from rmjax.data.dataset import Dataset, check_source_names
from rmjax.data.labels import TYPES, hash_name
from rmjax.data.parts import Collection, Part, Unusable
from rmjax.errors import InputError
from rmjax.utils.processes import cores, ordered_map

logger = getLogger(__name__)

_FEW_BYTES = 2**30  # that one process has read before others have started


@dataclass(frozen=True)
class Collected(Dataset):
    """A collection, in whose parts images are numbered from 0 on.

    Attributes:
        place: what error messages call it.
        parts: as in the collection.
        numbers: for each split and record the part and the number in it,
            int64 `[records, 2]`.
    """

    place: str = ""
    parts: tuple[Part, ...] = ()
    numbers: Mapping[str, np.ndarray] = field(default_factory=dict, repr=False)


class _Labels(NamedTuple):
    """What the images of a part are: names, and for each image their numbers or -1.

    `paths` has a hash for each image that can be used.
    """

    names: list[list[str]]
    codes: np.ndarray
    groups: np.ndarray
    paths: np.ndarray
    unusable: list[Unusable]


def collect_labels(collection: Collection, processes: int | None = None) -> Collected:
    """Read the labels of a collection; images without them are named and passed over.

    Args:
        collection: images without a split are of a split called `all`.
        processes: how many read; None is one a core, or this one alone where there is
            little to read.

    Raises:
        InputError: labels are wrong, a part can't be read, no image can be used, two
            have one path, or a source has a name of `check_source_names`.
    """
    if processes is None:
        size = sum(part.size for part in collection.parts)
        processes = 1 if size < _FEW_BYTES else cores()
    with ordered_map(_read_labels, processes) as read:
        parts = [labels for _, labels in read(collection.parts)]
    check_paths(collection.parts, np.concatenate([part.paths for part in parts]))
    unusable = [image for labels in parts for image in labels.unusable]
    names = [
        {name for labels in parts for name in labels.names[place]} for place in range(3)
    ]
    if unusable:
        logger.warning(
            "%s: %d images cannot be used, the first is %s (%s)",
            *(collection.place, len(unusable), unusable[0].path, unusable[0].reason),
        )
    sources = _order(collection.sources, names[0])
    semantics = _order(collection.semantics, names[1])
    if not sources:
        raise InputError(f"{collection.place}: no image can be used")
    check_source_names(sources, collection.place)
    splits = sorted(names[2])
    codes = np.concatenate([*_recode(parts, (sources, semantics, splits))])
    numbers = np.concatenate(
        [
            np.stack([np.full(len(own.codes), part), np.arange(len(own.codes))], 1)
            for part, own in enumerate(parts)
        ]
    )
    columns = {
        "source": codes[:, 0],
        "semantic": codes[:, 1],
        "group": np.concatenate([labels.groups for labels in parts]),
    }
    rows = {name: np.flatnonzero(codes[:, 2] == i) for i, name in enumerate(splits)}
    return Collected(
        Path(collection.place),
        tuple(sources),
        tuple(semantics),
        {split: len(own) for split, own in rows.items()},
        _labels={
            split: {name: columns[name][own].astype(TYPES[name]) for name in TYPES}
            for split, own in rows.items()
        },
        place=collection.place,
        parts=collection.parts,
        numbers={split: numbers[own] for split, own in rows.items()},
    )


def _read_labels(part: Part) -> _Labels:
    tables: list[dict[str, int]] = [{}, {}, {}]
    codes, groups, paths, unusable = array("i"), array("q"), array("q"), []
    for entry in part.entries():
        if isinstance(entry, Unusable):
            unusable.append(entry)
            codes.extend((-1, -1, -1))
            groups.append(0)
            continue
        values = (entry.source, entry.semantic, entry.split or "all")
        for table, name in zip(tables, values, strict=True):
            codes.append(table.setdefault(name, len(table)))
        groups.append(hash_name(entry.group.encode()))
        paths.append(hash_path(entry.path))
    return _Labels(
        [[*table] for table in tables],
        np.array(codes, np.int32).reshape(-1, len(tables)),
        np.array(groups, np.int64),
        np.array(paths, np.int64),
        unusable,
    )


def hash_path(path: str) -> int:
    """Return what `check_paths` takes of an image."""
    return hash_name(path.encode(errors="surrogateescape"))


def check_paths(parts: Sequence[Part], hashes: np.ndarray) -> None:
    """Check that no two images have one path.

    Args:
        parts: what has the images.
        hashes: of `hash_path`, of each image that can be used, int64 `[images]`.

    Raises:
        InputError: two have; names the parts.
    """
    ordered = np.sort(hashes)
    twice = ordered[1:][ordered[1:] == ordered[:-1]]
    if not len(twice):
        return
    wanted, seen = int(twice[0]), ""
    for part in parts:
        for entry in part.entries():
            if isinstance(entry, Unusable) or hash_path(entry.path) != wanted:
                continue
            if seen:
                raise InputError(
                    f"{part.name}: {entry.path} is in {seen} as well; give each image "
                    "another name"
                )
            seen = part.name


def _order(given: Sequence[str], found: set[str]) -> list[str]:
    """Return the names that were found, those that have an order in it."""
    return [name for name in real_first([*given, *sorted(found)]) if name in found]


def _recode(
    parts: Sequence[_Labels], names: Sequence[Sequence[str]]
) -> Iterator[np.ndarray]:
    """Yield the numbers of all parts' labels among the names of all."""
    for labels in parts:
        tables = [
            np.array([among.index(name) for name in own] + [-1], np.int32)
            for own, among in zip(labels.names, names, strict=True)
        ]
        yield np.stack([t[c] for t, c in zip(tables, labels.codes.T, strict=True)], 1)
