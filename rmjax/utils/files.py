"""Files that are whole or not there at all."""

import csv
import errno
import io
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rmjax.errors import InputError
from rmjax.utils.places import as_path, filesystem, is_remote, reason


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        InputError: the file can't be read, is damaged, or holds something else.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: can't be read ({reason(error)})") from error
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
        raise InputError(f"can't write to {path}: {reason(error)}") from error


@contextmanager
def replaced(path: Path, *, alone: bool = True) -> Iterator[Path]:
    """Give a path to write to, which becomes `path` at the end, or is removed.

    Others that write the same at the same time (not `alone`) get another one; what a
    kill leaves of it is not overwritten then.

    For a store it is written to a temporary file here, and then sent. An OSError of the
    block names `path`.
    """
    try:
        if is_remote(path):
            with TemporaryDirectory(prefix="rmjax-") as folder:
                scratch = Path(folder, path.name)
                yield scratch
                send(scratch, path)
            return
        tag = "" if alone else f".{uuid.uuid4().hex[:8]}"
        scratch = path.with_name(f".{path.name}{tag}.part")
        try:
            yield scratch
            scratch.replace(path)
        finally:
            with suppress(OSError):  # what failed may be the folder
                scratch.unlink(missing_ok=True)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error


def send(file: Path, place: Path) -> None:
    """Copy a file of this machine to a store, whole or not at all.

    Raises:
        OSError: it refuses that, or can't be asked; names `place`.
    """
    system, name = filesystem(place)
    try:
        system.put_file(str(file), name)
    except Exception as error:  # each store's package has its own
        raise OSError(errno.EIO, reason(error), str(place)) from error


@contextmanager
def fetched(place: Path) -> Iterator[Path]:
    """Give a copy of a store's file on this machine until the end of the block.

    Raises:
        InputError: it can't be read.
    """
    system, name = filesystem(place)
    with TemporaryDirectory(prefix="rmjax-") as folder:
        try:
            system.get_file(name, str(Path(folder, place.name)))
        except Exception as error:  # each store's package has its own
            raise InputError(f"{place}: {reason(error)}") from error
        yield Path(folder, place.name)


def remove_file(path: Path) -> None:
    """Remove a file, if it is there."""
    if is_remote(path):
        system, name = filesystem(path)
        with suppress(FileNotFoundError):
            system.rm_file(name)  # not `rm`, which takes brackets for a pattern
    else:
        path.unlink(missing_ok=True)


def remove_tree(folder: Path) -> None:
    """Remove a folder with all that is in it, as far as there is one."""
    if not is_remote(folder):
        shutil.rmtree(folder, ignore_errors=True)
        return
    system, name = filesystem(folder)
    for file in system.find(name):
        system.rm_file(file)


def move_folder(folder: Path, target: Path) -> None:
    """Give a folder another name; in a store file by file."""
    if not is_remote(folder):
        folder.rename(target)
        return
    system, name = filesystem(folder)
    _, new = filesystem(target)
    for file in system.find(name):
        system.cp_file(file, new + file.removeprefix(name))
    remove_tree(folder)


def check_writable(folder: Path) -> None:
    """Check, without making it, that a folder can be made and written to.

    Of a store only that it is there: it may still refuse what is written.

    Raises:
        InputError: it can't.
    """
    if is_remote(folder):
        as_path(folder)
        if re.search(r"[*?\[\]]", str(folder)):  # fsspec takes them for patterns
            raise InputError(f"{folder}: give an address without any of * ? [ ]")
        return
    there = folder.absolute()
    while not os.path.exists(there):  # also false where a folder above can't be read
        there = there.parent
    if not there.is_dir():
        raise InputError(f"can't write to {folder}: {there} is not a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise InputError(f"can't write to {folder}: no permission in {there}")
