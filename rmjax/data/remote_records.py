"""Records of array_record files in a store, each fetched by its place in the file.

array_record reads files of this machine. Here its index is read once a file, and then
as many records at a time as are asked for, side by side.

A file is a Riegeli file: blocks of 64 KiB, each beginning with a header of 24 bytes that
interrupts whatever it stands in, and in them chunks of records. The last block says
where the index is, which is a chunk too: one record about the file, and one for each
chunk of records, which says where that begins. Sources: array_record's layout.proto, and
riegeli's doc/riegeli_records_file_format.md.
"""

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from rmjax.errors import InputError
from rmjax.utils.places import filesystem

_BLOCK, _BLOCK_HEADER = 65_536, 24
# Hash of this header, size and hash of the data, type and number of records in one, and
# size of the records.
_CHUNK_HEADER = struct.Struct("<QQQQQ")
_MAGIC = 0x71930E704FDAE05E  # in the last block
_CODECS = {b"z": "zstd", b"b": "brotli"}  # array_record compresses unless told not to
_AT_ONCE = 2**23  # bytes of neighbouring records that are fetched as one piece


class _Index(NamedTuple):
    """Where the records of a file are.

    Attributes:
        bounds: where each begins, and where the last one ends; int64 `[records + 1]`.
        sizes: of the records in bytes, int64 `[records]`.
    """

    bounds: np.ndarray
    sizes: np.ndarray


@dataclass(frozen=True)
class RemoteRecords(Sequence):
    """The records of some files, for random access.

    Attributes:
        paths: the files, in the order of their records.
        lengths: how many records each of them holds.
        parse: makes of a record's bytes what is returned.
    """

    paths: Sequence[Path]
    lengths: Sequence[int]
    parse: Callable[[bytes], Any] = bytes
    _indices: dict[int, _Index] = field(default_factory=dict, repr=False, compare=False)

    def __len__(self) -> int:
        return sum(self.lengths)

    def __getitem__(self, number: Any) -> Any:
        return self.__getitems__([number])[0]

    def __getitems__(self, numbers: Sequence[int]) -> list:
        """Return the records of these numbers.

        Raises:
            IndexError: there is none of such a number.
            ValueError: a file is damaged.
            InputError: a file was written with other options than rmjax's.
        """
        wanted = np.unique(numbers)
        if wanted.size and not 0 <= wanted[0] <= wanted[-1] < len(self):
            raise IndexError(f"{wanted[0]} or {wanted[-1]}")
        pieces = list(self._pieces(wanted))
        names, starts, ends = [], [], []
        for shard, own in pieces:
            names.append(filesystem(self.paths[shard])[1])
            starts.append(int(self._index(shard).bounds[own[0]]))
            ends.append(int(self._index(shard).bounds[own[-1] + 1]))
        if not pieces:
            return []
        system, _ = filesystem(self.paths[0])
        fetched = system.cat_ranges(names, starts, ends, on_error="raise")
        records: list[bytes] = []
        for (shard, own), start, data in zip(pieces, starts, fetched, strict=True):
            index = self._index(shard)
            for number in own:
                begin, end = (int(b) - start for b in index.bounds[number : number + 2])
                (record,) = _read_chunk(data[begin:end], start + begin, 1)
                if len(record) != index.sizes[number]:
                    raise ValueError("a record has another size than the index says")
                records.append(record)
        places = np.searchsorted(wanted, numbers)
        return [self.parse(records[place]) for place in places]

    def _pieces(self, wanted: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """Part ascending numbers into neighbours in one file, which are fetched as one.

        Yields:
            The file's number, and the records' numbers in it.
        """
        ends = np.cumsum(self.lengths)
        shards = np.searchsorted(ends, wanted, side="right")
        for shard in np.unique(shards):
            own = wanted[shards == shard] - (ends[shard] - self.lengths[shard])
            bounds = self._index(int(shard)).bounds
            begin = 0
            for i in range(1, len(own) + 1):
                if (
                    i == len(own)
                    or own[i] != own[i - 1] + 1
                    or bounds[own[i] + 1] - bounds[own[begin]] > _AT_ONCE
                ):
                    yield int(shard), own[begin:i]
                    begin = i

    def _index(self, shard: int) -> _Index:
        if shard not in self._indices:
            index = _read_index(self.paths[shard])
            if len(index.sizes) != self.lengths[shard]:
                raise ValueError(
                    f"{len(index.sizes)} records, where dataset_info.json says "
                    f"{self.lengths[shard]}"
                )
            self._indices[shard] = index
        return self._indices[shard]


def _read_index(path: Path) -> _Index:
    """Read where the records of a file are, from its end.

    Raises:
        ValueError: it is damaged, or no array_record file.
        InputError: it has several records in a chunk.
    """
    system, name = filesystem(path)
    size = system.size(name)
    if size < _BLOCK or size % _BLOCK:
        raise ValueError("cut, or no array_record file")
    fetch = partial(system.cat_file, name)
    last = _read_chunk(fetch(start=size - _BLOCK, end=size), size - _BLOCK)
    tag, footer, second, magic = _varints(last[0])[:4].tolist()
    if (tag, second, magic) != (8, 16, _MAGIC) or footer >= size - _BLOCK:
        raise ValueError("no array_record file")
    about, *chunks = _read_chunk(fetch(start=footer, end=size - _BLOCK), footer)
    if about[:1] != b"\x0a" or about[2:4] != b"\x08\x01":
        raise ValueError("an array_record file of an unknown version")
    fields = _varints(b"".join(chunks)).reshape(-1, 6)  # tag and value of three
    if len(fields) != len(chunks) or (fields[:, ::2] != (8, 16, 24)).any():
        raise ValueError("the index is damaged")
    if (fields[:, 5] != 1).any():
        raise InputError(
            f"{path}: written with group_size {fields[:, 5].max()}; from a store only "
            "files with group_size:1 are read, as rmjax writes them: prepare it anew"
        )
    bounds = np.append(fields[:, 1], np.uint64(footer)).astype(np.int64)
    if (np.diff(bounds) <= _CHUNK_HEADER.size).any():
        raise ValueError("the index is damaged")
    return _Index(bounds, fields[:, 3].astype(np.int64))


def _read_chunk(data: bytes, start: int, count: int | None = None) -> list[bytes]:
    """Return the records of the chunk that begins at `start` in its file.

    Args:
        data: the file from there on, to the chunk's end or beyond.
        start: the place.
        count: how many records it should have; None for any.

    Raises:
        ValueError: there is no such chunk.
    """
    data = _without_block_headers(data, start)
    if len(data) < _CHUNK_HEADER.size:
        raise ValueError("cut")
    _, size, _, kind, decoded = _CHUNK_HEADER.unpack_from(data)
    body = data[_CHUNK_HEADER.size :][:size]
    if kind & 0xFF != ord("r") or len(body) != size or count not in (None, kind >> 8):
        raise ValueError("no chunk of records where there should be one")
    codec, (length, begin) = body[:1], _first_varint(body, 1)
    sizes = _varints(_expand(body[begin : begin + length], codec)).astype(np.int64)
    values, ends = _expand(body[begin + length :], codec), np.cumsum(sizes)
    if len(sizes) != kind >> 8 or not sizes.sum() == decoded == len(values):
        raise ValueError("a chunk of other sizes than it says")
    return [
        values[e - s : e] for e, s in zip(ends.tolist(), sizes.tolist(), strict=True)
    ]


def _expand(data: bytes, codec: bytes) -> bytes:
    """Return what was compressed by a codec of `_CODECS`.

    Raises:
        ValueError: it is damaged, or the codec is another one.
    """
    if codec == b"\0":
        return data
    if codec not in _CODECS:
        raise ValueError(f"compressed in an unknown way, {codec!r}")
    size, begin = _first_varint(data, 0)
    try:
        return pa.decompress(data[begin:], size, _CODECS[codec], asbytes=True)
    except OSError as error:
        raise ValueError(f"damaged ({error})") from error


def _without_block_headers(data: bytes, start: int) -> bytes:
    """Return what a file holds from `start` on without the headers of its blocks."""
    first = -start % _BLOCK  # where in `data` the next block begins
    parts = [data[:first]]
    parts += (
        data[at + _BLOCK_HEADER : at + _BLOCK] for at in range(first, len(data), _BLOCK)
    )
    return b"".join(parts)


def _first_varint(data: bytes, begin: int) -> tuple[int, int]:
    """Return the number that begins at a place, and the place where it ends."""
    end = next((i for i in range(begin, len(data)) if data[i] < 128), len(data)) + 1
    return int(_varints(data[begin:end])[0]), end


def _varints(data: bytes) -> np.ndarray:
    """Decode numbers of 7 bits a byte, the lowest first; uint64."""
    raw = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(raw < 128)
    if not len(raw):
        return np.empty(0, np.uint64)
    if not len(ends) or ends[-1] != len(raw) - 1:
        raise ValueError("a number is cut")
    starts = np.append(0, ends[:-1] + 1)
    place = np.arange(len(raw)) - np.repeat(
        starts, np.diff(np.append(starts, len(raw)))
    )
    bits = (raw & 127).astype(np.uint64) << (7 * place).astype(np.uint64)
    return np.add.reduceat(bits, starts)
