"""The `rmjax gallery` command: new generators from a few images, without training."""

import argparse
import json
import sys
from pathlib import Path

from rmjax.cli.options import Add, add_data_dir, at_least_one
from rmjax.errors import InputError, harmless


def add_gallery(add: Add) -> None:
    """Add the command and its subcommands to a parser's."""
    parser = add(
        "gallery", help="recognise new generators from a few images, without training"
    )
    what = parser.add_subparsers(dest="what", required=True, metavar="WHAT")
    for add_one in (_add_add, _add_remove, _add_list, _add_query, _add_evaluate):
        add_one(what.add_parser)


def _add_gallery_dir(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--gallery", required=True, help="folder of the gallery")


def _add_workdir(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workdir", required=True, help="folder of the run")


def _add_add(add: Add) -> None:
    parser = add("add", help="enrol example images of a generator; makes the gallery")
    _add_workdir(parser)
    _add_gallery_dir(parser)
    parser.add_argument("name", metavar="NAME", nargs="?", help="of the generator")
    parser.add_argument("images", metavar="IMAGE", nargs="*", help="examples of it")
    parser.add_argument(
        "--trained",
        action="store_true",
        help="instead: enrol the sources that the run was trained on, from its data",
    )
    parser.add_argument(
        "--k",
        type=at_least_one,
        default=10,
        help="images of each of these (default: 10)",
    )
    parser.add_argument(
        "--split", default="val", help="where these are taken from (default: val)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of their choice (default: 0)"
    )
    parser.add_argument(
        "--space",
        help="of a new gallery: whitened, fitted to the run's validation images, or "
        "cosine, of the fingerprints as they are (default: whitened)",
    )
    add_data_dir(parser, None)
    parser.set_defaults(run=_add)


def _add_remove(add: Add) -> None:
    parser = add("remove", help="take generators out of a gallery")
    _add_gallery_dir(parser)
    parser.add_argument("names", metavar="NAME", nargs="+", help="of a generator")
    parser.set_defaults(run=_remove)


def _add_list(add: Add) -> None:
    parser = add("list", help="what is enrolled, and what its thresholds rest on")
    _add_gallery_dir(parser)
    _add_reject(parser)
    parser.add_argument("--json", action="store_true", help="print JSON, with images")
    parser.set_defaults(run=_list)


def _add_query(add: Add) -> None:
    parser = add("query", help="which enrolled generator images are most like")
    _add_workdir(parser)
    _add_gallery_dir(parser)
    parser.add_argument("images", metavar="IMAGE", nargs="+", help="to ask about")
    parser.add_argument("--json", action="store_true", help="print a JSON line each")
    parser.add_argument(
        "--top", type=at_least_one, default=3, help="generators to list (default: 3)"
    )
    parser.add_argument(
        "--by",
        choices=("neighbours", "prototypes"),
        default="neighbours",
        help="compare with a generator's most similar image, or with the mean of its "
        "images (default: neighbours)",
    )
    _add_reject(parser)
    parser.add_argument(
        "--approximate",
        action="store_true",
        help="find neighbours by an index, for very large galleries; needs "
        "pip install rmjax[ann]",
    )
    parser.set_defaults(run=_query)


def _add_reject(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--reject",
        type=float,
        default=0.05,
        metavar="SHARE",
        help="say unknown where at most this share of the enrolled images, each left "
        "out in turn, would be (default: 0.05)",
    )


def _add_evaluate(add: Add) -> None:
    parser = add(
        "evaluate",
        help="how well sources that the run held out are told from a few images",
    )
    _add_workdir(parser)
    parser.add_argument(
        "--k", type=_counts, default=(1, 5, 10), help="images (default: 1,5,10)"
    )
    parser.add_argument(
        "--draws", type=at_least_one, default=20, help="choices of them (default: 20)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of these (default: 0)")
    parser.add_argument(
        "--out", help="JSON file (default: gallery_evaluation.json in the run's folder)"
    )
    add_data_dir(parser, None)
    parser.set_defaults(run=_evaluate)


def _add(args: argparse.Namespace, changes: list[str]) -> None:
    from rmjax.gallery import ask
    from rmjax.gallery.store import (
        DEFAULT_SPACE,
        FILE,
        load_gallery,
        locked,
        save_gallery,
    )
    from rmjax.inference.attributor import load

    if args.trained == bool(args.name):
        raise InputError("give NAME and IMAGEs, or --trained")
    folder = Path(args.gallery)
    model = load(args.workdir)
    with locked(folder):
        if (folder / FILE).exists():
            gallery = load_gallery(folder)
            ask.check_network(gallery, model)
            if args.space not in (None, gallery.space.name):
                raise InputError(
                    f"--space {args.space}: this gallery's is {gallery.space.name}; "
                    "make another one"
                )
        else:
            space = args.space or DEFAULT_SPACE
            gallery = ask.new_gallery(model, space, args.data_dir)
        if args.trained:
            how = {"split": args.split, "seed": args.seed, "data_dir": args.data_dir}
            gallery = ask.enrol_trained(gallery, model, args.k, **how)
        else:
            gallery = ask.enrol_files(gallery, model, args.name, args.images)
        save_gallery(folder, gallery)
    images = len(gallery.directions)
    print(f"gallery: {folder}, {len(gallery.generators)} generators, {images} images")


def _remove(args: argparse.Namespace, changes: list[str]) -> None:
    from rmjax.gallery.store import load_gallery, locked, remove, save_gallery

    folder = Path(args.gallery)
    load_gallery(folder)  # first: a lock would make the folder
    with locked(folder):
        gallery = remove(load_gallery(folder), args.names)
        save_gallery(folder, gallery)
    print(f"gallery: {folder}, {len(gallery.generators)} generators")


def _list(args: argparse.Namespace, changes: list[str]) -> None:
    from rmjax.gallery.ask import choose_for
    from rmjax.gallery.search import BY
    from rmjax.gallery.store import load_gallery

    gallery = load_gallery(Path(args.gallery))
    generators = [vars(generator) for generator in gallery.generators]
    thresholds = {
        by: vars(choose_for(gallery, by, args.reject)[1]) for by in BY if generators
    }
    if args.json:
        found = {"network": gallery.network, "space": gallery.space.name}
        found |= {"generators": generators, "thresholds": thresholds}
        print(json.dumps(found, indent=2))
        return
    print(f"space: {gallery.space.name}")
    for generator in generators:
        kind = "trained" if generator["trained"] else "new"
        print(f"{generator['name']:<24}{len(generator['images']):>6} images  {kind}")
    for by, threshold in thresholds.items():
        print(_describe_threshold(by, threshold))


def _describe_threshold(by: str, threshold: dict) -> str:
    if threshold["value"] is None:
        return f"{by}: no threshold, as no generator has two images: nothing is unknown"
    text = (
        f"{by}: unknown below {threshold['value']:.3f}, chosen by {threshold['images']} "
        f"images left out in turn ({threshold['rejected']:.1%} of them rejected)"
    )
    if threshold["accepted"] is None:
        return text
    return text + (
        f"; of {threshold['strangers']} images of new generators, each without its own, "
        f"{threshold['accepted']:.1%} are accepted as another's"
    )


def _query(args: argparse.Namespace, changes: list[str]) -> int:
    from rmjax.gallery import ask

    asker = ask.load_asker(
        args.gallery,
        args.workdir,
        by=args.by,
        reject=args.reject,
        by_index=args.approximate,
    )
    if asker.gallery.new.all():
        print(
            "note: the trained sources are not enrolled, so no image can be found to be "
            "theirs; enrol them with `rmjax gallery add --trained`",
            file=sys.stderr,
        )
    print(_describe_threshold(args.by, vars(asker.threshold)), file=sys.stderr)
    failed = 0
    for first in range(0, len(args.images), ask.AT_ONCE):
        read = ask.read_images(asker.model, args.images[first : first + ask.AT_ONCE])
        for line in read.errors:
            print(f"rmjax gallery: error: {harmless(line)}", file=sys.stderr)
        failed += len(read.errors)
        found = asker.ask(read.pixels, args.top) if read.names else []
        for name, entry in zip(read.names, found, strict=True):
            entry = {"image": name, **entry, "threshold": asker.threshold.value}
            print(json.dumps(entry) if args.json else _describe(entry))
    if failed == len(args.images):
        raise InputError("none of the images could be read")
    return 1 if failed else 0


def _describe(entry: dict) -> str:
    network = entry["network"]
    lines = [f"{harmless(entry['image'])}: {entry['answer']}"]
    lines += [
        f"  {row['similarity']:7.3f}  {row['generator']}"
        + " (trained)" * row["trained"]
        for row in entry["ranked"]
    ]
    lines.append(
        f"  the network itself, among its sources: {network['source']}, "
        f"{network['probability']:.3f}" + ", uncalibrated" * (not network["calibrated"])
    )
    return "\n".join(lines)


def _evaluate(args: argparse.Namespace, changes: list[str]) -> None:
    from rmjax.gallery.evaluate import evaluate_gallery, format_gallery_evaluation
    from rmjax.utils.files import write_json

    out = Path(args.out or Path(args.workdir) / "gallery_evaluation.json")
    if not out.parent.is_dir():
        raise InputError(f"{out.parent}: no such folder")
    results = evaluate_gallery(
        args.workdir,
        ks=args.k,
        draws=args.draws,
        seed=args.seed,
        data_dir=args.data_dir,
    )
    write_json(out, results)
    print(format_gallery_evaluation(results))
    print(f"\nresults: {out}")


def _counts(text: str) -> tuple[int, ...]:
    return tuple(map(at_least_one, text.split(",")))
