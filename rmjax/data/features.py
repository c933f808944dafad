"""Stored features of a data set's images, which stand where the images would.

A table that `rmjax embed` wrote of a prepared data set: a row an image, with the columns
`path`, `split`, `index` (the record number in the split), `source`, `semantic`, `group`
(a hash, see `rmjax.data.labels`), `error`, and one of float32 numbers, named after the
network's layer. Its metadata `rmjax` is a JSON object: the network and the layer, and
under `dataset` what `describe_dataset` returns.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from glob import glob
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from rmjax.data.dataset import Dataset
from rmjax.data.labels import TYPES
from rmjax.errors import InputError
from rmjax.utils.places import path_of

# pyarrow is loaded where a table is opened: who trains on images need not wait for it.
if TYPE_CHECKING:
    import pyarrow as pa

METADATA = b"rmjax"  # the key of the JSON object
# Of the network, what a run keeps that is trained on a table.
NETWORK = ("model", "model_sha256", "weights", "layer", "size")


class Vectors(NamedTuple):
    """The features of a split, read by number as the files of images are.

    Attributes:
        paths: of the images.
        features: float32 `[rows, size]`.
    """

    paths: Sequence[str]
    features: np.ndarray

    def read(self, numbers: Sequence[int]) -> list[tuple[str, bytes]]:
        """Return path and features, as bytes, for record numbers."""
        return [(self.paths[i], self.features[i].tobytes()) for i in numbers]


@dataclass(frozen=True)
class FeatureTable(Dataset):
    """A data set of whose images there are features alone.

    Attributes:
        directory: the folder of the data set, where it was.
        name: of the data set.
        table: the file, or the pattern of its shards.
        network: what made the features, by `NETWORK`: its name and digest, its path as it
            was given (None: the one that ships), the layer, and how many numbers that has.
    """

    name: str = ""
    table: str = ""
    network: Mapping[str, Any] = field(default_factory=dict)
    _vectors: dict[str, Vectors] = field(default_factory=dict, repr=False)

    def files(self, split: str) -> Vectors:  # type: ignore[override]
        """Return the features of a split.

        Raises:
            InputError: there is no such split.
        """
        self._check_split(split)
        return self._vectors[split]

    def records(self, split: str):
        """Raise an InputError: there are no images."""
        raise InputError(
            f"{self.table} holds features, and this needs the images of {self.name}"
        )


def describe_dataset(
    dataset: Dataset, name: str, splits: Sequence[str]
) -> dict[str, Any]:
    """Return what a table says of the data set that it is made of.

    Args:
        dataset: whose images are embedded.
        name: of the data set.
        splits: those that are.

    Returns:
        `name` and `directory`; `source_names`, `semantic_names` and `unknown_sources` as `Dataset` has
        them; and the `split_sizes` of the splits.
    """
    return {
        "name": name,
        "directory": str(dataset.directory),
        "source_names": dataset.source_names,
        "semantic_names": dataset.semantic_names,
        "unknown_sources": dataset.unknown_sources,
        "split_sizes": {split: dataset.split_sizes[split] for split in splits},
    }


def feature_size(path: str) -> int:
    """Return how many numbers a table has of an image; its rows are not read.

    Raises:
        InputError: as for `open_features`.
    """
    return _read_facts(_find(path)[0])["size"]


def open_features(path: str) -> FeatureTable:
    """Read a table of features into memory.

    Args:
        path: a `.parquet` file of `rmjax embed`, or a pattern such as
            `clip-*-of-00004.parquet` for all its shards.

    Raises:
        InputError: there is no such file, it is no table of a prepared data set, or has
            not every image of its splits, each with features.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    files = _find(path)
    facts, *others = [_read_facts(file) for file in files]
    if any(other != facts for other in others):
        raise InputError(f"{path}: shards of different tables; name those of one")
    about = facts["dataset"]
    names = ("path", "split", "index", "source", "semantic", "group", "error")
    columns = [*names, facts["layer"]]
    table = pa.concat_tables([pq.read_table(file, columns=columns) for file in files])
    _check_read(path, table)
    features = _to_array(table[facts["layer"]], facts["size"])
    labels = {
        "source": _number(table["source"], about["source_names"]),
        "semantic": _number(table["semantic"], about["semantic_names"]),
        "group": table["group"].to_numpy(),
    }
    of_split = _number(table["split"], list(about["split_sizes"]))
    index, paths = table["index"].to_numpy(), table["path"].to_pylist()
    vectors, by_split = {}, {}
    for number, (split, size) in enumerate(about["split_sizes"].items()):
        rows = np.flatnonzero(of_split == number)
        rows = rows[np.argsort(index[rows])]
        if not np.array_equal(index[rows], np.arange(size)):
            raise InputError(
                f"{path}: {len(rows)} of the {size} images of {about['name']}, split "
                f"{split}; of several shards name all, such as 'clip-*.parquet'"
            )
        vectors[split] = Vectors([paths[row] for row in rows], features[rows])
        by_split[split] = {k: labels[k][rows].astype(kind) for k, kind in TYPES.items()}
    return FeatureTable(
        directory=path_of(about["directory"]),
        source_names=tuple(about["source_names"]),
        semantic_names=tuple(about["semantic_names"]),
        split_sizes=about["split_sizes"],
        unknown_sources=tuple(about["unknown_sources"]),
        _labels=by_split,
        name=about["name"],
        table=path,
        network={key: facts.get(key) for key in NETWORK},
        _vectors=vectors,
    )


def _find(path: str) -> list[str]:
    files = [path] if Path(path).is_file() else sorted(glob(path))
    if not files:
        raise InputError(
            f"data.features = {path!r}: no such file; make it with: rmjax embed "
            "--workdir NETWORK --images DATA_SET --out FILE.parquet"
        )
    return files


def _read_facts(file: str) -> dict[str, Any]:
    """Return what the metadata of a table says, which has to be of a data set."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        metadata = pq.read_schema(file).metadata or {}
        facts = json.loads(metadata.get(METADATA, b"{}"))
    except (OSError, pa.ArrowInvalid) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{file}: no Parquet file ({reason})") from error
    if not facts.get("dataset"):
        raise InputError(
            f"{file}: says nothing of splits and semantics, as it is no table that rmjax "
            "embed made of a prepared data set; prepare the images with `rmjax prepare`, "
            "and give its name as --images"
        )
    return facts | {"size": facts["sizes"][facts["layer"]]}


def _check_read(path: str, table: "pa.Table") -> None:
    """Check that no image lacks its features."""
    import pyarrow.compute as pc

    failed = table.filter(pc.is_valid(table["error"]))
    if len(failed):
        raise InputError(
            f"{path}: {len(failed)} of {len(table)} images could not be read when it was "
            f"made, such as {failed['error'][0]}; prepare the data set without them"
        )


def _to_array(column: "pa.ChunkedArray", size: int) -> np.ndarray:
    """Return lists of numbers as float32 `[rows, size]`."""
    array = np.empty((len(column), size), np.float32)
    done = 0
    for chunk in column.chunks:  # put together, their offsets may need 64 bits
        array[done : done + len(chunk)] = chunk.flatten().to_numpy().reshape(-1, size)
        done += len(chunk)
    return array


def _number(column: "pa.ChunkedArray", names: Sequence[str]) -> np.ndarray:
    """Return the place of each text among the names."""
    import pyarrow as pa
    import pyarrow.compute as pc

    return pc.index_in(column, value_set=pa.array(names, pa.string())).to_numpy()
