"""RepMix on JPEG faces: photographs against StarGAN's, 128 px, one JPEG pipeline.

rmjax prepare image_folder --name realimages --manifest MANIFEST.csv
rmjax train --config faces128 --workdir runs/faces128
rmjax evaluate --workdir runs/faces128
"""

from ml_collections import ConfigDict

from rmjax.configs.scenes256 import get_config as scenes256


def get_config() -> ConfigDict:
    """Return a recipe for two sources, 437 training images and little left of detail."""
    config = scenes256()
    config.data.sources = ("real", "stargan")
    config.data.seen_semantics = ("face",)
    config.data.size = 128
    config.data.crop = 128
    config.data.eval_size = 128
    # JPEG leaves nothing of `chroma`; how often detail is weak or strong survives.
    config.model.input = "dcthist"
    config.optim.lr_decay = 0.6  # validation loss jumps up and down until it is small
    return config
