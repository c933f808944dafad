"""RepMix on photographs and ten trained networks, with ImageNet-C in training.

As `neuralgrid`, and 95 % of the training images are corrupted, as published.

    rmjax train --config neuralgrid_corrupted --workdir runs/corrupted
    rmjax evaluate --workdir runs/corrupted --suite seen,unseen
"""

from ml_collections import ConfigDict

from rmjax.configs.neuralgrid import get_config as neuralgrid


def get_config() -> ConfigDict:
    """Return the recipe of `neuralgrid` with corruption in training."""
    config = neuralgrid()
    config.corrupt.rate = 0.95
    return config
