"""RepMix: a network that attributes mixtures of representations.

References:
    Bui, Yu, Collomosse, RepMix, ECCV 2022, https://arxiv.org/abs/2207.02063
    Luo et al., Bag of Tricks and a Strong Baseline for Deep Person Re-identification,
        CVPRW 2019, https://arxiv.org/abs/1903.07071 (normalising what is compared)
"""

from collections.abc import Mapping
from numbers import Integral
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from rmjax.errors import InputError
from rmjax.mixing import MixFn, Mixing
from rmjax.models.backbones import check_backbone, make_backbone
from rmjax.models.heads import detection_from_attribution, gate
from rmjax.models.norm import BatchNorm, widen
from rmjax.models.resnet import linear

# Types that a config may compute in: bfloat16 has float32's range, so that gradients
# need no scaling, and 8 bits of precision instead of 24.
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


class RepMix(nn.Module):
    """Backbone with a mix inside, and heads for attribution and detection.

    Attributes:
        arch: one of `rmjax.models.backbones.BACKBONES`.
        num_sources: sources to tell apart, at least 2; source 0 is `real`. 0: a bare
            backbone, without heads.
        embedding_dim: size of the embedding (the fingerprint).
        gated_source: see `rmjax.models.heads.gate`; None leaves the attribution logits as
            they are.
        detects: whether there is a head for detection; without, its logits follow from
            the attribution logits.
        compares: whether embeddings are made to be compared: each coordinate is brought
            to mean 0 and deviation 1 over a batch, so that cosines are about what tells
            images apart, and not about what all have in common.
        axis_name: mapped axis that shares batch statistics; None keeps them per replica.
        dtype: type of convolutions and maps; the rest is float32 at least.
        lowering: how convolutions are computed, see `rmjax.models.conv.convolve`.
        remat: see `ResNet`.
        crop: side of the network's input in training, see `make_backbone`.
        structure: of the architecture `vit`, see `make_backbone`.

    Raises:
        InputError: unknown architecture (the message lists the choices), inputs too small
            for it, one source alone, or a gated source that is none of them.
    """

    arch: str
    num_sources: int
    embedding_dim: int = 256
    gated_source: int | None = 0
    detects: bool = True
    compares: bool = False
    axis_name: str | None = None
    dtype: Any = jnp.float32
    lowering: str = "auto"
    remat: bool = False
    crop: int | None = 224
    structure: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        check_backbone(self.arch, self.crop, self.structure)
        check_num_sources(self.num_sources)
        gated, known = self.gated_source, max(self.num_sources, 1)
        if gated is not None and not 0 <= gated < known:
            raise InputError(
                f"model.gated_source = {gated} is none of {self.num_sources} sources"
            )
        super().__post_init__()

    def setup(self):
        self.backbone = make_backbone(
            self.arch,
            crop=self.crop,
            embedding_dim=self.embedding_dim,
            axis_name=self.axis_name,
            dtype=self.dtype,
            lowering=self.lowering,
            remat=self.remat,
            structure=self.structure,
        )
        if self.compares:
            self.norm = BatchNorm(self.axis_name, widen(self.dtype), affine=False)
        if not self.num_sources:
            return
        # Heads, gate and loss in float32 at least: probabilities lose too much in half.
        dtype = widen(self.dtype)
        self.attribution = linear(self.embedding_dim, self.num_sources, dtype)
        if self.detects:
            self.detection = linear(self.embedding_dim, 2, dtype)

    def __call__(
        self,
        x: jax.Array,
        *,
        train: bool = False,
        mix: MixFn | None = None,
        level: int | None = None,
        keys: jax.Array | None = None,
    ) -> dict[str, Any]:
        """Embed and classify images, mixed on the way where `mix` says so.

        Args:
            x: images `[batch, H, W, channels]`, from one of `rmjax.inputs.INPUTS`, or
                features `[batch, size]`.
            train: normalise with, and record, the batch's statistics.
            mix: such as `rmjax.make_mixing` returns, applied at `level`; None mixes
                nothing.
            level: 0..6, see `ResNet`; None is where `mix` belongs, if that is one level.
            keys: typed random keys of the images `[batch]`, for draws that depend on
                nothing else of the batch; None derives them from the random stream "mix".

        Returns:
            `embedding` `[samples, embedding_dim]`, `attribution` (logits, gated as
            published or not) `[samples, num_sources]`, `detection` (logits of real and synthetic)
            `[samples, 2]`, and the activations of `ResNet` or `VisionTransformer`; without heads, neither
            logits. Without mixing there are as many samples as images; with it,
            `mixed` says what went into each, see `rmjax.mixing.Mixed`.

        Raises:
            InputError: `x` has another number of dimensions, or `mix` has several levels,
                and none was chosen.
        """
        if x.ndim != (4 if self.crop else 2):
            wanted = "images [batch, H, W, channels]" if self.crop else "[batch, size]"
            raise InputError(f"{self.arch} takes {wanted}, not {list(x.shape)}")
        if mix is None:
            h, outputs = self.backbone(x, train=train)
        else:
            level = _one_level(mix) if level is None else level
            h, before = self.backbone(x, train=train, stop=level)
            if keys is None:
                keys = jax.random.split(self.make_rng("mix"), len(x))
            with jax.named_scope("mix"):
                mixed = mix(keys, h)
            h, after = self.backbone(mixed.h, train=train, start=level)
            outputs = before | {"mixed": mixed} | after
        if self.compares:
            h = self.norm(h, train=train)
        outputs = outputs | {"embedding": h}
        if not self.num_sources:
            return outputs
        attribution = self.attribution(h)
        detection = (
            self.detection(h)
            if self.detects
            else detection_from_attribution(attribution)
        )
        if self.gated_source is not None:
            attribution = gate(attribution, detection, self.gated_source)
        return outputs | {"attribution": attribution, "detection": detection}


def _one_level(mix: MixFn) -> int:
    """Return where to mix: 5, as published, where nothing says otherwise."""
    levels = mix.levels if isinstance(mix, Mixing) else (5,)
    if len(levels) > 1:
        raise InputError(
            f"this mixing has the levels {', '.join(map(str, levels))}: choose one for "
            "each call, by `level`"
        )
    return levels[0]


def check_num_sources(num_sources: int) -> None:
    """Check that there are sources to tell apart, or none: a bare backbone.

    Raises:
        InputError: one source alone, less than none, or no whole number.
    """
    if not isinstance(num_sources, Integral):
        raise InputError(f"num_sources = {num_sources!r}: give a whole number")
    if num_sources == 1 or num_sources < 0:
        raise InputError(
            f"{num_sources} source(s); attribution needs 'real' and at least one generator"
        )
