"""TFDS builder over published benchmarks, and `prepare`, which calls it."""

import dataclasses
import hashlib
from functools import cached_property
from pathlib import Path

import tensorflow_datasets as tfds
from tqdm import tqdm

from rmjax.data.find import Place
from rmjax.data.images import decode_rgb
from rmjax.data.parts import Collection
from rmjax.prepare import builder
from rmjax.prepare.benchmarks import BENCHMARKS, FRACTIONS
from rmjax.prepare.equalise import Equaliser, measure, plan_equalise
from rmjax.prepare.manifest import Manifest, fingerprint
from rmjax.prepare.manifest_parts import collect
from rmjax.prepare.survey import SHARD_BYTES, SplitByHash
from rmjax.utils.choose import choose
from rmjax.utils.processes import cores, ordered_map

EQUALISED = "equalised"  # in a data set's metadata: how


@dataclasses.dataclass
class Config(tfds.core.BuilderConfig):
    """Which benchmark to read, and where it lies.

    Attributes:
        benchmark: key of `rmjax.prepare.benchmarks.BENCHMARKS`.
        place: its folder; of one in parquet files whatever
            `rmjax.data.find.find_files` takes.
        equalise: whether to make the files of all images alike, see
            `rmjax.prepare.equalise`.
        seed: of that, and of which images are held out for validation.
    """

    benchmark: str = ""
    place: Place = ""
    equalise: bool = False
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
    def images(self) -> Manifest | Collection:
        """Return the images as the benchmark has them."""
        return BENCHMARKS[self.name].read(self.builder_config.place)

    @cached_property
    def collection(self) -> Collection:
        """Return the images in parts."""
        return (
            collect(self.images) if isinstance(self.images, Manifest) else self.images
        )

    def find_images(self, dl_manager: tfds.download.DownloadManager) -> Collection:
        """Return the images in parts, and plan what is to become of them."""
        if self.builder_config.equalise:
            self._transform = self._plan()
            self.info.metadata[EQUALISED] = self._transform.metadata()
        return self.collection

    def made_from(self) -> str:
        """Return a hash of what there is, and of the config."""
        config = dataclasses.replace(self.builder_config, place="")
        if isinstance(self.images, Manifest):
            text = repr((fingerprint(self.images), config))
        else:
            parts = [(part.name, part.size) for part in self.images.parts]
            text = repr((parts, config))
        return hashlib.sha256(text.encode()).hexdigest()

    def _plan(self) -> Equaliser:
        parts = self.collection.parts
        small = sum(part.size for part in parts) < SHARD_BYTES
        processes = self._processes or (1 if small else cores())
        bar = tqdm(total=len(parts), desc="reading headers", unit="part", delay=1)
        with bar, ordered_map(measure, processes) as measured:
            found = []
            for _, measures in measured(parts):
                found.append(measures)
                bar.update()
        return plan_equalise(found, self.builder_config.seed)


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
        place, equalise, seed: as in `Config`.
        data_dir: the folder that holds all prepared data sets.
        processes: that read images; None uses every core for more than a few.
        **options: as for `rmjax.prepare.builder.prepare`, which says the rest.
    """
    config = Config(
        name=EQUALISED if equalise else "standard",
        benchmark=name,
        place=place,
        equalise=equalise,
        seed=seed,
    )
    made = Builder(config=config, data_dir=data_dir, processes=processes)
    return builder.prepare(made, **options)
