"""Fingerprints of any generator: trained on simulated ones, drawn anew in each step.

Real images of a prepared data set are rendered by simulated generators; the network is
to tell which images are of one generator, whatever they show. It knows no sources.

    rmjax prepare attribution_mini --size 128 --entanglement 0 --data-dir pictures
    rmjax train --config fingerprint --data-dir pictures --workdir runs/fingerprint
    rmjax embed --workdir runs/fingerprint --images photos --out features.parquet
"""

from ml_collections import ConfigDict

from rmjax.configs.repmix import get_config as published


def get_config() -> ConfigDict:
    """Return the recipe: 15 generators and real photographs, 4 images of each."""
    config = published()
    config.data.name = "attribution_mini"
    config.data.sources = ("real",)
    # Resampling would rewrite the fingerprint: crops as they are, and in use the whole
    # image, or the middle of a large one.
    config.data.resize = 0
    config.data.size = 128
    config.data.crop = 96
    config.data.eval_resize = 0
    config.data.eval_size = 512
    config.corrupt.rate = 0.0
    config.simulate.generators = 15
    config.loss = "fingerprint"
    config.mix.name = "none"
    config.model.arch = "shallow"
    config.model.input = "luma_chroma"
    config.optim.lr = 1e-2
    config.optim.lr_decay = 0.8
    config.steps_per_epoch = 200
    config.num_epochs = 10
    config.eval_every_epochs = 1
    config.patience = 10
    return config
