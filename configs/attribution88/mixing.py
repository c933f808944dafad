"""How to mix: fourteen ways.

    rmjax sweep --config attribution88/mixing --seeds 3 --workdir sweeps/mixing

Every step takes 64 images, whatever it makes of them, and all cells take as many steps.
"""

from ml_collections import ConfigDict

from rmjax.configs.attribution88.repmix import get_config as repmix

GRID = "mixing"


def get_config() -> ConfigDict:
    """Return the published recipe with the steps that groups of two make in an epoch."""
    config = repmix()
    config.steps_per_epoch = 18_000  # of 64 images: two passes over 576,000
    return config
