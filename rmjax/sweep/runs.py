"""The runs of a sweep, each cell by each seed: where they lie, and how far they are."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ml_collections import ConfigDict

from rmjax.errors import InputError
from rmjax.evaluation.description import DEFAULTS, name_evaluation
from rmjax.evaluation.results import EVALUATIONS, read_results
from rmjax.experiment.checkpoints import Checkpoints, DamagedCheckpoint
from rmjax.experiment.run import (
    CHECKPOINTS,
    check_config,
    first_difference,
    load_run_config,
    whole_facts,
)
from rmjax.sweep.cells import Cell

LOGS = "logs"  # folder of what the runs print, beside the cells
# How far a run is.
DONE, FAILED, STOPPED, MISSING = "done", "failed", "unfinished", "missing"


@dataclass(frozen=True, eq=False)  # told apart by identity
class Run:
    """One training and its evaluation.

    Attributes:
        cell: what is trained.
        seed: of the training.
        sweep: folder of the sweep.
        suite: what it is evaluated under.
    """

    cell: Cell
    seed: int
    sweep: Path
    suite: str

    @cached_property
    def config(self) -> ConfigDict:
        """The whole config, with its seed."""
        config = self.cell.config.copy_and_resolve_references()
        config.seed = self.seed
        return config

    @property
    def workdir(self) -> Path:
        """Folder of the training."""
        return run_folder(self.sweep, self.cell.label, self.seed)

    @property
    def evaluation(self) -> str:
        """Name of the evaluation."""
        return evaluation_name(self.suite)

    def file(self, kind: str) -> Path:
        """Return the path of its `log`, its `lock`, or what it `failed` of."""
        return self.sweep / LOGS / f"{self.cell.label},seed{self.seed}.{kind}"

    def __str__(self) -> str:
        return f"{self.cell.label}, seed {self.seed}"


def make_runs(cells: Sequence[Cell], seeds: int, sweep: Path, suite: str) -> list[Run]:
    """Return the runs of a sweep, seed by seed, so that early ones are of all cells."""
    return [Run(cell, seed, sweep, suite) for seed in range(seeds) for cell in cells]


def run_folder(sweep: Path, label: str, seed: int) -> Path:
    """Say where the run of a cell and seed lies."""
    return sweep / label / f"seed{seed}"


def evaluation_name(suite: str) -> str:
    """Name the evaluation by a suite that is otherwise as usual."""
    return name_evaluation(DEFAULTS | {"suite": suite})


def check_workdirs(runs: Sequence[Run]) -> None:
    """Check that what lies in the runs' folders can be gone on with.

    Raises:
        InputError: one belongs to another config, or was trained for longer than it is
            to be; cell and both values are named.
    """
    for run in runs:
        try:
            check_config(run.workdir, run.config)
            _check_length(run)
        except InputError as error:
            raise InputError(f"cell {run}: {error}") from error


def check_kept(workdir: Path, changes: Iterable[str], run: Run) -> None:
    """Check that a run of an earlier grid differs from one of this by the grids alone.

    Args:
        workdir: of the earlier run.
        changes: keys that the earlier grid changed in it.
        run: of this grid.

    Raises:
        InputError: it differs by something else, which is named.
    """
    varied = {*changes, *run.cell.changes, "seed"}
    old, new = (
        {k: v for k, v in whole_facts(config).items() if k not in varied}
        for config in (load_run_config(workdir), run.config)
    )
    key = first_difference(old, new)
    if key is not None:
        raise InputError(
            f"its {key} is {old.get(key)!r}, that of the present grid {new.get(key)!r}"
        )


def status(run: Run) -> str:
    """Return how far a run is: DONE, FAILED, STOPPED or MISSING.

    It is done when it was trained to its end and its best checkpoint was evaluated; it
    failed when the last attempt did, and what it left may be of use to the next one.
    """
    if is_done(run):
        return DONE
    if run.file("failed").exists():
        return FAILED
    return STOPPED if run.workdir.exists() else MISSING


def is_done(run: Run) -> bool:
    """Tell whether nothing is left to do of a run."""
    folder = run.workdir / EVALUATIONS / run.evaluation
    if not (folder / "predictions.npz").exists():
        return False
    try:
        evaluated = read_results(folder)["run"]["checkpoint"]
        best = Checkpoints(run.workdir / CHECKPOINTS, read_only=True).best_step()
    except (InputError, DamagedCheckpoint):
        return False
    return evaluated == best and is_trained(run)


def is_trained(run: Run) -> bool:
    """Tell whether a run was trained to its end, by its config or by its patience."""
    checkpoints = Checkpoints(run.workdir / CHECKPOINTS, read_only=True)
    last = checkpoints.last_step()
    if last is None or run.config.fit.name:  # a fit has one checkpoint, at its end
        return last is not None
    try:
        if checkpoints.is_pending(last):
            return False
        stale = checkpoints.progress(last)["stale"]
    except DamagedCheckpoint:  # training goes on from the one before
        return False
    return last >= _steps(run) or stale >= run.config.patience


def _steps(run: Run) -> int:
    return run.config.num_epochs * run.cell.steps


def _check_length(run: Run) -> None:
    last = Checkpoints(run.workdir / CHECKPOINTS, read_only=True).last_step()
    if last is not None and not run.config.fit.name and last > _steps(run):
        raise InputError(
            f"{run.workdir} was trained for {last} steps, and is to be for "
            f"{_steps(run)}; choose another --workdir"
        )
