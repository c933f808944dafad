"""Starting a training from weights instead of random numbers."""

from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from rmjax.data.dataset import Selection
from rmjax.data.features import FeatureTable
from rmjax.errors import InputError
from rmjax.experiment.build import variable_shapes
from rmjax.experiment.data import ExperimentData
from rmjax.inference.attributor import load_pretrained
from rmjax.models.backbones import VIT

AT_ONCE = 65_536  # rows of features that are held in 64 bits


def starting_variables(config: ConfigDict, data: ExperimentData) -> dict[str, Any]:
    """Return what a training starts from in place of random numbers.

    The backbone of `config.model.init`, or what standardises stored features.
    """
    if config.data.features:
        return {"batch_stats": {"backbone": {"stem": measure_features(data.seen)}}}
    return starting_backbone(config)


def measure_features(selection: Selection) -> dict[str, np.ndarray]:
    """Return `mean` and `deviation` of the training rows' features, float32 `[size]`.

    The deviation of a feature that never changes is taken for 1.
    """
    assert isinstance(selection.dataset, FeatureTable)
    features = selection.dataset.files("train").features
    rows = selection.records["train"]
    blocks = np.array_split(rows, -(-len(rows) // AT_ONCE))
    mean = sum(features[b].sum(0, dtype=np.float64) for b in blocks) / len(rows)
    squares = sum(np.square(features[b] - mean).sum(0) for b in blocks)
    deviation = np.sqrt(squares / len(rows))
    deviation[deviation < 1e-12] = 1
    return {
        "mean": mean.astype(np.float32),
        "deviation": deviation.astype(np.float32),
    }


def starting_backbone(config: ConfigDict) -> dict[str, Any]:
    """Return the backbone of `config.model.init` for a training by `config`.

    Heads are never taken over. The embedding is only from a network that was trained to
    make one, of the config's size: of ImageNet weights it would be the classifier.

    Returns:
        `{"params": {"backbone": ...}, "batch_stats": {"backbone": ...}}`, the stages
        to replace; empty where `model.init` is.

    Raises:
        InputError: the weights can't be read, or are of another network.
    """
    path = config.model.init
    if not path:
        return {}
    try:
        source = load_pretrained(path, num_devices=1)
    except InputError as error:
        raise InputError(f"model.init: {error}") from error
    held, asked = source.config.model, config.model
    if held.arch != asked.arch:
        raise InputError(
            f"model.init: {path} holds a {held.arch}, but model.arch = {asked.arch}"
        )
    if held.arch == VIT and _without_projection(held.vit) != _without_projection(
        asked.vit
    ):
        raise InputError(
            f"model.init: {path} holds a transformer of another structure than "
            f"model.vit: give its own config, the folder of the run, as --config"
        )
    if "backbone" not in source.variables["params"]:
        raise InputError(
            f"model.init: {path} holds a {source.config.fit.name}, which has no backbone"
        )
    backbone = {k: dict(source.variables[k]["backbone"]) for k in source.variables}
    wanted = variable_shapes(config, 2)["params"]["backbone"]  # whatever the heads
    embedding = backbone["params"].pop("embedding", None)
    trained = source.layer == "embedding" and embedding is not None
    if trained and _shape(embedding) == _shape(wanted.get("embedding")):
        backbone["params"]["embedding"] = embedding
    if _shape(_stem(backbone["params"])) != _shape(_stem(wanted)):
        raise InputError(
            f"model.init: {path} was trained on the input {source.config.model.input}, "
            f"which has not the channels of model.input = {config.model.input}"
        )
    return {k: {"backbone": jax.device_get(v)} for k, v in backbone.items()}


def _without_projection(structure: ConfigDict) -> dict[str, Any]:
    """Return the structure but for whether there is an embedding of its own."""
    return {**structure.to_dict(), "project": True}


def _stem(params: dict[str, Any]) -> dict[str, Any]:
    """Return what sees the network's input first: `stem`, or `stem_0` and on."""
    return {name: tree for name, tree in params.items() if name.startswith("stem")}


def _shape(tree: Any) -> list[tuple[int, ...]]:
    return [leaf.shape for leaf in jax.tree.leaves(tree)]
