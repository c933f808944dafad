"""What is remembered of a checkpoint's contents, to know them again when read back."""

import json
import zlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

PyTree = Any
Leaves = dict[str, np.ndarray]  # by path, such as params/stem/kernel
Digest = dict[str, list]  # by path: type, shape, CRC-32 of the bytes


def named_leaves(tree: PyTree) -> dict[str, Any]:
    """Map the path of every leaf to it, whatever classes the nodes are."""
    return {
        "/".join(_key_name(key) for key in path): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def digest(leaves: Leaves) -> Digest:
    """Return type, shape and CRC-32 of every array.

    A CRC-32 misses no change within 32 neighbouring bits, and of larger ones one in
    2^32 (Peterson and Brown, "Cyclic Codes for Error Detection", 1961).
    """
    return {
        name: [str(leaf.dtype), list(leaf.shape), _crc(leaf)]
        for name, leaf in leaves.items()
    }


def seal(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return a JSON object with the CRC-32 of its own text beside."""
    return {**content, "crc32": _crc_of_text(content)}


def is_sealed(content: Mapping[str, Any]) -> bool:
    """Tell whether an object is as `seal` returned it."""
    rest = {name: value for name, value in content.items() if name != "crc32"}
    return content.get("crc32") == _crc_of_text(rest)


def first_difference(saved: Digest, found: Digest) -> str | None:
    """Name the first array that is not the same, None when all are."""
    names = (n for n in {**saved, **found} if saved.get(n) != found.get(n))
    return next(names, None)


def first_not_finite(leaves: Leaves) -> str | None:
    """Name the first array of floats with an infinite entry or a NaN, or None."""
    names = (
        name
        for name, leaf in leaves.items()
        if jax.numpy.issubdtype(leaf.dtype, np.inexact) and not np.isfinite(leaf).all()
    )
    return next(names, None)


def _crc(array: np.ndarray) -> int:
    # As bytes: bfloat16 has no buffer of its own kind.
    return zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8))


def _crc_of_text(content: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(content, sort_keys=True).encode())


def _key_name(key: Any) -> str:
    for attribute in ("key", "name", "idx"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    return str(key)
