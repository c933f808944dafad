"""Networks of convolutions one after the other, most of them of earlier work.

They have the stages of `ResNet`, so that they train, mix and embed as it does. None
has so many: a stage without layers passes on what it is given.

References:
    Frank et al., Leveraging Frequency Analysis for Deep Fake Image Recognition, ICML
        2020, https://arxiv.org/abs/2003.08685 (layers: `build_simple_cnn` of
        https://github.com/RUB-SysSec/GANDCTAnalysis)
    Yu, Davis, Fritz, Attributing Fake Images to GANs, ICCV 2019,
        https://arxiv.org/abs/1811.08180 (layers: `C_patch` as configured in
        https://github.com/ningyu1991/GANFingerprints)
    Snyder et al., X-vectors: Robust DNN Embeddings for Speaker Recognition, ICASSP 2018,
        https://doi.org/10.1109/ICASSP.2018.8461375 (means and deviations pooled)
    Yang et al., Deepfake Network Architecture Attribution, AAAI 2022,
        https://arxiv.org/abs/2202.13417 (layers: `Simple_CNN` of
        https://github.com/ICTMCG/DNA-Det)
"""

import math
from collections.abc import Callable
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from rmjax.models.conv import Conv
from rmjax.models.norm import EPSILON, BatchNorm, widen
from rmjax.models.resnet import NUM_LEVELS, STAGES, linear
from rmjax.models.tiles import cut, map_tiles

SLOPE = 0.2  # of leaky ReLUs below zero, in Yu et al. and in DNA-Det

# Keeps the variance of maps on the way forward, as Yu et al. do: without batch norms,
# maps whose channels double would fade.
he_normal = nn.initializers.variance_scaling(2.0, "fan_in", "normal")


def leaky_relu(x: jax.Array) -> jax.Array:
    """Return x, and a fifth of it below zero."""
    return nn.leaky_relu(x, SLOPE)


class Convolution(nn.Module):
    """Convolution, then bias or batch norm, activation, and 2x2 average where asked.

    Attributes:
        features: output channels.
        size: kernel size.
        stride: step.
        norm: batch norm in place of a bias.
        pool: whether the mean of 2x2 pixels follows (along a side of one pixel, none).
        activation: what follows bias or norm.
        layers: `axis_name`, `dtype` and `lowering`, see `ResNet`.
    """

    features: int
    size: int
    stride: int
    norm: bool
    pool: bool
    activation: Callable[[jax.Array], jax.Array]
    layers: dict[str, Any]

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        axis_name, dtype = self.layers["axis_name"], self.layers["dtype"]
        x = Conv(
            self.features,
            self.size,
            self.stride,
            lowering=self.layers["lowering"],
            dtype=dtype,
            kernel_init=he_normal,
            name="conv",
        )(x)
        if self.norm:
            x = BatchNorm(axis_name=axis_name, dtype=dtype, name="bn")(x, train=train)
        else:
            bias = self.param("bias", nn.initializers.zeros, (self.features,))
            x = x + bias.astype(dtype)
        x = self.activation(x)
        if self.pool:
            window = tuple(min(2, side) for side in x.shape[1:3])
            x = nn.avg_pool(x, window, window)
        return x


class Chain(nn.Module):
    """A chain of convolutions in the stages of `ResNet`, see there for the levels.

    Attributes:
        stages: layers of the stem and of layer1..layer4: `(features, size, stride,
            pool)` each.
        norm: batch norms, which need no biases; else biases.
        activation: after every layer.
        crop: side of the network's input in training.
        deviations: give the embedding the deviation of each channel over places beside
            its mean.
        flatten: keep the places of the last map apart. The map is then of one size:
            larger images are cut into tiles of `crop` px, which go through the network
            by themselves, and their last maps are averaged. Otherwise the places of a
            map of any size are averaged.
        embedding_dim: size of the embedding.
        axis_name: see `BatchNorm`.
        dtype: type of convolutions and maps, as in `ResNet`.
        lowering: how convolutions are computed, see `rmjax.models.conv.convolve`.
    """

    stages: tuple[tuple[tuple[int, int, int, bool], ...], ...]
    norm: bool
    activation: Callable[[jax.Array], jax.Array]
    crop: int
    deviations: bool = False
    flatten: bool = False
    embedding_dim: int = 256
    axis_name: str | None = None
    dtype: Any = jnp.float32
    lowering: str = "auto"

    FEATURES: ClassVar[int] = 5  # see `ResNet`

    def setup(self):
        layers = dict(
            axis_name=self.axis_name, dtype=self.dtype, lowering=self.lowering
        )
        self.stem, self.layer1, self.layer2, self.layer3, self.layer4 = (
            [
                Convolution(
                    features, size, stride, self.norm, pool, self.activation, layers
                )
                for features, size, stride, pool in stage
            ]
            for stage in self.stages
        )
        *_, (channels, *_) = (layer for stage in self.stages for layer in stage)
        inputs = channels * (self._side(5) ** 2 if self.flatten else 1)
        inputs *= 2 if self.deviations else 1
        self.embedding = linear(inputs, self.embedding_dim, widen(self.dtype))

    def __call__(
        self, x: jax.Array, *, train: bool, start: int = 0, stop: int = 6
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Run the stages from level `start` to level `stop`, as `ResNet` does."""
        if not 0 <= start <= stop < NUM_LEVELS:
            raise ValueError(f"levels {start}..{stop} are not within 0..6")
        activations = {}
        for level in range(start, stop):
            name = STAGES[level]
            if name == "embedding":
                x = activations[name] = self.embedding(x)
                continue
            x = activations[name] = self._run(x, level, train)
            if name == "layer4":
                x = activations["pool"] = self._pool(x)
        return x, activations

    def _run(self, x: jax.Array, level: int, train: bool) -> jax.Array:
        """Run the stage after `level`, tile by tile where the network needs it."""

        def stage(x: jax.Array) -> jax.Array:
            for layer in getattr(self, STAGES[level]):
                x = layer(x, train=train)
            return x

        if not self.flatten:
            return stage(x)
        return map_tiles(x, function=stage, size=self._side(level))

    def _pool(self, x: jax.Array) -> jax.Array:
        if not self.flatten:
            x = x.astype(widen(x.dtype))
            means = jnp.mean(x, axis=(1, 2))
            if not self.deviations:
                return means
            # Not the root of zero, which has no gradient.
            variances = jnp.var(x, axis=(1, 2)) + EPSILON
            return jnp.concatenate([means, jnp.sqrt(variances)], axis=-1)
        tiles = cut(x, self._side(5))
        return jnp.mean(tiles, axis=(1, 2), dtype=widen(x.dtype)).reshape(len(x), -1)

    def _side(self, level: int) -> int:
        """Return the side of a tile's map at a level."""
        before = [layer for stage in self.stages[:level] for layer in stage]
        steps = math.prod(stride * (2 if pool else 1) for *_, stride, pool in before)
        return self.crop // steps


def _double(width: int) -> tuple[tuple[int, int, int, bool], ...]:
    """Return a stage of Yu et al.: to `width` channels, to twice as many, average."""
    return (width, 3, 1, False), (2 * width, 3, 1, True)


def _halve(width: int) -> tuple[tuple[int, int, int, bool], ...]:
    """Return a stage of DNA-Det: a 4x4 convolution at every second pixel, and a 3x3."""
    return (width, 4, 2, False), (width, 3, 1, False)


CHAINS: dict[str, dict[str, Any]] = {
    "frank_cnn": dict(
        stages=(
            ((3, 3, 1, False),),
            ((8, 3, 1, True),),
            ((16, 3, 1, True),),
            ((32, 3, 1, False),),
            (),
        ),
        norm=False,
        activation=nn.relu,
        flatten=True,  # where something is in a spectrum is its frequency
    ),
    "yu_net": dict(
        stages=(
            _double(16),
            _double(32),
            _double(64),
            _double(128),
            (*_double(256), (512, 3, 1, False)),
        ),
        norm=False,
        activation=leaky_relu,
    ),
    "patch_cnn": dict(
        stages=(_halve(64), _halve(128), _halve(256), _halve(512), ()),
        norm=True,
        activation=leaky_relu,
    ),
    # For `dcthist`, `chroma` and `luma_chroma`, as `shallow` of `ResNet`, wider and with
    # what x-vectors pool: how a channel varies over places, beside its mean.
    "pointwise": dict(
        stages=(((256, 1, 1, False),), ((256, 1, 1, False),), (), (), ()),
        norm=True,
        activation=nn.relu,
        deviations=True,
    ),
}
