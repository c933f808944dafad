"""Evaluation: exact figures of a run on images of seen and unseen semantics."""

import hashlib
import logging
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from rmjax import parallel, report
from rmjax.data.dataset import Selection, select
from rmjax.data.pipeline import ImageCache, eval_batches, num_eval_batches
from rmjax.errors import InputError
from rmjax.experiment import ExperimentData, make_eval_step, open_data
from rmjax.inference import Attributor, load
from rmjax.logs import read_log, write_json
from rmjax.metrics import Predictions, summarize
from rmjax.robustness import (
    CLEAN,
    SUITES,
    Condition,
    Corrupter,
    parse_suite,
    summarize_conditions,
)
from rmjax.train_step import PyTree

logger = logging.getLogger(__name__)

MAX_TAG = 80  # characters in the name of a result file

Predictor = Callable[..., Predictions]
# What to evaluate on: by group of semantics, a selection and its splits.
Parts = dict[str, tuple[Selection, tuple[str, ...]]]


def make_predictor(
    config: ConfigDict,
    num_sources: int,
    devices: parallel.Devices,
    corrupter: Corrupter | None = None,
) -> Predictor:
    """Return `predict(variables, selection, splits, condition=CLEAN, bar=None)`.

    It runs the network once over every selected image of the splits, without mixing,
    and gives their `Predictions` in the data set's order. With a corrupter, images come
    as the condition says. `bar` counts batches.
    """
    step = make_eval_step(config, num_sources, devices)
    cache = ImageCache(config.data.cache_mib * 2**20)
    batch_size = _batch_size(config, devices)

    def predict(
        variables: PyTree,
        selection: Selection,
        splits: tuple[str, ...],
        condition: Condition = CLEAN,
        bar: tqdm | None = None,
    ) -> Predictions:
        batches = eval_batches(
            selection,
            splits,
            batch_size=batch_size,
            size=config.data.eval_size,
            resize=config.data.eval_resize or None,
            cache=cache,
        )
        if corrupter is not None:
            batches = corrupter(batches, condition, selection, splits)
        parts = []
        for batch in batches:
            outputs = step(
                variables, parallel.shard({"image": batch["image"]}, devices)
            )
            truth = {
                key: batch[key] for key in ("source", "semantic", "split", "index")
            }
            real = batch["mask"] > 0
            parts.append({k: v[real] for k, v in (truth | outputs).items()})
            if bar is not None:
                bar.update()
        return Predictions(
            **{key: np.concatenate([p[key] for p in parts]) for key in parts[0]}
        )

    return predict


def _batch_size(config: ConfigDict, devices: parallel.Devices) -> int:
    """Return the config's evaluation batch, filled up to whole devices."""
    return -(-config.eval_batch_size // len(devices)) * len(devices)


def evaluate(
    workdir: str | Path,
    *,
    split: str = "test",
    semantics: tuple[str, ...] = (),
    suite: str = "clean",
    checkpoint: str | int = "best",
    data_dir: str | None = None,
    cache_dir: str | None = None,
    num_devices: int | None = None,
    show_progress: bool = True,
) -> dict:
    """Evaluate the run in `workdir` and write its results there.

    Writes `results.json`, `confusion.png`, `mistakes.png` and `curves.png`, and with
    corruptions `robustness.png`; when not of the test split, the config's own
    semantics and clean images, named after what they are of.

    Args:
        workdir: folder of a training run.
        split: which split, or "all" of them.
        semantics: evaluate on these alone instead of the config's seen and unseen.
        suite: what happens to the images, see `robustness.parse_suite`.
        checkpoint: "best" by validation loss, "last", or a step.
        data_dir: where the data lies now, if not where the run found it.
        cache_dir: folder to keep corrupted images in, for other runs.
        num_devices: devices to use, all for None.
        show_progress: whether to draw a bar.

    Returns:
        What `results.json` holds: `run`, `checkpoint`, `split`, `suite`, `sources`,
        `files`; in `groups` the figures (see `metrics.summarize`) of `seen`,
        `unseen` and `combined` semantics on clean images, each with `by_semantic`;
        in `conditions` the main ones by condition and group; in `summary` means of
        the accuracies over kinds of corruption (see `summarize_conditions`).

    Raises:
        InputError: there is no such run, checkpoint, split, semantic or suite.
    """
    workdir = Path(workdir)
    conditions = parse_suite(suite)
    run = load(workdir, checkpoint=checkpoint, num_devices=num_devices)
    if data_dir:
        run.config.data.dir = data_dir
    data = open_data(run.config)
    _check_sources(workdir, run, data)
    parts = _choose_parts(data, split, semantics)
    files = _result_files(workdir, suite, split, semantics)
    clean, figures = _measure(run, data, parts, conditions, cache_dir, show_progress)
    groups = figures[str(CLEAN)]
    shown = {group: (clean[group], *parts[group]) for group in parts}
    report.draw_confusion(groups, data.sources, files["confusion"])
    report.draw_mistakes(shown, data.sources, files["mistakes"])
    report.draw_curves(read_log(workdir), files["curves"])
    if "robustness" in files:
        report.draw_robustness(figures, files["robustness"])
    results = {
        "run": str(workdir),
        "checkpoint": run.checkpoint,
        "split": split,
        "suite": suite,
        "sources": list(data.sources),
        "groups": groups,
        "conditions": {name: _brief(values) for name, values in figures.items()},
        "summary": summarize_conditions(figures),
        "files": {kind: str(path) for kind, path in files.items()},
    }
    write_json(files["results"], results)
    return results


def _measure(
    run: Attributor,
    data: ExperimentData,
    parts: Parts,
    conditions: Sequence[Condition],
    cache_dir: str | None,
    show_progress: bool,
) -> tuple[dict[str, Predictions], dict[str, dict]]:
    """Run the network on all parts under all conditions, the first of them clean.

    Returns:
        The predictions on clean images by group of semantics, and the figures by
        condition (as text) and group.
    """
    corrupter = None
    if conditions != SUITES["clean"]:
        corrupter = Corrupter(run.config, run.devices, cache_dir)
    predict = make_predictor(run.config, len(data.sources), run.devices, corrupter)
    batch_size = _batch_size(run.config, run.devices)
    batches = sum(num_eval_batches(*part, batch_size) for part in parts.values())
    clean, figures = None, {}
    with tqdm(
        total=batches * len(conditions), disable=not show_progress, unit="batch"
    ) as bar:
        for condition in conditions:
            bar.set_description(str(condition))
            found = {
                group: predict(run.variables, *part, condition, bar)
                for group, part in parts.items()
            }
            clean = clean or found
            figures[str(condition)] = {
                group: _figures(p, data.sources, data.dataset.semantic_names)
                for group, p in _with_combined(found).items()
            }
    return clean, figures


def _result_files(
    workdir: Path, suite: str, split: str, semantics: tuple[str, ...]
) -> dict[str, Path]:
    """Name what is written after what is not the default."""
    chosen = [suite] * (suite != "clean") + [split] * (split != "test") + [*semantics]
    tag = "".join("_" + re.sub(r"[^\w.]+", "-", part) for part in chosen)
    if len(tag) > MAX_TAG:
        digest = hashlib.sha256(tag.encode()).hexdigest()[:8]
        tag = f"{tag[:MAX_TAG]}-{digest}"
    files = {
        "results": workdir / f"results{tag}.json",
        "confusion": workdir / f"confusion{tag}.png",
        "mistakes": workdir / f"mistakes{tag}.png",
        "curves": workdir / "curves.png",
    }
    return files | (
        {} if suite == "clean" else {"robustness": workdir / f"robustness{tag}.png"}
    )


def _check_sources(workdir: Path, run: Attributor, data: ExperimentData) -> None:
    if data.sources != run.source_names:
        raise InputError(
            f"{workdir} knows the sources {', '.join(run.source_names)}; the data set "
            f"in {run.config.data.dir} has {', '.join(data.sources)}"
        )


def _choose_parts(
    data: ExperimentData, split: str, semantics: tuple[str, ...]
) -> Parts:
    """Say which images to evaluate on: by group, a selection and its splits."""
    known = tuple(data.dataset.split_sizes)
    if split not in (*known, "all"):
        raise InputError(
            f"unknown split '{split}': choose one of {', '.join(known)}, all"
        )
    splits = known if split == "all" else (split,)
    if semantics:
        chosen = select(data.dataset, sources=data.sources, semantics=semantics)
        parts = {"chosen": (chosen, splits)}
    else:
        parts = {"seen": (data.seen, splits)}
        if data.unseen is not None:
            unseen_splits = data.unseen_splits if split == "test" else splits
            parts["unseen"] = (data.unseen, unseen_splits)
    for group, (selection, used) in list(parts.items()):
        if not selection.size(*used):
            logger.warning("no images of %s semantics in %s", group, ", ".join(used))
            del parts[group]
    if not parts:
        raise InputError(f"no images to evaluate on in split '{split}'")
    return parts


def _with_combined(predictions: dict[str, Predictions]) -> dict[str, Predictions]:
    if len(predictions) < 2:
        return predictions
    return predictions | {"combined": Predictions.concatenate(predictions.values())}


def _brief(groups: dict[str, dict]) -> dict[str, dict]:
    """Leave the figures of each group that are worth keeping for every condition."""
    left_out = ("confusion", "by_semantic")
    return {
        group: {k: v for k, v in values.items() if k not in left_out}
        for group, values in groups.items()
    }


def _figures(
    predictions: Predictions, sources: Sequence[str], semantics: Sequence[str]
) -> dict:
    """Summarise predictions, and the accuracies of each semantic in them."""
    by_semantic = {}
    for i in np.unique(predictions.semantic):
        part = summarize(predictions.where(predictions.semantic == i), sources)
        kept = ("images", "detection_accuracy", "attribution_accuracy", "recall")
        by_semantic[semantics[i]] = {key: part[key] for key in kept}
    return summarize(predictions, sources) | {"by_semantic": by_semantic}
