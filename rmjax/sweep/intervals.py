"""Intervals of a mean over seeds and images that cover another seed and other images.

A score `s[k, i]` of seed k and image i varies with the seed, with the image, and with
both. The mean over n seeds and all images has the squared standard error

    se^2 = S^2 / n + V

with S^2, the sample variance of the seeds' means over the images, and V, the bootstrap
variance of the mean over images of what the seeds score on average, by groups of images.
What varies with both is in either term, so the interval is rather too wide than too
narrow. Its ends are the mean -+ t se, t being the quantile of Student's distribution
with as many degrees of freedom as Welch and Satterthwaite give, those of V being
infinite:

    df = se^4 / ((S^2 / n)^2 / (n - 1))

One seed alone tells nothing about another: then se^2 = V, and the interval is about the
images only.

References:
    Satterthwaite, Biometrics Bulletin 2 (1946), 110-114
    Davison and Hinkley, Bootstrap Methods and their Application, 1997, section 3.8
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

from rmjax.evaluation.bootstrap import LEVEL, Resamples, draw_sums

# Part of the variance by seeds below which the t distribution is the normal one.
TINY = 1e-9


@dataclass(frozen=True)
class Estimate:
    """A mean and its interval.

    Attributes:
        mean: over seeds and images.
        low: lower end; None where nothing varies, or only one group of images is
            known.
        high: upper end.
        seeds: how many the mean is over; of 1 the interval is about images alone.
    """

    mean: float
    low: float | None
    high: float | None
    seeds: int


def estimate(by_seed: np.ndarray, image_variance: float | None) -> Estimate:
    """Return the mean of the seeds' scores, with an interval for other seeds and images.

    Args:
        by_seed: each seed's mean score over the images, `[seeds]`.
        image_variance: V above, see `image_variance`; None where it is not known.
    """
    count, mean = len(by_seed), float(np.mean(by_seed))
    seeds = float(np.var(by_seed, ddof=1)) / count if count > 1 else 0.0
    if image_variance is None or not seeds + image_variance > 0:
        return Estimate(mean, None, None, count)
    square, freedom = seeds + image_variance, math.inf
    if seeds > TINY * square:
        freedom = (count - 1) * (square / seeds) ** 2
    reach = float(stats.t.ppf((1 + LEVEL) / 2, freedom)) * square**0.5
    return Estimate(mean, mean - reach, mean + reach, count)


def image_variance(
    scores: np.ndarray, code: np.ndarray, counts: np.ndarray
) -> float | None:
    """Return the bootstrap variance of a mean over images, by groups of images.

    Args:
        scores: of the images, `[N]`.
        code: which group an image is of, int `[N]`.
        counts: how often each group is drawn, `[draws, groups]`; of draws for more
            images than these, groups without any of them have no part.

    Returns:
        The variance over the draws; None for one group, which says nothing of others.
    """
    if len(np.unique(code)) < 2:
        return None
    sums, sizes = draw_sums(scores, Resamples(code, counts))
    with np.errstate(invalid="ignore"):  # a draw of none of these images
        means = sums / sizes
    return float(np.nanvar(means, ddof=1))
