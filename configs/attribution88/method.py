"""RepMix and ten earlier methods.

    rmjax sweep --config attribution88/method --seeds 3 --workdir sweeps/method

Every step takes 64 images, and all networks take as many steps. The probe and the
neighbours use the features of `--config.model.init`, or of random weights. Ridge
regression and eigenfaces have 150,528 features of each image, and take up to 21 GiB.
"""

from ml_collections import ConfigDict

from rmjax.configs.attribution88.repmix import get_config as repmix

GRID = "method"


def get_config() -> ConfigDict:
    """Return the published recipe with the steps that groups of two make in an epoch."""
    config = repmix()
    config.steps_per_epoch = 18_000  # of 64 images: two passes over 576,000
    config.fit.memory_gib = 7.0
    return config
