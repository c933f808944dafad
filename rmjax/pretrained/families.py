"""Families of vision transformers: what their publishers call things.

A family is data: which key of `config.json` gives a field of `VisionTransformer`, which
fields are the same for all its models, and where its file keeps a parameter. Its keys
and their defaults are those of the configurations in Hugging Face's transformers, which
leave out what is as by default.

References:
    https://github.com/huggingface/transformers, its folders models/clip, models/siglip,
        models/dinov2, models/dinov2_with_registers and models/dinov3_vit
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from rmjax.errors import InputError
from rmjax.inputs import IMAGENET_MEAN, IMAGENET_STD
from rmjax.utils.choose import choose

# https://github.com/openai/CLIP, clip.py: mean and deviation of its training images
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

# Their names of activation functions, ours.
_ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "silu": "silu",
    "swish": "silu",
    "relu": "relu",
}


@dataclass(frozen=True)
class Preprocessing:
    """What is done to an image before the network.

    Attributes:
        resize: pixels of its shorter side, or of both; 0: none.
        squash: whether of both.
        size: side of the middle square that is cut out, in pixels.
        filter: of the resizing, key of `rmjax.data.images.FILTERS`.
        mean: of the channels in [0, 1], which is subtracted.
        std: what they are divided by then.
    """

    resize: int
    squash: bool
    size: int
    filter: str
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class Family:
    """A family of vision transformers.

    Attributes:
        defaults: of the keys of `config.json` that a file may leave out.
        fields: fields of `VisionTransformer` that all its models share.
        blocks: name of a block's parameters but for their own, `{}` for its number.
        layers: names of a block's layers, by ours.
        others: names of other layers and parameters, by ours.
        gated: names of layers that differ where the hidden layers are gated.
        parts: what the file keeps in one tensor, by the end of its name: ends of the
            names of its parts, which lie one after the other.
        ignored: what the network does not use.
        preprocessing: where no file says, of the side of the images that positions are
            learned for.
        without_bias: keys of `config.json`: the layers that have no bias where the
            value is false.
        no_bias: layers that never have one.
    """

    defaults: Mapping[str, Any]
    fields: Mapping[str, Any]
    blocks: str
    layers: Mapping[str, str]
    others: Mapping[str, str]
    preprocessing: Callable[[int], Preprocessing]
    gated: Mapping[str, str] = field(default_factory=dict)
    parts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()
    without_bias: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    no_bias: tuple[str, ...] = ()

    def setting(self, given: Mapping[str, Any], key: str) -> Any:
        """Return what a `config.json` says, or leaves to the default."""
        return given.get(key, self.defaults.get(key))


_SIZES = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "num_channels": 3,
    "image_size": 224,
}
_CLIP_LAYERS = {
    "norm1": "layer_norm1",
    "attention/query": "self_attn.q_proj",
    "attention/key": "self_attn.k_proj",
    "attention/value": "self_attn.v_proj",
    "attention/out": "self_attn.out_proj",
    "norm2": "layer_norm2",
    "mlp/up": "mlp.fc1",
    "mlp/down": "mlp.fc2",
}
_CLIP = Family(
    defaults=_SIZES
    | {
        "intermediate_size": 3072,
        "patch_size": 32,
        "hidden_act": "quick_gelu",
        "layer_norm_eps": 1e-5,
    },
    fields=dict(pre_norm=True, post_norm=True, pool="class"),
    blocks="encoder.layers.{}.",
    layers=_CLIP_LAYERS,
    others={
        "stem": "embeddings.patch_embedding",
        "stem_norm": "pre_layrnorm",  # spelt so
        "last_norm": "post_layernorm",
        "embedding": "visual_projection",
        "class_token": "embeddings.class_embedding",
        "positions": "embeddings.position_embedding.weight",
    },
    ignored=("embeddings.position_ids",),
    no_bias=("stem", "embedding"),
    preprocessing=lambda side: Preprocessing(
        side, False, side, "bicubic", CLIP_MEAN, CLIP_STD
    ),
)
_SIGLIP = Family(
    defaults=_SIZES
    | {
        "intermediate_size": 3072,
        "patch_size": 16,
        "hidden_act": "gelu_pytorch_tanh",
        "layer_norm_eps": 1e-6,
        "vision_use_head": True,
    },
    fields=dict(class_token=False, pool="attention"),
    blocks="encoder.layers.{}.",
    layers=_CLIP_LAYERS,
    others={
        "stem": "embeddings.patch_embedding",
        "last_norm": "post_layernorm",
        "positions": "embeddings.position_embedding.weight",
        "attention_pool/query": "head.probe",
        "attention_pool/attention/query": "head.attention.query",
        "attention_pool/attention/key": "head.attention.key",
        "attention_pool/attention/value": "head.attention.value",
        "attention_pool/attention/out": "head.attention.out_proj",
        "attention_pool/norm": "head.layernorm",
        "attention_pool/mlp/up": "head.mlp.fc1",
        "attention_pool/mlp/down": "head.mlp.fc2",
    },
    parts={
        f"head.attention.in_proj_{leaf}": tuple(
            f"head.attention.{name}.{leaf}" for name in ("query", "key", "value")
        )
        for leaf in ("weight", "bias")
    },
    ignored=("embeddings.position_ids",),
    preprocessing=lambda side: Preprocessing(
        side, True, side, "bicubic", (0.5,) * 3, (0.5,) * 3
    ),
)
_DINOV2 = Family(
    defaults=_SIZES
    | {
        "mlp_ratio": 4,
        "patch_size": 14,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-6,
        "qkv_bias": True,
        "use_swiglu_ffn": False,
    },
    fields=dict(layer_scale=True, pool="class"),
    blocks="encoder.layer.{}.",
    layers={
        "norm1": "norm1",
        "attention/query": "attention.attention.query",
        "attention/key": "attention.attention.key",
        "attention/value": "attention.attention.value",
        "attention/out": "attention.output.dense",
        "scale1": "layer_scale1.lambda1",
        "norm2": "norm2",
        "mlp/up": "mlp.fc1",
        "mlp/down": "mlp.fc2",
        "scale2": "layer_scale2.lambda1",
    },
    gated={
        "mlp/gate": "mlp.gate_proj",
        "mlp/up": "mlp.up_proj",
        "mlp/down": "mlp.weights_out",
    },
    parts={
        f"mlp.weights_in.{leaf}": (f"mlp.gate_proj.{leaf}", f"mlp.up_proj.{leaf}")
        for leaf in ("weight", "bias")
    },
    others={
        "stem": "embeddings.patch_embeddings.projection",
        "last_norm": "layernorm",
        "class_token": "embeddings.cls_token",
        "positions": "embeddings.position_embeddings",
    },
    ignored=("embeddings.mask_token",),
    without_bias={"qkv_bias": ("attention/query", "attention/key", "attention/value")},
    preprocessing=lambda side: Preprocessing(
        256, False, 224, "bicubic", IMAGENET_MEAN, IMAGENET_STD
    ),
)
_DINOV2_REGISTERS = replace(
    _DINOV2,
    defaults={**_DINOV2.defaults, "patch_size": 16, "num_register_tokens": 4},
    fields={**_DINOV2.fields, "antialias": True},
    others={**_DINOV2.others, "registers": "embeddings.register_tokens"},
)
_DINOV3 = Family(
    defaults=_SIZES
    | {
        "hidden_size": 384,
        "num_attention_heads": 6,
        "intermediate_size": 1536,
        "patch_size": 16,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-5,
        "rope_theta": 100.0,
        "num_register_tokens": 0,
        "use_gated_mlp": False,
        "query_bias": True,
        "key_bias": False,
        "value_bias": True,
        "proj_bias": True,
        "mlp_bias": True,
    },
    fields=dict(layer_scale=True, pool="class"),
    blocks="layer.{}.",
    layers={
        "norm1": "norm1",
        "attention/query": "attention.q_proj",
        "attention/key": "attention.k_proj",
        "attention/value": "attention.v_proj",
        "attention/out": "attention.o_proj",
        "scale1": "layer_scale1.lambda1",
        "norm2": "norm2",
        "mlp/gate": "mlp.gate_proj",
        "mlp/up": "mlp.up_proj",
        "mlp/down": "mlp.down_proj",
        "scale2": "layer_scale2.lambda1",
    },
    others={
        "stem": "embeddings.patch_embeddings",
        "last_norm": "norm",
        "class_token": "embeddings.cls_token",
        "registers": "embeddings.register_tokens",
    },
    ignored=("embeddings.mask_token",),
    without_bias={
        "query_bias": ("attention/query",),
        "key_bias": ("attention/key",),
        "value_bias": ("attention/value",),
        "proj_bias": ("attention/out",),
        "mlp_bias": ("mlp/gate", "mlp/up", "mlp/down"),
    },
    preprocessing=lambda side: Preprocessing(
        side, True, side, "bilinear", IMAGENET_MEAN, IMAGENET_STD
    ),
)

# By the `model_type` of `config.json`: of the tower alone, and of both towers.
FAMILIES: dict[str, Family] = {
    "clip": _CLIP,
    "clip_vision_model": _CLIP,
    "siglip": _SIGLIP,
    "siglip_vision_model": _SIGLIP,
    "dinov2": _DINOV2,
    "dinov2_with_registers": _DINOV2_REGISTERS,
    "dinov3_vit": _DINOV3,
}


# What a transformer has where its family does not say otherwise.
_PLAIN = {
    "class_token": True,
    "antialias": False,
    "pre_norm": False,
    "post_norm": False,
    "layer_scale": False,
}


def structure_of(family: Family, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of `VisionTransformer` that a `config.json` describes.

    Args:
        family: of the model.
        given: the part of `config.json` about images.

    Returns:
        All of them but `project`, `embedding_dim`, `dtype` and `remat`.

    Raises:
        InputError: a value is missing, of another type, or of something that is not
            known here.
    """
    whole, number = partial(_whole, family, given), partial(_number, family, given)
    setting = partial(family.setting, given)
    if whole("num_channels") != 3:
        raise InputError(f"num_channels = {whole('num_channels')}: 3 are known here")
    width, patch = whole("hidden_size"), whole("patch_size")
    if not patch:
        raise InputError("patch_size = 0: a patch has pixels")
    gated = bool(setting("use_swiglu_ffn") or setting("use_gated_mlp"))
    activation = choose("hidden_act", setting("hidden_act"), _ACTIVATIONS)
    if "mlp_ratio" in family.defaults:
        hidden = int(width * number("mlp_ratio"))
        if gated:  # two thirds, so that there are as many parameters; in eights
            hidden = (int(hidden * 2 / 3) + 7) // 8 * 8
            activation = "silu"
    else:
        hidden = whole("intermediate_size")
    registers = "num_register_tokens" in family.defaults
    fields = _PLAIN | {
        "registers": whole("num_register_tokens") if registers else 0,
        "rotary": number("rope_theta") if "rope_theta" in family.defaults else 0.0,
        "width": width,
        "depth": whole("num_hidden_layers"),
        "heads": whole("num_attention_heads"),
        "mlp": hidden,
        "patch": patch,
        "grid": whole("image_size") // patch,
        "activation": activation,
        "gated": gated,
        "epsilon": number("layer_norm_eps"),
    }
    headless = setting("vision_use_head") is False
    return fields | dict(family.fields) | ({"pool": "mean"} if headless else {})


def _whole(family: Family, given: Mapping[str, Any], key: str) -> int:
    """Return a whole number of a `config.json`, from 0 on; of a square, its side."""
    value = family.setting(given, key)
    if isinstance(value, list | tuple) and len(set(value)) == 1:
        value = value[0]
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise InputError(f"{key} = {value!r}: a whole number is known here")
    return value


def _number(family: Family, given: Mapping[str, Any], key: str) -> float:
    """Return a number of a `config.json`."""
    value = family.setting(given, key)
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise InputError(f"{key} = {value!r}: a number is known here")
    return float(value)


def layers_without_bias(family: Family, given: Mapping[str, Any]) -> set[str]:
    """Return, by our names, the layers whose bias a file does not have."""
    named = (
        layer
        for key, layers in family.without_bias.items()
        if not family.setting(given, key)
        for layer in layers
    )
    return {*family.no_bias, *named}
