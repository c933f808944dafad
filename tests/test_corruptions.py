"""Corruptions: the published outputs, independent libraries, draws, bad input."""

from functools import cache, partial
from io import BytesIO

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden.corruptions.make import describe
from jax.experimental import checkify
from PIL import Image
from scipy import ndimage

from rmjax import corruptions
from rmjax.corruptions import blur
from rmjax.corruptions.jpeg import jpeg
from rmjax.corruptions.weather import plasma
from rmjax.data.panes import load_panes
from rmjax.experiment import parallel

# Mean absolute error against the published code, in 8-bit levels.
BOUNDS = {
    "contrast": 0.6,
    "brightness": 0.6,
    "saturate": 0.6,
    "defocus_blur": 0.6,
    "gaussian_blur": 0.6,
    "pixelate": 0.6,
    "zoom_blur": 1.0,
    "jpeg_compression": 1.5,
}
RANDOM = [name for name in corruptions.NAMES if name not in BOUNDS]


@cache
def corrupt_8bit(name):
    """Function `(key, uint8 image, severity)` to what the published code would store."""
    corrupt = partial(corruptions.corrupt, name=name, rounding=True)
    jitted = jax.jit(
        lambda key, image, severity: corrupt(key, image, severity=severity)
    )

    def run(key, image, severity):
        out = jitted(key, image.astype(np.float32) / 255, severity)
        return np.round(np.asarray(out) * 255).astype(np.uint8)

    return run


@pytest.fixture(scope="module")
def photo():
    """A smooth random picture with fine noise, `[48, 64, 3]` float32 in [0, 1]."""
    noise = np.random.default_rng(0).random((2, 48, 64, 3))
    smooth = ndimage.gaussian_filter(noise[0], (4, 4, 0))
    smooth = (smooth - smooth.min()) / np.ptp(smooth)
    image = np.round(255 * (0.9 * smooth + 0.1 * noise[1])) / 255
    return image.astype(np.float32)


def psnr(one, other):
    return 10 * np.log10(255**2 / np.mean((one.astype(float) - other) ** 2))


@pytest.mark.parametrize("name", BOUNDS)
def test_fixed_kinds_equal_the_published(golden, name):
    reference = np.load(golden / "corruptions" / "deterministic.npz")
    for image, outputs in zip(reference["images"], reference[name], strict=True):
        for severity, expected in enumerate(outputs, start=1):
            ours = corrupt_8bit(name)(jax.random.key(0), image, severity)
            error = np.abs(ours.astype(float) - expected).mean()
            assert error <= BOUNDS[name], f"severity {severity}: {error:.2f} levels"
            if name == "jpeg_compression":
                assert psnr(ours, expected) >= 36


@pytest.mark.parametrize(
    "severities",
    [(1, 5), pytest.param((2, 3, 4), marks=pytest.mark.slow)],
)
@pytest.mark.parametrize("name", RANDOM)
def test_random_kinds_have_the_published_statistics(golden, name, severities):
    """16 draws each, within 1.5 of the reference's deviations plus two levels."""
    reference = np.load(golden / "corruptions" / "stochastic.npz")
    means, deviations = reference[f"{name}_mean"], reference[f"{name}_std"]
    keys = jax.random.split(jax.random.key(0), 16)
    for i, image in enumerate(reference["images"]):
        for severity in severities:
            draws = [corrupt_8bit(name)(key, image, severity) for key in keys]
            ours = np.mean([describe(draw, image) for draw in draws], axis=0)
            expected = means[i, severity - 1]
            error = np.abs(ours - expected)
            where = f"image {i}, severity {severity}: {np.round(error, 2)}"
            if name == "frost":  # another texture: brightness and contrast alone
                assert np.all(error[:6] <= 15), where
                assert error[6] <= 0.2 * expected[6], where
                continue
            slack = np.array([2.0] * 8 + [0.15] * 16)
            assert np.all(error <= 1.5 * deviations[i, severity - 1] + slack), where


def test_gaussian_blur_equals_scipys(photo):
    ours = corruptions.corrupt(jax.random.key(0), photo, "gaussian_blur", 3)
    expected = ndimage.gaussian_filter(photo, (3, 3, 0), mode="nearest", truncate=4)
    np.testing.assert_allclose(ours, expected, atol=1e-5)


@pytest.mark.parametrize("scale, severity", [(0.6, 1), (0.25, 5)])
def test_pixelate_equals_pillows(photo, scale, severity):
    image = Image.fromarray(np.uint8(np.round(photo * 255)))
    small = image.resize((int(64 * scale), int(48 * scale)), Image.Resampling.BOX)
    expected = np.asarray(small.resize((64, 48), Image.Resampling.BOX))
    ours = corruptions.corrupt(jax.random.key(0), photo, "pixelate", severity)
    assert np.abs(np.asarray(ours) * 255 - expected).max() <= 1.01


@pytest.mark.parametrize("quality", [10, 75, 95])
@pytest.mark.parametrize("size", [(48, 64), (37, 51)])
def test_jpeg_equals_pillows(photo, quality, size):
    photo = photo[: size[0], : size[1]]
    file = BytesIO()
    Image.fromarray(np.uint8(np.round(photo * 255))).save(
        file, "JPEG", quality=quality, subsampling="4:2:0"
    )
    expected = np.asarray(Image.open(file))
    ours = np.asarray(jax.jit(jpeg)(photo, jnp.float32(quality)))
    assert psnr(ours * 255, expected) >= 40


RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
}


@pytest.mark.parametrize("scale", [0.5, 0.25])
@pytest.mark.parametrize("name", RESAMPLING)
def test_scaling_equals_pillows(photo, name, scale):
    image = Image.fromarray(np.uint8(np.round(photo * 255)))
    small = image.resize((int(64 * scale), int(48 * scale)), RESAMPLING[name])
    expected = np.asarray(small.resize((64, 48), RESAMPLING[name]))
    error = np.abs(np.asarray(corruptions.reshare(photo, name, scale)) * 255 - expected)
    if name == "nearest":
        assert error.max() < 0.01
    else:  # Pillow rounds after each of its four passes, we after two and four
        assert error.max() <= 2.01 and error.mean() <= 0.4


def test_other_resharings_equal_plain_ones(photo):
    pixels = Image.fromarray(np.uint8(np.round(photo * 255)))
    middle = pixels.crop((16, 12, 48, 36)).resize((64, 48), Image.Resampling.BILINEAR)
    ours = {
        name: np.asarray(corruptions.reshare(photo[None], name, value))[0]
        for name, value in {"crop": 0.5, "flip": 1, "blur": 1.5, "jpeg": 75}.items()
    }
    assert np.abs(ours["crop"] * 255 - np.asarray(middle)).max() <= 1.01
    np.testing.assert_allclose(ours["flip"], photo[:, ::-1], atol=1e-6)
    blurred = ndimage.gaussian_filter(photo, (1.5, 1.5, 0), mode="nearest")
    assert np.abs(ours["blur"] - blurred).max() <= 0.51 / 255
    np.testing.assert_allclose(ours["jpeg"], jpeg(photo, jnp.float32(75)), atol=0.01)


@pytest.mark.parametrize("swap", [False, True])
def test_glass_moves_pixels_as_a_plain_scan_does(swap):
    there = np.asarray(blur._neighbours(jax.random.key(0), 20, 30, jnp.int32(3)))
    expected = np.arange(600)
    for here in reversed(range(600)):
        taken = expected[there[here]]
        if swap:
            expected[there[here]] = expected[here]
        expected[here] = taken
    displace = blur._swap_pixels if swap else blur._copy_pixels
    ours = displace(jnp.arange(600), jnp.asarray(there))
    np.testing.assert_array_equal(ours, expected)
    assert np.mean(expected != np.arange(600)) > 0.4
    assert (len(set(expected)) == 600) == swap  # a swap loses nothing


def test_glass_swap_is_an_option(photo):
    args = (jax.random.key(0), photo, "glass_blur", 4)
    copied, swapped = (
        corruptions.corrupt(*args, glass_swap=swap) for swap in (False, True)
    )
    assert 0.001 < np.abs(copied - swapped).mean() < 0.1


def test_frost_takes_photographs_of_ones_own(photo, tmp_path):
    for i, size in enumerate([(40, 50), (200, 120)]):
        grey = np.full((*size, 3), 100 + 100 * i, np.uint8)
        Image.fromarray(grey).save(tmp_path / f"{i}.png")
    panes = load_panes(tmp_path, 64)
    assert panes.shape == (2, 71, 71, 3)  # 1.1 times 64, rounded up
    frost = partial(corruptions.corrupt, images=photo, name="frost", severity=5)
    seen = set()
    for i in range(8):
        pane = np.asarray(frost(jax.random.key(i), frost_panes=panes)) - 0.6 * photo
        level = np.round(255 * np.median(pane) / 0.75)
        seen.add(level)
    assert seen == {100, 200}
    with pytest.raises(ValueError, match="no photographs of frost in"):
        load_panes(tmp_path / "none", 64)


def test_plasma_is_rougher_with_less_decay():
    draw = jax.jit(partial(plasma, jax.random.key(1), 64))
    smooth, rough = draw(2.0), draw(1.2)
    for layer in (smooth, rough):
        assert layer.shape == (64, 64)
        assert float(layer.min()) == pytest.approx(0, abs=1e-6)
        assert float(layer.max()) == pytest.approx(1)
    step = [float(jnp.abs(jnp.diff(layer, axis=0)).mean()) for layer in (smooth, rough)]
    assert step[1] > 2 * step[0]


@pytest.mark.parametrize("name", corruptions.NAMES)
def test_every_kind_takes_any_size_and_traced_severity(photo, name):
    """Within [0, 1], and each image of a batch by its own draw."""
    images = jnp.stack([photo, photo])
    batch = jax.jit(partial(corruptions.corrupt, name=name))(
        jax.random.key(3), images, severity=jnp.int32(4)
    )
    assert batch.shape == images.shape and batch.dtype == images.dtype
    assert 0 <= float(batch.min()) and float(batch.max()) <= 1
    assert np.abs(batch[0] - photo).max() > 0.01
    assert np.array_equal(batch[0], batch[1]) == (name not in RANDOM)


@pytest.mark.parametrize("name", ["gaussian_noise", "motion_blur", "contrast"])
def test_a_batch_is_its_images_one_by_one(photo, name):
    corrupt = jax.jit(partial(corruptions.corrupt, name=name))
    key = jax.random.key(3)
    images = jnp.stack([photo, photo[::-1]])
    keys = [jax.random.fold_in(key, i) for i in range(2)]
    alone = [corrupt(k, x, severity=4) for k, x in zip(keys, images, strict=True)]
    batch = corrupt(key, images, severity=4)
    np.testing.assert_allclose(batch, alone, atol=1e-5)


def test_random_corrupt_depends_on_an_images_own_key_alone(photo):
    names = ("gaussian_noise", "contrast", "fog")
    corrupt = jax.jit(partial(corruptions.random_corrupt, names=names, rate=0.7))
    keys = jax.random.split(jax.random.key(0), 40)
    images = jnp.broadcast_to(photo, (40, *photo.shape))
    batch = corrupt(keys, images)
    np.testing.assert_array_equal(corrupt(keys[::-1], images)[::-1], batch)
    np.testing.assert_array_equal(corrupt(keys[7:8], images[:1])[0], batch[7])
    spared = np.all(np.asarray(batch) == photo, axis=(1, 2, 3))
    assert 4 <= spared.sum() <= 20
    assert len(np.unique(np.asarray(batch).mean((1, 2, 3)))) > 15


@pytest.mark.parametrize(
    "name",
    ["brightness", "gaussian_noise", "zoom_blur", "fog", "glass_blur", "pixelate"]
    + ["jpeg_compression"],
)
def test_gradients_are_finite(photo, name):
    def loss(image):
        return jnp.sum(corruptions.corrupt(jax.random.key(0), image, name, 2) ** 2)

    gradient = jax.jit(jax.grad(loss))(photo)
    assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0


def test_results_do_not_depend_on_the_number_of_devices(photo, optimised):
    images = np.stack([photo, photo[::-1]] * 4)
    names = ("gaussian_noise", "elastic_transform", "spatter")
    seeds = np.arange(8)

    def step(_, batch):
        keys = jax.vmap(jax.random.key)(batch["seed"])
        return corruptions.random_corrupt(keys, batch["image"], names, rate=1.0)

    one, eight = (
        parallel.fetch(
            parallel.map_examples(step, devices)(
                0, parallel.shard({"image": images, "seed": seeds}, devices)
            )
        )
        for devices in (parallel.choose_devices(1), parallel.choose_devices(8))
    )
    np.testing.assert_array_equal(one, eight)
    assert len(np.unique(one.mean((1, 2, 3)))) == 8


@pytest.mark.parametrize("name", ["shot_noise", "impulse_noise", "jpeg_compression"])
def test_nan_is_never_hidden(photo, name):
    images = jnp.stack([photo, photo]).at[0, 5, 5, 0].set(jnp.nan)
    corrupt = jax.jit(partial(corruptions.corrupt, name=name, severity=2))
    out = corrupt(jax.random.key(0), images)
    assert np.isnan(out[0]).all() and np.isfinite(out[1]).all()
    error, _ = checkify.checkify(corrupt)(jax.random.key(0), images)
    with pytest.raises(checkify.JaxRuntimeError, match="in .0, 1., not NaN"):
        error.throw()
    error, _ = checkify.checkify(corrupt)(jax.random.key(0), images[1:])
    error.throw()


def test_rounding_truncates_to_8_bits(photo):
    args = (jax.random.key(0), photo, "contrast", 1)
    exact = np.asarray(corruptions.corrupt(*args)) * 255
    rounded = np.asarray(corruptions.corrupt(*args, rounding=True)) * 255
    np.testing.assert_allclose(rounded, np.round(rounded), atol=1e-4)
    assert -0.01 < (exact - rounded).min() and (exact - rounded).max() < 1.01


def test_glass_leaves_a_plain_image_alone():
    for level in (25, 55, 110, 205):
        plain = np.full((32, 32, 3), level / 255, np.float32)
        out = corruptions.corrupt(jax.random.key(0), plain, "glass_blur", 3)
        np.testing.assert_allclose(np.asarray(out) * 255, level, atol=0.01)


def test_images_may_be_constants_of_a_trace_or_of_half_precision_or_none(photo):
    corrupt = partial(corruptions.corrupt, name="motion_blur", severity=2)
    expected = corrupt(jax.random.key(0), photo)
    traced = jax.jit(lambda key: corrupt(key, photo))(jax.random.key(0))
    np.testing.assert_allclose(traced, expected, atol=1e-6)
    half = corrupt(jax.random.key(0), jnp.asarray(photo, jnp.bfloat16))
    assert half.dtype == jnp.float32
    np.testing.assert_allclose(half, expected, atol=0.01)
    none = np.zeros((0, 48, 64, 3), np.float32)
    assert corrupt(jax.random.key(0), none).shape == none.shape


def test_names():
    assert len(corruptions.NAMES) == 19 and len(corruptions.SEEN) == 15
    assert set(corruptions.SEEN + corruptions.UNSEEN) == set(corruptions.NAMES)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"name": "rain"}, "name: unknown rain; choose from gaussian_noise, "),
        ({"severity": 6}, r"severity = \[6\] is not in 1..5"),
        ({"severity": 3.0}, r"severity = \[3.0\] is not in 1..5"),
        ({"images": np.zeros((8, 48, 64), np.float32)}, "must be .H, W, 3. or"),
        ({"images": np.zeros((48, 31, 3), np.float32)}, "32 px at least"),
        ({"images": np.zeros((48, 64, 3), np.uint8)}, "float in .0, 1., not uint8"),
        ({"images": np.full((48, 64, 3), 2, np.float32)}, "not in .2, 2."),
        ({"images": np.full((48, 64, 3), np.nan, np.float32)}, "not in .nan, nan."),
    ],
)
def test_bad_input_is_named(photo, changes, message):
    arguments = {"images": photo, "name": "fog", "severity": 1} | changes
    with pytest.raises(ValueError, match=message):
        corruptions.corrupt(jax.random.key(0), **arguments)


@pytest.mark.parametrize(
    "name, value, message",
    [
        ("rotate", 1, "unknown resharing 'rotate'; choose from jpeg, nearest"),
        ("jpeg", 0, r"value = 0 of jpeg \(quality\) is not in 1..100"),
        ("crop", 2, "share of each side"),
    ],
)
def test_bad_resharing_is_named(photo, name, value, message):
    with pytest.raises(ValueError, match=message):
        corruptions.reshare(photo, name, value)
    with pytest.raises(ValueError, match="float in .0, 1., not uint8"):
        corruptions.reshare(np.uint8(255 * photo), "flip", 1)


def test_random_corrupt_checks_its_arguments(photo):
    keys = jax.random.split(jax.random.key(0), 1)
    for changes, message in (
        ({"names": ("rain",)}, "unknown rain"),
        ({"names": ()}, "choose from"),
        ({"severities": (0, 1)}, "severity"),
        ({"rate": 95}, "rate = 95 is not a probability"),
        ({"images": photo[None].repeat(2, 0)}, "keys must be one an image"),
        ({"images": photo}, "keys must be one an image"),
    ):
        with pytest.raises(ValueError, match=message):
            corruptions.random_corrupt(
                **{"keys": keys, "images": photo[None]} | changes
            )
