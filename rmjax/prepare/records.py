"""Images to records: checked, serialised, and written to array_record shards."""

from array import array
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import simplejpeg
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter
from tensorflow_datasets.proto import tf_example_pb2

from rmjax.data.images import MAX_PIXELS, decode_rgb, open_image
from rmjax.data.labels import TYPES, hash_name
from rmjax.data.parts import Entry
from rmjax.errors import InputError

# Says of an image's bytes, with its path for the message, that they cannot be used.
Check = Callable[[bytes, str], object]
# Makes other bytes of an image's; raises an InputError where that is not possible.
Transform = Callable[[Entry, bytes], bytes]

# How files of these formats begin and end.
_ENDS = {b"\xff\xd8": b"\xff\xd9", b"\x89P": b"IEND\xaeB`\x82"}  # JPEG, PNG


def features() -> tfds.features.FeaturesDict:
    """Return what a record holds; class names are set later."""
    return tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(),
            "source": tfds.features.ClassLabel(),
            "semantic": tfds.features.ClassLabel(),
            "path": tfds.features.Text(),
            "group": tfds.features.Text(),
        }
    )


class Encoder:
    """Checks and serialises images; a copy works in each process.

    Args:
        sources, semantics: names by index.
        check: raises an InputError for an image that cannot be used.
        transform: makes of an image what is stored; None leaves it as it is.
    """

    def __init__(
        self,
        sources: Sequence[str],
        semantics: Sequence[str],
        check: Check,
        transform: Transform | None = None,
    ):
        self._index = tuple(
            {name: number for number, name in enumerate(names)}
            for names in (sources, semantics)
        )
        self._check, self._transform = check, transform

    def labels(self, entry: Entry) -> tuple[int, int, int]:
        """Return source, semantic and group of an image, as numbers; -1 for another name."""
        return *self._classes(entry), hash_name(entry.group.encode())

    def _classes(self, entry: Entry) -> tuple[int, int]:
        sources, semantics = self._index
        return sources.get(entry.source, -1), semantics.get(entry.semantic, -1)

    def __call__(self, block: Sequence[tuple[Entry, bytes]]) -> list[bytes | str]:
        """Return a record for each image, or in words why there is none."""
        return [self._record(entry, data) for entry, data in block]

    def _record(self, entry: Entry, data: bytes) -> bytes | str:
        try:
            entry.path.encode()
        except UnicodeEncodeError:
            return "the name is not UTF-8"
        try:
            if not data:
                raise InputError("the file is empty")
            if self._transform:
                data = self._transform(entry, data)
            self._check(data, entry.path)
        except InputError as error:
            return str(error).removeprefix(f"{entry.path}: ")
        source, semantic = self._classes(entry)
        example = tf_example_pb2.Example()
        feature = example.features.feature
        for name, text in (("path", entry.path), ("group", entry.group)):
            feature[name].bytes_list.value.append(text.encode())
        feature["image"].bytes_list.value.append(data)
        feature["source"].int64_list.value.append(source)
        feature["semantic"].int64_list.value.append(semantic)
        # Without this the order of a record's fields differs between processes.
        return example.SerializeToString(deterministic=True)


def check_file(data: bytes, name: str = "image") -> None:
    """Check the header and the end of an image file, at a tenth of the cost of decoding.

    Files of other formats than JPEG and PNG, and those with a strange end, are decoded
    after all.

    Args:
        data: the encoded file.
        name: what error messages call it, such as its path.

    Raises:
        InputError: as `decode_rgb`; damage within the pixels goes unnoticed.
    """
    end = _ENDS.get(data[:2])
    tail = data[-64:].rstrip(b"\0\r\n")  # some writers pad
    if end is None or not tail.endswith(end):
        decode_rgb(data, name)
        return
    with suppress(
        ValueError
    ):  # what that header is, Pillow says below, in 20 times as long
        height, width, *_ = simplejpeg.decode_jpeg_header(data)
        if height * width <= MAX_PIXELS:
            return
    open_image(data, name)


class SplitWriter:
    """Writes records of one split to shards in turn.

    The order in which records come decides where they go and nothing else does, so
    that the same images give the same files whatever the number of processes.

    Args:
        files: of the shards.
    """

    def __init__(self, files: Sequence[Path]):
        # Images are compressed already: doing it again took most of the time.
        self._writers = [
            ArrayRecordWriter(str(file), "group_size:1,uncompressed") for file in files
        ]
        self._labels = [tuple(array(code) for code in "iiq") for _ in files]
        self.length, self.bytes = 0, 0

    def write(self, record: bytes, labels: tuple[int, int, int]) -> None:
        """Write a record; labels are source, semantic and group."""
        shard = self.length % len(self._writers)
        self._writers[shard].write(record)
        for values, value in zip(self._labels[shard], labels, strict=True):
            values.append(value)
        self.length += 1
        self.bytes += len(record)

    def close(self) -> None:
        for writer in self._writers:
            writer.close()

    def lengths(self) -> list[int]:
        """Return the number of records in each shard."""
        return [len(source) for source, *_ in self._labels]

    def labels(self) -> dict[str, np.ndarray]:
        """Return arrays of `labels.TYPES`, in the order of the shards."""
        columns = zip(*self._labels, strict=True)
        return {
            name: np.concatenate([np.asarray(part, kind) for part in parts])
            for (name, kind), parts in zip(TYPES.items(), columns, strict=True)
        }
