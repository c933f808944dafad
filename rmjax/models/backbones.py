"""The backbones that `model.arch` names, by one table."""

import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn

from rmjax.errors import InputError
from rmjax.models.chains import CHAINS, Chain
from rmjax.models.perceptron import PERCEPTRONS, Perceptron
from rmjax.models.resnet import ARCHITECTURES, ResNet
from rmjax.models.vit import TRANSFORMERS, VisionTransformer, check_structure
from rmjax.utils.choose import check_choice

VIT = "vit"  # a vision transformer whose structure is given, not named
BACKBONES = (*ARCHITECTURES, *CHAINS, *TRANSFORMERS, VIT, *PERCEPTRONS)


def make_backbone(
    arch: str,
    *,
    crop: int | None,
    remat: bool = False,
    structure: Mapping[str, Any] | None = None,
    **options: Any,
) -> nn.Module:
    """Return a backbone in the stages of `ResNet`.

    Args:
        arch: one of `BACKBONES`.
        crop: side of the input in training, for those that have to know it; None where
            the input are features.
        remat: compute blocks twice, where there are any.
        structure: of the architecture `vit`: fields of `VisionTransformer`.
        options: `embedding_dim`, `axis_name`, `dtype`, `lowering`, see `ResNet`.
    """
    if arch in PERCEPTRONS:
        sizes = {name: options[name] for name in ("embedding_dim", "dtype")}
        return Perceptron(**PERCEPTRONS[arch], **sizes)
    if arch in CHAINS:
        assert crop is not None  # see `check_backbone`
        return Chain(**CHAINS[arch], crop=crop, **options)
    if arch in ARCHITECTURES:
        return ResNet(**ARCHITECTURES[arch], remat=remat, **options)
    taken = {key: options[key] for key in ("embedding_dim", "dtype")}
    return VisionTransformer(**_structure(arch, structure), remat=remat, **taken)


def _structure(arch: str, given: Mapping[str, Any] | None) -> Mapping[str, Any]:
    return TRANSFORMERS.get(arch, given or {})


def check_backbone(
    arch: str, crop: int | None, structure: Mapping[str, Any] | None = None
) -> None:
    """Check that there is a backbone of a name, and that it is for such inputs.

    Args:
        arch: its name.
        crop: side of the network's input in training; None where the input are features.
        structure: as for `make_backbone`.

    Raises:
        InputError: there is none of that name (the message lists the choices), it is for
            images and not for features or the other way round, its structure does not
            fit together, or its strides leave nothing of inputs of this size.
    """
    check_choice("architecture", arch, BACKBONES)
    if crop is None:
        if arch not in PERCEPTRONS:
            raise InputError(
                f"model.arch = '{arch}' is for images; for stored features choose "
                + " or ".join(PERCEPTRONS)
            )
        return
    if arch in PERCEPTRONS:
        raise InputError(
            f"model.arch = '{arch}' is for stored features: name their table as "
            "data.features, or choose another architecture"
        )
    # Unlike the strided convolutions of ResNets, those of chains have even kernels.
    stages = CHAINS[arch]["stages"] if arch in CHAINS else ()
    least = math.prod(stride for stage in stages for *_, stride, _ in stage)
    if arch == VIT:
        check_structure(_structure(arch, structure))
    if arch == VIT or arch in TRANSFORMERS:
        least = _structure(arch, structure)["patch"]
    if crop < least:
        raise InputError(
            f"model.arch={arch} is for inputs of {least}x{least} or more; model.input "
            f"makes {crop}x{crop} of a crop: give a larger data.crop or another input"
        )


def flattens(arch: str) -> bool:
    """Tell whether a backbone takes larger images than in training tile by tile."""
    return arch in CHAINS and CHAINS[arch].get("flatten", False)
