"""TFDS builder of ImageAttributionBench with its published splits, and `prepare`."""

import dataclasses
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath

import numpy as np
import tensorflow_datasets as tfds

from rmjax.data.dataset import REAL
from rmjax.errors import InputError
from rmjax.prepare import builder
from rmjax.prepare.manifest import Manifest, Row, read_tree
from rmjax.utils.choose import check_choice

# What the benchmark's code reads: so many images of each source and semantic, and of
# each generator those of the first prompts and the first images of each prompt.
IMAGES_PER_CELL = 2000
PROMPTS = 1000
IMAGES_PER_PROMPT = {"mid-5.2": 4, "mid-6.0": 4}  # 2 of all others
SEED = 42

_NUMBERED = re.compile(r"_p(\d+)_i(\d+)")


@dataclasses.dataclass
class Config(tfds.core.BuilderConfig):
    """Where the images are, and how they are split.

    Attributes:
        tree: folder `<source>/[<group>/]<semantic>/<image>`.
        train_semantics: train on these alone and test on all others, as the
            benchmark does with `cat`, `bedroom` or `FFHQ`; none splits all images
            in 80, 10 and 10 per cent.
    """

    tree: str | Path | None = None
    train_semantics: Sequence[str] = ()


class Builder(builder.ListedBuilder):
    """The images of ImageAttributionBench, their bytes as they were."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}
    builder_config: Config

    @cached_property
    def manifest(self) -> Manifest:
        """Return the images with their splits."""
        config = self.builder_config
        if config is None or config.tree is None:
            raise InputError("image_attribution_bench: give the folder of the images")
        manifest = read_tree(config.tree, levels=1)
        for name in config.train_semantics:
            check_choice("semantic", name, manifest.semantic_names)
        rows = tuple(split_as_published(manifest.rows, config.train_semantics))
        return dataclasses.replace(manifest, rows=rows)


def split_as_published(
    rows: Sequence[Row], train_semantics: Sequence[str] = ()
) -> Iterator[Row]:
    """Choose and split images as the benchmark's own loader does, seed 42.

    Every source is shuffled and cut on its own. The loader's order of images, on which
    its shuffles depend, is that of the alphabet: of sources, folders and names.

    Args:
        rows: all images of the tree.
        train_semantics: as in `Config`.

    Yields:
        The rows that it reads, with their splits.
    """
    by_source: dict[str, dict[PurePosixPath, list[Row]]] = {}
    for row in sorted(rows, key=lambda row: PurePosixPath(row.path).parts):
        cells = by_source.setdefault(row.source, defaultdict(list))
        cell = cells[PurePosixPath(row.path).parent]
        if len(cell) < IMAGES_PER_CELL and _is_read(row):
            cell.append(row)
    # NumPy keeps the stream of this old generator as it is: the splits are the same.
    rng = np.random.RandomState(SEED)
    for cells in by_source.values():
        if not train_semantics:
            of_source = [row for cell in cells.values() for row in cell]
            shares = {"train": 0.8, "val": 0.1}
            yield from _cut(of_source, rng, shares, "test")
            continue
        for cell in cells.values():
            trained = bool(cell) and cell[0].semantic in train_semantics
            shares = {"train": 0.9} if trained else {}
            yield from _cut(cell, rng, shares, "val" if trained else "test")


def _cut(
    rows: Sequence[Row], rng: np.random.RandomState, shares: dict[str, float], rest: str
) -> Iterator[Row]:
    """Shuffle rows and give the first ones to the splits by their shares."""
    order = np.arange(len(rows))
    rng.shuffle(order)
    splits = [s for s, share in shares.items() for _ in range(int(len(rows) * share))]
    splits += [rest] * (len(rows) - len(splits))
    for i, split in zip(order, splits, strict=True):
        yield dataclasses.replace(rows[int(i)], group=rows[int(i)].path, split=split)


def _is_read(row: Row) -> bool:
    """Whether the benchmark reads this image; of other names than its own, all."""
    numbers = _NUMBERED.search(PurePosixPath(row.path).name)
    if row.source == REAL or not numbers:
        return True
    prompt, image = map(int, numbers.groups())
    return prompt < PROMPTS and image < IMAGES_PER_PROMPT.get(row.source, 2)


def prepare(
    tree: str | Path,
    data_dir: str | Path = "data",
    *,
    train_semantics: Sequence[str] = (),
    processes: int | None = None,
    **options,
) -> Path:
    """Make the data set `image_attribution_bench/<split>`.

    The split is called `standard`, or by the semantics that are trained on.

    Args:
        tree: folder of the images.
        data_dir: the folder that holds all prepared data sets.
        train_semantics: as in `Config`.
        processes: that read images; None uses every core.
        **options: as for `rmjax.prepare.builder.prepare`, which says the rest.
    """
    train_semantics = tuple(sorted(set(train_semantics)))
    name = "_".join(train_semantics) or "standard"
    config = Config(name=name, tree=tree, train_semantics=train_semantics)
    made = Builder(config=config, data_dir=data_dir, processes=processes)
    return builder.prepare(made, **options)
