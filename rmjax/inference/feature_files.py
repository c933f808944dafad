"""Tables of fingerprints as files: what their columns are, and parts put together."""

import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rmjax.data.features import METADATA
from rmjax.inference.attributor import Attributor
from rmjax.utils.files import replacing
from rmjax.utils.versions import own_version

# Columns of a data set's images.
_RECORD = {
    "split": pa.string(),
    "index": pa.int64(),
    "semantic": pa.string(),
    "group": pa.int64(),
}


def describe_table(
    model: Attributor, layer: str, about: Mapping[str, Any] | None = None
) -> pa.Schema:
    """Return a table's columns, and in the metadata what it was made by and `about`.

    `path`; `source` where known; of a data set's images `split`, `index`, `semantic` and
    `group`, see `rmjax.data.features`, of others `semantic` alone, where `about` says
    of which of the `columns` it is; the layer's name with its float32 numbers; and where
    the network has heads, `attribution` and `detection` (probabilities, in the order
    of the metadata's `source_names`, and of real and synthetic) and `predicted`, the
    most probable source; `error` where an image could not be read, in whose row the
    others are null.
    """
    sizes = {layer: model.channels(layer)}
    if model.source_names:
        sizes |= {"attribution": len(model.source_names), "detection": 2}
    about = about or {}
    fields = [pa.field("path", pa.string()), pa.field("source", pa.string())]
    if about.get("dataset"):
        fields += [pa.field(name, kind) for name, kind in _RECORD.items()]
    elif about.get("columns", {}).get("semantic"):
        fields.append(pa.field("semantic", pa.string()))
    # Lists of any length: of a fixed one, Parquet can't be read back with nulls.
    fields += [pa.field(name, pa.list_(pa.float32())) for name in sizes]
    if model.source_names:
        fields.append(pa.field("predicted", pa.string()))
    fields.append(pa.field("error", pa.string()))
    made_by = {
        "model": model.name,
        "model_sha256": model.digest,
        "checkpoint": model.checkpoint,
        "layer": layer,
        "sizes": sizes,
        "source_names": list(model.source_names),
        "calibrated": model.calibration.images > 0,
        "rmjax": own_version(),
    }
    text = json.dumps(made_by | dict(about))
    return pa.schema(fields, metadata={METADATA: text})


def merge(parts: Sequence[Path], out: Path, schema: pa.Schema) -> int:
    """Put parts together to one file, by its suffix; return the number of rows.

    One part is in memory at a time, and the file appears when it is whole.

    Raises:
        InputError: it can't be written.
    """
    with replacing(out) as scratch:
        WRITERS[out.suffix](parts, scratch, schema)
    return sum(pq.read_metadata(part).num_rows for part in parts)


def _write_parquet(parts: Sequence[Path], out: Path, schema: pa.Schema) -> None:
    with pq.ParquetWriter(out, schema) as writer:
        for part in parts:
            writer.write_table(pq.read_table(part, schema=schema))


def _write_npz(parts: Sequence[Path], out: Path, schema: pa.Schema) -> None:
    """Write each column as an array; where there was none, "" or NaN."""
    sizes = json.loads(schema.metadata[METADATA])["sizes"]
    rows = sum(pq.read_metadata(part).num_rows for part in parts)
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for field in schema:
            name, size = field.name, sizes.get(field.name, 0)
            shape = (rows, size) if size else (rows,)
            kind = "<f4" if size else "<i8"
            if pa.types.is_string(field.type):
                arrays = _arrays(parts, name, size)
                kind = f"<U{max((a.itemsize // 4 for a in arrays), default=1)}"
            header = {"descr": kind, "fortran_order": False, "shape": shape}
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array_header_1_0(file, header)
                for array in _arrays(parts, name, size):
                    file.write(array.astype(kind).tobytes())
        metadata = np.array(schema.metadata[METADATA].decode())
        with archive.open("metadata.npy", "w") as file:
            np.lib.format.write_array(file, metadata)


def _arrays(parts: Sequence[Path], name: str, size: int) -> Iterator[np.ndarray]:
    """Yield a column, part by part: texts, numbers, or `size` numbers a row."""
    for part in parts:
        column = pq.read_table(part, columns=[name])[name].combine_chunks()
        if pa.types.is_integer(column.type):
            yield column.to_numpy()
            continue
        if not size:
            yield np.array(column.fill_null("").to_pylist(), str)
            continue
        array = np.full((len(column), size), np.nan, np.float32)
        numbers = column.drop_null().flatten().to_numpy()
        array[column.is_valid().to_numpy(False)] = numbers.reshape(-1, size)
        yield array


WRITERS = {".parquet": _write_parquet, ".npz": _write_npz}
