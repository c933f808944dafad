"""Files of weights as dicts of arrays; nothing in them is ever executed."""

import hashlib
from pathlib import Path
from typing import Any

import safetensors
import safetensors.numpy

from rmjax.errors import InputError
from rmjax.pretrained.pickles import Refused, read_torch

# A safetensors file begins with the length of its header, then the header's brace.
_BRACE_AT = 8
# The key of the metadata by which a file is a run that rmjax exported.
EXPORTED = "rmjax"
# How the Hub has a model, ours too. Of two formats of the weights the first is enough.
CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"
WEIGHTS = "model.safetensors"
FORMATS = (WEIGHTS, "pytorch_model.bin")
INDEX = ".index.json"  # after the name of weights that lie in several files


def read_file(path: Path) -> dict[str, Any]:
    """Read a `.pth`, `.ckpt` or `.safetensors` file, told apart by content.

    Returns:
        Its outermost dict, with NumPy arrays for tensors.

    Raises:
        InputError: it can't be read, is of neither sort, is damaged, or asks to run
            code.
    """
    try:
        with path.open("rb") as file:
            start = file.read(_BRACE_AT + 1)
            file.seek(0)
            if start[_BRACE_AT:] == b"{":
                content = safetensors.numpy.load_file(path)
            else:
                content = read_torch(file)
    except Refused as refusal:
        raise InputError(f"{path}: refused, {refusal}; nothing in it was run") from None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from error
    except Exception as error:  # pickle and zipfile raise a dozen different types
        raise InputError(
            f"{path}: no readable .pth, .ckpt or .safetensors file "
            f"({' '.join(str(error).split()) or type(error).__name__})"
        ) from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds a {type(content).__name__}, not named tensors")
    return content


def read_metadata(path: Path) -> dict[str, str]:
    """Return the metadata of a safetensors file; of any other file, none."""
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            return file.metadata() or {}
    except (OSError, safetensors.SafetensorError):
        return {}


def is_exported(path: Path) -> bool:
    """Tell whether a file is a run that `rmjax.inference.exported.export` wrote."""
    return EXPORTED in read_metadata(path)


def weights_in(folder: Path) -> Path | None:
    """Return the file of weights in a folder, by its name; None where there is none."""
    files = (folder / name for name in FORMATS)
    return next((file for file in files if file.is_file()), None)


def is_run(path: Path) -> bool:
    """Tell whether a path is a folder, but not one that holds weights of others."""
    weights = weights_in(path)
    return path.is_dir() and (weights is None or is_exported(weights))


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
