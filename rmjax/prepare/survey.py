"""What there is in a collection: its classes, how large its splits are, what is wrong.

Nothing but labels is read. Parts are put together to units, each of which one process
surveys, and later writes, alone: so neither depends on how many processes there are.
"""

import hashlib
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from logging import getLogger
from typing import TypeVar

import numpy as np
from tqdm import tqdm

from rmjax.data.collected import check_paths, hash_path
from rmjax.data.columns import in_order
from rmjax.data.dataset import check_source_names
from rmjax.data.parts import Collection, Entry, Part, Unusable
from rmjax.errors import InputError
from rmjax.prepare.left_out import LeftOut
from rmjax.prepare.manifest import SPLITS
from rmjax.prepare.splits import check_fractions
from rmjax.utils.processes import OrderedMap

logger = getLogger(__name__)

SHARD_BYTES = 256 * 2**20
_FEWEST_UNITS = 16  # so that small collections keep some cores busy as well
_SMALLEST_UNIT = SHARD_BYTES // 4

T = TypeVar("T")
Unit = tuple[Part, ...]
# Gives an image without a split one.
Splitter = Callable[[Entry], str]
# Makes a map of a function over items, which others than this process may work at.
Engine = Callable[[Callable], AbstractContextManager[OrderedMap]]


@dataclass(frozen=True)
class SplitByHash:
    """Gives images that have no split one by a hash of their group.

    So the split of a group is the same in whatever part its images are, and whatever
    other images there are. The shares are met on average.

    Attributes:
        seed: another seed gives other splits.
        fractions: shares of train, val and test; their sum is 1.
    """

    seed: int = 0
    fractions: tuple[float, ...] = (0.8, 0.1, 0.1)

    def __post_init__(self):
        check_fractions(self.fractions)

    def __call__(self, entry: Entry) -> str:
        if entry.split:
            return entry.split
        text = f"{self.seed}/{entry.group}".encode(errors="surrogateescape")
        digest = hashlib.sha256(text).digest()
        place = int.from_bytes(digest[:8], "big") / 2**64
        train, val, _ = self.fractions
        return SPLITS[(place >= train) + (place >= train + val)]


@dataclass(frozen=True)
class Survey:
    """What a unit holds.

    Attributes:
        counts: images by source, semantic and split.
        unusable: images that cannot be used, as far as that shows so far.
        paths: a hash of each image's path, int64 `[images]`.
        groups: a hash of each image's group, int64 `[images]`; those of the paths
            where each image is its own group.
        splits: of each image the place in `SPLITS`, or what follows, int8 `[images]`.
        damaged: parts that end early, with what is said of each.
        stated: what images are called `real` instead, where they lie.
        made: how many images have a split by a hash.
    """

    counts: Counter[tuple[str, str, str]]
    unusable: int
    paths: np.ndarray
    groups: np.ndarray
    splits: np.ndarray
    damaged: tuple[Unusable, ...] = ()
    stated: frozenset[str] = frozenset()
    made: int = 0

    @property
    def images(self) -> int:
        """Return how many there are, those that cannot be used among them."""
        return sum(self.counts.values()) + self.unusable

    def of_split(self) -> Counter[str]:
        """Return the number of images in each split."""
        total: Counter[str] = Counter()
        for (_, _, split), count in self.counts.items():
            total[split] += count
        return total


def make_units(parts: Sequence[Part]) -> list[Unit]:
    """Put parts together, in their order, to units that are worth a shard.

    A part is never cut.
    """
    total = sum(part.size for part in parts)
    enough = min(max(total // _FEWEST_UNITS, _SMALLEST_UNIT), SHARD_BYTES)
    units: list[list[Part]] = [[]]
    filled = 0
    for part in parts:
        if filled >= enough:
            units.append([])
            filled = 0
        units[-1].append(part)
        filled += part.size
    return [tuple(unit) for unit in units]


def map_units(
    units: Sequence[Unit], function: Callable[[Unit], T], engine: Engine, bar: str
) -> list[T]:
    """Return what a function makes of each unit, under a progress bar of that name."""
    results = []
    with tqdm(total=len(units), desc=bar, unit="unit", delay=1) as drawn:
        with engine(function) as mapped:
            for _, result in mapped(units):
                results.append(result)
                drawn.update()
    return results


def survey(units: Sequence[Unit], splitter: Splitter, engine: Engine) -> list[Survey]:
    """Survey all units.

    Args:
        units: of one collection.
        splitter: gives images a split.
        engine: makes a map of what is to be done with each unit.

    Raises:
        InputError: a part that cannot be read, too many that end early, a path that
            occurs twice, or a group in two splits.
    """
    found = map_units(units, _Surveyor(splitter), engine, "reading labels")
    _check_damaged(units, found)
    parts = [part for unit in units for part in unit]
    check_paths(parts, np.concatenate([part.paths for part in found]))
    _check_groups(units, splitter, found)
    trained = sum(part.of_split()["train"] for part in found)
    if any(part.made for part in found) and not trained:
        raise InputError(
            "by a hash of its group, no image is in the training split; give more groups, "
            "other fractions or another seed"
        )
    return found


def name_classes(
    collection: Collection, surveys: Sequence[Survey]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of sources and semantics by index, `real` first.

    Sources that the collection names and of which it has no image are passed over, with
    a warning.

    Raises:
        InputError: no images, none of real photographs or of one of the names that
            these are to have, or a name that cannot be one.
    """
    counts: Counter = sum((part.counts for part in surveys), Counter())
    if not counts:
        raise InputError(f"{collection.place}: no images that could be used")
    real, shown = collection.real, {source for source, _, _ in counts}
    absent = [name for name in collection.sources if name not in shown]
    if absent:
        logger.warning("%s: no images of %s", collection.place, ", ".join(absent))
    sources = _in_order(shown - {real}, [n for n in collection.sources if n in shown])
    semantics = _in_order({name for _, name, _ in counts}, collection.semantics)
    for kind, names in (("source", sources), ("semantic", semantics)):
        for name in names:
            if not name.isprintable():  # nor are bytes that are not UTF-8
                raise InputError(f"{collection.place}: {kind} {name!a}: rename it")
    check_source_names(sources, collection.place)
    stated = set().union(*(part.stated for part in surveys))
    unknown = [name for name in collection.stated if name not in stated]
    if unknown:
        raise InputError(
            f"{collection.place}: no image is called {', '.join(map(repr, unknown))} that "
            f"would be {real!r}; there are {', '.join(sorted(shown))}"
        )
    if real not in shown:
        raise InputError(
            f"{collection.place}: no source is called {real!r}, only {', '.join(sources)}; "
            "say which of them are the real photographs (--real)"
        )
    return (real, *(name for name in sources if name != real)), semantics


def _in_order(shown: set[str], first: Sequence[str]) -> tuple[str, ...]:
    return (*first, *in_order(shown - set(first)))


@dataclass(frozen=True)
class _Surveyor:
    splitter: Splitter

    def __call__(self, unit: Unit) -> Survey:
        counts: Counter = Counter()
        unusable, own_groups, made = 0, True, 0
        stated: set[str] = set()
        damaged = []
        paths, groups, splits = array("q"), array("q"), array("b")
        for entry in _entries(unit):
            if isinstance(entry, Unusable):
                unusable += 1
                damaged += [entry] if entry.rest else []
                continue
            split = self.splitter(entry)
            made += not entry.split
            stated.add(entry.stated)
            counts[entry.source, entry.semantic, split] += 1
            own = entry.group == entry.path
            own_groups &= own
            paths.append(hash_path(entry.path))
            groups.append(paths[-1] if own else hash_path(entry.group))
            splits.append(SPLITS.index(split) if split in SPLITS else len(SPLITS))
        of_paths = np.asarray(paths, np.int64)
        return Survey(
            counts,
            unusable,
            of_paths,
            of_paths if own_groups else np.asarray(groups, np.int64),
            np.asarray(splits, np.int8),
            tuple(damaged),
            frozenset(stated),
            made,
        )


def _entries(unit: Unit) -> Iterator[Entry | Unusable]:
    for part in unit:
        yield from part.entries()


def _check_damaged(units: Sequence[Unit], surveys: Sequence[Survey]) -> None:
    """Check that few parts end early: nobody knows how many images that are."""
    bad = LeftOut(sum(map(len, units)), "files")
    for found in surveys:
        for part in found.damaged:
            bad.add(part.path, part.reason)
    bad.check()


def _check_groups(
    units: Sequence[Unit], splitter: Splitter, surveys: Sequence[Survey]
) -> None:
    groups = np.concatenate([part.groups for part in surveys])
    splits = np.concatenate([part.splits for part in surveys])
    order = np.lexsort((splits, groups))
    groups, splits = groups[order], splits[order]
    parted = (groups[1:] == groups[:-1]) & (splits[1:] != splits[:-1])
    if not parted.any():
        return
    wanted, seen = int(groups[1:][parted][0]), ("", "")
    for part, entry in _all(units):
        if hash_path(entry.group) != wanted:
            continue
        where, split = f"{part.name}: {entry.path}", splitter(entry)
        if seen[0] and split != seen[1]:
            raise InputError(
                f"{where}: group {entry.group!r} is in split {split!r} here, but in "
                f"{seen[1]!r} in {seen[0]}; a group belongs to one split"
            )
        seen = where, split


def _all(units: Sequence[Unit]) -> Iterator[tuple[Part, Entry]]:
    for unit in units:
        for part in unit:
            for entry in part.entries():
                if isinstance(entry, Entry):
                    yield part, entry
