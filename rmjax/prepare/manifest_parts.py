"""The images of a manifest in parts: those of a folder, or of an archive."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from rmjax.data.archive import read_members
from rmjax.data.image_files import check_regular, read_bytes
from rmjax.data.parts import Collection, Entry, Unusable
from rmjax.errors import InputError
from rmjax.prepare.manifest import Manifest, Row, fingerprint, sizes_of
from rmjax.prepare.split_lists import Finder
from rmjax.utils.places import is_remote
from rmjax.utils.processes import map_ahead

_PART_BYTES = 16 * 2**20
_AT_ONCE = 32  # images that a store is asked for


@dataclass(frozen=True)
class FolderPart:
    """Some images of a folder.

    Attributes:
        root: the folder that paths are relative to.
        rows: the images.
        size: their bytes.
    """

    root: Path
    rows: tuple[Row, ...]
    size: int

    @property
    def name(self) -> str:
        return str(self.root)

    def entries(self) -> Iterator[Row]:
        yield from self.rows

    def images(self) -> Iterator[tuple[Row, bytes] | Unusable]:
        if not is_remote(self.root):
            yield from map(self._read, self.rows)
            return
        # A store answers many requests in the time of one.
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for _, image in map_ahead(pool, self._read, self.rows, 2 * _AT_ONCE):
                yield image

    def _read(self, row: Row) -> tuple[Row, bytes] | Unusable:
        try:
            return row, read_bytes(self.root / row.path, row.path)
        except InputError as error:
            return Unusable(row.path, str(error).removeprefix(f"{row.path}: "))


@dataclass(frozen=True)
class ArchivePart:
    """The images of an archive, which is read from its beginning to its end.

    Attributes:
        archive: the file.
        rows: the images, as its lists name them.
        size: about their bytes.
    """

    archive: Path
    rows: tuple[Row, ...]
    size: int

    @property
    def name(self) -> str:
        return str(self.archive)

    def entries(self) -> Iterator[Entry]:
        # Equal paths in two lists may be two images: where they start shows later.
        for row in self.rows:
            group = row.where if row.group == row.path else row.group
            yield Entry(row.where, row.source, row.semantic, group, row.split)

    def images(self) -> Iterator[tuple[Row, bytes] | Unusable]:
        finder = Finder(self.rows)
        members = read_members(self.archive, finder.knows, "reading images")
        for name, data in members:
            yield finder.take(name), data
        for row in finder.left():
            yield Unusable(row.path, "not in the archive")


def collection_of(manifest: Manifest) -> Collection:
    """Return the images of a manifest in parts."""
    parts: list[FolderPart | ArchivePart] = []
    state = ""
    if manifest.root.is_dir():
        rows: list[Row] = []
        size, size_of = 0, sizes_of(manifest.root)
        for row in manifest.rows:
            rows.append(row)
            size += max(size_of(row.path), 0)
            if size >= _PART_BYTES:
                parts.append(FolderPart(manifest.root, tuple(rows), size))
                rows, size = [], 0
        if rows:
            parts.append(FolderPart(manifest.root, tuple(rows), size))
        state = fingerprint(manifest)
    else:
        # Images do not get smaller by compression: the archive's size is that of all.
        share = len(manifest.rows) / manifest.listed
        size = int(check_regular(manifest.root) * share)
        parts.append(ArchivePart(manifest.root, manifest.rows, size))
    return Collection(
        str(manifest.root),
        tuple(parts),
        manifest.source_names,
        manifest.semantic_names,
        manifest.unknown,
        real=manifest.source_names[0],
        state=state,
    )
