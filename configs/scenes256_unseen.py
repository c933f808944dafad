"""RepMix tested on content that it never saw: trained without streets.

As `scenes256`, but trained on facades, horses and satellite images alone; every
street image, of any split, is the unseen test set.

    rmjax train --config scenes256_unseen --workdir runs/unseen
    rmjax evaluate --workdir runs/unseen
    rmjax evaluate --workdir runs/unseen --split all --semantics shoe
"""

from ml_collections import ConfigDict

from rmjax.configs.scenes256 import get_config as scenes256


def get_config() -> ConfigDict:
    """Return the recipe of `scenes256` with semantics held out."""
    config = scenes256()
    config.data.seen_semantics = ("facade", "horse", "satellite")
    config.data.unseen_semantics = ("street",)
    config.data.unseen_split = "all"
    return config
