"""TFDS builder of attribution_mini, and `prepare`, which makes it on the spot."""

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import tensorflow_datasets as tfds
from tqdm import tqdm

from rmjax.datasets.attribution_mini import images
from rmjax.datasets.attribution_mini.preferences import KINDS
from rmjax.errors import InputError
from rmjax.prepare.builder import INFO, disk_errors_in_words, only_one, publish
from rmjax.utils.choose import check_choice
from rmjax.utils.places import is_remote, path_of
from rmjax.utils.processes import OrderedMap, cores, ordered_map

MIN_IMAGES_PER_CELL = 5


class Builder(tfds.core.GeneratorBasedBuilder):
    """Eight sources x eleven semantics of procedural images.

    Args:
        images_per_cell: images of each source and semantic, over all splits.
        seed: names scenes and preferences; the generators' weights do not depend on it.
        size: side in pixels.
        entanglement: how far sources prefer certain content, 0 to 1; 0 gives the images
            of version 1.0.0.
        preferences: what kinds of it, of `preferences.KINDS`.
        processes: worker processes; 1 draws in this process, None uses every core.
        **kwargs: as for `tfds.core.GeneratorBasedBuilder`.
    """

    name = "attribution_mini"
    VERSION = tfds.core.Version("2.0.0")
    RELEASE_NOTES = {
        "1.0.0": "First release.",
        "2.0.0": "Every source has preferences of its own for each semantic.",
    }
    pkg_dir_path = Path(__file__).parent

    def __init__(
        self,
        *,
        images_per_cell: int = 200,
        seed: int = 0,
        size: int = 64,
        entanglement: float = images.ENTANGLEMENT,
        preferences: Sequence[str] = KINDS,
        processes: int | None = None,
        **kwargs,
    ):
        self._made_with = made_with(
            images_per_cell, seed, size, entanglement, preferences
        )
        self._processes = processes or cores()
        self._draw: OrderedMap[images.Task, list[bytes]]  # while images are written
        self._bar: tqdm | None = None
        kwargs.setdefault("file_format", "array_record")
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        size = self._made_with["size"]
        features = {
            "image": tfds.features.Image(shape=(size, size, 3), encoding_format="png"),
            "source": tfds.features.ClassLabel(names=list(images.SOURCES)),
            "semantic": tfds.features.ClassLabel(names=list(images.SEMANTICS)),
            "path": tfds.features.Text(),
            "group": tfds.features.Text(),
        }
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "source"),
            metadata=tfds.core.MetadataDict(self._made_with),
        )

    def download_and_prepare(self, **kwargs) -> None:
        """Draw and write all images, unless they are there already."""
        if self.data_path.exists():
            return
        cells = len(images.SOURCES) * len(images.SEMANTICS)
        tfds.disable_progress_bar()  # one bar of ours instead of six
        try:
            with (
                ordered_map(images.encode_range, self._processes) as self._draw,
                tqdm(
                    total=cells * self._made_with["images_per_cell"],
                    unit="image",
                    desc=self.name,
                ) as self._bar,
            ):
                super().download_and_prepare(**kwargs)
        finally:
            tfds.enable_progress_bar()

    def _split_generators(self, dl_manager: tfds.download.DownloadManager):
        bounds = split_bounds(self._made_with["images_per_cell"])
        return {
            split: self._generate_examples(start, stop)
            for split, (start, stop) in bounds.items()
        }

    def _generate_examples(self, start: int, stop: int) -> Iterator[tuple[str, dict]]:
        numbers = {name: self._made_with[name] for name in images.Settings._fields}
        settings = images.Settings(**numbers)
        for task, encoded in self._draw(images.tasks_of(start, stop, settings)):
            for index, data in enumerate(encoded, task.start):
                path = f"{task.source}/{task.semantic}/{index:05d}.png"
                yield (
                    path,
                    {
                        "image": data,
                        "source": task.source,
                        "semantic": task.semantic,
                        "path": path,
                        "group": path,  # no two images share content
                    },
                )
            if self._bar is not None:
                self._bar.update(len(encoded))


def split_bounds(images_per_cell: int) -> dict[str, tuple[int, int]]:
    """Return the range of indices within a cell that each split holds (7 : 1 : 2)."""
    val = max(1, images_per_cell // 10)
    test = max(1, images_per_cell // 5)
    train = images_per_cell - val - test
    return {
        "train": (0, train),
        "val": (train, train + val),
        "test": (train + val, images_per_cell),
    }


def made_with(
    images_per_cell: int,
    seed: int,
    size: int,
    entanglement: float,
    preferences: Sequence[str],
) -> dict[str, Any]:
    """Check what determines the data, and return it by name, as JSON can hold it.

    Raises:
        InputError: if a number is out of range, or there is no such kind of preferences.
    """
    if images_per_cell < MIN_IMAGES_PER_CELL:
        raise InputError(
            f"images_per_cell is {images_per_cell}; "
            f"it must be at least {MIN_IMAGES_PER_CELL}"
        )
    if not 0 <= seed < 2**63:
        raise InputError(f"seed is {seed}; it must be in 0 .. 2^63 - 1")
    if size < 32 or size % 16:
        raise InputError(f"size is {size}; it must be a multiple of 16 from 32 on")
    if not 0 <= entanglement <= 1:
        raise InputError(f"entanglement is {entanglement}; it must be in 0 .. 1")
    for kind in preferences:
        check_choice("kind of preferences", kind, KINDS)
    return {
        "images_per_cell": images_per_cell,
        "seed": seed,
        "size": size,
        "entanglement": float(entanglement),
        "preferences": [kind for kind in KINDS if kind in preferences],
    }


def prepare(
    data_dir: str | os.PathLike,
    images_per_cell: int = 200,
    seed: int = 0,
    size: int = 64,
    entanglement: float = images.ENTANGLEMENT,
    preferences: Sequence[str] = KINDS,
    processes: int | None = None,
) -> Path:
    """Make the data set under `data_dir`, unless it is there already.

    Args:
        data_dir: root of TFDS data sets; made where missing.
        images_per_cell: images of each of the 88 cells, split 7 : 1 : 2.
        seed: names scenes and preferences, 0 .. 2^63 - 1.
        size: side in pixels, a multiple of 16 from 32 on.
        entanglement: how far sources prefer certain content, 0 to 1; 0 gives the images
            of version 1.0.0.
        preferences: what kinds of it, of `preferences.KINDS`.
        processes: worker processes; 1 draws in this process, None uses every core.

    Returns:
        The folder that `tfds.builder_from_directory` opens.

    Raises:
        InputError: if an argument is out of range, the folder holds the data set made
            with others, the disk is full, or another process makes the same.
    """
    asked = made_with(images_per_cell, seed, size, entanglement, preferences)
    root = path_of(os.path.expanduser(data_dir))
    folder = root / Builder.name / str(Builder.VERSION)
    if (folder / INFO).exists():
        on_disk = _made_with_on_disk(folder)
        if on_disk != asked:
            raise InputError(
                f"{folder} was made with {_words(on_disk)}, not with {_words(asked)}: "
                "remove it or choose another data_dir"
            )
        return folder
    with contextlib.ExitStack() as stack:
        stack.enter_context(disk_errors_in_words(folder))
        stack.enter_context(only_one(folder))
        # TFDS renames its scratch folder as a whole, which stores do not.
        remote = is_remote(root)
        scratch = stack.enter_context(TemporaryDirectory()) if remote else str(root)
        builder = Builder(**asked, processes=processes, data_dir=scratch)
        builder.download_and_prepare()
        if remote:
            publish(Path(builder.data_path), folder)
    return folder


def _made_with_on_disk(folder: Path) -> dict[str, Any]:
    path = folder / "metadata.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _words(made_with: dict[str, Any]) -> str:
    return (
        ", ".join(
            f"{name}={'+'.join(value) if isinstance(value, list) else value}"
            for name, value in made_with.items()
        )
        or "unknown numbers"
    )
