"""Calibration: the temperature that was, errors by hand, thresholds, the stored file."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import brier_score_loss, log_loss

from rmjax.errors import InputError
from rmjax.evaluation.calibration import (
    balanced_weights,
    calibrate,
    expected_calibration_error,
    fit_temperature,
    measure_calibration,
    reliability_bins,
    top_label,
)
from rmjax.evaluation.metrics import Predictions
from rmjax.inference.calibration import (
    UNCALIBRATED,
    Calibration,
    load_calibration,
    save_calibration,
)


def simulate(n=20_000, temperature=2.5, classes=4, seed=0):
    """Predictions whose logits are `temperature` times too large."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.normal(size=(n, classes))
    cumulative = softmax(logits, axis=-1).cumsum(-1)
    source = (rng.random((n, 1)) > cumulative).sum(-1)
    synthetic = (source > 0).astype(int)
    # The log-odds of two equally likely classes, each normal, deviation one.
    odds = rng.normal(loc=np.where(synthetic, 1, -1)) * 2
    return Predictions(
        source=source,
        semantic=np.zeros(n, int),
        group=np.arange(n),
        split=np.zeros(n, int),
        index=np.arange(n),
        embedding=np.zeros((n, 0)),
        attribution=logits * temperature,
        detection=np.stack([np.zeros(n), odds], -1) * temperature,
    )


@pytest.fixture(scope="module")
def predictions():
    return simulate()


def test_the_temperature_is_found_again(predictions):
    found = calibrate(predictions)
    assert found.attribution == pytest.approx(2.5, rel=0.03)
    assert found.detection == pytest.approx(2.5, rel=0.03)
    measured = found.validation
    for what in ("attribution", "detection"):
        assert measured[what]["ece"] < 0.015 < measured[what]["ece_uncalibrated"]
        for name in ("brier", "nll"):
            assert measured[what][name] < measured[what][f"{name}_uncalibrated"]
    best = predictions.attribution.argmax(-1)
    assert np.all(found.attribute(predictions.attribution).argmax(-1) == best)


def test_a_network_that_is_always_right_gets_a_finite_temperature():
    truth = np.arange(100) % 4
    logits = 3.0 * np.eye(4)[truth]
    temperature = fit_temperature(logits, truth)
    # The likeliest probability of the right class is that of 101 of 102.
    p = softmax(logits / temperature, axis=-1).max(-1)
    assert p == pytest.approx(np.full(100, 101 / 102), abs=1e-4)


def test_measures_agree_with_scikit_learn(predictions):
    measured = measure_calibration(predictions, UNCALIBRATED)
    p = softmax(predictions.attribution, axis=-1)
    nll = log_loss(predictions.source, p, labels=range(4))
    assert measured["attribution"]["nll"] == pytest.approx(nll, rel=1e-6)
    brier = sum(
        brier_score_loss(predictions.source == i, p[:, i]) for i in range(p.shape[1])
    )
    assert measured["attribution"]["brier"] == pytest.approx(brier, rel=1e-6)
    synthetic = (predictions.source > 0).astype(int)
    weights = balanced_weights(synthetic)
    p = softmax(predictions.detection, axis=-1)[:, 1]
    brier = brier_score_loss(synthetic, p, sample_weight=weights)
    assert measured["detection"]["brier"] == pytest.approx(brier, rel=1e-6)
    nll = log_loss(synthetic, p, sample_weight=weights)
    assert measured["detection"]["nll"] == pytest.approx(nll, rel=1e-6)


def test_the_calibration_error_by_hand():
    confidence = np.array([0.9, 0.5, 0.6, 0.8])
    right = np.array([True, True, False, False])
    bins = reliability_bins(confidence, right, bins=2)
    # 0.5 and 0.6, one of two right; 0.8 and 0.9, one of two right.
    assert [(b["confidence"], b["accuracy"], b["images"]) for b in bins] == [
        (pytest.approx(0.55), 0.5, 2),
        (pytest.approx(0.85), 0.5, 2),
    ]
    assert expected_calibration_error(bins) == pytest.approx((0.05 + 0.35) / 2)


def test_bins_have_equal_mass_and_lose_nothing():
    rng = np.random.default_rng(0)
    confidence, right = rng.random(1500), rng.random(1500) < 0.5
    bins = reliability_bins(confidence, right)
    assert [b["images"] for b in bins] == [100] * 15
    few = reliability_bins(confidence[:4], right[:4])
    assert [b["images"] for b in few] == [1, 1, 1, 1]
    assert sum(b["mass"] for b in few) == pytest.approx(1)


def test_equal_confidences_share_a_bin_whatever_their_order():
    right = np.arange(100) >= 20  # sorted, as images are by source
    bins = reliability_bins(np.full(100, 0.8), right)
    assert len(bins) == 1 and expected_calibration_error(bins) == pytest.approx(0)
    mixed = np.repeat([0.2, 0.6, 0.9], 20)
    happened = np.random.default_rng(0).random(60) < mixed
    order = np.random.default_rng(1).permutation(60)
    one, other = (
        expected_calibration_error(reliability_bins(mixed[o], happened[o], bins=5))
        for o in (slice(None), order)
    )
    assert one == pytest.approx(other)


def test_real_and_synthetic_count_alike_in_detection():
    synthetic = np.array([0, 1, 1, 1])
    np.testing.assert_allclose(
        balanced_weights(synthetic), [1 / 2, 1 / 6, 1 / 6, 1 / 6]
    )
    np.testing.assert_allclose(balanced_weights(synthetic[1:]), [1 / 3] * 3)
    # One real image that is surely synthetic, three that are: half the weight is off.
    bins = reliability_bins(np.ones(4), synthetic, balanced_weights(synthetic))
    assert expected_calibration_error(bins) == pytest.approx(0.5)


def test_thresholds_keep_their_promise_on_other_images():
    found = calibrate(simulate(seed=1), fprs=(0.1, 0.01), reject_fpr=0.2)
    other = simulate(seed=2)
    real = other.source == 0
    for point in found.operating_points:
        called = found.detect(other.detection)[real] >= point["threshold"]
        assert called.mean() == pytest.approx(point["fpr"], rel=0.3)
        assert point["achieved"] <= point["fpr"]
    best, _ = top_label(found.attribute(other.attribution), other.source)
    rejected = np.mean(best < found.reject["threshold"])
    assert rejected == pytest.approx(0.2, rel=0.1)


def test_a_threshold_lies_midway_in_a_gap():
    """Real images at odds of 1:99 to 1:9, synthetic ones from 9:1 on."""
    odds = np.log([1 / 99, 1 / 9, 9, 99])
    few = simulate(n=4)
    predictions = replace(
        few,
        source=np.array([0, 0, 1, 2]),
        detection=np.stack([np.zeros(4), odds], -1),
    )
    found = calibrate(predictions, fprs=(0.01, 0.5))
    none, half = (point["threshold"] for point in found.operating_points)
    scores = found.detect(predictions.detection)
    assert none == pytest.approx(0.5)
    assert scores[0] < half <= scores[1]
    achieved = [point["achieved"] for point in found.operating_points]
    assert achieved == [0, 0.5]


def test_certain_probabilities_leave_a_threshold_of_numbers():
    few = simulate(n=4)
    certain = np.array([[0, -1e4], [0, 1e4], [0, 1e4], [0, 1e4]])
    predictions = replace(few, source=np.array([0, 0, 1, 2]), detection=certain)
    for point in calibrate(predictions, fprs=(0.01, 0.5)).operating_points:
        assert np.isfinite(point["threshold"]) and point["achieved"] <= point["fpr"]


def test_a_threshold_does_not_follow_sure_images_to_the_top():
    """Synthetic images that are certain say nothing of those that are not."""
    few = simulate(n=40)
    synthetic = np.arange(40) >= 20
    odds = np.where(synthetic, 500.0, -4.0)
    sure = replace(
        few, source=synthetic.astype(int), detection=np.stack([0 * odds, odds], -1)
    )
    (point,) = calibrate(sure, fprs=(0.01,)).operating_points
    assert point["threshold"] == 0.5


def test_without_real_images_there_are_no_operating_points(predictions):
    found = calibrate(predictions.where(predictions.source > 0))
    assert found.operating_points == () and found.reject is not None


def test_a_calibration_is_stored_by_checkpoint(predictions, tmp_path):
    first = calibrate(predictions, digest="abc")
    save_calibration(tmp_path, 10, first)
    save_calibration(tmp_path, 20, Calibration(images=1, attribution=3.0))
    assert load_calibration(tmp_path, 10) == first
    assert load_calibration(tmp_path, 20).attribution == 3.0
    assert load_calibration(tmp_path, 30) is UNCALIBRATED


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"\xff\xfe",
        b'{"schema_version": 99}',
        b'{"schema_version": 1, "checkpoints": {"1": {}}}',
        b'{"schema_version": 1, "checkpoints": {"1": {"operating_points": [], "x": 1}}}',
    ],
)
def test_a_damaged_calibration_is_named(tmp_path, content):
    (tmp_path / "calibration.json").write_bytes(content)
    with pytest.raises(InputError, match="calibration.json: damaged, or of another"):
        load_calibration(tmp_path, 1)


def test_a_calibration_that_can_not_be_stored_is_named(tmp_path):
    (tmp_path / ".calibration.json.part").mkdir()
    with pytest.raises(InputError, match="can't write .*calibration.json: Is a dir"):
        save_calibration(tmp_path, 1, UNCALIBRATED)
