"""The compound loss over mixed samples, what it is compared with, and accuracies.

Source 0 is always `real`. Where `sources` and `weights` are `[samples, members]`, they
say which sources went into a sample's representation, and in what proportion:
`label_members` gives both. Without mixing there is one member, with weight one.

References:
    Bui, Yu, Collomosse, RepMix, ECCV 2022, https://arxiv.org/abs/2207.02063
    Khosla et al., Supervised Contrastive Learning, NeurIPS 2020,
        https://arxiv.org/abs/2004.11362 (equation 2)
    Yang et al., Deepfake Network Architecture Attribution (DNA-Det), AAAI 2022,
        https://arxiv.org/abs/2202.13417: the contrastive loss beside cross-entropy
    Menon et al., Long-tail Learning via Logit Adjustment, ICLR 2021,
        https://arxiv.org/abs/2007.07314: `adjust`, of whole classes
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from rmjax.errors import InputError
from rmjax.mixing import Mixed, mix_labels
from rmjax.utils.choose import choose

T = TypeVar("T", jax.Array, float)


@dataclass(frozen=True)
class Loss:
    """What a training loss asks of the network.

    Attributes:
        gated: whether detection scales the attribution logits, see `gate`.
        detects: whether there is a detection head, and a term for it.
        attributes: whether there is an attribution head, and a term for it; without, a
            network has no heads at all.
        contrasts: whether `contrastive_loss` is added.
        adjusts: whether `adjust` takes the semantics of the images into account.
        temperature: of `contrastive_loss`.
    """

    gated: bool
    detects: bool
    attributes: bool = True
    contrasts: bool = False
    adjusts: bool = False
    temperature: float = 0.07  # as Khosla et al. and DNA-Det have it


# Of `adjust`; chosen from 0.02, 0.1 and 0.3 (docs/results/content.md).
SMOOTHING = 0.1

# compound is published; the others are what it is compared with.
LOSSES = {
    "compound": Loss(gated=True, detects=True),
    "ungated": Loss(gated=False, detects=True),
    "attribution": Loss(gated=False, detects=False),
    "contrastive": Loss(gated=False, detects=False, contrasts=True),
    "adjusted": Loss(gated=False, detects=False, adjusts=True),
    "fingerprint": Loss(
        gated=False, detects=False, attributes=False, contrasts=True, temperature=0.1
    ),
}


def get_loss(name: str) -> Loss:
    """Return the loss called `name`.

    Raises:
        InputError: there is none of that name.
    """
    return choose("loss", name, LOSSES)


def label_members(
    labels: jax.Array, mixed: Mixed | None
) -> tuple[jax.Array, jax.Array]:
    """Return the labels and the weights of each sample's members.

    Args:
        labels: sources, or semantics, of the images of a batch, int `[images]`.
        mixed: what a mixing made of them; None: nothing was mixed.

    Returns:
        int and float32 `[samples, members]`.
    """
    labels = jnp.asarray(labels)
    if mixed is None:
        return labels[:, None], jnp.ones((len(labels), 1), jnp.float32)
    return labels[mixed.places], mixed.weights


def compound_loss(
    outputs: Mapping[str, jax.Array],
    sources: jax.Array,
    mixed: Mixed | None = None,
    *,
    detects: bool = True,
) -> jax.Array:
    """Return the loss of a batch: attribution and detection cross-entropy, added.

    Args:
        outputs: of a `rmjax.RepMix`, see `loss_terms`.
        sources: of the images that went into the network, int `[images]`; 0 is real.
        mixed: what the network's `mix` made of them: its output "mixed". None: nothing
            was mixed.
        detects: whether the detection term is part of the loss.

    Returns:
        Scalar, the mean over samples.

    Raises:
        InputError: the outputs have no logits, or the sources are not one an image.
    """
    _check_sources(outputs, sources, mixed)
    sources, weights = label_members(sources, mixed)
    terms = loss_terms(outputs["attribution"], outputs["detection"], sources, weights)
    return total_loss(terms, detects)


def _check_sources(
    outputs: Mapping[str, jax.Array], sources: jax.Array, mixed: Mixed | None
) -> None:
    for head in ("attribution", "detection"):
        if head not in outputs:
            raise InputError(
                f"outputs have no '{head}': give those of a RepMix with num_sources > 1"
            )
    shape, kind = jnp.shape(sources), jnp.result_type(sources)
    if len(shape) != 1 or not jnp.issubdtype(kind, jnp.integer):
        raise InputError(f"sources are int [images], one an image; not {kind} {shape}")
    samples = len(outputs["attribution"])
    if mixed is None and shape != (samples,):
        raise InputError(
            f"{shape[0]} sources, but outputs of {samples} samples: where the network "
            'mixed, give outputs["mixed"] as well'
        )


def total_loss(terms: Mapping[str, T], detects: bool) -> T:
    """Add up the terms that a loss has, see `loss_terms`."""
    return (
        terms["attribution"] + terms["detection"] if detects else terms["attribution"]
    )


def loss_terms(
    attribution: jax.Array,
    detection: jax.Array,
    sources: jax.Array,
    weights: jax.Array,
) -> dict[str, jax.Array]:
    """Return the terms of the compound loss, each the mean over mixed samples.

    Args:
        attribution: logits `[samples, num_sources]`, gated as published or not,
            `num_sources` at least 2.
        detection: logits `[samples, 2]` of real and synthetic.
        sources: int `[samples, members]`.
        weights: `[samples, members]`, rows sum to one.

    Returns:
        `attribution` and `detection`, scalars. In detection a synthetic member counts
        1 / (num_sources - 1), as there are that many times more of them; the mean over
        samples is a plain one and is not divided by these class weights.
    """
    num_sources = attribution.shape[-1]
    synthetic = (sources > 0).astype(jnp.int32)
    class_weights = jnp.where(synthetic, 1 / (num_sources - 1), 1.0)
    return {
        "attribution": _mean_cross_entropy(attribution, sources, weights),
        "detection": _mean_cross_entropy(detection, synthetic, weights * class_weights),
    }


def adjust(
    attribution: jax.Array,
    semantics: jax.Array,
    weights: jax.Array,
    shares: jax.Array | np.ndarray,
) -> jax.Array:
    """Add to attribution logits what a sample's semantics alone say of its source.

    Where not every source is trained on every semantic, the semantic of an image rules
    sources out, and a network that is trained by its cross-entropy learns that. Trained
    by that of these sums it need not: what content tells is there already, and is left
    out when the network is asked. In a mix the shares are mixed as the labels are. Our
    own for semantics and mixes; Menon et al. add the shares of whole classes.

    Args:
        attribution: logits `[samples, num_sources]`.
        semantics: of each sample's members, int `[samples, members]`.
        weights: `[samples, members]`, rows sum to one.
        shares: `[semantics, num_sources]`, of a semantic's training images, by source;
            `SMOOTHING` of them is spread evenly, so that no source is ruled out.

    Returns:
        Logits `[samples, num_sources]`.
    """
    mixed = jnp.sum(weights[..., None] * jnp.asarray(shares)[semantics], axis=1)
    even = 1 / attribution.shape[-1]
    return attribution + jnp.log((1 - SMOOTHING) * mixed + SMOOTHING * even)


def contrastive_loss(
    embedding: jax.Array,
    sources: jax.Array,
    weights: jax.Array,
    num_sources: int,
    axis_name: str | None = None,
    *,
    temperature: float = Loss.temperature,
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
        temperature: what cosines are divided by, above 0; the lower, the more the nearest
            others count.

    Returns:
        Scalar, the mean over samples; one that is alone of its source counts zero.
    """
    cosine, common = _compare(embedding, sources, weights, num_sources, axis_name)
    itself = jnp.isneginf(cosine)
    log_p = jnp.where(itself, 0, jax.nn.log_softmax(cosine / temperature, axis=-1))
    total = jnp.sum(common, axis=-1)
    found = jnp.sum(common * log_p, axis=-1) / jnp.where(total > 0, total, 1)
    return -jnp.mean(found)


def nearest_accuracy(
    embedding: jax.Array,
    sources: jax.Array,
    weights: jax.Array,
    num_sources: int,
    axis_name: str | None = None,
) -> jax.Array:
    """Return how far the sources of samples and of their nearest others agree.

    Arguments as for `contrastive_loss`. Scalar in [0, 1], the mean over samples; of
    unmixed ones, the share whose nearest other is of their own source.
    """
    cosine, common = _compare(embedding, sources, weights, num_sources, axis_name)
    nearest = jnp.argmax(cosine, axis=-1, keepdims=True)
    return jnp.mean(jnp.take_along_axis(common, nearest, axis=-1))


def _compare(
    embedding: jax.Array,
    sources: jax.Array,
    weights: jax.Array,
    num_sources: int,
    axis_name: str | None,
) -> tuple[jax.Array, jax.Array]:
    """Compare samples with all samples, those of other replicas too.

    Returns:
        The cosines of their embeddings, -inf of each with itself, and what sources they
        have in common, 0 to 1 and 0 with itself; `[samples, samples of all replicas]`.
    """
    z = embedding / (jnp.linalg.norm(embedding, axis=-1, keepdims=True) + 1e-6)
    shares = mix_labels(sources, weights, num_sources)
    others, place = (z, shares), jnp.arange(len(z))
    if axis_name is not None:
        others = jax.lax.all_gather(others, axis_name, tiled=True)
        place += jax.lax.axis_index(axis_name) * len(z)
    itself = jnp.arange(len(others[0])) == place[:, None]
    cosine = jnp.where(itself, -jnp.inf, z @ others[0].T)
    return cosine, jnp.where(itself, 0, shares @ others[1].T)


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
    shares = mix_labels(sources, weights, attribution.shape[-1])
    dominant = jnp.argmax(shares, axis=-1)
    return jnp.mean(jnp.argmax(attribution, axis=-1) == dominant)


def _mean_cross_entropy(
    logits: jax.Array, labels: jax.Array, weights: jax.Array
) -> jax.Array:
    """Average over samples sum_i weights_i * CE(logits, labels_i)."""
    log_p = jax.nn.log_softmax(logits, axis=-1)
    log_p_members = jnp.take_along_axis(log_p, labels, axis=-1)
    return -jnp.mean(jnp.sum(weights * log_p_members, axis=-1))
