"""TFDS builder over a user's own images, and `prepare`, which calls it."""

import dataclasses
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import tensorflow_datasets as tfds

from rmjax.errors import InputError
from rmjax.prepare import builder
from rmjax.prepare.lists import read_manifest
from rmjax.prepare.manifest import Manifest, read_tree
from rmjax.prepare.splits import assign_splits


@dataclasses.dataclass
class Config(tfds.core.BuilderConfig):
    """What to build a data set from: a tree, or one or more manifests.

    Attributes:
        tree: folder `<source>/<semantic>/<image>`, see
            `rmjax.prepare.manifest.read_tree`; or
        manifest: one CSV file or several, see `rmjax.prepare.lists.read_manifest`.
        root: folder that the manifest's paths are relative to; None means its own.
        seed: of the splits, where no manifest gives them.
        fractions: shares of train, val and test, likewise.
    """

    tree: str | Path | None = None
    manifest: str | Path | Sequence[str | Path] | None = None
    root: str | Path | None = None
    seed: int = 0
    fractions: Sequence[float] = (0.8, 0.1, 0.1)


class Builder(builder.ListedBuilder):
    """Images of named sources and semantics, their bytes as they were."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}
    builder_config: Config

    @cached_property
    def manifest(self) -> Manifest:
        """Return the images with their splits."""
        config = self.builder_config
        if config.tree is not None and config.manifest is None:
            manifest = read_tree(config.tree)
        elif config.manifest is not None and config.tree is None:
            manifest = read_manifest(config.manifest, config.root)
        else:
            raise InputError(
                "image_folder: give a folder (tree) or CSV files (manifest), not both"
            )
        rows = assign_splits(manifest.rows, config.seed, config.fractions)
        return dataclasses.replace(manifest, rows=rows)


def prepare(
    name: str,
    data_dir: str | Path,
    *,
    tree: str | Path | None = None,
    manifest: str | Path | Sequence[str | Path] | None = None,
    root: str | Path | None = None,
    seed: int = 0,
    fractions: Sequence[float] = (0.8, 0.1, 0.1),
    processes: int | None = None,
    **options,
) -> Path:
    """Make a data set `image_folder/<name>` from a tree or from CSV manifests.

    Args:
        name: letters, digits, `_`, `-` and `.`; what the data set is called.
        data_dir: the folder that holds all prepared data sets.
        tree, manifest, root, seed, fractions: as in `Config`.
        processes: that read images; None uses every core for more than a few.
        **options: as for `rmjax.prepare.builder.prepare`, which says the rest.
    """
    config = Config(
        name=name,
        tree=tree,
        manifest=manifest,
        root=root,
        seed=seed,
        fractions=tuple(fractions),
    )
    made = Builder(config=config, data_dir=data_dir, processes=processes)
    return builder.prepare(made, **options)
