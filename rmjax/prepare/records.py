"""Images to records: checked, serialised, and written to array_record shards."""

from array import array
from collections.abc import Callable, Container, Sequence
from functools import cached_property

import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter
from tensorflow_datasets.core.example_serializer import ExampleSerializer
from tensorflow_datasets.core.naming import ShardedFileTemplate

from rmjax.data.image_files import read_bytes
from rmjax.data.images import decode_rgb, open_image
from rmjax.data.labels import TYPES, hash_name
from rmjax.errors import InputError
from rmjax.prepare.manifest import Manifest, Row

SHARD_BYTES = 256 * 2**20

# How files of these formats begin and end.
_ENDS = {b"\xff\xd8": b"\xff\xd9", b"\x89P": b"IEND\xaeB`\x82"}  # JPEG, PNG

# An image and its file's bytes, or None where the worker shall read the file.
Item = tuple[Row, bytes | None]


def features(
    source_names: Sequence[str] | None = None,
    semantic_names: Sequence[str] | None = None,
) -> tfds.features.FeaturesDict:
    """Return what a record holds; class names may be set later."""
    return tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(),
            "source": tfds.features.ClassLabel(names=source_names),
            "semantic": tfds.features.ClassLabel(names=semantic_names),
            "path": tfds.features.Text(),
            "group": tfds.features.Text(),
        }
    )


def example(row: Row, image: bytes) -> dict:
    """Return what TFDS encodes for an image."""
    return {
        "image": image,
        "source": row.source,
        "semantic": row.semantic,
        "path": row.path,
        "group": row.group,
    }


class Encoder:
    """Reads, checks and serialises images; a copy works in each process.

    Args:
        manifest: says where the images are, and the names by index.
        check: raises an InputError for an image that cannot be used.
    """

    def __init__(self, manifest: Manifest, check: Callable[[bytes, str], object]):
        self.root, self.check = manifest.root, check
        self.names = manifest.source_names, manifest.semantic_names

    @cached_property
    def _features(self) -> tfds.features.FeaturesDict:
        return features(*map(list, self.names))

    @cached_property
    def _serializer(self) -> ExampleSerializer:
        return ExampleSerializer(self._features.get_serialized_info())

    def __getstate__(self) -> dict:
        return {name: self.__dict__[name] for name in ("root", "check", "names")}

    def read(self, item: Item) -> bytes:
        """Return an image's bytes.

        Raises:
            InputError: why they cannot be used.
        """
        row, data = item
        try:
            row.path.encode()
        except UnicodeEncodeError:
            raise InputError(f"{row.path}: the name is not UTF-8") from None
        if data is None:
            data = read_bytes(self.root / row.path, row.path)
        if not data:
            raise InputError(f"{row.path}: the file is empty")
        self.check(data, row.path)
        return data

    def labels(self, row: Row) -> tuple[int, int, int]:
        """Return source, semantic and group of an image, as numbers."""
        sources, semantics = self.names
        group = hash_name(row.group.encode())
        return sources.index(row.source), semantics.index(row.semantic), group

    def __call__(self, block: Sequence[Item]) -> list[bytes | str]:
        """Return a record for each image, or in words why there is none."""
        return [self._record(item) for item in block]

    def _record(self, item: Item) -> bytes | str:
        try:
            data = self.read(item)
        except InputError as error:
            return str(error).removeprefix(f"{item[0].path}: ")
        encoded = self._features.encode_example(example(item[0], data))
        # Without this the order of a record's fields differs between processes.
        proto = self._serializer.get_tf_example(encoded)
        return proto.SerializeToString(deterministic=True)


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
    open_image(data, name)


def num_shards(num_bytes: int) -> int:
    """Return how many shards a split of that size gets."""
    return max(1, round(num_bytes / SHARD_BYTES))


class SplitWriter:
    """Writes the records of one split to its shards in turn.

    The order in which records come decides where they go and nothing else does, so
    that the same images give the same files whatever the number of processes.
    """

    def __init__(self, template: ShardedFileTemplate, shards: int):
        self._template = template
        # Images are compressed already: doing it again took most of the time.
        self._writers = [
            ArrayRecordWriter(
                str(template.sharded_filepath(shard_index=i, num_shards=shards)),
                "group_size:1,uncompressed",
            )
            for i in range(shards)
        ]
        self._labels = [tuple(array(code) for code in "iiq") for _ in range(shards)]
        self.length, self._bytes = 0, 0

    def write(self, record: bytes, labels: tuple[int, int, int]) -> None:
        """Write a record; labels are source, semantic and group."""
        shard = self.length % len(self._writers)
        self._writers[shard].write(record)
        for values, value in zip(self._labels[shard], labels, strict=True):
            values.append(value)
        self.length += 1
        self._bytes += len(record)

    def close(self) -> None:
        for writer in self._writers:
            writer.close()

    def labels(self) -> dict[str, np.ndarray]:
        """Return arrays of `labels.TYPES`, in the order of the finished split."""
        columns = zip(*self._labels, strict=True)
        return {
            name: np.concatenate([np.asarray(part, kind) for part in parts])
            for (name, kind), parts in zip(TYPES.items(), columns, strict=True)
        }

    def info(self) -> tfds.core.SplitInfo:
        """Return what TFDS notes of a split."""
        return tfds.core.SplitInfo(
            name=self._template.split,
            shard_lengths=[len(source) for source, *_ in self._labels],
            num_bytes=self._bytes,
            filename_template=self._template,
        )


def check_trained(manifest: Manifest, trained: Container[str]) -> None:
    """Check that every source has training images, if there is a training split.

    Args:
        manifest: which images there were to be.
        trained: the sources that have some.

    Raises:
        InputError: names those without.
    """
    if not any(row.split == "train" for row in manifest.rows):
        return
    wanted = (name for name in manifest.source_names if name not in manifest.unknown)
    absent = [name for name in wanted if name not in trained]
    if absent:
        raise InputError(
            f"no readable image of source {', '.join(map(repr, absent))} in the training split; "
            "add some, or change the splits"
        )
