"""Open-set scores and figures: by hand, by brute force, at the edges."""

import json

import numpy as np
import pytest
from sklearn.covariance import LedoitWolf

from rmjax.errors import InputError
from rmjax.evaluation import openset
from rmjax.evaluation.openset import (
    SCORES,
    energy,
    fit_reference,
    knn,
    mahalanobis,
    max_probability,
    measure,
)


def blobs(count: int, seed: int, dim: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Fingerprints of three sources of unlike spread by dimension, in float32."""
    rng = np.random.default_rng(seed)
    source = np.arange(count) % 3
    noise = rng.normal(size=(count, dim)) * np.linspace(0.2, 1, dim)
    return (noise + 3 * np.eye(3, dim)[source]).astype(np.float32), source


def test_max_probability_and_energy_by_hand():
    logits = np.log([[1.0, 3.0], [2.0, 2.0]])
    np.testing.assert_allclose(max_probability(logits), [0.75, 0.5])
    root = 3**0.5
    np.testing.assert_allclose(max_probability(logits, 2.0)[0], root / (1 + root))
    np.testing.assert_allclose(energy(np.log([[1.0, 2.0, 3.0]])), [np.log(6)])


def test_great_logits_do_not_overflow():
    logits = np.float32([[1e4, 1e4], [1e4, -1e4]])
    np.testing.assert_allclose(max_probability(logits), [0.5, 1])
    np.testing.assert_allclose(energy(logits), [1e4 + np.log(2), 1e4])


def test_adding_to_all_logits_moves_the_energy_alone():
    logits = np.random.default_rng(0).normal(size=(9, 5))
    np.testing.assert_allclose(energy(logits + 7), energy(logits) + 7)
    np.testing.assert_allclose(max_probability(logits + 7), max_probability(logits))


def test_knn_is_the_kth_distance_of_directions(monkeypatch):
    monkeypatch.setattr(openset, "CHUNK", 7)
    reference = fit_reference(*blobs(60, 0), neighbours=4)
    images, _ = blobs(20, 1)
    known = blobs(60, 0)[0].astype(float)
    known /= np.linalg.norm(known, axis=1, keepdims=True)
    unit = images.astype(float) / np.linalg.norm(images, axis=1, keepdims=True)
    distances = np.linalg.norm(unit[:, None] - known, axis=-1)
    np.testing.assert_allclose(
        knn(reference, images), -np.sort(distances, axis=1)[:, 3], rtol=1e-6
    )
    np.testing.assert_allclose(knn(reference, 9 * images), knn(reference, images))


@pytest.mark.parametrize(
    ("sizes", "neighbours"),
    [((50, 50), 10), ((8, 500), 4), ((1, 5), 1), ((15_000, 15_000), 30)],
)
def test_neighbours_by_number_of_references(sizes, neighbours):
    source = np.repeat(np.arange(len(sizes)), sizes)
    embedding = np.random.default_rng(0).normal(size=(len(source), 2))
    assert fit_reference(embedding, source).neighbours == neighbours


@pytest.mark.parametrize("count", [300, 9])
def test_mahalanobis_is_its_formula(monkeypatch, count):
    """Also with fewer references than dimensions."""
    monkeypatch.setattr(openset, "CHUNK", 7)
    known, source = blobs(count, 0)
    images, _ = blobs(20, 1)
    means = np.stack([known[source == s].mean(0, dtype=float) for s in range(3)])
    fitted = LedoitWolf(assume_centered=True).fit(known - means[source])
    offset = images[:, None] - means
    squares = np.einsum("nsi,ij,nsj->ns", offset, fitted.precision_, offset)
    scores = mahalanobis(fit_reference(known, source), images)
    np.testing.assert_allclose(scores, -squares.min(1), rtol=1e-4)


def test_mahalanobis_does_not_depend_on_the_origin_or_the_axes():
    (known, source), (images, _) = blobs(90, 0), blobs(20, 1)
    turn, _ = np.linalg.qr(np.random.default_rng(2).normal(size=(12, 12)))
    expected = mahalanobis(fit_reference(known, source), images)
    moved = fit_reference(known @ turn + 5, source)
    np.testing.assert_allclose(mahalanobis(moved, images @ turn + 5), expected)


def test_references_that_do_not_vary_leave_the_euclidean_distance():
    reference = fit_reference(np.repeat([[0.0, 0], [4, 0]], 2, 0), [0, 0, 1, 1])
    np.testing.assert_allclose(mahalanobis(reference, np.array([[4.0, 3]])), [-9])


def test_every_score_is_higher_for_known_sources():
    known, source = blobs(300, 0)
    images, truth = blobs(99, 1)
    unknown = np.random.default_rng(2).normal(size=(80, 12)).astype(np.float32)
    unknown[:, 3] -= 3
    reference = fit_reference(known, source)
    for name, score in SCORES.items():
        ours = score(reference, images, 3 * images[:, :3], 1.5)
        others = score(reference, unknown, 3 * unknown[:, :3], 1.5)
        assert ours.shape == (99,) and others.shape == (80,)
        correct = images[:, :3].argmax(1) == truth
        assert measure(ours, correct, others)["auroc"] > 0.9, name
        assert score(reference, images[:0], images[:0, :3], 1.5).shape == (0,)


def test_figures_by_hand_with_ties():
    """Right: 3, 2, 1; wrong: 2; unknown: 2, 1."""
    figures = measure([3, 2, 2, 1], [True, True, False, True], [2, 1])
    assert figures.pop("curve") == {
        "fpr": [0, 0, 0.5, 1],
        "tpr": [0, 0.25, 0.75, 1],
        "ccr": [0, 0.25, 0.5, 0.75],
    }
    assert figures == pytest.approx(
        {
            "images": 2,
            "auroc": 5.5 / 8,  # of 8 pairs; a tie is half a pair
            "fpr95": 1,
            "aupr": 0.5 * 1 / 2 + 0.5 * 2 / 5,
            "aupr_chance": 2 / 6,
            "oscr": 4 / 8,  # 3 > 2, 3 > 1, 2 > 1, and two ties
        }
    )


@pytest.mark.parametrize("levels", [4, 50, 10**6])
def test_figures_by_brute_force(levels):
    rng = np.random.default_rng(levels)
    known, unknown = rng.normal(0.7, 1, 400), rng.normal(0, 1, 230)
    known, unknown = np.round(known * levels), np.round(unknown * levels)
    correct = rng.random(400) < 0.8
    figures = measure(known, correct, unknown)
    pairs = np.sign(known[:, None] - unknown) / 2 + 0.5
    assert figures["auroc"] == pytest.approx(pairs.mean())
    assert figures["oscr"] == pytest.approx((pairs * correct[:, None]).mean())
    accepting = [t for t in known if np.mean(known >= t) >= 0.95]
    assert figures["fpr95"] == np.mean(unknown >= max(accepting))
    recall, aupr = 0, 0
    for t in np.unique([*known, *unknown]):
        found, before = np.mean(unknown <= t), recall
        precision = (unknown <= t).sum() / np.sum([*(unknown <= t), *(known <= t)])
        aupr, recall = aupr + (found - before) * precision, found
    assert figures["aupr"] == pytest.approx(aupr)


def test_curve_is_thinned_evenly_between_its_ends():
    rng = np.random.default_rng(0)
    known, unknown, correct = rng.normal(1, 1, 5000), rng.normal(size=60), [True] * 5000
    curve = {
        k: np.array(v) for k, v in measure(known, correct, unknown)["curve"].items()
    }
    assert 100 < len(curve["fpr"]) == len(curve["tpr"]) == len(curve["ccr"]) <= 200
    for line in curve.values():
        assert line[0] == 0 and line[-1] == 1 and (np.diff(line) >= 0).all()
    assert np.diff(curve["fpr"] + curve["tpr"]).max() < 0.03  # an unknown image: 1 / 60
    area = np.trapezoid(curve["tpr"], curve["fpr"])
    assert area == pytest.approx(measure(known, correct, unknown)["auroc"], abs=0.01)


def test_extremes_and_what_no_threshold_tells_apart():
    correct = [True, True, True, False]
    best, worst = measure([4, 5, 6, 7], correct, [1, 2]), measure([1] * 4, correct, [2])
    assert (best["auroc"], best["fpr95"], best["aupr"], best["oscr"]) == (1, 0, 1, 0.75)
    assert (worst["auroc"], worst["fpr95"], worst["oscr"]) == (0, 1, 0)
    equal = measure([1] * 4, correct, [1] * 4)
    assert (equal["auroc"], equal["aupr"], equal["oscr"]) == (0.5, 0.5, 0.375)
    assert measure([1.0], [False], [0.0])["oscr"] == 0


def test_figures_are_json_and_depend_on_the_order_alone():
    rng = np.random.default_rng(0)
    known, unknown = rng.random(50, np.float32), rng.random(30, np.float32)
    figures = measure(known, rng.random(50) < 0.5, unknown)
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures
    rng = np.random.default_rng(0)
    rng.random(50, np.float32), rng.random(30, np.float32)
    assert measure(9 * known - 2, rng.random(50) < 0.5, 9 * unknown - 2) == figures


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: measure([], [], [1.0]), "known images are a list of one"),
        (lambda: measure([1.0], [True], []), "unknown images are a list of one"),
        (lambda: measure([1.0], [True], [np.nan]), "unknown images are not finite"),
        (lambda: measure([1.0, 2.0], [True], [1.0]), "verdicts"),
        (lambda: max_probability(np.zeros((1, 2)), 0.0), "temperature"),
        (lambda: fit_reference(np.zeros((3, 2)), [0, 1]), "with a source each"),
        (lambda: fit_reference(np.zeros((1, 2)), [0]), "two fingerprints or more"),
        (lambda: fit_reference([[0.0], [np.nan]], [0, 1]), "not finite"),
        (lambda: fit_reference(np.eye(3), [0, 1, 2], 4), "from 1 to the 3 references"),
        (lambda: fit_reference(np.eye(3), [0, 1, 2], 0), "from 1 to the 3 references"),
    ],
)
def test_bad_input_is_refused(call, words):
    with pytest.raises(InputError, match=words):
        call()
