"""Saving and restoring training states: the one file that says orbax."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from rmjax.errors import InputError
from rmjax.train_step import TrainState

VALIDATION_LOSS = "validation_loss"

PyTree = Any


class Checkpoints:
    """The checkpoints of one run: the best by validation loss, and the last.

    Writing is asynchronous and atomic: a checkpoint appears under its final name
    when it is whole. With each goes the training loop's own small progress.
    """

    def __init__(self, folder: Path, keep_best: int = 10, read_only: bool = False):
        """Open `folder` (made unless `read_only`); keep the `keep_best` best."""
        # A checkpoint that was never validated is kept only while it is the last.
        best = policies.BestN(
            get_metric_fn=lambda metrics: metrics[VALIDATION_LOSS],
            reverse=True,
            n=keep_best,
            keep_checkpoints_without_metrics=False,
        )
        keep = policies.AnyPreservationPolicy([policies.LatestN(1), best])
        self.folder = folder
        with _without_warnings():  # that a folder opened to be read is read-only
            self._manager = ocp.CheckpointManager(
                folder.absolute(),
                item_handlers={
                    "state": ocp.PyTreeCheckpointHandler(),
                    "progress": ocp.JsonCheckpointHandler(),
                },
                options=ocp.CheckpointManagerOptions(
                    preservation_policy=keep,
                    best_fn=lambda metrics: metrics[VALIDATION_LOSS],
                    best_mode="min",
                    create=not read_only,
                    read_only=read_only,
                ),
            )

    def save(
        self,
        state: TrainState,
        progress: dict[str, Any],
        validation_loss: float | None = None,
    ) -> None:
        """Write `state` and `progress` as the checkpoint of the state's step.

        `validation_loss` ranks it among the best; None leaves it unranked.
        """
        step = int(state.step)
        metrics = None
        if validation_loss is not None:
            metrics = {VALIDATION_LOSS: validation_loss}
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.PyTreeSave(_of_all_processes(state)),
                progress=ocp.args.JsonSave(progress),
            ),
            metrics=metrics,
        )

    def save_variables(self, variables: PyTree) -> None:
        """Write `params` and `batch_stats` alone, as checkpoint 0."""
        self._manager.save(
            0,
            args=ocp.args.Composite(
                state=ocp.args.PyTreeSave(variables), progress=ocp.args.JsonSave({})
            ),
        )

    def last_step(self) -> int | None:
        """Return the step of the newest checkpoint, None when there is none."""
        return self._manager.latest_step()

    def best_step(self) -> int | None:
        """Return the step with the least validation loss, or else the newest."""
        best = self._manager.best_step()
        return self.last_step() if best is None else best

    def restore(self, step: int, like: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """Return the state and progress of checkpoint `step`.

        Args:
            step: one of the checkpoints' steps.
            like: a state of the wanted shapes, types and placement, of arrays or of
                `jax.ShapeDtypeStruct`.

        Raises:
            InputError: no such checkpoint, or one of another network.
        """
        state = self._restore(step, like, partial=False)
        progress = self._manager.restore(
            step, args=ocp.args.Composite(progress=ocp.args.JsonRestore())
        )
        return state, progress["progress"]

    def restore_variables(self, step: int, like: PyTree) -> PyTree:
        """Return `params` and `batch_stats` alone of checkpoint `step`.

        Args and errors as in `restore`, `like` being a dict of the two.
        """
        return self._restore(step, like, partial=True)

    def close(self) -> None:
        """Wait until everything is on disk."""
        self._manager.wait_until_finished()
        self._manager.close()

    def _restore(self, step: int, like: PyTree, *, partial: bool) -> PyTree:
        steps = sorted(self._manager.all_steps())
        if step not in steps:
            listed = ", ".join(map(str, steps)) or "none"
            raise InputError(
                f"no checkpoint {step} in {self.folder}: there are {listed}"
            )
        saved = _shapes(self._manager.item_metadata(step)["state"].tree)
        wanted = _shapes(like)
        if partial:
            roots = {name.split("/")[0] for name in wanted}
            saved = {k: v for k, v in saved.items() if k.split("/")[0] in roots}
        if saved != wanted:
            raise InputError(
                f"checkpoint {step} in {self.folder} is of another network: "
                + _difference(saved, wanted)
            )
        args = ocp.args.PyTreeRestore(
            item=like,
            restore_args=ocp.checkpoint_utils.construct_restore_args(like),
            partial_restore=partial,
        )
        return self._manager.restore(step, args=ocp.args.Composite(state=args))["state"]


def _of_all_processes(state: PyTree) -> PyTree:
    """Tell Orbax that every process holds the same, so that it is saved once."""
    if jax.process_count() == 1:
        return state
    return jax.tree.map(
        ocp.utils.fully_replicated_host_local_array_to_global_array, state
    )


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Silence Orbax's log below errors."""
    log = logging.getLogger("absl")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


def has_checkpoints(folder: Path) -> bool:
    """Tell whether a run saved any checkpoint in `folder`."""
    return folder.is_dir() and any(path.name.isdecimal() for path in folder.iterdir())


def load_variables(
    folder: Path, like: PyTree, which: str | int = "best"
) -> tuple[PyTree, int]:
    """Load a network's `params` and `batch_stats` from a folder of checkpoints.

    Args:
        folder: where a run saved them.
        like: the two trees, of arrays or `jax.ShapeDtypeStruct`, as wanted.
        which: "best" by validation loss, "last", or a step.

    Returns:
        The variables and the step they are of.

    Raises:
        InputError: no such checkpoint, or one of another network.
    """
    if not folder.is_dir():
        raise InputError(f"no checkpoints in {folder.parent}: train there first")
    checkpoints = Checkpoints(folder, read_only=True)
    named = {"best": checkpoints.best_step, "last": checkpoints.last_step}
    if which not in named and not str(which).isdecimal():
        raise InputError(f"checkpoint '{which}': give best, last or a step")
    step = named[which]() if which in named else int(which)
    if step is None:
        raise InputError(f"no checkpoints in {folder.parent}: train there first")
    return checkpoints.restore_variables(step, like), step


def _difference(saved: dict[str, list], wanted: dict[str, list]) -> str:
    """Say in a few words how two trees of shapes differ; they do."""
    names = [k for k in {**wanted, **saved} if saved.get(k) != wanted.get(k)]
    name = names[0]
    return (
        f"{name} is {saved.get(name, 'missing')} there and "
        f"{wanted.get(name, 'missing')} here ({len(names)} entries differ)"
    )


def _shapes(tree: PyTree) -> dict[str, list[int]]:
    """Map the path of every leaf to its shape, whatever classes the nodes are."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        "/".join(_key_name(key) for key in path): list(leaf.shape)
        for path, leaf in leaves
    }


def _key_name(key: Any) -> str:
    for attribute in ("key", "name", "idx"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    return str(key)
