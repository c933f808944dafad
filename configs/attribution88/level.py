"""Where to mix: at every level, from pixels to the embedding.

rmjax sweep --config attribution88/level --seeds 3 --workdir sweeps/level
"""

from rmjax.configs.attribution88.repmix import get_config

__all__ = ["GRID", "get_config"]

GRID = "level"
