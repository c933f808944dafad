"""RepMix on `attribution_mini` without two of its sources, which are unknown in testing.

StyleGAN3 is near to what is trained on (StyleGAN is), CIPS is far: no other source
there makes its pixels from coordinates.

    rmjax prepare attribution_mini
    rmjax train --config attribution_mini_unknown --workdir runs/unknown
    rmjax evaluate --workdir runs/unknown --suite full
    rmjax report --workdir runs/unknown
"""

from ml_collections import ConfigDict

from rmjax.configs.attribution_mini import get_config as attribution_mini


def get_config() -> ConfigDict:
    """Return the recipe of `attribution_mini` with sources held out."""
    config = attribution_mini()
    config.data.held_out_sources = ("stylegan3", "cips")
    config.data.near_sources = ("stylegan3",)
    return config
