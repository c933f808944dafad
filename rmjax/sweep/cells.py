"""The cells of a sweep: each a config, checked before any of them is run."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import jax
from ml_collections import ConfigDict

from rmjax.data.dataset import check_every_source
from rmjax.errors import InputError
from rmjax.experiment.build import (
    build_augment,
    build_model,
    build_optimizer,
    build_step,
    network_input,
)
from rmjax.experiment.config import flatten, load_config
from rmjax.experiment.data import ExperimentData, open_data
from rmjax.experiment.run import whole_facts
from rmjax.sweep.grid import expand, parse_grid, read_value, split
from rmjax.sweep.grids import Alternative
from rmjax.training.fit import check_fit
from rmjax.training.train import check_settings, count_steps


@dataclass(frozen=True, eq=False)  # told apart by identity
class Cell:
    """One point of a grid.

    Attributes:
        label: its name, and that of its folder.
        changes: what it changes of the sweep's config, by key.
        config: the whole config, but for the seed.
        steps: of an epoch of its training.
    """

    label: str
    changes: dict[str, object]
    config: ConfigDict
    steps: int


def make_cells(
    name: str, grid: str, changes: Sequence[str] = (), data_dir: str | None = None
) -> list[Cell]:
    """Return the cells of a grid, in its order.

    What can be built without a device is built, so that a cell that could not start is
    known before the first one does.

    Args:
        name: of a config, as for `load_config`.
        grid: see `rmjax.sweep.grid.parse_grid`.
        changes: arguments such as `--config.num_epochs=3`, of all cells.
        data_dir: folder of the data sets; None: as in the config.

    Raises:
        InputError: the grid, a config or the data can't be used as they are, or two
            cells are one.
    """
    base = load_config(name, changes)
    if data_dir:
        base.data.dir = data_dir
    points = expand(parse_grid(grid, base, name))
    _check_changes(changes, points)
    configs = [_configure(base, point) for point in points]
    _check_different(points, configs)
    opened: dict[str, ExperimentData] = {}
    cells = []
    for point, config in zip(points, configs, strict=True):
        try:
            steps = _check(config, opened)
        except InputError as error:
            raise InputError(f"cell {point.label}: {error}") from error
        cells.append(Cell(point.label, point.changes, config, steps))
    return cells


def find_reference(cells: Sequence[Cell], text: str | None, name: str) -> Cell:
    """Return the cell that others are compared with.

    Args:
        cells: of the grid.
        text: a cell's label, or values that one cell alone has, such as
            `mix.name=none,mix.level=5`; None: the first cell.
        name: of the config, for messages.

    Raises:
        InputError: no cell, or several, are so.
    """
    if text is None:
        return cells[0]
    found = [cell for cell in cells if cell.label == text]
    if not found:
        wanted = {}
        for part in split(text, ","):
            key, equals, value = part.strip().partition("=")
            if equals and key in flatten(cells[0].config):
                wanted[key] = read_value(key, value, cells[0].config, name)
            else:
                wanted[part] = None  # no cell has it
        found = [c for c in cells if wanted.items() <= flatten(c.config).items()]
    if len(found) != 1:
        raise InputError(
            f"reference '{text}' is {len(found) or 'none'} of the cells; give one of "
            + ", ".join(cell.label for cell in cells)
        )
    return found[0]


def _configure(base: ConfigDict, point: Alternative) -> ConfigDict:
    config = base.copy_and_resolve_references()
    config.update_from_flattened_dict(point.changes)
    return config


def _check_changes(changes: Sequence[str], points: Sequence[Alternative]) -> None:
    """Check that no key of `--config.KEY=VALUE` is the sweep's own, or the grid's."""
    for change in changes:
        key = change.removeprefix("--config.").partition("=")[0]
        if key == "seed":
            raise InputError(f"{change}: seeds are set by --seeds; leave it out")
        if any(key in point.changes for point in points):
            raise InputError(f"{change}: the grid changes {key} too; leave one out")


def _check_different(
    points: Sequence[Alternative], configs: Sequence[ConfigDict]
) -> None:
    """Check that no two cells are the same run or lie in the same folder."""
    runs: dict[str, str] = {}
    folders: dict[str, str] = {}
    for point, config in zip(points, configs, strict=True):
        words = ", ".join(f"{key}={value}" for key, value in point.changes.items())
        text = json.dumps(whole_facts(config), sort_keys=True)
        # Some file systems know no capitals.
        for seen, key, what in (
            (runs, text, "would be the same run"),
            (folders, point.label.casefold(), "would share a folder"),
        ):
            if key in seen:
                raise InputError(f"grid: two cells {what}: {seen[key]} and {words}")
            seen[key] = words


def _check(config: ConfigDict, opened: dict[str, ExperimentData]) -> int:
    """Build what a run of the config would, without a device; return steps an epoch."""
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
    return steps
