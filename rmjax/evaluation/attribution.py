"""The figures of anybody's predictions, computed as `rmjax evaluate` computes its own."""

from collections.abc import Sequence

import jax
import numpy as np

from rmjax.data.dataset import REAL
from rmjax.errors import InputError
from rmjax.evaluation.bootstrap import DRAWS, draw_resamples
from rmjax.evaluation.calibration import measure_calibration
from rmjax.evaluation.metrics import (
    Predictions,
    confusion_scores,
    count_confusion,
    recall,
)
from rmjax.evaluation.protocol import bounds, draw_confusion
from rmjax.inference.calibration import UNCALIBRATED
from rmjax.models.repmix import check_num_sources
from rmjax.utils.checks import check_at_least

Labels = np.ndarray | jax.Array | Sequence[int] | Sequence[str]


def attribution_report(
    sources: Labels,
    predictions: Labels,
    *,
    source_names: Sequence[str] = (),
    groups: Labels | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> dict:
    """Measure how well images were attributed, by whatever classifier, with intervals.

        answers = model.predict(images)["attribution"]
        figures = rmjax.attribution_report(
            sources, answers, source_names=model.source_names
        )
        figures["macro_f1"], figures["macro_f1_low"], figures["macro_f1_high"]

    Args:
        sources: the true ones, names or numbers `[N]`; number 0 is real.
        predictions: the attributed ones, names or numbers `[N]`; or the probability of
            each source, `[N, num_sources]`, rows sum to one (of logits, their softmax).
        source_names: all sources in order, real ones first. Empty: of names all that
            occur, sorted, `real` first; of numbers, the numbers.
        groups: `[N]`, equal for images that belong together, such as a photograph and
            what was made of it: they are drawn together. None: each image by itself.
        draws: bootstrap draws for the intervals.
        seed: of these draws.

    Returns:
        A dict ready for JSON: `images`; `sources`, the names; `attribution_accuracy`,
        `detection_accuracy` (synthetic where the attributed source is not real),
        `macro_f1` and `nmi`, None where not defined, each with its 95 % interval as
        `*_low` and `*_high`; `recall` by source; `confusion`, counts with true sources
        as rows. Of probabilities also `ece`, `brier` and `nll`, and those of P(synthetic)
        as `detection_*`, see `rmjax.evaluation.calibration.measure_calibration`.

    Raises:
        InputError: shapes that don't fit together, a source that is none of
            `source_names`, or rows that are no probabilities.
    """
    check_at_least(1, draws=draws)
    truth, predicted = np.asarray(sources), np.asarray(predictions)
    if truth.ndim != 1 or predicted.ndim not in (1, 2) or not len(truth):
        raise InputError(
            "sources are [N], predictions [N] or probabilities [N, num_sources]; got "
            f"{list(truth.shape)} and {list(predicted.shape)}"
        )
    group = np.arange(len(truth)) if groups is None else np.asarray(groups)
    for what, array in (("predictions", predicted), ("groups", group)):
        if len(array) != len(truth):
            raise InputError(f"{len(truth)} sources, but {len(array)} {what}")
    names = tuple(source_names) or _find_names(truth, predicted)
    check_num_sources(len(names))
    classified = _as_predictions(truth, predicted, names)
    counts = count_confusion(classified.source, classified.guess, len(names))
    resamples = draw_resamples(group, draws, seed)
    drawn = confusion_scores(draw_confusion(classified, resamples, len(names)))
    figures: dict = {"images": len(truth), "sources": list(names)}
    for name, score in confusion_scores(counts).items():
        figures[name] = float(score) if np.isfinite(score) else None
        figures |= bounds(name, drawn[name], resamples.counts.shape[1])
    figures |= {"recall": recall(counts, names), "confusion": counts.tolist()}
    if predicted.ndim == 2:
        measured = measure_calibration(classified, UNCALIBRATED)
        for prefix, what in (("", "attribution"), ("detection_", "detection")):
            for error in ("ece", "brier", "nll"):
                figures[prefix + error] = measured[what][error]
    return figures


def _as_predictions(
    truth: np.ndarray, predicted: np.ndarray, names: Sequence[str]
) -> Predictions:
    """Return what is known of the images, with logits that say it."""
    images = len(truth)
    if predicted.ndim == 1:
        p = np.eye(len(names))[_encode("predictions", predicted, names)]
    else:
        p = _check_probabilities(predicted, names)
    detection = np.stack([p[:, 0], p[:, 1:].sum(-1)], axis=-1)
    least = np.finfo(p.dtype).tiny  # the logarithm of 0 is no number
    nothing = np.zeros(images, int)
    return Predictions(
        source=_encode("sources", truth, names),
        semantic=nothing,
        group=nothing,
        split=nothing,
        index=np.arange(images),
        embedding=np.zeros((images, 0)),
        attribution=np.log(np.maximum(p, least)),
        detection=np.log(np.maximum(detection, least)),
    )


def _find_names(*labels: np.ndarray) -> tuple[str, ...]:
    """Return the names of all sources that occur, or as many numbers."""
    wide = [array.shape[1] for array in labels if array.ndim == 2]
    flat = [array for array in labels if array.ndim == 1]
    kinds = {bool(np.issubdtype(array.dtype, np.integer)) for array in flat}
    if len(kinds) > 1:
        raise InputError("sources and predictions: give names or numbers, not both")
    if kinds == {True}:
        count = wide[0] if wide else max(int(array.max()) for array in flat) + 1
        return tuple(map(str, range(count)))
    names = {str(name) for array in flat for name in array}
    if wide or REAL not in names:
        raise InputError(
            "source_names: give the names of all sources in order, real ones first"
            + ("" if wide else f"; no source here is called '{REAL}'")
        )
    return (REAL, *sorted(names - {REAL}))


def _encode(what: str, labels: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Return the numbers of sources that are given by name or number."""
    if np.issubdtype(labels.dtype, np.integer):
        if labels.min() < 0 or labels.max() >= len(names):
            raise InputError(
                f"{what}: numbers from {labels.min()} to {labels.max()}; give 0 to "
                f"{len(names) - 1}, as there are {len(names)} sources"
            )
        return labels.astype(int)
    number = {name: i for i, name in enumerate(names)}
    for label in labels:
        if str(label) not in number:
            raise InputError(
                f"{what}: '{label}' is none of the sources {', '.join(names)}"
            )
    return np.array([number[str(label)] for label in labels])


def _check_probabilities(p: np.ndarray, names: Sequence[str]) -> np.ndarray:
    if p.shape[1] != len(names):
        raise InputError(f"predictions of {p.shape[1]} sources, but {len(names)} names")
    if not np.issubdtype(p.dtype, np.floating):
        raise InputError(f"probabilities are floats [N, num_sources], not {p.dtype}")
    if not (p >= 0).all() or not np.allclose(p.sum(-1), 1, atol=1e-3):
        raise InputError(
            "predictions: probabilities are from 0 to 1, and rows sum to 1; of logits, "
            "give the softmax"
        )
    return p
