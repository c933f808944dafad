"""Clusters, Fréchet distances and the map: by hand, against oracles, at the edges."""

import numpy as np
import pytest
from scipy.linalg import sqrtm
from threadpoolctl import threadpool_limits

from rmjax.data.dataset import choose_evenly
from rmjax.errors import InputError
from rmjax.evaluation import clusters
from rmjax.evaluation.clusters import (
    cluster_purity,
    fingerprint_map,
    frechet_distance,
    frechet_ratio,
    purity,
)


@pytest.fixture(autouse=True)
def one_thread():
    """Small matrices on busy cores: threads that wait for each other take seconds."""
    with threadpool_limits(1):
        yield


def sources(
    sizes, distance: float, seed: int = 0, dim: int = 16
) -> tuple[np.ndarray, np.ndarray]:
    """Normally distributed fingerprints, their means `distance` from the origin."""
    source = np.repeat(np.arange(len(sizes)), sizes)
    noise = np.random.default_rng(seed).normal(size=(len(source), dim))
    return noise + distance * np.eye(len(sizes), dim)[source], source


def test_choice_takes_the_sources_as_evenly_as_they_go():
    source = np.repeat([0, 1, 2], [1000, 30, 200])
    chosen = choose_evenly(source, 150)
    assert np.bincount(source[chosen]).tolist() == [60, 30, 60]
    assert (np.diff(chosen) > 0).all()
    np.testing.assert_array_equal(chosen, choose_evenly(source, 150, seed=0))
    assert not np.array_equal(chosen, choose_evenly(source, 150, seed=1))
    np.testing.assert_array_equal(choose_evenly(source, 9999), np.arange(1230))
    assert np.bincount(source[choose_evenly(source, 8)]).min() == 2
    assert len(choose_evenly(source, 0)) == 0
    with pytest.raises(InputError, match="got -1"):
        choose_evenly(source, -1)


def test_purity_of_clusters_by_hand():
    cluster = np.array([0, 0, 0, 1, 1, 2])
    source = np.array([5, 5, 7, 7, 7, 5])
    assert cluster_purity(cluster, source) == 5 / 6
    assert cluster_purity(9 - cluster, -source) == 5 / 6
    assert cluster_purity(source, source) == 1
    assert cluster_purity(np.zeros(6), source) == 0.5


def test_purity_finds_sources_that_lie_apart():
    embedding, source = sources((40, 30, 20), 20)
    assert purity(embedding, source) == 1
    assert purity(embedding, np.random.default_rng(1).permutation(source)) < 0.6
    overlapping = sources((200, 200, 200), 1.5)
    found = purity(*overlapping, seed=3)
    assert 0.4 < found < 0.95 and found == purity(*overlapping, seed=3)


def test_purity_of_equal_fingerprints_is_the_greatest_share(recwarn):
    assert purity(np.ones((10, 3)), np.repeat([0, 1, 2], [5, 3, 2])) == 0.5
    assert not recwarn.list


def test_distance_by_hand():
    """Means 0 and 3, variances 2 and 8: 3^2 + (sqrt(8) - sqrt(2))^2."""
    a, b = np.array([[-1.0], [1.0]]), np.array([[1.0], [5.0]])
    assert frechet_distance(a, b) == pytest.approx(11)
    corners = (
        np.array([[1.0, 1], [1, -1], [-1, 1], [-1, -1]]) * 3**0.5 / 2
    )  # variance 1
    stretched = corners * [2, 5] + [0, 1]
    assert frechet_distance(corners, stretched) == pytest.approx(1 + 1 + 16)


def test_distance_is_the_formula_with_a_matrix_root():
    rng = np.random.default_rng(0)
    a = rng.normal(size=(50, 6)) @ rng.normal(size=(6, 6))
    b = rng.normal(size=(40, 6)) @ rng.normal(size=(6, 6)) + 1
    s, t = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = np.trace(sqrtm(s @ t).real)
    expected = np.sum((a.mean(0) - b.mean(0)) ** 2) + np.trace(s + t) - 2 * root
    assert frechet_distance(a, b) == pytest.approx(expected)
    assert frechet_distance(b, a) == pytest.approx(expected)


def test_distance_of_fewer_samples_than_dimensions():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(5, 40)), rng.normal(size=(7, 40))
    s, t = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    values, vectors = np.linalg.eigh(s)
    half = vectors * np.sqrt(values.clip(0)) @ vectors.T
    root = np.sqrt(np.linalg.eigvalsh(half @ t @ half).clip(0)).sum()
    expected = np.sum((a.mean(0) - b.mean(0)) ** 2) + np.trace(s + t) - 2 * root
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-5)
    assert 0 <= frechet_distance(a, a[::-1]) < 1e-9


@pytest.mark.parametrize("sizes", [(100, 100, 100), (8,) * 12, (300, 8, 8, 8, 8)])
def test_ratio_is_about_one_without_fingerprints(sizes):
    """Few images, or few of some sources, put neither side at an advantage."""
    ratios = [frechet_ratio(*sources(sizes, 0, seed))[0] for seed in range(30)]
    assert np.mean(ratios) == pytest.approx(1, abs=0.05)


def test_ratio_falls_as_sources_move_apart():
    near = frechet_ratio(*sources((60,) * 4, 1))
    far = frechet_ratio(*sources((60,) * 4, 4))
    assert 0 < far[0] < near[0] / 3 and near[0] < 0.95
    assert near[1] is far[1] is None
    points = np.repeat(np.eye(3), 5, 0)
    assert frechet_ratio(points, np.repeat([0, 1, 2], 5)) == (0, None)


def test_ratio_does_not_depend_on_origin_axes_or_scale():
    embedding, source = sources((30, 40), 2)
    turn, _ = np.linalg.qr(np.random.default_rng(2).normal(size=(16, 16)))
    ratio, _ = frechet_ratio(embedding, source)
    assert frechet_ratio(1e-3 * embedding @ turn + 5, source)[0] == pytest.approx(ratio)
    assert frechet_ratio(embedding, source)[0] == ratio
    assert frechet_ratio(embedding, source, seed=1)[0] != ratio


def test_distances_are_between_as_many_images_on_every_side(monkeypatch):
    """Halves of 4, 10 and, of a source with 1,100 images, 250."""
    calls = []

    def record(a, b):
        calls.append((len(a), len(b), np.unique([*a[:, 0], *b[:, 0]]).size))
        assert not set(a[:, 1]) & set(b[:, 1])  # no image on both sides
        return 1.0

    monkeypatch.setattr(clusters, "frechet_distance", record)
    source = np.repeat([0, 1, 2, 3], [8, 20, 1100, 1100])
    embedding = np.stack([source, np.arange(len(source))], 1)
    assert frechet_ratio(embedding, source) == (1, None)
    within = sorted(size for size, _, kinds in calls if kinds == 1)
    between = sorted(size for size, _, kinds in calls if kinds == 2)
    assert all(a == b for a, b, _ in calls)
    assert between == [4, 4, 4, 10, 10, 250]
    assert within == [4, 4, 4, 4, 10, 10, 10, 250, 250]  # each needed once


def test_sources_of_few_images_are_left_out_and_counted():
    embedding, source = sources((20, 20, 3, 1), 2)
    ratio, note = frechet_ratio(embedding, source)
    assert note == "sources: 2 with fewer than 4 images left out"
    assert ratio == frechet_ratio(embedding[:40], source[:40])[0]


@pytest.mark.parametrize(
    ("sizes", "reason"),
    [
        ((), "fewer than two sources with 4 images or more"),
        ((20,), "fewer than two sources with 4 images or more"),
        (
            (20, 3),
            "fewer than two sources with 4 images or more "
            "(1 with fewer than 4 images left out)",
        ),
    ],
)
def test_no_ratio_of_fewer_than_two_sources(sizes, reason):
    assert frechet_ratio(*sources(sizes, 1)) == (None, reason)


def test_no_ratio_of_equal_fingerprints():
    embedding = np.full((12, 5), 0.1, np.float32)
    ratio, note = frechet_ratio(embedding, np.arange(12) % 3)
    assert ratio is None and note == "the sources' fingerprints are equal"


def test_map_keeps_sources_together_and_is_repeatable():
    embedding, source = sources((30, 30, 30), 15)
    flat = fingerprint_map(embedding)
    assert flat.shape == (90, 2) and flat.dtype == np.float32
    distances = np.linalg.norm(flat[:, None] - flat, axis=-1) + 1e9 * np.eye(90)
    np.testing.assert_array_equal(source[distances.argmin(1)], source)
    np.testing.assert_array_equal(flat, fingerprint_map(embedding))


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 6])
def test_map_of_few_images(count):
    embedding = np.random.default_rng(0).normal(size=(count, 7)).astype(np.float32)
    for part in (embedding, np.ones_like(embedding)):
        flat = fingerprint_map(part)
        assert flat.shape == (count, 2) and flat.dtype == np.float32
        assert np.isfinite(flat).all()
    assert len(np.unique(fingerprint_map(embedding), axis=0)) == count


def test_map_of_three_images_keeps_their_distances():
    flat = fingerprint_map(np.array([[0.0, 0, 5], [3, 0, 5], [0, 4, 5]]))
    a, b, c = (np.linalg.norm(flat[i] - flat[j]) for i, j in [(0, 1), (0, 2), (1, 2)])
    assert (b / a, c / a) == pytest.approx((4 / 3, 5 / 3))


@pytest.mark.parametrize("scale", [1e-30, 1, 1e6])
def test_map_of_images_that_share_fingerprints(scale):
    some = scale * np.random.default_rng(0).normal(size=(2, 8))
    assert np.isfinite(fingerprint_map(np.repeat(some, 20, 0))).all()
    same = np.repeat(some[:1], 20, 0)
    np.testing.assert_array_equal(fingerprint_map(same), np.zeros((20, 2)))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: cluster_purity([], []), "one image or more"),
        (lambda: cluster_purity([0, 1], [0]), "a source each"),
        (lambda: purity(np.zeros((0, 3)), []), "one image or more"),
        (lambda: purity(np.zeros((2, 3)), [0]), "2 fingerprints, but sources"),
        (lambda: frechet_ratio(np.full((2, 3), np.nan), [0, 1]), "not finite"),
        (lambda: fingerprint_map(np.full((2, 3), np.inf)), "not finite"),
    ],
)
def test_bad_input_is_refused(call, words):
    with pytest.raises(InputError, match=words):
        call()
