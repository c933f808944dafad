"""From the logits of the two heads to the logits that are trained."""

import jax
import jax.numpy as jnp


def detection_from_attribution(attribution: jax.Array) -> jax.Array:
    """Return logits `[..., 2]` of real and synthetic where no head gives them.

    Their softmax are the probability of source 0 and the sum of the others', by the
    softmax of the attribution logits `[..., num_sources]`.
    """
    synthetic = jax.nn.logsumexp(attribution[..., 1:], axis=-1, keepdims=True)
    return jnp.concatenate([attribution[..., :1], synthetic], axis=-1)


def gate(
    attribution: jax.Array, detection: jax.Array, gated_source: int = 0
) -> jax.Array:
    """Scale attribution logits by the detected probability of real and synthetic.

    Args:
        attribution: raw logits `[items, num_sources]`; source 0 is `real`.
        detection: logits `[items, 2]` of real and synthetic.
        gated_source: the source whose logit goes with p(real). Only weights of a
            benchmark that numbered its classes otherwise have another than `real`.

    Returns:
        Gated logits `[items, num_sources]`: that of `gated_source` times p(real), the
        others times p(synthetic).
    """
    p = jax.nn.softmax(detection, axis=-1)
    is_real = jnp.arange(attribution.shape[-1]) == gated_source
    return attribution * jnp.where(is_real, p[..., :1], p[..., 1:])
