"""Benchmark of reading training batches, beside a PyTorch DataLoader in the same run."""

import logging
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stdout
from functools import partial
from importlib.util import find_spec
from io import StringIO
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from rmjax.errors import InputError

# The process that runs the DataLoader imports this file, and forks: what starts
# threads, such as jax, is imported where it is used.

logger = logging.getLogger(__name__)

OURS, THEIRS = "rmjax", "DataLoader"
FORMATS = {"jpeg": {"quality": 85}, "png": {}}
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
    show_progress: bool = True,
) -> dict:
    """Measure images read, decoded, cut and batched a second, and the first batch's wait.

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
        batch_size: images a batch.
        workers: numbers of worker processes to try.
        seconds: how long to read for one figure, after the first batches.
        repeats: rounds, each with new iterators; figures are their medians.
        show_progress: whether to draw a bar.

    Returns:
        By name of the data set: `images` in its training split, their mean `kilobytes`,
        and `workers`, by number the figures of `rmjax` and, where it was there,
        `DataLoader`: `images_per_second` and `first_batch_seconds`.

    Raises:
        InputError: no data set there, or a number that is too small.
    """
    if min(size, batch_size, repeats, seconds) <= 0 or min(workers, default=-1) < 0:
        raise InputError(
            f"size = {size}, batch_size = {batch_size}, repeats = {repeats}, seconds = "
            f"{seconds}, workers = {tuple(workers)}: give more than 0, and workers from 0"
        )
    settings = {"size": size, "resize": resize, "batch_size": batch_size}
    torch = _torch_process()
    try:
        with tempfile.TemporaryDirectory(prefix="rmjax-bench-") as scratch:
            sets = {
                name: _open_set(name, folder, Path(scratch))
                for name, folder in _folders(directory, Path(scratch)).items()
            }
            turns = list(product(sets, workers, range(repeats)))
            for name, count, _ in tqdm(turns, "reading", disable=not show_progress):
                selection, files, figures = sets[name]
                rows = figures["workers"].setdefault(str(count), {})
                ours = partial(_our_batches, selection, num_workers=count, **settings)
                _add(rows, OURS, _time_batches(ours, batch_size, seconds))
                if torch is not None:
                    theirs = partial(_torch_batches, files, count, **settings)
                    timed = torch.submit(_time_batches, theirs, batch_size, seconds)
                    _add(rows, THEIRS, timed.result())
    finally:
        if torch is not None:
            torch.shutdown()
    return {name: _medians(figures) for name, (_, _, figures) in sets.items()}


def format_data_bench(results: dict) -> str:
    """Return `bench_data`'s results as lines of text."""
    loaders = list(next(iter(next(iter(results.values()))["workers"].values())))
    names = "".join(f"{name:>11}" for name in loaders)
    ratio = f"{'ratio':>7}" if THEIRS in loaders else ""
    lines = [f"{'images a second':<17}{names}{ratio}{'first batch, s:':>18}{names}"]
    for name, figures in results.items():
        speeds = []
        for count, row in figures["workers"].items():
            speeds.append([row[loader]["images_per_second"] for loader in loaders])
            waits = [
                f"{row[loader]['first_batch_seconds']:>11.2f}" for loader in loaders
            ]
            lines.append(_speeds(f"{name}, {count} workers", speeds[-1]))
            lines[-1] += f"{'':>18}" + "".join(waits)
        best = [max(column) for column in zip(*speeds, strict=True)]
        lines.append(_speeds(f"{name}, best", best))
    for name, figures in results.items():
        lines.append(
            f"{name}: {figures['images']} images of {figures['kilobytes']:.1f} KB"
        )
    if THEIRS not in loaders:
        lines.append("to compare with a DataLoader: pip install torch torchvision")
    return "\n".join(lines)


def _speeds(label: str, speeds: Sequence[float]) -> str:
    ratio = f"{speeds[0] / speeds[1]:>7.1f}" if len(speeds) == 2 else ""
    return f"{label:<17}" + "".join(f"{speed:>11.0f}" for speed in speeds) + ratio


def _add(rows: dict, loader: str, figures: dict) -> None:
    """Append the figures of one turn to the lists of a loader."""
    found = rows.setdefault(loader, {})
    for name, value in figures.items():
        found.setdefault(name, []).append(value)


def _medians(figures: dict) -> dict:
    rows = {
        count: {
            loader: {name: float(np.median(values)) for name, values in found.items()}
            for loader, found in row.items()
        }
        for count, row in figures["workers"].items()
    }
    return figures | {"workers": rows}


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
    start, count, elapsed = time.perf_counter(), 0, 0.0
    while elapsed < seconds:
        next(batches)
        count += 1
        elapsed = time.perf_counter() - start
    if hasattr(batches, "close"):  # grain's: ends the worker processes
        batches.close()
    return {
        "images_per_second": count * batch_size / elapsed,
        "first_batch_seconds": first,
    }


def _our_batches(selection: Any, **settings: Any) -> Iterator:
    from rmjax.data.pipeline import train_batches

    return train_batches(selection, members=1, **settings)


class _ImageFiles:
    """Image files as a dataset of PyTorch's; the label does not matter here."""

    def __init__(self, files: Sequence[Path], transform: Callable):
        self.files, self.transform = files, transform

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, number: int) -> tuple[Any, int]:
        with self.files[number].open("rb") as stream:
            image = Image.open(stream).convert("RGB")
        return self.transform(image), 0


def _torch_batches(
    files: Sequence[Path],
    workers: int,
    *,
    size: int,
    resize: int | None,
    batch_size: int,
) -> Iterator:
    """Return endless batches of a DataLoader with the published transforms."""
    import torch
    from torchvision import transforms

    torch.set_num_threads(1)
    steps = [
        *([transforms.Resize(resize)] if resize else []),
        transforms.RandomCrop(size),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize([0.5] * 3, [0.5] * 3),
    ]
    dataset = _ImageFiles(files, transforms.Compose(steps))
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


def _torch_process() -> ProcessPoolExecutor | None:
    """Start a process that has imported PyTorch; None where that does not work."""
    if find_spec("torch") is None or find_spec("torchvision") is None:
        return None
    process = ProcessPoolExecutor(1, get_context("spawn"))
    try:
        process.submit(_import_torch).result()
    except Exception as error:  # such as a missing CUDA library: OSError, ImportError
        logger.warning("torch is installed but does not run: %s", error)
        process.shutdown()
        return None
    return process


def _import_torch() -> None:
    import torch.utils.data  # noqa: F401
    import torchvision.transforms  # noqa: F401


def _folders(directory: str | Path | None, scratch: Path) -> dict[str, Path]:
    """Return the data set at `directory` by its name, or two that are drawn now."""
    if directory is not None:
        return {Path(directory).parent.name: Path(directory)}
    from rmjax.datasets.image_folder import prepare

    rng = np.random.default_rng(0)
    pictures = [_picture(rng) for _ in range(DRAWN)]
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


def _picture(rng: np.random.Generator, size: int = 256) -> Image.Image:
    """Draw noise in octaves, which compresses to the size of a photograph."""
    total = np.full((size, size, 3), 128.0)
    for cells, strength in ((4, 60), (16, 30), (64, 14), (128, 7), (256, 4)):
        for channel in range(3):
            grid = rng.normal(0, strength, (cells, cells)).astype(np.float32)
            smooth = Image.fromarray(grid).resize(
                (size, size), Image.Resampling.BICUBIC
            )
            total[..., channel] += np.asarray(smooth)
    return Image.fromarray(total.clip(0, 255).astype(np.uint8))


def _open_set(name: str, folder: Path, scratch: Path) -> tuple[Any, list[Path], dict]:
    """Open a data set and write the images of its training split out as files."""
    from rmjax.data.dataset import open_dataset, select

    selection = select(open_dataset(folder))
    total = selection.size("train")
    target = scratch / f"{name}-files"
    target.mkdir()
    files, sizes = [], []
    source = selection.dataset.files("train")
    for number in range(min(total, MAX_FILES)):
        ((path, data),) = source.read([number])
        files.append(target / f"{number}{Path(path).suffix}")
        sizes.append(files[-1].write_bytes(data))
    figures = {
        "images": total,
        "kilobytes": float(np.mean(sizes)) / 1000,
        "workers": {},
    }
    return selection, files, figures
