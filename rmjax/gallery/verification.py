"""Are two images of one generator? Measured over pairs that show different content.

With 95 % intervals by group (a photograph and what was made from it): a pair counts as
often as both its images' groups are drawn. Similarities are sorted into bins once, and
every draw is a weighted histogram.
"""

from dataclasses import dataclass

import numpy as np
from sklearn.metrics import auc

from rmjax.errors import InputError
from rmjax.evaluation.bootstrap import Resamples, interval

BINS = 2048  # of alike many pairs; the error of an area is below one in so many


@dataclass(frozen=True)
class Pairs:
    """Pairs of images.

    Attributes:
        first: row of one image, int32 `[P]`.
        second: row of the other.
        same: whether both are of one source, bool `[P]`.
    """

    first: np.ndarray
    second: np.ndarray
    same: np.ndarray


def choose_pairs(source: np.ndarray, semantic: np.ndarray, group: np.ndarray) -> Pairs:
    """Return all pairs of images `[N]` that differ in both semantic and group.

    Raises:
        InputError: none of them are of one source, or none of two.
    """
    first, second = (i.astype(np.int32) for i in np.triu_indices(len(source), 1))
    kept = (semantic[first] != semantic[second]) & (group[first] != group[second])
    first, second = first[kept], second[kept]
    same = source[first] == source[second]
    if not same.any() or same.all():
        which = "two sources" if same.any() else "one source"
        raise InputError(
            f"no two images of {which} show different semantics, so content alone could "
            "tell: give more semantics"
        )
    return Pairs(first, second, same)


def verify(similarity: np.ndarray, pairs: Pairs, resamples: Resamples) -> dict:
    """Measure how well similarity tells pairs of one source from those of two.

    Args:
        similarity: of all images, `[N, N]`.
        pairs: of these.
        resamples: of these.

    Returns:
        A dict ready for JSON: `auc`, the chance that a pair of one source is more
        similar than one of two, ties counting half; `eer`, the error rate at the
        threshold where as many of either sort are mistaken. Of each the `mean`, in
        [0, 1], and its `interval`, None twice where all draws agree.
    """
    bins = sort_into_bins(similarity[pairs.first, pairs.second])
    codes = [
        resamples.code[rows].astype(np.int32) for rows in (pairs.first, pairs.second)
    ]

    def rates(counts: np.ndarray | None) -> tuple[float, float]:
        weights = None if counts is None else counts[codes[0]] * counts[codes[1]]
        return roc_rates(bins, pairs.same, weights)

    drawn = np.array([rates(counts) for counts in resamples.counts.astype(np.float64)])
    return {
        name: {"mean": figure, "interval": interval(samples)}
        for name, figure, samples in zip(
            ("auc", "eer"), rates(None), drawn.T, strict=True
        )
    }


def sort_into_bins(values: np.ndarray, count: int = BINS) -> np.ndarray:
    """Return each value's bin, int `[P]` from 0, ascending, equal values in the same.

    Bins hold alike many: similarities crowd in a small part of their range. Up to
    `count` distinct values have a bin each.
    """
    distinct = np.unique(values)
    if len(distinct) <= count:
        return np.searchsorted(distinct, values)
    edges = np.unique(np.quantile(values, np.linspace(0, 1, count + 1)[1:-1]))
    return np.searchsorted(edges, values, side="right")


def roc_rates(
    bins: np.ndarray, positive: np.ndarray, weights: np.ndarray | None = None
) -> tuple[float, float]:
    """Return the area under the ROC curve and the equal error rate.

    Args:
        bins: of the scores, int `[P]` from 0, higher for what is more likely positive.
        positive: bool `[P]`.
        weights: how often each counts, `[P]`; None: once.

    Returns:
        Both in [0, 1], and linear between bins, as the curve is; NaN without positives
        or without negatives.
    """
    count = int(bins.max()) + 1
    table = np.bincount(2 * bins + positive, weights, 2 * count).reshape(count, 2)
    ends = table.sum(0)
    if not ends.all():
        return np.nan, np.nan
    # From the threshold that accepts nothing to the one that accepts all.
    curve = np.cumsum(table[::-1], axis=0) / ends
    fpr, tpr = np.concatenate([[[0, 0]], curve]).T
    excess = fpr + tpr - 1  # false positives beyond false negatives, -1 to 1
    after = int(np.argmax(excess >= 0))
    step = slice(after - 1, after + 1)
    eer = np.interp(0, excess[step], fpr[step])
    return float(auc(fpr, tpr)), float(eer)
