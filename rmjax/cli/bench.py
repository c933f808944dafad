"""The `rmjax bench` commands: measure speed, print it, write it to JSON."""

import sys
from pathlib import Path
from typing import Annotated

from rmjax.cli.options import (
    Count,
    DataDir,
    Integers,
    JsonFile,
    Names,
    NewFile,
    NewPlace,
    RunDataDir,
    RunFolder,
)
from rmjax.cli.parser import Group
from rmjax.errors import InputError

Arch = Annotated[str, "the network"]
BatchSize = Annotated[int, "images per batch"]
BatchSizes = Annotated[Integers, "images per step"]
Curve = Annotated[Integers, "on the curve"]
Dtype = Annotated[str, "or bfloat16"]
Repeats = Annotated[int, "rounds; medians count"]
Size = Annotated[int, "side in pixels"]


def show(results: dict, text: str, json: str | None) -> None:
    """Print figures, given as text, and write them to a file as well."""
    from rmjax.utils.files import write_json

    print(text)
    if json:
        write_json(Path(json), results)


def time_accelerator(
    part: str,
    *,
    workdir: Annotated[NewPlace, "folder for what the parts make and need"],
    quick: Annotated[bool, "small, to try it on a CPU"] = False,
) -> int:
    """One part of launch/accelerator_check.sh: rows of its table, printed one by one.

    Args:
        part: step, train, corruptions, evaluate or pytorch; machine: the table's head

    Returns:
        status 1: a row could not be measured; its notes say why
    """
    from rmjax.bench.accelerator import HEAD, describe_machine, measure_part

    if part == "machine":
        print(f"{describe_machine(quick)}\n\n{HEAD}")
        return 0
    failed = 0
    for row in measure_part(part, workdir, quick=quick):
        print(row, flush=True)  # kept, whatever comes of the next one
        failed += row.failed
    if failed:
        print(f"{failed} rows could not be measured", file=sys.stderr)
    return min(failed, 1)


def time_corruptions(
    *,
    names: Annotated[Names, "A,B (default: all 19)"] = (),
    size: Size = 224,
    batch_size: BatchSize = 64,
    repeats: Repeats = 3,
    json: JsonFile = None,
) -> None:
    """Milliseconds per image of each corruption; beside the published code's where the
    package imagecorruptions is installed.
    """
    from rmjax.bench.corruptions import bench_corruptions, format_corruptions_bench
    from rmjax.corruptions import NAMES

    results = bench_corruptions(
        names=names or NAMES, size=size, batch_size=batch_size, repeats=repeats
    )
    show(results, format_corruptions_bench(results), json)


def time_data(
    *,
    dataset: str | None = None,
    data_dir: DataDir = "data",
    size: int = 224,
    resize: int = 256,
    workers: Integers = (0, 1, 2),
    seconds: float = 3.0,
    batch_size: BatchSize = 64,
    repeats: Repeats = 3,
    json: JsonFile = None,
) -> None:
    """Images per second from files to batches; beside a PyTorch DataLoader's where torch
    and torchvision are installed.

    Args:
        dataset: a prepared one (default: JPEG and PNG files that are drawn)
        size: side of the random crops
        resize: shorter side; 0: as is
        workers: processes
        seconds: of reading a figure
    """
    from rmjax.bench.data import bench_data, format_data_bench
    from rmjax.data.dataset import find_dataset

    results = bench_data(
        directory=find_dataset(data_dir, dataset) if dataset else None,
        size=size,
        resize=resize or None,
        batch_size=batch_size,
        workers=workers,
        seconds=seconds,
        repeats=repeats,
    )
    show(results, format_data_bench(results), json)


def time_preparation(
    *,
    formats: Annotated[Names, "A,B (default: parquet and webdataset)"] = (),
    images: Annotated[Integers, "numbers of images, one run each"] = (20_000,),
    processes: Annotated[Count | None, "that prepare (default: one a core)"] = None,
    folder: Annotated[str | None, "for the files (default: a temporary one)"] = None,
    json: JsonFile = None,
) -> None:
    """Images per second from parquet files and WebDataset shards to a prepared data set;
    beside pyarrow and tarfile, which read them alone.
    """
    from rmjax.bench.prepare import WRITERS, bench_prepare, format_prepare_bench

    results = bench_prepare(
        formats=formats or tuple(WRITERS),
        images=images,
        processes=processes,
        folder=folder,
    )
    show(results, format_prepare_bench(results), json)


def time_evaluation(
    *,
    workdir: RunFolder,
    data_dir: RunDataDir = None,
    suite: Annotated[str, "the conditions of the grid"] = "full",
    images: Annotated[int, "test images"] = 512,
    repeats: Repeats = 3,
    json: JsonFile = None,
) -> None:
    """Images per second of an evaluation, beside the bare forward pass."""
    from rmjax.bench.evaluate import bench_evaluate, format_evaluate_bench

    results = bench_evaluate(
        workdir, suite=suite, images=images, repeats=repeats, data_dir=data_dir
    )
    show(results, format_evaluate_bench(results), json)


def time_gallery(
    *,
    images: Annotated[int, "enrolled"] = 1_000_000,
    dim: Annotated[int, "of a fingerprint"] = 256,
    rank: Annotated[int, "dimensions they vary in"] = 16,
    queries: Annotated[int, "one by one"] = 100,
    probed: Annotated[Integers, "cells looked into"] = (32, 128, 512),
    repeats: Repeats = 3,
    json: JsonFile = None,
) -> None:
    """Milliseconds a query of a gallery's search; beside the approximate one where
    faiss is installed.
    """
    from rmjax.bench.gallery import bench_gallery, format_gallery_bench

    results = bench_gallery(
        images=images,
        dim=dim,
        rank=rank,
        queries=queries,
        probed=probed,
        repeats=repeats,
    )
    show(results, format_gallery_bench(results), json)


def time_inference(
    *,
    arch: Arch = "resnet50",
    size: Size = 224,
    batch_sizes: Annotated[Integers, "images per call"] = (1, 16, 64),
    dtype: Dtype = "float32",
    repeats: Repeats = 3,
    json: JsonFile = None,
) -> None:
    """Images per second through a network; beside PyTorch's on a CPU or GPU where torch
    and torchvision are installed.
    """
    from rmjax.bench.network import bench_inference, format_inference_bench

    results = bench_inference(
        arch=arch, size=size, batch_sizes=batch_sizes, repeats=repeats, dtype=dtype
    )
    show(results, format_inference_bench(results), json)


def time_server(
    *,
    workdir: RunFolder,
    requests: Count = 10_000,
    clients: Annotated[Count, "that ask at once"] = 32,
    size: Size = 64,
    json: JsonFile = None,
) -> int:
    """Requests per second of rmjax serve, and its memory; every answer is checked.

    Args:
        requests: with an image each

    Returns:
        status 1: an answer is another than the command line's
    """
    from rmjax.bench.serve import bench_serve, format_serve_bench

    results = bench_serve(
        workdir=workdir, requests=requests, clients=clients, size=size
    )
    show(results, format_serve_bench(results), json)
    return min(results["wrong"], 1)


def time_step(
    *,
    arch: Arch = "resnet50",
    size: Size = 224,
    batch_sizes: BatchSizes = (16, 64),
    dtype: Dtype = "float32",
    corrupt: Annotated[float, "share of the images; published: .95"] = 0.0,
    mix: Annotated[str, "or pairs, none, ..."] = "repmix",
    no_inference: Annotated[bool, "training alone"] = False,
    repeats: Repeats = 3,
    json: JsonFile = None,
) -> None:
    """Images per second in training, then in inference; beside PyTorch's of the same
    recipe on a CPU or GPU where torch and torchvision are installed.
    """
    from rmjax.bench.network import bench_step, format_step_bench

    results = bench_step(
        arch=arch,
        size=size,
        batch_sizes=batch_sizes,
        repeats=repeats,
        dtype=dtype,
        corrupt=corrupt,
        mix=mix,
        inference=not no_inference,
    )
    show(results, format_step_bench(results), json)


def time_scaling(
    *,
    arch: Arch = "resnet18",
    size: Size = 64,
    batch: int = 32,
    batches: Curve = (8, 16, 32, 64, 128),
    sizes: Curve = (32, 64, 96, 128),
    classes: Curve = (8, 100, 1000, 10_000),
    processes: Curve = (1, 2, 4),
    plot: NewFile | None = None,
    json: JsonFile = None,
) -> None:
    """Time of a training step against batch, image size, classes, processes.

    Args:
        batch: images per step
        plot: FILE.svg or FILE.png to draw the curves to
    """
    from rmjax.bench.scaling import (
        bench_scaling,
        draw_scaling,
        format_scaling_bench,
        write_plot,
    )

    if plot and Path(plot).suffix not in (".svg", ".png"):
        raise InputError(f"--plot {plot}: give FILE.svg or FILE.png")
    results = bench_scaling(
        arch=arch,
        size=size,
        batch=batch,
        batches=batches,
        sizes=sizes,
        classes=classes,
        processes=processes,
    )
    if plot:
        write_plot(draw_scaling(results), Path(plot))
    show(results, format_scaling_bench(results), json)


BENCH = Group(
    "measure speed",
    "WHAT",
    {
        "accelerator": time_accelerator,
        "corruptions": time_corruptions,
        "data": time_data,
        "prepare": time_preparation,
        "evaluate": time_evaluation,
        "gallery": time_gallery,
        "inference": time_inference,
        "serve": time_server,
        "step": time_step,
        "scaling": time_scaling,
    },
)
