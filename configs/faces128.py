"""RepMix on JPEG faces: photographs against StarGAN's, 128 px, one JPEG pipeline.

rmjax prepare image_folder --name realimages --manifest MANIFEST.csv
rmjax train --config faces128 --workdir runs/faces128
rmjax evaluate --workdir runs/faces128
"""

from ml_collections import ConfigDict

from rmjax.configs.scenes256 import get_config as scenes256


def get_config() -> ConfigDict:
    """Return the recipe of `scenes256` for two sources of 128-px images."""
    config = scenes256()
    config.data.sources = ("real", "stargan")
    config.data.seen_semantics = ("face",)
    config.data.size = 128
    config.data.crop = 64
    config.data.eval_size = 128
    config.model.input = "rgb"  # JPEG has quantised the highest frequencies away
    return config
