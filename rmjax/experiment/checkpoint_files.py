"""One checkpoint on disk: the one file that says orbax.

Beside the arrays stands what they should be: `write` compares after writing, and
`read` whenever it reads, so that a damaged checkpoint is never taken for a good one.
"""

import gc
import logging
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import tensorstore as ts

from rmjax.errors import InputError
from rmjax.experiment.digest import (
    Digest,
    Leaves,
    digest,
    first_difference,
    is_sealed,
    named_leaves,
    seal,
)

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
        orbax.save(path.resolve(), args=args)
    if describe(path) != about:
        raise _damaged(path, "its progress is not what was saved")
    read(path, arrays, about["leaves"])


def describe(path: Path) -> dict[str, Any]:
    """Return `progress`, `validation_loss` and the `leaves`' digest of a checkpoint.

    Raises:
        DamagedCheckpoint: they can't be read, or are not what was saved.
    """
    args = ocp.args.Composite(progress=ocp.args.JsonRestore())
    with _damage(path), _orbax() as orbax:
        about = orbax.restore(path.resolve(), args=args)["progress"]
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
    with _damage(path):
        arrays = _read_arrays(path, named_leaves(like))
    name = first_difference(leaves, digest(arrays))
    if name is not None:
        raise _damaged(path, f"{name} holds other numbers than were saved")
    return jax.tree.unflatten(jax.tree.structure(like), arrays.values())


def reason(error: Exception) -> str:
    """Say in a few words what Orbax, TensorStore or the system complains of."""
    text = f"{error} {error.__cause__ or ''}"
    if any(words in text for words in _FULL):
        return "no room left on the disk"
    lines = str(error).strip().splitlines() or [repr(error)]
    return lines[0][:200]


_FULL = ("No space left", "Disk quota", "File too large")


def _read_arrays(path: Path, names: Iterable[str]) -> Leaves:
    """Read arrays of a checkpoint.

    By TensorStore, as Orbax does: with it, an array that can't be read leaves the
    reading of others to threads that print tracebacks.
    """
    files = {"driver": "file", "path": f"{path.resolve() / 'state'}/"}
    context = ts.Context()
    opened = {
        name: ts.open(
            {
                "driver": "zarr",
                "kvstore": {
                    "driver": "ocdbt",
                    "base": files,
                    "path": name.replace("/", ".") + "/",
                },
            },
            open=True,
            context=context,
        )
        for name in names
    }
    reading = {name: _result(name, store).read() for name, store in opened.items()}
    return {name: np.asarray(_result(name, read)) for name, read in reading.items()}


def _result(name: str, future: ts.Future) -> Any:
    try:
        return future.result()
    except ValueError as error:  # a code, what was asked, where, why
        code = str(error).partition(":")[0]
        raise ValueError(f"{name} can't be read ({code})") from error


@contextmanager
def _orbax() -> Iterator[ocp.Checkpointer]:
    """Yield what reads and writes; its log is silenced, for errors are raised too."""
    # Alone, whatever other processes do: there is nothing that they would have to add.
    me = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(me, {me}, f"process{me}")
    handler = ocp.CompositeCheckpointHandler(
        composite_options=ocp.CompositeOptions(multiprocessing_options=alone),
        state=ocp.PyTreeCheckpointHandler(
            use_ocdbt=True, use_zarr3=False, multiprocessing_options=alone
        ),
        progress=ocp.JsonCheckpointHandler(multiprocessing_options=alone),
    )
    levels = {log: log.level for log in map(logging.getLogger, ("absl", "asyncio"))}
    for log in levels:
        log.setLevel(logging.CRITICAL)
    hook = sys.unraisablehook
    sys.unraisablehook = partial(_unless_loop_closed, hook)
    try:
        with ocp.Checkpointer(handler, multiprocessing_options=alone) as orbax:
            yield orbax
        sys.unraisablehook = hook  # after an error, some threads are still at work
    except Exception:
        gc.collect()  # futures complain when they are freed: now, silenced
        raise
    finally:
        for log, level in levels.items():
            log.setLevel(level)


def _unless_loop_closed(hook: Callable, unraisable: Any) -> None:
    """Pass on what can't be raised, but for what TensorStore's threads meet.

    When one array can't be written, Orbax ends the event loop that the threads at
    work on others want to report to: a traceback for each of a network's arrays.
    """
    if "Event loop is closed" not in str(unraisable.exc_value):
        hook(unraisable)


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    """Turn whatever is raised while reading into a DamagedCheckpoint."""
    try:
        yield
    except (MemoryError, PermissionError):
        raise
    except Exception as error:
        raise _damaged(path, reason(error)) from error


def _damaged(path: Path, what: str) -> DamagedCheckpoint:
    return DamagedCheckpoint(f"checkpoint {path} is damaged: {what}")
