"""TFDS builder over published benchmarks, and `prepare`, which calls it."""

import dataclasses
from functools import cached_property
from pathlib import Path

import tensorflow_datasets as tfds

from rmjax.data.find import Place
from rmjax.data.images import decode_rgb
from rmjax.data.parts import Collection
from rmjax.prepare import builder
from rmjax.prepare.benchmarks import BENCHMARKS, FRACTIONS
from rmjax.prepare.manifest import Manifest
from rmjax.prepare.manifest_parts import collection_of
from rmjax.prepare.survey import SplitByHash
from rmjax.utils.choose import choose


@dataclasses.dataclass
class Config(tfds.core.BuilderConfig):
    """Which benchmark to read, and where it lies.

    Attributes:
        benchmark: key of `rmjax.prepare.benchmarks.BENCHMARKS`.
        place: its folder; of one in parquet files whatever
            `rmjax.data.find.find_files` takes.
        seed: of which images are held out for validation.
    """

    benchmark: str = ""
    place: Place = ""
    seed: int = 0


class Builder(builder.CollectedBuilder):
    """Images of a published benchmark; each benchmark is a data set of its name."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}
    builder_config: Config
    check = staticmethod(decode_rgb)

    def __init__(self, *, config: Config, **kwargs):
        choose("benchmark", config.benchmark, BENCHMARKS)
        self.name = config.benchmark
        splitter = SplitByHash(config.seed, FRACTIONS)
        super().__init__(config=config, splitter=splitter, **kwargs)

    @cached_property
    def collection(self) -> Collection:
        """Return the images in parts."""
        images = BENCHMARKS[self.name](self.builder_config.place)
        return collection_of(images) if isinstance(images, Manifest) else images


def prepare(
    name: str,
    place: Place,
    data_dir: str | Path = "data",
    *,
    equalise: bool = False,
    seed: int = 0,
    processes: int | None = None,
    **options,
) -> Path:
    """Make the data set `<benchmark>/standard`, or `<benchmark>/equalised`.

    Args:
        name: the benchmark, a key of `rmjax.prepare.benchmarks.BENCHMARKS`.
        place, seed: as in `Config`.
        equalise: make the files of all images alike, see `rmjax.prepare.equalise`.
        data_dir: the folder that holds all prepared data sets.
        processes: that read images; None uses every core for more than a few.
        **options: as for `rmjax.prepare.builder.prepare`, which says the rest.
    """
    config = Config(
        name=builder.EQUALISED if equalise else "standard",
        benchmark=name,
        place=place,
        seed=seed,
    )
    made = Builder(config=config, data_dir=data_dir, processes=processes)
    return builder.prepare(made, equalise=equalise, **options)
