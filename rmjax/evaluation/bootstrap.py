"""Bootstrap intervals of what is counted over images, resampled by group.

Images that belong together (a photograph and what was made from it) are drawn
together, as they do not err independently (Davison and Hinkley, Bootstrap Methods and
their Application, 1997, section 3.8). Every condition meets the same draws, so
differences between conditions, or between runs, are paired.
"""

from dataclasses import dataclass

import numpy as np
from scipy import sparse

LEVEL = 0.95  # of the intervals
DRAWS = 1000


@dataclass(frozen=True)
class Resamples:
    """Draws of groups, with replacement, as many as there are.

    Attributes:
        code: which group an image is of, int `[N]`, from 0.
        counts: how often each group is drawn, int32 `[draws, groups]`.
    """

    code: np.ndarray
    counts: np.ndarray


def draw_resamples(group: np.ndarray, draws: int = DRAWS, seed: int = 0) -> Resamples:
    """Draw groups for N images.

    Args:
        group: `[N]`, equal for images that belong together.
        draws: how often to draw.
        seed: of the draws.
    """
    names, code = np.unique(group, return_inverse=True)
    rng = np.random.default_rng(seed)
    counts = np.empty((draws, len(names)), np.int32)
    for row in counts:
        chosen = rng.integers(len(names), size=len(names))
        row[:] = np.bincount(chosen, minlength=len(names))
    return Resamples(code, counts)


def resample_counts(
    kind: np.ndarray, num_kinds: int, resamples: Resamples
) -> np.ndarray:
    """Count the images of each kind in every draw.

    Args:
        kind: int `[N]` below `num_kinds`, such as a cell of the confusion matrix.
        num_kinds: how many there are.
        resamples: of these N images.

    Returns:
        int `[draws, num_kinds]`.
    """
    groups = resamples.counts.shape[1]
    ones = np.ones(len(kind), np.int32)
    # Few pairs of group and kind occur, however many kinds there are.
    table = sparse.csr_array((ones, (kind, resamples.code)), (num_kinds, groups))
    return (table @ resamples.counts.T).T


def interval(samples: np.ndarray, groups: int = 0) -> tuple[float | None, float | None]:
    """Return the percentile interval of draws `[draws]`; None where there is none.

    Draws that are not defined (NaN) do not count. Where all others agree, an interval
    of no width would look certain: a share that is 0 or 1 in all of `groups` groups
    gets the exact one (Clopper and Pearson, 1934), anything else none.

    Args:
        samples: the draws.
        groups: how many groups of images they are of, if they are shares of images.
    """
    finite = samples[np.isfinite(samples)]
    if not len(finite):
        return None, None
    low, high = np.quantile(finite, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    if finite.min() < finite.max():
        return float(low), float(high)
    if groups > 1 and low in (0, 1):
        reach = 1 - ((1 - LEVEL) / 2) ** (1 / groups)
        return (0.0, reach) if low == 0 else (1 - reach, 1.0)
    return None, None


def draw_sums(values: np.ndarray, resamples: Resamples) -> np.ndarray:
    """Return sum and number of the images' values `[N]` in every draw, `[2, draws]`."""
    groups = resamples.counts.shape[1]
    by_group = [np.bincount(resamples.code, w, groups) for w in (values, None)]
    return np.stack([resamples.counts @ weights for weights in by_group])
