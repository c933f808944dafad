"""Converting files of weights into runs."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

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

    Raises:
        InputError: `out` exists or can't be written, the source can't be read or is not
            what it should be, or the changes are to another network.
    """
    out = Path(out)
    if out.exists():
        raise InputError(f"{out} exists: choose another --out, or remove it")
    weights = read_weights(source, layout=layout, sources=sources)
    config = apply_changes(weights.config, changes)
    check_values(config)
    _check_fits(config, weights)
    bad = first_not_finite(named_leaves(weights.variables))
    if bad is not None:
        raise InputError(f"{source}: {bad} is not finite: no network to be used")
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        names, provenance = weights.source_names, weights.provenance
        start_workdir(partial, config, names, (), provenance=provenance)
        checkpoints = Checkpoints(partial / CHECKPOINTS)
        checkpoints.save_variables(weights.variables)
        checkpoints.close()
        os.replace(partial, out)
    except (OSError, TrainingError) as error:  # such as a full disk
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"can't write {out}: {reason}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return weights


def _check_fits(config: ConfigDict, weights: Weights) -> None:
    shapes = variable_shapes(config, len(weights.source_names))
    if jax.tree.map(np.shape, shapes) != jax.tree.map(np.shape, weights.variables):
        raise InputError(
            "the changes to config.model ask for another network than the file holds"
        )
