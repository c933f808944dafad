"""What `launch/accelerator_check.sh` measures: parts, each of them rows of one table.

Every part is a process of its own, so that one that ends badly takes no other with it,
and gives its rows one by one, as soon as they are known.
"""

import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import jax
import numpy as np

from rmjax.bench.common import (
    AHEAD,
    calls_ahead,
    installed,
    median_of_rounds,
    seconds_of,
    seconds_per_call,
)
from rmjax.bench.corruptions import bench_corruptions, format_corruptions_bench
from rmjax.bench.data import draw_picture
from rmjax.bench.evaluate import bench_evaluate
from rmjax.bench.network import (
    NUM_SOURCES,
    Call,
    MakeCall,
    forward_calls,
    make_batch,
    recipe,
    step_calls,
)
from rmjax.bench.pytorch import training_calls
from rmjax.corruptions import NAMES, SEEN
from rmjax.datasets.image_folder import prepare
from rmjax.errors import InputError
from rmjax.experiment import parallel
from rmjax.experiment.config import default_config
from rmjax.experiment.log import read_log
from rmjax.utils.choose import choose
from rmjax.utils.places import as_path
from rmjax.utils.processes import cores

PUBLISHED_RATE = 0.95  # share of the training images that are corrupted
DRAWN = "image_folder/check"  # the data set that is made here
RUN = "run"  # folder of the training, in the work folder
REPEATS = 3


@dataclass(frozen=True)
class Scale:
    """How much is measured.

    Attributes:
        arch, dtype: of the network; `torch_arch` is PyTorch's.
        batch_sizes: images of a step; the last is also that of the other parts.
        size: side of what the network sees, in pixels; files are 8/7 of it.
        images: JPEG files that are made.
        steps: of the training from these files, logged `log_every` steps.
        suite: the conditions of the evaluation.
        names: the corruptions that are timed; training draws the seen ones of them.
    """

    arch: str = "resnet50"
    torch_arch: str = "resnet50"
    dtype: str = "bfloat16"
    batch_sizes: tuple[int, ...] = (64, 256)
    size: int = 224
    images: int = 1280
    steps: int = 120
    log_every: int = 20
    suite: str = "gaussian_noise,defocus_blur,fog,jpeg_compression"
    names: tuple[str, ...] = NAMES

    @property
    def seen(self) -> tuple[str, ...]:
        """Return what training draws from."""
        return tuple(name for name in self.names if name in SEEN)


QUICK = Scale(
    arch="shallow",
    torch_arch="resnet18",
    batch_sizes=(16, 32),
    size=56,
    images=160,
    steps=6,
    log_every=2,
    suite="gaussian_noise:1,jpeg:75",
    names=("gaussian_noise", "contrast", "saturate"),
)


@dataclass(frozen=True)
class Row:
    """A line of the table; what was not measured says why in its notes.

    Attributes:
        name: what was measured.
        images_per_second: its speed.
        images: of a call, for the column of ms per call; 0: no calls were timed.
        first_seconds: the first call, which traces and compiles.
        notes: what else is to be said.
        failed: it should have been measured.
    """

    name: str
    images_per_second: float | None = None
    images: int = 0
    first_seconds: float | None = None
    notes: str = ""
    failed: bool = False

    def __str__(self) -> str:
        speed = self.images_per_second
        figures = [
            "" if speed is None else f"{speed:,.0f}" if speed > 100 else f"{speed:.1f}",
            f"{1000 * self.images / speed:.2f}" if speed and self.images else "",
            "" if self.first_seconds is None else f"{self.first_seconds:.1f}",
        ]
        notes = " ".join(self.notes.replace("|", "/").split())
        return " | ".join([f"| {self.name}", *figures, f"{notes} |"])


HEAD = (
    "| what | images/s | ms per call | first call, s | notes |\n"
    "| --- | --: | --: | --: | --- |"
)


def describe_machine(quick: bool = False) -> str:
    """Return in a line what computes here, and with which libraries.

    Raises:
        InputError: there is no accelerator, which only a quick check does without.
    """
    first, *_ = devices = jax.local_devices()
    if first.platform == "cpu" and not quick:
        raise InputError(
            "JAX finds no accelerator here: install jax[cuda12] or jax[tpu] (launch/"
            "README.md), or give --quick to try the script on a CPU"
        )
    platform = " ".join(first.client.platform_version.split())
    count = f"{len(devices)} x " if len(devices) > 1 else ""
    return (
        f"{count}{first.device_kind} ({first.platform}: {platform}), {cores()} "
        f"processors, jax {version('jax')}, jaxlib {version('jaxlib')}"
    )


def measure_part(
    part: str, workdir: str | Path, *, quick: bool = False
) -> Iterator[Row]:
    """Yield the rows of a part of the check.

    Args:
        part: key of `PARTS`.
        workdir: a folder for files that the parts make and need; `evaluate` measures
            the run that `train` leaves there.
        quick: a small network and small images, to try it on a CPU.

    Raises:
        InputError: no such part, or what it needs is not there.
    """
    measure = choose("part", part, PARTS)
    yield from measure(QUICK if quick else Scale(), as_path(workdir))


def _measure_steps(scale: Scale, workdir: Path) -> Iterator[Row]:
    """Training steps and forward passes, of images that are on the device."""
    devices = parallel.choose_devices(1)
    config = partial(recipe, arch=scale.arch, size=scale.size, dtype=scale.dtype)

    def training(corrupt: float = 0.0, mix: str = "repmix") -> MakeCall:
        way = config(corrupt=corrupt, mix=mix)
        way.corrupt.names = scale.seen
        return step_calls(way, NUM_SOURCES, devices)

    ways: dict[str, Callable[[], MakeCall]] = {
        "training": training,
        "training, 95 % corrupted": partial(training, corrupt=PUBLISHED_RATE),
        "training, pairs": partial(training, mix="pairs"),
        "forward pass": lambda: forward_calls(config(), devices),
    }

    # One by one, so that all but the first find its initialisation compiled.
    calls: dict[tuple[str, int], Call] = {}
    for batch in scale.batch_sizes:
        for way, make in ways.items():
            try:
                calls[way, batch] = make()(*make_batch(batch, scale.size))
            except Exception as error:  # such as too little memory: others may fit
                yield _failure(f"{way}, {batch} images", error)
    # Compiling takes longer than measuring, and one program leaves most processors
    # idle. In other processes this would falsify the choice of kernels by their speed;
    # within one, XLA lets a GPU try them alone (its GetGpuMutex). When the block ends,
    # everything is compiled.
    with ThreadPoolExecutor(len(calls) or 1) as pool:
        firsts = {key: pool.submit(seconds_of, call) for key, call in calls.items()}
    for (way, batch), first in firsts.items():
        name, images = f"{way}, {batch} images", batch * calls_ahead(devices)
        call = calls.pop((way, batch))  # frees its memory afterwards
        try:
            yield _row(name, call, images, batch, first.result(), scale.dtype)
        except Exception as error:
            yield _failure(name, error)


def _row(
    name: str, call: Call, images: int, per_call: int, first: float, notes: str
) -> Row:
    """Time calls of so many images."""
    figures = median_of_rounds(
        lambda: {"speed": images / seconds_per_call(call)}, REPEATS, name
    )
    return Row(name, figures["speed"], per_call, first, notes)


def _failure(name: str, error: Exception) -> Row:
    """Return the row of what raised an error, and leave its story in the log."""
    traceback.print_exception(error)
    reason = (str(error).strip().splitlines() or [""])[0][:200]
    notes = f"not measured: {type(error).__name__}: {reason}"
    return Row(name, notes=notes, failed=True)


def _measure_corruptions(scale: Scale, workdir: Path) -> Iterator[Row]:
    """Every kind of corruption by itself, and the draw of training."""
    batch = scale.batch_sizes[-1]
    results = bench_corruptions(
        names=scale.names, size=scale.size, batch_size=batch, repeats=REPEATS
    )
    print(format_corruptions_bench(results), file=sys.stderr)  # to the log
    drawn = results["random"]
    notes = (
        f"{drawn['ratio']:.2f} times the mean of its kinds, "
        f"{drawn['memory_mib']:.0f} MiB beside the images"
    )
    speed = 1000 / drawn["ms"]
    yield Row(
        f"random_corrupt, {batch} images", speed, batch, drawn["compile_seconds"], notes
    )
    for name, figures in results["kinds"].items():
        yield Row(f"{name}, {batch} images", 1000 / figures["ms"], batch)


def _measure_training(scale: Scale, workdir: Path) -> Iterator[Row]:
    """`rmjax train` by the published recipe, from JPEG files that are made first."""
    side, batch = scale.size * 8 // 7, scale.batch_sizes[-1]
    with TemporaryDirectory(prefix="rmjax-") as files:
        size = _draw_files(Path(files), scale.images, side)
        with redirect_stdout(sys.stderr):  # TFDS says there where it writes
            prepare(Path(DRAWN).name, workdir, tree=files, fractions=(0.4, 0.1, 0.5))
    settings = {
        "data.name": DRAWN,
        "data.resize": 0,  # they have the size that they are cut from
        "data.size": side,
        "data.crop": scale.size,
        "data.eval_resize": scale.size,
        "data.eval_size": scale.size,
        "data.cache_mib": 0,  # as with a data set that is larger than the memory
        "model.arch": scale.arch,
        "model.dtype": scale.dtype,
        "corrupt.rate": PUBLISHED_RATE,
        "corrupt.names": scale.seen,
        "batch_size": batch,
        "eval_batch_size": batch,
        "num_devices": 1,
        "num_epochs": 1,
        "steps_per_epoch": scale.steps,
        "log_every_steps": scale.log_every,
    }
    command = [sys.executable, "-m", "rmjax.cli", "train", "--config=repmix"]
    command += [f"--workdir={workdir / RUN}", f"--data-dir={workdir}"]
    command += [f"--config.{key}={value}" for key, value in settings.items()]
    subprocess.run(command, check=True, stdout=sys.stderr)
    rows = [row for row in read_log(workdir / RUN) if row["kind"] == "train"]
    # The first has the compilation in it, the last an end that the training waits for.
    speed, wait = (
        float(np.median([row[name] for row in rows[1:]]))
        for name in ("images_per_second", "data_wait")
    )
    notes = (
        f"data_wait {wait:.3f}, in the first {scale.log_every} steps "
        f"{rows[0]['data_wait']:.3f}; files of {side} px and {size / 1000:.1f} KB"
    )
    yield Row(f"rmjax train from JPEG files, {batch} images", speed, batch, notes=notes)


def _draw_files(folder: Path, count: int, side: int) -> float:
    """Make a tree of JPEG files of two sources; return their mean size in bytes."""
    rng = np.random.default_rng(0)
    for number in range(count):
        file = folder / ("real", "drawn")[number % 2] / "any" / f"{number}.jpeg"
        file.parent.mkdir(parents=True, exist_ok=True)
        draw_picture(rng, side).save(file, quality=85)
    return float(np.mean([file.stat().st_size for file in folder.rglob("*.jpeg")]))


def _measure_evaluation(scale: Scale, workdir: Path) -> Iterator[Row]:
    """An evaluation of the run that the part `train` has left."""
    batch = scale.batch_sizes[-1]
    results = bench_evaluate(
        workdir / RUN, suite=scale.suite, images=2 * batch, repeats=REPEATS
    )
    yield Row(
        f"evaluation: bare forward pass, {batch} images", results["forward"], batch
    )
    share = f"{results['clean_share']:.2f} of the forward pass"
    yield Row("evaluation: clean, from files", results["clean"], notes=share)
    notes = (
        f"of {results['images']} images, {results['grid_ratio']:.2f} times as many "
        f"forward passes; figures {results['measure_s']:.1f} s"
    )
    name = f"evaluation: grid of {results['conditions']} conditions"
    yield Row(name, results["grid"], 0, results["compile_s"], notes)


def _measure_pytorch(scale: Scale, workdir: Path) -> Iterator[Row]:
    """PyTorch's training steps, of images that are on the device."""
    if not installed("torch", "torchvision"):
        missing = "torchvision" if installed("torch") else "torch"
        yield Row(
            "PyTorch, training", notes=f"not measured: {missing} is not installed"
        )
        return
    import torch

    # Asking JAX would take memory of the GPU.
    on_gpu = torch.cuda.is_available()
    if not on_gpu and scale != QUICK:
        yield Row("PyTorch, training", notes="not measured: torch finds no GPU")
        return
    steps = AHEAD if on_gpu else 1
    arch, members = scale.torch_arch, default_config().mix.members
    # The larger batches first: time may be short. On a CPU, compiling takes minutes.
    for batch in reversed(scale.batch_sizes):
        for compiled in (False, True)[: 1 + on_gpu]:
            how = "torch.compile" if compiled else "eager"
            name = f"PyTorch, training, {batch} images"
            notes = f"torch {torch.__version__}, channels_last, {scale.dtype}, {how}"
            try:
                makers = training_calls(
                    arch,
                    NUM_SOURCES,
                    members,
                    backend="gpu" if on_gpu else "cpu",
                    dtype=scale.dtype,
                    steps=steps,
                    compiled=compiled,
                )
                call = makers["channels_last"](*make_batch(batch, scale.size))
                yield _row(name, call, batch * steps, batch, seconds_of(call), notes)
            except Exception as error:
                yield _failure(f"{name}, {how}", error)


# PyTorch comes last: it takes whatever time is left.
PARTS: dict[str, Callable[[Scale, Path], Iterator[Row]]] = {
    "step": _measure_steps,
    "train": _measure_training,
    "corruptions": _measure_corruptions,
    "evaluate": _measure_evaluation,
    "pytorch": _measure_pytorch,
}
