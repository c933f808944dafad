"""Which images there are and what they are.

Rows come from a folder tree `<source>/<semantic>/<image>` or from CSV manifests
with the columns of Attribution88, `path,label,dlabel`, and optionally `source`,
`semantic`, `group` and `split`. Images of a group show the same thing (such as a
photograph and what was made from it) and never part over two splits.
"""

import csv
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from rmjax.data.images import SUFFIXES
from rmjax.errors import InputError

REAL = "real"
SPLITS = ("train", "val", "test")
REQUIRED = ("path", "label", "dlabel")


@dataclass(frozen=True)
class Row:
    """One image.

    Attributes:
        path: relative to the root, with forward slashes.
        source: name of what made it.
        semantic: name of what it shows.
        group: images with equal groups stay in one split.
        split: one of `SPLITS`, or empty where it is still to be assigned.
        where: file and line that named the image, for error messages.
    """

    path: str
    source: str
    semantic: str
    group: str
    split: str
    where: str


@dataclass(frozen=True)
class Manifest:
    """Images and the names of their classes.

    Attributes:
        root: the folder that paths are relative to.
        rows: the images, each path once.
        source_names: names by index, `real` first.
        semantic_names: names by index.
    """

    root: Path
    rows: tuple[Row, ...]
    source_names: tuple[str, ...]
    semantic_names: tuple[str, ...]


def read_tree(root: str | Path) -> Manifest:
    """Read the images of a folder tree `<source>/<semantic>/<image>`.

    Hidden files, and files in the semantic folders whose suffix is no image's,
    are passed over. Names are sorted, `real` first. Images of the same semantic
    and the same file name but for the suffix form a group: in sets of edited
    photographs these are pairs, and for mere serial numbers it does no harm.

    Raises:
        InputError: no such folder, no images, an image at another depth, a link
            that leaves the folder, or no source called `real`.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(
            f"{root}: no such folder; give one with <source>/<semantic>/<image>"
        )
    inside = _InsideRoot(root)
    rows = []
    for path in _walk(root, inside):
        parts = path.parts
        if len(parts) != 3:
            raise InputError(
                f"{root / path}: an image at this depth; expected {root}/<source>/<semantic>/"
                "<image> (describe other layouts by a CSV manifest)"
            )
        group = f"{parts[1]}/{path.stem}"
        rows.append(Row(str(path), parts[0], parts[1], group, "", str(root / path)))
    if not rows:
        raise InputError(f"{root}: no images found as <source>/<semantic>/<image>")
    sources = _real_first(sorted({row.source for row in rows}), str(root))
    return Manifest(
        root, tuple(rows), sources, tuple(sorted({row.semantic for row in rows}))
    )


def read_manifest(
    files: str | Path | Sequence[str | Path], root: str | Path | None = None
) -> Manifest:
    """Read images from CSV manifests.

    Names that no column gives are read from the paths: the first folder is the
    source, the second the semantic. The order of names is that of the labels,
    but for `real`, which comes first. Without `group` each image is its own
    group. Files named train.csv, val.csv and test.csv that have no `split`
    column give the split by their name.

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
    files = [Path(f) for f in ([files] if isinstance(files, str | Path) else files)]
    if root is None and len({file.parent for file in files}) > 1:
        raise InputError(
            "manifests in several folders: give the root that paths start from"
        )
    root = Path(files[0].parent if root is None else root)
    if not root.is_dir():
        raise InputError(
            f"{root}: no such folder, and paths in {files[0]} start from it"
        )
    inside = _InsideRoot(root)
    source_labels, semantic_labels = (
        _Labels("label", "source"),
        _Labels("dlabel", "semantic"),
    )
    rows: list[Row] = []
    for file in files:
        for where, cells in _read_csv(file):
            path = inside.relative(cells["path"], where)
            source = _name(cells, "source", path, 0, where)
            semantic = _name(cells, "semantic", path, 1, where)
            source_labels.add(cells["label"], source, where)
            semantic_labels.add(cells["dlabel"], semantic, where)
            split = _split(cells, file, where)
            group = cells.get("group") or str(path)
            rows.append(Row(str(path), source, semantic, group, split, where))
    if not rows:
        raise InputError(f"{files[0]}: no rows below the header")
    _check_once(rows)
    sources = _real_first(source_labels.in_order(), str(files[0]))
    return Manifest(root, tuple(rows), sources, semantic_labels.in_order())


class _InsideRoot:
    """Keeps paths within a folder, links resolved."""

    def __init__(self, root: Path):
        self.root = root
        self._resolved = Path(os.path.realpath(root))
        self._folders: dict[Path, bool] = {}

    def relative(self, path: str, where: str) -> PurePosixPath:
        """Return a path of a manifest in normal form, or say what is wrong with it."""
        given = Path(path)
        if given.is_absolute():
            given = Path(os.path.relpath(given, self.root))
        normal = Path(os.path.normpath(given))
        if normal.parts[:1] in ((), ("..",)):
            raise InputError(f"{where}: path {path!r} is outside the root {self.root}")
        self.check(self.root / normal, f"{where}: ")
        return PurePosixPath(normal.as_posix())

    def check(self, file: Path, prefix: str = "") -> None:
        """Raise if links lead the file out of the root; it need not exist."""
        if file.parent not in self._folders:  # one look per folder, not per file
            self._folders[file.parent] = self._holds(file.parent)
        held = self._folders[file.parent] and (
            not file.is_symlink() or self._holds(file)
        )
        if not held:
            raise InputError(
                f"{prefix}{file} lies behind a link out of the root {self.root}; "
                "copy the files there or give a root that holds them"
            )

    def _holds(self, path: Path) -> bool:
        return Path(os.path.realpath(path)).is_relative_to(self._resolved)


class _Labels:
    """Pairs of a label and a name, each of which must belong to one other."""

    def __init__(self, column: str, kind: str):
        self.column, self.kind = column, kind
        self._names: dict[int, str] = {}
        self._labels: dict[str, int] = {}

    def add(self, label: str, name: str, where: str) -> None:
        try:
            number = int(label)
        except ValueError:
            number = -1
        if number < 0:
            raise InputError(
                f"{where}: {self.column} {label!r} is not an integer from 0"
            )
        if self._names.setdefault(number, name) != name:
            raise InputError(
                f"{where}: {self.column} {number} is {self.kind} {name!r} here, but "
                f"{self._names[number]!r} further up; check the names or the `{self.kind}` column"
            )
        if self._labels.setdefault(name, number) != number:
            raise InputError(
                f"{where}: {self.kind} {name!r} has {self.column} {number} here, but "
                f"{self._labels[name]} further up; check the labels or the `{self.kind}` column"
            )

    def in_order(self) -> tuple[str, ...]:
        return tuple(name for _, name in sorted(self._names.items()))


def _walk(root: Path, inside: _InsideRoot) -> Iterator[PurePosixPath]:
    """Yield the images under a folder in a stable order, relative to it."""

    def refuse(error: OSError) -> None:
        raise InputError(f"{error.filename}: {error.strerror}")

    for folder, folders, files in os.walk(root, followlinks=True, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in folders:  # before descending: a link may lead anywhere
            inside.check(Path(folder) / name)
        for name in sorted(files):
            if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES:
                file = Path(folder) / name
                inside.check(file)
                yield PurePosixPath(file.relative_to(root).as_posix())


def _read_csv(file: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield `file, line n` and the cells of each row of a manifest."""
    try:
        # utf-8-sig: spreadsheets put a byte-order mark before the first column.
        with open(file, newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream, skipinitialspace=True)
            missing = [
                name for name in REQUIRED if name not in (reader.fieldnames or ())
            ]
            if missing:
                raise InputError(
                    f"{file}, line 1: no column {', '.join(missing)}; a manifest has the columns "
                    "path,label,dlabel and optionally source,semantic,group,split"
                )
            for cells in reader:
                where = f"{file}, line {reader.line_num}"
                if None in cells or None in cells.values():
                    raise InputError(
                        f"{where}: not {len(reader.fieldnames)} cells as the header"
                    )
                yield where, {name: cell.strip() for name, cell in cells.items()}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{file}: cannot read this manifest ({error})") from error


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
        hint = f"path {str(path)!r} has no folder for the {column}; add a column {column!r}"
    if not name:
        raise InputError(f"{where}: {hint}")
    return name


def _split(cells: dict[str, str], file: Path, where: str) -> str:
    if "split" not in cells:
        return file.stem if file.stem in SPLITS else ""
    if cells["split"] not in SPLITS:
        raise InputError(
            f"{where}: split {cells['split']!r}; the choices are {', '.join(SPLITS)}"
        )
    return cells["split"]


def _check_once(rows: Sequence[Row]) -> None:
    """Check that no path occurs twice and no group in two splits."""
    paths: dict[str, str] = {}
    groups: dict[str, Row] = {}
    for row in rows:
        if row.path in paths:
            raise InputError(
                f"{row.where}: path {row.path!r} already given in {paths[row.path]}"
            )
        paths[row.path] = row.where
        first = groups.setdefault(row.group, row)
        if first.split != row.split:
            raise InputError(
                f"{row.where}: group {row.group!r} is in split {row.split!r} here, but in "
                f"{first.split!r} in {first.where}; a group belongs to one split"
            )


def _real_first(names: Sequence[str], where: str) -> tuple[str, ...]:
    if REAL not in names:
        raise InputError(
            f"{where}: no source is called {REAL!r}, only {', '.join(names)}; source 0 is that "
            "of the real photographs"
        )
    return (REAL, *(name for name in names if name != REAL))
