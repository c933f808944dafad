import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rmjax.experiment.optim import make_optimizer, make_schedule


def test_schedule_falls_after_each_epoch():
    schedule = make_schedule(1e-4, 0.85, 10)
    expected = {0: 1e-4, 9: 1e-4, 10: 0.85e-4, 19: 0.85e-4, 20: 0.7225e-4}
    for step, lr in expected.items():
        np.testing.assert_allclose(schedule(step), lr, rtol=1e-6)
        np.testing.assert_allclose(jax.jit(schedule)(jnp.int32(step)), lr, rtol=1e-6)


def test_schedule_counts_steps_beyond_float32():
    steps = 20_000_001  # not a float32
    schedule = make_schedule(1.0, 0.5, steps)
    assert float(schedule(jnp.int32(steps - 1))) == 1.0
    assert float(schedule(jnp.int32(steps))) == 0.5


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_optimizer_is_adam_with_decay_in_the_gradient(weight_decay):
    """Against Adam written out in NumPy, on a vector and a scalar parameter."""
    b1, b2, eps, lr = 0.9, 0.99, 1e-3, 0.1
    params = {"w": np.array([1.0, -2.0, 0.5]), "b": np.array(3.0)}
    expected = {k: v.copy() for k, v in params.items()}
    tx = make_optimizer(lr, b1=b1, b2=b2, eps=eps, weight_decay=weight_decay)
    state = tx.init(params)
    moments = {k: (0.0, 0.0) for k in params}
    rng = np.random.default_rng(0)
    for step in range(1, 6):
        grads = {k: rng.standard_normal(v.shape) for k, v in params.items()}
        updates, state = tx.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        for k, g in grads.items():
            g = g + weight_decay * expected[k]
            m = b1 * moments[k][0] + (1 - b1) * g
            v = b2 * moments[k][1] + (1 - b2) * g**2
            moments[k] = m, v
            root = np.sqrt(v / (1 - b2**step)) + eps
            expected[k] = expected[k] - lr * m / (1 - b1**step) / root
    for k in params:
        np.testing.assert_allclose(params[k], expected[k], rtol=1e-5)


def test_optimizer_follows_the_schedule():
    tx = make_optimizer(make_schedule(1.0, 0.5, 1), weight_decay=0.0)
    params = jnp.zeros(1)
    state, sizes = tx.init(params), []
    for _ in range(3):
        updates, state = tx.update(jnp.ones(1), state, params)
        sizes.append(float(updates[0]))
    np.testing.assert_allclose(sizes, [-1.0, -0.5, -0.25], rtol=1e-4)
