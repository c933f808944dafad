"""The weights and batches that `reference.npz` was computed from.

Every value comes from a random stream that its name seeds, so that neither the 25
million weights nor the images need a file. To change a draw is to lose the reference.
"""

import json
import zlib
from math import prod, sqrt
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent
SIZE = 96  # px
SOURCES = 8  # source 0 is real


def read_shapes() -> dict[str, list[int]]:
    """Read the shape of each entry of the published state dict, at mixing level 5."""
    return json.loads((FOLDER / "state_dict_shapes.json").read_text())


def make_state_dict() -> dict[str, np.ndarray]:
    """Draw the model as PyTorch stores it: kernels OIHW, float32, counters int64."""
    return {name: _entry(name, shape) for name, shape in read_shapes().items()}


def _entry(name: str, shape: list[int]) -> np.ndarray:
    if name == "det_ce.weight":  # weights of the classes in the detection loss
        return np.array([1, 1 / (SOURCES - 1)], np.float32)
    kind = name.rpartition(".")[2]
    if kind == "num_batches_tracked":
        return np.zeros(shape, np.int64)
    rng = np.random.default_rng([0, zlib.crc32(name.encode())])
    normal = rng.standard_normal(shape).astype(np.float32)
    if len(shape) > 1:  # He's initialisation: the signal neither dies nor explodes
        return np.float32(sqrt(2 / prod(shape[1:]))) * normal
    if kind == "running_mean":
        return 0.1 * normal
    if kind == "running_var":
        return 1 + 0.2 * abs(normal)
    if kind == "bias":
        return 0.05 * normal
    # A block's last batch norm is small, so that the sum over 16 blocks stays so too.
    return (0.3 if ".bn3." in name else 1) * (1 + 0.1 * normal)


def make_batch(groups: int, members: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw a batch of `groups` mixtures, each of `members` images.

    Returns:
        Standardised images `[groups * members, SIZE, SIZE, 3]` float32, a mixture's
        members beside each other; sources `[groups, members]` int64, the first of them
        real; mixing weights `[groups, members]` float32, from Dirichlet(0.4).
    """
    rng = np.random.default_rng([0, 999])
    images = rng.standard_normal((groups * members, 3, SIZE, SIZE)).astype(np.float32)
    sources = rng.integers(SOURCES, size=(groups, members))
    sources[0, 0] = 0
    weights = rng.dirichlet(np.full(members, 0.4), groups).astype(np.float32)
    return images.transpose(0, 2, 3, 1), sources, weights
