"""The TFDS builder that all data sets of image files share, and `prepare`, which runs it.

A data set says which images there are: a `Collection`, such as those of a `Manifest`.
This module surveys them, has them written unit by unit, and puts the rest beside them.
"""

import abc
import contextlib
import dataclasses
import errno
import hashlib
import io
import logging
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

import tensorflow_datasets as tfds
from tensorflow_datasets.core.dataset_builder import FileReaderBuilder

from rmjax.data.dataset import UNKNOWN_SOURCES, open_dataset
from rmjax.data.images import decode_rgb
from rmjax.data.parts import Collection
from rmjax.errors import InputError
from rmjax.prepare.beam import beam_map
from rmjax.prepare.equalise import measure, plan_equalise
from rmjax.prepare.left_out import LEFT_OUT, read_left_out
from rmjax.prepare.manifest import Manifest
from rmjax.prepare.manifest_parts import collection_of
from rmjax.prepare.records import Check, Encoder, check_file, features
from rmjax.prepare.resume import MADE_FROM, begin, save_survey
from rmjax.prepare.survey import (
    Engine,
    SplitByHash,
    Unit,
    make_units,
    map_units,
    name_classes,
    survey,
)
from rmjax.prepare.write import (
    REPORTS,
    Writer,
    finish,
    plan_tasks,
    unfinished,
    write_tasks,
)
from rmjax.utils.files import remove_tree, replaced
from rmjax.utils.locks import locked
from rmjax.utils.places import as_path, is_remote, reason
from rmjax.utils.processes import cores, ordered_map

if TYPE_CHECKING:
    from apache_beam.options.pipeline_options import PipelineOptions

EQUALISED = "equalised"  # in a data set's metadata: how
INFO = "dataset_info.json"  # comes last: a folder without it is no data set

logger = logging.getLogger(__name__)


class ImagesBuilder(FileReaderBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Writes the images that `find_images` names, their bytes as they were.

    Args:
        processes: that read images; None uses every core for more than a few images.
        splitter: gives a split to the images that have none.
        **kwargs: as for `FileReaderBuilder`.
    """

    # What is said of an image's bytes; a checksum over all is cheaper than decoding.
    check: Check = staticmethod(check_file)

    def __init__(
        self,
        *,
        processes: int | None = None,
        splitter: SplitByHash | None = None,
        **kwargs,
    ):
        self._processes = processes
        self._splitter = splitter or SplitByHash()
        kwargs.setdefault("file_format", "array_record")
        with _quiet_tfds():
            super().__init__(**kwargs)

    @abc.abstractmethod
    def find_images(self, dl_manager: tfds.download.DownloadManager) -> Collection:
        """Return the images."""

    @abc.abstractmethod
    def made_from(self) -> str | None:
        """Return a line that differs for other images, names or splits.

        None where that cannot be told for a data set that is finished.
        """

    def _info(self) -> tfds.core.DatasetInfo:
        # Names are not known before the images: `write` sets them.
        return self.dataset_info_from_configs(
            features=features(), metadata=tfds.core.MetadataDict()
        )

    def _download_and_prepare(
        self,
        dl_manager: tfds.download.DownloadManager,
        download_config: tfds.download.DownloadConfig,
    ) -> None:
        self.write(dl_manager, download_config.beam_options)

    def write(
        self,
        dl_manager: tfds.download.DownloadManager,
        beam_options: "PipelineOptions | None" = None,
        *,
        resume: bool = False,
        equalise: bool = False,
    ) -> None:
        """Write the data set.

        Args:
            dl_manager: finds and fetches downloads.
            beam_options, resume, equalise: as for `prepare`.

        Raises:
            InputError: see `prepare`.
        """
        folder = as_path(self.data_path)
        collection = self.find_images(dl_manager)
        units = make_units(collection.parts)
        made_from = f"{self.identity(equalise)}\n"
        surveys = begin(folder, made_from, resume)
        _check_room(folder, units)
        engine, here = None, self._here(1 if len(units) == 1 else cores())
        if beam_options:
            engine = partial(beam_map, folder=folder / REPORTS, options=beam_options)
        if surveys is None:
            surveys = survey(units, self._splitter, engine or here)
            save_survey(folder, surveys)
        transform = None
        if equalise:
            measured = map_units(units, measure, engine or here, "reading headers")
            transform = plan_equalise(measured, self._splitter.seed)
            self.info.metadata[EQUALISED] = transform.metadata()
        sources, semantics = name_classes(collection, surveys)
        tasks, shards = plan_tasks(units, surveys)
        writer = Writer(
            folder=folder,
            made_from=made_from,
            dataset=self.name,
            shards=shards,
            total=sum(task.images for task in tasks),
            splitter=self._splitter,
            encoder=Encoder(sources, semantics, self.check, transform),
        )
        write_tasks(writer, unfinished(folder, tasks), engine, self._processes)
        trained = {
            label: name
            for label, name in enumerate(sources)
            if name not in collection.unknown
        }
        splits = finish(writer, tasks, trained)
        self.info.features["source"].names = list(sources)
        self.info.features["semantic"].names = list(semantics)
        self.info.metadata[UNKNOWN_SOURCES] = list(collection.unknown)
        self.info.set_splits(tfds.core.splits.SplitDict(splits))
        with tempfile.TemporaryDirectory() as scratch:
            self.info.write_to_directory(scratch)
            publish(Path(scratch), folder)
        remove_tree(folder / REPORTS)

    def identity(self, equalise: bool) -> str | None:
        """Return what `made_from` does, for what is made of the images too."""
        made_from = self.made_from()
        return f"{made_from} {EQUALISED}" if equalise and made_from else made_from

    def _here(self, processes: int) -> Engine:
        return partial(ordered_map, processes=self._processes or processes)


class CollectedBuilder(ImagesBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Writes images that are known without a download, those of `collection`."""

    @property
    @abc.abstractmethod
    def collection(self) -> Collection:
        """Return the images."""

    def find_images(self, dl_manager: tfds.download.DownloadManager) -> Collection:
        return self.collection

    def made_from(self) -> str:
        """Return a hash of what the images lie in, and of the config."""
        config = dataclasses.replace(self.builder_config, place="")
        text = repr((self.collection.state, config, self._splitter))
        return hashlib.sha256(text.encode()).hexdigest()


class ListedBuilder(CollectedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Writes images of a folder, those of `manifest`."""

    check = staticmethod(decode_rgb)

    @property
    @abc.abstractmethod
    def manifest(self) -> Manifest:
        """Return the images with their splits."""

    @cached_property
    def collection(self) -> Collection:
        """Return the images in parts."""
        return collection_of(self.manifest)

    def made_from(self) -> str:
        return self.collection.state


def prepare(
    builder: ImagesBuilder,
    download_dir: str | Path | None = None,
    *,
    beam_options: "PipelineOptions | None" = None,
    resume: bool = False,
    equalise: bool = False,
) -> Path:
    """Run a builder, or return its data set if it is finished and of the same images.

    Args:
        builder: of one data set.
        download_dir: where downloads go and are; None for data sets without any.
        beam_options: has Apache Beam read and write, on the runner that they name.
        resume: go on with what a killed or failed preparation has left, instead of
            anew; and where this one fails, leave what is whole.
        equalise: make the files of all images alike, see `rmjax.prepare.equalise`.

    Returns:
        The folder of the data set, for `rmjax.data.dataset.open_dataset`. What was
        left out is listed there in left_out.txt.

    Raises:
        InputError: what the data set refuses; more than 1 % of the images cannot be
            used; a source without training images; the disk is full; another process
            is preparing the same; or a data set of that name made from other images.
            Nothing is left then, unless `resume` is set.
    """
    directory = as_path(builder.data_path)
    if builder.builder_config is not None:
        _check_name(builder.builder_config.name)
    if (directory / INFO).exists():
        _check_same(directory, builder.identity(equalise))
    else:
        with contextlib.ExitStack() as stack:
            stack.enter_context(disk_errors_in_words(directory))
            stack.enter_context(only_one(directory))
            stack.enter_context(_what_is_left(directory, resume))
            if download_dir is None:  # TFDS wants a folder in any case
                download_dir = stack.enter_context(tempfile.TemporaryDirectory())
            config = tfds.download.DownloadConfig(try_download_gcs=False)
            stack.enter_context(_quiet_tfds())
            manager = builder._make_download_manager(
                download_dir=str(download_dir), download_config=config
            )
            builder.write(manager, beam_options, resume=resume, equalise=equalise)
    dataset = open_dataset(directory)
    for split in dataset.split_sizes:
        dataset.labels(split)
    count = len(read_left_out(directory))
    if count:
        logger.warning(
            "left out %d of %d images, which cannot be used: see %s",
            *(count, count + sum(dataset.split_sizes.values()), directory / LEFT_OUT),
        )
    return directory


def publish(scratch: Path, folder: Path) -> None:
    """Copy files into the folder of a data set, last what makes it count."""
    for file in sorted(scratch.iterdir(), key=lambda file: file.name == INFO):
        with replaced(folder / file.name) as target:
            shutil.copyfile(file, target)


def _check_name(name: str) -> None:
    """Raise an InputError for a name that cannot be that of a data set."""
    if not re.fullmatch(r"[A-Za-z0-9_][\w.-]*", name, re.ASCII):
        raise InputError(
            f"data set name {name!r}: use letters, digits, '_', '-' and '.' alone"
        )


def _check_same(directory: Path, made_from: str | None) -> None:
    """Check that a finished data set was made from these very images."""
    if made_from is None:
        return
    file = directory / MADE_FROM
    if not file.is_file() or file.read_text(encoding="utf-8").strip() != made_from:
        raise InputError(
            f"{directory} was prepared from other images, labels or splits, or otherwise "
            "(--equalise); choose another name or remove that folder"
        )


def _check_room(folder: Path, units: Sequence[Unit]) -> None:
    """Check that the disk has room for what is not written yet."""
    if is_remote(folder):
        return
    written = sum(file.stat().st_size for file in folder.rglob("*"))
    needed = sum(part.size for unit in units for part in unit) - written
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise InputError(
            f"{folder.parent}: the data set takes {needed / 2**30:.1f} GiB, the disk has "
            f"{free / 2**30:.1f} GiB left; make room or choose another --data-dir"
        )


@contextlib.contextmanager
def _what_is_left(directory: Path, keep: bool) -> Iterator[None]:
    """Remove after an error what was written, unless it is to be kept.

    After a kill or Ctrl-C it stays.
    """
    try:
        yield
    except Exception:
        if not keep:
            remove_tree(directory)
        raise
    except BaseException:
        logger.warning("%s: not finished; --resume goes on with it", directory)
        raise


@contextlib.contextmanager
def only_one(directory: Path) -> Iterator[None]:
    """Keep others from preparing the same; stores know no locks."""
    if is_remote(directory):
        yield
        return
    path = directory.parent / f".{directory.name}.lock"
    busy = f"{directory}: another process is preparing this data set; wait for it"
    with locked(path, busy):
        try:
            for scratch in directory.parent.glob(f"incomplete.*_{directory.name}"):
                shutil.rmtree(scratch)  # of TFDS
            yield
        finally:
            path.unlink()
            for folder in directory.parents[:2]:  # of the config, of the data set
                if not any(folder.iterdir()):
                    folder.rmdir()


@contextlib.contextmanager
def disk_errors_in_words(directory: Path) -> Iterator[None]:
    """Turn what a full disk or a folder that cannot be written to raises into one line."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        full = getattr(error, "errno", None) == errno.ENOSPC
        if full or "No space left" in str(error):  # array_record's own words
            raise InputError(
                f"{directory}: the disk is full; make room or choose another --data-dir"
            ) from error
        if isinstance(error, OSError):
            raise InputError(
                f"{error.filename or directory}: {reason(error)}"
            ) from error
        raise


@contextlib.contextmanager
def _quiet_tfds() -> Iterator[None]:
    """Silence TFDS's own bars and words, and its warning about configs made here."""
    absl = logging.getLogger("absl")
    level = absl.level
    absl.setLevel(logging.ERROR)
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        tfds.enable_progress_bar()
        absl.setLevel(level)
