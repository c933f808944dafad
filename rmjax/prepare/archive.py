"""Members of a tar archive, read as a stream: nothing is extracted.

The standard library's tarfile takes as long over a member's header as the rest of a
data set's preparation takes over its image, so headers are read here.

References:
    POSIX.1-2017, pax: the ustar interchange format and its extended headers. The GNU
    tar manual: long names.
"""

import bz2
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple

from isal import igzip, isal_zlib
from tqdm import tqdm

from rmjax.data.files import MAX_BYTES, check_regular
from rmjax.errors import InputError

BLOCK = 512

_OPENERS = {b"\x1f\x8b": igzip.open, b"BZ": bz2.open, b"\xfd7": lzma.open}
# Type flags: a file, a file by its old name, one in one piece.
_REGULAR = (b"0", b"\0", b"7")
_WITHOUT_DATA = b"123456"  # links, devices, folders, pipes
_SPARSE = b"S"
_LONG_NAME, _LONG_LINK, _EXTENDED, _EXTENDED_ALL = b"L", b"K", b"x", b"g"
# What the decompressors raise.
_DAMAGE = (EOFError, zlib.error, isal_zlib.error, lzma.LZMAError, ValueError)


class Member(NamedTuple):
    """The header of a member: its name, type flag, and bytes of data."""

    name: str
    kind: bytes
    size: int


def read_members(
    archive: Path, wanted: Callable[[str], bool], description: str
) -> Iterator[tuple[str, bytes]]:
    """Yield the regular files of a tar archive, in its order, by name and content.

    Memory does not grow with the archive. A bar shows how much of it has been read.

    Args:
        archive: a tar file, plain or compressed by gzip, bzip2 or xz.
        wanted: says of a name (normal, relative to the archive's root) whether its
            content is wanted; the others are passed over.
        description: of the bar.

    Raises:
        InputError: no such file, no archive, a truncated or damaged one, or a name that
            leaves its root.
    """
    try:
        size = check_regular(archive)
        bar = tqdm(total=size, desc=description, unit="B", unit_scale=True, delay=1)
        with open(archive, "rb") as raw, bar, _decompressed(raw) as stream:
            for member in _read_headers(stream):
                bar.update(raw.tell() - bar.n)
                name = _normal_name(member.name, archive)
                if member.kind not in _REGULAR or not wanted(name):
                    _skip(stream, member)
                    continue
                if member.size > MAX_BYTES:
                    raise InputError(
                        f"{archive}: {name} has {member.size:,} bytes; at most {MAX_BYTES:,} "
                        "are read"
                    )
                yield name, _data(stream, member)
            bar.update(raw.tell() - bar.n)
    except _DAMAGE as error:
        if isinstance(error, InputError):  # a ValueError as well
            raise
        raise InputError(
            f"{archive}: truncated or damaged, or no tar archive ({error}); check its size and "
            "checksum, or download it again"
        ) from error
    except OSError as error:
        raise InputError(f"{archive}: {error.strerror or error}") from error


@contextmanager
def _decompressed(raw: BinaryIO) -> Iterator[BinaryIO]:
    opener = _OPENERS.get(raw.peek(2)[:2])
    if opener is None:
        yield raw
        return
    with opener(raw) as stream:
        yield stream


def _read_headers(stream: BinaryIO) -> Iterator[Member]:
    """Yield headers; the consumer reads or skips the data of each.

    Raises:
        ValueError, EOFError: this is no tar archive, or not all of one.
    """
    extended: dict[str, str] = {}
    while True:
        header = _exactly(stream, BLOCK)
        if not header.strip(b"\0"):  # the end; two such blocks, but one is enough
            _drain(stream)
            return
        member = _parse(header)
        if member.kind == _LONG_NAME:
            extended["path"] = _text(_data(stream, member).split(b"\0")[0])
        elif member.kind == _EXTENDED:
            extended |= _records(_data(stream, member))
        elif member.kind == _SPARSE or "GNU.sparse.name" in extended:
            raise ValueError(f"{member.name} is stored sparsely")
        elif member.kind in (_LONG_LINK, _EXTENDED_ALL):
            _skip(stream, member)
        else:
            yield Member(
                extended.get("path", member.name),
                member.kind,
                int(extended.get("size", member.size)),
            )
            extended = {}


def _parse(header: bytes) -> Member:
    given = _number(header[148:156])
    if sum(header) - sum(header[148:156]) + 8 * ord(" ") != given:
        raise ValueError("bad header")
    name = _text(header[:100].split(b"\0")[0])
    if header[257:263] == b"ustar\0":  # GNU's has other things there
        prefix = _text(header[345:500].split(b"\0")[0])
        name = f"{prefix}/{name}" if prefix else name
    kind = header[156:157]
    size = 0 if kind in _WITHOUT_DATA else _number(header[124:136])
    return Member(name, kind, size)


def _number(field: bytes) -> int:
    if field[0] & 0x80:  # base 256, for what octal digits cannot hold
        return int.from_bytes(field, "big") & ~(0x80 << 8 * (len(field) - 1))
    return int(field.split(b"\0")[0].strip() or b"0", 8)


def _records(data: bytes) -> dict[str, str]:
    """Read an extended header: records of length, space, key=value, line feed."""
    found = {}
    while data:
        length = int(data.split(b" ", 1)[0])
        record, data = data[:length], data[max(length, 1) :]
        key, _, value = record.partition(b" ")[2].rstrip(b"\n").partition(b"=")
        found[_text(key)] = _text(value)
    return found


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _data(stream: BinaryIO, member: Member) -> bytes:
    if member.size > MAX_BYTES:
        raise ValueError(f"a header of {member.size} bytes")
    data = _exactly(stream, member.size + -member.size % BLOCK)
    return data[: member.size]


def _skip(stream: BinaryIO, member: Member) -> None:
    left = member.size + -member.size % BLOCK
    while left:
        left -= len(_exactly(stream, min(left, 2**20)))


def _exactly(stream: BinaryIO, count: int) -> bytes:
    data = stream.read(count)
    if len(data) < count:
        raise EOFError("it ends within a member" if data else "it ends too early")
    return data


def _drain(stream: BinaryIO) -> None:
    """Read to the end, where a compressed file has its checksum."""
    while stream.read(2**20):
        pass


def _normal_name(name: str, archive: Path) -> str:
    """Return a member's name without `.` parts, or refuse one that leaves the root."""
    if name[:1] == "/" or ".." in name.split("/"):
        raise InputError(
            f"{archive}: member {name!r} is outside the archive's root: do not trust this file"
        )
    return str(PurePosixPath(name))
