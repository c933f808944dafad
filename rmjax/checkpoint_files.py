"""One checkpoint on disk: the one file that says orbax.

Beside the arrays stands what they should be: `write` compares after writing, and
`read` whenever it reads, so that a damaged checkpoint is never taken for a good one.
"""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from rmjax.digest import (
    Digest,
    digest,
    first_difference,
    is_sealed,
    named_leaves,
    seal,
)
from rmjax.errors import InputError

PyTree = Any


class DamagedCheckpoint(InputError):
    """A checkpoint can't be read, or holds other numbers than were saved."""


def write(
    path: Path, arrays: PyTree, progress: dict[str, Any], validation_loss: float | None
) -> None:
    """Write a checkpoint, read it back and compare it.

    Args:
        path: its folder, which appears when it is whole.
        arrays: NumPy arrays to save.
        progress: anything that JSON can hold.
        validation_loss: that of the arrays, if it is known.

    Raises:
        DamagedCheckpoint: it does not read back the same.
        Exception: whatever Orbax and the system raise where it can't be written.
    """
    about = {
        "progress": progress,
        "validation_loss": validation_loss,
        "leaves": digest(named_leaves(arrays)),
    }
    args = ocp.args.Composite(
        state=ocp.args.PyTreeSave(arrays), progress=ocp.args.JsonSave(seal(about))
    )
    with _orbax() as orbax:
        orbax.save(path.absolute(), args=args)
    if describe(path) != about:
        raise _damaged(path, "its progress is not what was saved")
    read(path, arrays, about["leaves"])


def describe(path: Path) -> dict[str, Any]:
    """Return `progress`, `validation_loss` and the `leaves`' digest of a checkpoint.

    Raises:
        DamagedCheckpoint: they can't be read, or are not what was saved.
    """
    args = ocp.args.Composite(progress=ocp.args.JsonRestore())
    with _reading(path) as orbax:
        about = orbax.restore(path.absolute(), args=args)["progress"]
        if not {"leaves", "crc32"} & about.keys():
            return _describe_without_digest(orbax, path.absolute(), about)
        if not is_sealed(about):
            raise ValueError("its progress is not what was saved")
    return {name: value for name, value in about.items() if name != "crc32"}


def read(path: Path, like: PyTree, leaves: Digest) -> PyTree:
    """Return NumPy arrays of a checkpoint.

    Args:
        path: its folder.
        like: the structure that is wanted; may be a part of what was saved.
        leaves: of these arrays, from `describe`.

    Raises:
        DamagedCheckpoint: they can't be read, or are not what was saved.
    """
    as_numpy = ocp.RestoreArgs(restore_type=np.ndarray)
    args = ocp.args.PyTreeRestore(
        item=like,
        restore_args=jax.tree.map(lambda _: as_numpy, like),
        partial_restore=True,
    )
    with _reading(path) as orbax:
        args = ocp.args.Composite(state=args)
        arrays = orbax.restore(path.absolute(), args=args)["state"]
    known = {name: entry for name, entry in leaves.items() if entry[2] is not None}
    name = first_difference(known, digest(named_leaves(arrays))) if known else None
    if name is not None:
        raise _damaged(path, f"{name} holds other numbers than were saved")
    return arrays


def reason(error: Exception) -> str:
    """Say in a few words what Orbax, TensorStore or the system complains of."""
    text = f"{error} {error.__cause__ or ''}"
    if any(words in text for words in _FULL):
        return "no room left on the disk"
    lines = str(error).strip().splitlines() or [repr(error)]
    return lines[0][:200]


_FULL = ("No space left", "Disk quota", "File too large")


def _describe_without_digest(
    orbax: ocp.Checkpointer, path: Path, progress: dict
) -> dict[str, Any]:
    """Describe a checkpoint of an rmjax that wrote none: shapes alone are known."""
    metrics = path / "metrics" / "metrics"
    loss = None
    if metrics.exists():
        loss = json.loads(metrics.read_text())["validation_loss"]
    tree = orbax.metadata(path).item_metadata["state"].tree
    leaves = named_leaves(tree).items()
    return {
        "progress": progress,
        "validation_loss": loss,
        "leaves": {name: [None, list(leaf.shape), None] for name, leaf in leaves},
    }


@contextmanager
def _orbax() -> Iterator[ocp.Checkpointer]:
    """Yield what reads and writes, its log silenced below errors."""
    handler = ocp.CompositeCheckpointHandler(
        state=ocp.PyTreeCheckpointHandler(), progress=ocp.JsonCheckpointHandler()
    )
    log = logging.getLogger("absl")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with ocp.Checkpointer(handler) as orbax:
            yield orbax
    finally:
        log.setLevel(level)


@contextmanager
def _reading(path: Path) -> Iterator[ocp.Checkpointer]:
    """Yield what reads; whatever it raises becomes a DamagedCheckpoint."""
    try:
        with _orbax() as orbax:
            yield orbax
    except (MemoryError, PermissionError):
        raise
    except Exception as error:
        raise _damaged(path, reason(error)) from error


def _damaged(path: Path, what: str) -> DamagedCheckpoint:
    return DamagedCheckpoint(f"checkpoint {path} is damaged: {what}")
