"""The labels of a split's records, kept beside them to be had without reading them all."""

import hashlib
import os
import tempfile
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from rmjax.data.shards import Records
from rmjax.utils.files import replaced
from rmjax.utils.places import is_remote, open_bytes

# `group` is a hash of the name: equal where images belong together.
TYPES = {"source": np.int32, "semantic": np.int32, "group": np.int64}
CHUNK = 256  # records a call: one at a time is slower


def load_labels(
    directory: Path, split: str, length: int
) -> dict[str, np.ndarray] | None:
    """Return what `save_labels` left, or None where that is nothing to be used."""
    try:
        with open_bytes(_file(directory, split)) as file, np.load(file) as stored:
            labels = {name: stored[name] for name in TYPES}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    return labels if all(len(part) == length for part in labels.values()) else None


def read_labels(records: Records, description: str) -> dict[str, np.ndarray]:
    """Read the labels of all records, arrays of `TYPES`."""
    labels = {name: np.empty(len(records), kind) for name, kind in TYPES.items()}
    starts = range(0, len(records), CHUNK)
    for start in tqdm(starts, description, unit=f"x{CHUNK}", delay=2, leave=False):
        numbers = list(range(start, min(start + CHUNK, len(records))))
        for number, record in zip(numbers, records.__getitems__(numbers), strict=True):
            for name, values in labels.items():
                value = record[name]
                values[number] = hash_name(value) if name == "group" else value
    return labels


def hash_name(name: bytes) -> int:
    """Return 64 bits of the SHA-256 of a group's name, as a signed integer."""
    return int.from_bytes(hashlib.sha256(name).digest()[:8], "little", signed=True)


def save_labels(directory: Path, split: str, labels: Mapping[str, Any]) -> None:
    """Leave the labels of a split beside its records, for `load_labels`.

    The file is written in one piece; without write access it is just not there.
    """
    if is_remote(directory):
        with suppress(OSError), replaced(_file(directory, split)) as path:
            np.savez(path, **labels)
        return
    try:
        handle, scratch = tempfile.mkstemp(dir=directory, prefix=".labels")
    except OSError:
        return
    try:
        with os.fdopen(handle, "wb") as stream:
            np.savez(stream, **labels)
        os.chmod(scratch, 0o644)  # mkstemp lets nobody else read it
        os.replace(scratch, _file(directory, split))
    except OSError:  # such as a full disk: the labels are still in memory
        Path(scratch).unlink(missing_ok=True)


def _file(directory: Path, split: str) -> Path:
    return directory / f"labels-{split}.npz"
