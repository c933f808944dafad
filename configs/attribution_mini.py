"""RepMix on the simulated miniature of Attribution88, in minutes on two cores.

rmjax prepare attribution_mini
rmjax train --config attribution_mini --workdir runs/mini
rmjax evaluate --workdir runs/mini
"""

from ml_collections import ConfigDict

from rmjax.configs.repmix import get_config as published


def get_config() -> ConfigDict:
    """Return the published recipe, shrunk to 64-px images and a tiny network."""
    config = published()
    config.data.name = "attribution_mini"
    config.data.unseen_semantics = ("classroom", "cow", "kitchen", "sheep", "tower")
    config.data.resize = 0
    config.data.size = 64
    config.data.crop = 64
    config.data.eval_resize = 0
    config.data.eval_size = 64
    # At 64 px the corruptions leave little of a fingerprint: with the published rate,
    # 0.95, these few steps would teach next to nothing (docs/results/earlier.md).
    config.corrupt.rate = 0.0
    config.model.arch = "tiny"
    config.optim.lr = 1e-3
    config.num_epochs = 5
    config.eval_every_epochs = 1
    return config
