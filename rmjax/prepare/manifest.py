"""Which images there are and what they are: rows, and how a folder tree gives them.

Images of a group show the same thing (such as a photograph and what was made from
it) and never part over two splits. `rmjax.prepare.lists` reads rows from CSV files.
"""

import hashlib
import os
import posixpath
import sys
from collections import Counter
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from functools import partial
from logging import getLogger
from pathlib import Path, PurePosixPath

from rmjax.data.dataset import REAL
from rmjax.data.image_files import MAX_BYTES, count_suffixes, walk_images
from rmjax.data.parts import UNSPECIFIED, Entry
from rmjax.errors import InputError
from rmjax.utils.places import as_path, is_remote, list_sizes

logger = getLogger(__name__)

SPLITS = ("train", "val", "test")


@dataclass(frozen=True, slots=True)
class Row(Entry):
    """One image of a manifest; a million of them take some 300 MB.

    Its path is relative to the manifest's root, with forward slashes.

    Attributes:
        listed_in: the file that named the image, or the folder it was found in.
        line: its line in that file, from 1; 0 if a folder named it.
    """

    listed_in: str
    line: int = 0

    @property
    def where(self) -> str:
        """Return what named the image, for error messages."""
        if self.line:
            return f"{self.listed_in}, line {self.line}"
        return f"{self.listed_in}/{self.path}"


@dataclass(frozen=True)
class Manifest:
    """Images and the names of their classes.

    Attributes:
        root: the folder, or the archive, that paths are relative to.
        rows: the images, each path once.
        source_names: names by index, `real` first.
        semantic_names: names by index.
        unknown: sources that are for testing alone, as unknown ones.
        listed: images of an archive's lists, of which `rows` may be some.
    """

    root: Path
    rows: tuple[Row, ...]
    source_names: tuple[str, ...]
    semantic_names: tuple[str, ...]
    unknown: tuple[str, ...] = ()
    listed: int = 0


def read_tree(root: str | Path, levels: int = 0) -> Manifest:
    """Read the images of a folder tree `<source>/<semantic>/<image>`.

    `rmjax.data.image_files.walk_images` tells images from other files. Names are sorted,
    `real` first. Images of the same semantic and the same file name but for the suffix
    form a group: in sets of edited photographs these are pairs, and for mere serial
    numbers it does no harm. Trees that part each generator's images into real and fake
    are recognised, see `REAL_OR_FAKE`.

    Args:
        root: the folder.
        levels: of folders that there may be between the source and the semantic.

    Raises:
        InputError: no such folder, no images, an image at another depth, a link
            that leaves the folder, a source without images, or none called `real`.
    """
    root = as_path(root)
    shape = "<source>/" + "[<group>/]" * levels + "<semantic>/<image>"
    paths = list_tree(root, shape)
    read_path = _read_parted if _is_parted(paths) else partial(_read_path, levels)
    manifest = label_tree(root, paths, shape, read_path)
    check_generators(manifest, {path.parts[0] for path in paths})
    return manifest


def list_tree(root: Path, shape: str) -> list[PurePosixPath]:
    """Return the images below a folder, relative to it.

    Args:
        root: the folder.
        shape: what lies there, for error messages, such as `<source>/<image>`.

    Raises:
        InputError: as of `read_tree`.
    """
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; give one with {shape}")
    passed_over: list[PurePosixPath] = []
    check_link = InsideRoot(root).check
    paths = list(walk_images(root, passed_over.append, check_link))
    _report_passed_over(root, paths, passed_over)
    if not paths:
        raise InputError(f"{root}: no images found as {shape}")
    return paths


def label_tree(
    root: Path,
    paths: Sequence[PurePosixPath],
    shape: str,
    read_path: Callable[[Path, PurePosixPath], Row | None],
) -> Manifest:
    """Return the images of a folder, with what their paths say.

    Args:
        root: the folder.
        paths: of the images, relative to it.
        shape: what lies there, for error messages.
        read_path: function of both; None says that no image belongs there.

    Raises:
        InputError: an image where none belongs, or no source called `real`.
    """
    rows = []
    for path in paths:
        row = read_path(root, path)
        if row is None:
            raise InputError(
                f"{root / path}: an image at this depth; expected {root}/{shape} (describe "
                "other layouts by a CSV manifest)"
            )
        rows.append(row)
    semantics = tuple(sorted({row.semantic for row in rows}))
    names = real_first(sorted({row.source for row in rows}), str(root))
    return Manifest(root, tuple(rows), names, semantics)


def check_generators(manifest: Manifest, generators: Set[str]) -> None:
    """Check that every generator's folder holds images of that generator.

    Raises:
        InputError: one holds real photographs alone.
    """
    without = sorted(generators - set(manifest.source_names))
    if without:
        raise InputError(
            f"{manifest.root / without[0]}: a source without images, but real ones"
        )


def _report_passed_over(
    root: Path, paths: Sequence[PurePosixPath], passed_over: Sequence[PurePosixPath]
) -> None:
    """Log the files that are no images; raise where they are all that a source has."""
    sources = {path.parts[0] for path in paths}
    for folder in sorted(root.iterdir()):
        if folder.name in sources or folder.name[0] == "." or not folder.is_dir():
            continue
        held = Counter(p.suffix for p in passed_over if p.parts[0] == folder.name)
        raise InputError(
            f"{folder}: a source without images (other files: "
            f"{count_suffixes(held) or 'none'}); add some, or remove the folder"
        )
    if passed_over:
        counts = count_suffixes(Counter(path.suffix for path in passed_over))
        logger.warning("%s: no image by name or content: %s", root, counts)


def _read_path(levels: int, root: Path, path: PurePosixPath) -> Row | None:
    """Return what `<source>/<semantic>/<image>` says; None for another depth."""
    folders = path.parts[1:-1]
    if not 1 <= len(folders) <= 1 + levels:
        return None
    return _make_row(root, path, path.parts[0], folders[-1])


# What folders are called that part a generator's images into real and fake ones, as
# CNNDetection does: <generator>/[<semantic>/]0_real and 1_fake.
REAL_OR_FAKE = {"0_real": True, "1_fake": False}


def _is_parted(paths: Sequence[PurePosixPath]) -> bool:
    lowest = {path.parent.name for path in paths}
    return lowest == set(REAL_OR_FAKE) and not any(
        path.parts[0] == REAL for path in paths
    )


def _read_parted(root: Path, path: PurePosixPath) -> Row | None:
    """Return what `<generator>/[<semantic>/]<real or fake>/<image>` says."""
    generator, *between = path.parts[:-2]
    if len(between) > 1 or generator in SPLITS:
        return None
    source = REAL if REAL_OR_FAKE[path.parent.name] else generator
    return _make_row(root, path, source, *between or [UNSPECIFIED])


def _make_row(root: Path, path: PurePosixPath, source: str, semantic: str) -> Row:
    group = f"{semantic}/{path.stem}"
    # One string for all images of a class.
    source, semantic = sys.intern(source), sys.intern(semantic)
    return Row(str(path), source, semantic, group, "", str(root))


class InsideRoot:
    """Keeps paths within a folder, links resolved."""

    def __init__(self, root: Path):
        self.root = root
        self._resolved = Path(os.path.realpath(root))
        self._folders: dict[Path, bool] = {}
        self._below: dict[str, Path | None] = {}

    def relative(self, path: str, where: str) -> PurePosixPath:
        """Return a path of a manifest in normal form, or say what is wrong with it."""
        if "\0" in path:
            raise InputError(f"{where}: path {path!r} holds a NUL")
        if is_remote(self.root):
            return self._relative_in_store(path, where)
        folder, name = os.path.split(os.path.abspath(self.root / path))
        if folder not in self._below:  # one look per folder, not per file
            self._below[folder] = self._find_below(Path(folder))
        below = self._below[folder]
        if below is None:
            raise InputError(f"{where}: path {path!r} is outside the root {self.root}")
        self.check(self.root / below / name, f"{where}: ")
        return PurePosixPath((below / name).as_posix())

    def _relative_in_store(self, path: str, where: str) -> PurePosixPath:
        below = path.removeprefix(f"{self.root}/")
        normal = PurePosixPath(posixpath.normpath(below))
        if (
            is_remote(below)
            or normal.is_absolute()
            or normal.parts[:1] in ((), ("..",))
        ):
            raise InputError(f"{where}: path {path!r} is outside the root {self.root}")
        return normal

    def check(self, file: Path, prefix: str = "") -> None:
        """Raise if links lead the file out of the root; it need not exist."""
        if is_remote(self.root):  # which has no links
            return
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

    def _find_below(self, folder: Path) -> Path | None:
        """Return a folder as seen from the root, by whatever links either is given."""
        root = Path(os.path.abspath(self.root))
        same = [
            p
            for p in (folder, *folder.parents)
            if Path(os.path.realpath(p)) == self._resolved
        ]
        for parent in (root, *same):
            if folder.is_relative_to(parent):
                return folder.relative_to(parent)
        real = Path(os.path.realpath(folder))
        return real.relative_to(self._resolved) if self._holds(folder) else None


def check_once(rows: Sequence[Row]) -> None:
    """Check that no path occurs twice and no group in two splits.

    Raises:
        InputError: names the two places.
    """
    paths: dict[str, Row] = {}
    for row in rows:
        first = paths.setdefault(row.path, row)
        if first is not row:
            raise InputError(
                f"{row.where}: path {row.path!r} already given in {first.where}"
            )
    check_groups(rows)


def check_groups(rows: Sequence[Row]) -> None:
    """Check that no group occurs in two splits.

    Raises:
        InputError: names the two places.
    """
    groups: dict[str, Row] = {}
    for row in rows:
        first = groups.setdefault(row.group, row)
        if first.split != row.split:
            raise InputError(
                f"{row.where}: group {row.group!r} is in split {row.split!r} here, but in "
                f"{first.split!r} in {first.where}; a group belongs to one split"
            )


def real_first(names: Sequence[str], where: str) -> tuple[str, ...]:
    """Return source names with `real` moved to the front.

    Raises:
        InputError: no source is called so.
    """
    if REAL not in names:
        raise InputError(
            f"{where}: no source is called {REAL!r}, only {', '.join(names)}; source 0 is that "
            "of the real photographs; rename it, or name the sources in a CSV manifest"
        )
    return (REAL, *(name for name in names if name != REAL))


def fingerprint(manifest: Manifest) -> str:
    """Return a hash of what a data set is made from: names, labels, splits, file sizes."""
    digest = hashlib.sha256(
        repr((manifest.source_names, manifest.semantic_names)).encode()
    )
    size_of = sizes_of(manifest.root)
    for row in manifest.rows:
        entry = (row.path, row.source, row.semantic, row.group, row.split)
        digest.update(repr((*entry, size_of(row.path))).encode())
    return digest.hexdigest()


def sizes_of(root: Path) -> Callable[[str], int]:
    """Return what gives an image's bytes by its path; -1 where there is no file.

    What is larger than `MAX_BYTES` is left out, and as large as that here.
    """

    def size_of(path: str) -> int:
        try:
            return min((root / path).stat().st_size, MAX_BYTES)
        except OSError:
            return -1

    if not is_remote(root):
        return size_of
    listed = list_sizes(root)  # a request for each image would take hours
    return lambda path: min(listed.get(path, -1), MAX_BYTES)
