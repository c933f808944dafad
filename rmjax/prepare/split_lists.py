"""The lists train.csv, val.csv and test.csv of a published data set, and their images.

They may stand anywhere in an archive or a folder, and their paths may start from their
own folder or from one above it. Which, the first image found decides.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from rmjax.data.archive import read_members
from rmjax.errors import InputError
from rmjax.prepare.lists import LISTS, Labels, read_list
from rmjax.prepare.manifest import InsideRoot, Manifest, Row, check_groups, check_once
from rmjax.utils.places import is_remote, list_sizes, walk


def read_archive_lists(archive: Path) -> Manifest:
    """Read train.csv, val.csv and test.csv of an archive, wherever they stand in it.

    `Finder` says which image of the archive a row means.

    Raises:
        InputError: as `read_members` and `_read_lists`.
    """
    lists: dict[str, Path | bytes] = {}
    members = read_members(archive, lambda name: _file(name) in LISTS, "finding lists")
    for name, data in members:
        lists[name] = data
        if set(map(_file, lists)) == set(LISTS):
            break
    return _read_lists(lists, archive)


class Finder:
    """Finds the rows that an archive's members belong to.

    Paths of a list start from its own folder or from one above it. Which, the first
    image found decides.
    """

    def __init__(self, rows: Sequence[Row]):
        self._rows: dict[str, dict[str, Row]] = {}
        for row in rows:
            first = self._rows.setdefault(row.listed_in, {}).setdefault(row.path, row)
            if first is not row:
                raise InputError(
                    f"{row.where}: path {row.path!r} already given in {first.where}"
                )
        self._bases = {listed_in: _base_folders(listed_in) for listed_in in self._rows}

    def knows(self, name: str) -> bool:
        """Return whether a member belongs to a row that was not taken yet.

        Raises:
            InputError: to the rows of two lists.
        """
        matches = list(self._matches(name))
        if len(matches) > 1:
            first, second = (self._rows[at][path] for at, path in matches[:2])
            raise InputError(f"{second.where}: {name} is in {first.where} as well")
        return bool(matches)

    def take(self, name: str) -> Row:
        """Return the row of a known member, its path that of the member."""
        (listed_in, path), *_ = self._matches(name)
        self._bases[listed_in] = [name[: len(name) - len(path)]]
        row = self._rows[listed_in].pop(path)
        return _moved(row, name)

    def left(self) -> Iterator[Row]:
        """Yield the rows that no member belonged to."""
        for rows in self._rows.values():
            yield from rows.values()

    def _matches(self, name: str) -> Iterator[tuple[str, str]]:
        """Yield the list and the path in it that a member's name fits."""
        for listed_in, rows in self._rows.items():
            for base in self._bases[listed_in]:
                if name.startswith(base) and name[len(base) :] in rows:
                    yield listed_in, name[len(base) :]
                    break


def read_folder_lists(root: Path) -> Manifest:
    """Read train.csv, val.csv and test.csv wherever they are under a folder.

    Paths of the result start from the root.

    Raises:
        InputError: as `_read_lists`; a path given twice, or a link that leaves the
            folder.
    """
    files = {file.relative_to(root).as_posix(): file for file in find_lists(root)}
    listed = _read_lists(files, root)
    bases = {name: _base_folders(name) for name in files}
    inside = InsideRoot(root)
    is_there = _files_in(root)
    rows = []
    for row in listed.rows:
        fits = (b for b in bases[row.listed_in] if is_there(f"{b}{row.path}"))
        base = next(fits, None)
        if base is not None:  # as the first image that there is, so all
            bases[row.listed_in] = [base]
        path = f"{base or ''}{row.path}"
        inside.check(root / path, f"{row.where}: ")
        rows.append(_moved(row, path))
    check_once(rows)
    return replace(listed, rows=tuple(rows))


def _files_in(root: Path) -> Callable[[str], bool]:
    """Return what tells whether there is a file, by its path from the root."""
    if not is_remote(root):
        return lambda path: (root / path).is_file()
    return list_sizes(root).__contains__  # a request for each image would take hours


def find_lists(root: Path) -> Iterator[Path]:
    """Yield the lists under a folder, as high up as there are all three."""
    names_seen = set()
    for folder, folders, names in walk(root):
        folders.sort()
        for name in sorted(set(LISTS) & set(names)):
            names_seen.add(name)
            yield folder / name
        if names_seen == set(LISTS):
            return


def _read_lists(lists: Mapping[str, Path | bytes], root: Path) -> Manifest:
    """Read lists that give the splits by their names.

    Source 0, the real photographs, is that of label 0, whatever it is called. Paths
    are as listed.

    Args:
        lists: their files or contents, by their paths relative to the root.
        root: the folder or archive that they are in.

    Raises:
        InputError: as `rmjax.prepare.lists.read_list`; no list, or no rows.
    """
    # The training list first: it says what names go with a label.
    names = sorted(lists, key=lambda name: (LISTS.index(_file(name)), name))
    labels = Labels()
    rows: list[Row] = []
    for name in names:
        try:
            rows += read_list(name, lists[name], labels, _inside)
        except InputError as error:  # which train.csv?
            raise InputError(f"{root}: {error}") from error
    if not rows:
        what = f"no rows in {', '.join(names)}" if names else f"no {', '.join(LISTS)}"
        raise InputError(f"{root}: {what}; is this the whole data set?")
    sources, semantics = labels.sources.in_order(), labels.semantics.in_order()
    if 0 not in labels.sources:
        raise InputError(f"{root}: no image has label 0, that of the real photographs")
    # Equal paths in two lists may be different images: that shows when they are found.
    check_groups([row for row in rows if row.group != row.path])
    return Manifest(root, tuple(rows), sources, semantics, listed=len(rows))


def _base_folders(name: str) -> list[str]:
    """Return the folders that paths in a list may start from, its own first.

    They end in a slash, but for the root, which is empty.
    """
    parents = PurePosixPath(name).parents
    return ["" if str(parent) == "." else f"{parent}/" for parent in parents]


def _inside(path: str, where: str) -> PurePosixPath:
    given = PurePosixPath(path)
    if given.is_absolute() or ".." in given.parts or not given.parts:
        raise InputError(f"{where}: path {path!r} is outside the data set's root")
    return given


def _moved(row: Row, path: str) -> Row:
    """Return a row with another path, which is its group too if its path was."""
    return replace(row, path=path, group=path if row.group == row.path else row.group)


def _file(name: str) -> str:
    return PurePosixPath(name).name
