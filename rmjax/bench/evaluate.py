"""Benchmark of an evaluation, beside the network's bare forward pass in the same run."""

import tempfile
import time
from pathlib import Path

import jax
import numpy as np
from tqdm import tqdm

from rmjax.data.cache import ImageCache
from rmjax.data.dataset import take
from rmjax.errors import InputError
from rmjax.evaluation.predict import Part, Runner, make_runner, predict_grid
from rmjax.evaluation.protocol import measure_grid
from rmjax.evaluation.robustness import parse_suite
from rmjax.experiment import parallel
from rmjax.experiment.data import open_data
from rmjax.experiment.step import PyTree
from rmjax.inference.attributor import load

SECONDS = 2.0  # of forward passes a figure


def bench_evaluate(
    workdir: str | Path,
    *,
    suite: str = "full",
    images: int = 512,
    repeats: int = 3,
    data_dir: str | None = None,
    show_progress: bool = True,
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
        show_progress: whether to draw a bar.

    Returns:
        `images`, `conditions`; images/s as `forward`, `clean` and `grid` (each
        condition counted); `clean_share`, of the forward pass; `grid_ratio`, the time
        of the grid over that of as many forward passes; `compile_s`, of all
        conditions; `measure_s`, of the figures of all cells; `whole_ratio`, with both.

    Raises:
        InputError: no such run, suite or data, or a number under 1.
    """
    if images < 1 or repeats < 1:
        raise InputError(f"images = {images}, repeats = {repeats}: give at least 1")
    conditions = parse_suite(suite)
    run = load(workdir)
    if data_dir:
        run.config.data.dir = data_dir
    data = open_data(run.config)
    rows = np.arange(min(images, data.seen.size("test")))
    part = take(data.seen, "test", rows), ("test",)
    made = make_runner(run.config, len(data.sources), run.devices)
    # Decoded every time, as it is in an evaluation: an image comes once there.
    runner = Runner(**vars(made) | {"cache": ImageCache(0)})
    first = take(data.seen, "test", rows[: runner.batch_size]), ("test",)

    def clean() -> float:
        start = time.perf_counter()
        runner.predict(run.variables, part)
        return len(rows) / (time.perf_counter() - start)

    def grid(over: Part) -> tuple[float, float]:
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
            half = time.perf_counter()
            measure_grid(answers, data.sources, run.calibration)
            return half - start, time.perf_counter() - half

    cold, _ = grid(first)
    compile_s = max(cold - grid(first)[0], 0.0)
    measure_s = []
    found: dict[str, list[float]] = {"forward": [], "clean": [], "grid": []}
    for _ in tqdm(range(repeats), "evaluation", disable=not show_progress):
        found["forward"].append(_time_forward(runner, run.variables))
        found["clean"].append(clean())
        seconds, after = grid(part)
        found["grid"].append(len(rows) * len(conditions) / seconds)
        measure_s.append(after)
    speed = {name: float(np.median(values)) for name, values in found.items()}
    passes = len(rows) * len(conditions)
    after = float(np.median(measure_s))
    whole = passes / speed["grid"] + compile_s + after
    return {
        "images": len(rows),
        "conditions": len(conditions),
        **speed,
        "clean_share": speed["clean"] / speed["forward"],
        "grid_ratio": speed["forward"] / speed["grid"],
        "compile_s": compile_s,
        "measure_s": after,
        "whole_ratio": whole * speed["forward"] / passes,
    }


def _time_forward(runner: Runner, variables: PyTree) -> float:
    """Return images/s of the network alone, on one batch that is on the devices."""
    shape = (runner.batch_size, *[runner.config.data.eval_size] * 2, 3)
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    batch = parallel.shard({"image": pixels}, runner.devices)
    jax.block_until_ready(runner.step(variables, batch))
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < SECONDS:
        jax.block_until_ready(runner.step(variables, batch))
        count += runner.batch_size
    return count / (time.perf_counter() - start)


def format_evaluate_bench(results: dict) -> str:
    """Return the figures as lines of text."""
    return "\n".join(
        [
            f"images a second over {results['images']} images",
            f"{'bare forward pass':<28}{results['forward']:>9.0f}",
            f"{'evaluation, clean':<28}{results['clean']:>9.0f}"
            f"{results['clean_share']:>9.2f} of the forward pass",
            f"{'grid of ' + str(results['conditions']) + ' conditions':<28}"
            f"{results['grid']:>9.0f}{results['grid_ratio']:>9.2f} times as many "
            "forward passes",
            f"compilation {results['compile_s']:.0f} s, figures "
            f"{results['measure_s']:.0f} s; with both {results['whole_ratio']:.2f} times",
        ]
    )
