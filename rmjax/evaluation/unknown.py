"""What becomes of images of sources that the network was not trained on."""

from collections.abc import Mapping, Sequence

import numpy as np

from rmjax.evaluation.metrics import Predictions
from rmjax.evaluation.openset import SCORES, Reference, measure
from rmjax.inference.calibration import Calibration


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
        `held_out`, `known_images`; by score the figures of `openset.measure`, for
        near, far and all unknown images and each source; what the thresholds say of
        them (`rejected`, `called_synthetic`) and what they are `attributed_to`.
    """
    right = known.guess == known.source
    chosen = {
        name: unknown.source == i
        for i, name in enumerate(held_out)
        if np.any(unknown.source == i)
    }
    kin = {name: "near" if name in near else "far" for name in chosen}
    groups = {
        "near": np.any([chosen[n] for n in chosen if kin[n] == "near"], axis=0),
        "far": np.any([chosen[n] for n in chosen if kin[n] == "far"], axis=0),
        "all": np.ones(len(unknown), bool),
    }
    scores: dict[str, dict] = {}
    for name, score in SCORES.items():
        of_known, of_unknown = (
            score(reference, p.embedding, p.attribution, calibration.attribution)
            for p in (known, unknown)
        )
        scores[name] = {
            group: measure(of_known, right, of_unknown[rows]) if np.any(rows) else None
            for group, rows in groups.items()
        }
        scores[name]["by_source"] = {
            source: measure(of_known, right, of_unknown[rows])
            for source, rows in chosen.items()
        }
    counts = {
        source: np.bincount(unknown.guess[rows], minlength=len(sources)) / rows.sum()
        for source, rows in chosen.items()
    }
    return {
        "held_out": {
            n: {"images": int(r.sum()), "kin": kin[n]} for n, r in chosen.items()
        },
        "without_images": [name for name in held_out if name not in chosen],
        "known_images": len(known),
        "scores": scores,
        "attributed_to": {
            source: dict(zip(sources, map(float, shares), strict=True))
            for source, shares in counts.items()
        },
        **_decide(known, unknown, unseen, groups, chosen, calibration),
    }


def _decide(
    known: Predictions,
    unknown: Predictions,
    unseen: Predictions | None,
    groups: Mapping[str, np.ndarray],
    chosen: Mapping[str, np.ndarray],
    calibration: Calibration,
) -> dict:
    """Return the shares that the stored thresholds reject, and call synthetic."""
    if not calibration.reject:
        return {"rejected": None, "called_synthetic": None}
    out = calibration.rejects(unknown.attribution)
    synthetic = calibration.detect(unknown.detection)
    return {
        "rejected": {
            "known": float(calibration.rejects(known.attribution).mean()),
            "known_unseen_semantics": None
            if unseen is None
            else float(calibration.rejects(unseen.attribution).mean()),
            **{
                g: float(out[r].mean()) if np.any(r) else None
                for g, r in groups.items()
            },
            "by_source": {n: float(out[r].mean()) for n, r in chosen.items()},
        },
        "called_synthetic": {
            f"{point['fpr']:g}": {
                name: float(np.mean(synthetic[rows] >= point["threshold"]))
                for name, rows in chosen.items()
            }
            for point in calibration.operating_points
        },
    }
