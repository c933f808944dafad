"""Benchmark of a training step's time against what a training may have more of."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator
from tqdm import tqdm

from rmjax.bench.common import seconds_of
from rmjax.bench.network import make_batch, recipe, step_calls
from rmjax.errors import InputError
from rmjax.experiment import hosts, parallel
from rmjax.report.figures import BLUE, WIDTH, render, styled
from rmjax.utils.checks import check_at_least
from rmjax.utils.table import format_table

STEPS = 7  # timed; the median counts
AXES = {
    "batch": "images per step",
    "size": "side of the images, px",
    "classes": "classes",
    "processes": "processes on the same cores",
}


def bench_scaling(
    *,
    arch: str = "resnet18",
    size: int = 64,
    batch: int = 32,
    batches: Sequence[int] = (8, 16, 32, 64, 128),
    sizes: Sequence[int] = (32, 64, 96, 128),
    classes: Sequence[int] = (8, 100, 1000, 10_000),
    processes: Sequence[int] = (1, 2, 4),
) -> dict:
    """Time training steps of the published recipe, changing one thing at a time.

    Images are in memory and are not corrupted. Every figure comes from processes of its
    own. Several of them share a batch, and this machine's cores: what that adds to one
    process's time is what they cost each other, not what their own cores would save.

    Args:
        arch: key of `rmjax.models.resnet.ARCHITECTURES`.
        size: side of the images in pixels, where that is not changed.
        batch: images per step over all processes, where that is not changed.
        batches: images per step.
        sizes: sides of the images.
        classes: numbers of sources, 8 where that is not changed.
        processes: numbers of processes with one device each.

    Returns:
        `arch`, `cores`, `usual` (what is not changed, by key of `AXES`), and `curves`:
        by key of `AXES` the milliseconds per step, by value.

    Raises:
        InputError: numbers that make no batch or no classes, or what the network
            refuses.
    """
    changed = {
        "batch": batches,
        "size": sizes,
        "classes": classes,
        "processes": processes,
    }
    check_at_least(2, classes=classes)
    check_at_least(1, size=size, sizes=sizes, processes=processes)
    check_at_least(1, batch=batch, batches=batches)
    for images, count in [(b, 1) for b in batches] + [(batch, p) for p in processes]:
        if images % (2 * count):
            raise InputError(
                f"{images} images per step are no multiple of {2 * count} = {count} "
                "processes x 2 images that are mixed"
            )
    usual = {"batch": batch, "size": size, "classes": 8, "processes": 1}
    curves: dict[str, dict[str, float]] = {axis: {} for axis in AXES}
    measure = cache(_measure)  # what is usual lies on every curve
    todo = [(axis, value) for axis in AXES for value in changed[axis]]
    for axis, value in tqdm(todo, "scaling"):
        curves[axis][str(value)] = measure(arch, **usual | {axis: value})
    return {"arch": arch, "cores": os.cpu_count(), "usual": usual, "curves": curves}


def _measure(arch: str, batch: int, size: int, classes: int, processes: int) -> float:
    """Return milliseconds per step, as process 0 of new ones measures it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        where = f"127.0.0.1:{server.getsockname()[1]}"
    command = [sys.executable, "-m", __spec__.name, where, str(processes)]
    case = json.dumps({"arch": arch, "batch": batch, "size": size, "classes": classes})
    started = [
        subprocess.Popen(
            [*command, str(process), case],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for process in range(processes)
    ]
    try:
        ended = [process.communicate() for process in started]
    finally:
        for process in started:
            process.kill()
    if started[0].returncode:
        reason = ended[0][1].strip().splitlines() or ["no reason given"]
        raise InputError(f"{case}, {processes} processes: {reason[-1]}")
    return float(ended[0][0].split()[-1])


def _run(where: str, processes: int, process: int, case: dict) -> float:
    """Be one of the processes; return milliseconds per step."""
    if processes > 1:
        hosts.connect(where, processes, process)
    devices = parallel.everywhere(parallel.choose_devices(1))
    config = recipe(arch=case["arch"], size=case["size"], dtype="float32")
    make = step_calls(config, case["classes"], devices)
    call = make(*make_batch(case["batch"] // processes, case["size"], case["classes"]))
    # Every process takes the same steps. The first ones compile and touch memory.
    seconds = [seconds_of(call) for _ in range(2 + STEPS)]
    return 1e3 * float(np.median(seconds[2:]))


def format_scaling_bench(results: dict) -> str:
    """Return `bench_scaling`'s results as lines of text."""
    usual = results["usual"]
    lines = [
        f"ms per training step of {results['arch']} on {results['cores']} cores: "
        f"{usual['batch']} images of {usual['size']} px, 8 classes, 1 process, but for"
    ]
    for axis, label in AXES.items():
        curve = results["curves"][axis]
        columns = {f"{int(value):>7,}": (value, ".0f") for value in curve}
        lines += format_table(f"{label:<27}", columns, {"": curve})
    return "\n".join(lines)


@styled
def draw_scaling(results: dict) -> Figure:
    """Draw `bench_scaling`'s results, a curve each."""
    figure = Figure(figsize=(WIDTH, 0.75 * WIDTH), layout="constrained")
    panels = figure.subplots(2, 2).flat
    number = FuncFormatter(lambda value, _: f"{value:,.0f}")
    for panel, (axis, label) in zip(panels, AXES.items(), strict=True):
        curve = results["curves"][axis]
        values = [int(value) for value in curve]
        panel.plot(values, list(curve.values()), "o-", color=BLUE, clip_on=False)
        panel.set_xscale("log")
        panel.set_xticks(values, [f"{value:,}" for value in values])
        panel.xaxis.set_minor_locator(NullLocator())
        panel.yaxis.set_major_formatter(number)
        panel.set_ylim(0, 1.1 * max(curve.values(), default=1))
        panel.set_xlabel(label)
        panel.set_ylabel("ms per step")
    return figure


def write_plot(figure: Figure, path: Path) -> None:
    """Write a figure as `.svg` or `.png`."""
    path.write_bytes(render(figure)[path.suffix.removeprefix(".")])


if __name__ == "__main__":
    from rmjax.utils.cpu import choose_kernels, keep_memory

    keep_memory()
    choose_kernels()
    _where, _processes, _process, _case = sys.argv[1:]
    print(_run(_where, int(_processes), int(_process), json.loads(_case)))
