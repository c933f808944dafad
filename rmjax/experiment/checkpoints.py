"""The checkpoints of a run: saved in the background, verified, found again.

The one file that says orbax. Its `CheckpointManager` writes while the training goes on,
lets a checkpoint appear when it is whole, and removes what is no longer wanted. How a
checkpoint lies in a file is ours, see `_Handler`: Orbax's own format (0.12.8) hands out
flipped bits as numbers, commits empty checkpoints in a folder with brackets in its path
(it looks for its parts by a glob pattern), and prints a traceback for every array that a
full disk has no room for.
"""

import io
import json
import logging
import math
import zipfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from numpy.lib import format as npy

from rmjax.errors import InputError, TrainingError
from rmjax.experiment import hosts
from rmjax.experiment.step import TrainState
from rmjax.utils.files import move_folder, remove_file, remove_tree, replaced
from rmjax.utils.places import absolute, is_remote, open_bytes, reason

KEEP_LAST = 2  # a damaged newest one then costs the steps since the one before

PyTree = Any
Arrays = dict[str, np.ndarray]  # by path, such as params/stem/kernel

logger = logging.getLogger(__name__)

# What Orbax logs as an error, with tracebacks, it raises as well. (The `rmjax` command
# silences all of absl's log, which it names before absl makes it one that knows callers.)
logging.getLogger("absl").addFilter(
    lambda record: not record.pathname.startswith(str(Path(ocp.__file__).parent))
)


class DamagedCheckpoint(InputError):
    """A checkpoint can't be read, or holds other numbers than were saved."""


class Checkpoints:
    """The checkpoints of one run: the best by validation loss, and the last two.

    Writing goes on in the background: write, read back, compare, and only then let it
    appear and remove what is no longer wanted. With each goes the training loop's own
    small progress. Of several processes, which all hold the same state, the first
    writes.
    """

    def __init__(self, folder: Path, keep_best: int = 10, read_only: bool = False):
        """Open `folder` (made unless `read_only`); keep the `keep_best` best.

        Raises:
            InputError: it can't be made.
        """
        self.folder, self.keep_best = folder, keep_best
        self._read_only = read_only or not hosts.is_first()
        self._losses: dict[int, float | None] = {}
        self._saving = 0
        if not self._read_only:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise InputError(f"can't write {folder}: {reason(error)}") from error
        self._manager = self._open()
        if not self._read_only:
            for step in self.steps():
                try:
                    self._losses[step] = self._loss(step)
                except DamagedCheckpoint as error:
                    self._set_aside(step, error)

    def save(
        self,
        state: TrainState,
        progress: dict[str, Any],
        validation_loss: float | None = None,
        *,
        pending: bool = False,
    ) -> None:
        """Write `state` and `progress` as the checkpoint of the state's step.

        Returns when the state is copied; `wait` waits until it is on disk and
        verified.

        Args:
            state: what to save.
            progress: anything that JSON can hold.
            validation_loss: ranks it among the best; None leaves it unranked.
            pending: whether `rank` will follow.

        Raises:
            TrainingError: the save before this one failed, or the loss is not finite.
        """
        step = int(state.step)
        _check_loss(validation_loss, step)
        self._save(step, state, _describe(progress, validation_loss, pending))

    def save_variables(self, variables: PyTree, step: int = 0) -> None:
        """Write `params` and `batch_stats` alone, as a checkpoint."""
        self._save(step, variables, _describe({}, None))

    def rank(self, step: int, progress: dict[str, Any], validation_loss: float) -> None:
        """Note what a validation made of the checkpoint `step`, which was pending.

        Args:
            step: that of the last `save`.
            progress: takes the place of the one that was saved.
            validation_loss: ranks the checkpoint among the best.

        Raises:
            TrainingError: the save failed, this can't be written, or the loss is not
                finite.
        """
        _check_loss(validation_loss, step)
        if self._read_only:
            return
        self.wait()
        about = _describe(progress, validation_loss)
        with self._writing():
            _write_archive(self.folder / str(step) / _RANK, {}, about)
        self._losses[step] = validation_loss
        self._remove_unwanted()

    def is_pending(self, step: int) -> bool:
        """Tell whether checkpoint `step` was to be validated and is not.

        Raises:
            DamagedCheckpoint: it is not what was saved.
        """
        return self._about(step)["pending"]

    def steps(self) -> list[int]:
        """Return the steps of all checkpoints, ascending."""
        return saved_steps(self.folder)

    def last_step(self) -> int | None:
        """Return the step of the newest checkpoint, None when there is none."""
        return max(self.steps(), default=None)

    def best_step(self) -> int | None:
        """Return the step with the least validation loss, or else the newest.

        Raises:
            DamagedCheckpoint: of one of them the loss can't be read.
        """
        losses = {}
        for step in self.steps():
            try:
                losses[step] = self._loss(step)
            except DamagedCheckpoint:
                if step in self.steps():  # not just removed by a training
                    raise
        return next(iter(_ranked(losses)), self.last_step())

    def restore(self, step: int, like: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """Return the state and progress of checkpoint `step`.

        Args:
            step: one of the checkpoints' steps.
            like: a state of the wanted shapes, types and placement, of arrays or of
                `jax.ShapeDtypeStruct`.

        Raises:
            DamagedCheckpoint: it is not what was saved.
            InputError: no such checkpoint, or one of another network.
        """
        return self.restore_variables(step, like), self.progress(step)

    def progress(self, step: int) -> dict[str, Any]:
        """Return what the training loop remembered with checkpoint `step`.

        Raises:
            DamagedCheckpoint: it is not what was saved.
        """
        return self._about(step)["progress"]

    def restore_last(
        self, like: TrainState
    ) -> tuple[TrainState, dict[str, Any]] | tuple[None, None]:
        """Return state and progress of the newest checkpoint that is not damaged.

        Those that are damaged are set aside, with a warning. None and None where
        there is none.

        Raises:
            InputError: it is of another network.
        """
        restored = None
        # The first process alone looks for it, and may rename what is damaged; the
        # others then read the one that it took.
        for step in reversed(self.steps() if hosts.is_first() else []):
            try:
                restored = self.restore(step, like)
                break
            except DamagedCheckpoint as error:
                self._set_aside(step, error)
        last: int | None = hosts.gather(restored and int(restored[0].step))[0]
        if last is None:
            return None, None
        return restored or self.restore(last, like)

    def restore_variables(self, step: int, like: PyTree) -> PyTree:
        """Return a part of checkpoint `step`, such as `params` and `batch_stats`.

        Args and errors as in `restore`, `like` being a dict of them.
        """
        if step not in self.steps():
            listed = ", ".join(map(str, self.steps())) or "none"
            raise InputError(
                f"no checkpoint {step} in {self.folder}: there are {listed}"
            )
        wanted = {n: list(leaf.shape) for n, leaf in named_leaves(like).items()}
        roots = {name.split("/")[0] for name in wanted}
        shapes = self._about(step)["shapes"]
        saved = {n: shape for n, shape in shapes.items() if n.split("/")[0] in roots}
        if saved != wanted:
            raise InputError(
                f"checkpoint {step} in {self.folder} is of another network: "
                + _difference(saved, wanted)
            )
        arrays, _ = self._read(step, wanted)
        return jax.tree.map(
            lambda x, to: jax.device_put(x.astype(to.dtype, copy=False), to.sharding),
            jax.tree.unflatten(jax.tree.structure(like), arrays.values()),
            like,
        )

    def check(self) -> None:
        """Raise what the background met, if anything, without waiting for it."""
        if not self._manager.is_saving_in_progress():
            self.wait()

    def wait(self) -> None:
        """Wait until what was saved is on disk, read back and compared.

        Raises:
            TrainingError: that failed; the checkpoints before stay.
        """
        with self._writing():
            self._manager.wait_until_finished()
        self._remove_unwanted()

    def close(self) -> None:
        """Wait, and end the background threads; errors as in `wait`."""
        try:
            self.wait()
        finally:
            self._manager.close()

    def _open(self) -> ocp.CheckpointManager:
        if not self._read_only:  # what a kill or a full disk left half-written
            for path in _unfinished(self.folder):
                remove_tree(path)
        me = jax.process_index()
        # Alone, whatever other processes do: there is nothing that they could add.
        alone = ocp.options.MultiprocessingOptions(me, {me}, f"process{me}")
        return ocp.CheckpointManager(
            absolute(self.folder),
            options=ocp.CheckpointManagerOptions(
                create=False,
                read_only=self._read_only,
                multiprocessing_options=alone,
                temporary_path_class=_COMMITTED if is_remote(self.folder) else None,
            ),
        )

    def _save(self, step: int, tree: PyTree, about: dict[str, Any]) -> None:
        if self._read_only:
            return
        self.wait()
        # Copied, for the next step is given the arrays' memory.
        leaves = named_leaves(jax.device_get(tree))
        arrays = {name: np.array(leaf) for name, leaf in leaves.items()}
        shapes = {name: list(leaf.shape) for name, leaf in arrays.items()}
        self._saving, self._losses[step] = step, about["validation_loss"]
        with self._writing():
            args = _Save(step, arrays, about | {"shapes": shapes})
            self._manager.save(step, args=args, force=True)

    def _remove_unwanted(self) -> None:
        """Remove all but the last and the best, once the last is verified."""
        if self._read_only:
            return
        kept = {*sorted(self._losses)[-KEEP_LAST:]}
        kept |= {*_ranked(self._losses)[: self.keep_best]}
        for step in self._losses.keys() - kept:
            if is_remote(self.folder):
                # Orbax (0.12.8) leaves it there, and says so in its log alone.
                remove_file(self.folder / str(step) / _COMMIT)
                remove_tree(self.folder / str(step))
                self._manager.reload()
            else:
                self._manager.delete(step)
            del self._losses[step]

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Turn what Orbax and the system raise into a TrainingError; tidy up."""
        try:
            yield
        except Exception as error:  # OSError, ValueError and others, as it happens
            step = self._saving
            self._losses.pop(step, None)
            with suppress(Exception):  # the same again
                self._manager.close()
            self._manager = self._open()  # removes what is half-written
            if isinstance(error, TrainingError):
                raise
            raise TrainingError(
                f"can't write checkpoint {step} to {self.folder}: {_reason(error)}; the "
                "ones before stay: make room, then run the same command again"
            ) from error

    def _about(self, step: int) -> dict[str, Any]:
        return self._read(step, ())[1]

    def _loss(self, step: int) -> float | None:
        about = self._about(step)
        if about["pending"] and step != self.last_step():  # training goes on after it
            raise DamagedCheckpoint(
                f"checkpoint {self.folder / str(step)} is damaged: {_RANK} is missing"
            )
        return about["validation_loss"]

    def _read(self, step: int, names: Collection[str]) -> tuple[Arrays, dict[str, Any]]:
        if (self.folder / str(step) / "state").exists():
            raise InputError(
                f"checkpoint {self.folder / str(step)} was saved by rmjax 0.1.0, in another "
                "format: use it with that version, or train anew in another workdir"
            )
        try:
            arrays, about = self._manager.restore(step, args=_Restore(names))
            rank = self.folder / str(step) / _RANK
            if rank.exists():
                about |= _read_archive(rank, ())[1]
            return arrays, about
        except MemoryError:
            raise
        except PermissionError as error:
            raise InputError(f"can't read {error.filename}: no permission") from error
        except Exception as error:  # whatever zipfile, json and NumPy raise
            raise DamagedCheckpoint(
                f"checkpoint {self.folder / str(step)} is damaged: {_reason(error)}"
            ) from error

    def _set_aside(self, step: int, error: DamagedCheckpoint) -> None:
        """Rename a checkpoint, so that it is none any more; nothing is deleted."""
        name, number = f"{step}.damaged", 2
        while (self.folder / name).exists():
            name, number = f"{step}.damaged-{number}", number + 1
        move_folder(self.folder / str(step), self.folder / name)
        self._losses.pop(step, None)
        self._manager.reload()
        logger.warning("%s; set aside as %s", error, name)


def saved_steps(folder: Path) -> list[int]:
    """Return the steps of all checkpoints, ascending; none where there is no folder."""
    entries = folder.iterdir() if folder.is_dir() else ()
    steps = [int(path.name) for path in entries if path.name.isdecimal()]
    if is_remote(folder):
        steps = [step for step in steps if (folder / str(step) / _COMMIT).exists()]
    return sorted(steps)


def _unfinished(folder: Path) -> Iterator[Path]:
    """Yield the folders of checkpoints that were begun and are not whole."""
    if not is_remote(folder):
        yield from folder.glob("*.orbax-checkpoint-tmp*")
    elif folder.is_dir():
        whole = {*map(str, saved_steps(folder))}
        yield from (
            p for p in folder.iterdir() if p.name.isdecimal() and p.name not in whole
        )


def load_variables(
    folder: Path, like: PyTree, which: str | int = "best"
) -> tuple[PyTree, int]:
    """Load a network's `params` and `batch_stats` from a folder of checkpoints.

    A damaged one is an error, which names one that is whole: what is measured must
    not change silently.

    Args:
        folder: where a run saved them.
        like: the two trees, of arrays or `jax.ShapeDtypeStruct`, as wanted.
        which: "best" by validation loss, "last", or a step.

    Returns:
        The variables and the step they are of.

    Raises:
        InputError: no such checkpoint, a damaged one, or one of another network.
    """
    checkpoints = Checkpoints(folder, read_only=True)
    step = checkpoints.last_step()
    if which not in ("best", "last") and not str(which).isdecimal():
        raise InputError(f"checkpoint '{which}': give best, last or a step")
    if step is None:
        raise InputError(f"no checkpoints in {folder.parent}: train there first")
    try:
        if which == "best":
            step = checkpoints.best_step() or step
        elif which != "last":
            step = int(which)
        return checkpoints.restore_variables(step, like), step
    except DamagedCheckpoint as error:
        whole = _newest_whole(checkpoints, like)
        advice = "train anew" if whole is None else f"{whole} is whole: name that step"
        raise InputError(f"{error}; {advice}") from error


def named_leaves(tree: PyTree) -> dict[str, Any]:
    """Map the path of every leaf to it, whatever classes the nodes are."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def first_not_finite(leaves: Mapping[str, Any]) -> str | None:
    """Name the first array of floats with an infinite entry or a NaN, or None."""
    names = (
        name
        for name, leaf in leaves.items()
        if jax.numpy.issubdtype(leaf.dtype, np.inexact) and not np.isfinite(leaf).all()
    )
    return next(names, None)


class _Handler(ocp.handlers.AsyncCheckpointHandler):
    """Writes a checkpoint as one NumPy archive, and reads it back before it counts.

    A ZIP archive has the CRC-32 of each of its members, which `zipfile` compares at
    every reading. That misses no change within 32 neighbouring bits, and of larger ones
    one in 2^32 (Peterson and Brown, "Cyclic Codes for Error Detection", 1961).
    """

    def save(self, directory: Path, args: "_Save") -> None:
        bad = first_not_finite(args.arrays)
        if bad is not None:
            raise _not_finite(f"{bad} is not finite", args.step)
        _write_archive(directory / _FILE, args.arrays, args.about)
        try:
            arrays, about = _read_archive(directory / _FILE, args.arrays)
            same = about == args.about and all(
                np.array_equal(arrays[name], saved)
                for name, saved in args.arrays.items()
            )
            reason = "" if same else "other numbers than were written"
        except Exception as error:
            reason = _reason(error)
        if reason:
            raise TrainingError(
                f"checkpoint {args.step} does not read back as it was written "
                f"({reason}); the ones before stay: check the disk, then run the same "
                "command again"
            )

    async def async_save(
        self, directory: Path, args: "_Save"
    ) -> list[ocp.future.Future]:
        # A coroutine which Orbax runs in a thread, once it has made the directory.
        async def write() -> None:
            self.save(directory, args)

        return [ocp.future.CommitFutureAwaitingContractedSignals(write())]

    def restore(
        self, directory: Path, args: "_Restore"
    ) -> tuple[Arrays, dict[str, Any]]:
        return _read_archive(directory / _FILE, args.names)


@ocp.args.register_with_handler(_Handler, for_save=True)
@dataclass
class _Save(ocp.args.CheckpointArgs):
    step: int
    arrays: Arrays
    about: dict[str, Any]  # anything that JSON can hold


@ocp.args.register_with_handler(_Handler, for_restore=True)
@dataclass
class _Restore(ocp.args.CheckpointArgs):
    names: Collection[str]  # of the arrays that are wanted


_FILE = "checkpoint.npz"
_RANK = "rank.npz"  # what a validation found, where that came after the save
_ABOUT = "about.json"
# A folder is renamed as a whole on disks, so that a checkpoint appears when it is whole.
# In a store it is whole when this file is there, which Orbax then writes last.
_COMMIT = ocp.path.atomicity.COMMIT_SUCCESS_FILE
_COMMITTED = ocp.path.atomicity.CommitFileTemporaryPath


def _write_archive(path: Path, arrays: Arrays, about: dict[str, Any]) -> None:
    # A file of our own: after a full disk, ZipFile would complain of its own once more.
    with (
        replaced(path) as scratch,
        scratch.open("wb") as file,
        zipfile.ZipFile(file, "w") as archive,
    ):
        archive.writestr(_ABOUT, json.dumps(about))
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                npy.write_array(member, array, allow_pickle=False)


def _read_archive(path: Path, names: Collection[str]) -> tuple[Arrays, dict[str, Any]]:
    with open_bytes(path) as file, zipfile.ZipFile(file) as archive:
        about, arrays = json.loads(archive.read(_ABOUT)), {}
        for name in names:
            # The whole member, not as much as its header says: so its CRC is compared.
            member = io.BytesIO(archive.read(f"{name}.npy"))
            arrays[name] = npy.read_array(member, allow_pickle=False)
    return arrays, about


def _newest_whole(checkpoints: Checkpoints, like: PyTree) -> int | None:
    """Return the newest step whose variables can be restored, None without any."""
    for step in reversed(checkpoints.steps()):
        with suppress(DamagedCheckpoint):
            checkpoints.restore_variables(step, like)
            return step
    return None


def _ranked(losses: Mapping[int, float | None]) -> list[int]:
    """Return the steps that have a loss, the best first."""
    known = {step: loss for step, loss in losses.items() if loss is not None}
    return sorted(known, key=lambda step: known[step])


def _describe(
    progress: dict[str, Any], validation_loss: float | None, pending: bool = False
) -> dict[str, Any]:
    return {
        "progress": progress,
        "validation_loss": validation_loss,
        "pending": pending,
    }


def _check_loss(loss: float | None, step: int) -> None:
    if loss is not None and not math.isfinite(loss):
        raise _not_finite(f"the validation loss is {loss}", step)


def _not_finite(what: str, step: int) -> TrainingError:
    return TrainingError(
        f"{what} after step {step}: training stopped, the last good checkpoint stays; "
        "try a smaller optim.lr"
    )


def _reason(error: Exception) -> str:
    """Say in a few words what Orbax or the system complains of."""
    text = f"{error} {error.__cause__ or ''}"
    if any(words in text for words in _FULL):
        return "no room left on the disk"
    return reason(error)


_FULL = ("No space left", "Disk quota", "File too large")


def _difference(saved: dict[str, list], wanted: dict[str, list]) -> str:
    """Say in a few words how two trees of shapes differ; they do."""
    names = [k for k in {**wanted, **saved} if saved.get(k) != wanted.get(k)]
    name = names[0]
    return (
        f"{name} is {saved.get(name, 'missing')} there and "
        f"{wanted.get(name, 'missing')} here ({len(names)} entries differ)"
    )
