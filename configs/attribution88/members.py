"""How many images to mix: 1 to 4.

rmjax sweep --config attribution88/members --seeds 3 --workdir sweeps/members
"""

from rmjax.configs.attribution88.repmix import get_config

__all__ = ["GRID", "get_config"]

GRID = "members"
