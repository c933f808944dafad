"""The data of an experiment: a config's choice of sources and semantics."""

from dataclasses import dataclass
from pathlib import Path

from ml_collections import ConfigDict

from rmjax.data.dataset import (
    REAL,
    Dataset,
    Selection,
    find_dataset,
    open_dataset,
    select,
)
from rmjax.data.images import open_image
from rmjax.errors import InputError
from rmjax.utils.processes import BLOCK


@dataclass(frozen=True)
class ExperimentData:
    """A data set as an experiment uses it.

    Attributes:
        dataset: all of it.
        sources: names of the classes, in the network's order.
        seen: images of the semantics that are trained on.
        unseen: images of the semantics kept for testing; None when there are none.
        unseen_splits: splits whose unseen images are tested on.
        held_out: images of seen semantics of the sources that are not trained on, to
            be recognised as unknown; None when there are no such sources.
        held_out_splits: splits whose held-out images are tested on.
        near_sources: the held-out sources whose kin is trained on.
    """

    dataset: Dataset
    sources: tuple[str, ...]
    seen: Selection
    unseen: Selection | None
    unseen_splits: tuple[str, ...]
    held_out: Selection | None
    held_out_splits: tuple[str, ...]
    near_sources: tuple[str, ...]

    def facts(self) -> dict[str, object]:
        """Return what tells this data set from another, by name."""
        return {
            "data set": self.dataset.directory.name,
            "images": dict(self.dataset.split_sizes),
            "sources": self.sources,
            "semantics": self.dataset.semantic_names,
            "training images": self.seen.size("train"),
        }


def open_data(config: ConfigDict) -> ExperimentData:
    """Open the config's data set and part its semantics into seen and unseen.

    Raises:
        InputError: the data set is not there, or has not what the config names.
    """
    data = config.data
    dataset = open_dataset(find_dataset(Path(data.dir), data.name))
    sources, held_out = _part_sources(data, dataset)
    unseen = tuple(data.unseen_semantics)
    rest = tuple(name for name in dataset.semantic_names if name not in unseen)
    seen = tuple(data.seen_semantics) or rest
    both = [name for name in seen if name in unseen]
    if both:
        raise InputError(
            f"data.unseen_semantics: {', '.join(both)} also in data.seen_semantics"
        )
    if data.unseen_split not in ("test", "all"):
        raise InputError(
            f"data.unseen_split = '{data.unseen_split}': choose 'test' or 'all'"
        )
    splits = tuple(dataset.split_sizes) if data.unseen_split == "all" else ("test",)
    return ExperimentData(
        dataset=dataset,
        sources=sources,
        seen=select(dataset, sources=sources, semantics=seen),
        unseen=select(dataset, sources=sources, semantics=unseen) if unseen else None,
        unseen_splits=splits,
        held_out=select(dataset, sources=held_out, semantics=seen)
        if held_out
        else None,
        held_out_splits=_unknown_splits(dataset),
        near_sources=tuple(data.near_sources),
    )


def check_validation(config: ConfigDict, data: ExperimentData) -> None:
    """Check that every validation image is as large as what is cut from it.

    Images at their native resolution are looked at one by one, their headers alone:
    otherwise one that is too small would show after the first epochs.

    Raises:
        InputError: one of them is smaller, or unreadable; it is named.
    """
    size, numbers = config.data.eval_size, data.seen.records.get("val", ())
    if config.data.eval_resize or not len(numbers):  # `check_values` compared the two
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
