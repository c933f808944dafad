"""RepMix on photographs and what ten trained networks made of each of them (PNG).

Sources real; waifu2x, SPAN, ESRGAN, Real-ESRGAN, FSRCNN and LapSRN, which enlarged the
photographs from half their size; the autoencoder taef2; cyclegan. All of them show the
same photographs, so content can't tell them apart and mixing must cost nothing. The
images are not part of the project: prepare any manifest of that kind as
`image_folder/neuralgrid`.

    rmjax prepare image_folder --name neuralgrid --manifest MANIFEST.csv
    rmjax train --config neuralgrid --workdir runs/neuralgrid
    rmjax evaluate --workdir runs/neuralgrid
"""

from ml_collections import ConfigDict

from rmjax.configs.scenes256 import get_config as scenes256


def get_config() -> ConfigDict:
    """Return the recipe of `scenes256` for eleven sources, with semantics held out."""
    config = scenes256()
    config.data.name = "image_folder/neuralgrid"
    config.data.sources = ()
    config.data.seen_semantics = (
        "bedroom",
        "house",
        "bathroom",
        "face",
        "horse",
        "street",
    )
    config.data.unseen_semantics = ("kitchen", "cat", "dog", "church")
    config.data.size = 192
    config.data.eval_size = 192
    # FSRCNN and LapSRN change the luminance alone, of which `chroma` sees nothing.
    config.model.input = "luma_chroma"
    # More than the 400 steps of `scenes256`, after which RepMix was still behind.
    config.steps_per_epoch = 100
    config.num_epochs = 10
    return config
