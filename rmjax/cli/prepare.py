"""The `rmjax prepare` commands: one for each kind of data set."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from rmjax.cli.options import ColumnNames, Count, Names, NewPlace, name_of
from rmjax.cli.parser import Group, Word
from rmjax.errors import InputError


def _pair(text: str) -> tuple[str, str]:
    name, equals, file = text.partition("=")
    if not (name and equals and file):
        raise InputError(f"{text!r} is not NAME=FILE")
    return name, file


ListFile = Annotated[tuple[str, str], Word(_pair, "SPLIT=FILE")]
UnknownFile = Annotated[tuple[str, str], Word(_pair, "NAME=FILE")]
SetName = Annotated[str, "what to call the data set"]
OfThese = Annotated[Names, "of these alone, A,B (default: all)"]
Target = Annotated[NewPlace, "folder of all prepared data sets"]


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Reading of image files.

    Attributes:
        processes: that read images (default: one a core, or 1 for a few images)
        beam: read by Apache Beam instead, with its options, such as
            --beam="--runner=FlinkRunner --parallelism=64" (needs: pip install rmjax[beam])
        equalise: cut all images to one size and write them by one JPEG encoder, since
            real ones often differ from the others in size and format
        resume: go on with what a killed or failed preparation of the same has left; and
            if this one fails, leave what is whole
        verify: then decode every image and look for duplicates; write a data sheet
    """

    data_dir: Target = "data"
    processes: Count | None = None
    beam: Annotated[str | None, Word(str, "OPTIONS")] = None
    equalise: bool = False
    resume: bool = False
    verify: bool = False

    def options(self) -> dict[str, Any]:
        """Return what all builders of image files take.

        Raises:
            InputError: processes as well as Beam are given, or Beam is not installed.
        """
        if self.processes and self.beam:
            raise InputError("--processes and --beam: give one of them")
        options = {"data_dir": self.data_dir, "processes": self.processes}
        options |= {"resume": self.resume, "equalise": self.equalise}
        if self.beam is None:
            return options
        try:
            from apache_beam.options.pipeline_options import PipelineOptions
        except ImportError:
            raise InputError("--beam needs: pip install rmjax[beam]") from None
        return options | {"beam_options": PipelineOptions(self.beam.split())}

    def finish(self, folder: Path, per_cell: int | None = None) -> None:
        """Describe a finished data set, and verify it if that is wanted."""
        _describe(folder)
        if self.verify:
            from rmjax.prepare.verify import verify

            for kind, path in verify(folder, per_cell, self.processes).items():
                print(f"{kind + ':':<10} {path}")


def _describe(folder: Path) -> None:
    from rmjax.data.dataset import open_dataset

    dataset = open_dataset(folder)
    print(f"data set:  {folder}")
    print(f"sources:   {', '.join(dataset.source_names)}")
    if dataset.unknown_sources:
        print(f"unknown:   {', '.join(dataset.unknown_sources)}")
    print(f"semantics: {', '.join(dataset.semantic_names)}")
    sizes = (f"{name} {size}" for name, size in dataset.split_sizes.items())
    print(f"images:    {', '.join(sizes)}")


def prepare_mini(
    *,
    images_per_cell: Annotated[int, "images a cell"] = 200,
    size: Annotated[int, "side in pixels"] = 64,
    seed: Annotated[int, "of the scenes"] = 0,
    entanglement: float = 0.5,
    preferences: tuple[str, ...] = (),
    data_dir: Target = "data",
) -> None:
    """8 simulated sources x 11 semantics, drawn on the spot.

    Args:
        entanglement: how far each source prefers certain content, 0 to 1
        preferences: which kinds of it, such as palette,pose (default: all)
    """
    from rmjax.datasets.attribution_mini import attribution_mini_dataset_builder as mini
    from rmjax.datasets.attribution_mini.preferences import KINDS

    _describe(
        mini.prepare(
            data_dir,
            images_per_cell=images_per_cell,
            seed=seed,
            size=size,
            entanglement=entanglement,
            preferences=preferences or KINDS,
        )
    )


def prepare_folder(
    *,
    name: SetName,
    tree: str | None = None,
    manifest: list[str] | None = None,
    root: str | None = None,
    seed: int = 0,
    fractions: tuple[float, ...] = (0.8, 0.1, 0.1),
    reading: Reading,
) -> None:
    """Your own images, from a tree of folders or from lists: --tree or --manifest.

    Args:
        tree: folder of <source>/<semantic>/<image>
        manifest: CSV with the columns path,label,dlabel and optionally
            source,semantic,group,split; may be given several times
        root: what a manifest's paths are relative to (default: the manifest's folder)
        seed: of the splits
        fractions: shares of train, val and test
    """
    from rmjax.datasets import image_folder

    if (tree is None) == (manifest is None):
        raise InputError("give --tree or --manifest, one of them")
    folder = image_folder.prepare(
        name,
        tree=tree,
        manifest=manifest,
        root=root,
        seed=seed,
        fractions=fractions,
        **reading.options(),
    )
    reading.finish(folder)


def prepare_attribution88(
    *,
    config: str = "full",
    from_: Annotated[str | None, Word(str, "PATH")] = None,
    download: bool = False,
    name: str | None = None,
    sources: Names = (),
    semantics: Names = (),
    images_per_cell: int | None = None,
    seed: int = 0,
    reading: Reading,
) -> None:
    """The benchmark of RepMix, from its archives.

    Args:
        config: full, test_processed (the corrupted test images) or subset (100 images
            of each source and semantic)
        from_: the archive, or the folder it was extracted to (default: looked for in
            DATA_DIR/downloads/manual)
        download: fetch the archive (30 GB) if there is none
        name: what to call a subset of your own
        sources: a subset: of these, A,B
        semantics: a subset: of these, A,B
        images_per_cell: a subset: so many a source and semantic
        seed: of a subset
    """
    from rmjax.datasets.attribution88 import CONFIGS, IMAGES_PER_CELL, prepare

    if config not in CONFIGS:
        raise InputError(f"--config {config}: choose from {', '.join(CONFIGS)}")
    chosen: Any = config
    if (sources, semantics, images_per_cell, seed, name) != ((), (), None, 0, None):
        if name is None or name in CONFIGS:
            raise InputError("--name: give a subset of your own a name of its own")
        part: dict[str, Any] = {"name": name, "seed": seed}
        part |= {"sources": sources, "semantics": semantics}
        if images_per_cell is not None:
            part["images_per_cell"] = images_per_cell
        chosen = replace(CONFIGS[config], **part)
    folder = prepare(chosen, path=from_, download=download, **reading.options())
    reading.finish(folder, IMAGES_PER_CELL if chosen == "full" else None)


def prepare_bench(*, tree: str, train_semantics: Names = (), reading: Reading) -> None:
    """The images of ImageAttributionBench.

    Args:
        tree: folder of <source>/[<group>/]<semantic>/<image>
        train_semantics: train on these alone, such as cat, bedroom or FFHQ, and test on
            all others (default: split all images in 80, 10 and 10 per cent)
    """
    from rmjax.datasets import image_attribution_bench

    reading.finish(
        image_attribution_bench.prepare(
            tree, train_semantics=train_semantics, **reading.options()
        )
    )


def prepare_lists(
    *,
    name: SetName,
    list_: list[ListFile],
    unknown: list[UnknownFile] | None = None,
    root: str | None = None,
    source_names: Names = (),
    reading: Reading,
) -> None:
    """Lists of path and label, such as OSMA's.

    Args:
        list_: train, val or test and its list; may be given several times
        unknown: a list of sources that are never trained on; becomes the split
            unknown_NAME; may be given several times
        root: what paths start from (default: a folder above the list)
        source_names: A,B by label (default: the folders of the images)
    """
    from rmjax.datasets import annotation_list

    folder = annotation_list.prepare(
        name,
        lists=_once(list_, "--list"),
        unknown=_once(unknown or [], "--unknown"),
        root=root,
        names=source_names,
        **reading.options(),
    )
    reading.finish(folder)


def _once(pairs: Sequence[tuple[str, str]], option: str) -> dict[str, str]:
    given = dict(pairs)
    if len(given) < len(pairs):
        raise InputError(
            f"{option}: each name once; join the lists of a split into one"
        )
    return given


Files = list[Annotated[str, Word(str, "PLACE")]]


@dataclass(frozen=True, kw_only=True)
class SplitOptions:
    """Splits.

    Attributes:
        split_column: the column of train, val or test (default: what the names of the
            files say, as train-00000-of-00002.parquet does, or else made by a hash)
        group: the column of what images have in common that stay in one split (default:
            each its own)
        seed: of splits that are made
        fractions: shares of train, val and test, likewise
    """

    split_column: str = ""
    group: str = ""
    seed: int = 0
    fractions: tuple[float, ...] = (0.8, 0.1, 0.1)


def prepare_parquet(
    *,
    from_: Files,
    name: str | None = None,
    columns: ColumnNames,
    splits: SplitOptions,
    reading: Reading,
) -> None:
    """Images in parquet files, such as those of the Hugging Face Hub.

    Columns are named with dots where they are nested, as meta.model.

    Args:
        from_: files, a folder, a pattern, an address such as s3://bucket/folder, or
            hf:USER/DATASET on the Hub
        name: what to call the data set (default: as the files or their folder)
    """
    _prepare_shards("parquet", from_, name, columns, splits, reading)


def prepare_webdataset(
    *,
    from_: Files,
    name: str | None = None,
    columns: ColumnNames,
    splits: SplitOptions,
    reading: Reading,
) -> None:
    """Images in the tar shards of a WebDataset.

    What is said of an image is a key of its JSON file, with dots where it is nested, or
    one of its members cls and txt.

    Args:
        from_: shards, a pattern such as 'shard-{000000..000127}.tar' (in quotes), a
            folder, or an address such as s3://bucket/folder
        name: what to call the data set (default: as the files or their folder)
    """
    _prepare_shards("webdataset", from_, name, columns, splits, reading)


BENCHMARKS = {
    "genimage": "Folders of GenImage: 8 generators beside ImageNet",
    "forensynths": "Folders of ForenSynths (CNNDetection): ProGAN to train on, 13 test sets",
    "synthbuster": "Folders of Synthbuster: 9 generators beside RAISE-1k",
    "omnifake": "Folders of OmniFake: 45 generators and photographs",
    "community_forensics": "Parquet files of Community Forensics: thousands of generators",
}


def _prepare_benchmark(benchmark: str) -> Callable[..., None]:
    def prepare(
        *,
        from_: Files,
        seed: Annotated[int, "of what is drawn for val"] = 0,
        reading: Reading,
    ) -> None:
        from rmjax.datasets import benchmarks

        place = from_[0] if len(from_) == 1 else from_
        folder = benchmarks.prepare(benchmark, place, seed=seed, **reading.options())
        reading.finish(folder)

    prepare.__doc__ = f"""{BENCHMARKS[benchmark]}.

    What its splits and folders are: datasets/benchmarks/README.md.

    Args:
        from_: its folder or files, of this machine or an address such as s3://bucket/folder
    """
    return prepare


def _prepare_shards(
    format: str,
    places: list[str],
    name: str | None,
    columns: ColumnNames,
    splits: SplitOptions,
    reading: Reading,
) -> None:
    from rmjax.datasets import shards

    folder = shards.prepare(
        format,
        name or name_of(places[0]),
        place=places,
        columns=columns.read(splits.group, splits.split_column),
        seed=splits.seed,
        fractions=splits.fractions,
        **reading.options(),
    )
    reading.finish(folder)


def prepare_transformations(
    *,
    of: Annotated[str, Word(str, "DATASET"), "such as attribution_mini"],
    name: SetName,
    sources: OfThese = (),
    semantics: OfThese = (),
    seed: Annotated[int, "which suffers what"] = 0,
    data_dir: Target = "data",
) -> None:
    """Images of another data set, transformed, to pre-train on."""
    from rmjax.data.dataset import find_dataset, open_dataset
    from rmjax.datasets.image_folder import transformations

    folder = transformations.prepare(
        open_dataset(find_dataset(data_dir, of)),
        name,
        data_dir,
        sources=sources,
        semantics=semantics,
        seed=seed,
    )
    _describe(folder)


PREPARE = Group(
    "make a data set ready for training",
    "DATASET",
    {
        "attribution_mini": prepare_mini,
        "image_folder": prepare_folder,
        "attribution88": prepare_attribution88,
        "image_attribution_bench": prepare_bench,
        "annotation_list": prepare_lists,
        "parquet": prepare_parquet,
        "webdataset": prepare_webdataset,
        **{name: _prepare_benchmark(name) for name in BENCHMARKS},
        "transformations": prepare_transformations,
    },
)
