"""What a sweep found: means over seeds, paired differences to one cell, intervals."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rmjax.errors import InputError
from rmjax.evaluation.bootstrap import DRAWS, Resamples, draw_resamples, interval
from rmjax.evaluation.differences import (
    METRICS,
    Evaluated,
    check_comparable,
    parts_of,
    read_run,
    right_by_set,
)
from rmjax.sweep.intervals import Estimate, estimate, image_spread


@dataclass(frozen=True)
class Found:
    """The evaluated runs of a cell.

    Attributes:
        label: of the cell.
        present: whether it is in the grid.
        runs: by seed.
    """

    label: str
    present: bool
    runs: dict[int, Evaluated]


# By group of semantics, set of conditions and metric: how often each image is answered
# rightly, in [0, 1], `[N]`, and which images are of the group.
Scores = dict[tuple[str, str, str], tuple[np.ndarray, np.ndarray]]


def read_found(
    label: str, present: bool, folders: dict[int, Path], evaluation: str
) -> Found:
    """Read the evaluations of a cell's runs.

    Args:
        label: of the cell.
        present: whether it is in the grid.
        folders: of the runs, by seed.
        evaluation: name of theirs.

    Raises:
        InputError: one can't be read, or they are not of the same images.
    """
    runs = {seed: read_run(folder, evaluation) for seed, folder in folders.items()}
    first = next(iter(runs.values()), None)
    for run in runs.values():
        check_comparable(first, run)
    return Found(label, present, runs)


def collect(
    found: Sequence[Found], reference: str, draws: int = DRAWS
) -> tuple[list[dict], dict[str, str]]:
    """Compute every cell's means, and its differences to the reference.

    Args:
        found: the cells that have runs.
        reference: label of the cell to compare with.
        draws: of the bootstrap.

    Returns:
        Rows, one for each cell, group of semantics (seen, unseen, and combined of
        both), set of conditions and metric: `cell`, `present`, `semantics`, `set`,
        `metric`, `seeds`, `mean`, `mean_low`, `mean_high`, and against the reference,
        by the seeds that both have, `paired_seeds`, `difference`, `difference_low`,
        `difference_high`, None where there is none. And by label, why a cell has no
        difference.
    """
    scored = {cell.label: _score(cell) for cell in found}
    base = next((cell for cell in found if cell.label == reference), None)
    rows, reasons = [], {}
    group, drawn = None, None
    for cell in found:
        why = _why_alone(cell, base)
        if why:
            reasons[cell.label] = why
        other = scored[reference] if base and not why and cell is not base else None
        own = _first(cell).answers["group"]
        if not np.array_equal(own, group):  # as a rule all cells have the same images
            group, drawn = own, draw_resamples(own, draws)
        rows += _rows(cell, scored[cell.label], other, drawn)
    return rows, reasons


def _rows(
    cell: Found,
    scores: dict[int, Scores],
    reference: dict[int, Scores] | None,
    drawn: Resamples,
) -> list[dict]:
    rows = []
    for key in next(iter(scores.values())):
        mean = _estimate([own[key] for own in scores.values()], drawn, 0)
        pairs = [
            (own[key][0] - reference[seed][key][0], own[key][1])
            for seed, own in scores.items()
            if reference and seed in reference
        ]
        change = _estimate(pairs, drawn, -1) if pairs else None
        head = {"cell": cell.label, "present": cell.present}
        head |= dict(zip(("semantics", "set", "metric"), key, strict=True))
        rows.append(
            head
            | {"seeds": mean.seeds}
            | {"mean": mean.mean, "mean_low": mean.low, "mean_high": mean.high}
            | {
                "paired_seeds": change.seeds if change else 0,
                "difference": change and change.mean,
                "difference_low": change and change.low,
                "difference_high": change and change.high,
            }
        )
    return rows


def _estimate(
    scores: Sequence[tuple[np.ndarray, np.ndarray]], drawn: Resamples, least: int
) -> Estimate:
    """Estimate from seeds' scores of the same images; no end leaves `least` to 1.

    `least` is 0 for shares and -1 for differences. A share that is 0 or 1 throughout
    gets the exact interval that an evaluation gives it.
    """
    chosen = scores[0][1]
    by_image = np.stack([values[chosen] for values, _ in scores])
    spread = image_spread(by_image.mean(0), drawn.code[chosen], drawn.counts)
    found = estimate(by_image.mean(1), spread)
    if found.low is not None:
        ends = max(found.low, least), min(found.high, 1)
    else:
        groups = spread.groups if spread and least == 0 else 0
        ends = interval(np.array([found.mean]), groups)
    return Estimate(found.mean, *ends, found.seeds)


def _score(cell: Found) -> dict[int, Scores]:
    """Return by seed what `collect` needs of each run."""
    return {seed: _score_run(run) for seed, run in cell.runs.items()}


def _score_run(run: Evaluated) -> Scores:
    groups = parts_of(run)
    if len(groups) > 1:
        groups["combined"] = np.concatenate(list(groups.values()))
    right = {metric: right_by_set(run, metric) for metric in METRICS}
    return {
        (group, part, metric): (right[metric][part], chosen)
        for group, chosen in groups.items()
        for part in right[METRICS[0]]
        for metric in METRICS
    }


def _why_alone(cell: Found, base: Found | None) -> str | None:
    """Return why a cell can't be compared with the reference; None if it can."""
    if base is None:
        return "the reference has no finished run"
    if cell is base:
        return None
    if not set(cell.runs) & set(base.runs):
        return "it has no finished seed that the reference has"
    try:
        check_comparable(_first(base), _first(cell))
    except InputError as error:
        return str(error)
    return None


def _first(cell: Found) -> Evaluated:
    return next(iter(cell.runs.values()))
