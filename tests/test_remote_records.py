# ruff: noqa: F811
"""Tests of the reader of array_record files in a store, against array_record's own."""

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter
from object_store import bucket, store  # noqa: F401

from rmjax.data.remote_records import RemoteRecords
from rmjax.errors import InputError
from rmjax.utils.places import as_path


def write(path, records, options="group_size:1,uncompressed"):
    writer = ArrayRecordWriter(str(path), options)
    for record in records:
        writer.write(record)
    writer.close()


def put(bucket, path):
    place = as_path(bucket) / path.name
    place.write_bytes(path.read_bytes())
    return place


def draw(sizes, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.bytes(int(size)) for size in sizes]


SIZES = {
    "one": [5],
    "of one byte": [1] * 7,
    "small": [*range(1, 400)],
    "across blocks": [30_000, 65_536 - 64 - 45, 40_000, 65_536, 131_072, 3, 65_511],
    "large": [3_000_000, 1, 9_000_000, 127, 128],
    "random": np.random.default_rng(1).integers(1, 40_000, 300),
}


@pytest.mark.parametrize("codec", ["uncompressed", "zstd", "brotli:1"])
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_records_as_array_record_reads_them(tmp_path, bucket, sizes, codec):
    write(tmp_path / "a.array_record", draw(sizes), f"group_size:1,{codec}")
    reader = ArrayRecordReader(str(tmp_path / "a.array_record"))
    records = RemoteRecords([put(bucket, tmp_path / "a.array_record")], [len(sizes)])
    everything = [*range(len(sizes))]
    assert records.__getitems__(everything) == reader.read(everything)
    some = np.random.default_rng(2).integers(0, len(sizes), 20).tolist()  # with repeats
    assert records.__getitems__(some) == reader.read(some)


def test_records_of_several_files_some_empty(tmp_path, bucket):
    parts = [draw([10, 20], 1), [], draw([70_000, 1, 2], 2), []]
    places = []
    for number, part in enumerate(parts):
        write(tmp_path / f"{number}.array_record", part)
        places.append(put(bucket, tmp_path / f"{number}.array_record"))
    records = RemoteRecords(places, [*map(len, parts)], parse=len)
    assert len(records) == 5
    assert records.__getitems__([4, 0, 2, 1, 0]) == [2, 10, 70_000, 20, 10]
    assert records.__getitems__([]) == []
    for number in (5, -1):
        with pytest.raises(IndexError):
            records[number]


def test_files_with_several_records_in_a_chunk_are_refused(tmp_path, bucket):
    write(tmp_path / "a.array_record", draw([100, 100]), "group_size:2,uncompressed")
    place = put(bucket, tmp_path / "a.array_record")
    with pytest.raises(InputError, match=rf"{place}.*group_size 2"):
        RemoteRecords([place], [2])[0]


def test_no_damage_to_what_says_where_records_are_gives_others(tmp_path, bucket):
    sizes = [100, 70_000, 5]
    written = draw(sizes)
    write(tmp_path / "a.array_record", written)
    whole = (tmp_path / "a.array_record").read_bytes()
    place = as_path(bucket) / "a.array_record"
    records = np.frombuffer(b"".join(written), np.uint8)
    rng = np.random.default_rng(3)
    for cut in (0, 1, 65_535, 65_536, len(whole) - 65_536, len(whole) - 1):
        place.write_bytes(whole[:cut])
        with pytest.raises(ValueError):
            RemoteRecords([place], [3]).__getitems__([0, 1, 2])
    # Heads of the chunks, the index behind them, and where that is.
    index = 64 + 45 * 3 + sum(sizes) + 2 * 24
    heads = [*range(64, 112), *range(index - 60, index + 200), *range(-65_536, -65_400)]
    for at in rng.choice(heads, 30, replace=False):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << int(rng.integers(8))
        place.write_bytes(bytes(damaged))
        try:
            found = RemoteRecords([place], [3]).__getitems__([0, 1, 2])
        except (ValueError, InputError):
            continue
        # At most the one bit, in the record that has it.
        differ = np.frombuffer(b"".join(found), np.uint8) != records
        assert [*map(len, found)] == sizes and differ.sum() <= 1
    place.write_bytes(whole)
    with pytest.raises(ValueError, match="3"):
        RemoteRecords([place], [4])[0]
