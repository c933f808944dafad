"""The compound loss over mixed samples, what it is compared with, and accuracies.

Source 0 is always `real`. `sources` and `weights` are `[samples, members]`: which
sources went into a sample's representation, and in what proportion. Without mixing
there is one member, with weight one.

References:
    Bui, Yu, Collomosse, RepMix, ECCV 2022, https://arxiv.org/abs/2207.02063
    Khosla et al., Supervised Contrastive Learning, NeurIPS 2020,
        https://arxiv.org/abs/2004.11362 (equation 2)
    Yang et al., Deepfake Network Architecture Attribution (DNA-Det), AAAI 2022,
        https://arxiv.org/abs/2202.13417: the contrastive loss beside cross-entropy
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from rmjax.errors import InputError


@dataclass(frozen=True)
class Loss:
    """What a training loss asks of the network.

    Attributes:
        gated: whether detection scales the attribution logits, see `gate`.
        detects: whether there is a detection head, and a term for it.
        contrasts: whether `contrastive_loss` is added.
    """

    gated: bool
    detects: bool
    contrasts: bool = False


TEMPERATURE = 0.07  # of `contrastive_loss`, as Khosla et al. and DNA-Det have it

# compound is published; the others are what it is compared with.
LOSSES = {
    "compound": Loss(gated=True, detects=True),
    "ungated": Loss(gated=False, detects=True),
    "attribution": Loss(gated=False, detects=False),
    "contrastive": Loss(gated=False, detects=False, contrasts=True),
}


def get_loss(name: str) -> Loss:
    """Return the loss called `name`.

    Raises:
        InputError: there is none of that name.
    """
    if name not in LOSSES:
        raise InputError(f"unknown loss '{name}'; choose from {', '.join(LOSSES)}")
    return LOSSES[name]


def compound_loss(
    attribution: jax.Array,
    detection: jax.Array,
    sources: jax.Array,
    weights: jax.Array,
    *,
    detects: bool = True,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Average attribution and detection cross-entropy over mixed samples.

    Args:
        attribution: logits `[samples, num_sources]`, gated as published or not,
            `num_sources` at least 2.
        detection: logits `[samples, 2]` of real and synthetic.
        sources: int `[samples, members]`.
        weights: `[samples, members]`, rows sum to one.
        detects: whether the detection term is part of the total.

    Returns:
        The total loss, and its terms `attribution` and `detection`, all scalars.
        In detection a synthetic member counts 1 / (num_sources - 1), as there are
        that many times more of them; the mean over samples is a plain one and is not
        divided by these class weights.
    """
    num_sources = attribution.shape[-1]
    synthetic = (sources > 0).astype(jnp.int32)
    class_weights = jnp.where(synthetic, 1 / (num_sources - 1), 1.0)
    terms = {
        "attribution": _mean_cross_entropy(attribution, sources, weights),
        "detection": _mean_cross_entropy(detection, synthetic, weights * class_weights),
    }
    total = terms["attribution"] + (terms["detection"] if detects else 0)
    return total, terms


def contrastive_loss(
    embedding: jax.Array,
    sources: jax.Array,
    weights: jax.Array,
    num_sources: int,
    axis_name: str | None = None,
) -> jax.Array:
    """Pull the embeddings of a source together, and those of others apart.

    Each sample is to find those of its source among all others, by the cosine of their
    embeddings. Mixed samples belong together as far as they have sources in common.

    Args:
        embedding: `[samples, dimensions]`.
        sources: int `[samples, members]`.
        weights: `[samples, members]`, rows sum to one.
        num_sources: how many sources there are.
        axis_name: mapped axis whose replicas' samples are among the others too.

    Returns:
        Scalar, the mean over samples; one that is alone of its source counts zero.
    """
    z = embedding / (jnp.linalg.norm(embedding, axis=-1, keepdims=True) + 1e-6)
    shares = jnp.sum(weights[..., None] * jax.nn.one_hot(sources, num_sources), axis=1)
    others, first = (z, shares), 0
    if axis_name is not None:
        others = jax.lax.all_gather(others, axis_name, tiled=True)
        first = jax.lax.axis_index(axis_name) * len(z)
    itself = jnp.arange(len(others[0])) == (first + jnp.arange(len(z)))[:, None]
    logits = jnp.where(itself, -jnp.inf, z @ others[0].T / TEMPERATURE)
    log_p = jnp.where(itself, 0, jax.nn.log_softmax(logits, axis=-1))
    common = jnp.where(itself, 0, shares @ others[1].T)
    total = jnp.sum(common, axis=-1)
    found = jnp.sum(common * log_p, axis=-1) / jnp.where(total > 0, total, 1)
    return -jnp.mean(found)


def soft_accuracy(
    attribution: jax.Array, sources: jax.Array, weights: jax.Array
) -> jax.Array:
    """Return the mean predicted probability of the sources that were mixed.

    Args:
        attribution: gated logits `[samples, num_sources]`.
        sources: int `[samples, members]`.
        weights: `[samples, members]`, rows sum to one.

    Returns:
        Scalar in [0, 1]: mean over samples of sum_i w_i * softmax(attribution)[y_i].
    """
    p = jax.nn.softmax(attribution, axis=-1)
    p_members = jnp.take_along_axis(p, sources, axis=-1)
    return jnp.mean(jnp.sum(weights * p_members, axis=-1))


def hard_accuracy(
    attribution: jax.Array, sources: jax.Array, weights: jax.Array
) -> jax.Array:
    """Return how often the prediction is the source with the largest total weight.

    Members of the same source add up. Arguments as in `soft_accuracy`; of sources
    with equal weight the lowest counts. Scalar in [0, 1].
    """
    one_hot = jax.nn.one_hot(sources, attribution.shape[-1])
    dominant = jnp.argmax(jnp.sum(weights[..., None] * one_hot, axis=1), axis=-1)
    return jnp.mean(jnp.argmax(attribution, axis=-1) == dominant)


def _mean_cross_entropy(
    logits: jax.Array, labels: jax.Array, weights: jax.Array
) -> jax.Array:
    """Average over samples sum_i weights_i * CE(logits, labels_i)."""
    log_p = jax.nn.log_softmax(logits, axis=-1)
    log_p_members = jnp.take_along_axis(log_p, labels, axis=-1)
    return -jnp.mean(jnp.sum(weights * log_p_members, axis=-1))
