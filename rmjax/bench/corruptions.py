"""Benchmark of the corruptions, beside the published code in the same run."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from rmjax.bench.common import calls_ahead, processes_with, seconds_of
from rmjax.corruptions import (
    NAMES,
    SEEN,
    SEVERITIES,
    UNSEEN,
    check_names,
    corrupt,
    random_corrupt,
)
from rmjax.corruptions.registry import MIN_SIZE
from rmjax.utils.checks import check_at_least
from rmjax.utils.processes import cores
from rmjax.utils.table import format_table

# The published code, packaged: NumPy, OpenCV and Pillow.
PUBLISHED = "imagecorruptions"


def bench_corruptions(
    *,
    names: tuple[str, ...] = NAMES,
    size: int = 224,
    batch_size: int = 64,
    repeats: int = 3,
) -> dict:
    """Time corruptions, and `random_corrupt`, on the default device.

    Times are of compiled calls whose images are donated, as inside a training step,
    averaged over the severities, the median of `repeats`; of `random_corrupt`, the mean
    of several draws. On an accelerator several calls are started before the last is
    waited for. Where the published package is installed, it runs in as many
    processes as there are cores, in turn with ours.

    Args:
        names: which corruptions; `random_corrupt` draws from the seen ones of them.
        size: side of the images in pixels.
        batch_size: images per call.
        repeats: rounds through the severities.

    Returns:
        `kinds`, by name `ms` per image and, where published code was there,
        `published_ms`; `seen`, `unseen`: means of those; `random` and its `ratio` to
        the mean of its kinds, with the seconds to compile it and the MiB it needs
        beside its images.

    Raises:
        InputError: an unknown name, or a number that is too small.
    """
    check_names(names)
    check_at_least(MIN_SIZE, size=size)
    check_at_least(1, batch_size=batch_size, repeats=repeats)
    smooth = jax.random.uniform(
        jax.random.key(0), (batch_size, size // 8, size // 8, 3)
    )
    images = jax.image.resize(smooth, (batch_size, size, size, 3), "linear")
    with ThreadPoolExecutor(cores()) as pool:  # XLA holds no lock while it compiles
        compiling = pool.map(partial(_compile_kind, images=images), names)
        compiled = dict(
            zip(names, tqdm(compiling, "compiling", len(names)), strict=True)
        )
    kinds = {}
    with processes_with((PUBLISHED,), _adapt_published, cores()) as processes:
        for name in tqdm(names, "corruptions"):
            kinds[name] = {"ms": _time_kind(compiled[name], images, repeats)}
            if processes is not None:
                example = np.asarray(images[0] * 255).astype(np.uint8)
                kinds[name]["published_ms"] = _time_published(processes, name, example)
    results: dict[str, Any] = {"kinds": kinds}
    for title, members in (("unseen", UNSEEN), ("seen", SEEN)):
        rows = [kinds[name] for name in names if name in members]
        if rows:
            results[title] = {
                column: float(np.mean([row[column] for row in rows]))
                for column in rows[0]
            }
    if "seen" in results:
        seen = [name for name in names if name in SEEN]
        results["random"] = _time_random(seen, images, 5 * repeats)
        results["random"]["ratio"] = results["random"]["ms"] / results["seen"]["ms"]
    return results


def format_corruptions_bench(results: dict) -> str:
    """Return `bench_corruptions`' results as lines of text."""
    rows = dict(results["kinds"])
    published = "published_ms" in next(iter(rows.values()))
    for title, members in (("seen", SEEN), ("unseen", UNSEEN)):
        if title in results:
            count = len(set(members) & set(results["kinds"]))
            rows[f"mean of {count} {title}"] = results[title]
    if published:
        rows = {n: r | {"ratio": r["published_ms"] / r["ms"]} for n, r in rows.items()}
    columns = {
        "rmjax": ("ms", ".3f"),
        PUBLISHED: ("published_ms", ".3f"),
        "ratio": ("ratio", ".1f"),
    }
    lines = format_table("ms per image", columns, rows)
    if "random" in results:
        drawn = results["random"]
        lines.append(
            f"random_corrupt of the seen: {drawn['ms']:.3f} ms per image, "
            f"{drawn['ratio']:.2f} times their mean; compiled in "
            f"{drawn['compile_seconds']:.0f} s; {drawn['memory_mib']:.0f} MiB beside "
            "the images"
        )
    if not published:
        lines.append(f"to compare with the published code: pip install {PUBLISHED}")
    return "\n".join(lines)


def _compile_kind(name: str, images: jax.Array) -> Callable:
    """Compile a corruption of images that it may destroy, its severity left open."""
    run = jax.jit(partial(corrupt, name=name), donate_argnums=1)
    return run.lower(jax.random.key(0), images, severity=jnp.int32(1)).compile()


def _time_kind(compiled: Callable, images: jax.Array, repeats: int) -> float:
    """Return milliseconds per image, over all severities."""
    key = jax.random.key(0)

    def all_severities() -> float:
        return sum(
            _time(compiled, key, images, severity=jnp.int32(severity))
            for severity in SEVERITIES
        )

    all_severities()  # warms up
    seconds = float(np.median([all_severities() for _ in range(repeats)]))
    return 1000 * seconds / len(SEVERITIES) / len(images)


def _time_random(names: Sequence[str], images: jax.Array, repeats: int) -> dict:
    run = jax.jit(partial(random_corrupt, names=names, rate=1.0), donate_argnums=1)
    all_keys = jax.random.split(jax.random.key(0), (repeats + 1, len(images)))
    start = time.perf_counter()
    compiled = run.lower(all_keys[0], images).compile()
    compile_seconds = time.perf_counter() - start
    seconds = [_time(compiled, keys, images) for keys in all_keys][1:]  # one warms up
    memory = compiled.memory_analysis()
    return {
        "ms": 1000 * float(np.mean(seconds)) / len(images),
        "compile_seconds": compile_seconds,
        "memory_mib": memory.temp_size_in_bytes / 2**20 if memory else float("nan"),
    }


def _time(
    compiled: Callable, key: jax.Array, images: jax.Array, **arguments: jax.Array
) -> float:
    """Return the seconds of a call on a copy of the images, which it may destroy."""
    count = calls_ahead(jax.devices())
    copies = jax.block_until_ready([images + 0 for _ in range(count)])

    def call() -> None:
        jax.block_until_ready([compiled(key, copy, **arguments) for copy in copies])

    return seconds_of(call) / count


def _time_published(processes: Executor, name: str, image: np.ndarray) -> float:
    """Return milliseconds per image of all processes together, over all severities."""
    seconds = list(processes.map(partial(_run_published, name), [image] * cores()))
    return 1000 * float(np.mean(seconds)) / cores()


def _run_published(name: str, image: np.ndarray) -> float:
    """Return the seconds that one process takes for an image."""
    _adapt_published()
    import imagecorruptions

    def all_severities() -> None:
        for severity in SEVERITIES:
            imagecorruptions.corrupt(image, corruption_name=name, severity=severity)

    first = seconds_of(all_severities)
    # A second at least, but glass blur is several by itself.
    more = int(0.2 * len(SEVERITIES) / first)
    rounds = [first, *(seconds_of(all_severities) for _ in range(more))]
    return float(np.median(rounds)) / len(SEVERITIES)


def _adapt_published() -> None:
    """Let version 1.1.2 run on today's packages, one thread per process."""
    import cv2
    from imagecorruptions import corruptions
    from skimage.filters import gaussian

    cv2.setNumThreads(1)
    setattr(np, "float_", np.float64)  # noqa: B010 - gone since NumPy 2, called there

    def adapted(image: np.ndarray, sigma: float, multichannel: bool = False, **rest):
        axis = -1 if multichannel else None  # multichannel is gone since 0.26
        return gaussian(image, sigma=sigma, channel_axis=axis, **rest)

    corruptions.gaussian = adapted
