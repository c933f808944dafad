"""Files that are whole or not there at all."""

import json
import os
from contextlib import suppress
from pathlib import Path

from rmjax.errors import InputError


def write_json(path: Path, data: dict) -> None:
    """Write `data` as indented JSON, whole or not at all.

    Raises:
        ValueError: a number is not finite, which JSON has no word for.
    """
    replace_text(path, json.dumps(data, indent=2, allow_nan=False) + "\n")


def replace_text(path: Path, text: str) -> None:
    """Write a file, whole or not at all; an OSError names it."""
    temporary = path.with_name(path.name + ".part")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error


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
