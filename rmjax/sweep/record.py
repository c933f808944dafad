"""`sweep.json`: what a folder's sweep is of, and what it was of before."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rmjax.errors import InputError
from rmjax.sweep.cells import Cell
from rmjax.utils.files import write_json

RECORD_FILE = "sweep.json"
SCHEMA, SCHEMA_VERSION = "rmjax-sweep", 1


@dataclass(frozen=True)
class Entry:
    """A cell as it is remembered.

    Attributes:
        label: name of the cell and its folder.
        changes: what it changes of the config, by key.
        seeds: how many it was run with, from 0 on.
        present: whether it is part of the grid that was given last.
    """

    label: str
    changes: dict[str, object]
    seeds: int
    present: bool


@dataclass(frozen=True)
class Record:
    """What a sweep is of.

    Attributes:
        config: name or path.
        changes: `--config.KEY=VALUE` of all cells.
        grid: its text.
        seeds: how many, from 0 on.
        suite: of the evaluations.
        reference: label of the cell that others are compared with.
        command: what was run.
        cells: those of the grid, in its order, then those of earlier grids.
    """

    config: str
    changes: tuple[str, ...]
    grid: str
    seeds: int
    suite: str
    reference: str
    command: str
    cells: tuple[Entry, ...]


def list_cells(cells: Sequence[Cell], seeds: int, sweep: Path) -> tuple[Entry, ...]:
    """Return the cells of a grid, and after them those of earlier grids in the folder.

    Raises:
        InputError: the folder's record can't be read.
    """
    own = [Entry(c.label, _plain(c.changes), seeds, True) for c in cells]
    return with_earlier(own, sweep)


def with_earlier(present: Sequence[Entry], sweep: Path) -> tuple[Entry, ...]:
    """Return the present cells, and after them others that the folder's record lists.

    Raises:
        InputError: the folder's record can't be read.
    """
    found = {entry.label: entry for entry in present}
    for entry in read_entries(sweep):
        found.setdefault(entry.label, Entry(**asdict(entry) | {"present": False}))
    return tuple(found.values())


def read_entries(sweep: Path) -> list[Entry]:
    """Return the cells that a folder's record lists; none without one.

    Raises:
        InputError: the record can't be read, or is of another version.
    """
    path = sweep / RECORD_FILE
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if (found["schema"], found["schema_version"]) != (SCHEMA, SCHEMA_VERSION):
            raise ValueError("of another version")
        return [Entry(**cell) for cell in found["cells"]]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} is no record of a sweep ({error}); move it away, the runs stay"
        ) from error


def write_record(sweep: Path, record: Record) -> None:
    """Write `sweep.json`, whole or not at all.

    Raises:
        InputError: it can't be written.
    """
    head = {"schema": SCHEMA, "schema_version": SCHEMA_VERSION}
    try:
        write_json(sweep / RECORD_FILE, head | asdict(record))
    except OSError as error:
        raise InputError(f"can't write {error.filename}: {error.strerror}") from error


def _plain(changes: dict[str, object]) -> dict[str, object]:
    """Return values as JSON gives them back."""
    return json.loads(json.dumps(changes))
