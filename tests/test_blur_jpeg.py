"""The augmentation by blur and JPEG, against SciPy and Pillow."""

import io

import jax
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from rmjax.corruptions import blur_jpeg


@pytest.fixture(scope="module")
def image():
    noise = np.random.default_rng(0).random((48, 64, 3))
    smooth = ndimage.gaussian_filter(noise, (1.5, 1.5, 0))
    smooth = (smooth - smooth.min()) / np.ptp(smooth)
    return np.round(255 * smooth).astype(np.float32) / 255


def blurred(image, sigma):
    filtered = ndimage.gaussian_filter(image, (sigma, sigma, 0), mode="nearest")
    return np.round(filtered * 255) / 255


def coded(image, quality):
    file = io.BytesIO()
    pixels = np.round(image * 255).astype(np.uint8)
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file)) / 255


@pytest.mark.parametrize("sigma", [0.0, 0.4, 1.7, 3.0])
def test_blur_is_scipys(image, sigma):
    ours = jax.jit(blur_jpeg._blur)(image, sigma)
    assert np.abs(ours - blurred(image, sigma)).max() < 1.1 / 255


def test_what_an_image_suffers_is_one_of_four(image):
    """Each alone, both and neither, at their rates, and by each image's own key."""
    keys = jax.random.split(jax.random.key(1), 200)
    step = jax.jit(blur_jpeg.random_blur_jpeg)
    ours = np.asarray(step(keys, np.stack([image] * 200), 0.3))
    again = np.asarray(step(keys[7:9], np.stack([image] * 2), 0.3))
    np.testing.assert_array_equal(ours[7:9], again)
    kept = (ours == image).all(axis=(1, 2, 3))
    sigmas = [blurred(image, s) for s in np.arange(0.05, 3.05, 0.05)]
    levels = [coded(image, q) for q in range(30, 101)]

    def near(x, candidates):
        return min(np.abs(x - c).mean() for c in candidates) * 255 < 0.7

    rest = ours[~kept]
    blur_only = np.array([near(x, sigmas) for x in rest])
    jpeg_only = np.array([near(x, levels) for x in rest]) & ~blur_only
    # Of 200: 0.49 neither, 0.21 each alone, 0.09 both; four standard errors. A blur of
    # almost nothing counts as neither.
    assert abs(kept.mean() - 0.5) < 0.15
    assert abs(blur_only.sum() / 200 - 0.21) < 0.12
    assert abs(jpeg_only.sum() / 200 - 0.21) < 0.12
    assert (~blur_only & ~jpeg_only).any()


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_rates_of_none_and_all(image, rate):
    keys = jax.random.split(jax.random.key(2), 4)
    ours = np.asarray(blur_jpeg.random_blur_jpeg(keys, np.stack([image] * 4), rate))
    assert (ours == image).all() == (rate == 0)
    assert len({x.tobytes() for x in ours}) == (1 if rate == 0 else 4)
