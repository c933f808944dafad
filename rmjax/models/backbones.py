"""The backbones that `model.arch` names, by one table."""

from typing import Any

import flax.linen as nn

from rmjax.models.chains import CHAINS, Chain
from rmjax.models.resnet import ARCHITECTURES, ResNet
from rmjax.utils.choose import check_choice

BACKBONES = (*ARCHITECTURES, *CHAINS)


def make_backbone(
    arch: str, *, crop: int, remat: bool = False, **options: Any
) -> nn.Module:
    """Return a backbone in the stages of `ResNet`.

    Args:
        arch: one of `BACKBONES`.
        crop: side of the input in training, for those that have to know it.
        remat: compute residual blocks twice, where there are any.
        options: `embedding_dim`, `axis_name`, `dtype`, `lowering`, see `ResNet`.
    """
    if arch in CHAINS:
        return Chain(**CHAINS[arch], crop=crop, **options)
    return ResNet(**ARCHITECTURES[arch], remat=remat, **options)


def check_backbone(arch: str) -> None:
    """Check the name of a backbone.

    Raises:
        InputError: there is none of that name; the message lists the choices.
    """
    check_choice("architecture", arch, BACKBONES)


def flattens(arch: str) -> bool:
    """Tell whether a backbone takes larger images than in training tile by tile."""
    return arch in CHAINS and CHAINS[arch].get("flatten", False)
