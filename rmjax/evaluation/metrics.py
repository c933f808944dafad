"""What is reported of a set of predictions: plain NumPy, exact, from counts."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

import jax.numpy as jnp
import numpy as np

from rmjax.losses import loss_terms, total_loss

# What `confusion_scores` gives, each in [0, 1].
SCORES = ("attribution_accuracy", "detection_accuracy", "macro_f1", "nmi")


@dataclass(frozen=True)
class Predictions:
    """What a network said of N images, and what was true.

    Attributes:
        source: true source, int `[N]`, 0 = real.
        semantic: what the image shows, int `[N]`.
        group: a number that images share which belong together, int `[N]`.
        split: which of the splits that were read it is from, int `[N]`.
        index: the image's record number in that split, int `[N]`.
        embedding: fingerprints, float `[N, 256]`.
        attribution: gated logits, float `[N, num_sources]`.
        detection: logits of real and synthetic, float `[N, 2]`.
    """

    source: np.ndarray
    semantic: np.ndarray
    group: np.ndarray
    split: np.ndarray
    index: np.ndarray
    embedding: np.ndarray
    attribution: np.ndarray
    detection: np.ndarray

    def __len__(self) -> int:
        return len(self.source)

    @property
    def guess(self) -> np.ndarray:
        """Return the attributed source, int `[N]`."""
        return self.attribution.argmax(-1)

    def where(self, chosen: np.ndarray) -> "Predictions":
        """Return the rows that the boolean (or index) array `chosen` names."""
        return Predictions(*(getattr(self, f.name)[chosen] for f in fields(self)))

    @staticmethod
    def concatenate(parts: Iterable["Predictions"]) -> "Predictions":
        """Join several sets of predictions."""
        parts = list(parts)
        names = [f.name for f in fields(Predictions)]
        return Predictions(
            *(np.concatenate([getattr(p, name) for p in parts]) for name in names)
        )


def count_confusion(
    source: np.ndarray, guess: np.ndarray, num_sources: int
) -> np.ndarray:
    """Return counts `[num_sources, num_sources]`: true sources as rows."""
    pairs = source.astype(np.int64) * num_sources + guess
    return np.bincount(pairs, minlength=num_sources**2).reshape(num_sources, -1)


def confusion_scores(confusion: np.ndarray) -> dict[str, np.ndarray]:
    """Compute the scores that follow from counts of true and attributed sources.

    Args:
        confusion: counts `[..., num_sources, num_sources]`, true sources as rows.

    Returns:
        Of shape `[...]`, NaN where there is no image: `attribution_accuracy`;
        `detection_accuracy` (synthetic where the attributed source is not real, as
        published); `macro_f1`, the mean F1 over the sources that have images; `nmi`,
        the mutual information of true and attributed source over the mean of their
        entropies (NaN for images of a single source: there is nothing to tell).
    """
    counts = np.asarray(confusion, np.float64)
    total = counts.sum((-2, -1))
    rows, columns = counts.sum(-1), counts.sum(-2)
    right = np.diagonal(counts, axis1=-2, axis2=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        f1 = np.where(rows > 0, 2 * right / (rows + columns), np.nan)
        present = np.maximum((rows > 0).sum(-1), 1)
        detected = counts[..., 0, 0] + counts[..., 1:, 1:].sum((-2, -1))
        scores = {
            "attribution_accuracy": right.sum(-1) / total,
            "detection_accuracy": detected / total,
            "macro_f1": np.nansum(f1, -1) / present,
            "nmi": _normalized_information(counts, rows, columns, total),
        }
    return {k: np.where(total > 0, v, np.nan) for k, v in scores.items()}


def _normalized_information(
    counts: np.ndarray, rows: np.ndarray, columns: np.ndarray, total: np.ndarray
) -> np.ndarray:
    """Return the mutual information over the mean entropy; NaN for one true source."""
    n = np.maximum(total, 1)
    of_rows = _entropy(rows / n[..., None])
    of_columns = _entropy(columns / n[..., None])
    joint = _entropy((counts / n[..., None, None]).reshape(*counts.shape[:-2], -1))
    mean = (of_rows + of_columns) / 2
    shared = np.maximum(of_rows + of_columns - joint, 0)
    return np.where(of_rows > 0, np.minimum(shared / mean, 1), np.nan)


def _entropy(shares: np.ndarray) -> np.ndarray:
    logs = np.log(shares, out=np.zeros_like(shares), where=shares > 0)
    return -(shares * logs).sum(-1)


def recall(
    confusion: np.ndarray, source_names: Sequence[str]
) -> dict[str, float | None]:
    """Return the share of each source's images that are attributed to it.

    None stands for a source without images.
    """
    counts = np.asarray(confusion)
    totals = counts.sum(1)
    return {
        name: float(counts[i, i] / totals[i]) if totals[i] else None
        for i, name in enumerate(source_names)
    }


def summarize(predictions: Predictions, source_names: Sequence[str]) -> dict:
    """Compute the main figures of a non-empty set of predictions.

    Returns:
        A dict ready for JSON: `images`; `loss` (the compound loss, unmixed) with
        `attribution_loss` and `detection_loss`; the `SCORES`, None where not defined;
        `detection_head_accuracy` (by the detection head alone); `recall` by source
        (None for a source without images); `confusion`, counts with true sources as
        rows and attributed ones as columns.
    """
    truth = predictions.source
    confusion = count_confusion(truth, predictions.guess, len(source_names))
    scores = confusion_scores(confusion)
    head = predictions.detection.argmax(-1)
    return {
        "images": len(predictions),
        **losses(predictions),
        **{k: float(v) if np.isfinite(v) else None for k, v in scores.items()},
        "detection_head_accuracy": float(np.mean((head > 0) == (truth > 0))),
        "recall": recall(confusion, source_names),
        "confusion": confusion.tolist(),
    }


def losses(predictions: Predictions) -> dict[str, float]:
    """Return the compound `loss` and its two parts, averaged over the images."""
    terms = loss_terms(
        jnp.asarray(predictions.attribution),
        jnp.asarray(predictions.detection),
        jnp.asarray(predictions.source[:, None]),
        jnp.ones((len(predictions), 1)),
    )
    return {
        "loss": float(total_loss(terms, detects=True)),
        "attribution_loss": float(terms["attribution"]),
        "detection_loss": float(terms["detection"]),
    }
