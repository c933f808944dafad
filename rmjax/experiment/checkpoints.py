"""The checkpoints of a run: saved in the background, verified, found again."""

import logging
import math
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np

from rmjax.errors import InputError, TrainingError
from rmjax.experiment import checkpoint_files, checkpoint_folder, hosts
from rmjax.experiment.checkpoint_files import DamagedCheckpoint
from rmjax.experiment.digest import first_not_finite, named_leaves
from rmjax.experiment.step import TrainState

KEEP_LAST = 2  # a damaged newest one then costs the steps since the one before

PyTree = Any

logger = logging.getLogger(__name__)


class Checkpoints:
    """The checkpoints of one run: the best by validation loss, and the last two.

    Writing goes on in the background: write, read back, compare, and only then remove
    what is no longer wanted. With each goes the training loop's own small progress.
    Of several processes, which all hold the same state, the first writes.
    """

    def __init__(self, folder: Path, keep_best: int = 10, read_only: bool = False):
        """Open `folder` (made unless `read_only`); keep the `keep_best` best."""
        self.folder, self.keep_best = folder, keep_best
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoints")
        self._writing: Future | None = None
        self._losses: dict[int, float | None] = {}
        self._read_only = read_only or not hosts.is_first()
        if not self._read_only:
            folder.mkdir(parents=True, exist_ok=True)
            checkpoint_folder.remove_leftovers(folder)
            self._losses |= self._read_losses()

    def save(
        self,
        state: TrainState,
        progress: dict[str, Any],
        validation_loss: float | None = None,
    ) -> None:
        """Write `state` and `progress` as the checkpoint of the state's step.

        Returns when the state is copied; `wait` waits until it is on disk and
        verified. `validation_loss` ranks it among the best; None leaves it unranked.

        Raises:
            TrainingError: the save before this one failed, or the loss is not finite.
        """
        step = int(state.step)
        if validation_loss is not None and not math.isfinite(validation_loss):
            raise _not_finite(f"the validation loss is {validation_loss}", step)
        self._save(step, state, progress, validation_loss)

    def save_variables(self, variables: PyTree) -> None:
        """Write `params` and `batch_stats` alone, as checkpoint 0."""
        self._save(0, variables, {}, None)

    def steps(self) -> list[int]:
        """Return the steps of all checkpoints, ascending."""
        return checkpoint_folder.steps(self.folder)

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
        best = _ranked(losses)
        return best[0] if best else self.last_step()

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
        return checkpoint_files.describe(self._path(step))["progress"]

    def restore_last(
        self, like: TrainState
    ) -> tuple[TrainState, dict[str, Any]] | tuple[None, None]:
        """Return state and progress of the newest checkpoint that is not damaged.

        Those that are damaged are set aside, with a warning. None and None where
        there is none.

        Raises:
            InputError: it is of another network.
        """
        found = None, None
        for step in reversed(self.steps() if hosts.is_first() else []):
            try:
                found = self.restore(step, like)
                break
            except DamagedCheckpoint as error:
                self._set_aside(step, error)
        step = hosts.gather(found[0] and int(found[0].step))[0]
        if step is None or hosts.is_first():
            return found
        return self.restore(step, like)

    def restore_variables(self, step: int, like: PyTree) -> PyTree:
        """Return a part of checkpoint `step`, such as `params` and `batch_stats`.

        Args and errors as in `restore`, `like` being a dict of them.
        """
        steps = self.steps()
        if step not in steps:
            listed = ", ".join(map(str, steps)) or "none"
            raise InputError(
                f"no checkpoint {step} in {self.folder}: there are {listed}"
            )
        wanted = {n: list(leaf.shape) for n, leaf in named_leaves(like).items()}
        roots = {name.split("/")[0] for name in wanted}
        leaves = checkpoint_files.describe(self._path(step))["leaves"]
        leaves = {n: leaf for n, leaf in leaves.items() if n.split("/")[0] in roots}
        saved = {name: shape for name, (_, shape, _) in leaves.items()}
        if saved != wanted:
            raise InputError(
                f"checkpoint {step} in {self.folder} is of another network: "
                + _difference(saved, wanted)
            )
        arrays = checkpoint_files.read(self._path(step), like, leaves)
        return jax.tree.map(
            lambda x, to: jax.device_put(x.astype(to.dtype, copy=False), to.sharding),
            arrays,
            like,
        )

    def check(self) -> None:
        """Raise what the background met, if anything, without waiting for it."""
        if self._writing is not None and self._writing.done():
            self.wait()

    def wait(self) -> None:
        """Wait until what was saved is on disk, read back and compared.

        Raises:
            TrainingError: that failed; the checkpoints before stay.
        """
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def close(self) -> None:
        """Wait, and end the background thread; errors as in `wait`."""
        try:
            self.wait()
        finally:
            self._writer.shutdown()

    def _save(
        self, step: int, tree: PyTree, progress: dict, validation_loss: float | None
    ) -> None:
        if self._read_only:
            return
        self.wait()
        # Copied, for the next step is given the arrays' memory.
        arrays = jax.tree.map(np.array, jax.device_get(tree))
        self._writing = self._writer.submit(
            self._write, step, arrays, progress, validation_loss
        )

    def _write(
        self, step: int, arrays: PyTree, progress: dict, validation_loss: float | None
    ) -> None:
        bad = first_not_finite(named_leaves(arrays))
        if bad is not None:
            raise _not_finite(f"{bad} is not finite", step)
        try:
            checkpoint_files.write(self._path(step), arrays, progress, validation_loss)
        except DamagedCheckpoint as error:
            self._set_aside(step, error)
            raise TrainingError(
                f"{error}, just after it was written; the ones before stay: check the "
                "disk, then run the same command again"
            ) from error
        except Exception as error:  # OSError, ValueError and others, as it happens
            checkpoint_folder.remove_leftovers(self.folder)
            raise TrainingError(
                f"can't write checkpoint {step} to {self.folder}: "
                f"{checkpoint_files.reason(error)}; the ones before stay: make room, "
                "then run the same command again"
            ) from error
        self._losses[step] = validation_loss
        self._remove_unwanted()

    def _remove_unwanted(self) -> None:
        kept = {*sorted(self._losses)[-KEEP_LAST:]}
        kept |= {*_ranked(self._losses)[: self.keep_best]}
        for step in self._losses.keys() - kept:
            checkpoint_folder.remove(self.folder, step)
            del self._losses[step]

    def _path(self, step: int) -> Path:
        return self.folder / str(step)

    def _loss(self, step: int) -> float | None:
        return checkpoint_files.describe(self._path(step))["validation_loss"]

    def _read_losses(self) -> Iterator[tuple[int, float | None]]:
        """Yield step and validation loss; set aside what has none to be read."""
        for step in self.steps():
            try:
                yield step, self._loss(step)
            except DamagedCheckpoint as error:
                self._set_aside(step, error)

    def _set_aside(self, step: int, error: DamagedCheckpoint) -> None:
        name = checkpoint_folder.set_aside(self.folder, step)
        self._losses.pop(step, None)
        logger.warning("%s; set aside as %s", error, name)


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
    named = {"best": checkpoints.best_step, "last": checkpoints.last_step}
    if which not in named and not str(which).isdecimal():
        raise InputError(f"checkpoint '{which}': give best, last or a step")
    if checkpoints.last_step() is None:
        raise InputError(f"no checkpoints in {folder.parent}: train there first")
    try:
        step = named[which]() if which in named else int(which)
        return checkpoints.restore_variables(step, like), step
    except DamagedCheckpoint as error:
        whole = _newest_whole(checkpoints, like)
        advice = "train anew" if whole is None else f"{whole} is whole: name that step"
        raise InputError(f"{error}; {advice}") from error


def _newest_whole(checkpoints: Checkpoints, like: PyTree) -> int | None:
    """Return the newest step whose variables can be restored, None without any."""
    for step in reversed(checkpoints.steps()):
        try:
            checkpoints.restore_variables(step, like)
        except DamagedCheckpoint:
            continue
        return step
    return None


def _ranked(losses: dict[int, float | None]) -> list[int]:
    """Return the steps that have a loss, the best first."""
    known = {step: loss for step, loss in losses.items() if loss is not None}
    return sorted(known, key=known.get)


def _not_finite(what: str, step: int) -> TrainingError:
    return TrainingError(
        f"{what} after step {step}: training stopped, the last good checkpoint stays; "
        "try a smaller optim.lr"
    )


def _difference(saved: dict[str, list], wanted: dict[str, list]) -> str:
    """Say in a few words how two trees of shapes differ; they do."""
    names = [k for k in {**wanted, **saved} if saved.get(k) != wanted.get(k)]
    name = names[0]
    return (
        f"{name} is {saved.get(name, 'missing')} there and "
        f"{wanted.get(name, 'missing')} here ({len(names)} entries differ)"
    )
