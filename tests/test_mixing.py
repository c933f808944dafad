import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmjax.errors import InputError
from rmjax.mixing import (
    MIXINGS,
    combine,
    combine_places,
    make_mixing,
    sample_partners,
    sample_weights,
)

SETTINGS = {"level": 4, "members": 2, "beta": 0.4, "block": 4}
SETTINGS |= {"partners": "any", "band": (0.0, 0.1)}

# Those whose samples are convex combinations of whole representations.
CONVEX = "repmix none mixup manifold pairs manifold_pairs factorial".split()


def make(name, **changes):
    return make_mixing(name, **(SETTINGS | changes))


def make_keys(images, seed=0):
    return jax.random.split(jax.random.key(seed), images)


@pytest.mark.parametrize(("members", "beta"), [(1, 0.4), (2, 0.4), (5, 3.0), (5, None)])
def test_weights_are_on_the_simplex(members, beta):
    weights = sample_weights(make_keys(8), members, beta)
    assert weights.shape == (8, members)
    assert weights.dtype == jnp.float32
    assert (weights >= 0).all()
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("beta", [0.4, 3.0, 0])
def test_weights_have_the_dirichlet_moments(beta):
    members, alpha = 3, beta or 1.0
    weights = np.asarray(sample_weights(make_keys(40_000), members, beta))
    # Dirichlet(a, a, a): mean 1/3, variance (1/3 * 2/3) / (3a + 1).
    np.testing.assert_allclose(weights.mean(axis=0), 1 / 3, atol=0.01)
    variance = (2 / 9) / (3 * alpha + 1)
    np.testing.assert_allclose(weights.var(axis=0), variance, rtol=0.05)


@pytest.mark.parametrize(("members", "beta"), [(2, 0.4), (3, 1.0), (2, 3.0)])
def test_weights_are_those_of_jax(members, beta):
    keys = make_keys(20_000)
    alpha = jnp.full(members, beta)
    expected = jax.vmap(lambda key: jax.random.dirichlet(key, alpha))(keys)
    off = jnp.abs(sample_weights(keys, members, beta) - expected).max(axis=1)
    assert (off < 1e-5).mean() > 0.999


def test_weights_of_a_group_depend_on_its_key_alone():
    keys = make_keys(8)
    whole = sample_weights(keys, 2, 0.4)
    halves = [sample_weights(part, 2, 0.4) for part in (keys[:4], keys[4:])]
    np.testing.assert_array_equal(whole, np.concatenate(halves))
    assert len(np.unique(whole[:, 0])) == 8


def test_mix_combines_adjacent_members():
    x = jnp.arange(12.0).reshape(6, 2)
    weights = jnp.array([[0.25, 0.75], [1.0, 0.0], [0.5, 0.5]])
    expected = [[1.5, 2.5], [4.0, 5.0], [9.0, 10.0]]
    np.testing.assert_allclose(combine(x, weights), expected)


def test_mix_keeps_the_type_and_sums_in_the_wider_one():
    x = jnp.array([[256.0], [1.0]], jnp.bfloat16)  # 257 is no bfloat16; 128.5 is
    mixed = combine(x, jnp.full((1, 2), 0.5, jnp.float32))
    assert mixed.dtype == jnp.bfloat16
    assert float(mixed[0, 0]) == float(jnp.bfloat16(128.5))


def test_mix_of_maps_and_of_vectors_is_the_same_function():
    x = jax.random.normal(jax.random.key(0), (6, 4, 4, 3))
    weights = sample_weights(make_keys(2), 3, 0.4)
    pooled_after = combine(x, weights).mean(axis=(1, 2))
    pooled_before = combine(x.mean(axis=(1, 2)), weights)
    np.testing.assert_allclose(pooled_after, pooled_before, atol=1e-6)


@pytest.mark.parametrize("members", [1, 2, 3])
@pytest.mark.parametrize("name", CONVEX)
def test_convex_mixings_say_what_they_mixed(name, members):
    """Against NumPy: the samples, and where their gradient goes."""
    mixing = make(name, members=members)
    h = jax.random.normal(jax.random.key(1), (12, 5))

    @jax.jit
    def total(h, keys):
        mixed = mixing.mix_fn(keys, h)
        return (mixed.h**2).sum(), mixed

    (_, mixed), grad = jax.value_and_grad(total, has_aux=True)(h, make_keys(12))
    samples, weights, places = map(np.asarray, mixed)
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-6)
    assert places.dtype == np.int32
    dense = np.zeros((len(samples), 12), np.float32)
    for i, row in enumerate(places):
        dense[i, row] += weights[i]
    np.testing.assert_allclose(samples, dense @ h, atol=1e-5)
    np.testing.assert_allclose(grad, dense.T @ (2 * samples), atol=1e-5)


def test_groups_and_pairs_have_their_numbers_of_samples():
    h, keys = jnp.ones((12, 5)), make_keys(12)
    assert len(make("repmix", members=3).mix_fn(keys, h).h) == 4
    assert len(make("pairs", members=3).mix_fn(keys, h).h) == 12
    found = {name: (make(name).drawn, make(name).unit) for name in MIXINGS}
    assert found["repmix"] == found["mixup"] == found["manifold"] == (2, 2)
    assert found["pairs"] == found["manifold_pairs"] == found["mixstyle"] == (1, 4)
    assert found["none"] == (1, 1)
    assert found["factorial"] == (4, 4)


@pytest.mark.parametrize(("members", "block"), [(2, 2), (2, 16), (4, 5), (5, 5)])
def test_partners_are_distinct_cyclic_shifts_of_a_block(members, block):
    places = np.asarray(sample_partners(make_keys(200), members, block))
    images = np.arange(200 * block)
    np.testing.assert_array_equal(places[:, 0], images)
    assert (places // block == images[:, None] // block).all()
    for column in places.T:  # everybody is a partner once
        np.testing.assert_array_equal(np.sort(column), images)
    shifts = ((places - images[:, None]) % block).reshape(200, block, members)
    assert (shifts == shifts[:, :1]).all()
    assert all(len(set(row)) == members for row in shifts[:, 0].tolist())
    # Every shift that there is comes up.
    assert set(shifts[..., 1:].ravel()) == set(range(1, block))


def test_pairs_of_a_block_do_not_depend_on_the_rest_of_the_batch():
    mixing, keys = make("pairs", members=3), make_keys(16)
    h = jax.random.normal(jax.random.key(1), (16, 5))
    whole = mixing.mix_fn(keys, h)
    parts = [mixing.mix_fn(keys[i : i + 4], h[i : i + 4]) for i in range(0, 16, 4)]
    for i, part in enumerate(parts):
        np.testing.assert_array_equal(part.h, whole.h[4 * i : 4 * i + 4])
        np.testing.assert_array_equal(part.places + 4 * i, whole.places[4 * i :][:4])
    assert len(np.unique(np.asarray(whole.weights)[:, 0])) == 16


def test_groups_are_pairs_of_known_places():
    x = jax.random.normal(jax.random.key(0), (6, 4, 4, 3))
    weights = sample_weights(make_keys(2), 3, 0.4)
    places = jnp.array([[0, 1, 2], [3, 4, 5]])
    expected = combine(x, weights)
    np.testing.assert_allclose(combine_places(x, weights, places), expected, atol=1e-6)


def test_none_leaves_items_alone():
    h = jnp.arange(6.0).reshape(3, 2)
    mixed = make("none").mix_fn(make_keys(3), h)
    np.testing.assert_array_equal(mixed.h, h)
    np.testing.assert_array_equal(mixed.weights, np.ones((3, 1)))
    np.testing.assert_array_equal(mixed.places[:, 0], np.arange(3))


def test_factorial_crosses_sources_with_semantics():
    weights = np.asarray(
        make("factorial").mix_fn(make_keys(40_000), jnp.ones((40_000, 1))).weights
    )
    crossed = weights.reshape(-1, 2, 2)  # source, semantic
    of_source, of_semantic = crossed.sum(2)[:, 0], crossed.sum(1)[:, 0]
    expected = np.einsum("ga,gb->gab", crossed.sum(2), crossed.sum(1))
    np.testing.assert_allclose(crossed, expected, atol=1e-6)
    # 10,000 samples: four standard errors. Two images alone have a correlation of 1.
    assert abs(np.corrcoef(of_source, of_semantic)[0, 1]) < 0.04
    assert of_source.var() == pytest.approx(1 / 4 / (2 * 0.4 + 1), rel=0.05)


def test_levels_of_the_registry():
    levels = {name: make(name, level=4).levels for name in MIXINGS}
    assert levels["repmix"] == levels["pairs"] == (4,)
    assert levels["mixup"] == levels["cutmix"] == levels["amplitude"] == (0,)
    assert len(levels["manifold"]) > 1
    assert set(levels["manifold"]) <= set(range(7))


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("stir", {}, "stir.*repmix, none, mixup, manifold, pairs"),
        ("tokens", {"level": 5}, "mix.level = 5.*0 to 4"),
        ("pairs", {"partners": "same_source"}, "mix.partners = 'same_source'"),
        ("factorial", {"partners": "same_source"}, "'factorial' finds its own"),
        ("amplitude", {"band": (0.2, 0.1)}, "mix.band = .0.2, 0.1.*least"),
        ("repmix", {"level": 9}, "mix.level = 9.*0 to 6"),
        ("repmix", {"members": 0}, "mix.members = 0"),
        ("repmix", {"beta": -0.1}, "mix.beta = -0.1"),
        ("pairs", {"members": 5}, "mix.members = 5 is more than mix.block = 4"),
        ("pairs", {"block": 0}, "mix.members = 2 is more than mix.block = 0"),
    ],
)
def test_bad_settings_are_named(name, changes, message):
    with pytest.raises(InputError, match=message):
        make(name, **changes)
