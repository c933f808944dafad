"""A run as one file: its network and all that is needed to ask it about images.

A safetensors file of the parameters and batch statistics, by path (such as
`params/backbone/embedding/kernel`). Its metadata `rmjax` is a JSON object: `rmjax`, the
version that wrote it; `sha256` of the network; and, as `Attributor` has them, `config`,
`source_names`, `checkpoint`, `calibration`, `training` and `provenance`.
"""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
import safetensors.numpy

from rmjax.errors import InputError
from rmjax.experiment.build import variable_shapes
from rmjax.experiment.checkpoints import named_leaves
from rmjax.experiment.run import parse_config
from rmjax.inference.calibration import parse_calibration
from rmjax.pretrained.files import EXPORTED, read_file, read_metadata
from rmjax.utils.files import replacing
from rmjax.utils.places import as_path
from rmjax.utils.versions import own_version

if TYPE_CHECKING:
    from rmjax.inference.attributor import Attributor

SUFFIX = ".safetensors"
EXTRACTOR = "extractor."  # before the names of what makes a head's features
# The network that is used where none is named; it knows no sources.
SHIPPED = Path(__file__).resolve().parents[1] / "weights" / f"fingerprint{SUFFIX}"


def export(model: "Attributor", out: str | Path) -> Path:
    """Write a network as one file, which `load_pretrained` reads.

    The same network gives the same bytes. The file appears whole or not at all.

    Args:
        model: a loaded run.
        out: the file to make, `.safetensors`.

    Raises:
        InputError: another suffix, a head without its network, or the file exists or
            can't be written.
    """
    out = as_path(out)
    if out.suffix != SUFFIX:
        raise InputError(f"{out}: give a file name ending in {SUFFIX}")
    if out.exists():
        raise InputError(f"{out} exists: choose another --out, or remove it")
    arrays, facts = _pack(model)
    text = json.dumps(facts, allow_nan=False)
    with replacing(out) as scratch:
        scratch.write_bytes(safetensors.numpy.save(arrays, {EXPORTED: text}))
    return out


def _pack(model: "Attributor", prefix: str = "") -> tuple[dict[str, np.ndarray], dict]:
    """Return arrays and facts of a network and, of a head, of what makes its features."""
    leaves = named_leaves(jax.device_get(model.variables))
    arrays = {prefix + name: np.array(leaf, order="C") for name, leaf in leaves.items()}
    facts = {
        "rmjax": own_version(),
        "sha256": digest_of(model.variables),
        "config": model.config.to_dict(),
        "source_names": model.source_names,
        "checkpoint": model.checkpoint,
        "calibration": asdict(model.calibration),
        "training": model.training,
        "provenance": model.provenance,
    }
    if model.features is None:
        return arrays, facts
    if model.extractor is None:
        raise InputError(
            f"{model.name} is a head on features, and the network that makes them is not "
            "loaded: `rmjax.load` loads both"
        )
    inner, network = _pack(model.extractor, prefix + EXTRACTOR)
    facts |= {
        "features": model.features,
        "extractor": network | {"name": model.extractor.name},
    }
    return arrays | inner, facts


def read_exported(path: Path) -> dict[str, Any]:
    """Read a file that `export` wrote.

    Returns:
        The fields of an `Attributor` but for `name` and `devices`; `variables` are
        arrays of NumPy. Of a head, `extractor` holds these fields, and `name`, of the
        network that makes its features.

    Raises:
        InputError: the file can't be read, is damaged, or of another version of rmjax.
    """
    arrays = read_file(path)
    try:
        return _unpack(arrays, json.loads(read_metadata(path)[EXPORTED]), str(path))
    except InputError:  # a ValueError as well
        raise
    except (
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        RecursionError,
    ) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: damaged ({reason}); export it again") from error


def _unpack(arrays: dict[str, np.ndarray], facts: dict, path: str) -> dict[str, Any]:
    """Return the fields of a network that `_pack` took apart."""
    config = parse_config(facts["config"], path)
    names, features = tuple(facts["source_names"]), facts.get("features")
    extractor = None
    if features:
        inner = {k: v for k, v in arrays.items() if k.startswith(EXTRACTOR)}
        arrays = {k: v for k, v in arrays.items() if k not in inner}
        inner = {k.removeprefix(EXTRACTOR): v for k, v in inner.items()}
        extractor = _unpack(inner, facts["extractor"], path)
        extractor["name"] = str(facts["extractor"]["name"])
    wanted = variable_shapes(config, len(names), features["size"] if features else None)
    if _kinds(arrays) != _kinds(named_leaves(wanted)):
        raise ValueError("other entries than those of its network")
    order = [arrays[name] for name in named_leaves(wanted)]
    variables = jax.tree.unflatten(jax.tree.structure(wanted), order)
    if digest_of(variables) != facts["sha256"]:
        raise ValueError("other numbers than were written")
    return {
        "config": config,
        "source_names": names,
        "variables": variables,
        "checkpoint": facts["checkpoint"],
        "calibration": parse_calibration(facts["calibration"]),
        "training": facts["training"],
        "provenance": facts["provenance"],
        "features": features,
        "extractor": extractor,
    }


def digest_of(variables: dict) -> str:
    """Return the SHA-256 of parameters and batch statistics, in hexadecimal."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
        digest.update(jax.tree_util.keystr(path).encode())
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()


def _kinds(leaves: dict[str, Any]) -> dict[str, tuple]:
    """Return shape and type of each array by name."""
    return {name: (leaf.shape, str(leaf.dtype)) for name, leaf in leaves.items()}
