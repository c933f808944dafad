"""TFDS builder over parquet files and WebDataset shards, and `prepare`, which calls it."""

import dataclasses
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import tensorflow_datasets as tfds

from rmjax.data.columns import Columns
from rmjax.data.direct import FORMATS, check_source
from rmjax.data.find import Place
from rmjax.data.parts import Collection
from rmjax.prepare import builder
from rmjax.prepare.survey import SplitByHash
from rmjax.utils.choose import choose


@dataclasses.dataclass
class Config(tfds.core.BuilderConfig):
    """Which files to build a data set from.

    Attributes:
        format: of the files, key of `rmjax.data.direct.FORMATS`.
        place: the files, see `rmjax.data.find.find_files`.
        columns: where they say what an image is.
    """

    format: str = ""
    place: Place = ()
    columns: Columns = Columns()


class Builder(builder.CollectedBuilder):
    """Images of files that hold many, their bytes as they were; named after the format."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}
    builder_config: Config

    def __init__(self, *, config: Config, **kwargs):
        self._format = choose("format", config.format, FORMATS)
        self.name = config.format
        super().__init__(config=config, **kwargs)

    @cached_property
    def collection(self) -> Collection:
        """Return the images."""
        place, columns = self.builder_config.place, self.builder_config.columns
        places = [place] if isinstance(place, str | Path) else place
        check_source(self._format, places, columns)
        return self._format.open(places, columns)


def prepare(
    format: str,
    name: str,
    data_dir: str | Path,
    *,
    place: Place,
    columns: Columns,
    seed: int = 0,
    fractions: Sequence[float] = (0.8, 0.1, 0.1),
    processes: int | None = None,
    **options,
) -> Path:
    """Make a data set `parquet/<name>` or `webdataset/<name>`.

    Args:
        format: of the files, key of `rmjax.data.direct.FORMATS`.
        name: letters, digits, `_`, `-` and `.`; what the data set is called.
        data_dir: the folder that holds all prepared data sets.
        place, columns: as in `Config`.
        seed, fractions: of the splits, where neither a column nor the names of the files
            say them.
        processes: that read images; None uses every core for more than a few.
        **options: as for `rmjax.prepare.builder.prepare`, which says the rest.
    """
    made = Builder(
        config=Config(name=name, format=format, place=place, columns=columns),
        data_dir=data_dir,
        processes=processes,
        splitter=SplitByHash(seed, tuple(fractions)),
    )
    return builder.prepare(made, **options)
