"""TFDS builders over parquet files and WebDataset shards, and `prepare`, which calls them."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import tensorflow_datasets as tfds

from rmjax.data.columns import Columns
from rmjax.data.find import Place
from rmjax.data.parquet import open_parquet
from rmjax.data.parts import Collection
from rmjax.data.webdataset import open_shards
from rmjax.errors import InputError
from rmjax.prepare import builder
from rmjax.prepare.survey import SplitByHash
from rmjax.utils.choose import choose


@dataclasses.dataclass
class Config(tfds.core.BuilderConfig):
    """Which files to build a data set from.

    Attributes:
        place: the files, see `rmjax.data.find.find_files`.
        columns: where they say what an image is.
    """

    place: Place = ()
    columns: Columns = Columns()


class _Builder(builder.CollectedBuilder, skip_registration=True):
    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}
    builder_config: Config
    open_files: Callable[[Place, Columns], Collection]

    @cached_property
    def collection(self) -> Collection:
        """Return the images."""
        config = self.builder_config
        if config is None or not config.place:
            raise InputError(f"{self.name}: give the files")
        if not config.columns.source:
            raise InputError(f"{self.name}: say where the source stands (--source)")
        return self.open_files(config.place, config.columns)


class Parquet(_Builder):
    """Images of parquet files, their bytes as they were."""

    name = "parquet"
    open_files = staticmethod(open_parquet)


class WebDataset(_Builder):
    """Images of WebDataset shards, their bytes as they were."""

    name = "webdataset"
    open_files = staticmethod(open_shards)


READERS: dict[str, type[_Builder]] = {
    "parquet": Parquet,
    "webdataset": WebDataset,
}


def prepare(
    kind: str,
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
        kind: key of `READERS`.
        name: letters, digits, `_`, `-` and `.`; what the data set is called.
        data_dir: the folder that holds all prepared data sets.
        place, columns: as in `Config`.
        seed, fractions: of the splits, where neither a column nor the names of the files
            say them.
        processes: that read images; None uses every core for more than a few.
        **options: as for `rmjax.prepare.builder.prepare`, which says the rest.
    """
    made = choose("kind of files", kind, READERS)(
        config=Config(name=name, place=place, columns=columns),
        data_dir=data_dir,
        processes=processes,
        splitter=SplitByHash(seed, tuple(fractions)),
    )
    return builder.prepare(made, **options)
