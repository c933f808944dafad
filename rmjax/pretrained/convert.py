"""Converting files of weights into runs."""

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from rmjax.errors import InputError, TrainingError
from rmjax.experiment.build import variable_shapes
from rmjax.experiment.checkpoints import (
    Checkpoints,
    first_not_finite,
    named_leaves,
)
from rmjax.experiment.config import apply_changes
from rmjax.experiment.ranges import check_values
from rmjax.experiment.run import CHECKPOINTS, start_workdir
from rmjax.pretrained.weights import Weights, read_weights


def convert(
    source: str | Path,
    out: str | Path,
    *,
    layout: str = "auto",
    sources: Sequence[str] = (),
    changes: Sequence[str] = (),
    origin: Mapping[str, str] | None = None,
) -> Weights:
    """Write weights of another project as the folder of a run.

    It holds a checkpoint, `config.json` and `run.json` (class names,
    provenance), so `rmjax.load`, `embed`, `attribute` and `evaluate` take it. It
    appears whole or not at all.

    Args:
        source: a `.pth`, `.ckpt` or `.safetensors` file, see `read_weights`.
        out: the folder to make.
        layout: as for `read_weights`.
        sources: as for `read_weights`.
        changes: to the config, such as `--config.data.name=attribution88/full`.
        origin: what else to say of where they are from.

    Raises:
        InputError: `out` exists or can't be written, the source can't be read or is not
            what it should be, or the changes are to another network.
    """
    out = Path(out)
    check_absent(out)
    weights = read_weights(source, layout=layout, sources=sources)
    weights = replace(weights, provenance=weights.provenance | dict(origin or {}))
    bad = first_not_finite(named_leaves(weights.variables))
    if bad is not None:
        raise InputError(f"{source}: {bad} is not finite: no network to be used")
    with new_run(out) as folder:
        write_run(folder, weights, changes)
    return weights


def check_absent(out: Path) -> None:
    """Check that nothing is in the way of a folder to make.

    Raises:
        InputError: something is.
    """
    if out.exists():
        raise InputError(f"{out} exists: choose another --out, or remove it")


@contextmanager
def new_run(out: Path) -> Iterator[Path]:
    """Give an empty folder to write a run to, which becomes `out`, or is removed.

    Raises:
        InputError: `out` can't be written.
    """
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        yield partial
        os.replace(partial, out)
    except (OSError, TrainingError) as error:  # such as a full disk
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"can't write {out}: {reason}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_run(
    folder: Path,
    weights: Weights,
    changes: Sequence[str] = (),
    *,
    step: int = 0,
    training: dict[str, Any] | None = None,
    features: dict[str, Any] | None = None,
) -> None:
    """Write a network as a run: config, classes and one checkpoint.

    Args:
        folder: to write to.
        weights: the network.
        changes: to its config.
        step: of the checkpoint.
        training: what its training images are like, where that is known.
        features: of a head, what made the features, see `start_workdir`.

    Raises:
        InputError: the changes are to another network.
        OSError, TrainingError: it can't be written.
    """
    config = apply_changes(weights.config, changes)
    check_values(config)
    _check_fits(config, weights, features["size"] if features else None)
    start_workdir(
        folder,
        config,
        weights.source_names,
        (),
        provenance=weights.provenance or None,
        training=training,
        features=features,
    )
    checkpoints = Checkpoints(folder / CHECKPOINTS)
    checkpoints.save_variables(weights.variables, step)
    checkpoints.close()


def _check_fits(config: ConfigDict, weights: Weights, size: int | None) -> None:
    shapes = variable_shapes(config, len(weights.source_names), size)
    if jax.tree.map(np.shape, shapes) != jax.tree.map(np.shape, weights.variables):
        raise InputError(
            "the changes to config.model ask for another network than the file holds"
        )
