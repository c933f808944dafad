"""Evaluation: the figures of a run on seen, unseen and unknown, written to files."""

import gc
import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from rmjax.data.dataset import choose_evenly, select, take
from rmjax.errors import InputError
from rmjax.evaluation.bootstrap import DRAWS
from rmjax.evaluation.calibration import FPRS, REJECT_FPR, calibrate
from rmjax.evaluation.description import describe, describe_calibration, name_evaluation
from rmjax.evaluation.exhibits import (
    draw_map,
    measure_spectra,
    save_mistakes,
    save_predictions,
)
from rmjax.evaluation.metrics import Predictions
from rmjax.evaluation.openset import fit_reference, measure_open_set
from rmjax.evaluation.predict import (
    Grid,
    Part,
    Runner,
    count_images,
    digest_answers,
    make_runner,
    predict_grid,
)
from rmjax.evaluation.protocol import measure_clean, measure_grid
from rmjax.evaluation.results import (
    EVALUATIONS,
    new_folder,
    partial_folder,
    subset_words,
    write_results,
)
from rmjax.evaluation.robustness import check_conditions, parse_suite
from rmjax.experiment import hosts, parallel
from rmjax.experiment.config import Changes
from rmjax.experiment.data import ExperimentData, open_data
from rmjax.experiment.run import (
    change_free,
    check_network,
    load_run_config,
    run_facts,
)
from rmjax.inference.attributor import Attributor, load_run
from rmjax.inference.calibration import Calibration, load_calibration, save_calibration
from rmjax.inference.spectra import save_spectra
from rmjax.utils.places import as_path
from rmjax.utils.revision import revision

logger = logging.getLogger(__name__)

MAX_REFERENCE = 5_000  # training fingerprints that open-set scores compare with
# What a calibration depends on beside the answers: code, and libraries.
CALIBRATION_CODE = ("rmjax.evaluation.calibration", "rmjax.inference.calibration")
CALIBRATION_LIBRARIES = ("numpy", "scipy")


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
    changes: Changes = (),
    num_devices: int | None = None,
    show_progress: bool = True,
) -> dict:
    """Evaluate the run in `workdir` and write the results there.

    The checkpoint is calibrated on validation images first, unless it was; what that
    gives lies in the run's `calibration.json`. The mean spectra of the sources lie in its
    `spectra.json`. The results are in a folder of their
    own in `evaluation/`, named after the suite, and split, semantics and checkpoint
    where they are not the usual: `results.json`, `results.csv`, `predictions.npz` and
    the greatest `mistakes/`. An evaluation that was stopped resumes.

    Args:
        workdir: folder of a training run.
        split: which split, or "all" of them.
        semantics: evaluate on these alone, instead of on seen ones, new pairs and
            unseen ones.
        suite: what happens to the images, see `robustness.parse_suite`.
        checkpoint: "best" by validation loss, "last", or a step.
        data_dir: where the data lies now, if not where the run found it.
        cache_dir: folder to keep corrupted images in, for other runs.
        fprs: false-positive rates on real images to choose operating points for.
        reject_fpr: share of known images that may be called unknown.
        draws: bootstrap draws for the intervals.
        changes: of the run's config, such as `{"data.workers": 2}`; of keys that no
            figure depends on.
        num_devices: devices to use, all for None.
        show_progress: whether to draw a bar.

    Returns:
        What `results.json` holds (docs/evaluation_files.md), and `folder`, where it
        is. Of several processes, the first measures and writes; any other returns {}.

    Raises:
        InputError: there is no such run, checkpoint, split, semantic or suite, a change
            that figures depend on, or the workdir can't be written to.
    """
    workdir = as_path(workdir)
    if draws < 1:
        raise InputError(f"bootstrap = {draws}: give at least 1 draw")
    conditions = parse_suite(suite)
    run = _load_run(workdir, checkpoint, data_dir, changes, num_devices)
    check_conditions(run.config, conditions)
    data = open_data(run.config)
    _check_sources(workdir, run, data)
    check_network(workdir, run.features, data.network)
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
    workers = run.config.data.workers
    runner = make_runner(run.config, len(data.sources), devices, cache_dir, workers)
    beside = _choose_beside(data, parts, split)
    digest = _digest(runner, run, beside.get("validation"), fprs, reject_fpr)
    calibration = load_calibration(workdir, run.checkpoint)
    if calibration.digest == digest:
        beside.pop("validation", None)
    images = count_images(parts) * len(conditions) + count_images(beside)
    quiet = not (show_progress and hosts.is_first())
    with tqdm(total=images, unit="img", unit_scale=True, disable=quiet) as bar:
        clean = _predict_beside(runner, run, beside, bar)
        if "validation" in clean and hosts.is_first():
            calibration = calibrate(
                clean["validation"], fprs=fprs, reject_fpr=reject_fpr, digest=digest
            )
            save_calibration(workdir, run.checkpoint, calibration)
        with partial_folder(folder) as answers:
            grid = predict_grid(runner, run.variables, parts, conditions, answers, bar)
    if workers:  # what grain read is in cycles of references, and in shared memory
        gc.collect()
    if grid is None:
        return {}
    results = {
        **describe(workdir, run, data, parts, grid, options),
        **measure_grid(grid, data.sources, calibration, draws=draws),
        "clean": measure_clean(grid, data.sources, data.dataset.semantic_names),
        "calibration": describe_calibration(calibration),
        "open_set": _measure_open_set(grid, data, clean, calibration),
        "map": draw_map(grid, data, clean.get("unknown")),
    }
    first = next(iter(parts.values()))
    spectra = measure_spectra(first, data.sources, run.config.data)
    if spectra is not None:
        save_spectra(workdir, spectra)
    # All of it, or what was there before.
    with new_folder(folder) as fresh:
        results["mistakes"] = save_mistakes(
            fresh, grid, parts, data.sources, calibration
        )
        save_predictions(fresh, grid)
        write_results(fresh, results)
    return results | {"folder": str(folder)}


def _load_run(
    workdir: Path,
    checkpoint: str | int,
    data_dir: str | None,
    changes: Changes,
    num_devices: int | None,
) -> Attributor:
    """Load the run, its config changed as asked; arguments as for `evaluate`."""
    original = load_run_config(workdir)
    config = change_free(original, changes)
    if config.num_devices != original.num_devices:  # that of training is none of ours
        num_devices = config.num_devices or None
    if data_dir:
        config.data.dir = data_dir
    run = load_run(workdir, checkpoint=checkpoint, num_devices=num_devices)
    return replace(run, config=config)


def _predict_beside(
    runner: Runner, run: Attributor, beside: dict[str, Part], bar: tqdm
) -> dict[str, Predictions]:
    """Look at the images beside the grid, which nothing corrupts."""
    clean = {}
    for name, part in beside.items():
        bar.set_description(name)
        clean[name] = runner.predict(run.variables, part, bar)
    return clean


def _digest(
    runner: Runner,
    run: Attributor,
    validation: Part | None,
    fprs: Sequence[float],
    reject_fpr: float,
) -> str:
    """Name all that a calibration is made from."""
    if validation is None:
        return ""
    answers = digest_answers(runner, run.variables, {"validation": validation})
    code = revision(CALIBRATION_CODE, CALIBRATION_LIBRARIES)
    facts = json.dumps([answers, code, list(fprs), reject_fpr])
    return hashlib.sha256(facts.encode()).hexdigest()


def _choose_beside(
    data: ExperimentData, parts: dict[str, Part], split: str
) -> dict[str, Part]:
    """Say which images to look at beside those evaluated on, as far as there are any."""
    beside = {"validation": _validation(data), "unknown": _unknown(data, parts, split)}
    if beside["unknown"] is not None:  # training images, to compare fingerprints with
        rows = choose_evenly(data.seen.labels["train"]["source"], MAX_REFERENCE)
        beside["reference"] = take(data.seen, "train", rows), ("train",)
    return {kind: part for kind, part in beside.items() if part is not None}


def _validation(data: ExperimentData) -> Part | None:
    """Return the images to calibrate on."""
    if not data.seen.size("val"):
        logger.warning("no validation images: probabilities are not calibrated")
        return None
    return data.seen, ("val",)


def _unknown(data: ExperimentData, parts: dict[str, Part], split: str) -> Part | None:
    """Return the test images of the sources that the network was not trained on."""
    if data.held_out is None or split != "test" or "seen" not in parts:
        return None
    if not data.held_out.size(*data.held_out_splits):
        logger.warning("no test images of held-out sources: nothing to be unknown")
        return None
    return data.held_out, data.held_out_splits


def _measure_open_set(
    grid: Grid,
    data: ExperimentData,
    clean: dict[str, Predictions],
    calibration: Calibration,
) -> dict | None:
    """Measure how unknown sources are told from known ones; None without any."""
    if data.held_out is None or "unknown" not in clean:
        return None
    reference = clean["reference"]
    return measure_open_set(
        grid.predictions(0, "seen"),
        clean["unknown"],
        fit_reference(reference.embedding, reference.source),
        calibration,
        sources=data.sources,
        held_out=data.held_out.source_names,
        near=data.near_sources,
        unseen=grid.predictions(0, "unseen") if "unseen" in grid.rows else None,
    ) | {"reference_images": len(reference)}


def _check_sources(workdir: Path, run: Attributor, data: ExperimentData) -> None:
    if not run.source_names:
        raise InputError(
            f"{workdir} knows no sources, it makes fingerprints alone: "
            "`rmjax embed` writes them"
        )
    if data.sources != run.source_names:
        raise InputError(
            f"{workdir} knows the sources {', '.join(run.source_names)}; the data set "
            f"in {run.config.data.dir} has {', '.join(data.sources)}"
        )


def _choose_parts(
    data: ExperimentData, split: str, semantics: tuple[str, ...]
) -> dict[str, Part]:
    """Say which images to evaluate on: by subset, a selection and its splits."""
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
        if data.new_pairs is not None and data.new_pairs.size(*splits):
            parts["new_pairs"] = (data.new_pairs, splits)
        if data.unseen is not None:
            unseen_splits = data.unseen_splits if split == "test" else splits
            parts["unseen"] = (data.unseen, unseen_splits)
    for subset, (selection, used) in list(parts.items()):
        if not selection.size(*used):
            logger.warning(
                "no images of %s in %s", subset_words(subset), ", ".join(used)
            )
            del parts[subset]
    if not parts:
        raise InputError(f"no images to evaluate on in split '{split}'")
    return parts
