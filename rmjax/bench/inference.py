"""Benchmark of inference, beside PyTorch's of the same network in the same run."""

import time
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from rmjax.bench.plan import forward_gflop
from rmjax.bench.pytorch import NETWORKS, inference_calls
from rmjax.errors import InputError
from rmjax.experiment import parallel
from rmjax.experiment.build import build_model, make_eval_step
from rmjax.experiment.config import default_config

SECONDS = 1.0  # of calls a figure
NUM_SOURCES = 8
PRODUCT = 2048  # side of the matrices whose product stands for the machine's peak
WIDER = 4  # times as wide they are on an accelerator, to fill it
AHEAD = 10  # calls started on an accelerator before the last of them is waited for
OURS = "rmjax"


def bench_inference(
    *,
    arch: str = "resnet50",
    size: int = 224,
    batch_sizes: Sequence[int] = (1, 16, 64),
    repeats: int = 5,
    dtype: str = "float32",
    show_progress: bool = True,
) -> dict:
    """Time the step that embeds and evaluates, its images on the devices already.

    Where torch and torchvision are installed and have the network, theirs runs in turn
    with ours, on a CPU or GPU (eager, inference mode), contiguous and channels-last;
    the faster of the two counts. Medians over the rounds, of the ratios too.

    Args:
        arch: key of `rmjax.models.resnet.ARCHITECTURES`.
        size: side of the images in pixels.
        batch_sizes: images a call; one is always among them.
        repeats: rounds.
        dtype: key of `rmjax.models.repmix.DTYPES`.
        show_progress: whether to draw a bar.

    Returns:
        `arch`, `size`, `dtype`, `device`; `peak_gflops`, of a matrix product of JAX's;
        `gflop`, that an image takes by the definition of the convolution; `batches`, by
        their size: `images_per_second`, `ms` a call, `peak_share`, and where PyTorch
        ran, `torch_images_per_second` and the `ratio` to it.

    Raises:
        InputError: unknown architecture, or a number under 1.
    """
    if min(size, repeats, *batch_sizes) < 1:
        raise InputError(
            f"size = {size}, batch_sizes = {tuple(batch_sizes)}, repeats = {repeats}: "
            "give at least 1"
        )
    config = default_config()
    config.model.arch, config.model.dtype = arch, dtype
    config.data.crop = size
    devices = parallel.choose_devices(1)
    ahead = calls_ahead(devices)
    found = {batch: {} for batch in sorted({1, *batch_sizes})}
    gflop = forward_gflop(config, NUM_SOURCES)
    theirs = inference_calls(
        arch, backend=devices[0].platform, dtype=dtype, calls=ahead
    )
    runs = {OURS: _our_network(config, size, devices, ahead), **theirs}
    calls = {
        (batch, name): make(_images(batch, size))
        for batch in found
        for name, make in runs.items()
    }
    multiply = product(dtype)
    for call in (multiply, *calls.values()):
        call()  # compiles
    peak = []
    for _ in tqdm(range(repeats), "inference", disable=not show_progress):
        peak.append(product_gflops(multiply))
        for (batch, name), call in calls.items():
            speed = batch * ahead / seconds_a_call(call)
            found[batch].setdefault(name, []).append(speed)
    peak_gflops = float(np.median(peak))
    return {
        "arch": arch,
        "size": size,
        "dtype": dtype,
        "device": devices[0].device_kind,
        "peak_gflops": peak_gflops,
        "gflop": gflop,
        "batches": {
            str(batch): summarise(batch, speeds, gflop / peak_gflops)
            for batch, speeds in found.items()
        },
    }


def format_inference_bench(results: dict) -> str:
    """Return `bench_inference`'s results as lines of text."""
    batches = results["batches"]
    lines = [
        f"{results['arch']} at {results['size']} px, {results['dtype']}: one image "
        f"takes {batches['1']['ms']:.1f} ms, once compiled",
        *speed_table(batches, digits=1),
    ]
    lines.append(
        f"peak: matrix products at {results['peak_gflops']:.0f} GFLOP/s; an image "
        f"takes {results['gflop']:.1f} GFLOP, fewer where Winograd's tiles are used"
    )
    if results["arch"] not in NETWORKS:
        lines.append(f"torchvision has no {results['arch']} to compare with")
    elif "ratio" not in batches["1"]:
        lines.append("to compare with PyTorch: pip install torch torchvision")
    return "\n".join(lines)


def speed_table(batches: dict[str, dict], digits: int) -> list[str]:
    """Return lines of a table of what `summarise` returns, by batch size.

    Speeds are shown with so many digits; PyTorch's where it ran.
    """
    beside = all("ratio" in row for row in batches.values())
    lines = [
        f"{'images a second':<20}{OURS:>8}{'of peak':>9}"
        + f"{'PyTorch':>10}{'ratio':>8}" * beside
    ]
    for batch, row in batches.items():
        line = f"{'batches of ' + batch:<20}{row['images_per_second']:>8.{digits}f}"
        line += f"{row['peak_share']:>9.0%}"
        if beside:
            line += f"{row['torch_images_per_second']:>10.{digits}f}"
            line += f"{row['ratio']:>8.2f}"
        lines.append(line)
    return lines


def summarise(batch: int, speeds: dict[str, list[float]], seconds: float) -> dict:
    """Return one batch size's figures, medians over the rounds.

    Args:
        batch: images a call.
        speeds: images a second in each round, by name: ours, and PyTorch's two.
        seconds: that an image would take at the peak.
    """
    ours = np.array(speeds[OURS])
    row = {
        "images_per_second": float(np.median(ours)),
        "ms": 1000 * batch / float(np.median(ours)),
        "peak_share": float(np.median(ours)) * seconds,
    }
    theirs = [values for name, values in speeds.items() if name != OURS]
    if theirs:
        best = np.max(theirs, axis=0)
        row["torch_images_per_second"] = float(np.median(best))
        row["ratio"] = float(np.median(ours / best))
    return row


def _images(batch: int, size: int) -> np.ndarray:
    shape = (batch, size, size, 3)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def _our_network(
    config: ConfigDict, size: int, devices: parallel.Devices, ahead: int
) -> Callable:
    """Return what makes a call, `ahead` forward passes, of images."""
    model = build_model(config, NUM_SOURCES)
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, size, size, 3)))
    variables = parallel.place(variables, devices)
    step = make_eval_step(config, NUM_SOURCES, devices)

    def make(images: np.ndarray) -> Callable:
        batch = parallel.shard({"image": images}, devices)

        def call() -> None:
            for _ in range(ahead):
                outputs = step(variables, batch)
            jax.block_until_ready(outputs)

        return call

    return make


def calls_ahead(devices: parallel.Devices) -> int:
    """Return how many calls to start before one waits, as the training loop does.

    An accelerator would stand still between two calls that are each waited for; a CPU
    computes within the call.
    """
    return 1 if devices[0].platform == "cpu" else AHEAD


def product(dtype: str = "float32") -> Callable:
    """Return a call of the matrix product that stands for the machine's peak.

    The matrices are random: zeros and ones run faster than what networks multiply.
    """
    key = jax.random.key(0)
    square = jax.random.normal(key, (_product_side(),) * 2, jnp.dtype(dtype))
    multiply = jax.jit(jnp.dot)
    return lambda: multiply(square, square).block_until_ready()


def product_gflops(multiply: Callable) -> float:
    """Return the speed of a call of `product`."""
    return 2 * _product_side() ** 3 / 1e9 / seconds_a_call(multiply)


def _product_side() -> int:
    return PRODUCT * (1 if jax.default_backend() == "cpu" else WIDER)


def seconds_a_call(call: Callable) -> float:
    """Return seconds a call, after one that brings back what others have displaced."""
    call()
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < SECONDS or not count:
        call()
        count += 1
    return (time.perf_counter() - start) / count
