"""The `rmjax bench` command: measures speed, prints it, writes it to JSON."""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

from rmjax.cli.options import Add, names
from rmjax.errors import InputError


def add_bench(add: Add) -> None:
    """Add the command and its subcommands."""
    parser = add("bench", help="measure speed")
    what = parser.add_subparsers(dest="what", required=True, metavar="WHAT")
    defaults = argparse.ArgumentDefaultsHelpFormatter
    bench = what.add_parser(
        "corruptions",
        help="milliseconds an image of each corruption; beside the published code's "
        "where the package imagecorruptions is installed",
        formatter_class=defaults,
    )
    bench.add_argument("--names", type=names, default=(), help="A,B; () is all 19")
    bench.add_argument("--size", type=int, default=224, help="side in pixels")
    _add_batches(bench)
    _add_rounds(bench)
    bench.set_defaults(run=_bench, measure=_measure_corruptions)

    data = what.add_parser(
        "data",
        help="images a second from files to batches; beside a PyTorch DataLoader's "
        "where torch and torchvision are installed",
        formatter_class=defaults,
    )
    data.add_argument("--dataset", help="a prepared one; None draws JPEG and PNG files")
    data.add_argument("--data-dir", default="data", help="where it is")
    data.add_argument("--size", type=int, default=224, help="side of the random crops")
    data.add_argument("--resize", type=int, default=256, help="shorter side; 0: as is")
    data.add_argument("--workers", type=_integers, default=(0, 1, 2), help="processes")
    data.add_argument("--seconds", type=float, default=3.0, help="of reading a figure")
    _add_batches(data)
    _add_rounds(data)
    data.set_defaults(run=_bench, measure=_measure_data)

    test = what.add_parser(
        "evaluate",
        help="images a second of an evaluation, beside the bare forward pass",
        formatter_class=defaults,
    )
    test.add_argument("--workdir", required=True, help="folder of the run")
    test.add_argument("--data-dir", help="where its data is; None: as in the config")
    test.add_argument("--suite", default="full", help="the conditions of the grid")
    test.add_argument("--images", type=int, default=512, help="test images")
    _add_rounds(test)
    test.set_defaults(run=_bench, measure=_measure_evaluate)

    gallery = what.add_parser(
        "gallery",
        help="milliseconds a query of a gallery's search; beside the approximate one "
        "where faiss is installed",
        formatter_class=defaults,
    )
    gallery.add_argument("--images", type=int, default=1_000_000, help="enrolled")
    gallery.add_argument("--dim", type=int, default=256, help="of a fingerprint")
    gallery.add_argument("--rank", type=int, default=16, help="dimensions they vary in")
    gallery.add_argument("--queries", type=int, default=100, help="one by one")
    gallery.add_argument(
        "--probed", type=_integers, default=(32, 128, 512), help="lists looked into"
    )
    _add_rounds(gallery)
    gallery.set_defaults(run=_bench, measure=_measure_gallery)

    network = what.add_parser(
        "inference",
        help="images a second through a network; beside PyTorch's on a CPU or GPU where "
        "torch and torchvision are installed",
        formatter_class=defaults,
    )
    network.add_argument("--arch", default="resnet50", help="the network")
    network.add_argument("--size", type=int, default=224, help="side in pixels")
    network.add_argument(
        "--batch-sizes", type=_integers, default=(1, 16, 64), help="images a call"
    )
    network.add_argument("--dtype", default="float32", help="or bfloat16")
    _add_rounds(network)
    network.set_defaults(run=_bench, measure=_measure_inference)

    step = what.add_parser(
        "step",
        help="images a second in training, then in inference; beside PyTorch's of the "
        "same recipe on a CPU or GPU where torch and torchvision are installed",
        formatter_class=defaults,
    )
    step.add_argument("--arch", default="resnet50", help="the network")
    step.add_argument("--size", type=int, default=224, help="side in pixels")
    step.add_argument(
        "--batch-sizes", type=_integers, default=(16, 64), help="images a step"
    )
    step.add_argument("--dtype", default="float32", help="or bfloat16")
    step.add_argument(
        "--corrupt", type=float, default=0.0, help="share of the images; published: .95"
    )
    step.add_argument("--mix", default="repmix", help="or pairs, none, ...")
    step.add_argument("--no-inference", action="store_true", help="training alone")
    _add_rounds(step)
    step.set_defaults(run=_bench, measure=_measure_step)

    _add_scaling(what, defaults)


def _add_scaling(what: argparse._SubParsersAction, defaults: type) -> None:
    curves = what.add_parser(
        "scaling",
        help="time of a training step against batch, image size, classes, processes",
        formatter_class=defaults,
    )
    curves.add_argument("--arch", default="resnet18", help="the network")
    curves.add_argument("--size", type=int, default=64, help="side in pixels")
    curves.add_argument("--batch", type=int, default=32, help="images a step")
    for name, values in (
        ("batches", (8, 16, 32, 64, 128)),
        ("sizes", (32, 64, 96, 128)),
        ("classes", (8, 100, 1000, 10_000)),
        ("processes", (1, 2, 4)),
    ):
        curves.add_argument(
            f"--{name}", type=_integers, default=values, help="on the curve"
        )
    curves.add_argument("--plot", help="FILE.svg or FILE.png to draw the curves to")
    add_json(curves)
    curves.set_defaults(run=_bench, measure=_measure_scaling)


def _add_batches(bench: argparse.ArgumentParser) -> None:
    bench.add_argument("--batch-size", type=int, default=64, help="images a batch")


def _add_rounds(bench: argparse.ArgumentParser) -> None:
    bench.add_argument("--repeats", type=int, default=3, help="rounds; medians count")
    add_json(bench)


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add the option that `show` takes."""
    parser.add_argument("--json", help="a file to write the figures to as well")


def show(json: str | None, measure: Callable[[], tuple[dict, str]]) -> None:
    """Print what is measured, given as figures and as text; write it to a file as well.

    Raises:
        InputError: that file has no folder; then nothing is measured.
    """
    from rmjax.utils.files import write_json

    if json and not Path(json).parent.is_dir():
        raise InputError(f"--json {json}: no such folder")
    results, text = measure()
    print(text)
    if json:
        write_json(Path(json), results)


def _bench(args: argparse.Namespace, changes: list[str]) -> None:
    show(args.json, partial(args.measure, args))


def _measure_corruptions(args: argparse.Namespace) -> tuple[dict, str]:
    from rmjax.bench.corruptions import bench_corruptions, format_corruptions_bench
    from rmjax.corruptions import NAMES

    results = bench_corruptions(
        names=args.names or NAMES,
        size=args.size,
        batch_size=args.batch_size,
        repeats=args.repeats,
    )
    return results, format_corruptions_bench(results)


def _measure_data(args: argparse.Namespace) -> tuple[dict, str]:
    from rmjax.bench.data import bench_data, format_data_bench
    from rmjax.data.dataset import find_dataset

    results = bench_data(
        directory=find_dataset(args.data_dir, args.dataset) if args.dataset else None,
        size=args.size,
        resize=args.resize or None,
        batch_size=args.batch_size,
        workers=args.workers,
        seconds=args.seconds,
        repeats=args.repeats,
    )
    return results, format_data_bench(results)


def _measure_evaluate(args: argparse.Namespace) -> tuple[dict, str]:
    from rmjax.bench.evaluate import bench_evaluate, format_evaluate_bench

    results = bench_evaluate(
        args.workdir,
        suite=args.suite,
        images=args.images,
        repeats=args.repeats,
        data_dir=args.data_dir,
    )
    return results, format_evaluate_bench(results)


def _measure_gallery(args: argparse.Namespace) -> tuple[dict, str]:
    from rmjax.bench.gallery import bench_gallery, format_gallery_bench

    results = bench_gallery(
        images=args.images,
        dim=args.dim,
        rank=args.rank,
        queries=args.queries,
        probed=args.probed,
        repeats=args.repeats,
    )
    return results, format_gallery_bench(results)


def _measure_inference(args: argparse.Namespace) -> tuple[dict, str]:
    from rmjax.bench.network import bench_inference, format_inference_bench

    results = bench_inference(
        arch=args.arch,
        size=args.size,
        batch_sizes=args.batch_sizes,
        repeats=args.repeats,
        dtype=args.dtype,
    )
    return results, format_inference_bench(results)


def _measure_step(args: argparse.Namespace) -> tuple[dict, str]:
    from rmjax.bench.network import bench_step, format_step_bench

    results = bench_step(
        arch=args.arch,
        size=args.size,
        batch_sizes=args.batch_sizes,
        repeats=args.repeats,
        dtype=args.dtype,
        corrupt=args.corrupt,
        mix=args.mix,
        inference=not args.no_inference,
    )
    return results, format_step_bench(results)


def _measure_scaling(args: argparse.Namespace) -> tuple[dict, str]:
    from rmjax.bench.scaling import (
        bench_scaling,
        draw_scaling,
        format_scaling_bench,
        write_plot,
    )

    plot = Path(args.plot) if args.plot else None
    if plot and (plot.suffix not in (".svg", ".png") or not plot.parent.is_dir()):
        raise InputError(
            f"--plot {plot}: give FILE.svg or FILE.png in a folder that is"
        )
    results = bench_scaling(
        arch=args.arch,
        size=args.size,
        batch=args.batch,
        batches=args.batches,
        sizes=args.sizes,
        classes=args.classes,
        processes=args.processes,
    )
    if plot:
        write_plot(draw_scaling(results), plot)
    return results, format_scaling_bench(results)


def _integers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))
