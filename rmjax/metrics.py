"""What is reported of a set of predictions; plain NumPy and scikit-learn, exact."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

import numpy as np
from sklearn.metrics import confusion_matrix, normalized_mutual_info_score

from rmjax.losses import compound_loss


@dataclass(frozen=True)
class Predictions:
    """What a network said of N images, and what was true.

    Attributes:
        source: true source, int `[N]`, 0 = real.
        semantic: what the image shows, int `[N]`.
        split: which of the splits that were read it is from, int `[N]`.
        index: the image's record number in that split, int `[N]`.
        embedding: fingerprints, float `[N, 256]`.
        attribution: gated logits, float `[N, num_sources]`.
        detection: logits of real and synthetic, float `[N, 2]`.
    """

    source: np.ndarray
    semantic: np.ndarray
    split: np.ndarray
    index: np.ndarray
    embedding: np.ndarray
    attribution: np.ndarray
    detection: np.ndarray

    def __len__(self) -> int:
        return len(self.source)

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


def summarize(predictions: Predictions, source_names: Sequence[str]) -> dict:
    """Compute every reported figure of a non-empty set of predictions.

    Returns:
        A dict ready for JSON: `images`; `loss` (the compound loss, unmixed) with
        `attribution_loss` and `detection_loss`; in [0, 1] `detection_accuracy`
        (synthetic where the attributed source is not real, as published),
        `detection_head_accuracy` (by the detection head alone),
        `attribution_accuracy`, `nmi` (of attributed and true source); `recall`
        by source (None for a source without images); `confusion`, counts with
        true sources as rows and attributed ones as columns.
    """
    truth, guess = predictions.source, predictions.attribution.argmax(-1)
    confusion = confusion_matrix(truth, guess, labels=range(len(source_names)))
    totals = confusion.sum(1)
    recall = {
        name: float(confusion[i, i] / totals[i]) if totals[i] else None
        for i, name in enumerate(source_names)
    }
    head = predictions.detection.argmax(-1)
    return {
        "images": len(predictions),
        **losses(predictions),
        "detection_accuracy": float(np.mean((guess > 0) == (truth > 0))),
        "detection_head_accuracy": float(np.mean((head > 0) == (truth > 0))),
        "attribution_accuracy": float(np.mean(guess == truth)),
        "nmi": float(normalized_mutual_info_score(truth, guess)),
        "recall": recall,
        "confusion": confusion.tolist(),
    }


def losses(predictions: Predictions) -> dict[str, float]:
    """Return the compound `loss` and its two parts, averaged over the images."""
    ones = np.ones((len(predictions), 1), np.float32)
    total, parts = compound_loss(
        predictions.attribution,
        predictions.detection,
        predictions.source[:, None],
        ones,
    )
    return {
        "loss": float(total),
        "attribution_loss": float(parts["attribution"]),
        "detection_loss": float(parts["detection"]),
    }
