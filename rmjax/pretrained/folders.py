"""Vision transformers of others: a folder with `config.json` and tensors, as the Hub has them.

Of a file with a text tower the vision tower alone is read. Nothing is executed.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from flax.traverse_util import flatten_dict, unflatten_dict
from ml_collections import ConfigDict

from rmjax.errors import InputError
from rmjax.experiment.build import variable_shapes
from rmjax.experiment.config import default_config
from rmjax.experiment.ranges import check_values
from rmjax.inputs import STANDARD
from rmjax.models.backbones import VIT
from rmjax.models.convert import check_entries, some, to_flax_layout, torch_shape
from rmjax.pretrained.families import (
    FAMILIES,
    Family,
    Preprocessing,
    layers_without_bias,
    structure_of,
)
from rmjax.pretrained.files import (
    CONFIG,
    FORMATS,
    INDEX,
    PREPROCESSOR,
    file_hash,
    read_file,
)
from rmjax.utils.choose import choose
from rmjax.utils.files import read_json

_PROJECTION = "visual_projection.weight"
# What a file with two towers holds beside that of images.
_TEXT = ("text_model.", "text_projection.", "logit_scale", "logit_bias")
# What stands before the names of the vision tower: nothing, or what it is a part of.
_WRAPPERS = ("", "vision_model.", "dinov2.", "dinov2_with_registers.", "dinov3_vit.")
# Parameters of `VisionTransformer` that are put together of several.
_TOKENS, _POSITIONS = "stem_tokens", "stem_positions"
_BLOCK = re.compile(r"layer(\d)_(\d+)")
_LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias"}
# Pillow's numbers of its filters, as `preprocessor_config.json` gives them.
_FILTERS = {2: "bilinear", 3: "bicubic"}

Read = Callable[[], np.ndarray]


def is_transformer(folder: Path) -> bool:
    """Tell whether a folder holds a model of another project, by its `config.json`."""
    try:
        return "model_type" in json.loads((folder / CONFIG).read_bytes())
    except (OSError, ValueError, TypeError):
        return False


def read_transformer(
    folder: Path,
) -> tuple[dict[str, Any], ConfigDict, dict[str, Any]]:
    """Read a vision transformer from a folder.

    Returns:
        Its variables, arrays of NumPy in float32 at least; the published recipe with
        its structure and preprocessing; its provenance: files and their SHA-256,
        layout, what was left out, and notes.

    Raises:
        InputError: there are no weights, the family is not known, or the tensors are
            not those that `config.json` describes; the message lists what is missing,
            unexpected, of another shape or not finite.
    """
    given = read_json(folder / CONFIG)
    try:
        kind, vision = _vision_part(given)
        family = FAMILIES[kind]
        with _open_tensors(folder) as (files, tensors):
            tower, left_out = _tower(tensors, family)
            projection = tower.get(_PROJECTION)
            fields = structure_of(family, vision) | {"project": projection is not None}
            config, notes = _config(folder, family, fields)
            if projection is not None:
                config.model.embedding_dim = len(projection())
            else:
                config.model.embedding_dim = fields["width"]
            without = layers_without_bias(family, vision)
            check_values(config)
            variables = _variables(config, family, tower, without)
    except InputError as error:
        raise InputError(f"{folder}: {error}") from error
    provenance = {
        "file": folder.name,
        "sha256": {file.name: file_hash(file) for file in files},
        "layout": kind,
        "left_out": left_out,
        "notes": notes,
    }
    return variables, config, provenance


def _vision_part(given: Any) -> tuple[str, Mapping[str, Any]]:
    """Return the family's name and what a `config.json` says of images."""
    if not isinstance(given, dict) or not isinstance(given.get("model_type"), str):
        raise InputError(f"{CONFIG} names no model_type")
    kind = given["model_type"]
    if kind.endswith("_text_model"):
        raise InputError(f"model_type {kind}: a text tower alone, which sees no images")
    choose("model_type", kind, FAMILIES)
    vision = given.get("vision_config", given if kind not in ("clip", "siglip") else {})
    if not isinstance(vision, dict):
        raise InputError(f"{CONFIG}: vision_config is no object")
    return kind, vision


@contextmanager
def _open_tensors(folder: Path) -> Iterator[tuple[list[Path], dict[str, Read]]]:
    """Open the weights of a folder.

    Yields:
        The files, and what reads each tensor, by its name.

    Raises:
        InputError: there are none, one is missing or can't be read, or a tensor is in
            two files.
    """
    files = _weight_files(folder)
    tensors: dict[str, Read] = {}
    with ExitStack() as stack:
        for file in files:
            if file.suffix == ".safetensors":
                read = _open_safetensors(file, stack)
            else:
                read = {k: partial(np.asarray, v) for k, v in read_file(file).items()}
            twice = tensors.keys() & read.keys()
            if twice:
                raise InputError(f"{file.name}: {some(sorted(twice))} in two files")
            tensors |= read
        yield files, tensors


def _open_safetensors(file: Path, stack: ExitStack) -> dict[str, Read]:
    """Open a file of which only the tensors asked for are read."""
    try:
        opened = stack.enter_context(safetensors.safe_open(file, framework="numpy"))
    except (OSError, safetensors.SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{file.name}: no readable safetensors ({reason})") from error
    return {name: partial(opened.get_tensor, name) for name in opened.keys()}


def _weight_files(folder: Path) -> list[Path]:
    for name in FORMATS:
        file, index = folder / name, folder / (name + INDEX)
        if file.is_file():
            return [file]
        if not index.is_file():
            continue
        listed = read_json(index).get("weight_map")
        if not isinstance(listed, dict) or not listed:
            raise InputError(f"{index.name} lists no files")
        shards = sorted({str(shard) for shard in listed.values()})
        for shard in shards:
            # A name with a folder in it may lead anywhere.
            if Path(shard).name != shard or not (folder / shard).is_file():
                raise InputError(f"{index.name} lists {shard}, which is not there")
        return [folder / shard for shard in shards]
    raise InputError(
        f"no weights: neither {' nor '.join(FORMATS)}, nor the {INDEX} of one"
    )


def _tower(
    tensors: Mapping[str, Read], family: Family
) -> tuple[dict[str, Read], list[str]]:
    """Return the vision tower's tensors by their names in it, and what is left out."""
    kept, left_out = {}, []
    stem = family.others["stem"]
    wrapper = next((w for w in _WRAPPERS if _starts(tensors, w + stem)), "")
    for name, read in tensors.items():
        inner = name.removeprefix(wrapper)
        if name.startswith(_TEXT) or inner in family.ignored:
            left_out.append(name)
        elif name == _PROJECTION or inner != name or not wrapper:
            kept[inner] = read
        else:
            left_out.append(name)
    if not kept:
        raise InputError("the weights are of a text tower alone, which sees no images")
    return kept, _summarize(left_out)


def _starts(names: Mapping[str, Any], prefix: str) -> bool:
    return any(name.startswith(prefix) for name in names)


def _summarize(names: list[str]) -> list[str]:
    """Name what was left out, towers by their prefix alone."""
    return sorted({n.split(".")[0] if n.startswith(_TEXT) else n for n in names})


def _config(
    folder: Path, family: Family, fields: Mapping[str, Any]
) -> tuple[ConfigDict, list[str]]:
    """Return the recipe with a structure and the preprocessing, and notes on it."""
    config = default_config()
    config.model.arch = VIT
    for name, value in fields.items():
        config.model.vit[name] = value
    seen = family.preprocessing(fields["patch"] * fields["grid"])
    notes = [f"no {PREPROCESSOR}: images are prepared as is usual for the family"]
    if (folder / PREPROCESSOR).is_file():
        try:
            seen = read_preprocessing(read_json(folder / PREPROCESSOR), seen)
        except InputError as error:
            raise InputError(f"{PREPROCESSOR}: {error}") from error
        notes = []
    config.model.input = STANDARD
    config.model.mean, config.model.std = seen.mean, seen.std
    config.data.filter, config.data.squash = seen.filter, seen.squash
    config.data.eval_resize = config.data.resize = seen.resize
    config.data.eval_size = config.data.size = config.data.crop = seen.size
    if not fields["project"]:
        notes.append("no projection: the embedding is what was pooled")
    return config, notes


def read_preprocessing(given: Any, usual: Preprocessing) -> Preprocessing:
    """Return what a `preprocessor_config.json` says is done to an image.

    Args:
        given: what is in it.
        usual: of the family, for what it leaves out.

    Raises:
        InputError: it asks for what is not known here.
    """
    if not isinstance(given, dict):
        raise InputError("no object")
    filter = given.get(
        "resample", next(k for k, v in _FILTERS.items() if v == usual.filter)
    )
    if filter not in _FILTERS:
        raise InputError(
            f"resample = {filter!r}: known are 2, bilinear, and 3, bicubic"
        )
    size, squash = _side(given.get("size"), usual.resize, usual.squash)
    cut = size if squash else usual.size
    if given.get("do_center_crop"):
        cut, _ = _side(given.get("crop_size"), usual.size, True)
    if given.get("do_resize") is False:
        size = 0
    scale = given.get("rescale_factor", 1 / 255)
    if given.get("do_rescale") is False or abs(scale * 255 - 1) > 1e-6:
        raise InputError("do_rescale: pixels are divided by 255 here")
    mean, std = (
        given.get(k, getattr(usual, k[6:])) for k in ("image_mean", "image_std")
    )
    if given.get("do_normalize") is False:
        mean, std = (0.0,) * 3, (1.0,) * 3
    if len(mean) != 3 or len(std) != 3:
        raise InputError("image_mean and image_std are of three channels here")
    return Preprocessing(
        resize=size,
        squash=squash,
        size=cut,
        filter=_FILTERS[filter],
        mean=tuple(map(float, mean)),
        std=tuple(map(float, std)),
    )


def _side(size: Any, usual: int, squash: bool) -> tuple[int, bool]:
    """Return a side in pixels, and whether both sides are brought to it."""
    if size is None:
        return usual, squash
    sides = size if isinstance(size, dict) else {"shortest_edge": size}
    squash = "shortest_edge" not in sides
    side = sides.get("height" if squash else "shortest_edge")
    if not isinstance(side, int) or (squash and sides.get("width") != side):
        raise InputError(
            f"size = {size!r}: known are the shortest_edge, or height and width of a "
            "square"
        )
    return side, squash


def _variables(
    config: ConfigDict, family: Family, tower: Mapping[str, Read], without: set[str]
) -> dict[str, Any]:
    """Return the network's variables of the tensors that are exactly its own."""
    vit = config.model.vit
    shapes = flatten_dict(variable_shapes(config, 0)["params"]["backbone"])
    own = _own_shapes(vit, family)
    names = {
        path: _name(path, vit, family, without)
        for path in shapes
        if path[-1] not in (_TOKENS, _POSITIONS)
    }
    given = _whole_parts(tower, family)
    check_entries(
        given,
        own | {n: torch_shape(shapes[path].shape) for path, n in names.items() if n},
        f"vision transformer as {CONFIG} describes it",
    )
    flat = {
        path: to_flax_layout(given[name])
        if name
        else np.zeros(shapes[path].shape, np.float32)
        for path, name in names.items()
    }
    flat |= _own_parameters(vit, {n: to_flax_layout(given[n]).T for n in own}, family)
    return {"params": {"backbone": unflatten_dict(flat)}}


def _name(
    path: tuple[str, ...], vit: ConfigDict, family: Family, without: set[str]
) -> str | None:
    """Return the published name of a parameter; None for a bias that is not there."""
    table, prefix = family.others, ""
    block = _BLOCK.fullmatch(path[0])
    if block:
        quarter, number = map(int, block.groups())
        prefix = family.blocks.format(vit.depth * (quarter - 1) // 4 + number)
        table = {**family.layers, **(family.gated if vit.gated else {})}
        path = path[1:]
    alone = "/".join(path)
    if alone in table:
        return prefix + table[alone]
    layer = "/".join(path[:-1])
    if path[-1] == "bias" and layer in without:
        return None
    return f"{prefix}{table[layer]}.{_LEAVES[path[-1]]}"


def _whole_parts(tower: Mapping[str, Read], family: Family) -> dict[str, np.ndarray]:
    """Read tensors, part those that hold several, and drop axes that are there once."""
    given = {}
    for name, read in tower.items():
        value = np.asarray(read())
        parts = next((p for end, p in family.parts.items() if name.endswith(end)), ())
        if parts and value.ndim and len(value) % len(parts) == 0:
            end = next(end for end in family.parts if name.endswith(end))
            for part, piece in zip(parts, np.split(value, len(parts)), strict=True):
                given[name.removesuffix(end) + part] = piece
        elif name in family.others.values() and value.ndim:
            rows = value.reshape(-1, value.shape[-1])
            alone = name == family.others.get("attention_pool/query") and len(rows) == 1
            if value.size:  # not registers that there are none of
                given[name] = rows[0] if alone else rows
        else:
            given[name] = value
    return given


def _own_shapes(vit: ConfigDict, family: Family) -> dict[str, tuple[int, ...]]:
    """Return the shapes of what is added to patches or stands beside them, by name."""
    rows = {
        "class_token": int(vit.class_token),
        "positions": 0 if vit.rotary else vit.grid**2 + vit.class_token,
        "registers": vit.registers,
    }
    return {
        family.others[kind]: (count, vit.width) for kind, count in rows.items() if count
    }


def _own_parameters(
    vit: ConfigDict, given: Mapping[str, np.ndarray], family: Family
) -> dict[tuple[str, ...], np.ndarray]:
    """Return the parameters of positions and tokens; a class token's place is its own."""
    by_kind = {
        kind: given[name] for kind, name in family.others.items() if name in given
    }
    tokens = [by_kind[kind] for kind in ("class_token", "registers") if kind in by_kind]
    flat: dict[tuple[str, ...], np.ndarray] = {}
    if "positions" in by_kind:
        positions = by_kind["positions"]
        if vit.class_token:
            tokens[0] = tokens[0] + positions[:1]
        flat[(_POSITIONS,)] = positions[int(vit.class_token) :]
    if tokens:
        flat[(_TOKENS,)] = np.concatenate(tokens)
    return flat
