"""Images in parquet files, as the Hugging Face Hub and others write them.

Files are read by ranges, wherever they are: of a row group a few images are in memory.

References:
    The features of a data set, which name its classes, stand as JSON under the key
    `huggingface` of the schema's metadata: https://huggingface.co/docs/datasets.
"""

import json
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rmjax.data.columns import (
    Columns,
    label_name,
    list_columns,
    real_first,
    splits_of_files,
)
from rmjax.data.dataset import REAL
from rmjax.data.find import (
    File,
    Place,
    describe_place,
    find_files,
    reading,
    state_of,
)
from rmjax.data.image_files import read_bytes
from rmjax.data.parts import Collection, Entry, Unusable
from rmjax.errors import InputError
from rmjax.utils.places import filesystem, is_remote

SUFFIXES = (".parquet",)
PART_BYTES = 64 * 2**20  # that the row groups of a part have, at least
_BATCH_BYTES = 4 * 2**20  # of images in memory, about
_BATCH_ROWS = 256  # at most
_BUFFER_BYTES = {False: 2**20, True: 8 * 2**20}  # that are read at once: here, remote
_LABEL_ROWS = 8192  # of labels in memory
_FILE_BYTES = 100_000  # of an image beside the file, for want of a better guess
_FILES_AT_ONCE = 16  # whose ends are read: in a store each has to be waited for
_IMAGE_NAMES = ("image", "img", "jpg", "png", "image_data", "image_bytes")

# What a column holds, by what pyarrow calls its type.
_KINDS = {
    **dict.fromkeys(("string", "large_string", "string_view"), "text"),
    **dict.fromkeys(("binary", "large_binary", "binary_view"), "bytes"),
    **{f"{sign}int{bits}": "numbers" for sign in ("", "u") for bits in (8, 16, 32, 64)},
    "bool": "truth values",
}
_LABELS = ("text", "numbers", "truth values")
_IMAGES = ("images", "bytes", "text")


@dataclass(frozen=True)
class _Column:
    """A column.

    Attributes:
        path: its name, from that of the outermost struct on.
        kind: a value of `_KINDS`; `images` for a struct of bytes and path; else what
            pyarrow calls the type.
        names: of a ClassLabel, by number.
    """

    path: tuple[str, ...]
    kind: str
    names: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Return the name, with dots."""
        return ".".join(self.path)

    def take_from(self, batch: pa.RecordBatch) -> pa.Array:
        """Return the column's values; null where a struct around one is null."""
        array = batch.column(self.path[0])
        return pc.struct_field(array, self.path[1:]) if self.path[1:] else array


class _End(NamedTuple):
    """What the end of a file tells: its columns, and rows and bytes of row groups."""

    columns: dict[str, _Column]
    groups: list[tuple[int, int]]


@dataclass(frozen=True)
class _Groups:
    """A part: row groups of a file, one after the other, from row `start` on."""

    file: File
    split: str  # that the file's name says
    groups: range
    start: int
    size: int
    columns: Columns = field(repr=False)
    image: _Column = field(repr=False)
    labels: Mapping[str, _Column] = field(repr=False)

    @property
    def name(self) -> str:
        return self.file.name

    def entries(self) -> Iterator[Entry | Unusable]:
        row = self.start
        with _open(self.file) as file:
            for group in self.groups:
                if not self.labels:
                    rows = file.metadata.row_group(group).num_rows
                    yield from self._entries(None, row, rows)
                    row += rows
                    continue
                for batch in _batches(file, group, self.labels.values(), _LABEL_ROWS):
                    yield from self._entries(batch, row, len(batch))
                    row += len(batch)

    def images(self) -> Iterator[tuple[Entry, bytes] | Unusable]:
        row = self.start
        wanted = (self.image, *self.labels.values())
        with _open(self.file) as file:
            for group in self.groups:
                facts = file.metadata.row_group(group)
                each = facts.total_byte_size // max(facts.num_rows, 1) + 1
                size = min(max(_BATCH_BYTES // each, 1), _BATCH_ROWS)
                for batch in _batches(file, group, wanted, size):
                    entries = self._entries(batch, row, len(batch))
                    values = self.image.take_from(batch)
                    for entry, value in zip(entries, values, strict=True):
                        try:
                            yield entry, _read(self.file, value.as_py())
                        except InputError as error:
                            yield Unusable(entry.path, str(error))
                    row += len(batch)

    def _entries(
        self, batch: pa.RecordBatch | None, start: int, size: int
    ) -> Iterator[Entry]:
        names = {
            role: self._names(role, column, column.take_from(batch), start)
            for role, column in self.labels.items()
        }
        for place in range(size):
            path = f"{self.file.name}:{start + place}"
            own = {role: values[place] for role, values in names.items()}
            yield self.columns.entry(path, self.split, own)

    def _names(
        self, role: str, column: _Column, values: pa.Array, start: int
    ) -> list[str]:
        known: dict[object, str] = {}
        names = []
        for place, value in enumerate(values.to_pylist()):
            if value not in known:
                where = f"{self.file.address}, row {start + place}"
                known[value] = self._name(role, column, value, where)
            names.append(known[value])
        return names

    def _name(self, role: str, column: _Column, value: object, where: str) -> str:
        if column.names and isinstance(value, int) and value >= 0:
            if value >= len(column.names):
                raise InputError(
                    f"{where}: {column.name} is {value}, and there are "
                    f"{len(column.names)} classes, from 0 on"
                )
            value = column.names[value]
        return label_name(role, value, where)


def open_parquet(place: Place, columns: Columns) -> Collection:
    """Find the images of parquet files.

    An image is a struct of bytes and path, as the Hub has it, bytes, or the path of a
    file from the folder of its parquet file on. A label is a ClassLabel, text, a whole
    number or a truth value. Each may be nested in structs.

    Args:
        place: a file, several, a folder, a pattern, an address that fsspec knows, or
            `hf:user/dataset`; see `rmjax.data.find.find_files`.
        columns: where the files say what an image is.

    Returns:
        Parts of row groups of one file, of 64 MiB or more where the file has
        these. An image's path is `FILE:ROW`, from row 0. The sources of a ClassLabel
        keep its order.

    Raises:
        InputError: no file, no rows, a file that is no parquet; a column that is not
            there, is of another type or, in another file, other than in the first; a
            name among `columns.real` that is no class; or names of files that say no
            split among others that do.
    """
    files = find_files(place, SUFFIXES)
    with ThreadPoolExecutor(_FILES_AT_ONCE) as pool:
        read = zip(files, pool.map(_read_end, files), strict=True)
        ends = {file: end for file, end in read if end.groups}
    if not ends:
        raise InputError(f"{describe_place(place)}: no rows in its parquet files")
    first, end = next(iter(ends.items()))
    image = _find_image(first, end.columns, columns.image)
    labels = {
        role: _find_column(first, end.columns, name, role, _LABELS)
        for role, name in columns.labels().items()
    }
    for file, other in ends.items():
        _check_same(first, file, other.columns, (image, *labels.values()))
    sources = labels["source"].names if "source" in labels else ()
    columns = replace(columns, real=_real_names(first, columns.real, sources))
    names = [file.name for file in ends]
    splits = [""] * len(names) if columns.split else splits_of_files(names)
    parts = [
        _Groups(file, split, *cut, columns, image, labels)
        for (file, end), split in zip(ends.items(), splits, strict=True)
        for cut in _cut(end.groups, _FILE_BYTES if image.kind == "text" else 0)
    ]
    return Collection(
        describe_place(place),
        tuple(parts),
        real_first(REAL if name in columns.real else name for name in sources),
        labels["semantic"].names if "semantic" in labels else (),
        stated=() if sources else columns.real,
        state=state_of(files),
    )


def parquet_columns(place: Place) -> list[str]:
    """Return the names of the columns of parquet files, with dots for nested ones.

    Raises:
        InputError: as of `open_parquet`.
    """
    return [*_read_end(find_files(place, SUFFIXES)[0]).columns]


def _cut(
    groups: Sequence[tuple[int, int]], per_row: int
) -> Iterator[tuple[range, int, int]]:
    """Yield row groups in parts: which, the first row, and bytes.

    Args:
        groups: rows and bytes of each.
        per_row: bytes that a row has elsewhere.
    """
    first = start = rows = size = 0
    for number, (group_rows, group_size) in enumerate(groups, 1):
        rows, size = rows + group_rows, size + group_size + group_rows * per_row
        if rows and (size >= PART_BYTES or number == len(groups)):
            yield range(first, number), start, size
            first, start, rows, size = number, start + rows, 0, 0


@contextmanager
def _open(file: File) -> Iterator[pq.ParquetFile]:
    """Open a file; whatever goes wrong until it is closed names it."""
    with reading(file.address), ExitStack() as stack:
        remote = is_remote(file.address)
        source: Any = file.address
        if remote:
            fs, path = filesystem(file.address)
            source = stack.enter_context(fs.open(path, "rb", cache_type="none"))
        # Without pre_buffer and with a buffer, a row group is read as it is used.
        buffer = _BUFFER_BYTES[remote]
        opened = pq.ParquetFile(source, buffer_size=buffer, pre_buffer=False)
        yield stack.enter_context(opened)


def _batches(
    file: pq.ParquetFile, group: int, columns: Any, size: int
) -> Iterator[pa.RecordBatch]:
    return file.iter_batches(
        size,
        row_groups=[group],
        columns=[column.name for column in columns],
        use_threads=False,
    )


def _read_end(file: File) -> _End:
    with _open(file) as opened:
        schema, metadata = opened.schema_arrow, opened.metadata
        flat = _flatten(list(schema), _read_features(schema), ())
        columns = {column.name: column for column in flat}
        groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
        sizes = [(group.num_rows, group.total_byte_size) for group in groups]
    return _End(columns, sizes if metadata.num_rows else [])


def _read_features(schema: pa.Schema) -> dict[str, Any]:
    stated = (schema.metadata or {}).get(b"huggingface", b"{}")
    try:
        features = json.loads(stated).get("info", {}).get("features", {})
        return dict(features)
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError("no features of a data set in its 'huggingface'") from error


def _flatten(
    fields: Sequence[pa.Field], features: Any, path: tuple[str, ...]
) -> Iterator[_Column]:
    """Yield the columns, with the names of their classes; of structs what is in them."""
    for one in fields:
        feature = features.get(one.name) if isinstance(features, dict) else None
        kind, inner = _kind(one.type), (*path, one.name)
        if kind == "struct":
            yield from _flatten(_fields(one.type), feature, inner)
            continue
        names: tuple[str, ...] = ()
        if isinstance(feature, dict) and feature.get("_type") == "ClassLabel":
            names = _class_names(feature, inner) if kind == "numbers" else ()
        yield _Column(inner, kind, names)


def _class_names(feature: Mapping[str, Any], path: Sequence[str]) -> tuple[str, ...]:
    names = feature.get("names") or []
    if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
        raise ValueError(f"the names of the classes of {'.'.join(path)} are no texts")
    return tuple(names)


def _fields(struct: pa.StructType) -> list[pa.Field]:
    return [struct.field(number) for number in range(struct.num_fields)]


def _kind(kind: pa.DataType) -> str:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if not pa.types.is_struct(kind):
        return _KINDS.get(str(kind), str(kind))
    inside = {one.name: _kind(one.type) for one in _fields(kind)}
    image = inside.get("bytes") == "bytes" and inside.keys() <= {"bytes", "path"}
    return "images" if image else "struct"


def _find_image(file: File, columns: Mapping[str, _Column], name: str) -> _Column:
    if name:
        return _find_column(file, columns, name, "image", _IMAGES)
    structs = [column for column in columns.values() if column.kind == "images"]
    found = structs or [
        column
        for column in columns.values()
        if column.kind == "bytes" and column.path[-1] in _IMAGE_NAMES
    ]
    if len(found) == 1:
        return found[0]
    raise InputError(
        f"{file.address}: {len(found) or 'no'} columns look like the image: say which it "
        f"is of {list_columns(columns)}"
    )


def _find_column(
    file: File,
    columns: Mapping[str, _Column],
    name: str,
    role: str,
    kinds: Sequence[str],
) -> _Column:
    if name not in columns:
        raise InputError(
            f"{file.address}: no column {name!r} for the {role}; there are "
            f"{list_columns(columns)}"
        )
    if columns[name].kind not in kinds:
        raise InputError(
            f"{file.address}: column {name!r} has {columns[name].kind}; the {role} is to "
            f"be {' or '.join(kinds)}"
        )
    return columns[name]


def _check_same(
    first: File,
    file: File,
    columns: Mapping[str, _Column],
    wanted: Sequence[_Column],
) -> None:
    for column in wanted:
        own = columns.get(column.name)
        if own == column:
            continue
        what = "no such column"
        if own:
            what = own.kind if own.kind != column.kind else "other names of classes"
        raise InputError(
            f"{file.address}: {what} under {column.name!r}, unlike in {first.name}; give "
            "files of one schema"
        )


def _real_names(
    file: File, real: Sequence[str], names: Sequence[str]
) -> tuple[str, ...]:
    """Return what the real sources are called; of a ClassLabel, numbers will do."""
    if not names:
        return tuple(real)
    numbers = {str(number): name for number, name in enumerate(names)}
    found = {name: name if name in names else numbers.get(name) for name in real}
    for name, own in found.items():
        if own is None:
            raise InputError(
                f"{file.address}: no source {name!r} that would be real; there are "
                f"{list_columns(names)}"
            )
    return tuple(name for name in found.values() if name)


def _read(file: File, value: Any) -> bytes:
    """Return an image: the bytes of a value, or the file whose path it has.

    Raises:
        InputError: there is none, or it can't be read.
    """
    if isinstance(value, dict):
        value = value.get("path") if value["bytes"] is None else value["bytes"]
    if value is None:
        raise InputError("no image: null")
    if isinstance(value, bytes):
        return value
    if is_remote(value):
        raise InputError(f"a URL, no image: {value[:100]}")
    if value.startswith("/") or ".." in PurePosixPath(value).parts:
        raise InputError(f"{value}: outside of the folder of the parquet file")
    folder = posixpath.dirname(file.address)
    return read_bytes(f"{folder}/{value}", value)
