"""Evaluation: the figures of a run on seen, unseen and unknown, written to files."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from rmjax.data.dataset import choose_evenly, select, take
from rmjax.errors import InputError
from rmjax.evaluation.bootstrap import DRAWS
from rmjax.evaluation.calibration import FPRS, RECIPE, REJECT_FPR, calibrate
from rmjax.evaluation.clusters import cluster_purity, frechet_ratio, purity
from rmjax.evaluation.description import (
    describe_calibration,
    describe_data,
    describe_run,
    name_evaluation,
    without_images,
    write_command,
)
from rmjax.evaluation.exhibits import draw_map, save_mistakes, save_predictions
from rmjax.evaluation.metrics import Predictions
from rmjax.evaluation.openset import fit_reference
from rmjax.evaluation.predict import (
    Grid,
    Part,
    Runner,
    digest_answers,
    make_runner,
    predict_grid,
)
from rmjax.evaluation.protocol import COMBINED, measure_clean, measure_grid
from rmjax.evaluation.results import (
    EVALUATIONS,
    SCHEMA,
    SCHEMA_VERSION,
    new_folder,
    partial_folder,
    write_results,
)
from rmjax.evaluation.robustness import parse_suite
from rmjax.evaluation.unknown import measure_open_set
from rmjax.experiment import hosts, parallel
from rmjax.experiment.data import ExperimentData, open_data
from rmjax.experiment.run import change_free, load_run_config, run_facts
from rmjax.inference.attributor import Attributor, load
from rmjax.inference.calibration import Calibration, load_calibration, save_calibration

logger = logging.getLogger(__name__)

MAX_REFERENCE = 5_000  # training fingerprints that open-set scores compare with


def evaluate(
    workdir: str | Path,
    *,
    split: str = "test",
    semantics: tuple[str, ...] = (),
    suite: str = "clean",
    checkpoint: str | int = "best",
    data_dir: str | None = None,
    cache_dir: str | None = None,
    fprs: Sequence[float] = FPRS,
    reject_fpr: float = REJECT_FPR,
    draws: int = DRAWS,
    changes: Sequence[str] = (),
    num_devices: int | None = None,
    show_progress: bool = True,
) -> dict:
    """Evaluate the run in `workdir` and write the results there.

    The checkpoint is calibrated on validation images first, unless it was; what that
    gives lies in the run's `calibration.json`. The results are in a folder of their
    own in `evaluation/`, named after the suite, and split, semantics and checkpoint
    where they are not the usual: `results.json`, `results.csv`, `predictions.npz` and the
    greatest `mistakes/`. An evaluation that was stopped goes on where it was.

    Args:
        workdir: folder of a training run.
        split: which split, or "all" of them.
        semantics: evaluate on these alone instead of the config's seen and unseen.
        suite: what happens to the images, see `robustness.parse_suite`.
        checkpoint: "best" by validation loss, "last", or a step.
        data_dir: where the data lies now, if not where the run found it.
        cache_dir: folder to keep corrupted images in, for other runs.
        fprs: false-positive rates on real images to choose operating points for.
        reject_fpr: share of known images that may be called unknown.
        draws: bootstrap draws for the intervals.
        changes: of the run's config, such as `--config.data.workers=2`; of keys that no
            figure depends on.
        num_devices: devices to use, all for None.
        show_progress: whether to draw a bar.

    Returns:
        What `results.json` holds (docs/evaluation_files.md), and `folder`, where it is. Of
        several processes, the first measures and writes; any other returns {}.

    Raises:
        InputError: there is no such run, checkpoint, split, semantic or suite, a change
            that figures depend on, or the workdir can't be written to.
    """
    workdir = Path(workdir)
    if draws < 1:
        raise InputError(f"bootstrap = {draws}: give at least 1 draw")
    conditions = parse_suite(suite)
    original = load_run_config(workdir)
    config = change_free(original, changes)
    if config.num_devices != original.num_devices:  # that of training is none of ours
        num_devices = config.num_devices or None
    run = load(workdir, checkpoint=checkpoint, num_devices=num_devices)
    run = replace(run, config=config)
    if data_dir:
        run.config.data.dir = data_dir
    data = open_data(run.config)
    _check_sources(workdir, run, data)
    hosts.check_alike(
        data.facts()
        | run_facts(run.config)
        | {"checkpoint": run.checkpoint, "devices": len(run.devices), "suite": suite}
        | {"split": split, "semantics": semantics}
    )
    parts = _choose_parts(data, split, semantics)
    options = {
        "suite": suite,
        "split": split,
        "semantics": tuple(semantics),
        "checkpoint": checkpoint,
        "data_dir": data_dir,
        "fpr": tuple(fprs),
        "reject_fpr": reject_fpr,
        "bootstrap": draws,
    }
    folder = workdir / EVALUATIONS / name_evaluation(options)
    devices = parallel.everywhere(run.devices)
    runner = make_runner(run.config, len(data.sources), devices, cache_dir)
    others = {
        "validation": _validation(data),
        "unknown": _unknown(data, parts, split),
    }
    others["reference"] = _reference(data) if others["unknown"] else None
    digest = _digest(runner, run, others["validation"])
    calibration = load_calibration(workdir, run.checkpoint)
    if calibration.is_for(digest, fprs, reject_fpr):
        others["validation"] = None
    bar = tqdm(
        total=_count_images(parts, others, len(conditions)),
        unit="img",
        unit_scale=True,
        disable=not (show_progress and hosts.is_first()),
    )
    with bar:
        found = _predict_others(runner, run, others, bar)
        if "validation" in found and hosts.is_first():
            calibration = calibrate(
                found["validation"], fprs=fprs, reject_fpr=reject_fpr, digest=digest
            )
            save_calibration(workdir, run.checkpoint, calibration)
        grid = predict_grid(
            runner, run.variables, parts, conditions, partial_folder(folder), bar
        )
    if grid is None:
        return {}
    results = {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "run": describe_run(workdir, run),
        "evaluation": {
            "name": folder.name,
            "suite": suite,
            "split": split,
            "semantics": list(semantics),
            "command": write_command(workdir, options),
            "bootstrap": draws,
        },
        "data": describe_data(run, data, parts, grid),
        "sources": list(data.sources),
        "semantics": {
            group: list(selection.semantic_names)
            for group, (selection, _) in parts.items()
        },
        "without_images": without_images(grid, data.sources),
        **measure_grid(grid, data.sources, calibration, draws=draws),
        "clean": _measure_clean(grid, data),
        "calibration": describe_calibration(calibration),
        "open_set": _measure_open_set(grid, data, found, calibration),
        "map": draw_map(grid, data, found.get("unknown")),
    }
    with new_folder(folder) as fresh:
        results["mistakes"] = save_mistakes(
            fresh, grid, parts, data.sources, calibration
        )
        save_predictions(fresh, grid)
        write_results(fresh, results)
    return results | {"folder": str(folder)}


def _digest(runner: Runner, run: Attributor, validation: Part | None) -> str:
    """Name the network and the images that a calibration is of."""
    if validation is None:
        return ""
    digest = digest_answers(runner, run.variables, {"validation": validation})
    return f"{RECIPE}-{digest}"


def _predict_others(
    runner: Runner, run: Attributor, others: dict[str, Part | None], bar: tqdm
) -> dict[str, Predictions]:
    """Run over what is looked at beside the grid, clean."""
    found = {}
    for kind, part in others.items():
        if part is not None:
            bar.set_description(kind)
            found[kind] = runner.predict(run.variables, part, bar)
    return found


def _validation(data: ExperimentData) -> Part | None:
    """Return the images to calibrate on."""
    if not data.seen.size("val"):
        logger.warning("no validation images: probabilities are not calibrated")
        return None
    return data.seen, ("val",)


def _reference(data: ExperimentData) -> Part:
    """Return training images that open-set scores compare with."""
    rows = choose_evenly(data.seen.labels["train"]["source"], MAX_REFERENCE)
    return take(data.seen, "train", rows), ("train",)


def _unknown(data: ExperimentData, parts: dict[str, Part], split: str) -> Part | None:
    """Return the test images of the sources that the network was not trained on."""
    if data.held_out is None or split != "test" or "seen" not in parts:
        return None
    if not data.held_out.size(*data.held_out_splits):
        logger.warning("no test images of held-out sources: nothing to be unknown")
        return None
    return data.held_out, data.held_out_splits


def _count_images(
    parts: dict[str, Part], others: dict[str, Part | None], conditions: int
) -> int:
    """Return how many images the network will see, each condition counted."""
    size = sum(selection.size(*splits) for selection, splits in parts.values())
    rest = (part for part in others.values() if part is not None)
    return size * conditions + sum(s.size(*splits) for s, splits in rest)


def _measure_clean(grid: Grid, data: ExperimentData) -> dict[str, dict]:
    """Return what is reported of clean images and their fingerprints, by group."""
    parts = {part: grid.predictions(0, part) for part in grid.rows}
    if len(parts) > 1:
        parts[COMBINED] = Predictions.concatenate(parts.values())
    found = {}
    for group, predictions in parts.items():
        ratio, note = frechet_ratio(predictions.embedding, predictions.source)
        found[group] = measure_clean(
            predictions, data.sources, data.dataset.semantic_names
        ) | {
            "purity": cluster_purity(predictions.guess, predictions.source),
            "fingerprint_purity": purity(predictions.embedding, predictions.source),
            "frechet_ratio": ratio,
            "frechet_note": note,
        }
    return found


def _measure_open_set(
    grid: Grid,
    data: ExperimentData,
    found: dict[str, Predictions],
    calibration: Calibration,
) -> dict | None:
    if "unknown" not in found:
        return None
    reference = found["reference"]
    names = data.held_out.source_names
    return measure_open_set(
        grid.predictions(0, "seen"),
        found["unknown"],
        fit_reference(reference.embedding, reference.source),
        calibration,
        sources=data.sources,
        held_out=names,
        near=data.near_sources,
        unseen=grid.predictions(0, "unseen") if "unseen" in grid.rows else None,
    ) | {"reference_images": len(reference)}


def _check_sources(workdir: Path, run: Attributor, data: ExperimentData) -> None:
    if data.sources != run.source_names:
        raise InputError(
            f"{workdir} knows the sources {', '.join(run.source_names)}; the data set "
            f"in {run.config.data.dir} has {', '.join(data.sources)}"
        )


def _choose_parts(
    data: ExperimentData, split: str, semantics: tuple[str, ...]
) -> dict[str, Part]:
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
