"""Have the published packages corrupt pictures of our own; README.md says how to run."""

import sys
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np

FIXED = (
    "contrast",
    "brightness",
    "saturate",
    "defocus_blur",
    "gaussian_blur",
    "zoom_blur",
    "pixelate",
    "jpeg_compression",
)
SEVERITIES = range(1, 6)
DRAWS = 32


def describe(image: np.ndarray, original: np.ndarray) -> np.ndarray:
    """Return 24 statistics of a corrupted uint8 image `[size, size, 3]`.

    Means and deviations of the channels (3 + 3), mean absolute change and deviation of
    the change, and log10 of the grey image's power by frequency: 16 rings, the last of
    which takes the corners in.
    """
    image = image.astype(float)
    change = image - original
    size = len(image)
    window = np.outer(np.hanning(size), np.hanning(size))
    grey = image.mean(-1)
    power = np.abs(np.fft.fft2((grey - grey.mean()) * window)) ** 2
    frequency = np.fft.fftfreq(size) * size
    radius = np.hypot(frequency[:, None], frequency)
    bins = np.minimum((radius / (size / 2) * 16).astype(int), 15)
    spectrum = np.bincount(bins.ravel(), power.ravel()) / np.bincount(bins.ravel())
    moments = [*image.mean((0, 1)), *image.std((0, 1))]
    changes = [np.abs(change).mean(), change.std()]
    return np.array([*moments, *changes, *np.log10(spectrum + 1e-9)])


def draw_pictures(size: int) -> np.ndarray:
    """Draw four scenes with smooth skies, edges and texture, `[4, size, size, 3]`."""
    from rmjax.datasets.attribution_mini.images import Settings, draw_block

    settings = Settings(size=size, entanglement=0.0)
    chosen = {"church": 2, "cow": 2, "bus": 1, "kitchen": 0}
    return np.stack([draw_block("real", k, 0, settings)[i] for k, i in chosen.items()])


def load_published():
    """Return the names of all kinds and the published `corrupt(image, severity, name)`."""
    # Here, for the tests import `describe` and have neither package.
    import imagecorruptions
    import skimage

    # ImageMagick's binding, which what we want of imagenet_c does without.
    for module in ("wand", "wand.image", "wand.api", "wand.color"):
        sys.modules[module] = MagicMock()
    import imagenet_c

    # These draws alone do not come from NumPy's global stream: seed them as well.
    noise, rng = skimage.util.random_noise, np.random.default_rng(0)
    skimage.util.random_noise = lambda image, **options: noise(
        image, **options, seed=rng
    )

    def corrupt(image: np.ndarray, severity: int, name: str) -> np.ndarray:
        # imagecorruptions left the affine part of the warp out.
        package = imagenet_c if name == "elastic_transform" else imagecorruptions
        return package.corrupt(image, severity, name)

    return imagecorruptions.get_corruption_names("all"), corrupt


def main() -> None:
    folder = Path(__file__).parent
    names, corrupt = load_published()
    images = draw_pictures(96)[:2]
    fixed = {
        name: [[corrupt(image, k, name) for k in SEVERITIES] for image in images]
        for name in FIXED
    }
    np.savez_compressed(folder / "deterministic.npz", images=images, **fixed)

    # The warp's lengths are those of 224 px: four scenes make one such picture.
    scenes = draw_pictures(112)
    image = np.vstack([np.hstack(scenes[:2]), np.hstack(scenes[2:])])
    statistics = {}
    for seed, name in enumerate(n for n in names if n not in FIXED):
        np.random.seed(seed)  # noqa: NPY002 - the packages draw from the global stream
        draws = [
            [describe(corrupt(image, k, name), image) for _ in range(DRAWS)]
            for k in SEVERITIES
        ]
        statistics[f"{name}_mean"] = np.mean(draws, axis=1)[None]
        statistics[f"{name}_std"] = np.std(draws, axis=1)[None]
    np.savez_compressed(folder / "stochastic.npz", images=image[None], **statistics)


if __name__ == "__main__":
    main()
