"""What a sweep found: means over seeds, paired differences to one cell, intervals."""

from collections.abc import Mapping, Sequence

import numpy as np

from rmjax.errors import InputError
from rmjax.evaluation.bootstrap import DRAWS, Resamples, draw_resamples, interval
from rmjax.evaluation.differences import (
    METRICS,
    Evaluated,
    check_comparable,
    parts_of,
    right_by_set,
)
from rmjax.sweep.intervals import (
    Estimate,
    ImageSpread,
    estimate,
    image_spread,
    smallest_detectable,
)
from rmjax.sweep.runs import Cell

# Of a cell, semantics (seen, new_pairs, unseen, and combined of all), set of conditions
# and metric; `difference` is against the reference, by the `paired_seeds` both have, and
# `detectable` the true one that they would show in 0.8 of the cases.
COLUMNS = (
    "cell present semantics set metric seeds mean mean_low mean_high paired_seeds "
    "difference difference_low difference_high detectable"
).split()

BySeed = Mapping[int, Evaluated]  # the evaluated runs of a cell
# How often each image is answered rightly, in [0, 1], `[N]`, and which images count; by
# semantics, set of conditions and metric.
Scores = dict[tuple[str, str, str], tuple[np.ndarray, np.ndarray]]


def collect(
    cells: Mapping[Cell, BySeed], reference: str, draws: int = DRAWS
) -> tuple[list[dict], dict[str, str]]:
    """Compute every cell's means, and its differences to the reference.

    Args:
        cells: those that have runs, of which each cell's are of the same images.
        reference: label of the cell to compare with.
        draws: of the bootstrap.

    Returns:
        Rows of `COLUMNS`, None where there is no difference or interval. And by label,
        why a cell has no difference.
    """
    scores = {
        cell: {seed: _score(run) for seed, run in runs.items()}
        for cell, runs in cells.items()
    }
    base = next((cell for cell in cells if cell.label == reference), None)
    rows, reasons = [], {}
    drawn: tuple[np.ndarray, Resamples] | None = None
    for cell, runs in cells.items():
        why = None if cell is base else _why_alone(runs, cells[base] if base else None)
        if why:
            reasons[cell.label] = why
        compared = scores[base] if base and not why and cell is not base else {}
        group = _first(runs).answers["group"]
        if drawn is None or not np.array_equal(group, drawn[0]):
            # As a rule all cells have the same images.
            drawn = group, draw_resamples(group, draws)
        rows += _rows(cell, scores[cell], compared, drawn[1])
    return rows, reasons


def _rows(
    cell: Cell,
    scores: Mapping[int, Scores],
    reference: Mapping[int, Scores],
    drawn: Resamples,
) -> list[dict]:
    rows = []
    paired = [seed for seed in scores if seed in reference]
    for key, (_, chosen) in next(iter(scores.values())).items():
        of_image = {seed: own[key][0] for seed, own in scores.items()}
        changes = [of_image[seed] - reference[seed][key][0] for seed in paired]
        mean = _bounded(*_spread(list(of_image.values()), chosen, drawn), least=0)
        change: tuple = (None,) * 4
        if paired:
            spread = _spread(changes, chosen, drawn)
            change = *_bounded(*spread, least=-1), smallest_detectable(*spread)
        values = (cell.label, cell.present, *key, len(scores), *mean)
        values += (len(paired), *change)
        rows.append(dict(zip(COLUMNS, values, strict=True)))
    return rows


def _spread(
    scores: Sequence[np.ndarray], chosen: np.ndarray, drawn: Resamples
) -> tuple[np.ndarray, ImageSpread | None]:
    """Return seeds' means over some images, and how these vary with the images."""
    by_image = np.stack([values[chosen] for values in scores])
    spread = image_spread(by_image.mean(0), Resamples(drawn.code[chosen], drawn.counts))
    return by_image.mean(1), spread


def _bounded(by_seed: np.ndarray, images: ImageSpread | None, least: int) -> Estimate:
    """Estimate a mean; no end of its interval leaves `least` to 1.

    `least` is 0 for shares and -1 for differences. A share that is 0 or 1 throughout
    gets the exact interval that an evaluation gives it.
    """
    mean, low, high = estimate(by_seed, images)
    if low is not None and high is not None:
        return Estimate(mean, max(low, least), min(high, 1))
    groups = images.groups if images and least == 0 else 0
    return Estimate(mean, *interval(np.array([mean]), groups))


def _score(run: Evaluated) -> Scores:
    images = parts_of(run)
    if len(images) > 1:
        images["combined"] = np.concatenate(list(images.values()))
    right = {metric: right_by_set(run, metric) for metric in METRICS}
    return {
        (semantics, of_set, metric): (right[metric][of_set], chosen)
        for semantics, chosen in images.items()
        for of_set in right[METRICS[0]]
        for metric in METRICS
    }


def _why_alone(runs: BySeed, base: BySeed | None) -> str | None:
    """Return why a cell can't be compared with the reference; None if it can."""
    if base is None:
        return "the reference has no finished run"
    if not runs.keys() & base.keys():
        return "it has no finished seed that the reference has"
    try:
        check_comparable(_first(base), _first(runs))
    except InputError as error:
        return str(error)
    return None


def _first(runs: BySeed) -> Evaluated:
    return next(iter(runs.values()))
