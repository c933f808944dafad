"""Members of a tar archive, read as a stream: nothing is extracted."""

import io
import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from isal import igzip, isal_zlib
from tqdm import tqdm

from rmjax.errors import InputError

MAX_MEMBER = 512 * 2**20  # bytes: no list or image is larger
CHUNK = 2**15  # bytes; tarfile copies the rest of a chunk at each read

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
