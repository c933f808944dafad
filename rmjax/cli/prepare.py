"""The `rmjax prepare` command: one subcommand for each kind of data set."""

import argparse
import os
from collections.abc import Callable

from rmjax.cli.options import Add, add_data_dir, names
from rmjax.errors import InputError


def add_prepare(add: Add) -> None:
    """Add the command and its subcommands to a parser's."""
    parser = add("prepare", help="make a data set ready for training")
    sets = parser.add_subparsers(dest="dataset", required=True, metavar="DATASET")
    for add_one in (
        *(_add_mini, _add_folder, _add_attribution88, _add_bench, _add_lists),
        _add_transformations,
    ):
        add_one(sets.add_parser)


def _add_mini(add: Add) -> None:
    parser = add(
        "attribution_mini",
        help="8 simulated sources x 11 semantics, drawn on the spot",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--images-per-cell", type=int, default=200, help="images a cell"
    )
    parser.add_argument("--size", type=int, default=64, help="side in pixels")
    parser.add_argument("--seed", type=int, default=0, help="of the scenes")
    parser.add_argument("--data-dir", default="data", help="where to put it")
    parser.set_defaults(run=_prepare_mini)


def _add_folder(add: Add) -> None:
    parser = add("image_folder", help="your own images")
    parser.add_argument("--name", required=True, help="what to call the data set")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--tree", help="folder of <source>/<semantic>/<image>")
    what.add_argument(
        "--manifest",
        action="append",
        help="CSV with the columns path,label,dlabel and optionally "
        "source,semantic,group,split; may be given several times",
    )
    parser.add_argument("--root", help="what a manifest's paths are relative to")
    parser.add_argument(
        "--seed", type=int, default=0, help="of the splits (default: 0)"
    )
    parser.add_argument(
        "--fractions",
        type=_fractions,
        default=(0.8, 0.1, 0.1),
        help="shares of train, val and test (default: 0.8,0.1,0.1)",
    )
    _add_how(parser, _prepare_folder)


def _add_attribution88(add: Add) -> None:
    parser = add("attribution88", help="the benchmark of RepMix, from its archives")
    parser.add_argument(
        "--config",
        default="full",
        help="full, test_processed (the corrupted test images) or subset (100 images of "
        "each source and semantic); default: full",
    )
    parser.add_argument(
        "--from",
        dest="path",
        help="the archive, or the folder it was extracted to (default: looked for in "
        "DATA_DIR/downloads/manual)",
    )
    parser.add_argument(
        "--download",
        action="store_true",
        help="fetch the archive (30 GB) if there is none",
    )
    parser.add_argument("--name", help="what to call a subset of your own")
    parser.add_argument(
        "--sources", type=names, default=(), help="a subset: of these, A,B"
    )
    parser.add_argument(
        "--semantics", type=names, default=(), help="a subset: of these, A,B"
    )
    parser.add_argument(
        "--images-per-cell", type=int, help="a subset: so many a source and semantic"
    )
    parser.add_argument("--seed", type=int, default=0, help="of a subset (default: 0)")
    _add_how(parser, _prepare_attribution88)


def _add_bench(add: Add) -> None:
    parser = add("image_attribution_bench", help="ImageAttributionBench")
    parser.add_argument(
        "--tree", required=True, help="folder of <source>/[<group>/]<semantic>/<image>"
    )
    parser.add_argument(
        "--train-semantics",
        type=names,
        default=(),
        help="train on these alone, such as cat, bedroom or FFHQ, and test on all "
        "others (default: split all images in 80, 10 and 10 per cent)",
    )
    _add_how(parser, _prepare_bench)


def _add_lists(add: Add) -> None:
    parser = add("annotation_list", help="lists of path and label, such as OSMA's")
    parser.add_argument("--name", required=True, help="what to call the data set")
    parser.add_argument(
        "--list",
        action="append",
        required=True,
        type=_pair,
        metavar="SPLIT=FILE",
        help="train, val or test and its list; may be given several times",
    )
    parser.add_argument(
        "--unknown",
        action="append",
        default=[],
        type=_pair,
        metavar="NAME=FILE",
        help="a list of sources that are never trained on; becomes the split unknown_NAME",
    )
    parser.add_argument(
        "--root", help="what paths start from (default: a folder above the list)"
    )
    parser.add_argument(
        "--source-names",
        type=names,
        default=(),
        help="A,B by label (default: the folders of the images)",
    )
    _add_how(parser, _prepare_lists)


def _add_transformations(add: Add) -> None:
    parser = add(
        "transformations",
        help="images of another data set, transformed, to pre-train on",
    )
    parser.add_argument(
        "--of", required=True, metavar="DATASET", help="such as attribution_mini"
    )
    parser.add_argument("--name", required=True, help="what to call the data set")
    parser.add_argument(
        "--sources", type=names, default=(), help="of these alone, A,B (default: all)"
    )
    parser.add_argument(
        "--semantics", type=names, default=(), help="of these alone, A,B (default: all)"
    )
    parser.add_argument("--seed", type=int, default=0, help="which suffers what")
    add_data_dir(parser, "data")
    parser.set_defaults(run=_prepare_transformations)


def _add_how(parser: argparse.ArgumentParser, run: Callable) -> None:
    """Add what all data sets of image files have in common."""
    add_data_dir(parser, "data")
    parser.add_argument(
        "--processes",
        type=int,
        help="that read images (default: one a core, or 1 for a few images)",
    )
    parser.add_argument(
        "--beam",
        metavar="OPTIONS",
        help='read by Apache Beam instead, with its options, such as "--runner=FlinkRunner '
        '--parallelism=64" (needs: pip install rmjax[beam])',
    )
    parser.add_argument(
        "--verify",
        action="store_true",
        help="then decode every image and look for duplicates; write a data sheet",
    )
    parser.set_defaults(run=run)


def _how(args: argparse.Namespace) -> dict:
    if args.processes is not None and args.processes < 1:
        raise InputError(f"--processes {args.processes}: give 1 or more")
    if args.processes and args.beam:
        raise InputError("--processes and --beam: give one of them")
    how = {"data_dir": args.data_dir, "processes": args.processes}
    if args.beam is not None:
        try:
            from apache_beam.options.pipeline_options import PipelineOptions
        except ImportError:
            raise InputError("--beam needs: pip install rmjax[beam]") from None
        how["beam_options"] = PipelineOptions(args.beam.split())
    return how


def _prepare_mini(args: argparse.Namespace, changes: list[str]) -> None:
    from rmjax.datasets.attribution_mini import attribution_mini_dataset_builder as mini

    folder = mini.prepare(
        args.data_dir,
        images_per_cell=args.images_per_cell,
        seed=args.seed,
        size=args.size,
    )
    _describe(folder)


def _prepare_folder(args: argparse.Namespace, changes: list[str]) -> None:
    from rmjax.datasets import image_folder

    folder = image_folder.prepare(
        args.name,
        tree=args.tree,
        manifest=args.manifest,
        root=args.root,
        seed=args.seed,
        fractions=args.fractions,
        **_how(args),
    )
    _finish(folder, args)


def _prepare_attribution88(args: argparse.Namespace, changes: list[str]) -> None:
    from dataclasses import replace

    from rmjax.datasets.attribution88 import CONFIGS, IMAGES_PER_CELL, prepare

    if args.config not in CONFIGS:
        raise InputError(f"--config {args.config}: choose from {', '.join(CONFIGS)}")
    config = args.config
    chosen = (args.sources, args.semantics, args.images_per_cell, args.seed, args.name)
    if chosen != ((), (), None, 0, None):
        if args.name is None or args.name in CONFIGS:
            raise InputError("--name: give a subset of your own a name of its own")
        config = replace(
            CONFIGS[config],
            name=args.name,
            sources=args.sources,
            semantics=args.semantics,
            images_per_cell=CONFIGS[config].images_per_cell
            if args.images_per_cell is None
            else args.images_per_cell,
            seed=args.seed,
        )
    folder = prepare(config, path=args.path, download=args.download, **_how(args))
    _finish(folder, args, IMAGES_PER_CELL if config == "full" else None)


def _prepare_bench(args: argparse.Namespace, changes: list[str]) -> None:
    from rmjax.datasets import image_attribution_bench

    folder = image_attribution_bench.prepare(
        args.tree, train_semantics=args.train_semantics, **_how(args)
    )
    _finish(folder, args)


def _prepare_lists(args: argparse.Namespace, changes: list[str]) -> None:
    from rmjax.datasets import annotation_list

    folder = annotation_list.prepare(
        args.name,
        lists=_once(args.list, "--list"),
        unknown=_once(args.unknown, "--unknown"),
        root=args.root,
        names=args.source_names,
        **_how(args),
    )
    _finish(folder, args)


def _prepare_transformations(args: argparse.Namespace, changes: list[str]) -> None:
    from rmjax.data.dataset import find_dataset, open_dataset
    from rmjax.datasets.image_folder import transformations

    folder = transformations.prepare(
        open_dataset(find_dataset(args.data_dir, args.of)),
        args.name,
        args.data_dir,
        sources=args.sources,
        semantics=args.semantics,
        seed=args.seed,
    )
    _describe(folder)


def _finish(
    folder: os.PathLike, args: argparse.Namespace, per_cell: int | None = None
) -> None:
    """Describe a finished data set, and verify it if that is wanted."""
    _describe(folder)
    if args.verify:
        from rmjax.prepare.verify import verify

        for kind, path in verify(folder, per_cell, args.processes).items():
            print(f"{kind + ':':<10} {path}")


def _describe(folder: os.PathLike) -> None:
    from rmjax.data.dataset import open_dataset

    dataset = open_dataset(folder)
    print(f"data set:  {folder}")
    print(f"sources:   {', '.join(dataset.source_names)}")
    if dataset.unknown_sources:
        print(f"unknown:   {', '.join(dataset.unknown_sources)}")
    print(f"semantics: {', '.join(dataset.semantic_names)}")
    sizes = (f"{name} {size}" for name, size in dataset.split_sizes.items())
    print(f"images:    {', '.join(sizes)}")


def _fractions(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(","))


def _once(pairs: list[tuple[str, str]], option: str) -> dict[str, str]:
    given = dict(pairs)
    if len(given) < len(pairs):
        raise InputError(
            f"{option}: each name once; join the lists of a split into one"
        )
    return given


def _pair(text: str) -> tuple[str, str]:
    name, equals, file = text.partition("=")
    if not (name and equals and file):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=FILE")
    return name, file
