"""RepMix on which of six generators made a 256-px PNG, or that none did.

Sources biggan, cyclegan, esrgan, ldm, pix2pix, stylegan2, and photographs, which the two
heads and their gate need. Several made one kind of content alone, so content of other
kinds is kept for testing: pizza, airplanes and streets. The images are not part of the
project; of a manifest with a row for each file, prepare those of 256-px PNG files:

    rmjax prepare image_folder --name synthetic256 --manifest MANIFEST.csv
    rmjax train --config synthetic256 --workdir runs/synthetic256
    rmjax evaluate --workdir runs/synthetic256
"""

from ml_collections import ConfigDict

from rmjax.configs.scenes256 import get_config as scenes256


def get_config() -> ConfigDict:
    """Return the recipe of `scenes256` for seven sources, with semantics held out."""
    config = scenes256()
    config.data.name = "image_folder/synthetic256"
    config.data.sources = ()
    config.data.seen_semantics = ("cat", "dog", "facade", "face", "horse", "satellite")
    config.data.unseen_semantics = ("airplane", "pizza", "street")
    config.data.unseen_split = "all"
    return config
