"""How the files of real photographs differ from those of the others."""

from typing import Any

import numpy as np
from scipy.stats import ks_2samp

from rmjax.data.facts import Facts

# From which distance on they differ; 1 is two sets of files with nothing in common.
DISTANCE = 0.4
_CHANCE = 0.001  # of sizes so far apart in samples of the same images, at most


def compare_real(facts: Facts, real: np.ndarray) -> dict[str, Any]:
    """Compare the formats and sizes of real photographs with those of the others.

    Args:
        facts: of all images.
        real: which of them are real, bool `[n]`; some are, and some are not.

    Returns:
        `format`: of `real` and `others` the share of images by format, from the
        commonest on; `size`: of each the median width and height. Of both
        `distance`, from 0 to 1: half the sum of the differences of the shares, and
        the Kolmogorov-Smirnov statistic of width or height, the greater; and
        `differs`, whether that is `DISTANCE` or more and no chance.
    """
    shares = [_shares(facts.format[mask]) for mask in (real, ~real)]
    formats = shares[0].keys() | shares[1].keys()
    apart = sum(abs(shares[0].get(f, 0) - shares[1].get(f, 0)) for f in formats) / 2
    sides = np.stack([facts.width, facts.height])
    tests = [ks_2samp(side[real], side[~real]) for side in sides]
    widest = max(tests, key=lambda test: test.statistic)
    medians = [np.median(sides[:, mask], 1).tolist() for mask in (real, ~real)]
    far = widest.statistic >= DISTANCE and widest.pvalue < _CHANCE
    return {
        "format": {
            "real": shares[0],
            "others": shares[1],
            "distance": float(apart),
            "differs": bool(apart >= DISTANCE),
        },
        "size": {
            "real": medians[0],
            "others": medians[1],
            "distance": float(widest.statistic),
            "differs": bool(far),
        },
    }


def _shares(formats: np.ndarray) -> dict[str, float]:
    names, counts = np.unique(formats, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return {str(names[i]): float(counts[i] / len(formats)) for i in order}
