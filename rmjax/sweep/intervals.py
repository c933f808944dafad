"""Confidence intervals of the mean that other seeds and images like these would give.

A score `s[k, i]` of seed k and image i varies with the seed, with the image, and with
both. The mean over n seeds and the images of G groups lies in

    mean -+ sqrt(t(n - 1)^2 S^2 / n + t(G - 1)^2 V)

with S^2, the sample variance of the seeds' means over the images, V, G / (G - 1) times
the bootstrap variance of the mean over images of what the seeds score on average, by
groups, and t(df), the 97.5 % quantile of Student's distribution. Each part has a quantile
of its own, so that neither can make up for how little is known of the other, as it would
with one quantile for their sum (Satterthwaite's; at two or three seeds such intervals are
too narrow). What varies with both seed and image is in either part: the intervals are
rather too wide than too narrow.

One seed alone tells nothing about another: then the interval is about the images only.

References:
    Davison and Hinkley, Bootstrap Methods and their Application, 1997, sections 2.3, 3.8
"""

from typing import NamedTuple

import numpy as np
from scipy import stats

from rmjax.evaluation.bootstrap import LEVEL, Resamples, draw_sums


class Estimate(NamedTuple):
    """A mean over seeds and images, with the ends of its interval.

    Both ends are None where nothing varies, or only one group of images is known. Of one
    seed the interval is about images alone.
    """

    mean: float
    low: float | None
    high: float | None


class ImageSpread(NamedTuple):
    """How a mean over images varies with the images: V above, and of how many groups."""

    variance: float
    groups: int


def estimate(by_seed: np.ndarray, images: ImageSpread | None) -> Estimate:
    """Return the mean of the seeds' scores, with an interval for other seeds and images.

    Args:
        by_seed: each seed's mean score over the images, `[seeds]`.
        images: see `image_spread`; None where it is not known.
    """
    count, mean = len(by_seed), float(np.mean(by_seed))
    if images is None:
        return Estimate(mean, None, None)
    square = _quantile(images.groups) ** 2 * images.variance
    if count > 1:
        square += _quantile(count) ** 2 * float(np.var(by_seed, ddof=1)) / count
    if not square > 0:
        return Estimate(mean, None, None)
    return Estimate(mean, mean - square**0.5, mean + square**0.5)


def image_spread(scores: np.ndarray, drawn: Resamples) -> ImageSpread | None:
    """Return how the mean over images varies, by bootstrap over groups of images.

    Args:
        scores: of the images, `[N]`.
        drawn: draws of the images' groups; of draws for more images than these, groups
            without any of them have no part.

    Returns:
        None for one group, which says nothing of others.
    """
    groups = len(np.unique(drawn.code))
    if groups < 2:
        return None
    sums, sizes = draw_sums(scores, drawn)
    with np.errstate(invalid="ignore"):  # a draw of none of these images
        means = sums / sizes
    variance = float(np.nanvar(means, ddof=1)) * groups / (groups - 1)
    return ImageSpread(variance, groups)


def _quantile(count: int) -> float:
    return float(stats.t.ppf((1 + LEVEL) / 2, count - 1))
