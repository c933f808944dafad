"""Weights of other projects as networks of this one: what a file holds, and from whom.

Layouts:
    imagenet: ResNet-18 and -50 of torchvision and timm, which name them alike.
    repmix: the published RepMix (`last.ckpt` of PyTorch Lightning).
    image_attribution_bench: RepMix as ImageAttributionBench trains it,
        https://github.com/mttry/ImageAttributionBench: the same names, but `real` is
        the last class, while the gated head goes on treating the first as real.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from rmjax.data.dataset import REAL, check_source_names
from rmjax.errors import InputError
from rmjax.experiment.config import default_config, flatten
from rmjax.models.convert import EXCEPTIONS, from_imagenet, from_torch, some
from rmjax.models.resnet import NUM_LEVELS
from rmjax.pretrained.files import (
    CONFIG,
    file_hash,
    is_exported,
    read_file,
    weights_in,
)
from rmjax.pretrained.folders import read_transformer
from rmjax.utils.files import read_json

IMAGENET = "imagenet"
LAYOUTS = (IMAGENET, "repmix", "image_attribution_bench")

# Where training scripts put the state dict, and whose RepMix it is then.
_WRAPPERS = {
    "state_dict": "repmix",
    "model_state_dict": "image_attribution_bench",
    "model": None,
}
# What data parallelism and torch.compile put before every name.
_PREFIXES = re.compile(r"(module\.|_orig_mod\.)+")
# In the order of the benchmark's labels, its file dataset.py.
_BENCH_SOURCES = (
    *("4o", "CogView3_PLUS", "FLUX", "KANDINSKY", "PIXART", "PLAYGROUND_2_5"),
    *("SD1_5", "SD2_1", "SD3", "SD3_5", "SDXL", "dalle3", "gemini", "grok3"),
    *("hidream", "hunyuan", "ideogram", "infinity", "janus-pro", "kling"),
    *("mid-5.2", "mid-6.0", REAL),
)
# The published hyperparameters that our config has under other names.
_HYPERPARAMETERS = {
    "mixup_level": ("mix.level",),
    "mixup_samples": ("mix.members",),
    "mixup_beta": ("mix.beta",),
    "img_rsize": ("data.resize", "data.size"),
    "img_csize": ("data.crop", "data.eval_resize", "data.eval_size"),
    "lr": ("optim.lr",),
    "lr_gamma": ("optim.lr_decay",),
}
# Input transforms by (do_dct_input, residual); the published mean and deviation are 0.5.
_INPUTS = {(False, False): "rgb", (True, False): "logdct", (False, True): "residual"}


@dataclass(frozen=True)
class Weights:
    """A network that somebody else trained.

    Attributes:
        variables: `{"params": ..., "batch_stats": ...}`, NumPy arrays.
        config: the published recipe with what is known of this network.
        source_names: its sources, the first is `real`; empty for a bare backbone.
        provenance: file, hash, layout, what was left out, and notes.
    """

    variables: dict[str, Any]
    config: ConfigDict
    source_names: tuple[str, ...]
    provenance: dict[str, Any]


def read_weights(
    path: str | Path, *, layout: str = "auto", sources: Sequence[str] = ()
) -> Weights:
    """Read a file of weights in one of `LAYOUTS`, or the folder of a vision transformer.

    Args:
        path: a `.pth`, `.ckpt` or `.safetensors` file, a folder that holds it as
            `model.safetensors` or `pytorch_model.bin`, or one as for
            `read_transformer`.
        layout: of a file, one of `LAYOUTS`; "auto" tells by its content.
        sources: names of the classes, in the file's order. Without them they are
            ImageAttributionBench's where there are as many, or `real`, `source1`, ...

    Raises:
        InputError: the file can't be read, is of none of the layouts, or its entries
            are not exactly those of the network: the message lists what is missing,
            unexpected, of another shape or not finite.
    """
    path = Path(path)
    if path.is_dir():
        about = path / CONFIG
        given = read_json(about) if about.is_file() else {}
        file = weights_in(path)
        if "model_type" in given or file is None:
            if layout != "auto" or sources:
                raise InputError(
                    f"{path}: a folder says itself what it holds: leave out --layout and "
                    "--sources"
                )
            variables, config, provenance = read_transformer(path)
            return Weights(variables, config, (), provenance)
        path = file
    if is_exported(path):
        raise InputError(
            f"{path}: a run that `rmjax export` wrote, with its own sources: give it as "
            "--workdir, or as model.init"
        )
    content = read_file(path)
    state_dict, wrapper = _unwrap(path, content)
    if layout == "auto":
        layout = _guess_layout(path, state_dict, wrapper)
    elif layout not in LAYOUTS:
        raise InputError(f"layout '{layout}': choose auto, {', '.join(LAYOUTS)}")
    provenance = {
        "file": path.name,
        "sha256": file_hash(path),
        "layout": layout,
        "left_out": _left_out(content, state_dict, wrapper),
    }
    try:
        odd = [k for k, v in state_dict.items() if not isinstance(v, np.ndarray)]
        if odd:
            raise InputError(f"no tensors: {some(odd)}")
        if layout == IMAGENET:
            network = _imagenet(state_dict, sources)
        else:
            network = _repmix(state_dict, content, layout, sources)
    except InputError as error:
        raise InputError(f"{path}, read as {layout}: {error}") from error
    variables, config, names, notes = network
    return Weights(variables, config, names, provenance | {"notes": notes})


def _unwrap(path: Path, content: Mapping) -> tuple[dict[str, Any], str | None]:
    """Return the state dict in a file's outermost dict, and the key it was under."""
    wrapper = next((k for k in _WRAPPERS if isinstance(content.get(k), dict)), None)
    inner = content if wrapper is None else content[wrapper]
    if not all(isinstance(name, str) for name in (*content, *inner)):
        raise InputError(f"{path}: holds names that are no text")
    return {_PREFIXES.sub("", k, count=1): v for k, v in inner.items()}, wrapper


def _guess_layout(path: Path, state_dict: Mapping, wrapper: str | None) -> str:
    if "conv1.weight" in state_dict and "attribution.weight" not in state_dict:
        return "imagenet"
    if "attribution.weight" not in state_dict:
        raise InputError(
            f"{path}: neither a ResNet of torchvision or timm (conv1.weight) nor a "
            f"RepMix (attribution.weight) is in it, but {some(state_dict) or 'nothing'}"
        )
    whose = _WRAPPERS.get(wrapper or "")
    if whose is None:
        raise InputError(
            f"{path}: a RepMix, but not whose, and they number their classes "
            "differently: give --layout repmix or image_attribution_bench"
        )
    return whose


def _left_out(content: Mapping, state_dict: Mapping, wrapper: str | None) -> list[str]:
    """Name what of a file does not go into the network."""
    dropped = {
        name.rsplit(".", 1)[-1] if "num_batches" in name else name
        for name in state_dict
        if EXCEPTIONS.fullmatch(name)
    }
    used = (wrapper, "hyper_parameters")
    beside = (k for k in content if wrapper is not None and k not in used)
    return sorted(dropped) + sorted(beside)


def _imagenet(state_dict: Mapping[str, np.ndarray], sources: Sequence[str]) -> tuple:
    if sources:
        raise InputError("sources named, but ImageNet weights know none")
    arch = "resnet50" if "layer1.0.conv3.weight" in state_dict else "resnet18"
    variables = from_imagenet(state_dict, arch)
    config = default_config()
    config.model.arch = arch
    config.model.input = "imagenet"
    embedding = variables["params"]["backbone"]["embedding"]["bias"]
    config.model.embedding_dim = len(embedding)
    config.data.eval_resize, config.data.eval_size = 256, 224
    return variables, config, (), ["the embedding is the classifier's logits; no heads"]


def _repmix(
    state_dict: Mapping[str, np.ndarray],
    content: Mapping[str, Any],
    layout: str,
    sources: Sequence[str],
) -> tuple:
    level = _mix_level(state_dict)
    num_sources = (*np.shape(state_dict.get("attribution.weight", ())), 0)[0]
    order, notes = None, []
    given = content.get("hyper_parameters") or {}
    try:
        config = _with_hyperparameters(given, level)
    except (AttributeError, TypeError, ValueError, OverflowError) as error:
        raise InputError(f"hyper_parameters of a wrong type ({error})") from error
    if layout == "image_attribution_bench":
        order = (num_sources - 1, *range(num_sources - 1))
        config.model.gated_source = 1
        notes = [
            "classes relabelled: real, the last of the file, is the first here",
            "function kept: the gate multiplies the file's first class, not real, by "
            "the probability of real",
        ]
    arch = "resnet50"
    if not any(".0.conv3." in name for name in state_dict):
        arch = "resnet18"
    variables = from_torch(state_dict, level, arch, order)
    config.model.arch = arch
    config.model.embedding_dim = state_dict["attribution.weight"].shape[1]
    names = tuple(sources) or _default_names(layout, num_sources)
    if not sources and names != _BENCH_SOURCES:
        notes.append("the file has no class names: give --sources")
    _check_names(names, num_sources, -1 if order else 0)
    if order:
        names = tuple(names[i] for i in order)
    return variables, config, names, notes


def _mix_level(state_dict: Mapping[str, np.ndarray]) -> int:
    """Return the number that the published module list leaves to the mixing layer."""
    numbers = (re.match(r"backbone\.model\.(\d)\.", name) for name in state_dict)
    free = set(range(NUM_LEVELS)) - {int(n[1]) for n in numbers if n}
    return free.pop() if len(free) == 1 else default_config().mix.level


def _with_hyperparameters(given: Mapping[str, Any], level: int) -> ConfigDict:
    """Return the published recipe with what a Lightning checkpoint says of it."""
    stated = given.get("mixup_level", level)
    if stated != level:
        raise InputError(
            f"the hyperparameters say mix level {stated}, the names {level}"
        )
    config = default_config()
    config.mix.level = level
    for name, keys in _HYPERPARAMETERS.items():
        for key in keys:
            old: Any = flatten(config)[key]
            config.update_from_flattened_dict({key: type(old)(given.get(name, old))})
    flags = tuple(bool(given.get(n, False)) for n in ("do_dct_input", "residual"))
    scales = [given.get(name, [0.5] * 3) for name in ("img_mean", "img_std")]
    if flags not in _INPUTS or any(list(scale) != [0.5] * 3 for scale in scales):
        raise InputError(
            "its input (do_dct_input, residual, img_mean or img_std) is none of "
            f"{', '.join(_INPUTS.values())}"
        )
    config.model.input = _INPUTS[flags]
    return config


def _default_names(layout: str, num_sources: int) -> tuple[str, ...]:
    if layout == "image_attribution_bench":
        if num_sources == len(_BENCH_SOURCES):
            return _BENCH_SOURCES
        return (*(f"source{i}" for i in range(1, num_sources)), REAL)
    return (REAL, *(f"source{i}" for i in range(1, num_sources)))


def _check_names(names: Sequence[str], num_sources: int, real: int) -> None:
    check_source_names(names, "sources")
    where = "last" if real else "first"
    if len(names) != num_sources or names[real] != REAL or len(set(names)) < len(names):
        raise InputError(
            f"sources {', '.join(names)}: give {num_sources} different ones in the "
            f"file's order, '{REAL}' {where}"
        )
