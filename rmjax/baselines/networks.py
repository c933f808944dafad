"""The networks of baselines that are fitted in closed form.

What they see is made into features: the pixels of a tile, or what a backbone that is
not trained makes of an image. A head makes of features an embedding and one score a
source. Parameters of heads are zeros until `rmjax.baselines.solve` has found them.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from rmjax.models.heads import detection_from_attribution
from rmjax.models.tiles import cut

MAX_NEIGHBOURS = 25  # the most that `Neighbours` may ask


class LinearScores(nn.Module):
    """Scores `features @ kernel + bias`, which are the embedding too where told so.

    Attributes:
        num_sources: scores.
        embed_scores: whether the embedding is the scores, or else the features.
    """

    num_sources: int
    embed_scores: bool

    @nn.compact
    def __call__(self, features: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Map `[..., d]` to embedding `[..., d or num_sources]` and scores."""
        scores = _affine(self, features, self.num_sources)
        return scores if self.embed_scores else features, scores


class PrincipalScores(nn.Module):
    """Coordinates along principal components, and linear scores of them.

    Attributes:
        num_sources: scores.
        components: coordinates, which are the embedding.
    """

    num_sources: int
    components: int

    @nn.compact
    def __call__(self, features: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Map `[..., d]` to embedding `[..., components]` and scores."""
        size = features.shape[-1]
        mean = self.param("mean", nn.initializers.zeros, (size,))
        axes = self.param("components", nn.initializers.zeros, (size, self.components))
        embedding = _product(features - mean, axes)
        return embedding, _affine(self, embedding, self.num_sources)


class Correlations(nn.Module):
    """Normalised correlation with one fingerprint per source, as scores and embedding.

    Attributes:
        num_sources: fingerprints.
    """

    num_sources: int

    @nn.compact
    def __call__(self, features: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Map `[..., d]` to correlations `[..., num_sources]` in [-1, 1], twice."""
        shape = (features.shape[-1], self.num_sources)
        # Without a mean and of length one, as they are found.
        fingerprints = self.param("fingerprints", nn.initializers.zeros, shape)
        scores = _product(standardize(features), fingerprints)
        return scores, scores


class Neighbours(nn.Module):
    """Votes of the nearest references, by the cosine of the angle between features.

    Attributes:
        num_sources: of the references.
        references: how many there are.
    """

    num_sources: int
    references: int

    @nn.compact
    def __call__(self, features: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Map `[..., d]` to the features themselves and scores `[..., num_sources]`.

        The softmax of the scores is the share of the votes, each source having one
        more divided among all, so that none has a probability of zero. Of sources with
        as many votes the first one wins.
        """
        zeros, count = nn.initializers.zeros, self.references
        known = self.param("features", zeros, (count, features.shape[-1]))
        source = self.param("source", zeros, (count,), jnp.int32)
        votes = self.param("votes", zeros, (min(MAX_NEIGHBOURS, count),))  # by rank
        near = _product(normalize(features), known.T)
        _, nearest = jax.lax.top_k(near, len(votes))
        votes = votes @ jax.nn.one_hot(source[nearest], self.num_sources)
        return features, jnp.log(votes + 1 / self.num_sources)


class Fitted(nn.Module):
    """Features, and a head fitted to them.

    Attributes:
        head: `[..., d] -> (embedding, scores)`.
        num_sources: sources to tell apart; source 0 is `real`.
        tile: side of the network's input for which the head was fitted, None where that
            are stored features. Larger inputs
            are cut into such tiles (see `rmjax.models.tiles.cut`), over which embedding
            and scores are averaged.
        backbone: whose features, of images of any size, take the place of pixels: the
            representation at its level `FEATURES`.
    """

    head: nn.Module
    num_sources: int
    tile: int | None
    backbone: nn.Module | None = None

    def features(self, x: jax.Array) -> jax.Array:
        """Return features `[batch, tiles, d]` of the network's input."""
        return self._features(x)[0]

    @nn.compact
    def __call__(self, x: jax.Array) -> dict[str, jax.Array]:
        """Embed and classify the network's input `[batch, H, W, channels]`, or features.

        Returns:
            `embedding` `[batch, n]`, `attribution` logits `[batch, num_sources]`, which
            nothing gates, `detection` logits `[batch, 2]` that follow from them, and
            the activations of the backbone if there is one.
        """
        features, activations = self._features(x)
        embedding, scores = self.head(features)
        # Found on validation images, so that scores are of the size of logits.
        scale = self.param("scale", nn.initializers.ones, ())
        attribution = scale * scores.mean(1)
        return activations | {
            "embedding": embedding.mean(1),
            "attribution": attribution,
            "detection": detection_from_attribution(attribution),
        }

    def _features(self, x: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        if self.backbone is not None:
            pooled, activations = self.backbone(
                x, train=False, stop=self.backbone.FEATURES
            )
            return pooled[:, None], activations
        if self.tile is None:
            return x[:, None], {}
        tiles = cut(x, self.tile)
        return tiles.reshape(len(x), tiles.shape[1] * tiles.shape[2], -1), {}


def normalize(features: jax.Array) -> jax.Array:
    """Scale `[..., d]` to length one; zeros stay zeros."""
    length = jnp.linalg.norm(features, axis=-1, keepdims=True)
    return features / jnp.maximum(length, jnp.finfo(features.dtype).tiny)


def standardize(features: jax.Array) -> jax.Array:
    """Subtract the mean of `[..., d]` over its last axis, and scale to length one."""
    return normalize(features - features.mean(-1, keepdims=True))


def _affine(module: nn.Module, x: jax.Array, outputs: int) -> jax.Array:
    zeros = nn.initializers.zeros
    kernel = module.param("kernel", zeros, (x.shape[-1], outputs))
    return _product(x, kernel) + module.param("bias", zeros, (outputs,))


def _product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    # Sums of thousands of terms that nearly cancel: not in an accelerator's half.
    return jnp.matmul(x, kernel, precision="highest")
