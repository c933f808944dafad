"""Planning a sweep: its cells are read, checked before any is run, and remembered."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import jax
from ml_collections import ConfigDict

from rmjax.data.dataset import check_every_source
from rmjax.errors import InputError
from rmjax.evaluation.robustness import check_conditions, parse_suite
from rmjax.experiment import run as workdirs
from rmjax.experiment.build import (
    build_augment,
    build_input,
    build_model,
    build_optimizer,
)
from rmjax.experiment.config import flatten, load_config
from rmjax.experiment.data import ExperimentData, check_validation, open_data
from rmjax.losses import get_loss
from rmjax.sweep.grid import read_grid, read_value, split
from rmjax.sweep.runs import Cell, Run, Sweep, configure, look_at
from rmjax.training.fit import STEP, check_fit
from rmjax.training.train import check_settings, count_steps
from rmjax.utils.files import write_json

RECORD_FILE = "sweep.json"
SCHEMA, SCHEMA_VERSION = "rmjax-sweep", 1
# What the record says of the sweep and of each of its cells.
_OF_SWEEP = ("config", "changes", "grid", "seeds", "suite", "reference", "command")
_OF_CELL = ("label", "changes", "seeds", "present")


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
    conditions = parse_suite(sweep.suite)
    base = load_config(sweep.config, sweep.changes)
    if sweep.data_dir:
        base.data.dir = sweep.data_dir
    cells = [
        Cell(label, changes, sweep.seeds, True, configure(base, changes))
        for label, changes in read_grid(sweep.grid, base, sweep.config)
    ]
    _check_changes(sweep.changes, cells)
    cells = _as_on_disk(cells, sweep.folder)
    _check_different(cells)
    for cell in cells:
        check_conditions(cell.config, conditions)
    opened: dict[str, ExperimentData] = {}
    cells = [replace(cell, steps=_count_steps(cell, opened)) for cell in cells]
    reference = find_reference(cells, sweep.reference, sweep.config).label
    cells = with_earlier(cells, sweep.folder)
    sweep = replace(sweep, reference=reference, cells=cells)
    look_at(sweep.runs, Run.check_workdir)
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


# ------------------------------------------------------------------------ checks of cells


def _check_changes(changes: Sequence[str], cells: Sequence[Cell]) -> None:
    """Check that no key of `--config.KEY=VALUE` is the sweep's own, or the grid's."""
    for change in changes:
        key = change.removeprefix("--config.").partition("=")[0]
        if key == "seed":
            raise InputError(f"{change}: seeds are set by --seeds; leave it out")
        if any(key in cell.changes for cell in cells):
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
        opened: the data opened before, by what a config says of it; grows.

    Raises:
        InputError: something can't be used as it is; the cell is named.
    """
    config = cell.config
    try:
        if not get_loss(config.loss).attributes:
            raise InputError(
                f"loss = '{config.loss}': a sweep compares attributions, and a network "
                "without heads makes none"
            )
        about = json.dumps(flatten(config.data), sort_keys=True)
        if about not in opened:
            opened[about] = open_data(config)
            check_every_source(opened[about].seen, "train")
            check_validation(config, opened[about])
        data = opened[about]
        build_augment(config)
        build_input(config)
        if config.fit.name:
            check_fit(config, len(data.sources), data.seen.size("train"))
            return STEP
        # As many as are asked for: which there are is known where the run starts.
        devices = jax.local_devices()[:1] * max(config.num_devices, 1)
        steps = count_steps(config, data, check_settings(config, devices))
        build_model(config, len(data.sources))
        build_optimizer(config, steps)
        return config.num_epochs * steps
    except InputError as error:
        raise InputError(f"cell {cell.label}: {error}") from error


# -------------------------------------- sweep.json: what a folder's sweep is of, and was of


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
    """Return cells, with the labels of those that lie in the folder under another one.

    A cell is known by its config, so that a grid may be edited: what is finished stays
    where it is, and is not run again.
    """
    known: dict[str, str] = {}
    for cell in read_cells(folder):
        for seed in range(cell.seeds):
            try:
                config = workdirs.load_run_config(folder / cell.label / f"seed{seed}")
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
