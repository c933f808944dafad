"""Probabilities that mean what they say, and thresholds with a stated error.

Both come from validation images alone and are stored with the run, by checkpoint.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy.special import expit, log_softmax, logit

from rmjax.errors import InputError
from rmjax.evaluation.metrics import Predictions
from rmjax.inference.calibration import UNCALIBRATED, Calibration, log_probabilities

logger = logging.getLogger(__name__)

BINS = 15
FPRS = (0.05, 0.01)  # stated false-positive rates of "synthetic", on real images
REJECT_FPR = 0.05  # of "unknown", on images of known sources

# Temperatures that are looked at; a fit that ends there has nothing to go by.
_RANGE = (1e-2, 1e2)


def calibrate(
    predictions: Predictions,
    *,
    fprs: Sequence[float] = FPRS,
    reject_fpr: float = REJECT_FPR,
    digest: str = "",
) -> Calibration:
    """Fit temperatures and thresholds to predictions on validation images.

    Detection is fitted with real and synthetic images counting alike, half each,
    however many there are of both: that is what the network is trained for, and the
    odds before an image is seen are not the data set's to say.

    Raises:
        InputError: a false-positive rate that is not between 0 and 1.
    """
    truth = predictions.source
    synthetic = (truth > 0).astype(int)
    balance = balanced_weights(synthetic)
    fitted = Calibration(
        images=len(predictions),
        attribution=fit_temperature(predictions.attribution, truth),
        detection=fit_temperature(predictions.detection, synthetic, balance),
        digest=digest,
    )
    best = fitted.attribute(predictions.attribution).max(-1)
    threshold, achieved = rejection_threshold(best, reject_fpr)
    reject = {
        "score": "max_probability",
        "fpr": reject_fpr,
        "threshold": threshold,
        "achieved": achieved,
    }
    scores, real = fitted.detect(predictions.detection), synthetic == 0
    points = tuple(_operating_point(scores, real, fpr) for fpr in fprs if real.any())
    return replace(
        fitted,
        reject=reject,
        operating_points=points,
        validation=measure_calibration(predictions, fitted),
    )


def _operating_point(scores: np.ndarray, real: np.ndarray, fpr: float) -> dict:
    """Choose from which score on an image is called synthetic.

    From just above the last real image that passes to the next image, real or
    synthetic, every threshold does the same to all of them. The one midway in log-odds,
    but not beyond even odds, leaves room on both sides: real images of other content
    score higher, and synthetic ones lower.
    """
    threshold, achieved = detection_threshold(scores[real], fpr)
    above = scores[scores >= threshold]
    if len(above):
        midway = expit((logit(threshold) + logit(above.min())) / 2)
        threshold = max(threshold, float(min(midway, above.min(), 0.5)))
    return {
        "fpr": fpr,
        "threshold": threshold,
        "real_images": int(real.sum()),
        "achieved": achieved,
    }


def rejection_threshold(known_scores: np.ndarray, fpr: float) -> tuple[float, float]:
    """Choose below which score images are rejected as of no known source.

    Args:
        known_scores: of images of known sources, `[K]`, which were not trained on.
        fpr: the greatest share of these to reject, in (0, 1).

    Returns:
        The greatest threshold such that at most that share scores strictly below it,
        and the share that does.

    Raises:
        InputError: no images, a score that is not finite, or `fpr` outside (0, 1).
    """
    scores = check_scores(known_scores, "known images")
    threshold = np.sort(scores)[_allowed(len(scores), fpr)]
    return float(threshold), float(np.mean(scores < threshold))


def detection_threshold(real_scores: np.ndarray, fpr: float) -> tuple[float, float]:
    """Choose from which score on images are called synthetic.

    Args:
        real_scores: how synthetic real images look, higher for more, `[R]`.
        fpr: the greatest share of these to call synthetic, in (0, 1).

    Returns:
        The least threshold such that at most that share scores as much or more, and
        the share that does. It is the least in the scores' own precision, and just
        above a real image's score: compare scores of that precision with it. Where
        that score is a probability of 1, the threshold is above 1, and no image is
        called synthetic.

    Raises:
        InputError: no images, a score that is not finite, or `fpr` outside (0, 1).
    """
    scores = check_scores(real_scores, "real images")
    tolerated = np.sort(scores)[::-1][_allowed(len(scores), fpr)]
    threshold = np.nextafter(tolerated, np.inf)  # in their precision
    return float(threshold), float(np.mean(scores >= threshold))


def _allowed(count: int, share: float) -> int:
    """Return the greatest number of images that is at most the share of `count`."""
    if not 0 < share < 1:
        raise InputError(f"a false positive rate is between 0 and 1; got {share}")
    # By comparison, not by a product: 0.29 * 100 is less than 29.
    return int(np.searchsorted(np.arange(count) / count, share, side="right")) - 1


def check_scores(scores: np.ndarray, what: str) -> np.ndarray:
    """Return scores as floats `[N]`, or raise an InputError where they are none."""
    scores = np.asarray(scores)
    if not np.issubdtype(scores.dtype, np.floating):
        scores = scores.astype(np.float64)
    if scores.ndim != 1 or not len(scores):
        raise InputError(f"scores of {what} are a list of one or more")
    if not np.isfinite(scores).all():
        raise InputError(f"scores of {what} are not finite")
    return scores


def fit_temperature(
    logits: np.ndarray, truth: np.ndarray, weights: np.ndarray | None = None
) -> float:
    """Find what to divide logits by, so that their softmax is likeliest.

    Guo et al., "On Calibration of Modern Neural Networks", ICML 2017. As if one more
    image had been wrong, the target of each is short of one by 1 / (N + 2) (Platt's
    targets, 1999): where all validation images are right, the likeliest temperature
    would be zero.

    Args:
        logits: `[N, classes]`.
        truth: int `[N]`.
        weights: how much each image counts, `[N]`, sum one; None: all alike.
    """
    n, classes = logits.shape
    logits = np.asarray(logits, np.float64)
    weights = np.full(n, 1 / n) if weights is None else weights
    short = 1 / (n + 2)
    target = np.full((n, classes), short / (classes - 1))
    target[np.arange(n), truth] = 1 - short

    def loss(log_temperature: float) -> float:
        log_p = log_softmax(logits / np.exp(log_temperature), axis=-1)
        return -float(weights @ (target * log_p).sum(-1))

    # Here: who only loads a run need not wait for this import.
    from scipy.optimize import minimize_scalar

    best = minimize_scalar(
        loss, bounds=np.log(_RANGE), method="bounded", options={"xatol": 1e-6}
    )
    temperature = float(np.exp(best.x))
    if not 1.01 * _RANGE[0] < temperature < 0.99 * _RANGE[1]:
        logger.warning("%d images give no temperature to go by", n)
    return temperature


def balanced_weights(synthetic: np.ndarray) -> np.ndarray:
    """Return weights `[N]`, sum one, by which both classes (0 and 1) count alike."""
    counts = np.bincount(synthetic, minlength=2)
    return 1 / counts[synthetic] / np.count_nonzero(counts)


def measure_calibration(
    predictions: Predictions, calibration: Calibration
) -> dict[str, dict[str, float]]:
    """Return `attribution` and `detection`, each with how far off its probabilities are.

    Each has `ece`, `brier` and `nll`, and as `*_uncalibrated` those of the plain
    softmax. Brier scores sum over the sources (0 to 2), those of detection are of
    P(synthetic) alone (0 to 1). In detection real and synthetic count alike.
    """
    truth = predictions.source
    synthetic = (truth > 0).astype(int)
    balance = balanced_weights(synthetic)
    measured: dict[str, dict[str, float]] = {"attribution": {}, "detection": {}}
    for suffix, way in (("", calibration), ("_uncalibrated", UNCALIBRATED)):
        log_p = log_probabilities(predictions.attribution, way.attribution)
        bins = reliability_bins(*top_label(np.exp(log_p), truth))
        attribution = _errors(log_p, truth, bins)
        log_p = log_probabilities(predictions.detection, way.detection)
        bins = reliability_bins(np.exp(log_p[:, 1]), synthetic, balance)
        detection = _errors(log_p, synthetic, bins, balance)
        detection["brier"] /= 2  # of one class: the other's error is the same
        for what, errors in (("attribution", attribution), ("detection", detection)):
            measured[what] |= {name + suffix: value for name, value in errors.items()}
    return measured


def _errors(
    log_p: np.ndarray,
    truth: np.ndarray,
    bins: Sequence[dict],
    weights: np.ndarray | None = None,
) -> dict[str, float]:
    """Return Brier score, negative log-likelihood and calibration error."""
    rows = np.arange(len(truth))
    off = np.exp(log_p)
    off[rows, truth] -= 1
    return {
        "brier": float(np.average((off**2).sum(-1), weights=weights)),
        "nll": float(np.average(-log_p[rows, truth], weights=weights)),
        "ece": expected_calibration_error(bins),
    }


def top_label(
    probabilities: np.ndarray, truth: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the greatest probability of each image, and whether it is the true one's."""
    guess = probabilities.argmax(-1)
    return probabilities[np.arange(len(truth)), guess], guess == truth


def reliability_bins(
    confidence: np.ndarray,
    happened: np.ndarray,
    weights: np.ndarray | None = None,
    bins: int = BINS,
) -> list[dict]:
    """Sort images by confidence into bins of equal mass.

    Args:
        confidence: the stated probability of each image, `[N]`.
        happened: whether it came true, `[N]`.
        weights: how much each image counts, `[N]`; None: all alike.
        bins: how many; of fewer images, as many.

    Returns:
        For each bin the mean `confidence`, the share that came true as `accuracy`, how
        many `images` and their share of the weight as `mass`.
    """
    n = len(confidence)
    weights = np.full(n, 1 / n) if weights is None else weights / np.sum(weights)
    # Images of one confidence go into one bin, whatever their order: the one that the
    # middle of their weight falls into. The rounding keeps middles that are equal in
    # exact arithmetic on one side of an edge.
    _, place = np.unique(confidence, return_inverse=True)
    mass = np.bincount(place, weights)
    middle = np.cumsum(mass) - mass / 2
    number = np.minimum((middle * bins + 1e-9).astype(int), bins - 1)[place]
    rows = [np.flatnonzero(number == b) for b in range(bins)]
    return [
        {
            "confidence": float(np.average(confidence[own], weights=weights[own])),
            "accuracy": float(np.average(happened[own], weights=weights[own])),
            "images": len(own),
            "mass": float(weights[own].sum()),
        }
        for own in rows
        if len(own)
    ]


def expected_calibration_error(bins: Sequence[dict]) -> float:
    """Return the mean distance of confidence and accuracy, by the bins' mass.

    Naeini et al., AAAI 2015, with bins of equal mass (Nguyen and O'Connor, 2015).
    """
    return sum(b["mass"] * abs(b["confidence"] - b["accuracy"]) for b in bins)
