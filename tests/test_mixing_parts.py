"""Mixes of regions, places, channels, statistics and spectra."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmjax.errors import InputError
from rmjax.mixing import MIXINGS, make_mixing

SETTINGS = {"level": 4, "members": 2, "beta": 1.0, "block": 4}
SETTINGS |= {"partners": "any", "band": (0.0, 1.0)}
PARTS = ("cutmix", "channels", "tokens")
OWN = ("mixstyle", "amplitude", "phase")  # the label stays that of the image


def run(name, h, images=12, seed=0, **changes):
    keys = jax.random.split(jax.random.key(seed), images)
    return jax.jit(make_mixing(name, **(SETTINGS | changes)).mix_fn)(keys, h)


def noise(images=12, size=8, channels=6):
    return jax.random.normal(jax.random.key(1), (images, size, size, channels))


@pytest.mark.parametrize("name", PARTS)
def test_every_number_is_a_member_s_and_labels_count_them(name):
    h = noise()
    mixed = run(name, h)
    members = np.asarray(h)[np.asarray(mixed.places)]  # [samples, members, H, W, C]
    taken = members == np.asarray(mixed.h)[:, None]
    assert (taken.sum(axis=1) == 1).all()
    shares = taken.mean(axis=(2, 3, 4))
    np.testing.assert_allclose(mixed.weights, shares, atol=1e-6)
    # Both members come up, and the samples differ.
    assert 0.1 < shares[:, 0].mean() < 0.9
    assert shares[:, 0].std() > 0.1


@pytest.mark.parametrize(
    ("name", "axes"), [("cutmix", (3,)), ("tokens", (3,)), ("channels", (1, 2))]
)
def test_parts_are_whole(name, axes):
    h = noise()
    mixed = run(name, h)
    first = np.asarray(mixed.h) == np.asarray(h)[np.asarray(mixed.places)[:, 0]]
    assert (first.all(axis=axes) == first.any(axis=axes)).all()


def test_a_box_is_a_rectangle():
    h = noise(images=400, size=16, channels=1)
    mixed = run("cutmix", h, images=400)
    inside = np.asarray(mixed.h) == np.asarray(h)[np.asarray(mixed.places)[:, 1]]
    for box in inside[..., 0]:
        rows, columns = box.any(axis=1), box.any(axis=0)
        np.testing.assert_array_equal(box, rows[:, None] & columns)
        for line in (rows, columns):
            assert np.count_nonzero(np.diff(line)) <= 2
    assert (inside.any(axis=(1, 2, 3))).mean() > 0.9


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("name", ["channels", "tokens"])
def test_parts_of_other_numbers_of_members(name, members):
    mixed = run(name, noise(), members=members)
    assert mixed.h.shape == (12 // members, 8, 8, 6)
    assert mixed.weights.shape == mixed.places.shape == (12 // members, members)
    np.testing.assert_allclose(mixed.weights.sum(axis=1), 1, atol=1e-6)


def test_channels_of_vectors():
    h = noise()[:, 0, 0]
    mixed = run("channels", h, level=5)
    members = np.asarray(h)[np.asarray(mixed.places)]
    assert (members == np.asarray(mixed.h)[:, None]).any(axis=1).all()


@pytest.mark.parametrize("name", OWN)
def test_labels_stay_where_content_is_mixed(name):
    h = noise()
    mixed = run(name, h)
    np.testing.assert_array_equal(mixed.weights, np.ones((12, 1)))
    np.testing.assert_array_equal(mixed.places, np.arange(12)[:, None])
    changed = np.abs(np.asarray(mixed.h - h)).max(axis=(1, 2, 3)) > 1e-3
    assert changed.any()
    assert jnp.isfinite(mixed.h).all()


def test_mixstyle_moves_mean_and_deviation_between_two_images():
    h = noise() * jnp.arange(1.0, 13)[:, None, None, None] + 5
    mixed = np.asarray(run("mixstyle", h).h)

    def standardise(x):
        return (x - x.mean((1, 2), keepdims=True)) / x.std((1, 2), keepdims=True)

    np.testing.assert_allclose(
        standardise(mixed), standardise(np.asarray(h)), atol=1e-3
    )
    before, after = np.asarray(h).std((1, 2)), mixed.std((1, 2))
    blocks = before.reshape(3, 4, -1)  # partners are of the same block
    low, high = blocks.min(1, keepdims=True), blocks.max(1, keepdims=True)
    after = after.reshape(3, 4, -1)
    assert ((low - 1e-3 < after) & (after < high + 1e-3)).all()
    kept = np.isclose(after.reshape(12, -1), before, rtol=1e-3).all(axis=1)
    assert 0 < kept.sum() < 12  # about half


def spectrum(x):
    return np.fft.fft2(np.asarray(x, np.float64), axes=(1, 2))


def test_amplitude_keeps_phases_and_phase_keeps_amplitudes():
    h = noise() + 3
    before = spectrum(h)
    moved = spectrum(run("amplitude", h).h)
    np.testing.assert_allclose(
        moved / np.abs(moved), before / np.abs(before), atol=1e-3
    )
    assert not np.allclose(np.abs(moved), np.abs(before), rtol=0.05)
    moved = spectrum(run("phase", h).h)
    np.testing.assert_allclose(np.abs(moved), np.abs(before), rtol=1e-3, atol=1e-3)
    assert not np.allclose(moved, before, rtol=0.05)


def test_means_are_mixed_with_their_signs_or_not_at_all():
    """So an image in [-1, 1] is treated as the same image in [0, 1] would be."""
    h = noise() / 10 + jnp.linspace(-1, 1, 12)[:, None, None, None]
    for name in ("amplitude", "phase"):
        moved = run(name, h, band=(0, 1)).h
        np.testing.assert_allclose(
            run(name, (h + 1) / 2, band=(0, 1)).h, (moved + 1) / 2, atol=1e-5
        )
    stays = np.allclose(moved.mean((1, 2)), h.mean((1, 2)), atol=1e-5)
    assert stays and not np.allclose(moved, h, atol=0.01)


@pytest.mark.parametrize("name", ["amplitude", "phase"])
def test_only_the_band_is_mixed(name):
    h = noise(size=16)
    before, after = spectrum(h), spectrum(run(name, h, band=(0.1, 0.2)).h)
    rows, columns = np.meshgrid(np.fft.fftfreq(16), np.fft.fftfreq(16), indexing="ij")
    radius = np.hypot(rows, columns)
    inside = (radius >= 0.1) & (radius <= 0.2)
    np.testing.assert_allclose(after[:, ~inside], before[:, ~inside], atol=1e-3)
    assert np.abs(after - before)[:, inside].mean() > 0.1


def test_phases_of_nothing_are_refused():
    with pytest.raises(InputError, match="holds nothing but the mean of maps of 8 x 8"):
        run("phase", noise(), band=(0.0, 0.1))


@pytest.mark.parametrize("name", [n for n in MIXINGS if n not in ("none",)])
def test_mixes_depend_on_their_unit_alone(name):
    """Half of the images give half of the samples: so devices don't matter."""
    h = noise(images=8)
    mix_fn = jax.jit(make_mixing(name, **SETTINGS).mix_fn)
    keys = jax.random.split(jax.random.key(0), 8)
    whole = mix_fn(keys, h)
    parts = [mix_fn(keys[i : i + 4], h[i : i + 4]) for i in (0, 4)]
    joined = np.concatenate([part.h for part in parts])
    np.testing.assert_allclose(joined, whole.h, atol=1e-5)
    weights = np.concatenate([part.weights for part in parts])
    np.testing.assert_allclose(weights, whole.weights, atol=1e-6)


@pytest.mark.parametrize("name", MIXINGS)
def test_mixes_keep_half_precision(name):
    h = noise(images=4, size=4).astype(jnp.bfloat16)
    mixed = run(name, h, images=4)
    assert mixed.h.dtype == jnp.bfloat16
    assert mixed.weights.dtype == jnp.float32
