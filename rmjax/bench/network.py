"""Benchmarks of inference and of the training step, beside PyTorch's in the same run."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import cycle, islice
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from rmjax.bench.common import (
    calls_ahead,
    median_of_rounds,
    seconds_of,
    seconds_per_call,
)
from rmjax.bench.plan import PASSES, forward_gflop
from rmjax.bench.pytorch import inference_calls, packages_for, training_calls
from rmjax.experiment import parallel
from rmjax.experiment.build import (
    build_model,
    build_optimizer,
    make_eval_step,
    make_train_steps,
)
from rmjax.experiment.config import default_config
from rmjax.experiment.step import create_state
from rmjax.mixing import make_mixing
from rmjax.models.repmix import RepMix
from rmjax.models.vit import TRANSFORMERS
from rmjax.utils.checks import check_at_least
from rmjax.utils.table import format_table

NUM_SOURCES = 8
PRODUCT = 2048  # side of the matrices whose product stands for the machine's peak
WIDER = 4  # times as wide they are on an accelerator, to fill it
OURS = "rmjax"

Call = Callable[[], object]
# Of images uint8 `[N, H, W, 3]` and sources `[N]`: a call that computes with them.
MakeCall = Callable[[np.ndarray, np.ndarray], Call]


def bench_inference(
    *,
    arch: str = "resnet50",
    size: int = 224,
    batch_sizes: Sequence[int] = (1, 16, 64),
    repeats: int = 5,
    dtype: str = "float32",
) -> dict:
    """Time the step that embeds and evaluates, its images on the devices already.

    Where torch and torchvision, or transformers, are installed and have the network,
    theirs runs in turn with ours, on a CPU or GPU (eager, inference mode), contiguous and channels-last;
    the faster of the two counts. Medians over the rounds, of the ratios too.

    Args:
        arch: one of `rmjax.models.backbones.BACKBONES`.
        size: side of the images in pixels.
        batch_sizes: images per call; one is always among them.
        repeats: rounds.
        dtype: key of `rmjax.models.repmix.DTYPES`.

    Returns:
        `arch`, `size`, `dtype`, `device`; `peak_gflops`, of a matrix product of JAX's;
        `gflop`, that an image takes by the definition of the convolution; `batches`, by
        their size: `images_per_second`, `ms` per call, `peak_share`, where PyTorch ran
        `torch_images_per_second` and the `ratio` to it, `first_seconds` of the call
        that compiles and, on an accelerator, `peak_mib`, the most memory in use until
        then.

    Raises:
        InputError: unknown architecture, or a number under 1.
    """
    check_at_least(
        1, size=size, repeats=repeats, batch_sizes=min(batch_sizes, default=1)
    )
    config = recipe(arch=arch, size=size, dtype=dtype)
    devices = parallel.choose_devices(1)
    gflop = forward_gflop(config, NUM_SOURCES)
    contenders = {OURS: forward_calls(config, devices)} | inference_calls(
        arch,
        backend=devices[0].platform,
        dtype=dtype,
        calls=calls_ahead(devices),
    )
    race = _race("inference", contenders, {1, *batch_sizes}, repeats, config, gflop)
    return {
        "arch": arch,
        "size": size,
        "dtype": dtype,
        "device": devices[0].device_kind,
        "gflop": gflop,
        **race,
    }


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
) -> dict:
    """Time training steps of the published recipe, and inference.

    Images are on the device already; the step mirrors them, corrupts and mixes them as
    asked and updates all parameters. PyTorch's step, where it is installed and does the
    same, runs in turn with ours.

    Args:
        arch, size, repeats, dtype: as for `bench_inference`.
        batch_sizes: images per step, which the mixing can deal out.
        corrupt: share of the images that are corrupted; the recipe's is 0.95.
        mix: key of `rmjax.mixing.MIXINGS`.
        inference: whether to time that as well.

    Returns:
        `arch`, `size`, `dtype`, `device`, `corrupt`, `mix`, `members`, `levels`, which
        take turns; `peak_gflops` and `batches` as from `bench_inference`; `inference`,
        its results.

    Raises:
        InputError: unknown architecture, type or mixing, or a number that makes no
            batch.
    """
    check_at_least(1, size=size, repeats=repeats)
    config = recipe(arch=arch, size=size, dtype=dtype, corrupt=corrupt, mix=mix)
    mixing = make_mixing(**config.mix)
    devices = parallel.choose_devices(1)
    for batch in batch_sizes:
        parallel.check_batch(batch, mixing.unit, devices)
    contenders = {OURS: step_calls(config, NUM_SOURCES, devices)}
    if not corrupt and mix == "repmix":  # what PyTorch's step does too
        contenders |= training_calls(
            arch,
            NUM_SOURCES,
            config.mix.members,
            backend=devices[0].platform,
            dtype=dtype,
            steps=calls_ahead(devices),
        )
    answers = None
    if inference:  # first: after a training PyTorch's is slower
        answers = bench_inference(
            arch=arch, size=size, batch_sizes=batch_sizes, repeats=repeats, dtype=dtype
        )
    gflop = PASSES * forward_gflop(config, NUM_SOURCES)
    race = _race("training", contenders, set(batch_sizes), repeats, config, gflop)
    return {
        "arch": arch,
        "size": size,
        "dtype": dtype,
        "device": devices[0].device_kind,
        "corrupt": corrupt,
        "mix": mix,
        "members": config.mix.members,
        "levels": list(mixing.levels),
        **race,
        "inference": answers,
    }


def format_inference_bench(results: dict) -> str:
    """Return `bench_inference`'s results as lines of text."""
    batches = results["batches"]
    lines = [
        f"{results['arch']} at {results['size']} px, {results['dtype']}: one image "
        f"takes {batches['1']['ms']:.1f} ms, once compiled",
        *_speed_table(batches, digits=1),
        f"peak: matrix products at {results['peak_gflops']:.0f} GFLOP/s; an image "
        f"takes {results['gflop']:.1f} GFLOP"
        + (
            ""
            if results["arch"] in TRANSFORMERS
            else ", fewer where Winograd's tiles are used"
        ),
    ]
    packages = packages_for(results["arch"])
    if not packages:
        lines.append(f"torchvision has no {results['arch']} to compare with")
    elif "ratio" not in batches["1"]:
        lines.append(f"to compare with PyTorch: pip install {' '.join(packages)}")
    return "\n".join(lines)


def format_step_bench(results: dict) -> str:
    """Return `bench_step`'s results as lines of text."""
    corrupted = f", {results['corrupt']:.0%} corrupted" if results["corrupt"] else ""
    lines = [
        f"training {results['arch']} at {results['size']} px, {results['dtype']}, "
        f"{_describe_mixing(results)}{corrupted}",
        *_speed_table(results["batches"], digits=2),
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


def _speed_table(batches: dict[str, dict], digits: int) -> list[str]:
    """Return lines of a table by batch size, speeds with so many digits."""
    columns = {
        OURS: ("images_per_second", f".{digits}f"),
        "of peak": ("peak_share", ".0%"),
        "PyTorch": ("torch_images_per_second", f".{digits}f"),
        "ratio": ("ratio", ".2f"),
    }
    rows = {f"batches of {batch}": row for batch, row in batches.items()}
    return format_table("images per second", columns, rows)


def _describe_mixing(results: dict) -> str:
    """Return in words how the images were mixed."""
    if results["mix"] == "none":
        return "images not mixed"
    level = "level " + " or ".join(map(str, results["levels"]))
    how = {"repmix": "groups of", "pairs": "pairs of"}.get(results["mix"])
    if how:
        return f"{how} {results['members']} images mixed at {level}"
    return f"images mixed by {results['mix']} at {level}"


def recipe(
    *, arch: str, size: int, dtype: str, corrupt: float = 0.0, mix: str = "repmix"
) -> ConfigDict:
    """Return the published recipe for images that are as large as the crop."""
    config = default_config()
    config.model.arch, config.model.dtype = arch, dtype
    config.data.crop = size
    config.corrupt.rate = corrupt
    config.mix.name = mix
    return config


def make_batch(
    batch: int, size: int, num_sources: int = NUM_SOURCES
) -> tuple[np.ndarray, np.ndarray]:
    """Return random images uint8 `[batch, size, size, 3]` and sources `[batch]`."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (batch, size, size, 3), np.uint8)
    return images, random.integers(0, num_sources, batch, np.int32)


def step_calls(
    config: ConfigDict, num_sources: int, devices: parallel.Devices
) -> MakeCall:
    """Return what makes a call, a few training steps, of images and sources.

    A call takes as many steps as `calls_ahead` says, and waits for the last. Levels
    take turns; the first call takes one step at each, which compiles them.

    Args:
        config: of the training.
        num_sources: classes.
        devices: of all processes, each of which gives its own share of the images.

    Raises:
        InputError: the config names what there is not.
    """
    size = config.data.crop
    axis_name = parallel.AXIS if len(devices) > 1 else None
    model = build_model(config, num_sources, axis_name)
    assert isinstance(model, RepMix)  # the recipe's is no baseline
    optimizer = build_optimizer(config, steps_per_epoch=1000)
    mixing = make_mixing(**config.mix)
    steps = make_train_steps(config, model, optimizer, mixing, devices)

    def make(images: np.ndarray, sources: np.ndarray) -> Call:
        state = create_state(model, optimizer, 0, (size, size, 3))
        state = parallel.place(state, devices)
        position = np.arange(len(images), dtype=np.int32)
        batch = {"image": images, "source": sources, "position": position}
        batch |= {"semantic": np.zeros_like(sources)}
        batch = parallel.shard(batch, devices)
        turns, first = cycle(steps.values()), len(steps)

        def call() -> None:
            nonlocal state, first
            for step in islice(turns, max(calls_ahead(devices), first)):
                state, metrics = step(state, batch)
            first = 0
            jax.block_until_ready(metrics)

        return call

    return make


def forward_calls(config: ConfigDict, devices: parallel.Devices) -> MakeCall:
    """Return what makes a call, as many forward passes as `calls_ahead` says, of images.

    It waits for the last of them. They are those that embed and evaluate.
    """
    size = config.data.crop
    model = build_model(config, NUM_SOURCES)
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, size, size, 3)))
    variables = parallel.place(variables, devices)
    step = make_eval_step(config, NUM_SOURCES, devices)

    def make(images: np.ndarray, sources: np.ndarray) -> Call:
        batch = parallel.shard({"image": images}, devices)

        def call() -> None:
            for _ in range(calls_ahead(devices)):
                outputs = step(variables, batch)
            jax.block_until_ready(outputs)

        return call

    return make


def compare(speeds: Mapping[str, float]) -> dict[str, float]:
    """Return the figures of one round, of which medians are taken.

    Args:
        speeds: images per second, by name: ours, and those of PyTorch's memory formats,
            of which the faster counts.
    """
    ours = speeds[OURS]
    theirs = [speed for name, speed in speeds.items() if name != OURS]
    figures = {"images_per_second": ours}
    if theirs:
        best = max(theirs)
        figures |= {"torch_images_per_second": best, "ratio": ours / best}
    return figures


def _race(
    label: str,
    contenders: Mapping[str, MakeCall],
    batch_sizes: set[int],
    repeats: int,
    config: ConfigDict,
    gflop: float,
) -> dict[str, Any]:
    """Time contenders in turn, one batch size after the other.

    Args:
        label: what they do, for a bar.
        contenders: what makes their calls.
        batch_sizes: images per call.
        repeats: rounds.
        config: its crop is the size of the images, its type that of the products.
        gflop: what computing an image takes.

    Returns:
        `peak_gflops` and `batches`, as `bench_inference` says.
    """
    devices = parallel.choose_devices(1)
    # Random numbers: zeros and ones run faster than what networks multiply.
    side = PRODUCT * (1 if devices[0].platform == "cpu" else WIDER)
    shape, dtype = (side, side), jnp.dtype(config.model.dtype)
    square = jax.random.normal(jax.random.key(0), shape, dtype)
    multiply = jax.jit(jnp.dot)

    def multiply_once() -> None:
        multiply(square, square).block_until_ready()

    def measure(batch: int, calls: Mapping[str, Call]) -> dict[str, float]:
        images = batch * calls_ahead(devices)
        peak = 2 * side**3 / 1e9 / seconds_per_call(multiply_once)
        speeds = {n: images / seconds_per_call(call) for n, call in calls.items()}
        return compare(speeds) | {"peak_gflops": peak}

    batches: dict[str, dict[str, float]] = {}
    for batch in sorted(batch_sizes):
        inputs = make_batch(batch, config.data.crop)
        calls = {name: make(*inputs) for name, make in contenders.items()}
        first = {"first_seconds": seconds_of(calls[OURS])}
        memory = devices[0].memory_stats() or {}  # a CPU has none
        if "peak_bytes_in_use" in memory:
            first["peak_mib"] = memory["peak_bytes_in_use"] / 2**20
        title = f"{label}, batches of {batch}"
        medians = median_of_rounds(partial(measure, batch, calls), repeats, title)
        batches[str(batch)] = medians | first
    peak = float(np.median([row.pop("peak_gflops") for row in batches.values()]))
    for size, row in batches.items():
        speed = row["images_per_second"]
        row |= {"ms": 1000 * int(size) / speed, "peak_share": speed * gflop / peak}
    return {"peak_gflops": peak, "batches": batches}
