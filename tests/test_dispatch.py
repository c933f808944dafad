"""Corruptions as accelerators compute them: in chunks, and equal to the CPU's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from rmjax import corruptions
from rmjax.corruptions.dispatch import CHUNK, _deal, map_images, map_kinds
from rmjax.utils.platform import targeting


def pictures(count, height, width):
    """Smooth random pictures with fine noise, 8 bits."""
    noise = np.random.default_rng(0).random((2, count, height, width, 3))
    smooth = ndimage.gaussian_filter(noise[0], (0, 3, 3, 0))
    smooth = (smooth - smooth.min()) / np.ptp(smooth)
    images = np.round(255 * (0.9 * smooth + 0.1 * noise[1])) / 255
    return images.astype(np.float32)


@pytest.fixture(scope="module")
def every_kind():
    """Every kind at every severity: kinds, severities, keys, images, the CPU's result."""
    kinds, severities = np.divmod(np.arange(5 * len(corruptions.NAMES)), 5)
    images = pictures(len(kinds), 40, 33)
    keys = jax.random.split(jax.random.key(3), len(kinds))
    return (
        kinds,
        severities + 1,
        keys,
        images,
        apply(kinds, severities + 1, keys, images),
    )


def apply(kinds, severities, keys, images):
    functions = [
        lambda image, key, severity, name=name: corruptions.CORRUPTIONS[name](
            key, image, severity
        )
        for name in corruptions.NAMES
    ]
    run = jax.jit(lambda *args: map_kinds(functions, *args))
    return np.asarray(run(kinds, images, keys, severities))


@pytest.mark.slow
@pytest.mark.parametrize("platform", ["gpu", "tpu"])
def test_all_kinds_and_severities_equal_the_cpus(every_kind, platform):
    *inputs, expected = every_kind
    with targeting(platform):
        ours = apply(*inputs)
    error = np.abs(ours - expected).max((1, 2, 3)).reshape(-1, 5)
    for name, errors in zip(corruptions.NAMES, error, strict=True):
        assert errors.max() <= 1e-5, f"{name}, by severity: {errors}"


def test_random_corrupt_depends_on_an_images_own_key_alone():
    """Whatever else is in the batch, and in which order: chunks are filled otherwise."""
    images = pictures(30, 32, 32)
    keys = jax.random.split(jax.random.key(0), 30)
    names = ("gaussian_noise", "contrast", "pixelate", "saturate")
    expected = corruptions.random_corrupt(keys, images, names, rate=0.8)
    with targeting("gpu"):
        for order in (np.arange(30), np.arange(30)[::-1], np.arange(7, 20), [3]):
            order = np.asarray(order)
            ours = corruptions.random_corrupt(
                keys[order], images[order], names, rate=0.8
            )
            np.testing.assert_allclose(ours, expected[order], rtol=0, atol=1e-5)


@pytest.mark.parametrize("count", [0, 1, CHUNK, CHUNK + 3])
def test_a_batch_of_one_kind_is_its_images(count):
    images = pictures(count + 1, 32, 32)[1:]
    numbers = jnp.arange(count, dtype=jnp.float32)
    with targeting("gpu"):
        ours = map_images(lambda image, number: image * number, images, numbers)
    np.testing.assert_array_equal(
        ours, images * np.asarray(numbers)[:, None, None, None]
    )


@pytest.mark.parametrize("which", [[0] * 40, [5] * 9, [0, 1, 2], [4, 0] * 20])
def test_each_image_is_dealt_to_a_chunk_of_its_kind(which):
    kinds, places = map(np.asarray, _deal(jnp.array(which), 5))
    dealt = [
        (place, kind)
        for kind, chunk in zip(kinds, places, strict=True)
        for place in set(chunk.tolist())
        if kind < 5
    ]
    expected = [(place, kind) for place, kind in enumerate(which) if kind < 5]
    assert sorted(dealt) == expected  # once each


@pytest.mark.parametrize("seed", range(3))
def test_any_batch_has_room_in_its_chunks(seed):
    which = np.random.default_rng(seed).integers(0, 16, 64)
    kinds, places = map(np.asarray, _deal(jnp.asarray(which), 15))
    assert len(kinds) == (64 + 15 * (CHUNK - 1)) // CHUNK
    dealt = np.concatenate(
        [np.unique(p) for k, p in zip(kinds, places, strict=True) if k < 15]
    )
    assert sorted(dealt) == np.flatnonzero(which < 15).tolist()


@pytest.mark.parametrize(
    "name", ["elastic_transform", "defocus_blur", "jpeg_compression"]
)
def test_gradients_are_the_cpus(name):
    images = pictures(2, 32, 40)
    weights = np.random.default_rng(1).random(images.shape).astype(np.float32)

    def gradient(images):
        def total(images):
            out = corruptions.corrupt(jax.random.key(0), images, name, 3)
            return jnp.sum(weights * out)

        return jax.jit(jax.grad(total))(images)

    expected = gradient(images)
    with targeting("tpu"):
        ours = gradient(images)
    np.testing.assert_allclose(ours, expected, atol=1e-4)
