"""RepMix on photographs and what three generators made of them (256-px PNG).

Sources real, cyclegan, pix2pix, esrgan; the images are not part of the project:
prepare any folder or manifest of that kind as `image_folder/realimages`.

    rmjax prepare image_folder --name realimages --manifest MANIFEST.csv
    rmjax train --config scenes256 --workdir runs/scenes256
    rmjax evaluate --workdir runs/scenes256
"""

from ml_collections import ConfigDict

from rmjax.configs.repmix import get_config as published


def get_config() -> ConfigDict:
    """Return the recipe for a few hundred images at native resolution."""
    config = published()
    config.data.name = "image_folder/realimages"
    config.data.sources = ("real", "cyclegan", "pix2pix", "esrgan")
    config.data.seen_semantics = ("facade", "horse", "satellite", "shoe", "street")
    # Resampling would rewrite the fingerprint: crops as they are, and the whole
    # image in evaluation.
    config.data.resize = 0
    config.data.size = 256
    config.data.crop = 64
    config.data.eval_resize = 0
    config.data.eval_size = 256
    config.corrupt.rate = 0.0  # published: 0.95
    # What is in the image misleads, and few images are learnt by heart: only how
    # neighbours in the colour residual depend on each other, and only place by place.
    # Chosen by leaving out one semantic of those trained on
    # (docs/results/real_generators.md).
    config.model.arch = "shallow"
    config.model.input = "chroma"
    config.optim.lr = 1e-2
    config.optim.lr_decay = 0.8
    config.eval_batch_size = 16
    config.steps_per_epoch = 50
    config.num_epochs = 8
    config.patience = 8
    return config
