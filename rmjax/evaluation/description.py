"""What an evaluation is of: names, versions, the command that gives it again."""

import hashlib
import json
import logging
import platform
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rmjax.evaluation.bootstrap import DRAWS
from rmjax.evaluation.calibration import FPRS, REJECT_FPR
from rmjax.evaluation.predict import Grid, Part, digest_images
from rmjax.evaluation.results import SCHEMA, SCHEMA_VERSION, subset_words
from rmjax.experiment.data import ExperimentData
from rmjax.inference.attributor import Attributor
from rmjax.inference.calibration import Calibration
from rmjax.utils.versions import package_versions

logger = logging.getLogger(__name__)

MAX_NAME = 80  # characters in the name of an evaluation
# Options of `rmjax evaluate` that its results depend on, and their defaults.
DEFAULTS: dict[str, Any] = {
    "suite": "clean",
    "split": "test",
    "semantics": (),
    "checkpoint": "best",
    "data_dir": None,
    "fpr": FPRS,
    "reject_fpr": REJECT_FPR,
    "bootstrap": DRAWS,
}


def name_evaluation(options: Mapping[str, Any]) -> str:
    """Name an evaluation after its suite, and what else of its images is not usual."""
    parts = [str(options["suite"])]
    for key in ("split", "semantics", "checkpoint"):
        if options[key] != DEFAULTS[key]:
            parts.append(f"{key}-{_text(options[key])}")
    name = "_".join(re.sub(r"[^\w.]+", "-", part) for part in parts)
    if len(name) > MAX_NAME:
        digest = hashlib.sha256(name.encode()).hexdigest()[:8]
        name = f"{name[:MAX_NAME]}-{digest}"
    return name


def write_command(workdir: Path, options: Mapping[str, Any]) -> str:
    """Return the command that gives these results, without what is the default."""
    words = ["rmjax", "evaluate", "--workdir", str(workdir)]
    for key, default in DEFAULTS.items():
        if options[key] != default:
            words += [f"--{key.replace('_', '-')}", _text(options[key])]
    return shlex.join(words)


def _text(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def describe(
    workdir: Path,
    run: Attributor,
    data: ExperimentData,
    parts: Mapping[str, Part],
    grid: Grid,
    options: Mapping[str, Any],
) -> dict:
    """Return what `results.json` says of what was evaluated, on what, and how."""
    return {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "run": {
            "workdir": str(workdir),
            "checkpoint": run.checkpoint,
            "seed": run.config.seed,
            "config": json.loads(json.dumps(run.config.to_dict())),  # tuples as lists
            "versions": {"python": platform.python_version()} | package_versions(),
        },
        "evaluation": {
            "name": name_evaluation(options),
            "suite": options["suite"],
            "split": options["split"],
            "semantics": list(options["semantics"]),
            "command": write_command(workdir, options),
            "bootstrap": options["bootstrap"],
        },
        "data": {
            "name": data.name,
            "directory": str(data.dataset.directory),
            "features": data.network,
            "digest": digest_images(parts),
            "images": len(grid.truth["source"]),
            "bootstrap_groups": len(np.unique(grid.truth["group"])),
            "training_images": data.seen.size("train"),
            "trained_pairs": data.trained_pairs,
        },
        "sources": list(data.sources),
        "semantics": {
            subset: list(selection.semantic_names)
            for subset, (selection, _) in parts.items()
        },
        "without_images": _without_images(grid, data.sources),
    }


def _without_images(grid: Grid, sources: Sequence[str]) -> dict[str, list[str]]:
    """Name the sources that a subset has no images of."""
    absent = {}
    for subset, rows in grid.rows.items():
        present = np.unique(grid.truth["source"][rows])
        absent[subset] = [n for i, n in enumerate(sources) if i not in present]
        if absent[subset]:
            logger.warning(
                "no test images of %s among %s: not in its macro F1",
                ", ".join(absent[subset]),
                subset_words(subset),
            )
    return absent


def describe_calibration(calibration: Calibration) -> dict | None:
    """Return what is reported of a calibration; None for none."""
    if not calibration.images:
        return None
    return {
        "split": "val",
        "images": calibration.images,
        "temperature": {
            "attribution": calibration.attribution,
            "detection": calibration.detection,
        },
        "validation": calibration.validation,
        "reject": calibration.reject,
        "operating_points": list(calibration.operating_points),
    }
