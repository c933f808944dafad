"""Residual networks that can be cut between stages.

Parameters correspond one to one to torchvision's (version 1.5: a bottleneck strides
in its 3x3 convolution), with torch's explicit padding.

References:
    He et al., Deep Residual Learning, CVPR 2016, https://arxiv.org/abs/1512.03385
"""

from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from rmjax.models.conv import Conv
from rmjax.models.norm import BatchNorm, widen
from rmjax.models.pool import max_pool
from rmjax.utils.platform import target_platform

NUM_LEVELS = 7  # 0 pixels, 1 stem, 2..5 layer1..layer4, 6 embedding

# torch's default for linear layers: uniform in +-1 / sqrt(fan_in).
linear_kernel_init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def linear(inputs: int, outputs: int, dtype: Any) -> nn.Dense:
    """Return a dense layer `[..., inputs] -> [..., outputs]` with torch's initial values."""
    bound = inputs**-0.5

    def bias_init(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return nn.Dense(
        outputs, dtype=dtype, kernel_init=linear_kernel_init, bias_init=bias_init
    )


class Stem(nn.Module):
    """Convolution, batch norm and ReLU, and a max-pool 3x3/2 where `pool` says so."""

    width: int
    size: int
    stride: int
    pool: bool
    layers: dict[str, Any]

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        conv, norm = _layers(**self.layers)
        x = conv(self.width, self.size, self.stride, name="conv")(x)
        pool = max_pool if self.pool else None
        # On a CPU the signs that this takes cost more than the fewer values save.
        early = target_platform() != "cpu"
        x = norm(name="bn")(x, train=train, pool=pool if early else None)
        if pool and not early:
            x = pool(x)
        return nn.relu(x)  # after the pool it is the same, on a quarter of the pixels


class Block(nn.Module):
    """Residual block: two 3x3 convolutions, or a 1x1-3x3-1x1 bottleneck.

    The shortcut is a strided 1x1 convolution where the shape changes.
    """

    width: int
    stride: int
    bottleneck: bool
    layers: dict[str, Any]

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        conv, norm = _layers(**self.layers)
        if self.bottleneck:
            shapes = [(self.width, 1, 1), (self.width, 3, self.stride)]
            shapes += [(4 * self.width, 1, 1)]
        else:
            shapes = [(self.width, 3, self.stride), (self.width, 3, 1)]
        h = x
        for i, (width, size, stride) in enumerate(shapes, start=1):
            h = conv(width, size, stride, name=f"conv{i}")(h)
            h = norm(name=f"bn{i}")(h, train=train)
            if i < len(shapes):
                h = nn.relu(h)
        if self.stride != 1 or x.shape[-1] != h.shape[-1]:
            x = conv(h.shape[-1], 1, self.stride, name="downsample_conv")(x)
            x = norm(name="downsample_bn")(x, train=train)
        return nn.relu(x + h)


class Layer(nn.Module):
    """`depth` residual blocks of which the first one strides; `remat`: see `ResNet`."""

    depth: int
    width: int
    stride: int
    bottleneck: bool
    layers: dict[str, Any]
    remat: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        # Of the arguments self, x and train, the last is not traced.
        make = nn.remat(Block, static_argnums=(2,)) if self.remat else Block
        for i in range(self.depth):
            stride = self.stride if i == 0 else 1
            block = make(
                self.width, stride, self.bottleneck, self.layers, name=f"block{i}"
            )
            x = block(x, train)
        return x


class ResNet(nn.Module):
    """Residual network from pixels to an embedding, in stages.

    Level k is the representation after k stages: 0 the pixels `[batch, H, W, 3]`,
    1 after the stem, 2..5 after layer1..layer4, 6 the embedding
    `[batch, embedding_dim]`. Level 5 is taken *after* the global average pool,
    `[batch, channels]`: the pool is linear, so convex combinations before and after it
    are the same function, and after it there are 49 times fewer numbers (at 224 px).

    Attributes:
        depths: residual blocks in layer1..layer4.
        widths: their widths; a bottleneck puts out four times as many channels.
        strides: step of the first block in each.
        bottleneck: which kind of block.
        stem_width: channels after the stem.
        stem_size: kernel size of the stem's convolution.
        stem_stride: its step.
        stem_pool: whether a max-pool 3x3/2 follows.
        embedding_dim: size of the embedding.
        axis_name: see `BatchNorm`.
        dtype: type of convolutions and maps; parameters, batch statistics and all that
            follows the pool are float32 at least.
        lowering: how convolutions are computed, see `rmjax.models.conv.convolve`.
        remat: keep only the input of each residual block for the gradients, and
            compute the block a second time for them: less memory, more time. XLA's
            CPU compiler finds both computations to be the same and merges them, unless
            its pass `cse_barrier_expander` is disabled.
    """

    depths: tuple[int, ...]
    widths: tuple[int, ...]
    strides: tuple[int, ...] = (1, 2, 2, 2)
    bottleneck: bool = False
    stem_width: int = 64
    stem_size: int = 7
    stem_stride: int = 2
    stem_pool: bool = True
    embedding_dim: int = 256
    axis_name: str | None = None
    dtype: Any = jnp.float32
    lowering: str = "auto"
    remat: bool = False

    FEATURES: ClassVar[int] = 5  # level of what it makes of an image, frozen: the pool

    def setup(self):
        layers = dict(
            axis_name=self.axis_name, dtype=self.dtype, lowering=self.lowering
        )
        self.stem = Stem(
            self.stem_width, self.stem_size, self.stem_stride, self.stem_pool, layers
        )
        shapes = zip(self.depths, self.widths, self.strides, strict=True)
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            Layer(depth, width, stride, self.bottleneck, layers, self.remat)
            for depth, width, stride in shapes
        )
        channels = self.widths[-1] * (4 if self.bottleneck else 1)
        self.embedding = linear(channels, self.embedding_dim, widen(self.dtype))

    def __call__(
        self, x: jax.Array, *, train: bool, start: int = 0, stop: int = 6
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Run the stages from level `start` to level `stop`.

        Args:
            x: representation at level `start`; at 0, pixels `[batch, H, W, 3]`, any size.
            train: normalise with, and record, the batch's statistics.
            start: level of `x`, 0..6.
            stop: level to return, `start`..6.

        Returns:
            The representation at level `stop`, and the activations on the way:
            `stem`, `layer1`..`layer4` (maps, also the last), `pool` and `embedding`.
        """
        if not 0 <= start <= stop < NUM_LEVELS:
            raise ValueError(f"levels {start}..{stop} are not within 0..6")
        activations = {}
        for level in range(start, stop):
            name = STAGES[level]
            stage = getattr(self, name)
            if name == "embedding":
                x = activations[name] = stage(x)
                continue
            x = activations[name] = stage(x, train=train)
            if name == "layer4":
                x = jnp.mean(x, axis=(1, 2), dtype=widen(x.dtype))
                activations["pool"] = x
        return x, activations


# By the level that they begin at; as activations, what they put out.
STAGES = ("stem", "layer1", "layer2", "layer3", "layer4", "embedding")

ARCHITECTURES: dict[str, dict[str, Any]] = {
    "resnet50": dict(depths=(3, 4, 6, 3), widths=(64, 128, 256, 512), bottleneck=True),
    "resnet18": dict(depths=(2, 2, 2, 2), widths=(64, 128, 256, 512)),
    # Small images, CPU. The stem keeps every pixel: fingerprints live in the highest
    # frequencies, which a strided stem and its max-pool mix up first.
    "tiny": dict(
        depths=(1, 1, 1, 1),
        widths=(24, 48, 96, 160),
        strides=(2, 2, 2, 2),
        stem_width=16,
        stem_size=3,
        stem_stride=1,
        stem_pool=False,
    ),
    # For `dcthist`, `chroma` and `luma_chroma`, whose channels hold the detail already:
    # every place by itself, one hidden layer, then the average. Few images can't teach
    # it their content.
    "shallow": dict(
        depths=(0, 0, 0, 0),
        widths=(64, 64, 64, 64),
        stem_width=64,
        stem_size=1,
        stem_stride=1,
        stem_pool=False,
    ),
}


def _layers(axis_name: str | None, dtype: Any, lowering: str):
    """Return constructors of this network's convolutions and norms."""

    def conv(features, size, stride, name):
        return Conv(features, size, stride, lowering=lowering, dtype=dtype, name=name)

    def norm(name):
        return BatchNorm(axis_name=axis_name, dtype=dtype, name=name)

    return conv, norm
