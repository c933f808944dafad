"""Thresholds keep the share that they state, exactly."""

import numpy as np
import pytest

from rmjax.errors import InputError
from rmjax.evaluation.calibration import detection_threshold, rejection_threshold


@pytest.mark.parametrize("count", [1, 2, 10, 100, 101])
@pytest.mark.parametrize("fpr", [0.01, 0.07, 0.29, 0.5, 0.99])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_thresholds_keep_the_share_and_no_better_ones_do(count, fpr, dtype):
    for levels in (3, 10**6):
        scores = np.random.default_rng(count).integers(0, levels, count).astype(dtype)
        scores /= levels
        threshold, share = rejection_threshold(scores, fpr)
        assert share == np.mean(scores < threshold) <= fpr
        assert np.mean(scores < np.nextafter(dtype(threshold), dtype(2))) > fpr
        threshold, share = detection_threshold(scores, fpr)
        assert share == np.mean(scores >= threshold) <= fpr
        assert np.mean(scores >= np.nextafter(dtype(threshold), dtype(-1))) > fpr


def test_a_share_of_whole_images_is_used_up():
    """Where 0.29 * 100 is rounded to less than 29."""
    scores = np.arange(100.0)
    assert rejection_threshold(scores, 0.29) == (29, 0.29)
    assert detection_threshold(scores, 0.29) == (np.nextafter(70, 71), 0.29)


def test_few_images_tolerate_no_false_alarm():
    scores = np.linspace(0.1, 0.55, 10)
    assert detection_threshold(scores, 0.01) == (np.nextafter(0.55, 1), 0)
    assert rejection_threshold(scores, 0.01) == (0.1, 0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_saturated_probabilities_put_the_threshold_above_one(dtype):
    scores = np.array([0.2, 1, 1], dtype)
    threshold, share = detection_threshold(scores, 0.5)
    assert threshold > 1 and share == 0 and not (scores >= threshold).any()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: rejection_threshold([], 0.1), "known images are a list of one"),
        (lambda: detection_threshold([np.inf], 0.1), "real images are not finite"),
        (lambda: rejection_threshold([1.0], 0.0), "between 0 and 1; got 0.0"),
        (lambda: detection_threshold([1.0], 1.0), "between 0 and 1; got 1.0"),
        (lambda: detection_threshold([1.0], np.nan), "between 0 and 1; got nan"),
    ],
)
def test_bad_input_is_refused(call, words):
    with pytest.raises(InputError, match=words):
        call()
