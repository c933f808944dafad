"""Benchmark of the training step, beside PyTorch's of the same recipe in the same run."""

from collections.abc import Callable, Sequence

import jax
import numpy as np
from tqdm import tqdm

from rmjax import parallel
from rmjax.bench_inference import (
    NUM_SOURCES,
    OURS,
    bench_inference,
    format_inference_bench,
    product,
    product_gflops,
    seconds_a_call,
    speed_table,
    summarise,
)
from rmjax.bench_torch import training_calls
from rmjax.configs.repmix import get_config
from rmjax.errors import InputError
from rmjax.experiment import build_model, build_optimizer, build_step
from rmjax.mixing import make_mixing
from rmjax.train_step import create_state

# A training step's products are those of a forward pass, and as many again for the
# gradients of inputs and of weights each.
PASSES = 3


def bench_step(
    *,
    arch: str = "resnet50",
    size: int = 224,
    batch_sizes: Sequence[int] = (16, 64),
    repeats: int = 3,
    show_progress: bool = True,
) -> dict:
    """Time training steps of the published recipe, then inference.

    Images are on the device already and are not corrupted; the step mirrors them,
    mixes pairs of them at level 5 and updates all parameters. PyTorch's step, where it
    is installed, runs in turn with ours, in both memory formats; the faster counts.

    Args:
        arch: key of `rmjax.models.resnet.ARCHITECTURES`.
        size: side of the images in pixels.
        batch_sizes: images a step, even numbers.
        repeats: rounds; medians over them, of the ratios too.
        show_progress: whether to draw a bar.

    Returns:
        `arch`, `size`, `members`, `level`, `peak_gflops`, `batches` as in
        `bench_inference`, whose results lie under `inference`.

    Raises:
        InputError: unknown architecture, or a number that makes no batch.
    """
    config = get_config()
    members = config.mix.members
    if min(size, repeats) < 1 or any(b < 1 or b % members for b in batch_sizes):
        raise InputError(
            f"size = {size}, batch_sizes = {tuple(batch_sizes)}, repeats = {repeats}: "
            f"give at least 1, and batches of groups of {members} images"
        )
    inference = bench_inference(
        arch=arch,
        size=size,
        batch_sizes=batch_sizes,
        repeats=repeats,
        show_progress=show_progress,
    )
    runs = {
        OURS: _our_step(arch, size),
        **training_calls(arch, NUM_SOURCES, members),
    }
    found = {batch: {} for batch in sorted(set(batch_sizes))}
    multiply, peak = product(), []
    with tqdm(
        total=repeats * len(found) * len(runs), desc="step", disable=not show_progress
    ) as bar:
        for batch, speeds in found.items():
            images, sources = _batch(batch, size)
            calls = {name: make(images, sources) for name, make in runs.items()}
            for call in calls.values():
                call()  # compiles
            for _ in range(repeats):
                peak.append(product_gflops(multiply))
                for name, call in calls.items():
                    seconds = seconds_a_call(call)
                    speeds.setdefault(name, []).append(batch / seconds)
                    bar.update()
    peak_gflops = float(np.median(peak))
    least = PASSES * inference["gflop"] / peak_gflops
    return {
        "arch": arch,
        "size": size,
        "members": members,
        "level": config.mix.level,
        "peak_gflops": peak_gflops,
        "batches": {str(b): summarise(b, s, least) for b, s in found.items()},
        "inference": inference,
    }


def format_step_bench(results: dict) -> str:
    """Return `bench_step`'s results as lines of text."""
    lines = [
        f"training {results['arch']} at {results['size']} px, {results['members']} "
        f"images mixed at level {results['level']}",
        *speed_table(results["batches"], digits=2),
    ]
    lines.append(
        f"peak: matrix products at {results['peak_gflops']:.0f} GFLOP/s; a training "
        f"step counts as {PASSES} forward passes"
    )
    return "\n".join([*lines, "", format_inference_bench(results["inference"])])


def _our_step(arch: str, size: int) -> Callable:
    """Return what makes a call of images and sources."""
    config = get_config()
    config.model.arch = arch
    config.data.crop = size
    config.corrupt.rate = 0.0
    devices = parallel.choose_devices(1)
    model = build_model(config, NUM_SOURCES)
    optimizer = build_optimizer(config, steps_per_epoch=1000)
    step = build_step(config, model, optimizer, make_mixing(**config.mix))
    mapped = parallel.map_step(step, devices)

    def make(images: np.ndarray, sources: np.ndarray) -> Callable:
        state = create_state(model, optimizer, 0, (size, size, 3))
        state = parallel.place(state, devices)
        position = np.arange(len(images), dtype=np.int32)
        batch = {"image": images, "source": sources, "position": position}
        batch = parallel.shard(batch, devices)

        def call() -> None:
            nonlocal state
            state, metrics = mapped(state, batch)
            jax.block_until_ready(metrics)

        return call

    return make


def _batch(batch: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (batch, size, size, 3), np.uint8)
    return images, random.integers(0, NUM_SOURCES, batch, np.int32)
