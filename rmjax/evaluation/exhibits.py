"""What an evaluation shows of images: a map, the worst mistakes, predictions, spectra."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from rmjax.data.dataset import choose_evenly
from rmjax.data.features import FeatureTable
from rmjax.data.images import decode_rgb
from rmjax.evaluation.clusters import fingerprint_map
from rmjax.evaluation.metrics import Predictions
from rmjax.evaluation.predict import Grid, Part
from rmjax.evaluation.results import BESIDE_SEEN
from rmjax.experiment.data import ExperimentData
from rmjax.inference.attributor import resize_and_cut
from rmjax.inference.calibration import Calibration
from rmjax.inference.spectra import (
    IMAGES,
    describe_spectrum,
    image_power,
    window_side,
)

MAX_MISTAKES = 24
MISTAKE_SIDE = 256  # pixels; larger images are shown smaller
MAX_MAP = 1_000  # images on the map of fingerprints
PERPLEXITY = 30  # of that map


def draw_map(
    grid: Grid, data: ExperimentData, unknown: Predictions | None
) -> dict[str, object]:
    """Place clean fingerprints on a plane, those of unknown sources among them."""
    parts = {part: grid.predictions(0, part) for part in grid.rows}
    names = list(data.sources)
    if unknown is not None and data.held_out is not None:
        shifted = replace(unknown, source=unknown.source + len(names))
        parts["unknown"] = shifted
        names += data.held_out.source_names
    whole = Predictions.concatenate(parts.values())
    subset = np.repeat(list(parts), [len(part) for part in parts.values()])
    rows = choose_evenly(whole.source, MAX_MAP)
    places = fingerprint_map(whole.embedding[rows], perplexity=PERPLEXITY)
    return {
        "method": "t-SNE",
        "perplexity": PERPLEXITY,
        "seed": 0,
        "images": len(rows),
        "of": len(whole),
        "x": [round(float(x), 2) for x in places[:, 0]],
        "y": [round(float(y), 2) for y in places[:, 1]],
        "source": [names[i] for i in whole.source[rows]],
        "semantic": [data.dataset.semantic_names[i] for i in whole.semantic[rows]],
        "semantics": subset[rows].tolist(),
    }


def save_mistakes(
    folder: Path,
    grid: Grid,
    parts: dict[str, Part],
    sources: Sequence[str],
    calibration: Calibration,
) -> list[dict]:
    """Save the clean images that are most confidently attributed to a wrong source.

    Of stored features there are no images: their `file` is empty.
    """
    (folder / "mistakes").mkdir()
    mistakes: list[dict] = []
    for subset, (selection, splits) in parts.items():
        predictions = grid.predictions(0, subset)
        shares = calibration.attribute(predictions.attribution).max(-1)
        wrong = np.flatnonzero(predictions.guess != predictions.source)
        order = np.argsort(-shares[wrong], kind="stable")
        for row in wrong[order][: MAX_MISTAKES // len(parts)]:
            split = splits[predictions.split[row]]
            files = selection.dataset.files(split)
            path, data = files.read([int(predictions.index[row])])[0]
            file = ""
            if not isinstance(selection.dataset, FeatureTable):
                file = f"mistakes/{len(mistakes):02d}.png"
                picture = Image.fromarray(decode_rgb(data, path))
                picture.thumbnail((MISTAKE_SIDE, MISTAKE_SIDE))
                picture.save(folder / file)
            semantic = selection.dataset.semantic_names[predictions.semantic[row]]
            mistakes.append(
                {
                    "file": file,
                    "semantics": subset,
                    "semantic": semantic,
                    "source": sources[predictions.source[row]],
                    "attributed": sources[predictions.guess[row]],
                    "probability": float(shares[row]),
                    "calibrated": calibration.images > 0,
                    "path": path,
                }
            )
    return sorted(mistakes, key=lambda mistake: -mistake["probability"])


def save_predictions(folder: Path, grid: Grid) -> None:
    """Save what each image was taken for, to compare runs image by image."""
    guess = [
        np.concatenate([grid.predictions(k, part).guess for part in grid.rows])
        for k in range(len(grid.conditions))
    ]
    count = len(grid.truth["source"])
    masks = {name: np.zeros(count, bool) for name in BESIDE_SEEN}
    for name, mask in masks.items():
        if name in grid.rows:
            mask[grid.rows[name]] = True
    arrays: dict[str, Any] = {
        **grid.truth,
        **masks,
        "conditions": np.array([str(condition) for condition in grid.conditions]),
        "guess": np.array(guess, np.int16),
    }
    np.savez_compressed(folder / "predictions.npz", **arrays)


def measure_spectra(
    part: Part, sources: Sequence[str], data: ConfigDict
) -> dict[str, Any] | None:
    """Measure the mean spectrum of each source, of up to `IMAGES` of its clean images.

    Args:
        part: what to read; the same images whenever it is the same part.
        sources: class names.
        data: of the run's config: how the network is shown images.

    Returns:
        What `rmjax.inference.spectra.save_spectra` takes; sources without images are
        left out. None for stored features.
    """
    selection, splits = part
    if isinstance(selection.dataset, FeatureTable):
        return None
    side = window_side(data.eval_size)
    place = [(split, row) for split in splits for row in selection.records[split]]
    truth = np.concatenate([selection.labels[split]["source"] for split in splits])
    files = {split: selection.dataset.files(split) for split in splits}
    found = {}
    for label, name in enumerate(sources):
        rows = np.flatnonzero(truth == label)
        powers = []
        for i in rows[choose_evenly(truth[rows], IMAGES)]:
            split, number = place[i]
            path, content = files[split].read([int(number)])[0]
            image = resize_and_cut(decode_rgb(content, path), data)
            powers.append(image_power(image, side))
        if powers:
            mean = np.stack(powers).mean(axis=0, dtype=np.float64)
            found[name] = describe_spectrum(mean) | {"images": len(powers)}
    return {"side": side, "sources": found}
