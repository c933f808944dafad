"""The commands that take weights and images: convert, embed, attribute."""

import argparse
import sys

from rmjax.cli_prepare import Add, names

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
        type=_fraction,
        help="K/N: do the Kth part in N, from 0/N on, into a file of its own",
    )
    parser.add_argument(
        "--data-dir",
        default="data",
        help="folder of all prepared data sets (default: data)",
    )
    parser.set_defaults(run=_embed)


def _embed(args: argparse.Namespace, changes: list[str]) -> int:
    from rmjax.data.listing import list_images
    from rmjax.embed import embed_images
    from rmjax.inference import load_pretrained

    model = load_pretrained(args.workdir)
    images, count = list_images(
        args.images,
        data_dir=args.data_dir,
        splits=args.splits,
        known=model.source_names,
    )
    out, rows, failed = embed_images(
        model,
        images,
        count,
        args.out,
        layer=args.layer,
        batch_size=args.batch_size,
        shard=args.shard,
    )
    for line in failed:
        print(f"rmjax embed: {line}", file=sys.stderr)
    print(f"embedded: {rows - len(failed)} of {rows} images: {out}")
    return SOME_FAILED if failed else 0


def _fraction(text: str) -> tuple[int, int]:
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and int(number) < int(count)):
        raise argparse.ArgumentTypeError(f"'{text}' is not K/N with K from 0 to N - 1")
    return int(number), int(count)
