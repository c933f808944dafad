"""Figures of predictions, against scikit-learn and by hand."""

import numpy as np
import pytest
from sklearn import metrics as sk

from rmjax.evaluation.metrics import (
    SCORES,
    Predictions,
    confusion_scores,
    count_confusion,
    summarize,
)

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
        group=np.arange(200),
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
    np.testing.assert_array_equal(
        figures["confusion"], sk.confusion_matrix(truth, guess, labels=range(4))
    )
    nmi = sk.normalized_mutual_info_score(truth, guess)
    assert figures["nmi"] == pytest.approx(nmi, abs=1e-12)
    # The absent source has no recall, but what is wrongly taken for it counts.
    f1 = sk.f1_score(truth, guess, labels=[0, 1, 2], average="macro")
    assert figures["macro_f1"] == pytest.approx(f1, abs=1e-12)
    assert figures["recall"]["absent"] is None


def test_scores_of_many_matrices_are_those_of_each(predictions):
    counts = count_confusion(predictions.source, predictions.guess, 4)
    stack = np.stack([counts, counts.T, np.diag([3, 0, 1, 0])])
    together = confusion_scores(stack)
    for i, matrix in enumerate(stack):
        for name, value in confusion_scores(matrix).items():
            assert together[name][i] == value


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        # Images of one source: there is no information to share.
        ([[5, 0], [0, 0]], (1, 1, 1, np.nan)),
        ([[0, 5], [0, 0]], (0, 0, 0, np.nan)),
        # Everything taken for one source says nothing of the other.
        ([[5, 0], [5, 0]], (0.5, 0.5, 1 / 3, 0)),
        # No image: no figure.
        ([[0, 0], [0, 0]], (np.nan,) * 4),
    ],
)
def test_scores_at_the_edges(counts, expected):
    found = confusion_scores(np.array(counts))
    for name, value in zip(SCORES, expected, strict=True):
        np.testing.assert_allclose(found[name], value, atol=1e-12)


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


def test_parts_and_their_sum(predictions):
    parts = [predictions.where(predictions.semantic == i) for i in (0, 1)]
    whole = Predictions.concatenate(parts)
    assert len(whole) == 200
    total = sum(np.array(summarize(p, NAMES)["confusion"]) for p in parts)
    np.testing.assert_array_equal(summarize(whole, NAMES)["confusion"], total)
