"""What a sweep is to run: its cells by its seeds, checked before any of them is run."""

import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property
from pathlib import Path

import jax
from ml_collections import ConfigDict

from rmjax.data.dataset import check_every_source
from rmjax.errors import InputError
from rmjax.evaluation.description import DEFAULTS, name_evaluation
from rmjax.evaluation.results import EVALUATIONS, read_results
from rmjax.evaluation.robustness import parse_suite
from rmjax.experiment import run as workdirs
from rmjax.experiment.build import (
    build_augment,
    build_model,
    build_optimizer,
    build_step,
    network_input,
)
from rmjax.experiment.checkpoint_files import DamagedCheckpoint
from rmjax.experiment.checkpoints import Checkpoints
from rmjax.experiment.config import flatten, load_config
from rmjax.experiment.data import ExperimentData, open_data
from rmjax.sweep.grid import Changes, read_grid, read_value, split
from rmjax.training.fit import check_fit
from rmjax.training.train import check_settings, count_steps
from rmjax.utils.files import write_json

LOGS = "logs"  # folder of what the runs print, beside the cells
RECORD_FILE = "sweep.json"
SCHEMA, SCHEMA_VERSION = "rmjax-sweep", 1
# What the record says of the sweep and of each of its cells.
_OF_SWEEP = ("config", "changes", "grid", "seeds", "suite", "reference", "command")
_OF_CELL = ("label", "changes", "seeds", "present")


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
        steps: of the whole training.
    """

    label: str
    changes: Changes
    seeds: int
    present: bool
    config: ConfigDict = field(default_factory=ConfigDict)
    steps: int = 0


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
        return _configure(self.cell.config, {"seed": self.seed})

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
        trained = self._is_trained()
        if trained and self._is_evaluated():
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
            workdirs.check_config(self.workdir, self.config)
            last = self._checkpoints().last_step()
            if last and not self.config.fit.name and last > self.cell.steps:
                raise InputError(
                    f"{self.workdir} was trained for {last} steps, and is to be for "
                    f"{self.cell.steps}; choose another --workdir"
                )
        except InputError as error:
            raise InputError(f"cell {self}: {error}") from error

    def _is_evaluated(self) -> bool:
        answers = self.workdir / EVALUATIONS / self.sweep.evaluation / "predictions.npz"
        try:
            evaluated = self.results()["run"]["checkpoint"]
            best = self._checkpoints().best_step()
        except (InputError, DamagedCheckpoint):
            return False
        return answers.exists() and evaluated == best

    def _is_trained(self) -> bool:
        """Tell whether it was trained to its end, by its config or by its patience."""
        checkpoints = self._checkpoints()
        last = checkpoints.last_step()
        if last is None or self.config.fit.name:  # a fit has one checkpoint, at its end
            return last is not None
        try:
            stale = checkpoints.progress(last)["stale"]
        except DamagedCheckpoint:  # training goes on from the one before
            return False
        return last >= self.cell.steps or stale >= self.config.patience

    def _checkpoints(self) -> Checkpoints:
        return Checkpoints(self.workdir / workdirs.CHECKPOINTS, read_only=True)


def plan_sweep(sweep: Sweep) -> Sweep:
    """Read a grid and check all that can be known before the first run; write nothing.

    What can be built without a device is built, so that a cell that could not start is
    known before the first one does.

    Args:
        sweep: what is asked for, without cells.

    Raises:
        InputError: the grid, a config or the data can't be used as they are, two cells
            are one, or a run's folder belongs to another config.
    """
    if sweep.seeds < 1:
        raise InputError(f"seeds = {sweep.seeds}: give at least 1")
    parse_suite(sweep.suite)
    base = load_config(sweep.config, sweep.changes)
    if sweep.data_dir:
        base.data.dir = sweep.data_dir
    points = read_grid(sweep.grid, base, sweep.config)
    _check_changes(sweep.changes, [own for _, own in points])
    cells = [
        Cell(label, own, sweep.seeds, True, _configure(base, own))
        for label, own in points
    ]
    cells = _as_on_disk(cells, sweep.folder)
    _check_different(cells)
    opened: dict[str, ExperimentData] = {}
    cells = [replace(cell, steps=_count_steps(cell, opened)) for cell in cells]
    reference = find_reference(cells, sweep.reference, sweep.config).label
    cells = with_earlier(cells, sweep.folder)
    sweep = replace(sweep, reference=reference, cells=cells)
    for run in sweep.runs:
        run.check_workdir()
    return sweep


def find_reference(cells: Sequence[Cell], text: str, name: str) -> Cell:
    """Return the cell that others are compared with.

    Args:
        cells: of the grid.
        text: a cell's label, or values that one cell alone has, such as
            `mix.name=none,mix.level=5`; empty: the first cell.
        name: of the config, for messages.

    Raises:
        InputError: no cell, or several, are so.
    """
    if not text:
        return cells[0]
    chosen = [cell for cell in cells if cell.label == text]
    if not chosen:
        wanted = {}
        for word in split(text, ","):
            key, equals, value = word.strip().partition("=")
            if equals and key in flatten(cells[0].config):
                wanted[key] = read_value(key, value, cells[0].config, name)
            else:
                wanted[word] = None  # no cell has it
        chosen = [c for c in cells if wanted.items() <= flatten(c.config).items()]
    if len(chosen) != 1:
        raise InputError(
            f"reference '{text}' is {len(chosen) or 'none'} of the cells; give one of "
            + ", ".join(cell.label for cell in cells)
        )
    return chosen[0]


def _configure(base: ConfigDict, changes: Changes) -> ConfigDict:
    config = base.copy_and_resolve_references()
    config.update_from_flattened_dict(changes)
    return config


# ------------------------------------------------------------------------ checks of cells


def _check_changes(changes: Sequence[str], of_grid: Sequence[Changes]) -> None:
    """Check that no key of `--config.KEY=VALUE` is the sweep's own, or the grid's."""
    for change in changes:
        key = change.removeprefix("--config.").partition("=")[0]
        if key == "seed":
            raise InputError(f"{change}: seeds are set by --seeds; leave it out")
        if any(key in own for own in of_grid):
            raise InputError(f"{change}: the grid changes {key} too; leave one out")


def _check_different(cells: Sequence[Cell]) -> None:
    """Check that no two cells are the same run or lie in the same folder."""
    runs: dict[str, str] = {}
    folders: dict[str, str] = {}
    for cell in cells:
        words = ", ".join(f"{key}={value}" for key, value in cell.changes.items())
        # Some file systems know no capitals.
        for seen, key, what in (
            (runs, _identity(cell.config), "would be the same run"),
            (folders, cell.label.casefold(), "would share a folder"),
        ):
            if key in seen:
                raise InputError(f"grid: two cells {what}: {seen[key]} and {words}")
            seen[key] = words


def _count_steps(cell: Cell, opened: dict[str, ExperimentData]) -> int:
    """Build what a run would, without a device; return the steps of its training.

    Args:
        cell: whose config to take.
        opened: data by what configs say of it, to be added to.

    Raises:
        InputError: something can't be used as it is; the cell is named.
    """
    config = cell.config
    try:
        about = json.dumps(flatten(config.data), sort_keys=True)
        if about not in opened:
            opened[about] = open_data(config)
            check_every_source(opened[about].seen, "train")
        data = opened[about]
        if config.fit.name:
            check_fit(config, len(data.sources))
            build_augment(config)
            return 1
        # As many as are asked for: which there are is known where the run starts.
        devices = jax.local_devices()[:1] * max(config.num_devices, 1)
        mixing = check_settings(config, devices)
        steps = count_steps(config, data, mixing)
        model = build_model(config, len(data.sources))
        build_step(config, model, build_optimizer(config, steps), mixing)
        network_input(config)
        return config.num_epochs * steps
    except InputError as error:
        raise InputError(f"cell {cell.label}: {error}") from error


def check_kept(sweep: Sweep, cell: Cell, seed: int) -> None:
    """Check that an earlier grid's run differs from the reference by the grids alone.

    Raises:
        InputError: it differs by something else, which is named.
    """
    base = next(run for run in sweep.runs if run.cell.label == sweep.reference)
    varied = {*cell.changes, *base.cell.changes, "seed"}
    old, new = (
        {k: v for k, v in workdirs.whole_facts(config).items() if k not in varied}
        for config in (workdirs.load_config(sweep.workdir(cell, seed)), base.config)
    )
    key = workdirs.first_difference(old, new)
    if key is not None:
        raise InputError(
            f"its {key} is {old.get(key)!r}, that of the present grid {new.get(key)!r}"
        )


# ------------------------------------------- sweep.json: what a folder's sweep is of, and was


def with_earlier(cells: Sequence[Cell], folder: Path) -> list[Cell]:
    """Return a grid's cells, and after them others that the folder's record lists.

    Raises:
        InputError: the folder's record can't be read.
    """
    by_label = {cell.label: cell for cell in cells}
    for cell in read_cells(folder):
        by_label.setdefault(cell.label, replace(cell, present=False))
    return list(by_label.values())


def read_cells(folder: Path) -> list[Cell]:
    """Return the cells that a folder's record lists; none without one.

    Raises:
        InputError: the record can't be read, or is of another version.
    """
    path = folder / RECORD_FILE
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if (record["schema"], record["schema_version"]) != (SCHEMA, SCHEMA_VERSION):
            raise ValueError("of another version")
        return [Cell(**cell) for cell in record["cells"]]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} is no record of a sweep ({error}); move it away, the runs stay"
        ) from error


def write_record(sweep: Sweep) -> None:
    """Write `sweep.json`, whole or not at all.

    Raises:
        InputError: it can't be written.
    """
    record = {"schema": SCHEMA, "schema_version": SCHEMA_VERSION}
    record |= {name: getattr(sweep, name) for name in _OF_SWEEP}
    cells = [{name: getattr(cell, name) for name in _OF_CELL} for cell in sweep.cells]
    try:
        write_json(sweep.folder / RECORD_FILE, record | {"cells": cells})
    except OSError as error:
        raise InputError(f"can't write {error.filename}: {error.strerror}") from error


def _as_on_disk(cells: Sequence[Cell], folder: Path) -> list[Cell]:
    """Return cells, those that an earlier grid called otherwise by its name for them.

    A cell is known by its config, so a grid may be edited: what is finished stays where
    it lies, and is not run again.
    """
    known: dict[str, str] = {}
    for cell in read_cells(folder):
        for seed in range(cell.seeds):
            try:
                config = workdirs.load_config(folder / cell.label / f"seed{seed}")
            except InputError:  # not begun, or not to be gone on with
                continue
            known.setdefault(_identity(config), cell.label)
            break
    return [
        cell
        if (folder / cell.label).exists()
        else replace(cell, label=known.get(_identity(cell.config), cell.label))
        for cell in cells
    ]


def _identity(config: ConfigDict) -> str:
    """Return a digest of all that a run's figures depend on, but for the seed."""
    facts = workdirs.whole_facts(config) | {"seed": None}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
