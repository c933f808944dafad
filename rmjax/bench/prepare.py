"""Benchmark of preparing shards, beside the library that reads them, which does no more."""

import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow.parquet as pq

from rmjax.datasets.shards.make_shards import WRITERS, make_shards
from rmjax.errors import InputError
from rmjax.utils.checks import check_at_least
from rmjax.utils.choose import check_choice
from rmjax.utils.table import format_table


def bench_prepare(
    *,
    formats: Sequence[str] = tuple(WRITERS),
    images: Sequence[int] = (20_000,),
    processes: int | None = None,
    folder: str | Path | None = None,
) -> dict:
    """Measure images prepared per second, and the memory that takes.

    The images are JPEG files of 15 KB, 10,000 to a parquet file or tar shard, with two
    labels each. They are read by pyarrow or tarfile alone, in one process, then prepared
    by `rmjax prepare`, whose time includes its start and two passes over the files.

    Args:
        formats: keys of `WRITERS`.
        images: numbers of images, one run each.
        processes: of the preparation; None uses every core.
        folder: for the files and data sets, which take 30 KB an image; None is a
            temporary one.

    Returns:
        By format and number of images: `alone` and `prepared`, images per second, and
        `memory_mib`, of the largest process of the preparation.

    Raises:
        InputError: an unknown format, a number that is too small, or a preparation failed.
    """
    for format in formats:
        check_choice("format", format, WRITERS)
    check_at_least(1, images=images)
    results: dict[str, dict] = {}
    for format in formats:
        for count in images:
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                files = make_shards(format, Path(scratch) / "files", count)
                figures = {"alone": count / _seconds(_READ_ALONE[format], files)}
                figures |= _prepare(format, Path(scratch), count, processes)
                results.setdefault(format, {})[str(count)] = figures
    return results


def format_prepare_bench(results: dict) -> str:
    """Return `bench_prepare`'s results as lines of text."""
    rows = {
        f"{format}, {int(count):,}": row | {"ratio": row["prepared"] / row["alone"]}
        for format, counts in results.items()
        for count, row in counts.items()
    }
    columns = {
        "library alone": ("alone", ".0f"),
        "prepared": ("prepared", ".0f"),
        "ratio": ("ratio", ".2f"),
        "MiB": ("memory_mib", ".0f"),
    }
    return "\n".join(format_table("images per second", columns, rows))


def _prepare(
    format: str, folder: Path, images: int, processes: int | None
) -> dict[str, float]:
    command = [sys.executable, "-m", "rmjax.cli", "prepare", format]
    command += ["--from", str(folder / "files"), "--name", "bench"]
    command += ["--source", "model", "--semantic", "class"]
    command += ["--data-dir", str(folder)]
    command += ["--processes", str(processes)] if processes else []
    # Through a small process: what a process starts counts its memory as its own.
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, *command], capture_output=True, text=True
    )
    seconds = time.perf_counter() - start
    if done.returncode:
        raise InputError(f"preparing failed: {done.stderr.strip().splitlines()[-1]}")
    unit = 2**20 if sys.platform == "darwin" else 2**10
    largest = int(done.stdout.splitlines()[-1]) / unit
    return {"prepared": images / seconds, "memory_mib": largest}


def _seconds(read: Callable[[Path], object], files: Sequence[Path]) -> float:
    start = time.perf_counter()
    for file in files:
        read(file)
    return time.perf_counter() - start


def _read_parquet(file: Path) -> None:
    with pq.ParquetFile(file) as opened:
        for batch in opened.iter_batches(256):
            batch.to_pylist()


def _read_tar(file: Path) -> None:
    with tarfile.open(file) as tar:
        for member in tar:
            content = tar.extractfile(member)
            if content:
                content.read()


# Runs a command; prints the memory of the largest process that it started.
_MEASURE = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""
_READ_ALONE = {"parquet": _read_parquet, "webdataset": _read_tar}
