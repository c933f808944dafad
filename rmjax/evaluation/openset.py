"""Is an image of a source that the network knows? Scores, how well they tell, and what
becomes of images of sources that the network was not trained on.

Every score is higher for what is more likely of a known source. Images at or above a
threshold are accepted as known, those below it are rejected.

References:
    Hendrycks, Gimpel, A Baseline for Detecting Misclassified and Out-of-Distribution
    Examples, ICLR 2017, https://arxiv.org/abs/1610.02136 (`max_probability`)
    Liu et al., Energy-based Out-of-distribution Detection, NeurIPS 2020,
    https://arxiv.org/abs/2010.03759 (`energy`)
    Sun et al., Out-of-Distribution Detection with Deep Nearest Neighbors, ICML 2022,
    https://arxiv.org/abs/2204.06507 (`knn`)
    Lee et al., A Simple Unified Framework for Detecting Out-of-Distribution Samples
    and Adversarial Attacks, NeurIPS 2018, https://arxiv.org/abs/1807.03888
    (`mahalanobis`)
    Dhamija, Günther, Boult, Reducing Network Agnostophobia, NeurIPS 2018,
    https://arxiv.org/abs/1811.04110 (`oscr` in `measure`)
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp, softmax
from sklearn.covariance import ledoit_wolf
from sklearn.metrics import auc, average_precision_score
from sklearn.metrics.pairwise import euclidean_distances
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import normalize

from rmjax.errors import InputError
from rmjax.evaluation.calibration import check_scores
from rmjax.evaluation.metrics import Predictions
from rmjax.inference.calibration import Calibration

CHUNK = 8192  # images scored at once; bounds the memory, whatever their number
MAX_POINTS = 200  # of a curve
# Eigenvalues of the covariance below this share of their mean count as that much:
# else rounding decides in directions in which the references do not vary.
MIN_VARIANCE = 1e-6


@dataclass(frozen=True)
class Reference:
    """What `knn` and `mahalanobis` know of the training images' fingerprints.

    Attributes:
        directions: L2-normalised fingerprints, `[M, D]`.
        neighbours: which nearest of them counts, 1 to M.
        centre: mean fingerprint, `[D]`.
        whitening: `[D, D]`; right of centred fingerprints it makes the covariance
            within sources the identity.
        means: of each source, centred and whitened, `[sources, D]`.
    """

    directions: np.ndarray
    neighbours: int
    centre: np.ndarray
    whitening: np.ndarray
    means: np.ndarray


def fit_reference(
    embedding: np.ndarray, source: np.ndarray, neighbours: int | None = None
) -> Reference:
    """Fit what the scores need to fingerprints of known training images.

    Args:
        embedding: fingerprints `[M, D]`; they should not be scored themselves, as
            each is its own nearest neighbour.
        source: their sources, int `[M]`.
        neighbours: the k of `knn`. None is 0.1 % of the images, as Sun et al. have
            for CIFAR-10 (50 of 50,000) and nearly for ImageNet (1,000 of 1.28
            million); at least 10, for one stray image to vouch for nothing; and at
            most half the images of the smallest source, for the k-th neighbour to
            be of the image's own source.

    Raises:
        InputError: fewer than two fingerprints, some are not finite, the lengths
            differ, or `neighbours` is not from 1 to M.
    """
    embedding, source = np.asarray(embedding, np.float64), np.asarray(source)
    if len(embedding) < 2 or source.shape != embedding.shape[:1]:
        raise InputError(
            "references are two fingerprints or more, with a source each; got "
            f"{embedding.shape} and sources {source.shape}"
        )
    if not np.isfinite(embedding).all():
        raise InputError("fingerprints of reference images are not finite")
    _, label, counts = np.unique(source, return_inverse=True, return_counts=True)
    if neighbours is None:
        neighbours = max(1, min(max(10, len(source) // 1000), counts.min() // 2))
    if not 1 <= neighbours <= len(source):
        raise InputError(
            f"neighbours: from 1 to the {len(source)} references; got {neighbours}"
        )
    centre = embedding.mean(0)
    centred = embedding - centre
    means = np.stack([centred[label == i].mean(0) for i in range(len(counts))])
    whitening = _whitening(centred - means[label])
    directions = normalize(embedding)
    return Reference(directions, int(neighbours), centre, whitening, means @ whitening)


def max_probability(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Return the greatest probability in softmax(logits / temperature).

    Args:
        logits: of attribution, `[N, num_sources]`.
        temperature: above 0.

    Returns:
        Float64 `[N]` in [1 / num_sources, 1]; 1 for logits some 37 apart and more.

    Raises:
        InputError: a temperature that is not above 0.
    """
    if not temperature > 0:
        raise InputError(f"a temperature is above 0; got {temperature}")
    return softmax(np.asarray(logits, np.float64) / temperature, axis=-1).max(-1)


def energy(logits: np.ndarray) -> np.ndarray:
    """Return the negative free energy, logsumexp of the logits `[N, num_sources]`.

    At temperature 1, where Liu et al. leave it, so that there is nothing to choose.

    Returns:
        Float64 `[N]`, unbounded.
    """
    return logsumexp(np.asarray(logits, np.float64), axis=-1)


def knn(reference: Reference, embedding: np.ndarray) -> np.ndarray:
    """Return the negative distance to the k-th nearest reference fingerprint.

    Euclidean, between L2-normalised fingerprints.

    Args:
        reference: from `fit_reference`.
        embedding: fingerprints `[N, D]`.

    Returns:
        Float64 `[N]` in [-2, 0].
    """
    # In hundreds of dimensions a search tree visits every leaf: brute force.
    index = NearestNeighbors(n_neighbors=reference.neighbours, algorithm="brute")
    index.fit(reference.directions)
    return _in_chunks(lambda x: -index.kneighbors(normalize(x))[0][:, -1], embedding)


def mahalanobis(reference: Reference, embedding: np.ndarray) -> np.ndarray:
    """Return the negative squared Mahalanobis distance to the nearest source's mean.

    The sources share one covariance; Lee et al. estimate it by the sample's, here it
    is shrunk (Ledoit, Wolf, J. Multivariate Analysis 2004), as references may be few.

    Args:
        reference: from `fit_reference`.
        embedding: fingerprints `[N, D]`.

    Returns:
        Float64 `[N]`, at most 0.
    """

    def score(x: np.ndarray) -> np.ndarray:
        white = (x - reference.centre) @ reference.whitening
        return -euclidean_distances(white, reference.means, squared=True).min(1)

    return _in_chunks(score, embedding)


# Function of (reference, embedding `[N, D]`, logits `[N, num_sources]`, temperature) to
# scores `[N]`; each takes what it needs.
Score = Callable[[Reference, np.ndarray, np.ndarray, float], np.ndarray]
SCORES: dict[str, Score] = {
    "max_probability": lambda ref, emb, logits, t: max_probability(logits, t),
    "energy": lambda ref, emb, logits, t: energy(logits),
    "knn": lambda ref, emb, logits, t: knn(ref, emb),
    "mahalanobis": lambda ref, emb, logits, t: mahalanobis(ref, emb),
}


def measure(
    known_scores: np.ndarray, known_correct: np.ndarray, unknown_scores: np.ndarray
) -> dict:
    """Measure how well a score tells images of known from those of unknown sources.

    Args:
        known_scores: of images of known sources, `[K]`.
        known_correct: whether these are rightly attributed, bool `[K]`.
        unknown_scores: of images of unknown sources, `[U]`.

    Returns:
        A dict ready for JSON: `images`, U; in [0, 1] `auroc`; `fpr95`, the share of
        unknown images accepted at the greatest threshold that accepts at least 95 %
        of the known; `aupr`, average precision where unknown images are to be found,
        and `aupr_chance`, that of a score that says nothing; `oscr`, the area under
        the correct classification rate over the false positive rate, at most the
        share rightly attributed. Ties count half. `curve`: lists `fpr` (unknown
        accepted), `tpr` (known accepted) and `ccr` (known accepted and rightly
        attributed) from the greatest threshold to the least, at most 200 points.

    Raises:
        InputError: no known or no unknown images, or a score that is not finite.
    """
    known = check_scores(known_scores, "known images")
    unknown = check_scores(unknown_scores, "unknown images")
    correct = np.asarray(known_correct, bool)
    if correct.shape != known.shape:
        raise InputError(f"{known.shape} known scores, but {correct.shape} verdicts")
    scores = np.concatenate([known, unknown])
    thresholds = np.unique(scores)[::-1]
    fpr = _accepted(unknown, thresholds) / len(unknown)
    tpr = _accepted(known, thresholds) / len(known)
    ccr = _accepted(known[correct], thresholds) / len(known)
    is_unknown = np.arange(len(scores)) >= len(known)
    # Evenly along the curve: by rank a few unknown images would get few points.
    steps = np.linspace(0, fpr[-1] + tpr[-1], MAX_POINTS)
    points = np.unique(np.searchsorted(fpr + tpr, steps))
    return {
        "images": len(unknown),
        "auroc": float(auc(fpr, tpr)),
        "fpr95": float(fpr[np.argmax(tpr >= 0.95)]),
        "aupr": float(average_precision_score(is_unknown, -scores)),
        "aupr_chance": len(unknown) / len(scores),
        "oscr": float(auc(fpr, ccr)),
        "curve": {
            "fpr": fpr[points].tolist(),
            "tpr": tpr[points].tolist(),
            "ccr": ccr[points].tolist(),
        },
    }


def _whitening(residuals: np.ndarray) -> np.ndarray:
    """Return W `[D, D]` with W W^T the inverse of the residuals' shrunk covariance."""
    values, vectors = np.linalg.eigh(ledoit_wolf(residuals, assume_centered=True)[0])
    # Without any residual (one image a source) the distance is the Euclidean one.
    floor = MIN_VARIANCE * values.mean() if residuals.any() else 1.0
    return vectors / np.sqrt(np.maximum(values, floor))


def _in_chunks(
    score: Callable[[np.ndarray], np.ndarray], embedding: np.ndarray
) -> np.ndarray:
    scores = np.empty(len(embedding))
    for start in range(0, len(embedding), CHUNK):
        rows = slice(start, start + CHUNK)
        scores[rows] = score(np.asarray(embedding[rows], np.float64))
    return scores


def _accepted(scores: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Count the scores at or above infinity, that is none, and each threshold."""
    below = np.searchsorted(np.sort(scores), thresholds)
    return np.concatenate([[0], len(scores) - below])


def measure_open_set(
    known: Predictions,
    unknown: Predictions,
    reference: Reference,
    calibration: Calibration,
    *,
    sources: Sequence[str],
    held_out: Sequence[str],
    near: Sequence[str],
    unseen: Predictions | None = None,
) -> dict:
    """Measure how clean images of unknown sources are told from those of known ones.

    Args:
        known: of test images of the sources that were trained on, seen semantics.
        unknown: of images of the sources that were not; `source` is their place in
            `held_out`.
        reference: of training images.
        calibration: of the checkpoint.
        sources: names of the known sources.
        held_out: names of the unknown ones.
        near: those of them whose kin was trained on.
        unseen: of test images of known sources and unseen semantics.

    Returns:
        `held_out`, `known_images`; by score the figures of `measure`, for near, far and
        all unknown images and each source; what the thresholds say of them (`rejected`,
        `called_synthetic`) and what they are `attributed_to`.
    """
    rows = {name: unknown.source == i for i, name in enumerate(held_out)}
    rows = {name: own for name, own in rows.items() if own.any()}
    is_near = np.isin(unknown.source, [i for i, n in enumerate(held_out) if n in near])
    kins = {"near": is_near, "far": ~is_near, "all": np.ones(len(unknown), bool)}

    def by_kin(figure: Callable[[np.ndarray], object]) -> dict[str, object]:
        by = {kin: figure(own) if own.any() else None for kin, own in kins.items()}
        return by | {"by_source": {name: figure(own) for name, own in rows.items()}}

    def measure_score(score: Score) -> dict[str, object]:
        of_known, of_unknown = (
            score(reference, p.embedding, p.attribution, calibration.attribution)
            for p in (known, unknown)
        )
        right = known.guess == known.source
        return by_kin(lambda own: measure(of_known, right, of_unknown[own]))

    rejected = called = None
    if calibration.reject:
        out = calibration.rejects(unknown.attribution)
        synthetic = calibration.detect(unknown.detection)
        rejected = {
            "known": float(calibration.rejects(known.attribution).mean()),
            "known_unseen_semantics": None
            if unseen is None
            else float(calibration.rejects(unseen.attribution).mean()),
        } | by_kin(lambda own: float(out[own].mean()))
        called = {
            f"{point['fpr']:g}": {
                name: float(np.mean(synthetic[own] >= point["threshold"]))
                for name, own in rows.items()
            }
            for point in calibration.operating_points
        }
    counts = {
        name: np.bincount(unknown.guess[own], minlength=len(sources))
        for name, own in rows.items()
    }
    return {
        "held_out": {
            name: {"images": int(own.sum()), "kin": "near" if name in near else "far"}
            for name, own in rows.items()
        },
        "without_images": [name for name in held_out if name not in rows],
        "known_images": len(known),
        "scores": {name: measure_score(score) for name, score in SCORES.items()},
        "attributed_to": {
            name: dict(zip(sources, (own / own.sum()).tolist(), strict=True))
            for name, own in counts.items()
        },
        "rejected": rejected,
        "called_synthetic": called,
    }
