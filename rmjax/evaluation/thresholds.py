"""Where to draw the line, from the scores of validation images."""

import numpy as np

from rmjax.errors import InputError


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
    scores = np.asarray(scores)
    if not np.issubdtype(scores.dtype, np.floating):
        scores = scores.astype(np.float64)
    if scores.ndim != 1 or not len(scores):
        raise InputError(f"scores of {what} are a list of one or more")
    if not np.isfinite(scores).all():
        raise InputError(f"scores of {what} are not finite")
    return scores
