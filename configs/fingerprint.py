"""Fingerprints of any generator: trained on simulated ones, drawn anew in each step.

Real images of a prepared data set are rendered by simulated generators; the network is
to tell which images are of one generator, whatever they show. It knows no sources. The
weights that ship are of this config, see docs/fingerprints.md.

    python examples/free_pictures.py PHOTOGRAPHS pictures
    rmjax prepare image_folder --name pictures --tree pictures
    rmjax train --config fingerprint --workdir runs/fingerprint
"""

from ml_collections import ConfigDict

from rmjax.configs.repmix import get_config as published


def get_config() -> ConfigDict:
    """Return the recipe: 31 generators and real photographs, 4 images of each."""
    config = published()
    config.data.name = "image_folder/pictures"
    config.data.sources = ("real",)
    # Resampling would rewrite the fingerprint: crops as they are, and in use the whole
    # image, or the middle of a large one.
    config.data.resize = 0
    config.data.size = 128
    config.data.crop = 96
    config.data.eval_resize = 0
    config.data.eval_size = 512
    config.corrupt.rate = 0.0
    config.simulate.generators = 31
    config.batch_size = 128
    config.loss = "fingerprint"
    config.mix.name = "none"
    config.model.arch = "pointwise"
    config.model.input = "luma_chroma"
    config.optim.lr = 3e-3
    config.optim.lr_decay = 0.8
    config.steps_per_epoch = 150
    config.num_epochs = 9
    config.eval_every_epochs = 1
    config.patience = 12
    return config
