"""The commands that take weights and images: convert, embed, attribute."""

import argparse
import json
import sys

from rmjax.cli.distributed import add_distributed, join
from rmjax.cli.options import Add, add_data_dir, at_least_one, fraction, names
from rmjax.errors import InputError, harmless

# Exit status where some images could not be read and the others were answered.
SOME_FAILED = 1


def add_convert(add: Add) -> None:
    """Add `rmjax convert`."""
    parser = add(
        "convert",
        help="turn weights of PyTorch projects into a run",
        description="Reads ResNet-18 or -50 of torchvision or timm, the published "
        "RepMix, or RepMix of ImageAttributionBench, without executing anything in the "
        "file, and writes a folder that embed, attribute, evaluate and "
        "--config.model.init take.",
        epilog="Any key of the new run's config can be set with --config.KEY=VALUE, "
        "such as --config.data.name=attribution88/full.",
    )
    parser.add_argument(
        "source", metavar="SOURCE", help="a .pth, .ckpt or .safetensors file"
    )
    parser.add_argument("--out", required=True, help="folder of the run to make")
    parser.add_argument(
        "--layout",
        default="auto",
        help="imagenet, repmix or image_attribution_bench (default: auto, by content)",
    )
    parser.add_argument(
        "--sources",
        type=names,
        default=(),
        help="names of the classes in the file's order, real,A,B (default: "
        "ImageAttributionBench's, or real,source1,source2)",
    )
    parser.set_defaults(run=_convert)


def _convert(args: argparse.Namespace, changes: list[str]) -> None:
    from rmjax.pretrained.convert import convert

    weights = convert(
        args.source,
        args.out,
        layout=args.layout,
        sources=args.sources,
        changes=changes,
    )
    found = weights.provenance
    print(f"layout:   {found['layout']} ({weights.config.model.arch})")
    print(f"sources:  {', '.join(weights.source_names) or 'none, a bare backbone'}")
    print(f"left out: {', '.join(found['left_out']) or 'nothing'}")
    for note in found["notes"]:
        print(f"note:     {note}")
    print(f"\nconverted: {args.out}")


def add_embed(add: Add) -> None:
    """Add `rmjax embed`."""
    parser = add(
        "embed",
        help="fingerprints of many images, as a table",
        description="Writes one row an image: path, source where known, fingerprint, "
        "probabilities of detection and attribution, and what is wrong with it where it "
        "can't be read. Run again after a stop, it goes on.",
    )
    parser.add_argument(
        "--workdir", required=True, help="folder of a run, or a file of weights"
    )
    parser.add_argument(
        "--images",
        required=True,
        help="a folder, a CSV with the column path (and source), or the name of a "
        "prepared data set",
    )
    parser.add_argument("--out", required=True, help="a .parquet or .npz file")
    parser.add_argument(
        "--layer",
        help="another activation: stem, layer1 to layer4, pool or embedding; maps are "
        "averaged over places (default: embedding, the fingerprint)",
    )
    parser.add_argument(
        "--batch-size", type=int, default=64, help="images at once (default: 64)"
    )
    parser.add_argument(
        "--splits", type=names, default=(), help="of a data set, A,B (default: all)"
    )
    parser.add_argument(
        "--shard",
        type=fraction,
        help="K/N: do the Kth part in N, from 0/N on, into a file of its own",
    )
    add_data_dir(parser, "data")
    add_distributed(parser)
    parser.set_defaults(run=_embed)


def _embed(args: argparse.Namespace, changes: list[str]) -> int:
    join(args)
    from rmjax.data.listing import list_images
    from rmjax.experiment import hosts
    from rmjax.inference.attributor import load_pretrained
    from rmjax.inference.embed import embed_images

    if args.distributed and args.shard:
        raise InputError("--shard is for a command alone, not with --distributed")
    model = load_pretrained(args.workdir)
    hosts.check_alike({"network": model.digest, "layer": args.layer})
    images, count = list_images(
        args.images,
        data_dir=args.data_dir,
        splits=args.splits,
        known=model.source_names,
    )
    hosts.check_alike({"number of images": count})
    out, *mine = embed_images(
        model,
        images,
        count,
        args.out,
        layer=args.layer,
        batch_size=args.batch_size,
        shard=args.shard,
        show_progress=hosts.is_first(),
    )
    rows, failed = zip(*hosts.gather(mine), strict=True)
    failed = sum(failed, [])
    if hosts.is_first():
        for line in failed:
            print(f"rmjax embed: {harmless(line)}", file=sys.stderr)
        files = "" if len(rows) == 1 else f", the first of {len(rows)} files"
        print(
            f"embedded: {sum(rows) - len(failed)} of {sum(rows)} images: {out}{files}"
        )
    return SOME_FAILED if failed else 0


def add_attribute(add: Add) -> None:
    """Add `rmjax attribute`."""
    parser = add(
        "attribute",
        help="which source made an image, and how far that can be trusted",
        description="Reports what the file says of its origin, then what the network "
        "says of its pixels: real or synthetic, the probable sources, how stable that "
        "is when the image is shared once more, and where it lies outside of what the "
        "network was trained on. No answer is a verdict: docs/meaning.md.",
        epilog="Exit status: 0 all images were answered, 1 some could not be read, 2 "
        "wrong arguments.",
    )
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="image files")
    parser.add_argument(
        "--workdir", required=True, help="folder of a run, or a file of weights"
    )
    parser.add_argument(
        "--json", action="store_true", help="one JSON document on the output"
    )
    parser.add_argument(
        "--top",
        type=at_least_one,
        default=5,
        help="sources that are listed (default: 5)",
    )
    parser.set_defaults(run=_attribute)


def _attribute(args: argparse.Namespace, changes: list[str]) -> int:
    from rmjax.inference.attribute import attribute, describe_model
    from rmjax.inference.attributor import load_pretrained
    from rmjax.provenance import CAVEAT

    model = load_pretrained(args.workdir)
    described, found = describe_model(model), []
    for said in attribute(model, args.images):
        if "error" in said:
            print(f"rmjax attribute: {harmless(said['error'])}", file=sys.stderr)
        elif not args.json:
            print(_in_words(said, args.top, described["calibrated"]) + "\n")
        found.append(said)
    if args.json:
        print(json.dumps({"model": described, "images": found}, indent=2))
    else:
        print(CAVEAT)
        print(
            f"Network: {described['name']}, checkpoint {described['checkpoint']}, "
            f"{described['sha256'][:12]}, rmjax {described['rmjax']}"
        )
    return SOME_FAILED if any("error" in said for said in found) else 0


def _in_words(said: dict, top: int, calibrated: bool) -> str:
    """Lay out the answer about one image as lines of text."""
    kind = "calibrated" if calibrated else "not calibrated: run `rmjax evaluate`"
    sources = ", ".join(
        f"{name} {chance:.3f}" for name, chance in said["sources"][:top]
    )
    agree = sum(view["answer"] == said["answer"] for view in said["views"])
    shown = ", ".join(f"{view['view']} {view['answer']}" for view in said["views"])
    rows = [
        *(("file", line) for line in said["file"]),
        ("answer", f"{said['answer']} ({said['reason']})"),
        ("synthetic", f"{said['synthetic']:.3f} ({kind})"),
        ("sources", sources),
        ("stability", f"{agree} of {len(said['views'])} views agree: {shown}"),
        *(("warning", line) for line in said["warnings"]),
    ]
    lines = [f"  {name:<10} {text}" for name, text in rows]
    return "\n".join([harmless(said["image"]), *lines])
