"""How evenly to mix: three concentrations of the weights.

rmjax sweep --config attribution88/beta --seeds 3 --workdir sweeps/beta
"""

from rmjax.configs.attribution88.repmix import get_config

__all__ = ["GRID", "get_config"]

GRID = "beta"
