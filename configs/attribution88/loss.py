"""What the detection head gives: compound, ungated, or attribution alone.

rmjax sweep --config attribution88/loss --seeds 3 --workdir sweeps/loss
"""

from rmjax.configs.attribution88.repmix import get_config

__all__ = ["GRID", "get_config"]

GRID = "loss"
