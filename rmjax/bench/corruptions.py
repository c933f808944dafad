"""Benchmark of the corruptions, beside the published code in the same run."""

import logging
import multiprocessing
import multiprocessing.pool
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

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
from rmjax.errors import InputError
from rmjax.utils.processes import cores

logger = logging.getLogger(__name__)

# The published code, packaged: NumPy, OpenCV and Pillow.
PUBLISHED = "imagecorruptions"


def bench_corruptions(
    *,
    names: tuple[str, ...] = NAMES,
    size: int = 224,
    batch_size: int = 64,
    repeats: int = 3,
    show_progress: bool = True,
) -> dict:
    """Time corruptions, and `random_corrupt`, on the default device.

    Times are of compiled calls whose images are donated, as inside a training step,
    averaged over the severities, the median of `repeats`; of `random_corrupt`, the mean
    of several draws. Where the published package is
    installed, it runs in as many processes as there are cores, in turn with ours.

    Args:
        names: which corruptions; `random_corrupt` draws from the seen ones of them.
        size: side of the images in pixels.
        batch_size: images a call.
        repeats: rounds through the severities.
        show_progress: whether to draw a bar.

    Returns:
        `kinds`, by name `ms` an image and, where published code was there,
        `published_ms`; `seen`, `unseen`: means of those; `random` and its `ratio` to
        the mean of its kinds, with the seconds to compile it and the MiB it needs
        beside its images.

    Raises:
        InputError: an unknown name, or a number that is too small.
    """
    check_names(names)
    if size < MIN_SIZE or batch_size < 1 or repeats < 1:
        raise InputError(
            f"size = {size}, batch_size = {batch_size}, repeats = {repeats}: give at "
            f"least {MIN_SIZE}, 1 and 1"
        )
    smooth = jax.random.uniform(
        jax.random.key(0), (batch_size, size // 8, size // 8, 3)
    )
    images = jax.image.resize(smooth, (batch_size, size, size, 3), "linear")
    kinds = {}
    pool = _published_pool()
    try:
        for name in tqdm(names, "corruptions", disable=not show_progress):
            kinds[name] = {"ms": _time_kind(name, images, repeats)}
            if pool is not None:
                example = np.asarray(images[0] * 255).astype(np.uint8)
                kinds[name]["published_ms"] = _time_published(pool, name, example)
    finally:
        if pool is not None:
            pool.terminate()
    seen, unseen = ([n for n in names if n in part] for part in (SEEN, UNSEEN))
    results = {"kinds": kinds}
    if unseen:
        results["unseen"] = _mean(kinds, unseen)
    if seen:
        results["seen"] = _mean(kinds, seen)
        results["random"] = _time_random(seen, images, 5 * repeats)
        results["random"]["ratio"] = results["random"]["ms"] / results["seen"]["ms"]
    return results


def format_bench(results: dict) -> str:
    """Return `bench_corruptions`' results as lines of text."""
    published = "published_ms" in next(iter(results["kinds"].values()))
    lines = [
        f"{'ms an image':<20}{'rmjax':>9}" + f"{PUBLISHED:>18}{'ratio':>8}" * published
    ]

    def row(label: str, times: dict) -> str:
        line = f"{label:<20}{times['ms']:>9.3f}"
        if published:
            ratio = times["published_ms"] / times["ms"]
            line += f"{times['published_ms']:>18.3f}{ratio:>8.1f}"
        return line

    lines += [row(name, times) for name, times in results["kinds"].items()]
    for part, members in (("seen", SEEN), ("unseen", UNSEEN)):
        if part in results:
            count = len(set(members) & set(results["kinds"]))
            lines.append(row(f"mean of {count} {part}", results[part]))
    if "random" in results:
        drawn = results["random"]
        lines.append(
            f"random_corrupt of the seen: {drawn['ms']:.3f} ms an image, "
            f"{drawn['ratio']:.2f} times their mean; compiled in "
            f"{drawn['compile_seconds']:.0f} s; {drawn['memory_mib']:.0f} MiB beside "
            "the images"
        )
    if not published:
        lines.append(f"to compare with the published code: pip install {PUBLISHED}")
    return "\n".join(lines)


def _time_kind(name: str, images: jax.Array, repeats: int) -> float:
    """Return milliseconds an image, over all severities."""
    run = jax.jit(partial(corrupt, name=name), donate_argnums=1)
    key = jax.random.key(0)
    run = run.lower(key, images, severity=jnp.int32(1)).compile()
    rounds = []
    for _ in range(repeats + 1):  # the first warms up
        seconds = 0.0
        for severity in SEVERITIES:
            seconds += _time(run, key, images, severity=jnp.int32(severity))
        rounds.append(seconds)
    return 1000 * float(np.median(rounds[1:])) / len(SEVERITIES) / len(images)


def _time_random(names: Sequence[str], images: jax.Array, repeats: int) -> dict:
    draw = partial(random_corrupt, names=names, rate=1.0)
    run = jax.jit(draw, donate_argnums=1)
    all_keys = jax.random.split(jax.random.key(0), (repeats + 1, len(images)))
    start = time.perf_counter()
    run = run.lower(all_keys[0], images).compile()
    compile_seconds = time.perf_counter() - start
    seconds = [_time(run, keys, images) for keys in all_keys][1:]
    memory = run.memory_analysis()
    return {
        "ms": 1000 * float(np.mean(seconds)) / len(images),
        "compile_seconds": compile_seconds,
        "memory_mib": memory.temp_size_in_bytes / 2**20 if memory else float("nan"),
    }


def _time(run: Callable, key: jax.Array, images: jax.Array, **arguments) -> float:
    """Return the seconds of one call on a copy of the images."""
    copy = jax.block_until_ready(images + 0)
    start = time.perf_counter()
    jax.block_until_ready(run(key, copy, **arguments))
    return time.perf_counter() - start


def _mean(kinds: dict[str, dict], names: Sequence[str]) -> dict[str, float]:
    columns = kinds[names[0]]
    return {c: float(np.mean([kinds[name][c] for name in names])) for c in columns}


def _published_pool() -> multiprocessing.pool.Pool | None:
    """Start a process a core with the published package; None where it does not run."""
    if find_spec(PUBLISHED) is None:
        return None
    try:
        _adapt_published()  # here first: a pool would try for ever
    except (ImportError, AttributeError) as error:
        logger.warning("%s is installed but does not run: %s", PUBLISHED, error)
        return None
    return multiprocessing.get_context("spawn").Pool(cores(), _adapt_published)


def _time_published(
    pool: multiprocessing.pool.Pool, name: str, image: np.ndarray
) -> float:
    """Return milliseconds an image of all processes together, over all severities."""
    seconds = pool.map(partial(_run_published, name), [image] * cores(), chunksize=1)
    return 1000 * float(np.mean(seconds)) / cores()


def _run_published(name: str, image: np.ndarray) -> float:
    """Return the seconds that one process takes for an image."""
    import imagecorruptions

    def once() -> float:
        start = time.perf_counter()
        for severity in SEVERITIES:
            imagecorruptions.corrupt(image, corruption_name=name, severity=severity)
        return (time.perf_counter() - start) / len(SEVERITIES)

    first = once()
    # A fifth of a second at least, but glass blur is a second by itself.
    return float(np.median([first] + [once() for _ in range(int(0.2 / first))]))


def _adapt_published() -> None:
    """Let version 1.1.2 run on today's packages, one thread a process."""
    import cv2
    import numpy
    from imagecorruptions import corruptions
    from skimage.filters import gaussian

    cv2.setNumThreads(1)
    numpy.float_ = numpy.float64  # noqa: NPY201 - gone since NumPy 2, called there

    def adapted(image: np.ndarray, sigma: float, multichannel: bool = False, **rest):
        axis = -1 if multichannel else None  # multichannel is gone since 0.26
        return gaussian(image, sigma=sigma, channel_axis=axis, **rest)

    corruptions.gaussian = adapted
