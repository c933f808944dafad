import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmjax.errors import InputError
from rmjax.mixing import MIXINGS, get_mixing, mix, sample_weights


def make_keys(groups, seed=0):
    return jax.random.split(jax.random.key(seed), groups)


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


def test_weights_of_a_group_depend_on_its_key_alone():
    keys = make_keys(8)
    whole = sample_weights(keys, 2, 0.4)
    halves = [sample_weights(part, 2, 0.4) for part in (keys[:4], keys[4:])]
    np.testing.assert_array_equal(whole, np.concatenate(halves))
    assert len(np.unique(whole[:, 0])) == 8


@pytest.mark.parametrize(("members", "beta"), [(0, 0.4), (2, -0.1)])
def test_weights_reject_bad_numbers(members, beta):
    bad = str(beta if members else members)
    with pytest.raises(InputError, match=bad):
        sample_weights(make_keys(2), members, beta)


def test_mix_combines_adjacent_members():
    x = jnp.arange(12.0).reshape(6, 2)
    weights = jnp.array([[0.25, 0.75], [1.0, 0.0], [0.5, 0.5]])
    expected = [[1.5, 2.5], [4.0, 5.0], [9.0, 10.0]]
    np.testing.assert_allclose(mix(x, weights), expected)


def test_mix_keeps_the_type_and_sums_in_the_wider_one():
    x = jnp.array([[256.0], [1.0]], jnp.bfloat16)  # 257 is no bfloat16; 128.5 is
    mixed = mix(x, jnp.full((1, 2), 0.5, jnp.float32))
    assert mixed.dtype == jnp.bfloat16
    assert float(mixed[0, 0]) == float(jnp.bfloat16(128.5))


def test_mix_of_maps_and_of_vectors_is_the_same_function():
    x = jax.random.normal(jax.random.key(0), (6, 4, 4, 3))
    weights = sample_weights(make_keys(2), 3, 0.4)
    pooled_after = mix(x, weights).mean(axis=(1, 2))
    pooled_before = mix(x.mean(axis=(1, 2)), weights)
    np.testing.assert_allclose(pooled_after, pooled_before, atol=1e-6)


@pytest.mark.parametrize("name", MIXINGS)
def test_every_mixing_runs_jitted_and_has_gradients(name):
    mixing = get_mixing(name)
    h = jax.random.normal(jax.random.key(1), (8, 5))

    @jax.jit
    def total(h, keys):
        mixed, weights = mixing.mix_fn(keys, h, 2, 0.4)
        return (mixed**2).sum(), (mixed, weights)

    keys = make_keys(4)
    (_, (mixed, weights)), grad = jax.value_and_grad(total, has_aux=True)(h, keys)
    assert mixed.shape[0] == weights.shape[0]
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-6)
    members = weights.shape[1]
    np.testing.assert_allclose(
        mixed, (weights[..., None] * h.reshape(-1, members, 5)).sum(1), atol=1e-5
    )
    expected = 2 * weights.reshape(-1, 1) * np.repeat(mixed, members, axis=0)
    np.testing.assert_allclose(grad, expected, atol=1e-5)


def test_none_leaves_items_alone():
    h = jnp.arange(6.0).reshape(3, 2)
    mixed, weights = get_mixing("none").mix_fn(make_keys(3), h, 1, None)
    np.testing.assert_array_equal(mixed, h)
    np.testing.assert_array_equal(weights, np.ones((3, 1)))


def test_levels_of_the_registry():
    levels = {name: mixing.levels for name, mixing in MIXINGS.items()}
    assert levels["repmix"] is None
    assert levels["mixup"] == (0,)
    assert len(levels["manifold"]) > 1
    assert set(levels["manifold"]) <= set(range(7))


def test_unknown_mixing_lists_the_choices():
    with pytest.raises(InputError, match="cutmix.*repmix, none, mixup, manifold"):
        get_mixing("cutmix")
