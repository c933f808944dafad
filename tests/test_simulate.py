"""Simulated generators: what they keep of a picture, and what tells them apart."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from rmjax.errors import InputError
from rmjax.inputs import luma_chroma
from rmjax.simulate import (
    PARTS,
    draw_generator,
    kernels,
    simulate,
    simulate_groups,
    simulate_many,
)
from rmjax.simulate.generators import ACTIVATIONS
from rmjax.utils.platform import targeting

SIDE = 48


def pictures(count, height=SIDE, width=SIDE, seed=0):
    """Smooth random pictures with fine noise."""
    noise = np.random.default_rng(seed).random((2, count, height, width, 3))
    smooth = ndimage.gaussian_filter(noise[0], (0, 4, 4, 0))
    smooth = (smooth - smooth.min()) / np.ptp(smooth)
    return jnp.asarray(0.2 + 0.5 * smooth + 0.06 * noise[1], jnp.float32)


def keys(*shape, seed=0):
    return jax.random.split(jax.random.key(seed), shape)


@pytest.fixture(scope="module")
def many():
    """Sixteen generators, eight pictures each: pictures and images."""
    x = pictures(16 * 8).reshape(16, 8, SIDE, SIDE, 3)
    return np.asarray(x), np.asarray(jax.jit(simulate_many)(keys(16), keys(16, 8), x))


def test_images_are_of_256_levels(many):
    x, images = many
    assert images.shape == x.shape and images.dtype == np.float32
    assert images.min() >= 0 and images.max() <= 1
    np.testing.assert_allclose(images * 255, np.round(images * 255), atol=1e-3)


def test_a_generator_keeps_what_is_coarse_and_changes_what_is_fine(many):
    x, images = many
    coarse = [i.reshape(16, 8, 3, 16, 3, 16, 3).mean((3, 5)) for i in (x, images)]
    for picture, image in zip(*coarse, strict=True):
        assert np.corrcoef(picture.ravel(), image.ravel())[0, 1] > 0.9
    assert (np.abs(x - images).mean((1, 2, 3, 4)) > 1 / 255).all()


def test_images_of_a_generator_are_alike_and_others_are_not(many):
    """By a feature that was not made for it, on pictures that have nothing in common."""
    _, images = many
    flat = images.reshape(-1, SIDE, SIDE, 3)
    features = np.asarray(jax.jit(luma_chroma)(flat)).mean((1, 2))
    features = (features - features.mean(0)) / features.std(0)
    own = np.repeat(np.arange(16), 8)
    distance = np.linalg.norm(features[:, None] - features[None], axis=-1)
    np.fill_diagonal(distance, np.inf)
    assert (own[distance.argmin(1)] == own).mean() > 0.6  # chance is 0.06


def test_an_image_depends_on_its_own_key_and_its_generators_alone():
    x = pictures(3)
    run = jax.jit(simulate)
    first, image_keys = jax.random.key(1), keys(3, seed=2)
    all_three = run(first, image_keys, x)
    swapped = run(first, image_keys[::-1], x[::-1])
    np.testing.assert_allclose(swapped[::-1], all_three, atol=1.1 / 255)
    assert (np.asarray(run(first, image_keys, x)) == all_three).all()
    for other in (
        run(jax.random.key(5), image_keys, x),
        run(first, keys(3, seed=9), x),
    ):
        assert np.abs(other - all_three).max() > 5 / 255


@pytest.mark.parametrize("platform", ["gpu", "tpu"])
def test_side_by_side_as_on_accelerators_equals_one_after_another(platform, many):
    x, expected = many
    with targeting(platform):
        images = jax.jit(simulate_many)(keys(16), keys(16, 8), x)
    off = np.abs(np.asarray(images) - expected) > 1.1 / 255
    assert off.mean() < 1e-3


def test_each_group_has_a_generator_and_source_0_none():
    x, sources = pictures(8), jnp.array([0, 0, 1, 1, 2, 2, 0, 0])
    run = jax.jit(partial(simulate_groups, each=2))
    images = np.asarray(run(keys(8), x, sources))
    real = np.asarray(sources) == 0
    np.testing.assert_array_equal(images[real], x[real])
    assert (np.abs(images - x).max((1, 2, 3))[~real] > 1.5 / 255).all()
    # What a group looks like depends on its own keys and pictures alone.
    others = run(keys(8).at[:2].set(keys(2, seed=7)), x.at[6:].set(0.5), sources)
    np.testing.assert_allclose(others[2:6], images[2:6], atol=1.1 / 255)


def test_no_draw_leaves_the_numbers():
    """Of flat, black, white and wild pictures, by many generators."""
    side = 16
    wild = np.random.default_rng(0).random((1, side, side, 3)).round()
    x = np.stack([np.full((1, side, side, 3), level) for level in (0, 1, 0.5)])
    x = jnp.asarray(np.concatenate([*x, wild]), jnp.float32)
    run = jax.jit(lambda key: simulate(key, keys(4), x))
    for key in keys(60, seed=4):
        assert np.isfinite(run(key)).all()


def test_all_depths_and_kinds_are_drawn():
    drawn = jax.jit(jax.vmap(draw_generator))(keys(400))
    assert set(np.unique(drawn.depth)) == {0, 1, 2, 3}
    assert (np.bincount(drawn.activation, minlength=len(ACTIVATIONS)) > 20).all()
    np.testing.assert_allclose(drawn.hidden.sum((2, 3)), 0, atol=1e-4)
    np.testing.assert_allclose(drawn.tile.mean((1, 2)), 0, atol=1e-6)
    assert 0.2 < np.mean(np.abs(drawn.tile).max((1, 2, 3)) > 0) < 0.4


@pytest.mark.parametrize(
    "way, oracle",
    [
        (0, Image.Resampling.NEAREST),
        (1, Image.Resampling.BILINEAR),
        (2, Image.Resampling.BICUBIC),
    ],
)
def test_enlarging_is_pillows(way, oracle):
    planes = np.asarray(pictures(1, 16, 24)[0]).transpose(2, 0, 1)
    enlarged = kernels.enlarge(jnp.asarray(planes), kernels.INTERPOLATORS[way])
    inner = (slice(6, -6), slice(6, -6))  # Pillow shrinks its filter at the edges
    for plane, ours in zip(planes, enlarged, strict=True):
        theirs = np.asarray(Image.fromarray(plane).resize((48, 32), oracle))
        np.testing.assert_allclose(ours[inner], theirs[inner], atol=1e-5)


def test_halving_averages_blocks_and_unfolding_undoes_folding():
    x = jnp.moveaxis(pictures(2, 16, 24), -1, 0)
    blocks = np.asarray(x).reshape(3, 2, 8, 2, 12, 2).mean((3, 5))
    np.testing.assert_allclose(kernels.halve(x), blocks, rtol=1e-5)
    folded = kernels.fold(x)
    np.testing.assert_allclose(folded.reshape(4, 3, 2, 8, 12).mean(0), blocks, 1e-5)
    np.testing.assert_array_equal(kernels.unfold(folded), x)


def test_filters_are_scipys():
    rng = np.random.default_rng(0)
    planes = rng.normal(size=(3, 2, 16, 24)).astype(np.float32)
    weights = rng.normal(size=(5, 5, 3, 4)).astype(np.float32)
    each = [
        [
            [ndimage.correlate(x, weights[..., i, o], mode="nearest") for x in plane]
            for i, plane in enumerate(planes)
        ]
        for o in range(4)
    ]
    found = kernels.convolve(jnp.asarray(planes), jnp.asarray(weights))
    np.testing.assert_allclose(found, np.sum(each, axis=1), rtol=1e-4, atol=1e-4)
    own = kernels.filter_planes(jnp.asarray(planes), jnp.asarray(weights[..., 0]))
    np.testing.assert_allclose(own, each[0], rtol=1e-4, atol=1e-4)


def test_sides_that_cannot_be_halved_are_named():
    with pytest.raises(InputError, match="20 x 16 px .* multiples of 8"):
        simulate(jax.random.key(0), keys(1), jnp.zeros((1, 20, 16, 3)))


def test_a_generator_without_a_part_is_the_same_but_for_it():
    key = jax.random.key(5)
    draw = jax.jit(draw_generator, static_argnames="without")
    whole = draw(key)._asdict()
    for part, field in PARTS.items():
        without = draw(key, (part,))._asdict()
        assert not np.any(without.pop(field))
        for name, values in without.items():
            np.testing.assert_allclose(values, whole[name], rtol=1e-5, atol=1e-7)
    with pytest.raises(InputError, match="skip.*waves"):
        draw_generator(key, ("hum",))


@pytest.mark.slow
def test_a_tile_that_is_left_out_is_in_no_image():
    """Averaged over many images, a generator's tile stands out of what is left."""
    generators = keys(24, seed=3)
    drawn = jax.vmap(draw_generator)(generators)
    strongest = int(np.argmax(np.abs(drawn.tile).max((1, 2, 3))))
    args = generators[strongest], keys(32), pictures(32)
    render = jax.jit(simulate, static_argnames="without")
    difference = render(*args) - render(*args, without=("tile",))
    found = np.asarray(difference.mean(0)[:16, :16])
    tile = np.asarray(drawn.tile[strongest])
    assert np.corrcoef(found.ravel(), tile.ravel())[0, 1] > 0.9
