import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from rmjax.errors import InputError
from rmjax.losses import (
    SMOOTHING,
    adjust,
    compound_loss,
    contrastive_loss,
    get_loss,
    hard_accuracy,
    loss_terms,
    nearest_accuracy,
    soft_accuracy,
)
from rmjax.mixing import Mixed
from rmjax.models.heads import detection_from_attribution, gate


def test_gate_scales_real_and_synthetic_by_their_probabilities():
    attribution = jnp.array([[2.0, 4.0, -8.0]])
    detection = jnp.log(jnp.array([[0.25, 0.75]]))
    np.testing.assert_allclose(gate(attribution, detection), [[0.5, 3.0, -6.0]])


def test_compound_loss_of_hand_computed_numbers():
    # Group 0 is 0.25 real + 0.75 source 2; group 1 is source 1 alone.
    p_attribution = np.array([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]])
    p_detection = np.array([[0.4, 0.6], [0.2, 0.8]])
    sources = jnp.array([[0, 2], [1, 1]])
    weights = jnp.array([[0.25, 0.75], [0.3, 0.7]])
    logits = {"attribution": jnp.log(p_attribution), "detection": jnp.log(p_detection)}
    terms = loss_terms(*logits.values(), sources, weights)
    mixed = Mixed(jnp.zeros(2), weights, jnp.arange(4).reshape(2, 2))
    total = compound_loss(logits, sources.ravel(), mixed)
    attribution = -(0.25 * np.log(0.5) + 0.75 * np.log(0.25) + np.log(0.8)) / 2
    # Two synthetic sources: each counts one half.
    detection = -(0.25 * np.log(0.4) + 0.75 / 2 * np.log(0.6) + np.log(0.8) / 2) / 2
    np.testing.assert_allclose(terms["attribution"], attribution, rtol=1e-5)
    np.testing.assert_allclose(terms["detection"], detection, rtol=1e-5)
    np.testing.assert_allclose(total, attribution + detection, rtol=1e-5)


def test_without_detection_the_total_is_the_attribution_term():
    logits = jax.random.normal(jax.random.key(0), (4, 5))
    source = jnp.array([[0], [1], [3], [4]])
    outputs = {"attribution": logits, "detection": logits[:, :2]}
    total = compound_loss(outputs, source[:, 0], detects=False)
    terms = loss_terms(*outputs.values(), source, jnp.ones((4, 1)))
    assert total == terms["attribution"] < compound_loss(outputs, source[:, 0])


def test_detection_from_attribution_sums_the_synthetic_sources():
    attribution = jnp.array([[1.0, 2.0, -3.0], [400.0, 0.0, 0.0]])
    p = jax.nn.softmax(attribution)
    found = jax.nn.softmax(detection_from_attribution(attribution))
    np.testing.assert_allclose(found, [[q[0], q[1] + q[2]] for q in p], rtol=1e-6)


def _contrastive_by_hand(z, shares, temperature):
    """Equation 2 of Khosla et al., anchor by anchor."""
    z = z / np.linalg.norm(z, axis=1, keepdims=True)
    found = []
    for i in range(len(z)):
        others = [j for j in range(len(z)) if j != i]
        below = np.log(sum(np.exp(z[i] @ z[j] / temperature) for j in others))
        common = {j: shares[i] @ shares[j] for j in others}
        total = sum(c * (z[i] @ z[j] / temperature - below) for j, c in common.items())
        found.append(-total / sum(common.values()) if any(common.values()) else 0)
    return np.mean(found)


@pytest.mark.parametrize("members", [1, 2])
def test_contrastive_loss_is_that_of_its_equation(members):
    rng = np.random.default_rng(0)
    z = rng.normal(size=(7, 5)).astype(np.float32)
    sources = np.array([[0, 1], [1, 0], [0, 0], [2, 2], [1, 1], [3, 3], [0, 2]])
    weights = np.array([[0.3, 0.7]] * 7) if members == 2 else np.ones((7, 1))
    sources = sources[:, :members]  # without mixing, 2 and 3 are alone
    shares = np.einsum("nm,nms->ns", weights, np.eye(4)[sources])
    members = jnp.asarray(z), sources, weights, 4
    published = _contrastive_by_hand(z, shares, 0.07)
    np.testing.assert_allclose(contrastive_loss(*members), published, rtol=1e-4)
    milder = contrastive_loss(*members, temperature=0.3)
    np.testing.assert_allclose(milder, _contrastive_by_hand(z, shares, 0.3), rtol=1e-4)


def test_contrastive_loss_reaches_over_replicas():
    """Two of them together have the loss, and the gradient, of one with all samples."""
    z = jax.random.normal(jax.random.key(0), (8, 5))
    sources = jnp.arange(8)[:, None] % 3
    both = jax.value_and_grad(contrastive_loss)
    loss, grad = jax.jit(both, static_argnums=3)(z, sources, jnp.ones((8, 1)), 3)
    halves = jax.jit(
        jax.vmap(
            lambda z, s: both(z, s, jnp.ones((4, 1)), 3, "replicas"),
            axis_name="replicas",
        )
    )
    losses, grads = halves(z.reshape(2, 4, 5), sources.reshape(2, 4, 1))
    np.testing.assert_allclose(losses.mean(), loss, rtol=1e-5)
    # Each replica's is of the sum of both losses, by its own samples.
    np.testing.assert_allclose(grads.reshape(8, 5) / 2, grad, rtol=1e-3, atol=1e-5)


def test_nearest_accuracy_is_that_of_nearest_neighbours():
    """As scikit-learn finds them by cosine, of one replica and of two."""
    rng = np.random.default_rng(0)
    sources = np.repeat(np.arange(4), 5)
    z = jnp.asarray(rng.normal(size=(20, 6)) + 2 * np.eye(6)[sources], jnp.float32)
    finder = NearestNeighbors(n_neighbors=2, metric="cosine").fit(z)
    nearest = finder.kneighbors(z, return_distance=False)[:, 1]
    expected = np.mean(sources[nearest] == sources)
    assert 0.3 < expected < 0.95
    found = nearest_accuracy(z, sources[:, None], jnp.ones((20, 1)), 4)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    halves = jax.vmap(
        lambda z, s: nearest_accuracy(z, s, jnp.ones((10, 1)), 4, "replicas"),
        axis_name="replicas",
    )(z.reshape(2, 10, 6), sources.reshape(2, 10, 1))
    np.testing.assert_allclose(halves.mean(), expected, rtol=1e-6)


def test_what_content_tells_is_added_as_a_log_probability():
    """Semantic 0 shows sources 0 and 1 alone; the second sample is half of each."""
    shares = np.array([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]])
    semantics, weights = (
        jnp.array([[0, 0], [0, 1]]),
        jnp.array([[0.3, 0.7], [0.5, 0.5]]),
    )
    p = jax.nn.softmax(adjust(jnp.zeros((2, 3)), semantics, weights, shares))
    expected = np.array([[0.5, 0.5, 0], [0.25, 0.25, 0.5]])
    expected = (1 - SMOOTHING) * expected + SMOOTHING / 3
    np.testing.assert_allclose(p, expected, rtol=1e-5)


def test_even_shares_change_no_loss():
    logits = jax.random.normal(jax.random.key(0), (4, 5))
    sources, weights = jnp.array([[0], [1], [3], [4]]), jnp.ones((4, 1))
    adjusted = adjust(logits, jnp.zeros((4, 1), int), weights, np.full((1, 5), 0.2))
    found, expected = (
        loss_terms(x, logits[:, :2], sources, weights)["attribution"]
        for x in (adjusted, logits)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_unknown_loss_lists_the_choices():
    with pytest.raises(
        InputError, match="loss 'triplet'.*compound, ungated, attr.*contrastive"
    ):
        get_loss("triplet")


def test_compound_loss_stays_finite_at_large_logits():
    logits = jnp.array([[1e4, -1e4, 0.0]])

    def loss(a):
        outputs = {"attribution": a, "detection": a[:, :2]}
        return compound_loss(outputs, jnp.array([1]))

    value, grad = jax.value_and_grad(loss)(logits)
    assert np.isfinite(value) and np.isfinite(grad).all()


def test_merged_members_equal_one_member():
    logits = jax.random.normal(jax.random.key(0), (4, 5))
    detection = jax.random.normal(jax.random.key(1), (4, 2))
    source = jnp.array([[0], [1], [3], [4]])
    outputs = {"attribution": logits, "detection": detection}
    one = compound_loss(outputs, source[:, 0])
    weights = jnp.tile(jnp.array([0.2, 0.3, 0.5]), (4, 1))
    places = jnp.tile(jnp.arange(4)[:, None], 3)
    split = compound_loss(outputs, source[:, 0], Mixed(logits, weights, places))
    np.testing.assert_allclose(one, split, rtol=1e-6)


def test_soft_accuracy_weighs_the_members():
    p = jnp.array([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]])
    accuracy = soft_accuracy(
        jnp.log(p), jnp.array([[0, 1], [2, 0]]), jnp.array([[0.25, 0.75], [1.0, 0.0]])
    )
    np.testing.assert_allclose(accuracy, (0.25 * 0.5 + 0.75 * 0.3 + 0.8) / 2, rtol=1e-6)


@pytest.mark.parametrize(
    ("sources", "weights", "predicted", "expected"),
    [
        ([0, 1], [0.4, 0.6], 1, 1.0),
        ([0, 1], [0.6, 0.4], 1, 0.0),
        # Members of one source add up: 0.3 + 0.3 of source 2 beat 0.4 of source 1.
        ([2, 1, 2], [0.3, 0.4, 0.3], 2, 1.0),
        ([2, 1, 2], [0.3, 0.4, 0.3], 1, 0.0),
    ],
)
def test_hard_accuracy(sources, weights, predicted, expected):
    logits = jax.nn.one_hot(jnp.array([predicted]), 3)
    accuracy = hard_accuracy(logits, jnp.array([sources]), jnp.array([weights]))
    assert float(accuracy) == expected
