"""TFDS builder of Attribution88, and `prepare`, which calls it."""

import dataclasses
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import tensorflow_datasets as tfds

from rmjax.data.parts import Collection
from rmjax.errors import InputError
from rmjax.prepare import builder
from rmjax.prepare.manifest_parts import collection_of
from rmjax.prepare.split_lists import find_lists, read_archive_lists, read_folder_lists
from rmjax.prepare.splits import take_subset
from rmjax.utils.places import is_remote, path_of

# Where its authors keep it, as their published code says.
ADDRESS = "https://kahlan.cvssp.org/data/Flickr25K/tubui/eccv22_repmix/"
ARCHIVE = "Attribution88.tar.gz"
TEST_ARCHIVE = "Attribution88_test.tar.gz"
IMAGES_PER_CELL = 12_000  # of 8 sources x 11 semantics


@dataclasses.dataclass
class Config(tfds.core.BuilderConfig):
    """Which part of Attribution88.

    Attributes:
        archive: the archive's name, at its authors' and in the manual downloads.
        sources: names of the sources to keep; none keeps all.
        semantics: names of the semantics to keep; none keeps all.
        images_per_cell: images of each source and semantic; None keeps all.
        seed: another seed keeps other images.
    """

    archive: str = ARCHIVE
    sources: Sequence[str] = ()
    semantics: Sequence[str] = ()
    images_per_cell: int | None = None
    seed: int = 0


CONFIGS = {
    "full": Config(name="full", description="All images, with their three splits."),
    "test_processed": Config(
        name="test_processed",
        description="The test images that its authors corrupted.",
        archive=TEST_ARCHIVE,
    ),
    "subset": Config(
        name="subset",
        description="100 images of each source and semantic.",
        images_per_cell=100,
    ),
}


class Builder(builder.ImagesBuilder):
    """The images of Attribution88, their bytes as they were.

    Args:
        path: the archive, or the folder that it was extracted to; None looks into
            TFDS's folder of manual downloads.
        download: fetch the archive where there is none.
        **kwargs: as for `rmjax.prepare.builder.ImagesBuilder`.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}
    BUILDER_CONFIGS = list(CONFIGS.values())
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        f"Put {ARCHIVE} (or {TEST_ARCHIVE}) from {ADDRESS} there, or a folder that it was "
        "extracted to under the same name without .tar.gz."
    )
    builder_config: Config

    def __init__(
        self, *, path: str | Path | None = None, download: bool = False, **kwargs
    ):
        self._given = None if path is None else path_of(path)
        self._download = download
        if self._given and not self._given.exists():
            raise InputError(f"{path}: no such file or folder")
        super().__init__(**kwargs)

    def find_images(self, dl_manager: tfds.download.DownloadManager) -> Collection:
        config = self.builder_config
        path = self._given = self._path(dl_manager)
        manifest = (
            read_folder_lists(path) if path.is_dir() else read_archive_lists(path)
        )
        subset = take_subset(
            manifest,
            config.sources,
            config.semantics,
            config.images_per_cell,
            config.seed,
        )
        return collection_of(subset)

    def made_from(self) -> str | None:
        config, path = self.builder_config, self._given
        if path is None:  # what was prepared may be there no more
            return None
        chosen = (config.sources, config.semantics, config.images_per_cell, config.seed)
        return json.dumps([*chosen, _identity(path)])

    def _path(self, dl_manager: tfds.download.DownloadManager) -> Path:
        """Return the archive, or the folder it was extracted to."""
        if self._given is not None:
            return self._given
        archive = self.builder_config.archive
        manual = path_of(
            dl_manager._manual_dir
        )  # the public property raises without it
        for name in (archive, archive.removesuffix(".tar.gz")):
            if (manual / name).exists():
                return manual / name
        if self._download:
            return self._fetch(dl_manager, archive)
        raise InputError(
            f"no {archive} in {manual}: put it there, from {ADDRESS}, or give the archive "
            "or its extracted folder with --from, or let --download fetch it (30 GB)"
        )

    def _fetch(self, dl_manager: tfds.download.DownloadManager, archive: str) -> Path:
        if is_remote(dl_manager._download_dir):
            raise InputError(
                f"{dl_manager._download_dir}: --download is for a --data-dir of this "
                "machine; give the archive with --from"
            )
        tfds.enable_progress_bar()
        try:
            return Path(dl_manager.download(ADDRESS + archive))
        except Exception as error:  # of requests, urllib3 and TFDS
            for scratch in Path(dl_manager._download_dir).glob("**/*.tmp.*"):
                shutil.rmtree(scratch, ignore_errors=True)
            reason = " ".join(str(error).split())
            raise InputError(
                f"cannot download {ADDRESS + archive}: {reason}"
            ) from error
        finally:
            tfds.disable_progress_bar()


def _identity(path: Path) -> list:
    """Return what tells an archive, or the lists of a folder, from another."""
    files = [path] if path.is_file() else list(find_lists(path))
    return sorted([file.name, file.stat().st_size] for file in files)


def prepare(
    config: Config | str = "full",
    data_dir: str | Path = "data",
    *,
    path: str | Path | None = None,
    download: bool = False,
    processes: int | None = None,
    **options,
) -> Path:
    """Make the data set `attribution88/<name of the config>`.

    Args:
        config: the name of one of `CONFIGS`, or one of your own.
        data_dir: the folder that holds all prepared data sets.
        path, download: as for `Builder`; manual downloads are `DATA_DIR/downloads/manual`.
        processes: that read images; None uses every core.
        **options: as for `rmjax.prepare.builder.prepare`, which says the rest.
    """
    made = Builder(
        config=config,
        path=path,
        download=download,
        data_dir=data_dir,
        processes=processes,
    )
    return builder.prepare(made, path_of(data_dir) / "downloads", **options)
