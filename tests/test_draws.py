"""Random numbers for pixels: distribution, and dependence on key and place alone."""

import jax
import numpy as np
import pytest
from scipy import stats

from rmjax.corruptions import primitives

SHAPE = (64, 64, 3)


def sample(draw, count=16):
    keys = jax.random.split(jax.random.key(0), count)
    return np.asarray(jax.jit(jax.vmap(lambda key: draw(key, SHAPE)))(keys))


@pytest.mark.parametrize(
    "draw, distribution", [(primitives.uniform, "uniform"), (primitives.normal, "norm")]
)
def test_draws_are_distributed_as_they_say(draw, distribution):
    assert stats.kstest(sample(draw).ravel(), distribution).pvalue > 0.01


def test_every_byte_of_the_bits_is_uniform():
    values = sample(primitives.bits).ravel()
    for shift in (0, 8, 16, 24):
        counts = np.bincount((values >> shift) & 255, minlength=256)
        assert stats.chisquare(counts).pvalue > 0.001


def test_neighbours_and_keys_are_not_correlated():
    values = sample(primitives.uniform).reshape(16, -1)
    bound = 4.5 / np.sqrt(values.shape[1])
    for lag in (1, 3, 192):
        for row in values:
            assert abs(np.corrcoef(row[:-lag], row[lag:])[0, 1]) < bound
    between = np.corrcoef(values) - np.eye(16)
    assert np.abs(between).max() < bound


def test_vmap_jit_and_a_plain_call_agree():
    keys = jax.random.split(jax.random.key(0), 16)
    alone = np.stack([primitives.bits(key, SHAPE) for key in keys[:2]])
    np.testing.assert_array_equal(sample(primitives.bits)[:2], alone)


def test_normal_draws_are_finite_at_both_ends(monkeypatch):
    for extreme in (0, 2**32 - 1):
        monkeypatch.setattr(
            primitives,
            "bits",
            lambda key, shape, e=extreme: np.full(shape, e, np.uint32),
        )
        assert np.isfinite(primitives.normal(jax.random.key(0), (1,))).all()
