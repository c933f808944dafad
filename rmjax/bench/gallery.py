"""Benchmark of the search in a gallery: exact, and approximate where faiss is there."""

import time
from functools import partial
from typing import Any

import numpy as np

from rmjax.bench.common import installed, seconds_of
from rmjax.gallery.search import (
    PROBED,
    Score,
    approximate,
    build_index,
    neighbours,
    prototypes,
)
from rmjax.utils.checks import check_at_least
from rmjax.utils.table import format_table

PER_GENERATOR = 50  # images of one
CHUNK = 2**16  # rows made at once


def bench_gallery(
    *,
    images: int = 1_000_000,
    dim: int = 256,
    rank: int = 16,
    queries: int = 100,
    probed: tuple[int, ...] = (32, 128, PROBED),
    repeats: int = 3,
) -> dict:
    """Time one query after another in a gallery of simulated fingerprints.

    A fingerprint is its generator's centre and as much again that varies from image to
    image, both normal in `rank` of the dimensions, and a little noise in all; queries
    are further images of enrolled generators. Search gets harder with `rank`.

    Args:
        images: enrolled, 50 of each generator.
        dim: length of a fingerprint.
        rank: dimensions in which they vary, up to `dim`.
        queries: images asked about, one by one.
        probed: lists that the approximate search looks into.
        repeats: rounds; medians count.

    Returns:
        `images`, `dim`, `rank`; `exact_ms` and `prototypes_ms` per query; where faiss is
        installed `build_s` and for each number of lists, `approximate`: `probed`, `ms`
        per query, and the shares of queries with the exact search's image and with its
        generator first, `recall_at_1` and `same_generator`.

    Raises:
        InputError: a number that is too small.
    """
    check_at_least(PER_GENERATOR, images=images)
    check_at_least(1, dim=dim, rank=rank, queries=queries, probed=probed)
    check_at_least(1, repeats=repeats)
    rank = min(rank, dim)
    made, asked = _simulate(images, dim, rank, queries)
    starts = np.arange(0, images, PER_GENERATOR)
    results: dict[str, Any] = {"images": images, "dim": dim, "rank": rank}
    results["queries"] = queries
    results["exact_ms"], exact = _time(neighbours(made, starts), asked, repeats)
    results["prototypes_ms"], _ = _time(prototypes(made, starts), asked, repeats)
    if not installed("faiss"):
        return results
    start = time.perf_counter()
    index = build_index(made)
    results["build_s"] = time.perf_counter() - start
    results["approximate"] = []
    for lists in probed:
        index.nprobe = lists
        ms, scores = _time(approximate(index, starts), asked, repeats)
        # The same image, but for rounding: the best similarities are equal.
        same = np.isclose(scores.max(1), exact.max(1), atol=1e-5)
        results["approximate"].append(
            {
                "probed": lists,
                "ms": ms,
                "recall_at_1": float(same.mean()),
                "same_generator": float(np.mean(scores.argmax(1) == exact.argmax(1))),
            }
        )
    return results


def format_gallery_bench(results: dict) -> str:
    """Return the figures as lines of text."""
    rows = {
        "neighbours, exact": {
            "ms": results["exact_ms"],
            "recall_at_1": 1,
            "same_generator": 1,
        },
        "prototypes, exact": {"ms": results["prototypes_ms"]},
    }
    for row in results.get("approximate", ()):
        rows[f"neighbours, {row['probed']} lists probed"] = row
    columns = {
        "ms per query": ("ms", ".2f"),
        "recall@1": ("recall_at_1", ".3f"),
        "same generator": ("same_generator", ".3f"),
    }
    if "build_s" in results:
        last = f"index built in {results['build_s']:.0f} s"
    else:
        last = "to compare with the approximate search: pip install rmjax[ann]"
    return "\n".join(
        [
            f"{results['images']} images x {results['dim']} floats, varying in "
            f"{results['rank']} dimensions; one query at a time",
            *format_table("", columns, rows),
            last,
        ]
    )


def _simulate(
    images: int, dim: int, rank: int, queries: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return directions of enrolled images and of queries."""
    rng = np.random.default_rng(0)
    basis = rng.standard_normal((rank, dim), np.float32)
    centres = rng.standard_normal((-(-images // PER_GENERATOR), rank), np.float32)

    def draw(generator: np.ndarray) -> np.ndarray:
        inner = rng.standard_normal((len(generator), rank), np.float32)
        noise = rng.standard_normal((len(generator), dim), np.float32)
        rows = (centres[generator] + inner) @ basis + 0.1 * noise
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    made = np.empty((images, dim), np.float32)
    for first in range(0, images, CHUNK):
        rows = np.arange(first, min(first + CHUNK, images))
        made[rows] = draw(rows // PER_GENERATOR)
    return made, draw(rng.integers(len(centres), size=queries))


def _time(score: Score, queries: np.ndarray, repeats: int) -> tuple[float, np.ndarray]:
    """Return the median milliseconds per query, and the scores."""
    scores = [score(query[None]) for query in queries]  # warms up
    times = [
        seconds_of(partial(score, query[None]))
        for _ in range(repeats)
        for query in queries
    ]
    return 1000 * float(np.median(times)), np.concatenate(scores)
