"""How many kinds of corruption to train with.

rmjax sweep --config attribution88/corruptions --seeds 3 --workdir sweeps/corruptions
"""

from rmjax.configs.attribution88.repmix import get_config

__all__ = ["GRID", "get_config"]

GRID = "corruptions"
