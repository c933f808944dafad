"""Weights between the names of PyTorch models and the Flax tree.

The published backbone is a module list of a stem, layer1..layer4 and a head, with the
mixing layer inserted at index `mix_level`, so every later module's number is one
higher: at level 5 the embedding is `backbone.model.6.2`, at level 6 it is
`backbone.model.5.2`.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from rmjax.errors import InputError
from rmjax.models.repmix import RepMix
from rmjax.models.resnet import NUM_LEVELS, STAGES

# Flax leaf -> torch leaf.
_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}
# Entries of the published model with no counterpart here: batch counters, which only a
# torch momentum of None would read, and the class weights inside its loss.
EXCEPTIONS = re.compile(r".*\.num_batches_tracked|det_ce\.weight")
_LISTED = 8  # names of a kind in an error; a deeper ResNet has hundreds too many


def from_torch(
    state_dict: Mapping[str, np.ndarray],
    mix_level: int = 5,
    arch: str = "resnet50",
    class_order: Sequence[int] | None = None,
) -> dict[str, Any]:
    """Turn a published state dict into variables of `RepMix`.

    Args:
        state_dict: names and arrays (anything `np.asarray` takes) in PyTorch layout.
            Entries of `EXCEPTIONS` are ignored.
        mix_level: level the published model was built with, 0..6.
        arch: key of `ARCHITECTURES`.
        class_order: for each source of the variables its number in the state dict;
            None where that is the same.

    Returns:
        `{"params": ..., "batch_stats": ...}`, half precision as float32. The number of
        sources and the embedding's size are those of the state dict.

    Raises:
        InputError: the entries are not exactly the model's; the message lists what is
            missing, unexpected, of another shape or not finite.
    """
    heads = np.shape(state_dict.get("attribution.weight", np.zeros((2, 256))))
    num_sources, embedding_dim = heads if len(heads) == 2 else (2, 256)
    name = partial(torch_name, mix_level=mix_level)
    flat = _translate(state_dict, name, arch, num_sources, embedding_dim)
    return unflatten_dict(_reorder(flat, class_order))


def to_torch(
    variables: Mapping[str, Any],
    mix_level: int = 5,
    class_order: Sequence[int] | None = None,
) -> dict[str, np.ndarray]:
    """Turn variables of `RepMix` into a state dict that the published model loads.

    Args:
        variables: `{"params": ..., "batch_stats": ...}`.
        mix_level: level the published model is built with, 0..6.
        class_order: as for `from_torch`.

    Returns:
        Names and arrays in PyTorch layout, with batch counters of zero and the class
        weights of the published loss.
    """
    back = None if class_order is None else np.argsort(class_order).tolist()
    name = partial(torch_name, mix_level=mix_level)
    state_dict = _untranslate(_reorder(_flatten(variables), back), name)
    num_sources = state_dict["attribution.bias"].shape[0]
    state_dict["det_ce.weight"] = np.array([1, 1 / (num_sources - 1)], np.float32)
    return state_dict


def from_imagenet(
    state_dict: Mapping[str, np.ndarray], arch: str = "resnet50"
) -> dict[str, Any]:
    """Turn a classifier of torchvision or timm into variables without heads.

    Both libraries name a plain ResNet alike. The classifier becomes the embedding, so
    that the embedding is the ImageNet logits. Arguments and errors as `from_torch`.
    """
    bias = state_dict.get("fc.bias")
    embedding_dim = 1000 if bias is None else len(bias)
    flat = _translate(state_dict, imagenet_name, arch, 0, embedding_dim)
    return unflatten_dict(flat)


def to_imagenet(variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Turn variables without heads into torchvision's state dict, counters at zero."""
    return _untranslate(_flatten(variables), imagenet_name)


def torch_name(path: tuple[str, ...], mix_level: int = 5) -> str:
    """Return the published name of a Flax variable.

    Args:
        path: keys from the collection down, such as
            `("params", "backbone", "layer1", "block0", "conv1", "kernel")`.
        mix_level: level the published model was built with, 0..6.

    Raises:
        InputError: `mix_level` is not one of 0..6.
    """
    if not 0 <= mix_level < NUM_LEVELS:
        raise InputError(f"mix level is {mix_level}; it must be 0..{NUM_LEVELS - 1}")
    _, module, *inner, leaf = path
    if module != "backbone":
        return f"{module}.{_LEAVES[leaf]}"
    stage = STAGES.index(inner[0])
    parts = ["backbone", "model", str(stage + (stage >= mix_level))]
    if inner[0] == "stem":
        parts.append({"conv": "0", "bn": "1"}[inner[1]])
    elif inner[0] == "embedding":
        parts.append("2")  # after the pool and the flattening
    else:
        parts.append(_block_name(*inner[1:]))
    return ".".join([*parts, _LEAVES[leaf]])


def imagenet_name(path: tuple[str, ...]) -> str:
    """Return torchvision's and timm's name of a Flax variable of the backbone."""
    _, _, *inner, leaf = path
    if inner[0] == "stem":
        name = {"conv": "conv1", "bn": "bn1"}[inner[1]]
    elif inner[0] == "embedding":
        name = "fc"
    else:
        name = f"{inner[0]}.{_block_name(*inner[1:])}"
    return f"{name}.{_LEAVES[leaf]}"


def _block_name(block: str, layer: str) -> str:
    layer = layer.replace("downsample_conv", "downsample.0")
    layer = layer.replace("downsample_bn", "downsample.1")
    return f"{block.removeprefix('block')}.{layer}"


def _translate(
    state_dict: Mapping[str, np.ndarray],
    name_of: Callable[[tuple[str, ...]], str],
    arch: str,
    num_sources: int,
    embedding_dim: int,
) -> dict[tuple[str, ...], np.ndarray]:
    """Return the variables of a state dict by path, all of them and no others."""
    given = {k: v for k, v in state_dict.items() if not EXCEPTIONS.fullmatch(k)}
    template = _flat_template(arch, num_sources, embedding_dim)
    names = {name_of(path): path for path in template}
    shapes = {n: torch_shape(template[p].shape) for n, p in names.items()}
    check_entries(given, shapes, arch)
    return {path: to_flax_layout(given[name]) for name, path in names.items()}


def _untranslate(
    flat: Mapping[tuple[str, ...], Any], name_of: Callable[[tuple[str, ...]], str]
) -> dict[str, np.ndarray]:
    """Return the state dict of variables by path, with batch counters of zero."""
    state_dict = {}
    for path, value in flat.items():
        name = name_of(path)
        state_dict[name] = _to_torch_layout(np.asarray(value))
        if path[-1] == "mean":
            counter = name.replace("running_mean", "num_batches_tracked")
            state_dict[counter] = np.zeros((), np.int64)
    return state_dict


def _flatten(variables: Mapping[str, Any]) -> dict[tuple[str, ...], Any]:
    return flatten_dict({k: variables[k] for k in ("params", "batch_stats")})


def _reorder(
    flat: dict[tuple[str, ...], np.ndarray], order: Sequence[int] | None
) -> dict[tuple[str, ...], np.ndarray]:
    """Put the sources of the attribution head into another order."""
    if order is None:
        return flat
    head = {p: v[..., list(order)] for p, v in flat.items() if "attribution" in p}
    return flat | head


def _flat_template(arch: str, num_sources: int, embedding_dim: int) -> dict:
    """Return shapes of the model's variables, by path; nothing is computed."""
    model = RepMix(arch, num_sources, embedding_dim=embedding_dim)
    image = jax.ShapeDtypeStruct((1, 64, 64, 3), np.float32)
    variables = jax.eval_shape(partial(model.init, jax.random.key(0)), image)
    return flatten_dict(variables)


def check_entries(
    given: Mapping[str, Any], expected: Mapping[str, tuple[int, ...]], network: str
) -> None:
    """Check that tensors are exactly those of a network.

    Args:
        given: by name.
        expected: their shapes, by name.
        network: what it is, for the message.

    Raises:
        InputError: they are not; it lists what is missing, unexpected, of another shape
            or not finite.
    """
    wrong = [
        f"{name} is {list(np.shape(given[name]))}, not {list(shape)}"
        for name, shape in expected.items()
        if name in given and np.shape(given[name]) != shape
    ]
    differences = {
        "missing": sorted(expected.keys() - given.keys()),
        "unexpected": sorted(given.keys() - expected.keys()),
        "of another shape": wrong,
        "no finite floats": [
            name
            for name in sorted(given.keys() & expected.keys())
            if not _is_finite(np.asarray(given[name]))
        ],
    }
    if any(differences.values()):
        listed = "; ".join(f"{k}: {some(v)}" for k, v in differences.items() if v)
        raise InputError(f"weights do not fit a {network} ({listed})")


def some(names: Iterable[str]) -> str:
    """List the first names, and how many more there are."""
    names = list(names)
    more = [f"and {len(names) - _LISTED} more"] if len(names) > _LISTED else []
    return ", ".join(names[:_LISTED] + more)


def _is_finite(value: np.ndarray) -> bool:
    floats = jnp.issubdtype(value.dtype, jnp.floating)
    return floats and bool(np.isfinite(value).all())


def torch_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return a parameter's shape as PyTorch has it: OIHW for HWIO, OI for IO."""
    if len(shape) == 4:
        return (shape[3], shape[2], shape[0], shape[1])
    return shape[::-1]


def _to_torch_layout(value: np.ndarray) -> np.ndarray:
    """Turn HWIO into OIHW and IO into OI."""
    value = value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T
    return np.ascontiguousarray(value)


def to_flax_layout(value: np.ndarray) -> np.ndarray:
    """Turn PyTorch's OIHW into HWIO and OI into IO, in float32 at least."""
    value = np.asarray(value)
    if value.dtype.itemsize < 4:
        value = value.astype(np.float32)
    value = value.transpose(2, 3, 1, 0) if value.ndim == 4 else value.T
    return np.ascontiguousarray(value)
