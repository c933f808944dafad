"""Benchmark of reading training batches, beside a PyTorch DataLoader in the same run."""

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from rmjax.bench.common import median_of_rounds, processes_with, seconds_per_call
from rmjax.errors import InputError
from rmjax.utils.checks import check_at_least
from rmjax.utils.table import format_table

# The process that runs the DataLoader imports this file, and forks: what starts
# threads, such as jax, is imported where it is used.

OURS, THEIRS = "rmjax", "DataLoader"
SPEED, WAIT = "images_per_second", "first_batch_seconds"
FORMATS: dict[str, dict[str, Any]] = {"jpeg": {"quality": 85}, "png": {}}
DRAWN = 256  # images of each format
SETTLE = 4  # batches after the first: what was read ahead at the start is gone then
MAX_FILES = 2048  # of a data set, written out for the DataLoader


def bench_data(
    *,
    directory: str | Path | None = None,
    size: int = 224,
    resize: int | None = 256,
    batch_size: int = 64,
    workers: Sequence[int] = (0, 1, 2),
    seconds: float = 3.0,
    repeats: int = 3,
) -> dict:
    """Measure images read, decoded, cut and batched per second, and the first's wait.

    Every image is decoded each time: there is no cache. Where torch and torchvision are
    installed, a DataLoader with the published transforms reads the same images from
    files, in turn with ours. It runs in a process of its own, with one thread for
    arithmetic, as its workers have. It ends with normalised float32, ours with uint8,
    because ours flips and normalises inside the compiled training step.

    Args:
        directory: a prepared data set; None draws one of JPEG and one of PNG files, 256
            px, in a temporary folder.
        size: side of the random crops in pixels.
        resize: pixels that the shorter side is resized to before; None leaves it.
        batch_size: images per batch.
        workers: numbers of worker processes to try.
        seconds: how long to read for one figure, after the first batches.
        repeats: rounds, each with new iterators; figures are their medians.

    Returns:
        By name of the data set: `images` in its training split, their mean `kilobytes`,
        and `workers`, by number the figures of `rmjax` and, where it was there,
        `DataLoader`: `images_per_second` and `first_batch_seconds`.

    Raises:
        InputError: no data set there, or a number that is too small.
    """
    check_at_least(1, size=size, batch_size=batch_size, repeats=repeats)
    check_at_least(0, workers=workers)
    if seconds <= 0:
        raise InputError(f"seconds = {seconds}: give more than 0")
    results = {}
    with (
        tempfile.TemporaryDirectory(prefix="rmjax-bench-") as scratch,
        processes_with(("torch", "torchvision"), _import_torch, 1) as process,
    ):

        def measure(ours: Callable, theirs: Callable) -> dict[str, dict[str, float]]:
            figures = {OURS: _time_batches(ours, batch_size, seconds)}
            if process is not None:
                timed = process.submit(_time_batches, theirs, batch_size, seconds)
                figures[THEIRS] = timed.result()
            return figures

        for name, folder in _folders(directory, Path(scratch)).items():
            files = Path(scratch) / f"{name}-files"
            selection, results[name] = _write_files(folder, files)
            for count in workers:
                settings = size, resize, batch_size, count
                ours = partial(_our_batches, selection, *settings)
                theirs = partial(_torch_batches, files, *settings)
                results[name]["workers"][str(count)] = median_of_rounds(
                    partial(measure, ours, theirs), repeats, f"{name}, {count} workers"
                )
    return results


def format_data_bench(results: dict) -> str:
    """Return `bench_data`'s results as lines of text."""
    rows = {}
    for name, figures in results.items():
        best: dict[str, float] = {}
        for count, loaders in figures["workers"].items():
            speeds = {loader: row[SPEED] for loader, row in loaders.items()}
            best = {n: max(speed, best.get(n, 0)) for n, speed in speeds.items()}
            waits = {f"{loader} first": row[WAIT] for loader, row in loaders.items()}
            rows[f"{name}, {count} workers"] = speeds | waits
        rows[f"{name}, best"] = best
    beside = all(THEIRS in row for row in rows.values())
    if beside:
        rows = {n: r | {"ratio": r[OURS] / r[THEIRS]} for n, r in rows.items()}
    columns = {
        OURS: (OURS, ".0f"),
        THEIRS: (THEIRS, ".0f"),
        "ratio": ("ratio", ".1f"),
        f"first batch, s: {OURS}": (f"{OURS} first", ".2f"),
        f"first batch, s: {THEIRS}": (f"{THEIRS} first", ".2f"),
    }
    lines = format_table("images per second", columns, rows)
    for name, figures in results.items():
        lines.append(
            f"{name}: {figures['images']} images of {figures['kilobytes']:.1f} KB"
        )
    if not beside:
        lines.append("to compare with a DataLoader: pip install torch torchvision")
    return "\n".join(lines)


def _time_batches(
    make: Callable[[], Iterator], batch_size: int, seconds: float
) -> dict[str, float]:
    """Time the first batch from the call of `make` on, then the speed of the rest."""
    start = time.perf_counter()
    batches = make()
    next(batches)
    first = time.perf_counter() - start
    for _ in range(SETTLE):
        next(batches)
    per_batch = seconds_per_call(partial(next, batches), seconds)
    if hasattr(batches, "close"):  # grain's: ends the worker processes
        batches.close()
    return {SPEED: batch_size / per_batch, WAIT: first}


def _our_batches(
    selection: Any, size: int, resize: int | None, batch_size: int, workers: int
) -> Iterator:
    """Return endless batches of rmjax, as training reads them."""
    from rmjax.data.images import Resize
    from rmjax.data.pipeline import train_batches

    return train_batches(
        selection,
        batch_size=batch_size,
        members=1,
        size=size,
        resizing=Resize(resize) if resize else None,
        num_workers=workers,
    )


def _torch_batches(
    folder: Path, size: int, resize: int | None, batch_size: int, workers: int
) -> Iterator:
    """Return endless batches of a DataLoader with the published transforms."""
    import torch
    from torchvision import datasets, transforms

    torch.set_num_threads(1)
    steps = [
        *([transforms.Resize(resize)] if resize else []),
        transforms.RandomCrop(size),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize([0.5] * 3, [0.5] * 3),
    ]
    # Files of any suffix: ours tells formats by content.
    dataset = datasets.ImageFolder(
        folder, transforms.Compose(steps), is_valid_file=os.path.isfile
    )
    order = torch.utils.data.RandomSampler(dataset, replacement=True, num_samples=2**40)
    # This process was spawned and would spawn its workers too, which takes seconds.
    start = "fork" if workers and sys.platform == "linux" else None
    loader = torch.utils.data.DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=order,
        num_workers=workers,
        multiprocessing_context=start,
    )
    return iter(loader)


def _import_torch() -> None:
    import torch.utils.data  # noqa: F401
    import torchvision  # noqa: F401


def _folders(directory: str | Path | None, scratch: Path) -> dict[str, Path]:
    """Return the data set at `directory` by its name, or two that are drawn now."""
    if directory is not None:
        return {Path(directory).parent.name: Path(directory)}
    from rmjax.datasets.image_folder import prepare

    rng = np.random.default_rng(0)
    pictures = [draw_picture(rng) for _ in range(DRAWN)]
    folders = {}
    for suffix, options in FORMATS.items():
        for number, picture in enumerate(pictures):
            source = ("real", "drawn")[number % 2]
            file = scratch / suffix / source / "any" / f"{number}.{suffix}"
            file.parent.mkdir(parents=True, exist_ok=True)
            picture.save(file, **options)
        with redirect_stdout(StringIO()):  # TFDS says there where it writes
            folders[suffix] = prepare(suffix, scratch / "data", tree=scratch / suffix)
    return folders


def draw_picture(rng: np.random.Generator, size: int = 256) -> Image.Image:
    """Draw noise in octaves, which compresses to the size of a photograph."""
    total = np.full((size, size, 3), 128.0)
    for side, strength in ((4, 60), (16, 30), (64, 14), (128, 7), (256, 4)):
        for channel in range(3):
            grid = rng.normal(0, strength, (side, side)).astype(np.float32)
            smooth = Image.fromarray(grid).resize((size,) * 2, Image.Resampling.BICUBIC)
            total[..., channel] += np.asarray(smooth)
    return Image.fromarray(total.clip(0, 255).astype(np.uint8))


def _write_files(folder: Path, target: Path) -> tuple[Any, dict[str, Any]]:
    """Open a data set, and write its training images as an ImageFolder of one class."""
    from rmjax.data.dataset import open_dataset, select

    selection = select(open_dataset(folder))
    total = selection.size("train")
    images = target / "any"
    images.mkdir(parents=True)
    records = selection.dataset.files("train")
    sizes = [
        (images / f"{number}{Path(path).suffix}").write_bytes(data)
        for number in range(min(total, MAX_FILES))
        for path, data in records.read([number])
    ]
    kilobytes = float(np.mean(sizes)) / 1000
    return selection, {"images": total, "kilobytes": kilobytes, "workers": {}}
