"""The 19 ImageNet-C corruptions as pure JAX functions.

References:
    Hendrycks and Dietterich, Benchmarking Neural Network Robustness to Common
    Corruptions and Perturbations, ICLR 2019, https://arxiv.org/abs/1903.12261
"""

from rmjax.corruptions.blur_jpeg import random_blur_jpeg
from rmjax.corruptions.registry import (
    CORRUPTIONS,
    NAMES,
    SEEN,
    SEVERITIES,
    UNSEEN,
    check_names,
    check_settings,
    corrupt,
    random_corrupt,
)
from rmjax.corruptions.resharing import RESHARING, check_resharing, reshare

__all__ = [
    "CORRUPTIONS",
    "NAMES",
    "RESHARING",
    "SEEN",
    "SEVERITIES",
    "UNSEEN",
    "check_names",
    "check_resharing",
    "check_settings",
    "corrupt",
    "random_blur_jpeg",
    "random_corrupt",
    "reshare",
]
