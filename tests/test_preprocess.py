"""Flip, crop and input transforms, against Pillow, SciPy and plain NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy import fft, ndimage, signal

from rmjax import inputs as preprocess
from rmjax.errors import InputError


@pytest.fixture(scope="module")
def images():
    """Smooth random images `[4, 48, 64, 3]` uint8."""
    noise = np.random.default_rng(0).random((4, 48, 64, 3))
    smooth = ndimage.gaussian_filter(noise, (0, 2, 2, 0))
    smooth = (smooth - smooth.min()) / np.ptp(smooth)
    return (smooth * 255).astype(np.uint8)


def test_every_window_is_a_cutout_or_its_mirror(images):
    keys = jax.random.split(jax.random.key(0), 4)
    cut = np.asarray(preprocess.random_flip_crop(keys, images, 40))
    for image, window in zip(images, cut, strict=True):
        places = np.lib.stride_tricks.sliding_window_view(image, (40, 40), (0, 1))
        places = np.moveaxis(places, 2, -1).reshape(-1, 40, 40, 3)
        both = np.concatenate([places, places[:, :, ::-1]])
        assert (both == window).all((1, 2, 3)).any()


def test_flips_half_and_crops_evenly():
    columns = np.arange(12, dtype=np.uint8)[:, None]
    many = np.broadcast_to(columns, (4000, 12, 12, 1))
    keys = jax.random.split(jax.random.key(1), 4000)
    cut = np.asarray(preprocess.random_flip_crop(keys, many, 8)).astype(int)
    flipped = cut[:, 0, 0, 0] > cut[:, 0, -1, 0]
    assert abs(flipped.mean() - 0.5) < 0.03
    lefts = np.bincount(cut[:, 0].min((1, 2)), minlength=5) / 4000
    np.testing.assert_allclose(lefts, 0.2, atol=0.03)
    unflipped = preprocess.random_flip_crop(keys, many, 8, flip=False)
    assert (unflipped[:, 0, 0, 0] < unflipped[:, 0, -1, 0]).all()


def test_a_draw_depends_on_its_own_key_alone(images):
    keys = jax.random.split(jax.random.key(2), 4)
    together = preprocess.random_flip_crop(keys, images, 32)
    alone = preprocess.random_flip_crop(keys[2:3], images[2:3], 32)
    np.testing.assert_array_equal(together[2:3], alone)


def test_crop_larger_than_the_image_is_refused(images):
    with pytest.raises(InputError, match="crop = 56 px .* 48 x 64"):
        preprocess.random_flip_crop(jax.random.split(jax.random.key(0), 4), images, 56)


def test_rgb_spans_minus_one_to_one():
    x = preprocess.rgb(preprocess.to_unit(jnp.array([0, 255], jnp.uint8)))
    np.testing.assert_allclose(x, [-1, 1])


def test_highpass_is_the_image_less_its_mean(images):
    x = images / 127.5 - 1
    mean = ndimage.uniform_filter(x, (0, 3, 3, 0), mode="nearest")
    expected = np.clip(6 * (x - mean), -2, 2)
    ours = preprocess.highpass(preprocess.to_unit(jnp.asarray(images)))
    np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_wiener_is_what_the_filter_takes_away(images):
    """SciPy's own filter inside, where its zeros around the image do not reach."""
    noise = np.random.default_rng(1).normal(0, 0.02, images.shape)
    x = np.clip(images / 255 + noise, 0, 1).astype(np.float32)
    ours = np.asarray(preprocess.wiener(jnp.asarray(x)))
    for image, found in zip(x.astype(np.float64) * 2 - 1, ours, strict=True):
        for channel in range(3):
            plane = image[..., channel]
            mean = ndimage.uniform_filter(plane, 5, mode="nearest")
            square = ndimage.uniform_filter(plane**2, 5, mode="nearest")
            level = (square - mean**2).mean()
            kept = plane - signal.wiener(plane, 5, level)
            inside = np.s_[2:-2, 2:-2]
            np.testing.assert_allclose(
                found[..., channel][inside], kept[inside], atol=1e-5
            )
    np.testing.assert_array_equal(preprocess.wiener(jnp.full((1, 8, 8, 3), 0.25)), 0)


def test_residual_matches_pillow(images):
    ours = preprocess.residual(preprocess.to_unit(jnp.asarray(images)))
    for image, residual in zip(images, np.asarray(ours), strict=True):
        small = Image.fromarray(image).resize((4, 3), Image.Resampling.BILINEAR)
        coarse = np.asarray(small.resize((64, 48), Image.Resampling.BILINEAR))
        difference = np.abs(image.astype(float) - coarse)
        expected = np.floor(255 * difference / difference.max())
        # Pillow rounds to 8 bits twice on the way.
        assert np.abs((residual + 1) * 127.5 - expected).mean() < 2.5


def test_logdct_matches_scipy():
    # Noise, because the smallest coefficient sets the scale: of a smooth image
    # that one is a rounding error, in float64 as well.
    images = np.random.default_rng(1).integers(0, 256, (4, 48, 64, 3), np.uint8)
    ours = preprocess.logdct(preprocess.to_unit(jnp.asarray(images)))
    spectrum = fft.dctn(images.astype(float), axes=(1, 2), norm="ortho")
    log = np.log(np.abs(spectrum) + 1e-12)
    low, high = (f(log, axis=(1, 2, 3), keepdims=True) for f in (np.min, np.max))
    expected = np.floor(255 * (log - low) / (high - low))
    difference = np.abs((np.asarray(ours) + 1) * 127.5 - expected)
    assert np.median(difference) < 0.5 and difference.max() < 2.5


def test_dcthist_matches_scipy(images):
    """The first window's histograms, from its 16 transforms; all its bins; its size."""
    ours = preprocess.dcthist(preprocess.to_unit(jnp.asarray(images)))
    assert ours.shape == (len(images), 5, 7, 6 * 63)
    luma = images @ np.array([0.299, 0.587, 0.114])
    for row, column in ((0, 0), (4, 6)):
        expected = np.zeros((len(images), 6, 64))
        for top, left in np.ndindex(4, 4):
            top, left = 8 * row + 2 * top, 8 * column + 2 * left
            block = luma[:, top : top + 8, left : left + 8]
            magnitude = np.abs(fft.dctn(block, axes=(1, 2), norm="ortho"))
            octave = np.log2(magnitude.reshape(-1, 64) + 1).clip(max=5)
            for bin_ in range(6):
                expected[:, bin_] += np.maximum(1 - np.abs(octave - bin_), 0) / 16
        window = ours[:, row, column].reshape(-1, 6, 63)
        np.testing.assert_allclose(window, expected[..., 1:], atol=1e-3)


def test_dcthist_ignores_brightness_and_place():
    tile = np.random.default_rng(2).integers(50, 150, (1, 8, 8, 3), np.uint8)
    image = np.tile(tile, (1, 4, 4, 1))
    a, b = (
        preprocess.dcthist(preprocess.to_unit(jnp.asarray(x)))
        for x in (image, image + 40)
    )
    np.testing.assert_allclose(a, b, atol=1e-3)
    np.testing.assert_allclose(a[:, :1, :1] + 0 * a, a, atol=1e-5)
    with pytest.raises(InputError, match="14 x 14 px, not 13 x 32"):
        preprocess.dcthist(jnp.zeros((1, 13, 32, 3)))


def difference_to_green(channel):
    return lambda images: images[..., channel] - images[..., 1]


def luma(images):
    return images @ np.array([0.299, 0.587, 0.114])


@pytest.mark.parametrize(
    "name, planes",
    [
        ("chroma", [difference_to_green(0), difference_to_green(2)]),
        ("luma_chroma", [difference_to_green(0), difference_to_green(2), luma]),
    ],
)
def test_chroma_inputs_are_autocorrelations_of_residuals(name, planes):
    images = np.random.default_rng(3).integers(0, 256, (2, 40, 60, 3)).astype(float)
    transform = jax.jit(preprocess.get_input(name))
    ours = transform(jnp.asarray(images / 255, jnp.float32))
    assert ours.shape == (2, 4, 6, 40 * len(planes))
    for index, plane in enumerate(planes):
        values = plane(images)
        mean = ndimage.uniform_filter(values, (0, 3, 3), mode="nearest")
        x = values - mean
        for row, column in ((0, 0), (3, 5)):
            top, left = 4 + 8 * row, 4 + 8 * column
            own = x[:, top : top + 8, left : left + 8]
            around = x[:, top - 4 : top + 12, left - 4 : left + 12]
            # Correlations with all 81 lags; those after the middle are wanted.
            windows = np.lib.stride_tricks.sliding_window_view(around, (8, 8), (1, 2))
            products = np.einsum("bijyx,byx->bij", windows, own) / 64
            power = (own**2).mean((1, 2))[:, None] + 0.25
            expected = products.reshape(2, 81)[:, 41:] / power
            found = ours[:, row, column, 40 * index : 40 * index + 40]
            np.testing.assert_allclose(found, expected, atol=1e-4)


def test_chroma_ignores_what_is_grey(images):
    grey = np.repeat(images[..., :1], 3, axis=-1)
    x = jax.jit(preprocess.chroma)(preprocess.to_unit(jnp.asarray(grey)))
    assert np.abs(x).max() == 0


def test_luma_chroma_tells_apart_what_differs_in_luminance_alone():
    """Two ways to enlarge the luminance, and one for the colours."""
    generator = np.random.default_rng(4)
    colours = np.repeat(np.repeat(generator.random((1, 24, 24, 3)), 2, 1), 2, 2) * 0.2
    small = generator.random((24, 24)) * 0.4
    enlarged = [ndimage.zoom(small, 2, order=order) for order in (0, 1)]
    both = colours + np.stack(enlarged)[..., None] + 0.2
    a, b = jax.jit(preprocess.luma_chroma)(jnp.asarray(both, jnp.float32))
    np.testing.assert_allclose(a[..., :80], b[..., :80], atol=1e-3)
    assert np.abs(a[..., 80:] - b[..., 80:]).mean() > 0.1


@pytest.mark.parametrize("name", ["chroma", "luma_chroma"])
def test_chroma_inputs_need_a_window_and_its_border(name):
    with pytest.raises(InputError, match=f"'{name}' needs 16 x 16 px, not 15 x 32"):
        preprocess.get_input(name)(jnp.zeros((1, 15, 32, 3)))


def test_unknown_input_lists_the_choices():
    with pytest.raises(
        InputError, match="unknown input 'xyz'.*rgb, imagenet, highpass"
    ):
        preprocess.get_input("xyz")
