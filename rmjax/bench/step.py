"""Benchmark of the training step, beside PyTorch's of the same recipe in the same run."""

import time
from collections.abc import Callable, Sequence
from itertools import cycle, islice

import jax
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from rmjax.bench.inference import (
    NUM_SOURCES,
    OURS,
    bench_inference,
    calls_ahead,
    format_inference_bench,
    product,
    product_gflops,
    seconds_a_call,
    speed_table,
    summarise,
)
from rmjax.bench.plan import PASSES, forward_gflop
from rmjax.bench.pytorch import training_calls
from rmjax.errors import InputError
from rmjax.experiment import parallel
from rmjax.experiment.build import build_model, build_optimizer, make_train_steps
from rmjax.experiment.config import default_config
from rmjax.experiment.step import create_state
from rmjax.mixing import make_mixing


def bench_step(
    *,
    arch: str = "resnet50",
    size: int = 224,
    batch_sizes: Sequence[int] = (16, 64),
    repeats: int = 3,
    dtype: str = "float32",
    corrupt: float = 0.0,
    mix: str = "repmix",
    inference: bool = True,
    show_progress: bool = True,
) -> dict:
    """Time training steps of the published recipe, then inference.

    Images are on the device already; the step mirrors them, corrupts and mixes them as
    asked and updates all parameters. PyTorch's step, where it is installed and does the
    same, runs in turn with ours, in both memory formats; the faster counts.

    Args:
        arch: key of `rmjax.models.resnet.ARCHITECTURES`.
        size: side of the images in pixels.
        batch_sizes: images a step, which the mixing can deal out.
        repeats: rounds; medians over them, of the ratios too.
        dtype: key of `rmjax.models.repmix.DTYPES`.
        corrupt: share of the images that are corrupted; the recipe's is 0.95.
        mix: key of `rmjax.mixing.MIXINGS`.
        inference: whether to time that as well.
        show_progress: whether to draw a bar.

    Returns:
        `arch`, `size`, `dtype`, `device`, `corrupt`, `mix`, `members`, `levels`, which
        take turns, `peak_gflops`; `batches` as in `bench_inference`, with
        `first_seconds` of the call that compiles (of one compiled before, less) and, on
        an accelerator, `peak_mib`, the most memory in use until then; `inference`, its
        results.

    Raises:
        InputError: unknown architecture, type or mixing, or a number that makes no
            batch.
    """
    config = step_config(arch=arch, size=size, dtype=dtype, corrupt=corrupt, mix=mix)
    mixing = make_mixing(**config.mix)
    devices = parallel.choose_devices(1)
    if min(size, repeats) < 1:
        raise InputError(f"size = {size}, repeats = {repeats}: give at least 1")
    for batch in batch_sizes:
        parallel.check_batch(batch, mixing.unit, devices)
    batches = sorted(set(batch_sizes))
    options = {"arch": arch, "size": size, "dtype": dtype}
    answers = None
    if inference:
        answers = bench_inference(
            **options,
            batch_sizes=batches,
            repeats=repeats,
            show_progress=show_progress,
        )
    runs = _contenders(config, devices)
    found, peak_gflops = _time_steps(runs, size, batches, repeats, dtype, show_progress)
    least = PASSES * forward_gflop(config, NUM_SOURCES) / peak_gflops
    return {
        **options,
        "device": devices[0].device_kind,
        "corrupt": corrupt,
        "mix": mix,
        "members": config.mix.members,
        "levels": list(mixing.levels),
        "peak_gflops": peak_gflops,
        "batches": {
            str(batch): summarise(batch, speeds, least) | facts
            for batch, (speeds, facts) in found.items()
        },
        "inference": answers,
    }


def _contenders(config: ConfigDict, devices: parallel.Devices) -> dict[str, Callable]:
    """Return what makes calls, by name: ours, and PyTorch's where it does the same."""
    runs = {OURS: step_calls(config, NUM_SOURCES)}
    if not config.corrupt.rate and config.mix.name == "repmix":
        runs |= training_calls(
            config.model.arch,
            NUM_SOURCES,
            config.mix.members,
            backend=devices[0].platform,
            dtype=config.model.dtype,
            steps=calls_ahead(devices),
        )
    return runs


def _time_steps(
    runs: dict[str, Callable],
    size: int,
    batches: Sequence[int],
    repeats: int,
    dtype: str,
    show_progress: bool,
) -> tuple[dict[int, tuple[dict, dict]], float]:
    """Return images a second and facts by batch size, and the peak in GFLOP/s."""
    found, peak = {}, []
    multiply = product(dtype)
    devices = parallel.choose_devices(1)
    bar = tqdm(
        total=repeats * len(batches) * len(runs),
        desc="step",
        disable=not show_progress,
    )
    with bar:
        for batch in batches:
            images, sources = make_batch(batch, size)
            calls = {name: make(images, sources) for name, make in runs.items()}
            facts = _first_call(calls[OURS], devices)
            for name, call in calls.items():
                if name != OURS:
                    call()
            speeds = {name: [] for name in calls}
            for _ in range(repeats):
                peak.append(product_gflops(multiply))
                for name, call in calls.items():
                    images_a_call = batch * calls_ahead(devices)
                    speeds[name].append(images_a_call / seconds_a_call(call))
                    bar.update()
            found[batch] = speeds, facts
    return found, float(np.median(peak))


def _first_call(call: Callable, devices: parallel.Devices) -> dict:
    """Make the call that compiles; return its seconds, and the memory it needed."""
    start = time.perf_counter()
    call()
    facts = {"first_seconds": time.perf_counter() - start}
    memory = devices[0].memory_stats() or {}  # a CPU has none
    if "peak_bytes_in_use" in memory:
        facts["peak_mib"] = memory["peak_bytes_in_use"] / 2**20
    return facts


def format_step_bench(results: dict) -> str:
    """Return `bench_step`'s results as lines of text."""
    lines = [
        f"training {results['arch']} at {results['size']} px, {results['dtype']}, "
        + _mixed(results)
        + f", {results['corrupt']:.0%} corrupted" * bool(results["corrupt"]),
        *speed_table(results["batches"], digits=2),
    ]
    for batch, row in results["batches"].items():
        if "peak_mib" in row:
            lines.append(f"memory for batches of {batch}: {row['peak_mib']:.0f} MiB")
    lines.append(
        f"peak: matrix products at {results['peak_gflops']:.0f} GFLOP/s; a training "
        f"step counts as {PASSES} forward passes"
    )
    if results["inference"]:
        lines += ["", format_inference_bench(results["inference"])]
    return "\n".join(lines)


def _mixed(results: dict) -> str:
    """Return in words how the images were mixed."""
    if results["mix"] == "none":
        return "images not mixed"
    level = "level " + " or ".join(map(str, results["levels"]))
    how = {"repmix": "groups of", "pairs": "pairs of"}.get(results["mix"])
    if how:
        return f"{how} {results['members']} images mixed at {level}"
    return f"images mixed by {results['mix']} at {level}"


def step_config(
    *, arch: str, size: int, dtype: str, corrupt: float, mix: str
) -> ConfigDict:
    """Return the published recipe for images that are as large as the crop."""
    config = default_config()
    config.model.arch, config.model.dtype = arch, dtype
    config.data.crop = size
    config.corrupt.rate = corrupt
    config.mix.name = mix
    return config


def step_calls(
    config: ConfigDict, num_sources: int, devices: parallel.Devices | None = None
) -> Callable:
    """Return what makes a call, a piece of training, of images and sources.

    A call takes as many steps as `calls_ahead` says, and waits for the last. Levels take
    turns; the first call takes one step at each, which compiles them.

    Args:
        config: of the training.
        num_sources: classes.
        devices: of all processes, each of which gives its own part of the images; None
            for one device of this process.

    Raises:
        InputError: the config names what there is not.
    """
    size = config.data.crop
    devices = devices or parallel.choose_devices(1)
    ahead = calls_ahead(devices)
    axis_name = parallel.AXIS if len(devices) > 1 else None
    model = build_model(config, num_sources, axis_name)
    optimizer = build_optimizer(config, steps_per_epoch=1000)
    mixing = make_mixing(**config.mix)
    steps = make_train_steps(config, model, optimizer, mixing, devices)

    def make(images: np.ndarray, sources: np.ndarray) -> Callable:
        state = create_state(model, optimizer, 0, (size, size, 3))
        state = parallel.place(state, devices)
        position = np.arange(len(images), dtype=np.int32)
        batch = {"image": images, "source": sources, "position": position}
        batch = parallel.shard(batch, devices)
        turns, first = cycle(steps.values()), len(steps)

        def call() -> None:
            nonlocal state, first
            for step in islice(turns, max(ahead, first)):
                state, metrics = step(state, batch)
            first = 0
            jax.block_until_ready(metrics)

        return call

    return make


def make_batch(
    batch: int, size: int, num_sources: int = NUM_SOURCES
) -> tuple[np.ndarray, np.ndarray]:
    """Return random images uint8 `[batch, size, size, 3]` and sources `[batch]`."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (batch, size, size, 3), np.uint8)
    return images, random.integers(0, num_sources, batch, np.int32)
