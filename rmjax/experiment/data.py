"""The data of an experiment: a config's choice of sources and semantics."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from rmjax.data.dataset import (
    REAL,
    Dataset,
    Selection,
    find_dataset,
    open_dataset,
    select,
)
from rmjax.data.features import FeatureTable, open_features
from rmjax.data.images import open_image
from rmjax.data.pairs import (
    choose_pairs,
    equalize_sources,
    keep_pairs,
    name_pairs,
    name_semantics,
    pairs_with_images,
)
from rmjax.errors import InputError
from rmjax.utils.processes import BLOCK

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExperimentData:
    """A data set as an experiment uses it.

    Attributes:
        name: of the data set.
        dataset: all of it.
        sources: names of the classes, in the network's order.
        seen: images of the pairs of source and semantic that are trained on.
        new_pairs: images of sources and semantics that are both trained on, but never
            together; None when there are none.
        unseen: images of the semantics that are not trained on; None when there are
            none.
        unseen_splits: splits whose unseen images are tested on.
        held_out: images of seen semantics of the sources that are not trained on, to
            be recognised as unknown; None when there are no such sources.
        held_out_splits: splits whose held-out images are tested on.
        near_sources: the held-out sources whose kin is trained on.
    """

    name: str
    dataset: Dataset
    sources: tuple[str, ...]
    seen: Selection
    new_pairs: Selection | None
    unseen: Selection | None
    unseen_splits: tuple[str, ...]
    held_out: Selection | None
    held_out_splits: tuple[str, ...]
    near_sources: tuple[str, ...]

    @property
    def trained_pairs(self) -> dict[str, list[str]]:
        """Names of the semantics that each source is trained on, by source."""
        return name_pairs(self.seen, pairs_with_images(self.seen, "train"))

    @property
    def network(self) -> Mapping[str, Any] | None:
        """What made the features that take the images' place; None for images."""
        return self.dataset.network if isinstance(self.dataset, FeatureTable) else None

    def facts(self) -> dict[str, object]:
        """Return what tells this data set from another, by name."""
        return {
            "data set": self.dataset.directory.name,
            "images": dict(self.dataset.split_sizes),
            "sources": self.sources,
            "semantics": self.dataset.semantic_names,
            "training images": self.seen.size("train"),
            "pairs trained on": self.trained_pairs,
        }


def open_data(config: ConfigDict) -> ExperimentData:
    """Open the config's data set and part its images into seen, new pairs and unseen.

    Raises:
        InputError: the data set, or the table of its features, is not there, or has not
            what the config names.
    """
    data = config.data
    name, dataset = _open(data)
    sources, held_out = _part_sources(data, dataset)
    unseen = tuple(data.unseen_semantics)
    rest = tuple(name for name in dataset.semantic_names if name not in unseen)
    wanted = tuple(data.seen_semantics) or rest
    both = [name for name in wanted if name in unseen]
    if both:
        raise InputError(
            f"data.unseen_semantics: {', '.join(both)} also in data.seen_semantics"
        )
    if data.unseen_split not in ("test", "all"):
        raise InputError(
            f"data.unseen_split = '{data.unseen_split}': choose 'test' or 'all'"
        )
    splits = tuple(dataset.split_sizes) if data.unseen_split == "all" else ("test",)
    whole = select(dataset, sources=sources, semantics=wanted)
    seen, new_pairs, untrained = _part_pairs(data, whole)
    unseen += untrained
    return ExperimentData(
        name=name,
        dataset=dataset,
        sources=sources,
        seen=seen,
        new_pairs=new_pairs,
        unseen=select(dataset, sources=sources, semantics=unseen) if unseen else None,
        unseen_splits=splits,
        held_out=select(dataset, sources=held_out, semantics=wanted)
        if held_out
        else None,
        held_out_splits=_unknown_splits(dataset),
        near_sources=tuple(data.near_sources),
    )


def _open(data: ConfigDict) -> tuple[str, Dataset]:
    """Return the name of the data set, and its images or its stored features."""
    if data.features:
        table = open_features(data.features)
        return table.name, table
    return data.name, open_dataset(find_dataset(data.dir, data.name))


def _part_pairs(
    data: ConfigDict, whole: Selection
) -> tuple[Selection, Selection | None, tuple[str, ...]]:
    """Part sources and semantics into pairs that are trained on and that are new.

    Args:
        data: of the config.
        whole: all images of the sources and semantics that may be trained on.

    Returns:
        The images of trained pairs, those of new pairs (None without any), and the
        semantics that have images, but are trained on with no source.
    """
    trained = choose_pairs(whole, data.train_cells, data.cells_seed)
    # Of a source without any training image no pair is new: a training refuses it, and
    # a data set that is there for testing alone is seen as a whole.
    trained |= ~trained.any(1, keepdims=True)
    seen = keep_pairs(whole, trained)
    if data.train_cells:
        seen = equalize_sources(seen, data.cells_seed)
    present = pairs_with_images(whole, *whole.records)
    by_any = trained.any(0)
    new = present & ~trained & by_any
    untrained = name_semantics(whole, present & ~by_any)
    return seen, keep_pairs(whole, new) if new.any() else None, untrained


def log_pairs(config: ConfigDict, data: ExperimentData) -> None:
    """Say how many of the pairs of source and semantic are trained on, if not all."""
    unseen = data.unseen.semantic_names if data.unseen else ()
    others = [name for name in unseen if name not in config.data.unseen_semantics]
    if others:
        logger.info("no training images of %s: unseen semantics", ", ".join(others))
    count = sum(map(len, data.trained_pairs.values()))
    total = len(data.sources) * len(data.seen.semantic_names)
    if config.data.train_cells or count < total:
        of_each = np.bincount(data.seen.labels["train"]["source"])
        spread = dict.fromkeys((of_each.min(), of_each.max()))
        logger.info(
            "trained on %d of %d pairs of source and semantic, %s images of each source",
            count,
            total,
            " to ".join(map(str, spread)),
        )


def check_validation(config: ConfigDict, data: ExperimentData) -> None:
    """Check that every validation image is as large as what is cut from it.

    Images at their native resolution are looked at one by one, their headers alone:
    otherwise one that is too small would show after the first epochs.

    Raises:
        InputError: one of them is smaller, or unreadable; it is named.
    """
    size, numbers = config.data.eval_size, data.seen.records.get("val", ())
    checked = config.data.eval_resize  # by `check_values`
    if config.data.features or checked or not len(numbers):
        return
    files = data.seen.dataset.files("val")
    for start in range(0, len(numbers), BLOCK):
        block = [int(number) for number in numbers[start : start + BLOCK]]
        for name, content in files.read(block):
            width, height = open_image(content, name).size
            if min(width, height) < size:
                raise InputError(
                    f"{name}: {width}x{height} pixels, smaller than data.eval_size = "
                    f"{size}; choose a smaller one, or set data.eval_resize to {size} "
                    "or more"
                )


def _part_sources(
    data: ConfigDict, dataset: Dataset
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the sources to train on, and those to hold out as unknown."""
    named = tuple(data.held_out_sources)
    sources = tuple(
        data.sources or (n for n in dataset.known_sources if n not in named)
    )
    both = [name for name in named if name in sources or name == REAL]
    if both:
        raise InputError(
            f"data.held_out_sources: {', '.join(both)} can't be held out: named in "
            f"data.sources too, or '{REAL}'"
        )
    unknown = (n for n in dataset.unknown_sources if n not in (*sources, *named))
    held_out = (*named, *unknown)
    strangers = [name for name in data.near_sources if name not in held_out]
    if strangers:
        raise InputError(
            f"data.near_sources: {', '.join(strangers)} not held out; held out are: "
            f"{', '.join(held_out) or 'none'}"
        )
    return sources, held_out


def _unknown_splits(dataset: Dataset) -> tuple[str, ...]:
    """Return the splits to look for unknown sources in: some are for them alone."""
    return tuple(
        name
        for name in dataset.split_sizes
        if name == "test" or name.startswith("unknown_")
    )
