"""From random weights or from ImageNet's.

    rmjax sweep --config attribution88/pretrained --seeds 3 --workdir sweeps/pretrained

`resnet50.pth` are torchvision's weights, see docs/pretrained.md.
"""

from rmjax.configs.attribution88.repmix import get_config

__all__ = ["GRID", "get_config"]

GRID = "model.init='',resnet50.pth"
