"""Files that are whole or not there at all."""

import csv
import io
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from etils import epath

from rmjax.errors import InputError


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        InputError: the file can't be read, is damaged, or holds something else.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror})") from error
    except ValueError as error:  # of JSON's grammar, or of UTF-8
        raise InputError(f"{path}: damaged ({error})") from error
    if not isinstance(data, dict):
        raise InputError(f"{path}: damaged (no JSON object)")
    return data


def write_json(path: Path, data: dict[str, Any]) -> None:
    """Write `data` as indented JSON, whole or not at all.

    Raises:
        ValueError: a number is not finite, which JSON has no word for.
    """
    replace_text(path, json.dumps(data, indent=2, allow_nan=False) + "\n")


def write_csv(path: Path, columns: Iterable[str], rows: Iterable[dict]) -> None:
    """Write rows by column as a table, whole or not at all; None and gaps are empty."""
    table = io.StringIO()
    writer = csv.DictWriter(table, list(columns), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    replace_text(path, table.getvalue())


def replace_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all; an OSError names it."""
    replace_bytes(path, text.encode())


def replace_bytes(path: Path, data: bytes) -> None:
    """Write a file, whole or not at all; an OSError names it."""
    with replaced(path) as scratch:
        scratch.write_bytes(data)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a path to write to, as `replaced` does.

    Raises:
        InputError: it can't be written.
    """
    try:
        with replaced(path) as scratch:
            yield scratch
    except OSError as error:
        raise InputError(f"can't write to {path}: {error.strerror}") from error


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """Give a path to write to, which becomes `path` at the end, or is removed.

    An OSError of the block names `path`.
    """
    scratch = path.with_name(f".{path.name}.part")
    try:
        yield scratch
        scratch.replace(path)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    finally:
        with suppress(OSError):  # what failed may be the folder
            scratch.unlink(missing_ok=True)


def remove_folder(folder: Path) -> None:
    """Remove a folder with all that is in it, if it is there."""
    if folder.exists():
        epath.Path(folder).rmtree()


def check_writable(folder: Path) -> None:
    """Check, without making it, that a folder can be made and written to.

    Raises:
        InputError: it can't.
    """
    there = folder.absolute()
    while not os.path.exists(there):  # also false where a folder above can't be read
        there = there.parent
    if not there.is_dir():
        raise InputError(f"can't write to {folder}: {there} is not a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise InputError(f"can't write to {folder}: no permission in {there}")
