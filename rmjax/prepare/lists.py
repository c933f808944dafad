"""Rows from CSV lists with the columns of Attribution88, `path,label,dlabel`.

Optional columns are `source`, `semantic`, `group` and `split`. Where names have no
column they are read from the paths: the folder that goes with the label is the
source, the one that goes with `dlabel` the semantic.
"""

import os
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

from rmjax.data.listing import read_rows
from rmjax.errors import InputError
from rmjax.prepare.manifest import (
    SPLITS,
    InsideRoot,
    Manifest,
    Row,
    check_once,
    real_first,
)
from rmjax.utils.places import as_path

LISTS = tuple(f"{split}.csv" for split in SPLITS)
COLUMNS = ("path", "label", "dlabel"), "source,semantic,group,split"

# Turns the path in a row into one relative to the root; `where` is for errors.
Locate = Callable[[str, str], PurePosixPath]


def read_manifest(
    files: str | Path | Sequence[str | Path], root: str | Path | None = None
) -> Manifest:
    """Read images from CSV manifests.

    The order of names is that of the labels, but for `real`, which comes first.
    Without `group` each image is its own group. Files named train.csv, val.csv and
    test.csv that have no `split` column give the split by their name.

    Args:
        files: one manifest or several, such as the three of Attribution88.
        root: the folder that paths are relative to; None means each manifest's
            own folder, which must then be the same for all.

    Raises:
        InputError: a missing file or column; naming file and line: an empty or
            wrong value, a path outside the root or given twice, a link that leaves
            it, a label with two names or a name with two labels, a group in two
            splits; no source called `real`.
    """
    listed = [files] if isinstance(files, str | os.PathLike) else files
    given = [as_path(file) for file in listed]
    if root is None and len({file.parent for file in given}) > 1:
        raise InputError(
            "manifests in several folders: give the root that paths start from"
        )
    root = as_path(given[0].parent if root is None else root)
    if not root.is_dir():
        raise InputError(
            f"{root}: no such folder, and paths in {given[0]} start from it"
        )
    inside = InsideRoot(root)
    rows: list[Row] = []
    labels = Labels()
    for file in given:
        rows += read_list(str(file), file, labels, inside.relative)
    if not rows:
        raise InputError(f"{given[0]}: no rows below the header")
    check_once(rows)
    sources = real_first(labels.sources.in_order(), str(given[0]))
    return Manifest(root, tuple(rows), sources, labels.semantics.in_order())


def read_list(
    name: str, source: Path | bytes, labels: "Labels", locate: Locate
) -> list[Row]:
    """Read the rows of one list.

    Args:
        name: what errors call it; the split, if it is `train.csv` and so on.
        source: its file, or its contents.
        labels: the names known from earlier lists, added to.
        locate: gives a path its normal form.

    Raises:
        InputError: as `read_manifest`.
    """
    places = _find_places(name, source, labels, locate)
    rows = []
    for line, cells in read_rows(name, source, *COLUMNS):
        where = f"{name}, line {line}"
        path = locate(cells["path"], where)
        names = {}
        for column, given in (("source", "label"), ("semantic", "dlabel")):
            names[column] = _name(cells, column, path, places[column], where)
            labels.of[column].add(cells[given], names[column], where)
        split = _split(cells, name, where)
        text = str(path)
        group = cells.get("group") or text
        row = Row(text, names["source"], names["semantic"], group, split, name, line)
        rows.append(row)
    return rows


class Labels:
    """The names of sources and semantics by label, over several lists."""

    def __init__(self):
        self.sources = _Names("label", "source")
        self.semantics = _Names("dlabel", "semantic")
        self.of = {"source": self.sources, "semantic": self.semantics}


class _Names(dict[int, str]):
    """Names by label, each of which belongs to one other."""

    def __init__(self, column: str, kind: str):
        super().__init__()
        self.column, self.kind = column, kind
        self._labels: dict[str, int] = {}

    def add(self, label: str, name: str, where: str) -> None:
        if not (label.isascii() and label.isdigit()):
            raise InputError(
                f"{where}: {self.column} {label!r} is not an integer from 0"
            )
        number = int(label)
        if self.setdefault(number, name) != name:
            raise InputError(
                f"{where}: {self.column} {number} is {self.kind} {name!r} here, but "
                f"{self[number]!r} further up; check the names or the `{self.kind}` column"
            )
        if self._labels.setdefault(name, number) != number:
            raise InputError(
                f"{where}: {self.kind} {name!r} has {self.column} {number} here, but "
                f"{self._labels[name]} further up; check the labels or the `{self.kind}` column"
            )

    def in_order(self) -> tuple[str, ...]:
        return tuple(self[label] for label in sorted(self))

    def pairs(self) -> set[tuple[str, str]]:
        return {(name, str(label)) for label, name in self.items()}


def _find_places(
    name: str, source: Path | bytes, labels: Labels, locate: Locate
) -> dict[str, int]:
    """Find which folder of the paths names the source, and which the semantic.

    It is the folder whose names pair with the labels: as many names as labels, and
    each name with one label. In the lists of Attribution88 the source is the first
    folder, or, in that of the test images, the second.
    """
    pairs: dict[str, dict[int, set]] = {
        "source": defaultdict(set),
        "semantic": defaultdict(set),
    }
    depths = set()
    for line, cells in read_rows(name, source, *COLUMNS):
        if pairs.keys() <= cells.keys():  # the names have columns
            break
        folders = locate(cells["path"], f"{name}, line {line}").parts[:-1]
        depths.add(len(folders))
        for place, folder in enumerate(folders):
            pairs["source"][place].add((folder, cells["label"]))
            pairs["semantic"][place].add((folder, cells["dlabel"]))
    places: dict[str, int] = {}
    for column, default in (("source", 0), ("semantic", 1)):
        known = labels.of[column].pairs()
        free = set(range(min(depths, default=0))) - set(places.values())
        misfits = {place: _misfit(pairs[column][place], known) for place in free}
        places[column] = min(
            free, key=lambda place: (misfits[place], place), default=default
        )
    return places


def _misfit(pairs: set[tuple[str, str]], known: set[tuple[str, str]]) -> tuple:
    """Return how badly names go with labels, given the pairs known from before."""
    names, numbers = ({pair[i] for pair in pairs} for i in (0, 1))
    strangers = names - {name for name, _ in known} if known else ()
    contradictions = pairs - known if known else ()
    return (
        *(len(strangers), len(contradictions)),
        *(len(names) != len(numbers), len(pairs)),
    )


def _name(
    cells: dict[str, str], column: str, path: PurePosixPath, place: int, where: str
) -> str:
    """Return a class name from its column, or else from the path's folders."""
    if column in cells:
        name = cells[column]
        hint = f"empty {column}"
    else:
        folders = path.parts[:-1]
        name = folders[place] if len(folders) > place else ""
        hint = (
            f"path {str(path)!r} has no folder for the {column}; add a column "
            f"{column!r}"
        )
    if not name:
        raise InputError(f"{where}: {hint}")
    return sys.intern(name)  # one string for all images of a class


def _split(cells: dict[str, str], name: str, where: str) -> str:
    if "split" not in cells:
        stem = PurePosixPath(name).stem
        return sys.intern(stem) if stem in SPLITS else ""
    if cells["split"] not in SPLITS:
        raise InputError(
            f"{where}: split {cells['split']!r}; the choices are {', '.join(SPLITS)}"
        )
    return sys.intern(cells["split"])
