"""Fingerprints of many images into a table, part by part, in bounded memory."""

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from rmjax.data.listing import Item
from rmjax.errors import InputError
from rmjax.inference.attributor import Attributor
from rmjax.inference.feature_files import WRITERS, describe_table, merge
from rmjax.utils.files import replacing
from rmjax.utils.locks import locked
from rmjax.utils.places import as_path, is_remote
from rmjax.utils.processes import cores, in_blocks, map_ahead

ROWS_PER_PART = 4096
# Images of one shape run together; so many batches are looked through for them.
_BATCHES_AT_ONCE = 4


def embed_images(
    model: Attributor,
    images: Callable[[], Iterable[Item]],
    count: int,
    out: str | Path,
    *,
    layer: str | None = None,
    about: Mapping[str, Any] | None = None,
    batch_size: int = 64,
    shard: tuple[int, int] | None = None,
    rows_per_part: int = ROWS_PER_PART,
    show_progress: bool = True,
) -> tuple[Path, int, list[str]]:
    """Write the fingerprints of images to a table, a row an image in their order.

    Parts are written to a hidden folder beside the table and put together when all
    are there; called again after a stop, it goes on with the first missing part. Of a
    table in a store it begins again.

    Args:
        model: the network.
        images: yields them, each time the same ones; see `list_images`.
        count: how many it yields.
        out: a `.parquet` or `.npz` file. Of several shards each writes its own, with
            `-00000-of-00004` before the suffix.
        layer: the activation; the fingerprint for None.
        about: what else the metadata is to say: `weights`, the network's path; of a
            data set's images `dataset`, see `describe_images`; of images in parquet
            files or shards `columns`, the attributes of `rmjax.data.columns.Columns`.
        batch_size: images that run at once.
        shard: number and count: this call does every so manieth part; None is this
            process among all that JAX knows of.
        rows_per_part: rows that are held in memory.
        show_progress: whether to draw a bar.

    Returns:
        The file, its number of rows, and a line for each image that could not be read;
        its row has the reason under `error`, and no numbers.

    Raises:
        InputError: another suffix, a shard that is none, batches of no images, a file
            that can't be written or that another process writes, or parts of a table
            of something else.
    """
    if min(batch_size, rows_per_part) < 1:
        raise InputError("batch size and rows per part: give at least 1")
    shard = shard or (jax.process_index(), jax.process_count())
    rows_per_part = max(min(rows_per_part, -(-count // shard[1])), 1)
    out = _shard_name(as_path(out), shard)
    layer = layer or model.layer
    schema = describe_table(model, layer, about)
    done, failed = [], []
    total = -(-count // shard[1])
    with (
        _open_parts(out, schema) as parts,
        tqdm(total=total, unit="img", disable=not show_progress) as bar,
        ThreadPoolExecutor(cores() + 1) as pool,
    ):
        for number, items in enumerate(in_blocks(images(), rows_per_part)):
            if number % shard[1] != shard[0]:
                continue
            path = parts / f"{number:08}.parquet"
            if _is_part(path, items):
                bar.update(len(items))
            else:
                decoded = _read_ahead(model, items, pool, 2 * batch_size)
                columns: dict[str, list] = {name: [] for name in schema.names}
                while block := list(islice(decoded, _BATCHES_AT_ONCE * batch_size)):
                    _add_rows(columns, model, block, layer, batch_size)
                    bar.update(len(block))
                with replacing(path) as scratch:
                    pq.write_table(pa.table(columns, schema), scratch)
            errors = pq.read_table(path, columns=["error"])["error"].to_pylist()
            failed += [error for error in errors if error]
            done.append(path)
        rows = merge(done, out, schema)
    return out, rows, failed


def _add_rows(
    columns: dict[str, list],
    model: Attributor,
    block: Sequence[tuple[Item, np.ndarray | InputError]],
    layer: str,
    batch_size: int,
) -> None:
    """Add the rows of images that were read, or could not be, to a table's columns."""
    good = [pixels for _, pixels in block if isinstance(pixels, np.ndarray)]
    outputs = model.run(good, batch_size, layer=layer) if good else {}
    answers = _answers(model, outputs, layer) if good else {}
    places = iter(range(len(good)))
    for item, pixels in block:
        row = {"path": item.path, "source": item.source, **item.record}
        if isinstance(pixels, InputError):
            row["error"] = str(pixels)
        else:
            place = next(places)
            row |= {name: values[place] for name, values in answers.items()}
        for name, values in columns.items():
            values.append(row.get(name))


def _answers(model: Attributor, outputs: dict, layer: str) -> dict[str, Sequence]:
    answers = {layer: outputs[layer]}
    if model.source_names:
        answers |= model.calibration.probabilities(outputs)
        best = outputs["attribution"].argmax(-1)
        answers["predicted"] = [model.source_names[i] for i in best]
    return answers


def _read_ahead(
    model: Attributor, items: Sequence[Item], pool: ThreadPoolExecutor, ahead: int
) -> Iterator[tuple[Item, np.ndarray | InputError]]:
    """Return items with their pixels, or with what is wrong with them."""

    def read(item: Item) -> np.ndarray | InputError:
        try:
            return model.read(item.read(), item.path)
        except InputError as error:
            return error

    return map_ahead(pool, read, items, ahead)


def _shard_name(out: Path, shard: tuple[int, int]) -> Path:
    if out.suffix not in WRITERS:
        raise InputError(f"{out}: give a file name ending in {' or '.join(WRITERS)}")
    number, count = shard
    if not 0 <= number < count:
        raise InputError(
            f"shard {number}/{count}: give 0/{count} to {count - 1}/{count}"
        )
    if count == 1:
        return out
    return out.with_name(f"{out.stem}-{number:05}-of-{count:05}{out.suffix}")


@contextmanager
def _open_parts(out: Path, schema: pa.Schema) -> Iterator[Path]:
    """Give a table's folder of parts to this process alone; remove it at the end.

    That of a table in a store is a temporary one here.
    """
    if is_remote(out):
        if out.exists():
            raise InputError(f"{out} exists: choose another --out, or remove it")
        with TemporaryDirectory(prefix="rmjax-") as scratch:
            yield Path(scratch)
        return
    parts = out.with_name(f".{out.name}.partial")
    busy = f"{out} is being written by another command: wait for it"
    with locked(parts / ".lock", busy):
        if out.exists():
            shutil.rmtree(parts)
            raise InputError(f"{out} exists: choose another --out, or remove it")
        _check_parts(parts, schema)
        yield parts
        shutil.rmtree(parts)


def _check_parts(parts: Path, schema: pa.Schema) -> None:
    """Check that parts are of the same table; remove those that a crash cut."""
    for path in parts.glob("*.parquet"):
        try:
            metadata = pq.read_schema(path).metadata
        except pa.ArrowInvalid:
            path.unlink()
            continue
        if metadata != schema.metadata:
            raise InputError(
                f"{parts} holds parts of a table by another network or layer, or of "
                "other images: remove it, or choose another --out"
            )


def _is_part(path: Path, items: Sequence[Item]) -> bool:
    """Tell whether a part is there and of these images."""
    if not path.exists():
        return False
    return pq.read_table(path, columns=["path"])["path"].to_pylist() == [
        item.path for item in items
    ]
