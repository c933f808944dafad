"""What the network sees: pixels, their residual, or their spectrum.

rmjax sweep --config attribution88/input --seeds 3 --workdir sweeps/input
"""

from rmjax.configs.attribution88.repmix import get_config

__all__ = ["GRID", "get_config"]

GRID = "input"
