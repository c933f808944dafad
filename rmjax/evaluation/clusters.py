"""What the fingerprints of sources look like: clusters, distances, a map.

References:
    Yu, Davis, Fritz, Attributing Fake Images to GANs, ICCV 2019,
    https://arxiv.org/abs/1811.08180 (the ratio of Fréchet distances)
    Bui, Yu, Collomosse, RepMix, ECCV 2022, https://arxiv.org/abs/2207.02063
    van der Maaten, Hinton, Visualizing Data using t-SNE, JMLR 2008
"""

import warnings
from functools import cache
from itertools import combinations

import numpy as np
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.manifold import TSNE
from sklearn.metrics.cluster import contingency_matrix

from rmjax.errors import InputError

MIN_IMAGES = 4  # of a source: two for the covariance of each half
# Of a source in `frechet_ratio`. A distance takes the singular values of a matrix of
# half as many rows and columns, 6 ms on 2 cores; 88 sources have 3,828 pairs.
MAX_IMAGES = 500


def cluster_purity(cluster: np.ndarray, source: np.ndarray) -> float:
    """Return the share of images of the source that is most frequent in their cluster.

    With attributed sources as clusters it is the purity that RepMix's published code
    computes.

    Args:
        cluster: of each image, int `[N]`.
        source: the true one of each image, int `[N]`.

    Returns:
        In (0, 1]; 1 where no cluster has two sources.

    Raises:
        InputError: no images, or lengths that differ.
    """
    cluster, source = np.asarray(cluster), np.asarray(source)
    if not len(source) or cluster.shape != source.shape:
        raise InputError(
            "purity is of one image or more, with a cluster and a source each; got "
            f"{cluster.shape} and {source.shape}"
        )
    return float(contingency_matrix(source, cluster).max(0).sum() / len(source))


def purity(embedding: np.ndarray, source: np.ndarray, seed: int = 0) -> float:
    """Return how purely fingerprints fall into clusters by source, found without it.

    The clusters are of k-means, as many as there are sources, the best of ten starts:
    unlike the purity of attributions, it is also defined for unknown sources.

    Args:
        embedding: fingerprints `[N, D]`.
        source: of the images, int `[N]`.
        seed: of k-means.

    Returns:
        `cluster_purity` in (0, 1]; fingerprints that tell nothing have somewhat more
        than the share of the most frequent source.

    Raises:
        InputError: no images, lengths that differ, or fingerprints that are not finite.
    """
    embedding = _checked(embedding, source)
    if not len(embedding):
        raise InputError("purity is of one image or more")
    model = KMeans(len(np.unique(source)), n_init=10, random_state=seed)
    with warnings.catch_warnings():  # of fewer fingerprints that differ than sources
        warnings.simplefilter("ignore", ConvergenceWarning)
        return cluster_purity(model.fit_predict(embedding), source)


def frechet_ratio(
    embedding: np.ndarray, source: np.ndarray, seed: int = 0
) -> tuple[float | None, str | None]:
    """Compare Fréchet distances within sources with those between sources.

    Every source is split at random into halves. Between two sources it is a half of
    each, within one the two halves; and as the distance of few images is biased
    upwards, the more the fewer, for every pair all four halves are cut to the smallest.
    The ratio is the mean distance within over that between, over all pairs; with as
    many images of every source that is the mean over sources over that over pairs. It
    still falls with more images: compare networks on the same ones.

    RepMix's published code halves a source in the order of its images, measures
    between whole sources, and divides the sum over their pairs by twice their number:
    its ratios are others. Yu et al. have the inverse, higher is better.

    Args:
        embedding: fingerprints `[N, D]`.
        source: of the images, int `[N]`.
        seed: of the halves, and of 500 images of a source that has more.

    Returns:
        The ratio, at least 0, lower where sources lie farther apart: about 1 where
        they do not differ. And a note, or None: how many sources with fewer than four
        images were left out, and why there is no ratio where it is None.

    Raises:
        InputError: lengths that differ, or fingerprints that are not finite.
    """
    embedding, source = _checked(embedding, source), np.asarray(source)
    rng = np.random.default_rng(seed)
    halves, few = [], 0
    for label in np.unique(source):
        own = rng.permutation(np.flatnonzero(source == label))[:MAX_IMAGES]
        few += len(own) < MIN_IMAGES
        if len(own) >= MIN_IMAGES:
            size = len(own) // 2
            halves.append((embedding[own[:size]], embedding[own[size : 2 * size]]))
    note = f"{few} with fewer than {MIN_IMAGES} images left out" if few else None
    if len(halves) < 2:
        reason = f"fewer than two sources with {MIN_IMAGES} images or more"
        return None, reason + (f" ({note})" if note else "")
    within, between = _mean_distances(halves)
    # Of equal sets the distance is rounding, which grows with the fingerprints.
    if between <= 1e-12 * np.square(embedding).sum(1).max():
        return None, "the sources' fingerprints are equal"
    return within / between, f"sources: {note}" if note else None


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Return the squared Fréchet distance of normal distributions fitted to samples.

    |mean_a - mean_b|^2 + Tr(A + B - 2 (A B)^(1/2)) of covariances A and B (Dowson,
    Landau, J. Multivariate Analysis 1982), also of fewer samples than dimensions.

    Args:
        a: samples `[n, D]`, two or more.
        b: samples `[m, D]`, two or more.
    """
    x = (a - a.mean(0)) / np.sqrt(len(a) - 1)
    y = (b - b.mean(0)) / np.sqrt(len(b) - 1)
    # A = x^T x and B = y^T y, thus the eigenvalues of A B that are not 0 are those of
    # (x y^T)(x y^T)^T: Tr((A B)^(1/2)) is the sum of the singular values of x y^T.
    root = np.linalg.svd(x @ y.T, compute_uv=False).sum()
    means = np.square(a.mean(0) - b.mean(0)).sum()
    distance = means + np.square(x).sum() + np.square(y).sum() - 2 * root
    return max(0.0, float(distance))  # of equal samples rounding may leave less


def fingerprint_map(
    embedding: np.ndarray, seed: int = 0, perplexity: float = 30
) -> np.ndarray:
    """Lay fingerprints out in the plane by t-SNE, the same for the same seed.

    Args:
        embedding: `[N, D]`, D at least 2.
        seed: of t-SNE.
        perplexity: above 0; lowered to (N - 1) / 3, as t-SNE compares every image with
            three times as many neighbours.

    Returns:
        Float32 `[N, 2]`, finite. Below five images t-SNE says nothing: these are on
        their first two principal components. All 0 where all fingerprints are equal.

    Raises:
        InputError: fingerprints that are not finite.
    """
    embedding = _checked(embedding, None)
    centred = embedding - embedding.mean(0) if len(embedding) else embedding
    scale = np.abs(centred).max(initial=0)
    # Equal ones differ from their mean by rounding alone, and have no component.
    if scale <= 1e-12 * np.abs(embedding).max(initial=0):
        return np.zeros((len(embedding), 2), np.float32)
    # Tiny ones vanish in t-SNE's float32, in which scikit-learn then crashes.
    centred = centred / scale
    if len(centred) < 5:
        left, values, _ = np.linalg.svd(centred, full_matrices=False)
        flat = np.zeros((len(centred), 2), np.float32)
        flat[:, : len(values)] = (left * values)[:, :2]
        return flat
    model = TSNE(
        init="pca",
        perplexity=min(perplexity, (len(centred) - 1) / 3),
        random_state=seed,
    )
    return model.fit_transform(centred).astype(np.float32)


def _mean_distances(halves: list[tuple[np.ndarray, np.ndarray]]) -> tuple[float, float]:
    """Return the mean distance within and between the sources, over their pairs."""

    @cache
    def within(i: int, size: int) -> float:
        return frechet_distance(halves[i][0][:size], halves[i][1][:size])

    inner, outer = [], []
    for i, j in combinations(range(len(halves)), 2):
        size = min(len(halves[i][0]), len(halves[j][0]))
        inner += [within(i, size), within(j, size)]
        outer.append(frechet_distance(halves[i][0][:size], halves[j][1][:size]))
    return float(np.mean(inner)), float(np.mean(outer))


def _checked(embedding: np.ndarray, source: np.ndarray | None) -> np.ndarray:
    """Return fingerprints `[N, D]` in float64 that are finite and have a source each."""
    embedding = np.asarray(embedding, np.float64)
    if source is not None and np.shape(source) != embedding.shape[:1]:
        raise InputError(
            f"{len(embedding)} fingerprints, but sources {np.shape(source)}"
        )
    if not np.isfinite(embedding).all():
        raise InputError("fingerprints are not finite")
    return embedding
