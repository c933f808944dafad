"""Images out of a tar archive, read as a stream: nothing is extracted.

The lists of an archive may stand anywhere in it, so it is read up to three of them
first, and once more for the images.
"""

import io
import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath

from isal import igzip, isal_zlib
from tqdm import tqdm

from rmjax.data.lists import Labels, opener_of_bytes, read_list
from rmjax.data.manifest import SPLITS, Manifest, Row
from rmjax.errors import InputError

LISTS = tuple(f"{split}.csv" for split in SPLITS)
MAX_MEMBER = 512 * 2**20  # bytes: no list or image is larger
CHUNK = 2**20  # bytes read at once

# What the standard library raises for a damaged or truncated archive.
_DAMAGE = (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, isal_zlib.error)


def read_members(
    archive: Path, wanted: Callable[[str], bool], description: str
) -> Iterator[tuple[str, bytes]]:
    """Yield the regular files of a tar archive, in its order, by name and content.

    Memory does not grow with the archive. A bar shows how much of it has been read.

    Args:
        archive: a tar file, plain or compressed by gzip, bzip2 or xz.
        wanted: says of a name (normal, relative to the archive's root) whether its
            content is wanted; the others are passed over unread.
        description: of the bar.

    Raises:
        InputError: no such file, no archive, a truncated or damaged one, or a name that
            leaves its root.
    """
    try:
        size = archive.stat().st_size
        bar = tqdm(total=size, desc=description, unit="B", unit_scale=True, delay=1)
        with open(archive, "rb") as raw, bar, _open_tar(raw) as tar:
            for member in tar:
                tar.members = []  # tarfile would keep a million of them
                bar.update(raw.tell() - bar.n)
                name = _normal_name(member.name, archive)
                if member.isreg() and wanted(name):
                    yield name, _content(tar, member, archive)
    except _DAMAGE as error:
        raise InputError(
            f"{archive}: truncated or damaged, or no tar archive ({error}); check its size and "
            "checksum, or download it again"
        ) from error
    except OSError as error:
        raise InputError(f"{archive}: {error.strerror or error}") from error


def read_archive_lists(archive: Path) -> Manifest:
    """Read train.csv, val.csv and test.csv of an archive: all that it holds.

    Source 0, the real photographs, is that of label 0, whatever it is called. Paths
    are as listed, which may be relative to any folder above the list: `Finder` says
    which image of the archive is meant.

    Raises:
        InputError: as `read_members`, and `rmjax.data.lists.read_list`; no list.
    """
    texts: dict[str, bytes] = {}
    wanted = lambda name: PurePosixPath(name).name in LISTS  # noqa: E731
    for name, data in read_members(archive, wanted, "finding the lists"):
        texts[name] = data
        if {PurePosixPath(name).name for name in texts} == set(LISTS):
            break
    if not texts:
        raise InputError(f"{archive}: holds none of {', '.join(LISTS)}")
    labels = Labels()
    rows: list[Row] = []
    # In the order of the splits: the training list says what names go with a label.
    for name in sorted(texts, key=lambda name: LISTS.index(PurePosixPath(name).name)):
        rows += read_list(name, opener_of_bytes(texts[name]), labels, _relative)
    if not rows:
        raise InputError(f"{archive}: no rows in {', '.join(texts)}")
    sources, semantics = labels.sources.in_order(), labels.semantics.in_order()
    return Manifest(archive, tuple(rows), sources, semantics)


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
        self._bases = {
            listed_in: [
                f"{parent}/".removeprefix("./")
                for parent in PurePosixPath(listed_in).parents
            ]
            for listed_in in self._rows
        }

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
        return replace(self._rows[listed_in].pop(path), path=name)

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


@contextmanager
def _open_tar(raw: io.BufferedIOBase) -> Iterator[tarfile.TarFile]:
    gzipped = raw.peek(2)[:2] == b"\x1f\x8b"
    # ISA-L inflates three times as fast as the standard library.
    stream = igzip.open(raw) if gzipped else raw
    mode = "r|" if gzipped else "r|*"
    with tarfile.open(fileobj=stream, mode=mode, bufsize=CHUNK) as tar:
        yield tar


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo, archive: Path) -> bytes:
    if member.size > MAX_MEMBER:
        raise InputError(
            f"{archive}: {member.name} has {member.size:,} bytes; at most {MAX_MEMBER:,} are read"
        )
    return tar.extractfile(member).read()


def _normal_name(name: str, archive: Path) -> str:
    """Return a member's name without `.` parts, or refuse one that leaves the root."""
    parts = PurePosixPath(name).parts
    if parts[:1] == ("/",) or ".." in parts:
        raise InputError(
            f"{archive}: member {name!r} is outside the archive's root: do not trust this file"
        )
    return "/".join(parts)


def _relative(path: str, where: str) -> PurePosixPath:
    given = PurePosixPath(path)
    if given.is_absolute() or ".." in given.parts or not given.parts:
        raise InputError(f"{where}: path {path!r} is outside the archive's root")
    return given
