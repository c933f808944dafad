"""Intervals: the spread that theory gives, by group, paired."""

import numpy as np
import pytest
from scipy.stats import binomtest, norm

from rmjax.evaluation.bootstrap import draw_resamples, interval, resample_counts


def test_the_interval_of_a_share_is_the_binomial_one():
    right = np.random.default_rng(0).random(2000) < 0.8
    resamples = draw_resamples(np.arange(2000), draws=4000)
    counts = resample_counts(right.astype(int), 2, resamples)
    assert np.all(counts.sum(1) == 2000)
    low, high = interval(counts[:, 1] / 2000)
    share = right.mean()
    reach = norm.ppf(0.975) * np.sqrt(share * (1 - share) / 2000)
    assert (low, high) == pytest.approx((share - reach, share + reach), abs=1.5e-3)


def test_images_of_a_group_are_drawn_together():
    group = np.repeat(np.arange(50), 8)
    right = np.repeat(np.random.default_rng(1).random(50) < 0.5, 8)  # alike in a group
    counts = resample_counts(right.astype(int), 2, draw_resamples(group, 2000))
    assert np.all(counts % 8 == 0)
    by_group = np.ptp(interval(counts[:, 1] / 400))
    alone = resample_counts(right.astype(int), 2, draw_resamples(np.arange(400), 2000))
    by_image = np.ptp(interval(alone[:, 1] / 400))
    assert by_group == pytest.approx(by_image * np.sqrt(8), rel=0.1)


def test_the_counts_are_those_of_the_drawn_groups():
    group = np.array([7, 7, 9, 11])  # any numbers
    kind = np.array([0, 1, 1, 2])
    resamples = draw_resamples(group, draws=3, seed=4)
    expected = [
        [sum(row[c] for c, k in zip(resamples.code, kind, strict=True) if k == j)
         for j in range(4)]
        for row in resamples.counts
    ]  # fmt: skip
    np.testing.assert_array_equal(resample_counts(kind, 4, resamples), expected)
    again = draw_resamples(group, draws=3, seed=4)
    np.testing.assert_array_equal(resamples.counts, again.counts)


def test_undefined_draws_do_not_count():
    assert interval(np.array([np.nan, 0.0, 1.0])) == pytest.approx((0.025, 0.975))
    assert interval(np.array([np.nan])) == (None, None)


def test_draws_that_agree_are_not_certain():
    assert interval(np.full(9, 0.5), groups=50) == (None, None)
    for right in (0, 50):
        exact = binomtest(right, 50).proportion_ci(0.95, "exact")
        assert interval(np.full(9, right / 50), groups=50) == pytest.approx(exact)
    assert interval(np.ones(9), groups=1) == (None, None)
    assert interval(np.ones(9)) == (None, None)
