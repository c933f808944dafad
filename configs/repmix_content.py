"""RepMix for sources that don't all show the same content.

One generator makes faces, another bedrooms: then what an image shows rules sources out,
and the published loss rewards a network for learning that. Here it is told what a
semantic alone tells, and learns the rest (docs/mixing.md). As `repmix` otherwise; where
every source shows every semantic equally often, it trains with `loss=attribution`.

    rmjax train --config repmix_content --workdir runs/mine \
        --config.data.name=image_folder/mine
"""

from ml_collections import ConfigDict

from rmjax.configs.repmix import get_config as published


def get_config() -> ConfigDict:
    """Return the published recipe with the loss that content does not enter."""
    config = published()
    config.loss = "adjusted"
    return config
