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
    Cohen, Statistical Power Analysis for the Behavioral Sciences, 1988, section 2
"""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np
from scipy import optimize, stats

from rmjax.evaluation.bootstrap import LEVEL, Resamples, draw_sums

POWER = 0.8  # how often `smallest_detectable` is to be found


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
    mean = float(np.mean(by_seed))
    half = _half_width(by_seed, images, _quantile)
    if half is None:
        return Estimate(mean, None, None)
    return Estimate(mean, mean - half, mean + half)


def smallest_detectable(
    by_seed: np.ndarray, images: ImageSpread | None
) -> float | None:
    """Return the true mean that such seeds and images show in `POWER` of the cases.

    It is shown where the interval excludes 0. In place of its quantile, each part has the
    noncentrality at which Student's t exceeds that quantile in `POWER` of the cases. As
    the interval, it is an estimate: few seeds say little about how much they vary.

    Args:
        by_seed: each seed's mean score over the images, `[seeds]`.
        images: see `image_spread`; None where it is not known.

    Returns:
        None where nothing varies, or only one group of images is known.
    """
    return _half_width(by_seed, images, _noncentrality)


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


def _half_width(
    by_seed: np.ndarray, images: ImageSpread | None, quantile: Callable[[int], float]
) -> float | None:
    """Return the root of both parts, each times its own quantile, squared."""
    if images is None:
        return None
    count = len(by_seed)
    square = quantile(images.groups) ** 2 * images.variance
    if count > 1:
        square += quantile(count) ** 2 * float(np.var(by_seed, ddof=1)) / count
    return square**0.5 if square > 0 else None


def _quantile(count: int) -> float:
    return float(stats.t.ppf((1 + LEVEL) / 2, count - 1))


@cache
def _noncentrality(count: int) -> float:
    end = _quantile(count)
    return optimize.brentq(
        lambda shift: stats.nct.sf(end, count - 1, shift) - POWER, 0, 10 * end
    )
