"""Benchmark of an evaluation, beside the network's bare forward pass in the same run."""

import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
from tqdm import tqdm

from rmjax.bench.common import (
    calls_ahead,
    median_of_rounds,
    seconds_of,
    seconds_per_call,
)
from rmjax.data.dataset import take
from rmjax.data.pipeline import ImageCache
from rmjax.errors import InputError
from rmjax.evaluation.predict import Part, Runner, make_runner, predict_grid
from rmjax.evaluation.protocol import measure_grid
from rmjax.evaluation.robustness import parse_suite
from rmjax.experiment import parallel
from rmjax.experiment.data import open_data
from rmjax.experiment.step import PyTree
from rmjax.inference.attributor import load
from rmjax.utils.checks import check_at_least
from rmjax.utils.table import format_table


def bench_evaluate(
    workdir: str | Path,
    *,
    suite: str = "full",
    images: int = 512,
    repeats: int = 3,
    data_dir: str | None = None,
) -> dict:
    """Time the evaluation of a run on test images of seen semantics.

    The forward pass is that of one batch, again and again, its pixels on the devices
    already. Evaluation decodes every image; in the grid once for all conditions. The
    three are measured in turn, medians count; compilation and what follows the network
    (scores, intervals, calibration errors) are figures of their own. What is done once
    for an evaluation is left out: validation images, the map, the files.

    Args:
        workdir: folder of a training run.
        suite: the conditions of the grid, see `robustness.parse_suite`.
        images: how many test images; all if there are fewer.
        repeats: rounds.
        data_dir: where the data lies now, if not where the run found it.

    Returns:
        `images`, `conditions`; images/s as `forward`, `clean` and `grid` (each
        condition counted); `clean_share`, of the forward pass; `grid_ratio`, the time
        of the grid over that of as many forward passes; `compile_s`, of all
        conditions; `measure_s`, of the figures of all conditions; `whole_ratio`, with both.

    Raises:
        InputError: no such run, suite or data, or a number under 1.
    """
    check_at_least(1, images=images, repeats=repeats)
    conditions = parse_suite(suite)
    run = load(workdir)
    if run.features is not None:
        raise InputError(f"{workdir} looks at stored features: it reads no images")
    if data_dir:
        run.config.data.dir = data_dir
    data = open_data(run.config)
    rows = np.arange(min(images, data.seen.size("test")))
    test_images = take(data.seen, "test", rows), ("test",)
    # Decoded every time, as it is in an evaluation: an image comes once there.
    runner = make_runner(run.config, len(data.sources), run.devices)
    runner = replace(runner, cache=ImageCache(0))
    first = take(data.seen, "test", rows[: runner.batch_size]), ("test",)

    passes = len(rows) * len(conditions)
    calls = calls_ahead(runner.devices)
    forward = _forward(runner, run.variables, calls)

    def grid(over: Part) -> tuple[float, float]:
        """Return the seconds of the network's answers, and of what follows them."""
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            answers = predict_grid(
                runner,
                run.variables,
                {"seen": over},
                conditions,
                Path(folder) / "answers",
                tqdm(disable=True),
            )
            assert answers is not None  # as in any process but the first
            answered = time.perf_counter()
            measure_grid(answers, data.sources, run.calibration)
            return answered - start, time.perf_counter() - answered

    def measure() -> dict[str, float]:
        seconds, after = grid(test_images)
        return {
            "forward": calls * runner.batch_size / seconds_per_call(forward),
            "clean": len(rows)
            / seconds_of(lambda: runner.predict(run.variables, test_images)),
            "grid": passes / seconds,
            "measure_s": after,
        }

    cold, _ = grid(first)
    compile_s = max(cold - grid(first)[0], 0.0)
    speed = median_of_rounds(measure, repeats, "evaluation")
    whole = passes / speed["grid"] + compile_s + speed["measure_s"]
    return {
        "images": len(rows),
        "conditions": len(conditions),
        **speed,
        "clean_share": speed["clean"] / speed["forward"],
        "grid_ratio": speed["forward"] / speed["grid"],
        "compile_s": compile_s,
        "whole_ratio": whole * speed["forward"] / passes,
    }


def format_evaluate_bench(results: dict) -> str:
    """Return the figures as lines of text."""
    rows = {
        "bare forward pass": results["forward"],
        "evaluation, clean": results["clean"],
        f"grid of {results['conditions']} conditions": results["grid"],
    }
    lines = format_table(
        f"over {results['images']} images",
        {"images per second": ("speed", ".0f")},
        {name: {"speed": speed} for name, speed in rows.items()},
    )
    lines[2] += f"  {results['clean_share']:.2f} of the forward pass"
    lines[3] += f"  {results['grid_ratio']:.2f} times as many forward passes"
    last = (
        f"compilation {results['compile_s']:.0f} s, figures "
        f"{results['measure_s']:.0f} s; with both {results['whole_ratio']:.2f} times"
    )
    return "\n".join([*lines, last])


def _forward(runner: Runner, variables: PyTree, calls: int) -> Callable[[], object]:
    """Return so many forward passes of one batch that is on the devices already."""
    shape = (runner.batch_size, *[runner.config.data.eval_size] * 2, 3)
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    batch = parallel.shard({"image": pixels}, runner.devices)
    return lambda: jax.block_until_ready(
        [runner.step(variables, batch) for _ in range(calls)]
    )
