"""Vision transformers that can be cut between quarters of their blocks.

What tells CLIP, DINOv2, DINOv3 and SigLIP apart is data: fields of
`VisionTransformer`. Every dense layer has a bias; where published weights have none,
it is zero.

References:
    Dosovitskiy et al., An Image is Worth 16x16 Words, ICLR 2021,
        https://arxiv.org/abs/2010.11929
    Radford et al., CLIP, ICML 2021, https://arxiv.org/abs/2103.00020 (a norm before the
        blocks, quick GELU)
    Zhai et al., SigLIP, ICCV 2023, https://arxiv.org/abs/2303.15343, and Zhai et al.,
        Scaling Vision Transformers, CVPR 2022, https://arxiv.org/abs/2106.04560
        (pooling by attention)
    Oquab et al., DINOv2, TMLR 2024, https://arxiv.org/abs/2304.07193 (LayerScale, SwiGLU)
    Darcet et al., Vision Transformers Need Registers, ICLR 2024,
        https://arxiv.org/abs/2309.16588
    Siméoni et al., DINOv3, 2025, https://arxiv.org/abs/2508.10104 (rotary positions)
"""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from rmjax.errors import InputError
from rmjax.models.norm import widen
from rmjax.models.resnet import NUM_LEVELS, STAGES, linear
from rmjax.utils.choose import check_choice
from rmjax.utils.platform import target_platform

_QUICK = 1.702  # CLIP's approximation of the GELU: a sigmoid of so many times x


def quick_gelu(x: jax.Array) -> jax.Array:
    """Return `x * sigmoid(1.702 x)`."""
    return x * jax.nn.sigmoid(_QUICK * x)


ACTIVATION_FUNCTIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": partial(nn.gelu, approximate=False),
    "gelu_tanh": partial(nn.gelu, approximate=True),
    "quick_gelu": quick_gelu,
    "silu": nn.silu,
    "relu": nn.relu,
}

SMALL = nn.initializers.truncated_normal(0.02)  # of what is no dense layer

POOLS = ("class", "mean", "attention")


class Attention(nn.Module):
    """Multi-head attention of queries to tokens, which are the queries where none are given.

    Attributes:
        heads: how many, which divide the channels.
        dtype: type of the products.
    """

    heads: int
    dtype: Any

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        rotation: tuple[jax.Array, jax.Array] | None = None,
        queries: jax.Array | None = None,
    ) -> jax.Array:
        """Attend.

        Args:
            x: tokens `[batch, tokens, channels]`.
            rotation: see `rotate`, of the last tokens; None turns nothing.
            queries: `[batch, queries, channels]`, which are not turned; None: `x`.

        Returns:
            `[batch, queries, channels]`.
        """
        channels = x.shape[-1]
        dense = partial(nn.Dense, dtype=self.dtype)

        def split(h: jax.Array) -> jax.Array:
            return h.reshape(*h.shape[:2], self.heads, channels // self.heads)

        q = split(dense(channels, name="query")(x if queries is None else queries))
        k = split(dense(channels, name="key")(x))
        v = split(dense(channels, name="value")(x))
        if rotation is not None:
            q = rotate(q, *rotation) if queries is None else q
            k = rotate(k, *rotation)
        h = attend(q, k, v)
        return dense(channels, name="out")(h.reshape(*h.shape[:2], channels))


def attend(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """Return scaled dot-product attention.

    Args:
        q: queries `[batch, queries, heads, channels]`.
        k: keys `[batch, tokens, heads, channels]`.
        v: values, as the keys.

    Returns:
        `[batch, queries, heads, channels]`.
    """
    if target_platform() != "cpu":
        return jax.nn.dot_product_attention(q, k, v)
    # The same, head by head, as products of strided matrices are slow on a CPU, and
    # scaled where there are fewest numbers: it takes two thirds of the time.
    q, k, v = (jnp.swapaxes(h, 1, 2) for h in (q * q.shape[-1] ** -0.5, k, v))
    scores = jnp.einsum("bhtd,bhsd->bhts", q, k).astype(widen(q.dtype))
    shares = jnp.exp(scores - scores.max(axis=-1, keepdims=True))
    h = jnp.einsum("bhts,bhsd->bhtd", shares.astype(q.dtype), v)
    h = h / shares.sum(axis=-1, keepdims=True)
    return jnp.swapaxes(h.astype(q.dtype), 1, 2)


class Mlp(nn.Module):
    """One hidden layer; `gated`: its activation times a second projection (SwiGLU)."""

    hidden: int
    activation: str
    gated: bool
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        dense = partial(nn.Dense, dtype=self.dtype)
        activate = ACTIVATION_FUNCTIONS[self.activation]
        if self.gated:
            h = activate(dense(self.hidden, name="gate")(x))
            h = h * dense(self.hidden, name="up")(x)
        else:
            h = activate(dense(self.hidden, name="up")(x))
        return dense(x.shape[-1], name="down")(h)


class Block(nn.Module):
    """Attention, then the hidden layer, each normalised before and added to its input.

    Attributes:
        heads: of the attention.
        mlp: arguments of `Mlp`.
        layer_scale: whether each channel of what is added has a factor.
        epsilon: of the norms.
        dtype: type of the products.
    """

    heads: int
    mlp: dict[str, Any]
    layer_scale: bool
    epsilon: float
    dtype: Any

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        rotation: tuple[jax.Array, jax.Array] | None,
        first: bool,
    ) -> jax.Array:
        """Run the block, with `first` for the first token alone, which has no place."""

        def scaled(h: jax.Array, name: str) -> jax.Array:
            if not self.layer_scale:
                return h
            scale = self.param(name, nn.initializers.ones, (h.shape[-1],))
            return h * scale.astype(h.dtype)

        h = nn.LayerNorm(self.epsilon, dtype=self.dtype, name="norm1")(x)
        attention = Attention(self.heads, self.dtype, name="attention")
        if first:
            x, h = x[:, :1], attention(h, rotation, queries=h[:, :1])
        else:
            h = attention(h, rotation)
        x = x + scaled(h, "scale1")
        h = nn.LayerNorm(self.epsilon, dtype=self.dtype, name="norm2")(x)
        h = Mlp(**self.mlp, dtype=self.dtype, name="mlp")(h)
        return x + scaled(h, "scale2")


class AttentionPool(nn.Module):
    """Pooling by one learned query, and a hidden layer after it (SigLIP's head)."""

    heads: int
    mlp: dict[str, Any]
    epsilon: float
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        query = self.param("query", SMALL, (x.shape[-1],)).astype(x.dtype)
        queries = jnp.broadcast_to(query, (len(x), 1, len(query)))
        h = Attention(self.heads, self.dtype, name="attention")(x, queries=queries)
        after = nn.LayerNorm(self.epsilon, dtype=self.dtype, name="norm")(h)
        return (h + Mlp(**self.mlp, dtype=self.dtype, name="mlp")(after))[:, 0]


class VisionTransformer(nn.Module):
    """Vision transformer from pixels to an embedding, in stages.

    Level k is the representation after k stages, as of `ResNet`: 0 the pixels
    `[batch, H, W, channels]`; 1 the tokens `[batch, tokens, width]` as the first block
    gets them; 2..5 those after each quarter of the blocks; 6 the embedding
    `[batch, embedding_dim]`. Unlike a ResNet's, level 5 comes before norm and pool,
    which are not linear. Tokens are the class token, the registers and the patches, row
    by row. Sides of an image that are no multiple of `patch` are cut at the right and
    the bottom.

    Attributes:
        width: channels of a token.
        depth: blocks.
        heads: of each attention.
        mlp: width of the hidden layers.
        patch: side of a patch in pixels.
        grid: side of the square of learned positions, in patches; images of another
            size get them interpolated.
        class_token: whether there is one.
        registers: tokens that no image belongs to.
        rotary: base of the frequencies by which queries and keys are turned, in place
            of learned positions; 0: learned.
        antialias: how positions are interpolated, see `resize_positions`.
        pre_norm: whether tokens are normalised before the first block.
        post_norm: whether the last norm comes after the pool, or before.
        layer_scale: see `Block`.
        activation: key of `ACTIVATION_FUNCTIONS`.
        gated: see `Mlp`.
        epsilon: of the norms.
        pool: one of `POOLS`: the class token, the mean of the tokens, or attention.
        project: whether the embedding is a linear function of what was pooled, or that.
        embedding_dim: size of the embedding; without a projection, `width`.
        dtype: type of products and tokens; norms are float32 at least, and so is all
            that follows the pool.
        remat: keep only the input of each block for the gradients, see `ResNet`.
    """

    width: int
    depth: int
    heads: int
    mlp: int
    patch: int
    grid: int
    class_token: bool = True
    registers: int = 0
    rotary: float = 0.0
    antialias: bool = False
    pre_norm: bool = False
    post_norm: bool = False
    layer_scale: bool = False
    activation: str = "gelu"
    gated: bool = False
    epsilon: float = 1e-6
    pool: str = "class"
    project: bool = True
    embedding_dim: int = 256
    dtype: Any = jnp.float32
    remat: bool = False

    # As of `ResNet`: the embedding, which its publishers made to be compared.
    FEATURES: ClassVar[int] = 6

    def setup(self):
        mlp = dict(hidden=self.mlp, activation=self.activation)
        side = (self.patch, self.patch)
        self.stem = nn.Conv(
            self.width, side, side, padding="VALID", dtype=self.dtype, kernel_init=SMALL
        )
        if not self.rotary:
            shape = (self.grid**2, self.width)
            self.positions = self.param("stem_positions", SMALL, shape)
        tokens = self.class_token + self.registers
        if tokens:
            self.tokens = self.param("stem_tokens", SMALL, (tokens, self.width))
        if self.pre_norm:
            self.stem_norm = nn.LayerNorm(self.epsilon, dtype=self.dtype)
        make = nn.remat(Block, static_argnums=(3,)) if self.remat else Block
        ends = [self.depth * quarter // 4 for quarter in range(5)]
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            [
                make(
                    self.heads,
                    mlp | {"gated": self.gated},
                    self.layer_scale,
                    self.epsilon,
                    self.dtype,
                )
                for _ in range(start, end)
            ]
            for start, end in zip(ends, ends[1:], strict=False)
        )
        wide = widen(self.dtype)
        self.last_norm = nn.LayerNorm(self.epsilon, dtype=wide)
        if self.pool == "attention":
            self.attention_pool = AttentionPool(
                self.heads, mlp | {"gated": False}, self.epsilon, wide
            )
        if self.project:
            self.embedding = linear(self.width, self.embedding_dim, wide)

    def __call__(
        self, x: jax.Array, *, train: bool, start: int = 0, stop: int = 6
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Run the stages from level `start` to level `stop`.

        Args:
            x: representation at level `start`. With rotary positions, tokens of a
                level from 1 to 4 have to be of a square image.
            train: changes nothing.
            start: level of `x`, 0..6.
            stop: level to return, `start`..6.

        Returns:
            The representation at level `stop`, and the activations on the way: `stem`,
            `layer1`..`layer4` (tokens), `pool` and `embedding`, as of `ResNet`; and
            under their publishers' names `hidden_0`, the tokens before the first block,
            `hidden_1`.. those after each, `last_hidden_state` the last ones, normalised
            where the norm comes before the pool, `pooler_output`, which is `pool`, and
            `image_embeds`, the embedding where there is a projection.
        """
        if not 0 <= start <= stop < NUM_LEVELS:
            raise ValueError(f"levels {start}..{stop} are not within 0..6")
        activations: dict[str, jax.Array] = {}
        places = self._places(x, start)
        token = None
        for level in range(start, stop):
            name = STAGES[level]
            if name == "stem":
                x = activations["hidden_0"] = self._embed(x, places)
            elif name == "embedding":
                x, pooled = self._pool(x, token)
                activations |= pooled
            else:
                first = self.depth * (level - 1) // 4
                for number, block in enumerate(getattr(self, name), first + 1):
                    turns = self._turns(places)
                    if number == self.depth and self.pool == "class":
                        token = block(x, turns, True)
                    x = block(x, turns, False)
                    activations[f"hidden_{number}"] = x
            activations[name] = x
        return x, activations

    @property
    def _own(self) -> int:
        """Return how many tokens there are beside the patches."""
        return self.class_token + self.registers

    def _places(self, x: jax.Array, level: int) -> tuple[int, int]:
        """Return rows and columns of patches, of tokens those of a square."""
        if level == 0:
            height, width = x.shape[1] // self.patch, x.shape[2] // self.patch
            return height, width
        if x.ndim < 3:
            return 0, 0
        side = math.isqrt(x.shape[1] - self._own)
        return side, side

    def _embed(self, x: jax.Array, places: tuple[int, int]) -> jax.Array:
        """Return the tokens `[batch, tokens, width]` of pixels."""
        x = self.stem(x)
        x = x.reshape(len(x), -1, self.width)
        if not self.rotary:
            filled = resize_positions(self.positions, places, antialias=self.antialias)
            x = x + filled.astype(x.dtype)
        if self._own:
            own = jnp.broadcast_to(
                self.tokens.astype(x.dtype), (len(x), *self.tokens.shape)
            )
            x = jnp.concatenate([own, x], axis=1)
        return self.stem_norm(x) if self.pre_norm else x

    def _turns(self, places: tuple[int, int]) -> tuple[np.ndarray, np.ndarray] | None:
        if not self.rotary:
            return None
        return rotation(*places, self.width // self.heads, self.rotary)

    def _pool(
        self, x: jax.Array, token: jax.Array | None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Return the embedding of the last block's tokens, and what is on the way.

        Of `token` where the class token was also computed by itself: where nobody asks
        for the others, a compiler leaves them out, which is most of the last block.
        """
        wide = widen(x.dtype)
        x = x.astype(wide)
        last = x if self.post_norm else self.last_norm(x)
        if self.pool == "class":
            token = x if token is None else token.astype(wide)
            pooled = self.last_norm(token[:, 0])
        else:
            by_attention = self.pool == "attention"
            pooled = self.attention_pool(last) if by_attention else last.mean(axis=1)
            pooled = self.last_norm(pooled) if self.post_norm else pooled
        outputs = {"last_hidden_state": last, "pool": pooled, "pooler_output": pooled}
        if not self.project:
            return pooled, outputs
        embedding = self.embedding(pooled)
        return embedding, outputs | {"image_embeds": embedding}


def check_structure(structure: Mapping[str, Any]) -> None:
    """Check that the fields of a `VisionTransformer` fit together.

    Raises:
        InputError: they don't; the message names one by its key in a config.
    """
    check_choice(
        "model.vit.activation", structure["activation"], [*ACTIVATION_FUNCTIONS]
    )
    check_choice("model.vit.pool", structure["pool"], POOLS)
    width, heads = structure["width"], structure["heads"]
    # Rotary positions turn pairs of channels, by row and by column.
    multiple = heads * (4 if structure["rotary"] else 1)
    if width % multiple:
        raise InputError(
            f"model.vit.width = {width}: {heads} heads take a multiple of {multiple}"
        )
    if structure["pool"] == "class" and not structure["class_token"]:
        raise InputError(
            "model.vit.pool = 'class', but model.vit.class_token = False: give "
            "'mean' or 'attention'"
        )


def rotation(
    rows: int, columns: int, channels: int, base: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return cosines and sines of the angles by which queries and keys are turned.

    The centres of patches lie between -1 and 1. A quarter of the channels turns with
    the row, at frequencies from 1 down to 1 / base, and a quarter with the column.

    Returns:
        `[rows * columns, channels / 2]` each, float32.
    """
    frequencies = base ** -np.arange(0, 1, 4 / channels)
    centres = [2 * (np.arange(n) + 0.5) / n - 1 for n in (rows, columns)]
    at = np.stack(np.meshgrid(*centres, indexing="ij"), axis=-1).reshape(-1, 2, 1)
    angles = (2 * np.pi * at * frequencies).reshape(rows * columns, -1)
    return np.cos(angles, dtype=np.float32), np.sin(angles, dtype=np.float32)


def rotate(x: jax.Array, cosines: jax.Array, sines: jax.Array) -> jax.Array:
    """Turn the first half of the channels against the second, for the last tokens.

    Args:
        x: queries or keys `[batch, tokens, heads, channels]`.
        cosines: of the angles `[patches, channels / 2]`; tokens before the patches have
            no place, and stay as they are.
        sines: as the cosines.
    """
    own = x.shape[1] - len(cosines)
    cosines, sines = (a[:, None].astype(x.dtype) for a in (cosines, sines))
    first, second = jnp.split(x[:, own:], 2, axis=-1)
    turned = jnp.concatenate(
        [first * cosines - second * sines, second * cosines + first * sines], axis=-1
    )
    return jnp.concatenate([x[:, :own], turned], axis=1)


def resize_positions(
    positions: jax.Array, places: tuple[int, int], *, antialias: bool
) -> jax.Array:
    """Interpolate learned positions, bicubically, for images of another size.

    Args:
        positions: of a square of patches, row by row, `[side * side, width]`.
        places: rows and columns of patches wanted.
        antialias: as DINOv2 with registers was published: cubic kernel of Keys with
            -0.5, widened where there are fewer patches; else with -0.75, the edges
            repeated.

    Returns:
        `[rows * columns, width]`.
    """
    side = math.isqrt(len(positions))
    if places == (side, side):
        return positions
    square = positions.reshape(side, side, -1)
    if antialias:
        shape = (*places, square.shape[-1])
        filled = jax.image.resize(square, shape, "cubic", antialias=True)
    else:
        rows, columns = (jnp.asarray(_cubic_weights(side, n)) for n in places)
        filled = jnp.einsum(
            "ri,cj,ijk->rck", rows, columns, square, precision="highest"
        )
    return filled.reshape(-1, square.shape[-1])


def _cubic_weights(old: int, new: int) -> np.ndarray:
    """Return the matrix `[new, old]` of cubic interpolation with edges repeated.

    Keys, Cubic Convolution Interpolation, 1981, with a = -0.75, as PyTorch's bicubic.
    """
    a = -0.75
    centres = (np.arange(new) + 0.5) * old / new - 0.5
    taps = np.floor(centres).astype(int)[:, None] + np.arange(-1, 3)
    x = np.abs(centres[:, None] - taps)
    near = ((a + 2) * x - (a + 3)) * x**2 + 1
    far = ((x - 5) * x + 8) * a * x - 4 * a
    matrix = np.zeros((new, old), np.float32)
    rows = np.broadcast_to(np.arange(new)[:, None], taps.shape)
    np.add.at(matrix, (rows, np.clip(taps, 0, old - 1)), np.where(x <= 1, near, far))
    return matrix


# Networks by name, with the structure of CLIP's of that size.
_CLIP = dict(pre_norm=True, post_norm=True, activation="quick_gelu", epsilon=1e-5)
TRANSFORMERS: dict[str, dict[str, Any]] = {
    "vit_b32": dict(width=768, depth=12, heads=12, mlp=3072, patch=32, grid=7, **_CLIP),
    "vit_b16": dict(
        width=768, depth=12, heads=12, mlp=3072, patch=16, grid=14, **_CLIP
    ),
    "vit_l14": dict(
        width=1024, depth=24, heads=16, mlp=4096, patch=14, grid=16, **_CLIP
    ),
}
