"""The cells and runs of a sweep: where they lie, how far they are, what is left."""

import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from ml_collections import ConfigDict

from rmjax.errors import InputError
from rmjax.evaluation.description import DEFAULTS, name_evaluation
from rmjax.evaluation.results import EVALUATIONS, read_results
from rmjax.experiment.checkpoints import (
    Checkpoints,
    DamagedCheckpoint,
    saved_steps,
)
from rmjax.experiment.run import CHECKPOINTS, check_config
from rmjax.sweep.grid import Changes

LOGS = "logs"  # folder of what the runs print, beside the cells
_AT_ONCE = 16  # runs that are looked at, as a store takes its time to answer

T = TypeVar("T")


class State(StrEnum):
    """How far a run is, or how an attempt at it ended."""

    DONE = "done"
    FAILED = "failed"
    BUSY = "busy"  # another command works on it
    STOPPED = "unfinished"
    MISSING = "missing"


@dataclass(frozen=True, eq=False)  # told apart by identity
class Cell:
    """A setting of a sweep.

    Attributes:
        label: its name, and that of its folder.
        changes: what it changes of the sweep's config, by key.
        seeds: how many it was last run with, from 0 on.
        present: whether it is in the grid that was given last.
        config: the whole config, but for the seed; empty where it is not present.
        steps: of the whole training, which are those of its last checkpoint.
    """

    label: str
    changes: Changes
    seeds: int
    present: bool
    config: ConfigDict = field(default_factory=ConfigDict)
    steps: int = 0

    @property
    def name(self) -> str:
        """The label, marked where the cell is kept from an earlier grid."""
        return self.label if self.present else f"{self.label} *"


@dataclass(frozen=True)
class Sweep:
    """What a sweep is of; `plan_sweep` fills in its cells.

    Attributes:
        folder: where all of it lies.
        config: name or path of a config.
        grid: see `rmjax.sweep.grid.read_grid`.
        seeds: how many each cell is trained with: 0, 1, ...
        changes: `--config.KEY=VALUE` of all cells.
        reference: the cell that others are compared with, see `find_reference`; its
            label when it is planned.
        suite: of the evaluations, see `rmjax.evaluation.robustness.parse_suite`.
        command: what to say that was run.
        data_dir: folder of the data sets; None: as in the config.
        cache_dir: folder of the evaluations' corrupted images; None: nothing is kept.
        cells: those of the grid, in its order, then those of earlier grids.
    """

    folder: Path
    config: str
    grid: str
    seeds: int = 1
    changes: Sequence[str] = ()
    reference: str = ""
    suite: str = "clean"
    command: str = ""
    data_dir: str | None = None
    cache_dir: str | None = None
    cells: Sequence[Cell] = ()

    @cached_property
    def runs(self) -> list["Run"]:
        """All runs of the grid, seed by seed, so that early ones are of all cells."""
        cells = [cell for cell in self.cells if cell.present]
        return [Run(self, cell, seed) for seed in range(self.seeds) for cell in cells]

    @property
    def evaluation(self) -> str:
        """Name of the evaluation by the suite that is otherwise as usual."""
        return name_evaluation(DEFAULTS | {"suite": self.suite})

    def workdir(self, cell: Cell, seed: int) -> Path:
        """Return the folder of a run."""
        return self.folder / cell.label / f"seed{seed}"


@dataclass(frozen=True, eq=False)
class Run:
    """One training of a cell and its evaluation: see `rmjax.sweep.runner`."""

    sweep: Sweep
    cell: Cell
    seed: int

    def __str__(self) -> str:
        return f"{self.cell.label}, seed {self.seed}"

    @cached_property
    def config(self) -> ConfigDict:
        """The whole config, with its seed."""
        return configure(self.cell.config, {"seed": self.seed})

    @property
    def workdir(self) -> Path:
        """Folder of the training."""
        return self.sweep.workdir(self.cell, self.seed)

    def file(self, kind: str) -> Path:
        """Return the path of its `log`, its `lock`, or what it `failed` of."""
        return self.sweep.folder / LOGS / f"{self.cell.label},seed{self.seed}.{kind}"

    def commands(self) -> list[list[str]]:
        """Return what is left to do, as commands.

        It is done when it was trained to its end and its best checkpoint was evaluated.
        """
        checkpoints = Checkpoints(self.workdir / CHECKPOINTS, read_only=True)
        trained = self._is_trained(checkpoints)
        if trained and self._is_evaluated(checkpoints):
            return []
        rmjax, sweep = [sys.executable, "-m", "rmjax.cli"], self.sweep
        where = ["--workdir", str(self.workdir)]
        if sweep.data_dir:
            where += ["--data-dir", sweep.data_dir]
        own = self.cell.changes | {"seed": self.seed}
        train = [*rmjax, "train", "--config", sweep.config, *where, *sweep.changes]
        train += [f"--config.{key}={value}" for key, value in own.items()]
        evaluate = [*rmjax, "evaluate", "--suite", sweep.suite, *where]
        if sweep.cache_dir:
            evaluate += ["--cache-dir", sweep.cache_dir]
        return [evaluate] if trained else [train, evaluate]

    def state(self) -> State:
        """Return how far it is: DONE, FAILED, STOPPED or MISSING.

        It failed when the last attempt did; what that left may be of use to the next.
        """
        if not self.commands():
            return State.DONE
        if self.file("failed").exists():
            return State.FAILED
        return State.STOPPED if self.workdir.exists() else State.MISSING

    def results(self) -> dict:
        """Read what its evaluation found."""
        return read_results(self.workdir / EVALUATIONS / self.sweep.evaluation)

    def check_workdir(self) -> None:
        """Check that what lies in its folder can be gone on with.

        Raises:
            InputError: it belongs to another config, or was trained for longer than it
                is to be; cell and both values are named.
        """
        try:
            check_config(self.workdir, self.config)
            last = max(saved_steps(self.workdir / CHECKPOINTS), default=0)
            if last > self.cell.steps:
                raise InputError(
                    f"{self.workdir} was trained for {last} steps, and is to be for "
                    f"{self.cell.steps}; choose another --workdir"
                )
        except InputError as error:
            raise InputError(f"cell {self}: {error}") from error

    def _is_evaluated(self, checkpoints: Checkpoints) -> bool:
        answers = self.workdir / EVALUATIONS / self.sweep.evaluation / "predictions.npz"
        try:
            evaluated = self.results()["run"]["checkpoint"]
            best = checkpoints.best_step()
        except (InputError, DamagedCheckpoint):
            return False
        return answers.exists() and evaluated == best

    def _is_trained(self, checkpoints: Checkpoints) -> bool:
        """Tell whether it was trained to its end, by its config or by its patience."""
        last = checkpoints.last_step()
        if last is None:
            return False
        try:
            if checkpoints.is_pending(last):
                return False
            stale = checkpoints.progress(last).get("stale", 0)  # a fit has none
        except DamagedCheckpoint:  # training goes on from the one before
            return False
        return last >= self.cell.steps or stale >= self.config.patience


def look_at(runs: Sequence[Run], look: Callable[[Run], T]) -> dict[Run, T]:
    """Return what a function answers of each run, several asked at once."""
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        return dict(zip(runs, threads.map(look, runs), strict=True))


def configure(base: ConfigDict, changes: Changes) -> ConfigDict:
    """Return a copy of a config with other values."""
    config = base.copy_and_resolve_references()
    config.update_from_flattened_dict(changes)
    return config
