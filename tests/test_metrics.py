"""Figures of predictions, against scikit-learn and by hand."""

import numpy as np
import pytest
from sklearn import metrics as sk

from rmjax.metrics import Predictions, summarize

NAMES = ["real", "a", "b", "absent"]


@pytest.fixture(scope="module")
def predictions():
    rng = np.random.default_rng(0)
    source = rng.integers(0, 3, 200)
    attribution = rng.normal(size=(200, 4)) + 1.5 * np.eye(4)[source]
    synthetic = (source > 0).astype(int)
    return Predictions(
        source=source,
        semantic=rng.integers(0, 2, 200),
        split=np.zeros(200, int),
        index=np.arange(200),
        embedding=rng.normal(size=(200, 8)),
        attribution=attribution,
        detection=rng.normal(size=(200, 2)) + np.eye(2)[synthetic],
    )


def test_figures_agree_with_scikit_learn(predictions):
    figures = summarize(predictions, NAMES)
    truth, guess = predictions.source, predictions.attribution.argmax(1)
    head = predictions.detection.argmax(1)
    assert figures["attribution_accuracy"] == sk.accuracy_score(truth, guess)
    assert figures["detection_accuracy"] == sk.accuracy_score(truth > 0, guess > 0)
    assert figures["detection_head_accuracy"] == sk.accuracy_score(truth > 0, head)
    expected = sk.recall_score(truth, guess, labels=[0, 1, 2], average=None)
    np.testing.assert_allclose(list(figures["recall"].values())[:3], expected)
    assert np.sum(figures["confusion"]) == 200
    np.testing.assert_array_equal(
        np.diag(figures["confusion"])[:3],
        [np.sum((truth == k) & (guess == k)) for k in range(3)],
    )


def test_a_source_without_images_has_no_recall(predictions):
    assert summarize(predictions, NAMES)["recall"]["absent"] is None


def test_loss_is_the_unmixed_compound_loss(predictions):
    """Cross-entropies by scikit-learn; synthetic images count 1 / (C - 1)."""
    figures = summarize(predictions, NAMES)

    def softmax(x):
        e = np.exp(x)
        return e / e.sum(1, keepdims=True)

    attribution = sk.log_loss(
        predictions.source, softmax(predictions.attribution), labels=range(4)
    )
    p = softmax(predictions.detection)[
        np.arange(200), (predictions.source > 0).astype(int)
    ]
    detection = np.mean(-np.log(p) * np.where(predictions.source > 0, 1 / 3, 1))
    np.testing.assert_allclose(figures["attribution_loss"], attribution, rtol=1e-5)
    np.testing.assert_allclose(figures["detection_loss"], detection, rtol=1e-5)
    np.testing.assert_allclose(figures["loss"], attribution + detection, rtol=1e-5)


def test_joining_parts_is_the_whole(predictions):
    even = np.arange(200) % 2 == 0
    joined = Predictions.concatenate(
        [predictions.where(even), predictions.where(~even)]
    )
    ours, whole = summarize(joined, NAMES), summarize(predictions, NAMES)
    assert ours.pop("loss") == pytest.approx(whole.pop("loss"))
    for key in ("attribution_loss", "detection_loss"):
        assert ours.pop(key) == pytest.approx(whole.pop(key))
    assert ours == whole
