"""The TFDS builder that all data sets of image files share, and `prepare`, which runs it.

A data set says which images there are, in a folder or an archive (a `Manifest`). This
module reads them, leaves out and lists those that cannot be used, and writes the rest.
"""

import abc
import contextlib
import errno
import io
import logging
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from tqdm import tqdm

from rmjax.data.archive import read_members
from rmjax.data.dataset import UNKNOWN_SOURCES, check_source_names, open_dataset
from rmjax.data.images import decode_rgb
from rmjax.data.labels import save_labels
from rmjax.errors import InputError
from rmjax.prepare.beam import (
    beam_errors_in_words,
    check_with_beam,
    only,
    read_with_beam,
)
from rmjax.prepare.left_out import LEFT_OUT, LeftOut, read_left_out
from rmjax.prepare.manifest import Manifest, fingerprint, split_sizes
from rmjax.prepare.records import (
    Encoder,
    Item,
    SplitWriter,
    check_file,
    check_trained,
    features,
    num_shards,
)
from rmjax.prepare.split_lists import Finder
from rmjax.utils.locks import locked
from rmjax.utils.processes import FEW, cores, in_blocks, ordered_map

MADE_FROM = "made_from.txt"

logger = logging.getLogger(__name__)


class ImagesBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Writes the images that `find_images` names, their bytes as they were.

    With a Beam runner or Beam options in the download config, Apache Beam reads and
    writes them; otherwise processes of this machine do.

    Args:
        processes: that read images; None uses every core for more than a few images.
        **kwargs: as for `tfds.core.GeneratorBasedBuilder`.
    """

    def __init__(self, *, processes: int | None = None, **kwargs):
        self._processes = processes
        kwargs.setdefault("file_format", "array_record")
        with _quiet_tfds():
            super().__init__(**kwargs)

    @abc.abstractmethod
    def find_images(self, dl_manager: tfds.download.DownloadManager) -> Manifest:
        """Return the images with their splits, in a folder or in an archive."""

    @abc.abstractmethod
    def made_from(self) -> str | None:
        """Return a line that differs for other images, names or splits.

        None where that cannot be told for a data set that is finished.
        """

    def _info(self) -> tfds.core.DatasetInfo:
        # Names are not known before the images: `_find` sets them.
        return self.dataset_info_from_configs(
            features=features(), metadata=tfds.core.MetadataDict()
        )

    def _download_and_prepare(
        self,
        dl_manager: tfds.download.DownloadManager,
        download_config: tfds.download.DownloadConfig,
    ) -> None:
        manifest = self._find(dl_manager)
        if download_config.beam_runner or download_config.beam_options:
            self._manifest = manifest
            with beam_errors_in_words():
                super()._download_and_prepare(dl_manager, download_config)
            check_with_beam(manifest, Path(self.data_path))
        else:
            splits = self._write(manifest)
            self.info.set_splits(tfds.core.splits.SplitDict(splits))

    def _split_generators(self, dl_manager, pipeline) -> dict[str, object]:
        """Return `_generate_examples` of every split; of a Beam pipeline alone."""
        manifest, folder = self._manifest, Path(self.data_path)
        images = read_with_beam(pipeline, manifest, make_encoder(manifest), folder)
        return {s: self._generate_examples(images, s) for s in split_sizes(manifest)}

    def _generate_examples(self, images, split: str) -> object:
        return only(images, split)

    def _find(self, dl_manager: tfds.download.DownloadManager) -> Manifest:
        manifest = self.find_images(dl_manager)
        named = {"source": manifest.source_names, "semantic": manifest.semantic_names}
        for kind, names in named.items():
            for name in names:
                if not name.isprintable():  # nor are bytes that are not UTF-8
                    raise InputError(f"{manifest.root}: {kind} {name!a}: rename it")
            self.info.features[kind].names = list(names)
        check_source_names(manifest.source_names, manifest.root)
        self.info.metadata[UNKNOWN_SOURCES] = list(manifest.unknown)
        # TFDS renames its scratch folder as a whole: this comes with the data.
        file = Path(self.data_path) / MADE_FROM
        file.write_text(f"{self.made_from()}\n", encoding="utf-8")
        return manifest

    def _write(self, manifest: Manifest) -> list[tfds.core.SplitInfo]:
        """Write all splits, and the list of what was left out."""
        total, folder = len(manifest.rows), Path(self.data_path)
        processes = self._processes or (1 if total < FEW else cores())
        bad, encoder = LeftOut(total), make_encoder(manifest)
        with ordered_map(encoder, processes) as encode, contextlib.ExitStack() as stack:
            writers = self._open_writers(manifest)
            for writer in writers.values():
                stack.callback(writer.close)
            for block, records in encode(in_blocks(read_images(manifest, bad))):
                for (row, _), record in zip(block, records, strict=True):
                    if isinstance(record, str):
                        bad.add(row.path, record)
                    else:
                        writers[row.split].write(record, encoder.labels(row))
            bad.check()
            empty = [split for split, writer in writers.items() if not writer.length]
            if empty:
                raise InputError(f"no readable image in split {', '.join(empty)}")
            labels = {split: writer.labels() for split, writer in writers.items()}
            trained = np.unique(labels.get("train", {}).get("source", ()))
            check_trained(manifest, [manifest.source_names[int(i)] for i in trained])
        bad.save(folder)
        for split, columns in labels.items():
            save_labels(folder, split, columns)
        return [writer.info() for writer in writers.values()]

    def _open_writers(self, manifest: Manifest) -> dict[str, SplitWriter]:
        sizes = split_sizes(manifest)
        needed, free = sum(sizes.values()), shutil.disk_usage(self.data_path).free
        if needed > free:
            raise InputError(
                f"{self.data_dir_root}: the data set takes {needed / 2**30:.1f} GiB, the disk has "
                f"{free / 2**30:.1f} GiB left; make room or choose another --data-dir"
            )
        return {
            split: SplitWriter(self._get_filename_template(split), num_shards(size))
            for split, size in sizes.items()
        }


class ListedBuilder(ImagesBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Writes images that are known without a download, those of `manifest`."""

    @property
    @abc.abstractmethod
    def manifest(self) -> Manifest:
        """Return the images with their splits."""

    def find_images(self, dl_manager: tfds.download.DownloadManager) -> Manifest:
        return self.manifest

    def made_from(self) -> str:
        return fingerprint(self.manifest)


def prepare(
    builder: ImagesBuilder, download_dir: str | Path | None = None, **options
) -> Path:
    """Run a builder, or return its data set if it is finished and of the same images.

    Args:
        builder: of one data set.
        download_dir: where downloads go and are; None for data sets without any.
        **options: of `tfds.download.DownloadConfig`, such as `beam_options`.

    Returns:
        The folder of the data set, for `rmjax.data.dataset.open_dataset`. What was
        left out is listed there in left_out.txt.

    Raises:
        InputError: what the data set refuses; more than 1 % of the images cannot be
            used; a source without training images; the disk is full; another process
            is preparing the same; or a data set of that name made from other images.
            Nothing is left then.
    """
    directory = Path(builder.data_path)
    if builder.builder_config is not None:
        _check_name(builder.builder_config.name)
    if directory.exists():
        _check_same(directory, builder.made_from())
    else:
        with contextlib.ExitStack() as stack:
            stack.enter_context(disk_errors_in_words(directory))
            stack.enter_context(only_one(directory))
            if download_dir is None:  # TFDS wants a folder in any case
                download_dir = stack.enter_context(tempfile.TemporaryDirectory())
            # Without this TFDS looks for a finished copy in a public bucket.
            config = tfds.download.DownloadConfig(try_download_gcs=False, **options)
            stack.enter_context(_quiet_tfds())
            builder.download_and_prepare(
                download_dir=str(download_dir), download_config=config
            )
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


def make_encoder(manifest: Manifest) -> Encoder:
    """Return what checks and serialises the images of a manifest."""
    # Files are decoded. An archive is told to be whole by its checksum, its images are
    # looked at: all of a million would have to be decoded on a few cores.
    check = decode_rgb if manifest.root.is_dir() else check_file
    return Encoder(manifest, check)


def read_images(manifest: Manifest, bad: LeftOut) -> Iterator[Item]:
    """Yield the images of a folder, or of an archive, under a progress bar.

    Args:
        manifest: which there are.
        bad: gets those of its rows that an archive does not hold.
    """
    if manifest.root.is_dir():
        rows = tqdm(manifest.rows, "reading images", unit="image", delay=1)
        yield from ((row, None) for row in rows)
        return
    finder = Finder(manifest.rows)
    members = read_members(manifest.root, finder.knows, "reading images")
    for name, data in members:
        yield finder.take(name), data
    for row in finder.left():
        bad.add(row.path, "not in the archive")


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
            f"{directory} was prepared from other images, labels or splits; choose another name "
            "or remove that folder"
        )


@contextlib.contextmanager
def only_one(directory: Path) -> Iterator[None]:
    """Keep others from preparing the same; remove what a killed process left."""
    path = directory.parent / f".{directory.name}.lock"
    busy = f"{directory}: another process is preparing this data set; wait for it"
    with locked(path, busy):
        try:
            for scratch in directory.parent.glob(f"incomplete.*_{directory.name}"):
                shutil.rmtree(scratch)
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
        if isinstance(error, OSError) and error.strerror:
            raise InputError(
                f"{error.filename or directory}: {error.strerror}"
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
