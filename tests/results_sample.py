"""A made-up evaluation: `results.json` as `rmjax evaluate` writes it, without one.

The figures are drawn, not measured, but hang together as measured ones would.
"""

import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

SOURCES = "real progan dcgan stylegan stylegan3 pixelshuffle biggan cips".split()
SEEN = "airplane bedroom bridge bus cat church".split()
UNSEEN = "classroom cow kitchen sheep tower".split()
KINDS = {
    "seen_corruptions": "gaussian_noise shot_noise impulse_noise defocus_blur frost fog "
    "brightness contrast elastic_transform pixelate jpeg_compression speckle_noise "
    "gaussian_blur spatter saturate",
    "unseen_corruptions": "glass_blur motion_blur zoom_blur snow",
}
RESHARING = {
    "jpeg": (90, 75, 50, 30),
    "nearest": (0.5, 0.25),
    "bilinear": (0.5, 0.25),
    "blur": (0.5, 1, 2, 3),
    "crop": (0.9, 0.7, 0.5),
    "flip": (1,),
}
SCORES = ("max_probability", "energy", "knn", "mahalanobis")
MAIN = ("attribution_accuracy", "detection_accuracy", "macro_f1", "nmi")


def sample_results(
    *,
    sources: Sequence[str] = SOURCES,
    seen: Sequence[str] = SEEN,
    unseen: Sequence[str] = UNSEEN,
    new_pairs: bool = False,
    full: bool = True,
    calibrated: bool = True,
    open_set: bool = True,
    group: str = "seen",
    strength: float = 1.0,
) -> dict:
    """Return results of that shape; `strength` scales the accuracies."""
    rng = np.random.default_rng(0)
    groups = {group: list(seen)}
    if new_pairs:
        groups["new_pairs"] = list(seen)
    if unseen:
        groups["unseen"] = list(unseen)
    if len(groups) > 1:
        groups["combined"] = [*seen, *unseen]
    conditions = _conditions(full)
    cells = [
        _cell(rng, name, kind, part, value, g, 40 * len(sources), strength)
        for name, kind, part, value in conditions
        for g in groups
    ]
    sets = list(dict.fromkeys(part for _, _, part, _ in conditions))
    confusions = {
        g: {s: _confusion(rng, len(sources), 0.93 * strength if s == "clean" else 0.4)
            for s in sets}
        for g in groups
    }  # fmt: skip
    unknown = _open_set(sources, bool(unseen)) if open_set else None
    if not calibrated:
        _forget_thresholds(cells, unknown)
    return {
        "schema": "rmjax-evaluation",
        "schema_version": 1,
        "run": {
            "workdir": "runs/mini",
            "checkpoint": 1050,
            "seed": 0,
            "config": {"seed": 0, "data": {"name": "mini", "unseen_semantics": unseen}},
            "versions": {"python": "3.12.3", "rmjax": "0.1.0", "jax": "0.10.2"},
        },
        "evaluation": {
            "name": "full",
            "suite": "full" if full else "clean",
            "split": "test",
            "semantics": [],
            "command": "rmjax evaluate --workdir runs/mini --suite full",
            "bootstrap": 1000,
        },
        "data": {
            "name": "mini",
            "directory": "data/mini/1.0.0",
            "digest": "5f3a" * 16,
            "images": 40 * len(sources) * (2 if unseen else 1),
            "bootstrap_groups": 40 * len(sources),
            "training_images": 1000,
        }
        | ({"trained_pairs": {s: list(seen[:3]) for s in sources}} if new_pairs else {}),
        "sources": list(sources),
        "semantics": {g: names for g, names in groups.items() if g != "combined"},
        "without_images": {g: [] for g in groups if g != "combined"},
        "cells": cells,
        "summary": {g: _summary([c for c in cells if c["semantics"] == g], sets)
                    for g in groups},
        "clean": {g: _clean(rng, sources, names, confusions[g]["clean"])
                  for g, names in groups.items()},
        "confusion": confusions,
        "calibration": _calibration() if calibrated else None,
        "reliability": {g: {s: _reliability(rng) for s in sets} for g in groups},
        "open_set": unknown,
        "map": _map(rng, sources, seen, unseen),
        "mistakes": [
            _mistake(i, sources, [*seen, *unseen], calibrated) for i in range(12)
        ],
    }  # fmt: skip


def write_run(workdir: Path, results: dict, name: str = "full") -> Path:
    """Write results, images of its mistakes and a training log; return the folder."""
    folder = workdir / "evaluation" / name
    (folder / "mistakes").mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps(results, allow_nan=False))
    for number, mistake in enumerate(results["mistakes"]):
        (folder / mistake["file"]).write_bytes(png(number))
    rows = []
    for step in range(50, 1051, 50):
        loss = float(2.3 * np.exp(-step / 400) + 0.3)
        rows.append({"step": step, "kind": "train", "loss": loss, "accuracy": 0.5})
        if step % 210 == 0:
            values = {"loss": loss * 1.1, "attribution_accuracy": 1 - loss / 3}
            rows.append({"step": step, "kind": "validation", **values})
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (workdir / "metrics.jsonl").write_text(lines)
    return folder


def write_answers(folder: Path, results: dict, right: float, seed: int = 0) -> None:
    """Write what a network that is so often right would have said, of each image."""
    conditions = list(dict.fromkeys(cell["condition"] for cell in results["cells"]))
    count = results["data"]["images"]
    source = np.arange(count) % len(results["sources"])
    draw = np.random.default_rng(0).random((len(conditions), count))
    lost = np.random.default_rng(seed).random(draw.shape) < 0.1
    guess = np.where((draw < right) & ~lost, source, (source + 1) % source.max())
    np.savez_compressed(
        folder / "predictions.npz",
        source=source,
        semantic=np.zeros(count, int),
        group=np.arange(count) // 2,
        split=np.zeros(count, int),
        index=np.arange(count),
        unseen=np.arange(count) >= count // 2 if "unseen" in results["semantics"]
        else np.zeros(count, bool),
        conditions=np.array(conditions),
        guess=guess.astype(np.int16),
    )  # fmt: skip


def png(number: int) -> bytes:
    """Return a small picture."""
    y, x = np.mgrid[:64, :64]
    waves = [np.sin(x / (3 + number) + c) + np.cos(y / (5 + c)) for c in range(3)]
    stream = io.BytesIO()
    pixels = (np.stack(waves, -1) * 60 + 128).astype(np.uint8)
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def _conditions(full: bool) -> list[tuple]:
    found = [("clean", "clean", "clean", None)]
    if full:
        for part, kinds in KINDS.items():
            for kind in kinds.split():
                found += [(f"{kind}:{v}", kind, part, v) for v in range(1, 6)]
        for kind, values in RESHARING.items():
            found += [(f"{kind}:{v:g}", kind, "resharing", v) for v in values]
    return found


def _cell(rng, name, kind, part, value, group, images, strength) -> dict:
    hard = {"clean": 0.0, "resharing": 0.3}.get(part, 0.12 * (value or 0) + 0.1)
    hard = hard * rng.uniform(0.6, 1.4) + {"unseen": 0.04, "new_pairs": 0.09}.get(
        group, 0
    )
    accuracy = float(np.clip(0.95 - hard, 0.1, 1)) * strength
    found = {
        "condition": name, "kind": kind, "set": part, "value": value,
        "semantics": group, "images": images,
    }  # fmt: skip
    for metric, ours in zip(
        MAIN, (accuracy, accuracy + 0.03, accuracy - 0.02, accuracy * 0.9), strict=True
    ):
        found |= {metric: ours, f"{metric}_low": ours - 0.02}
        found[f"{metric}_high"] = min(ours + 0.02, 1.0)
    found |= {"detection_head_accuracy": accuracy, "loss": 2 * (1 - accuracy)}
    found |= {"attribution_loss": 1 - accuracy, "detection_loss": 1 - accuracy}
    for prefix in ("", "detection_"):
        for score, scale in (("ece", 0.2), ("brier", 0.8), ("nll", 2.0)):
            found[prefix + score] = 0.02 + scale * hard / 2
            found[f"{prefix}{score}_uncalibrated"] = 0.05 + scale * hard
    for fpr, shift in (("0.05", 0.0), ("0.01", 0.15)):
        found[f"tpr_at_{fpr}"] = max(accuracy - shift, 0)
        found[f"fpr_at_{fpr}"] = min(float(fpr) + hard / 2, 1)
    return found | {"rejected": min(0.05 + hard / 2, 1)}


def _summary(cells: list[dict], sets: list[str]) -> dict:
    kinds = {
        kind: {
            m: float(np.mean([c[m] for c in cells if c["kind"] == kind])) for m in MAIN
        }
        for kind in dict.fromkeys(c["kind"] for c in cells)
    }
    found = {}
    for part in sets:
        own = dict.fromkeys(c["kind"] for c in cells if c["set"] == part)
        means = {m: float(np.mean([kinds[k][m] for k in own])) for m in MAIN}
        ends = {
            f"{m}_{e}": v + d
            for m, v in means.items()
            for e, d in (("low", -0.02), ("high", 0.02))
        }
        found[part] = means | ends
    worst = min(cells, key=lambda c: c["attribution_accuracy"])
    keys = ("condition", "attribution_accuracy")
    return found | {"kinds": kinds, "worst": {key: worst[key] for key in keys}}


def _confusion(rng, count: int, right: float) -> list[list[int]]:
    rows = []
    for true in range(count):
        hit = np.clip(right + rng.normal(0, 0.04), 0, 1)
        shares = rng.dirichlet(np.full(count, 0.3)) * (1 - hit)
        shares[true] += hit
        rows.append(rng.multinomial(40, shares / shares.sum()).tolist())
    return rows


def _clean(rng, sources, semantics, confusion) -> dict:
    recall = {s: confusion[i][i] / 40 for i, s in enumerate(sources)}
    cells = {
        m: {s: float(np.clip(r + rng.normal(0, 0.05), 0, 1)) for s, r in recall.items()}
        for m in semantics
    }
    by_semantic = {
        name: {
            "images": 5 * len(sources),
            "attribution_accuracy": float(np.mean(list(row.values()))),
            "detection_accuracy": float(np.mean(list(row.values()))) * 0.5 + 0.5,
        }
        for name, row in cells.items()
    }
    return {
        "recall": recall,
        "by_semantic": by_semantic,
        "recall_by_semantic": cells,
        "confusion": confusion,
        "purity": 0.91,
        "fingerprint_purity": 0.81,
        "frechet_ratio": 0.12,
        "frechet_note": None,
    }


def _calibration() -> dict:
    scores = {"ece": 0.02, "brier": 0.1, "nll": 0.2}
    found = scores | {f"{k}_uncalibrated": 2 * v for k, v in scores.items()}
    points = [(0.05, 0.93, 0.0417), (0.01, 0.99, 0.0083)]
    keys = ("fpr", "threshold", "achieved")
    return {
        "split": "val",
        "images": 960,
        "temperature": {"attribution": 1.7, "detection": 1.2},
        "validation": {"attribution": found, "detection": found},
        "reject": {
            "score": "max_probability",
            "fpr": 0.05,
            "threshold": 0.61,
            "achieved": 0.049,
        },
        "operating_points": [
            dict(zip(keys, point, strict=True)) | {"real_images": 120}
            for point in points
        ],
    }


def _reliability(rng) -> dict:
    def bins(least: float, error: float) -> list[dict]:
        middles = (np.arange(15) + 0.5) / 15
        return [
            {
                "confidence": float(m),
                "accuracy": float(np.clip(m - error * m + rng.normal(0, 0.02), 0, 1)),
                "images": int(4 + 200 * m**6),
            }
            for m in middles[middles > least]
        ]

    return {
        name: {"calibrated": bins(least, 0.02), "uncalibrated": bins(least, 0.2)}
        for name, least in (("attribution", 0.2), ("detection", 0.0))
    }


def _forget_thresholds(cells: list[dict], open_set: dict | None) -> None:
    """Take away what there is not without calibration."""
    for cell in cells:
        for key in list(cell):
            if key == "rejected" or "_at_" in key:
                del cell[key]
            elif key.endswith("_uncalibrated"):
                cell[key.removesuffix("_uncalibrated")] = cell[key]
    if open_set:
        open_set |= {"rejected": None, "called_synthetic": None}


def _measure(power: float) -> dict:
    fpr = np.linspace(0, 1, 60)
    tpr = fpr**power
    return {
        "images": 240,
        "auroc": 1 / (1 + power),
        "fpr95": float(0.95 ** (1 / power)),
        "aupr": 0.8,
        "aupr_chance": 0.11,
        "oscr": 0.9 / (1 + power),
        "curve": {
            "fpr": fpr.tolist(),
            "tpr": tpr.tolist(),
            "ccr": (0.93 * tpr).tolist(),
        },
    }


def _open_set(sources: Sequence[str], unseen: bool) -> dict:
    held = {"stylegan2": ("near", 0.5), "vqgan": ("far", 0.2)}
    scores = {}
    for i, score in enumerate(SCORES):
        parts = {name: _measure(power + 0.07 * i) for name, (_, power) in held.items()}
        near, far = parts.values()
        whole = _measure(0.35 + 0.07 * i)
        scores[score] = {"near": near, "far": far, "all": whole, "by_source": parts}
    rejected = {"known": 0.05, "known_unseen_semantics": 0.07 if unseen else None}
    return {
        "held_out": {name: {"images": 240, "kin": kin} for name, (kin, _) in held.items()},
        "without_images": [],
        "known_images": 1920,
        "reference_images": 5000,
        "scores": scores,
        "rejected": rejected
        | {"near": 0.3, "far": 0.7, "all": 0.5, "by_source": {"stylegan2": 0.3, "vqgan": 0.7}},
        "called_synthetic": {
            "0.05": {"stylegan2": 0.92, "vqgan": 0.63},
            "0.01": {"stylegan2": 0.81, "vqgan": 0.4},
        },
        "attributed_to": {
            name: {s: 1 / len(sources) for s in sources} for name in held
        },
    }  # fmt: skip


def _map(rng, sources, seen, unseen) -> dict:
    count = 400
    source = rng.integers(0, len(sources), count)
    semantics = [*seen, *unseen]
    semantic = rng.integers(0, len(semantics), count)
    angle = 2 * np.pi * source / len(sources)
    found = {
        "method": "t-SNE",
        "perplexity": 30,
        "seed": 0,
        "images": count,
        "of": 80 * len(sources),
    }
    return found | {
        "x": (30 * np.cos(angle) + rng.normal(0, 5, count)).tolist(),
        "y": (30 * np.sin(angle) + rng.normal(0, 5, count)).tolist(),
        "source": [sources[i] for i in source],
        "semantic": [semantics[i] for i in semantic],
        "semantics": ["seen" if i < len(seen) else "unseen" for i in semantic],
    }


def _mistake(number: int, sources, semantics, calibrated: bool) -> dict:
    true, guess = sources[number % len(sources)], sources[(number + 1) % len(sources)]
    semantic = semantics[number % len(semantics)]
    return {
        "file": f"mistakes/{number:02}.png",
        "semantics": "seen",
        "semantic": semantic,
        "source": true,
        "attributed": guess,
        "probability": 0.99 - 0.03 * number,
        "calibrated": calibrated,
        "path": f"{semantic}/{true}/{number:04}.png",
    }
