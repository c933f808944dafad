"""Spaces to compare fingerprints in: each a centre and a matrix, then the direction.

Reference: Hastie, Tibshirani, Friedman, The Elements of Statistical Learning, 2nd ed.,
2009, 4.3.2 (sphering by the covariance within classes, `whitened`).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from rmjax.errors import InputError
from rmjax.evaluation.openset import fit_reference
from rmjax.utils.choose import choose


@dataclass(frozen=True)
class Space:
    """A map from fingerprints to directions.

    Attributes:
        name: one of `SPACES`.
        centre: what is subtracted, float32 `[D]`.
        matrix: what it is multiplied by from the right, float32 `[D, D]`.
    """

    name: str
    centre: np.ndarray
    matrix: np.ndarray

    def directions(self, embedding: np.ndarray) -> np.ndarray:
        """Return unit vectors, float32 `[N, D]`, for fingerprints `[N, D]`.

        Raises:
            InputError: another length than D, or one that has no direction: a number
                that is not finite, or all zeros.
        """
        embedding = np.asarray(embedding, np.float32)
        if embedding.ndim != 2 or embedding.shape[1] != len(self.centre):
            raise InputError(
                f"fingerprints of {list(embedding.shape)} do not fit a space of "
                f"{len(self.centre)} dimensions"
            )
        found = (embedding - self.centre) @ self.matrix
        length = np.linalg.norm(found, axis=1, keepdims=True)
        if not (np.isfinite(length) & (length > 0)).all():
            raise InputError("a fingerprint is not finite, or all zeros")
        return found / length


def cosine(embedding: np.ndarray, source: np.ndarray) -> Space:
    """Return the space of the fingerprints as they are; nothing is fitted."""
    size = np.shape(embedding)[1]
    return Space("cosine", np.zeros(size, np.float32), np.eye(size, dtype=np.float32))


def whitened(embedding: np.ndarray, source: np.ndarray) -> Space:
    """Fit the space in which images of one source vary alike in every direction.

    What varies much within known sources (content, say) counts little there, what
    hardly varies counts much. The covariance is that of `openset.fit_reference`.

    Args:
        embedding: fingerprints of known sources that were not trained on, `[M, D]`.
        source: their sources, int `[M]`.

    Raises:
        InputError: fewer than two fingerprints, or some are not finite.
    """
    found = fit_reference(embedding, source, neighbours=1)
    return Space(
        "whitened", found.centre.astype("float32"), found.whitening.astype("float32")
    )


# Function of (fingerprints `[M, D]` of known sources, their sources `[M]`).
SPACES: dict[str, Callable[[np.ndarray, np.ndarray], Space]] = {
    "cosine": cosine,
    "whitened": whitened,
}
DEFAULT_SPACE = "whitened"


def get_space(name: str) -> Callable[[np.ndarray, np.ndarray], Space]:
    """Return what fits the space `name`.

    Raises:
        InputError: there is none of that name.
    """
    return choose("space", name, SPACES)
