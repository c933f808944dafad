"""The figures of the robustness and generalisation protocol, from a grid of answers.

Everything here is a function of what the network said and of what was true.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from rmjax.evaluation.bootstrap import (
    DRAWS,
    Resamples,
    draw_resamples,
    interval,
    resample_counts,
)
from rmjax.evaluation.calibration import (
    balanced_weights,
    measure_calibration,
    reliability_bins,
    top_label,
)
from rmjax.evaluation.metrics import (
    SCORES,
    Predictions,
    confusion_scores,
    count_confusion,
    recall,
    summarize,
)
from rmjax.evaluation.predict import Grid
from rmjax.evaluation.robustness import CLEAN, SETS, Condition
from rmjax.inference.calibration import UNCALIBRATED, Calibration

COMBINED = "combined"  # the name of seen and unseen semantics together

Samples = dict[str, np.ndarray]


def measure_grid(
    grid: Grid,
    sources: Sequence[str],
    calibration: Calibration,
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> dict:
    """Compute every figure of every cell, and what they sum up to.

    Args:
        grid: the answers.
        sources: class names.
        calibration: of the checkpoint that answered.
        draws: bootstrap draws for the intervals.
        seed: of these draws.

    Returns:
        `cells`, one dict for each condition and group of semantics; `summary`, means
        over the values of a kind and then over kinds, with the worst cell; `confusion`
        and `reliability` by group and set of conditions.
    """
    # One draw for all parts: a group may have images in several.
    whole = draw_resamples(grid.truth["group"], draws, seed)
    resamples = {
        part: Resamples(whole.code[rows], whole.counts)
        for part, rows in grid.rows.items()
    }
    groups = _groups(grid)
    sizes = {
        group: len(np.unique(np.concatenate([resamples[p].code for p in parts])))
        for group, parts in groups.items()
    }
    cells: list[dict] = []
    samples: dict[str, dict] = {group: {} for group in groups}
    confusion: dict[str, dict] = {group: {} for group in groups}
    stated: dict[str, dict] = {group: {} for group in groups}
    for number, condition in enumerate(grid.conditions):
        for group, found, drawn in _by_group(grid, number, resamples, sources):
            cell = measure_cell(found, sources, calibration)
            counts = np.array(cell.pop("confusion"))
            del cell["recall"]  # of every cell it would be too much
            samples[group][str(condition)] = drawn
            head = _describe(condition) | {"semantics": group, "images": len(found)}
            for name in SCORES:
                bounds = _bounds(name, drawn[name], sizes[group])
                head |= {name: cell[name]} | bounds
            cells.append(head | cell)
            former = confusion[group].get(condition.set, 0)
            confusion[group][condition.set] = counts + former
            pool = stated[group].setdefault(condition.set, [])
            pool.append(_confidences(found, calibration))
    return {
        "cells": cells,
        "summary": {
            group: summarize_cells(cells, group, samples[group], sizes[group])
            for group in groups
        },
        "confusion": {
            group: {name: counts.tolist() for name, counts in found.items()}
            for group, found in confusion.items()
        },
        "reliability": {
            group: {name: _reliability(pool) for name, pool in found.items()}
            for group, found in stated.items()
        },
    }


def _by_group(
    grid: Grid,
    number: int,
    resamples: Mapping[str, Resamples],
    sources: Sequence[str],
) -> Iterator[tuple[str, Predictions, Samples]]:
    """Yield each group's predictions under a condition, and draws of their scores."""
    parts = {part: grid.predictions(number, part) for part in grid.rows}
    drawn = {part: _draw(parts[part], resamples[part], sources) for part in parts}
    for group, members in _groups(grid).items():
        scores = confusion_scores(sum(drawn[part] for part in members))
        found = Predictions.concatenate([parts[part] for part in members])
        yield group, found, scores


def _bounds(name: str, draws: np.ndarray, groups: int) -> dict[str, float | None]:
    """Return a score's interval as `*_low` and `*_high`."""
    low, high = interval(draws, groups if name.endswith("accuracy") else 0)
    return {f"{name}_low": low, f"{name}_high": high}


def _groups(grid: Grid) -> dict[str, tuple[str, ...]]:
    """Return the groups of semantics with the parts that they are made of."""
    groups = {part: (part,) for part in grid.rows}
    return groups | ({COMBINED: tuple(groups)} if len(groups) > 1 else {})


def _draw(
    predictions: Predictions, resamples: Resamples, sources: Sequence[str]
) -> np.ndarray:
    """Return the confusion matrices of all draws, `[draws, sources, sources]`."""
    n = len(sources)
    kind = predictions.source * n + predictions.guess
    return resample_counts(kind, n * n, resamples).reshape(-1, n, n)


def _describe(condition: Condition) -> dict:
    return {
        "condition": str(condition),
        "kind": condition.name,
        "set": condition.set,
        "value": None if condition == CLEAN else condition.value,
    }


def measure_cell(
    predictions: Predictions, sources: Sequence[str], calibration: Calibration
) -> dict:
    """Return the figures of one condition and group, `recall` and `confusion` too."""
    measured = measure_calibration(predictions, calibration)
    detection = {f"detection_{k}": v for k, v in measured["detection"].items()}
    return (
        summarize(predictions, sources)
        | measured["attribution"]
        | detection
        | measure_decisions(predictions, calibration)
    )


def measure_decisions(
    predictions: Predictions, calibration: Calibration
) -> dict[str, float | None]:
    """Return what the stored thresholds make of images of known sources.

    `tpr_at_F` and `fpr_at_F`: the share of synthetic and of real images that are
    called synthetic at the operating point of the stated false-positive rate F (None
    without such images); `rejected`: the share that is called unknown.
    """
    real = predictions.source == 0
    scores = calibration.detect(predictions.detection)
    found = {}
    for point in calibration.operating_points:
        called = scores >= point["threshold"]
        for name, rows in (("tpr", ~real), ("fpr", real)):
            share = float(called[rows].mean()) if rows.any() else None
            found[f"{name}_at_{point['fpr']:g}"] = share
    if calibration.reject:
        found["rejected"] = float(np.mean(calibration.rejects(predictions.attribution)))
    return found


def summarize_cells(
    cells: Sequence[dict],
    group: str,
    samples: Mapping[str, Samples],
    size: int,
) -> dict:
    """Average the scores over the values of each kind, then over the kinds of a set.

    Args:
        cells: of all groups.
        group: the one to summarise.
        samples: bootstrap draws of its scores, by condition.
        size: groups of images that were drawn from.

    Returns:
        By set of conditions (`clean`, and where there are any `seen_corruptions`,
        `unseen_corruptions` and `resharing`) the `SCORES` with `*_low` and `*_high`;
        `kinds`, the scores of every kind; `worst`, the condition of the least
        attribution accuracy.
    """
    own = [cell for cell in cells if cell["semantics"] == group]
    values = {name: {cell["condition"]: cell[name] for cell in own} for name in SCORES}
    kinds = {
        kind: _of_kind(own, kind) for kind in dict.fromkeys(c["kind"] for c in own)
    }
    summary: dict[str, dict] = {}
    for name, members in SETS.items():
        chosen = [kinds[kind] for kind in members if kind in kinds]
        if not chosen:
            continue
        summary[name] = {}
        for score in SCORES:
            summary[name][score] = _mean_value(values[score], chosen)
            draws = {c: samples[c][score] for kind in chosen for c in kind}
            summary[name] |= _bounds(score, _mean_of_means(draws, chosen), size)
    summary["kinds"] = {
        kind: {s: _mean_value(values[s], [conditions]) for s in SCORES}
        for kind, conditions in kinds.items()
    }
    worst = min(own, key=lambda cell: cell["attribution_accuracy"])
    kept = ("condition", "attribution_accuracy")
    summary["worst"] = {name: worst[name] for name in kept}
    return summary


def _of_kind(cells: Sequence[dict], kind: str) -> list[str]:
    return [cell["condition"] for cell in cells if cell["kind"] == kind]


def _mean_value(
    values: Mapping[str, float | None], kinds: Sequence[Sequence[str]]
) -> float | None:
    """Average as `_mean_of_means`; None if a value is not defined."""
    if any(values[condition] is None for kind in kinds for condition in kind):
        return None
    return float(_mean_of_means(values, kinds))


def _mean_of_means(
    values: Mapping[str, np.ndarray | float], kinds: Sequence[Sequence[str]]
) -> np.ndarray:
    """Average values, or draws of them, over the conditions of each kind, then kinds."""
    return np.mean([np.mean([values[c] for c in k], axis=0) for k in kinds], axis=0)


def _confidences(
    predictions: Predictions, calibration: Calibration
) -> dict[tuple[str, str], tuple[np.ndarray, np.ndarray]]:
    """Return stated probabilities, and what came true, before and after calibration."""
    truth = predictions.source
    found = {}
    for name, way in (("calibrated", calibration), ("uncalibrated", UNCALIBRATED)):
        top = top_label(way.attribute(predictions.attribution), truth)
        found["attribution", name] = top
        found["detection", name] = way.detect(predictions.detection), truth > 0
    return found


def _reliability(pool: Sequence[dict]) -> dict[str, dict[str, list]]:
    """Return the bins of reliability diagrams of what `_confidences` gave."""
    diagrams: dict[str, dict[str, list]] = {"attribution": {}, "detection": {}}
    for what, name in pool[0]:
        stated, happened = (
            np.concatenate([found[what, name][i] for found in pool]) for i in (0, 1)
        )
        weights = (
            balanced_weights(happened.astype(int)) if what == "detection" else None
        )
        diagrams[what][name] = reliability_bins(stated, happened, weights)
    return diagrams


def measure_clean(
    predictions: Predictions, sources: Sequence[str], semantics: Sequence[str]
) -> dict:
    """Return recall and confusion of clean images, as a whole and by semantic.

    Args:
        predictions: of the clean images of a group.
        sources: class names.
        semantics: names of the data set's semantics.
    """
    whole = summarize(predictions, sources)
    by_semantic, by_both = {}, {}
    for i in np.unique(predictions.semantic):
        part = predictions.where(predictions.semantic == i)
        counts = count_confusion(part.source, part.guess, len(sources))
        scores = confusion_scores(counts)
        by_semantic[semantics[i]] = {
            "images": len(part),
            **{name: float(scores[name]) for name in SCORES[:2]},
        }
        by_both[semantics[i]] = recall(counts, sources)
    return {
        "recall": whole["recall"],
        "confusion": whole["confusion"],
        "by_semantic": by_semantic,
        "recall_by_semantic": by_both,
    }
