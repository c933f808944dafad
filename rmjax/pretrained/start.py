"""Starting a training from weights instead of random numbers."""

from typing import Any

import jax
from ml_collections import ConfigDict

from rmjax.errors import InputError
from rmjax.experiment import variable_shapes
from rmjax.inference import load_pretrained


def starting_backbone(config: ConfigDict) -> dict[str, Any]:
    """Return the backbone of `config.model.init` for a training by `config`.

    Heads are never taken over. The embedding is only from a RepMix whose embedding has
    the config's size: of ImageNet weights it would be the classifier.

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
    if source.config.model.arch != config.model.arch:
        raise InputError(
            f"model.init: {path} holds a {source.config.model.arch}, but model.arch = "
            f"{config.model.arch}"
        )
    backbone = {k: dict(source.variables[k]["backbone"]) for k in source.variables}
    wanted = variable_shapes(config, 0)["params"]["backbone"]
    embedding = backbone["params"]["embedding"]
    if not source.source_names or _shape(embedding) != _shape(wanted["embedding"]):
        backbone["params"].pop("embedding")
    if _shape(backbone["params"]["stem"]) != _shape(wanted["stem"]):
        raise InputError(
            f"model.init: {path} was trained on the input {source.config.model.input}, "
            f"which has not the channels of model.input = {config.model.input}"
        )
    return {k: {"backbone": jax.device_get(v)} for k, v in backbone.items()}


def _shape(tree: Any) -> list[tuple[int, ...]]:
    return [leaf.shape for leaf in jax.tree.leaves(tree)]
