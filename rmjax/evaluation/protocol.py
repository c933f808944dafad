"""The figures of the robustness and generalisation protocol, from a grid of answers.

Everything here is a function of what the network said and of what was true.
"""

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any

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
from rmjax.evaluation.clusters import cluster_purity, frechet_ratio, purity
from rmjax.evaluation.metrics import (
    SCORES,
    Predictions,
    confusion_scores,
    count_confusion,
    recall,
    summarize,
)
from rmjax.evaluation.predict import Grid
from rmjax.evaluation.robustness import CLEAN, SET_KINDS, Condition
from rmjax.inference.calibration import UNCALIBRATED, Calibration

COMBINED = "combined"  # the name of all subsets together

Samples = dict[str, np.ndarray]  # draws of each score


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
        `cells`, one dict for each condition and subset of semantics; `summary`, means
        over the values of a kind and then over kinds, with the worst cell; `confusion`
        and `reliability` by subset and set of conditions.
    """
    # One draw for all parts: a group of images may be in several.
    whole = draw_resamples(grid.truth["group"], draws, seed)
    resamples = {
        part: Resamples(whole.code[rows], whole.counts)
        for part, rows in grid.rows.items()
    }
    members = _members(grid)
    sizes = {
        subset: len(np.unique(np.concatenate([resamples[p].code for p in parts])))
        for subset, parts in members.items()
    }
    cells: list[dict] = []
    samples: dict[str, dict] = {subset: {} for subset in members}
    confusion: dict[str, dict] = {subset: {} for subset in members}
    stated: dict[str, dict] = {subset: {} for subset in members}
    for number, condition in enumerate(grid.conditions):
        predictions = {part: grid.predictions(number, part) for part in grid.rows}
        drawn = {
            part: draw_confusion(predictions[part], resamples[part], len(sources))
            for part in grid.rows
        }
        for subset, parts in members.items():
            own = Predictions.concatenate([predictions[part] for part in parts])
            scores = confusion_scores(reduce(np.add, [drawn[part] for part in parts]))
            cell = measure_cell(own, sources, calibration)
            counts = np.array(cell.pop("confusion"))
            del cell["recall"]  # of every cell it would be too much
            head = _describe(condition) | {"semantics": subset, "images": len(own)}
            for name in SCORES:
                head |= {name: cell[name], **bounds(name, scores[name], sizes[subset])}
            cells.append(head | cell)
            samples[subset][str(condition)] = scores
            confusion[subset].setdefault(condition.set, []).append(counts)
            pool = stated[subset].setdefault(condition.set, [])
            pool.append(_confidences(own, calibration))
    return {
        "cells": cells,
        "summary": {
            subset: summarize_cells(cells, subset, samples[subset], sizes[subset])
            for subset in members
        },
        "confusion": {
            subset: {
                name: np.sum(counts, axis=0).tolist() for name, counts in own.items()
            }
            for subset, own in confusion.items()
        },
        "reliability": {
            subset: {name: _reliability(pool) for name, pool in own.items()}
            for subset, own in stated.items()
        },
    }


def bounds(name: str, draws: np.ndarray, groups: int) -> dict[str, float | None]:
    """Return a score's interval as `*_low` and `*_high`."""
    low, high = interval(draws, groups if name.endswith("accuracy") else 0)
    return {f"{name}_low": low, f"{name}_high": high}


def _members(grid: Grid) -> dict[str, tuple[str, ...]]:
    """Return the subsets of semantics with the parts that they are made of."""
    subsets = {part: (part,) for part in grid.rows}
    return subsets | ({COMBINED: tuple(subsets)} if len(subsets) > 1 else {})


def draw_confusion(
    predictions: Predictions, resamples: Resamples, n: int
) -> np.ndarray:
    """Return the confusion matrices of all draws, `[draws, n, n]` of n sources."""
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
    """Return the figures of one condition and subset, `recall` and `confusion` too."""
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
    shares: dict[str, float | None] = {}
    for point in calibration.operating_points:
        called = scores >= point["threshold"]
        for name, rows in (("tpr", ~real), ("fpr", real)):
            share = float(called[rows].mean()) if rows.any() else None
            shares[f"{name}_at_{point['fpr']:g}"] = share
    if calibration.reject:
        rejected = calibration.rejects(predictions.attribution)
        shares["rejected"] = float(np.mean(rejected))
    return shares


def summarize_cells(
    cells: Sequence[dict], subset: str, samples: Mapping[str, Samples], size: int
) -> dict:
    """Average the scores over the values of each kind, then over the kinds of a set.

    Args:
        cells: of all subsets.
        subset: the one to summarise.
        samples: bootstrap draws of its scores, by condition.
        size: groups of images that were drawn from.

    Returns:
        By set of conditions (`clean`, and where there are any `seen_corruptions`,
        `unseen_corruptions` and `resharing`) the `SCORES` with `*_low` and `*_high`;
        `kinds`, the scores of every kind; `worst`, the condition of the least
        attribution accuracy.
    """
    own = [cell for cell in cells if cell["semantics"] == subset]
    values = {name: {cell["condition"]: cell[name] for cell in own} for name in SCORES}
    kinds: dict[str, list[str]] = {}
    for cell in own:
        kinds.setdefault(cell["kind"], []).append(cell["condition"])
    summary: dict[str, dict] = {}
    for name, members in SET_KINDS.items():
        chosen = [kinds[kind] for kind in members if kind in kinds]
        if not chosen:
            continue
        summary[name] = {}
        for score in SCORES:
            draws = {condition: drawn[score] for condition, drawn in samples.items()}
            mean = _mean_of_means(draws, chosen)
            summary[name][score] = _mean_value(values[score], chosen)
            summary[name] |= bounds(score, mean, size)
    summary["kinds"] = {
        kind: {score: _mean_value(values[score], [conditions]) for score in SCORES}
        for kind, conditions in kinds.items()
    }
    worst = min(own, key=lambda cell: cell["attribution_accuracy"])
    kept = ("condition", "attribution_accuracy")
    summary["worst"] = {name: worst[name] for name in kept}
    return summary


def _mean_value(
    values: Mapping[str, float | None], kinds: Sequence[Sequence[str]]
) -> float | None:
    """Average as `_mean_of_means`; None if a value is not defined."""
    known = {condition: v for condition, v in values.items() if v is not None}
    if any(condition not in known for kind in kinds for condition in kind):
        return None
    return float(_mean_of_means(known, kinds))


def _mean_of_means(
    values: Mapping[str, Any], kinds: Sequence[Sequence[str]]
) -> np.ndarray:
    """Average values, or draws of them, over the conditions of each kind, then kinds."""
    return np.mean([np.mean([values[c] for c in k], axis=0) for k in kinds], axis=0)


def _confidences(
    predictions: Predictions, calibration: Calibration
) -> dict[tuple[str, str], tuple[np.ndarray, np.ndarray]]:
    """Return stated probabilities, and what came true, before and after calibration."""
    truth = predictions.source
    stated = {}
    for name, way in (("calibrated", calibration), ("uncalibrated", UNCALIBRATED)):
        top = top_label(way.attribute(predictions.attribution), truth)
        stated["attribution", name] = top
        stated["detection", name] = way.detect(predictions.detection), truth > 0
    return stated


def _reliability(pool: Sequence[dict]) -> dict[str, dict[str, list]]:
    """Return the bins of reliability diagrams of what `_confidences` gave."""
    diagrams: dict[str, dict[str, list]] = {"attribution": {}, "detection": {}}
    for what, name in pool[0]:
        pairs = zip(*(stated[what, name] for stated in pool), strict=True)
        confidence, happened = (np.concatenate(values) for values in pairs)
        balance = None
        if what == "detection":
            balance = balanced_weights(happened.astype(int))
        diagrams[what][name] = reliability_bins(confidence, happened, balance)
    return diagrams


def measure_clean(
    grid: Grid, sources: Sequence[str], semantics: Sequence[str]
) -> dict[str, dict]:
    """Return what is reported of clean images and their fingerprints, by subset.

    Args:
        grid: the answers.
        sources: class names.
        semantics: names of the data set's semantics.
    """
    parts = {part: grid.predictions(0, part) for part in grid.rows}
    return {
        subset: _measure_clean(
            Predictions.concatenate([parts[m] for m in members]), sources, semantics
        )
        for subset, members in _members(grid).items()
    }


def _measure_clean(
    predictions: Predictions, sources: Sequence[str], semantics: Sequence[str]
) -> dict:
    whole = count_confusion(predictions.source, predictions.guess, len(sources))
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
    ratio, note = frechet_ratio(predictions.embedding, predictions.source)
    return {
        "recall": recall(whole, sources),
        "confusion": whole.tolist(),
        "by_semantic": by_semantic,
        "recall_by_semantic": by_both,
        "purity": cluster_purity(predictions.guess, predictions.source),
        "fingerprint_purity": purity(predictions.embedding, predictions.source),
        "frechet_ratio": ratio,
        "frechet_note": note,
    }
