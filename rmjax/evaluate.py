"""Evaluation: exact figures of a run on images of seen and unseen semantics."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from rmjax import parallel, report
from rmjax.data.dataset import Selection, select
from rmjax.data.pipeline import eval_batches, num_eval_batches
from rmjax.errors import InputError
from rmjax.experiment import ExperimentData, make_eval_step, open_data
from rmjax.inference import Attributor, load
from rmjax.logs import read_log, write_json
from rmjax.metrics import Predictions, summarize
from rmjax.train_step import PyTree

logger = logging.getLogger(__name__)

Predictor = Callable[..., Predictions]


def make_predictor(
    config: ConfigDict, num_sources: int, devices: parallel.Devices
) -> Predictor:
    """Return `predict(variables, selection, splits, show_progress=False)`.

    It runs the network once over every selected image of the splits, without
    mixing, and gives their `Predictions` in the data set's order.
    """
    step = make_eval_step(config, num_sources, devices)
    unit = len(devices)
    batch_size = -(-config.eval_batch_size // unit) * unit

    def predict(
        variables: PyTree,
        selection: Selection,
        splits: tuple[str, ...],
        show_progress: bool = False,
    ) -> Predictions:
        batches = eval_batches(
            selection,
            splits,
            batch_size=batch_size,
            size=config.data.eval_size,
            resize=config.data.eval_resize or None,
        )
        total = num_eval_batches(selection, splits, batch_size)
        bar = tqdm(batches, "evaluate", total, disable=not show_progress, unit="batch")
        parts = []
        for batch in bar:
            outputs = step(
                variables, parallel.shard({"image": batch["image"]}, devices)
            )
            truth = {
                key: batch[key] for key in ("source", "semantic", "split", "index")
            }
            real = batch["mask"] > 0
            parts.append({k: v[real] for k, v in (truth | outputs).items()})
        return Predictions(
            **{key: np.concatenate([p[key] for p in parts]) for key in parts[0]}
        )

    return predict


def evaluate(
    workdir: str | Path,
    *,
    split: str = "test",
    semantics: tuple[str, ...] = (),
    checkpoint: str | int = "best",
    data_dir: str | None = None,
    num_devices: int | None = None,
    show_progress: bool = True,
) -> dict:
    """Evaluate the run in `workdir` and write its results there.

    Writes `results.json`, `confusion.png`, `mistakes.png` and `curves.png`; when
    not of the test split and the config's own semantics, named after what they
    are of.

    Args:
        workdir: folder of a training run.
        split: which split, or "all" of them.
        semantics: evaluate on these alone instead of the config's seen and unseen.
        checkpoint: "best" by validation loss, "last", or a step.
        data_dir: where the data lies now, if not where the run found it.
        num_devices: devices to use, all for None.
        show_progress: whether to draw a bar.

    Returns:
        What `results.json` holds: `run`, `checkpoint`, `split`, `sources`,
        `files`, and in `groups` the figures (see `metrics.summarize`) of `seen`,
        `unseen` and `combined` semantics, each with `by_semantic`.

    Raises:
        InputError: there is no such run, checkpoint, split or semantic.
    """
    workdir = Path(workdir)
    run = load(workdir, checkpoint=checkpoint, num_devices=num_devices)
    if data_dir:
        run.config.data.dir = data_dir
    data = open_data(run.config)
    _check_sources(workdir, run, data)
    parts = _choose_parts(data, split, semantics)
    predict = make_predictor(run.config, len(data.sources), run.devices)
    predictions = {
        group: predict(run.variables, selection, splits, show_progress)
        for group, (selection, splits) in parts.items()
    }
    groups = {
        group: _figures(p, data.sources, data.dataset.semantic_names)
        for group, p in _with_combined(predictions).items()
    }
    tag = (
        "" if (split, semantics) == ("test", ()) else "_".join(("", split, *semantics))
    )
    files = {
        "results": workdir / f"results{tag}.json",
        "confusion": workdir / f"confusion{tag}.png",
        "mistakes": workdir / f"mistakes{tag}.png",
        "curves": workdir / "curves.png",
    }
    results = {
        "run": str(workdir),
        "checkpoint": run.checkpoint,
        "split": split,
        "sources": list(data.sources),
        "groups": groups,
        "files": {kind: str(path) for kind, path in files.items()},
    }
    shown = {group: (predictions[group], *parts[group]) for group in parts}
    report.draw_confusion(groups, data.sources, files["confusion"])
    report.draw_mistakes(shown, data.sources, files["mistakes"])
    report.draw_curves(read_log(workdir), files["curves"])
    write_json(files["results"], results)
    return results


def _check_sources(workdir: Path, run: Attributor, data: ExperimentData) -> None:
    if data.sources != run.source_names:
        raise InputError(
            f"{workdir} knows the sources {', '.join(run.source_names)}; the data set "
            f"in {run.config.data.dir} has {', '.join(data.sources)}"
        )


def _choose_parts(
    data: ExperimentData, split: str, semantics: tuple[str, ...]
) -> dict[str, tuple[Selection, tuple[str, ...]]]:
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
