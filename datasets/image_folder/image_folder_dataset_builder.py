"""TFDS builder over a user's own images, and `prepare`, which calls it.

Every image is decoded once before anything is written, so that damaged files are
found during preparation and not in the middle of a training run.
"""

import contextlib
import dataclasses
import hashlib
import logging
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from pathlib import Path

import tensorflow_datasets as tfds
from tqdm import tqdm

from rmjax.data.dataset import open_dataset
from rmjax.data.images import decode_rgb
from rmjax.data.manifest import SPLITS, Manifest, Row, read_manifest, read_tree
from rmjax.data.splits import assign_splits
from rmjax.errors import InputError

MAX_BAD = 0.01  # share of unreadable images above which a data set is refused
LEFT_OUT = "left_out.txt"
MADE_FROM = "made_from.txt"


@dataclasses.dataclass
class Config(tfds.core.BuilderConfig):
    """What to build a data set from: a tree, or one or more manifests.

    Attributes:
        tree: folder `<source>/<semantic>/<image>`.
        manifest: CSV files (see `rmjax.data.manifest.read_manifest`).
        root: folder that the manifest's paths are relative to.
        seed: of the splits, where no manifest gives them.
        fractions: shares of train, val and test, likewise.
    """

    tree: str | Path | None = None
    manifest: str | Path | Sequence[str | Path] | None = None
    root: str | Path | None = None
    seed: int = 0
    fractions: Sequence[float] = (0.8, 0.1, 0.1)


class Builder(tfds.core.GeneratorBasedBuilder):
    """Images of named sources and semantics, their bytes as they were."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}
    builder_config: Config

    @cached_property
    def manifest(self) -> Manifest:
        """Return the images with their splits."""
        config = self.builder_config
        if not isinstance(config, Config) or (config.tree is None) == (
            config.manifest is None
        ):
            raise InputError(
                "image_folder: give a folder (tree) or CSV files (manifest), not both"
            )
        if config.tree is not None:
            found = read_tree(config.tree)
        else:
            found = read_manifest(config.manifest, config.root)
        rows = assign_splits(found.rows, config.seed, config.fractions)
        return dataclasses.replace(found, rows=rows)

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(),
                    "source": tfds.features.ClassLabel(
                        names=self.manifest.source_names
                    ),
                    "semantic": tfds.features.ClassLabel(
                        names=self.manifest.semantic_names
                    ),
                    "path": tfds.features.Text(),
                    "group": tfds.features.Text(),
                }
            ),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager):
        del dl_manager  # the images are here already
        manifest = self.manifest
        bad = find_unreadable(manifest.root, manifest.rows)
        _check_share(bad, len(manifest.rows))
        rows = [row for row in manifest.rows if row.path not in bad]
        _check_trained(rows, manifest.source_names)
        # TFDS renames its scratch folder as a whole: these come with the data.
        folder = Path(self.data_path)
        (folder / MADE_FROM).write_text(fingerprint(manifest) + "\n", encoding="utf-8")
        if bad:
            lines = [f"{path}\t{reason}\n" for path, reason in sorted(bad.items())]
            (folder / LEFT_OUT).write_text("".join(lines), encoding="utf-8")
        by_split = {
            split: [row for row in rows if row.split == split] for split in SPLITS
        }
        return {
            split: self._generate_examples(manifest.root, chosen)
            for split, chosen in by_split.items()
            if chosen
        }

    def _generate_examples(
        self, root: Path, rows: Sequence[Row]
    ) -> Iterator[tuple[str, dict]]:
        for row in rows:
            yield (
                row.path,
                {
                    "image": (root / row.path).read_bytes(),
                    "source": row.source,
                    "semantic": row.semantic,
                    "path": row.path,
                    "group": row.group,
                },
            )


def prepare(
    name: str,
    data_dir: str | Path,
    *,
    tree: str | Path | None = None,
    manifest: str | Path | Sequence[str | Path] | None = None,
    root: str | Path | None = None,
    seed: int = 0,
    fractions: Sequence[float] = (0.8, 0.1, 0.1),
) -> Path:
    """Make a data set `image_folder/<name>` from a tree or from CSV manifests.

    Called again for the same images it returns the finished data set.

    Args:
        name: letters, digits, `_`, `-` and `.`; what the data set is called.
        data_dir: the folder that holds all prepared data sets.
        tree: folder `<source>/<semantic>/<image>`; or
        manifest: one CSV file or several.
        root: folder that the manifest's paths are relative to; None means the
            manifest's own.
        seed: of the splits, where no manifest gives them.
        fractions: shares of train, val and test, likewise.

    Returns:
        The folder of the data set, for `rmjax.data.dataset.open_dataset`. Images
        that could not be read are listed there in left_out.txt.

    Raises:
        InputError: bad input (see `rmjax.data.manifest`), more than 1 % unreadable
            images, a source without training images, or a data set of that name made
            from other images. Nothing is written then.
    """
    if not re.fullmatch(r"[A-Za-z0-9_][\w.-]*", name, re.ASCII):
        raise InputError(
            f"data set name {name!r}: use letters, digits, '_', '-' and '.' alone"
        )
    config = Config(
        name=name,
        tree=tree,
        manifest=manifest,
        root=root,
        seed=seed,
        fractions=tuple(fractions),
    )
    with _no_config_warning():
        builder = Builder(config=config, data_dir=data_dir, file_format="array_record")
    directory = Path(builder.data_path)
    if directory.exists():
        _check_same(directory, builder.manifest)
        return directory
    _write(builder)
    dataset = open_dataset(directory)
    for split in dataset.split_sizes:
        dataset.labels(split)  # indexed now, while the data are in memory
    if (directory / LEFT_OUT).exists():
        count = len(builder.manifest.rows) - sum(dataset.split_sizes.values())
        logging.getLogger(__name__).warning(
            "left out %d of %d images that cannot be read: see %s",
            *(count, len(builder.manifest.rows), directory / LEFT_OUT),
        )
    return directory


def _write(builder: Builder) -> None:
    # Without this TFDS looks for a finished copy in a public bucket.
    offline = tfds.download.DownloadConfig(try_download_gcs=False)
    with tempfile.TemporaryDirectory() as downloads:  # stays empty; has to exist
        builder.download_and_prepare(download_dir=downloads, download_config=offline)


@contextlib.contextmanager
def _no_config_warning() -> Iterator[None]:
    """Silence the warning that a configuration is not one of the class's own."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def find_unreadable(root: Path, rows: Sequence[Row]) -> dict[str, str]:
    """Decode every image and return the reason by path for those that fail."""
    bad = {}
    examine = partial(_examine, root)
    with (
        ThreadPoolExecutor(os.cpu_count()) as pool,
        tqdm(total=len(rows), desc="checking images", unit="image", delay=1) as bar,
    ):
        for start in range(0, len(rows), 1024):  # not a million tasks at once
            part = rows[start : start + 1024]
            for row, reason in zip(part, pool.map(examine, part), strict=True):
                if reason:
                    bad[row.path] = reason
                bar.update()
    return bad


def fingerprint(manifest: Manifest) -> str:
    """Return a hash of what a data set is made from: names, labels, splits, file sizes."""
    digest = hashlib.sha256(
        repr((manifest.source_names, manifest.semantic_names)).encode()
    )
    for row in manifest.rows:
        file = manifest.root / row.path
        size = file.stat().st_size if file.is_file() else -1
        entry = (row.path, row.source, row.semantic, row.group, row.split, size)
        digest.update(repr(entry).encode())
    return digest.hexdigest()


def _examine(root: Path, row: Row) -> str:
    """Return why an image cannot be used, or nothing."""
    try:
        decode_rgb((root / row.path).read_bytes(), row.path)
    except OSError as error:
        return error.strerror or str(error)
    except InputError as error:
        return str(error).removeprefix(f"{row.path}: ")
    return ""


def _check_share(bad: dict[str, str], total: int) -> None:
    if len(bad) <= MAX_BAD * total:
        return
    examples = "; ".join(
        f"{path}: {reason}" for path, reason in sorted(bad.items())[:3]
    )
    more = " ..." if len(bad) > 3 else ""
    raise InputError(
        f"{len(bad)} of {total} images cannot be read, more than {MAX_BAD:.0%}: "
        f"repair or remove them ({examples}{more})"
    )


def _check_trained(rows: Sequence[Row], source_names: Sequence[str]) -> None:
    trained = {row.source for row in rows if row.split == "train"}
    absent = [name for name in source_names if name not in trained]
    if absent:
        raise InputError(
            f"no readable image of source {', '.join(map(repr, absent))} in the training split; "
            "add some, or change the splits"
        )


def _check_same(directory: Path, manifest: Manifest) -> None:
    """Check that a finished data set was made from these very images."""
    file = directory / MADE_FROM
    if not file.is_file() or file.read_text(encoding="utf-8").strip() != fingerprint(
        manifest
    ):
        raise InputError(
            f"{directory} was prepared from other images, labels or splits; choose another name "
            "or remove that folder"
        )
