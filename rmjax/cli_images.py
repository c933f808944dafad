"""The commands that take weights and images: convert, embed, attribute."""

import argparse

from rmjax.cli_prepare import Add, names


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
