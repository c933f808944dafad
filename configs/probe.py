"""A linear head on features that a frozen network made once, in seconds a run.

Any network of `rmjax train` or `rmjax convert` makes them, of any prepared data set:

    rmjax embed --workdir runs/NETWORK --images image_folder/mine --layer pool \
        --out features.parquet
    rmjax train --config probe --workdir runs/probe \
        --config.data.features=features.parquet
    rmjax evaluate --workdir runs/probe

`--config.model.arch=hidden` puts a hidden layer before the embedding, and
`--config.fit.name=probe` fits a logistic regression in its place. docs/features.md
"""

from ml_collections import ConfigDict

from rmjax.configs.repmix import get_config as published


def get_config() -> ConfigDict:
    """Return the recipe: standardised features, a linear embedding, RepMix's heads."""
    config = published()
    config.data.features = "features.parquet"
    # What is trained on is in the table, and images are none of it: nothing is read,
    # cut or changed.
    config.data.name = ""
    config.data.resize = 0
    config.data.flip = False
    config.data.eval_resize = 0
    config.corrupt.rate = 0.0
    config.model.arch = "linear"
    config.model.input = ""
    config.optim.lr = 1e-3
    config.batch_size = 512
    config.eval_batch_size = 1024
    config.patience = 5
    config.keep_best = 1
    return config
