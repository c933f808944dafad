"""Prepared data sets on disk or in a store: find one, open it, select sources and semantics.

A data set is a folder that a TFDS builder wrote as array_record, one record an
image, with the features `image` (the original encoded bytes), `source`,
`semantic`, `path` and `group`. It is read without its builder and without
TensorFlow.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rmjax.data.labels import load_labels, read_labels, save_labels
from rmjax.data.remote_records import RemoteRecords
from rmjax.data.shards import Records
from rmjax.errors import InputError
from rmjax.utils.choose import check_choice
from rmjax.utils.places import absolute, as_path, is_remote, reason

# TFDS is loaded where a data set is opened: who asks about images need not wait for it.
if TYPE_CHECKING:
    import tensorflow_datasets as tfds

REAL = "real"  # what the source of photographs is called
# What is said of images instead of a source, so that no source may be called so.
UNKNOWN, INCONCLUSIVE = "unknown", "inconclusive"
UNKNOWN_SOURCES = "unknown_sources"  # in a data set's metadata

_VERSION = re.compile(r"\d+\.\d+\.\d+")


@dataclass(frozen=True)
class Dataset:
    """A prepared data set.

    Attributes:
        directory: the folder of its newest version.
        source_names: names by source index; the first is `real`.
        semantic_names: names by semantic index.
        split_sizes: images in each split.
        unknown_sources: those that are for testing alone, as unknown ones.
    """

    directory: Path
    source_names: tuple[str, ...]
    semantic_names: tuple[str, ...]
    split_sizes: Mapping[str, int]
    unknown_sources: tuple[str, ...] = ()
    _labels: dict = field(default_factory=dict, repr=False, compare=False)

    @property
    def known_sources(self) -> tuple[str, ...]:
        """Return the sources that may be trained on."""
        return tuple(n for n in self.source_names if n not in self.unknown_sources)

    @cached_property
    def _builder(self) -> "tfds.core.DatasetBuilder":
        import tensorflow_datasets as tfds

        return tfds.builder_from_directory(self.directory)

    def records(self, split: str) -> Records:
        """Return the records of a split for random access, images still encoded.

        Raises:
            InputError: the data set has no such split.
        """
        import tensorflow_datasets as tfds

        decoders = {"image": tfds.decode.SkipDecoding()}
        if is_remote(self.directory):
            example = self._builder.info.features.deserialize_example_np
            return self._fetch(split, partial(example, decoders=decoders))
        return self._open(split, decoders=decoders)

    def files(self, split: str) -> "Files":
        """Return the image files of a split for random access.

        Raises:
            InputError: the data set has no such split.
        """
        import tensorflow_datasets as tfds

        if is_remote(self.directory):
            return Files(self._fetch(split))
        method = tfds.decode.DeserializeMethod.RAW_BYTES
        return Files(self._open(split, deserialize_method=method))

    def labels(self, split: str) -> dict[str, np.ndarray]:
        """Return the labels of every record of a split.

        The first call reads the whole split and leaves the labels in a file
        beside it, if the folder can be written to.

        Returns:
            `source` and `semantic`, int32, and `group`, int64, a hash that images which
            belong together share; `[split_sizes[split]]` each.

        Raises:
            InputError: the data set has no such split.
        """
        self._check_split(split)
        if split not in self._labels:
            labels = load_labels(self.directory, split, self.split_sizes[split])
            if labels is None:
                labels = read_labels(self.records(split), f"labels of {split}")
                save_labels(self.directory, split, labels)
            self._labels[split] = labels
        return self._labels[split]

    def _open(self, split: str, **options) -> Records:
        self._check_split(split)
        info = self._builder.info.splits[split]
        source = self._builder.as_data_source(split, **options)
        return Records(source, [*map(Path, info.filepaths)], info.shard_lengths)

    def _fetch(self, split: str, parse: Callable[[bytes], Any] = bytes) -> Records:
        self._check_split(split)
        info = self._builder.info.splits[split]
        source = RemoteRecords(info.filepaths, info.shard_lengths, parse)
        return Records(source, info.filepaths, info.shard_lengths)

    def _check_split(self, split: str) -> None:
        if split not in self.split_sizes:
            raise InputError(
                f"{self.directory} has no split {split!r}; it has {_listed(self.split_sizes)}"
            )


@dataclass(frozen=True)
class Files:
    """Path and bytes of each image of a split, and nothing else of its record.

    TFDS makes NumPy values of all features of a record, which copies the image
    twice: a tenth of the time that a small image takes to load.

    Attributes:
        messages: the records as they are stored, serialized.
    """

    messages: Records

    def read(self, numbers: Sequence[int]) -> list[tuple[str, bytes]]:
        """Return path and encoded image for record numbers."""
        return [_parse(message) for message in self.messages.__getitems__(numbers)]


@dataclass(frozen=True)
class Selection:
    """Some sources and semantics of a data set, in all its splits.

    Attributes:
        dataset: the data set selected from.
        source_names: the selected sources, in the order of their new indices.
        semantic_names: the selected semantics.
        records: for each split the selected record numbers, ascending.
        labels: for each split `source` (the new index) and `semantic` (the data
            set's own index, so that selections can be compared) of these records,
            int32 `[len(records[split])]`, and their `group`, int64.
    """

    dataset: Dataset
    source_names: tuple[str, ...]
    semantic_names: tuple[str, ...]
    records: Mapping[str, np.ndarray]
    labels: Mapping[str, Mapping[str, np.ndarray]]

    def size(self, *splits: str) -> int:
        """Return how many images the named splits hold together."""
        return sum(len(self.records.get(split, ())) for split in splits)


def find_dataset(data_dir: str | Path, name: str) -> Path:
    """Find the newest version of a prepared data set.

    Args:
        data_dir: the folder that holds all prepared data sets.
        name: `attribution_mini`, or `image_folder/` and the name it was given.

    Returns:
        Its folder, for `open_dataset`.

    Raises:
        InputError: nothing is prepared there under that name.
    """
    folder = as_path(data_dir) / name
    versions = [
        entry
        for entry in (folder.iterdir() if folder.is_dir() else ())
        if _VERSION.fullmatch(entry.name) and (entry / "dataset_info.json").is_file()
    ]
    if not versions:
        raise InputError(
            f"no prepared data set {name!r} in {absolute(as_path(data_dir))}; give the "
            "folder that holds it as --data-dir, or make it with: "
            + _prepare_command(name, data_dir)
        )
    return max(versions, key=lambda entry: [int(n) for n in entry.name.split(".")])


def open_dataset(directory: str | Path) -> Dataset:
    """Open a prepared data set.

    Args:
        directory: the folder of one version, as `find_dataset` returns it.

    Raises:
        InputError: the folder is missing, empty, or holds something else.
    """
    import tensorflow_datasets as tfds

    directory = as_path(directory)
    if not (directory / "dataset_info.json").is_file():
        state = "is not a prepared data set" if directory.is_dir() else "does not exist"
        raise InputError(
            f"{directory} {state}; make one with: "
            + _prepare_command("image_folder/NAME", "DATA_DIR")
        )
    try:
        builder = tfds.builder_from_directory(directory)
    except Exception as error:  # TFDS and protobuf raise many types
        raise InputError(
            f"{directory}: damaged ({reason(error)}); remove it and prepare it anew"
        ) from error
    features = builder.info.features
    missing = {"image", "source", "semantic", "path"} - set(features or ())
    if missing:
        raise InputError(
            f"{directory}: records have no {_listed(missing)}; prepare it anew"
        )
    files = (file for split in builder.info.splits.values() for file in split.filepaths)
    lost = next((file for file in files if not file.exists()), None)
    if lost is not None:
        raise InputError(
            f"{lost}: missing; put it back, or remove {directory} and prepare it anew"
        )
    return Dataset(
        directory=directory,
        source_names=tuple(features["source"].names),
        semantic_names=tuple(features["semantic"].names),
        split_sizes={
            name: info.num_examples for name, info in builder.info.splits.items()
        },
        unknown_sources=tuple((builder.info.metadata or {}).get(UNKNOWN_SOURCES, ())),
    )


def select(
    dataset: Dataset,
    sources: Sequence[str] | None = None,
    semantics: Sequence[str] | None = None,
) -> Selection:
    """Restrict a data set to some sources and semantics, in every split.

    Args:
        dataset: an open data set.
        sources: names of the sources to keep; their order gives the new indices,
            `real` first if it is among them. None keeps all but the unknown ones.
        semantics: names of the semantics to keep. None keeps all.

    Raises:
        InputError: an unknown or repeated name, an empty list, or `real` not first.
    """
    sources = dataset.known_sources if sources is None else sources
    sources = _check_names("source", sources, dataset.source_names)
    semantics = _check_names("semantic", semantics, dataset.semantic_names)
    if REAL in sources[1:]:
        raise InputError(
            f"{REAL!r} must be the first of the selected sources, which is index 0; "
            f"got {_listed(sources)}"
        )
    new_index = np.full(len(dataset.source_names), -1, np.int32)
    for index, name in enumerate(sources):
        new_index[dataset.source_names.index(name)] = index
    kept = [dataset.semantic_names.index(name) for name in semantics]
    records, labels = {}, {}
    for split in dataset.split_sizes:
        labels_of_all = dataset.labels(split)
        source = new_index[labels_of_all["source"]]
        chosen = np.flatnonzero(
            (source >= 0) & np.isin(labels_of_all["semantic"], kept)
        )
        records[split] = chosen
        labels[split] = {
            "source": source[chosen],
            "semantic": labels_of_all["semantic"][chosen],
            "group": labels_of_all["group"][chosen],
        }
    return Selection(dataset, sources, semantics, records, labels)


def take(selection: Selection, split: str, rows: np.ndarray) -> Selection:
    """Keep of a selection some images of one split, by their places in it."""
    return take_rows(selection, {split: rows})


def take_rows(selection: Selection, rows: Mapping[str, np.ndarray]) -> Selection:
    """Keep of a selection some images of some splits, by their places in each."""
    return replace(
        selection,
        records={split: selection.records[split][own] for split, own in rows.items()},
        labels={
            split: {k: v[own] for k, v in selection.labels[split].items()}
            for split, own in rows.items()
        },
    )


def check_source_names(names: Iterable[str], where: object) -> None:
    """Check that no source has a name that answers give to images without one.

    Raises:
        InputError: one has, or is another spelling of `real`; in whatever case and with
            blanks around.
    """
    for name in names:
        plain = name.strip().casefold()
        if plain == REAL != name:
            raise InputError(
                f"{where}: source {name!r}: rename it, {REAL!r} is what the real "
                "photographs are called"
            )
        if plain in (UNKNOWN, INCONCLUSIVE):
            raise InputError(
                f"{where}: source {name!r}: rename it, '{UNKNOWN}' and '{INCONCLUSIVE}' "
                "are what images without an answer are called"
            )


def check_every_source(selection: Selection, split: str) -> None:
    """Check that every selected source has images in a split, as training needs.

    Raises:
        InputError: names the sources without any, or see `check_source_names`.
    """
    check_source_names(selection.source_names, selection.dataset.directory)
    present = np.unique(selection.labels.get(split, {}).get("source", ()))
    absent = [n for i, n in enumerate(selection.source_names) if i not in present]
    if absent:
        raise InputError(
            f"{selection.dataset.directory}: no image of source {_listed(absent)} among the "
            f"selected semantics in split {split!r}; leave the source out or add images"
        )


def _check_names(
    kind: str, wanted: Sequence[str] | None, known: tuple[str, ...]
) -> tuple[str, ...]:
    if wanted is None:
        return known
    if isinstance(wanted, str):
        raise InputError(f"{kind}s must be a list of names, not the text {wanted!r}")
    for name in wanted:
        check_choice(kind, name, known)
    if not wanted or len(set(wanted)) < len(wanted):
        problem = f"names a {kind} twice" if wanted else "is empty"
        raise InputError(
            f"the list of {kind}s {problem}; the choices are {_listed(known)}"
        )
    return tuple(wanted)


def _parse(message: bytes) -> tuple[str, bytes]:
    from tensorflow_datasets.proto import tf_example_pb2

    features = tf_example_pb2.Example.FromString(message).features.feature
    path, image = (features[name].bytes_list.value[0] for name in ("path", "image"))
    return path.decode(), image


def _prepare_command(name: str, data_dir: str | Path) -> str:
    builder, _, config = name.partition("/")
    options = {
        "image_folder": f" --name {config} --tree FOLDER",
        "annotation_list": f" --name {config} --list train=FILE",
        "image_attribution_bench": " --tree FOLDER",
        "attribution88": f" --config {config or 'full'} --from ARCHIVE",
        "attribution_mini": "",
        "parquet": f" --name {config} --from FILES --source COLUMN",
        "webdataset": f" --name {config} --from FILES --source KEY",
    }.get(builder, " --from FOLDER")
    return f"rmjax prepare {builder}{options} --data-dir {data_dir}"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in names)


def choose_evenly(source: np.ndarray, limit: int, seed: int = 0) -> np.ndarray:
    """Choose at most `limit` images, the sources as evenly as their numbers allow.

    Args:
        source: of all images, integers `[N]`.
        limit: how many at most.
        seed: of the choice.

    Returns:
        The chosen indices, ascending.

    Raises:
        InputError: a limit below 0.
    """
    if limit < 0:
        raise InputError(f"the most images to choose is 0 or more; got {limit}")
    order = np.random.default_rng(seed).permutation(len(source))
    rank = np.empty(len(source), np.int64)  # its number among those of its source
    for label in np.unique(source):
        own = order[source[order] == label]
        rank[own] = np.arange(len(own))
    return np.sort(order[np.argsort(rank[order], kind="stable")][:limit])
