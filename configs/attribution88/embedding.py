"""How long a fingerprint is.

rmjax sweep --config attribution88/embedding --seeds 3 --workdir sweeps/embedding
"""

from rmjax.configs.attribution88.repmix import get_config

__all__ = ["GRID", "get_config"]

GRID = "embedding"
