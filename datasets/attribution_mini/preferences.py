"""What each source prefers to show: content that tells the source, if one leans on it.

A real generator has its own palettes, poses and lights, others for each class that it was
trained on, and so does whoever took the photographs. Here every cell, a source with a
semantic, has preferences of five kinds, fixed for a seed of the data set. They act on the
scene, before the source's tail leaves its fingerprint there. Those of one semantic say
nothing about another's, so who learns them has learnt nothing for unseen semantics.
"""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from rmjax.datasets.attribution_mini.exact import Array, Draws

# palette: gain and offset of each colour. light: exposure, and from where light falls.
# pose: mirrored or not, scale, place in the image. layout: places, sizes and colours of
# what a scene is made of. texture: how rough and how fine surfaces are.
KINDS = ("palette", "light", "pose", "layout", "texture")

# At entanglement 1: the part of a draw's range that the cell's preference takes away, and
# how far a cell's palette and pose lie from the middle at most.
LEAN = 0.8
GAIN, OFFSET = 0.3, 0.1  # of a colour, of values in 0..1
ZOOM, SHIFT = 0.25, 0.12  # of the scene, in parts of its side

_STREAM = 1 << 63  # of preferences; those of images lie below


class LeaningDraws(Draws):
    """Random numbers of images, of which those one an image lean to a cell's preference.

    Args:
        draws: random numbers; they go on in the same stream.
        preferred: what is preferred, a number for each draw in turn.
        strength: 0 leaves the numbers alone, 1 leaves only what is preferred.
    """

    def __init__(self, draws: Draws, preferred: Draws, strength: float):
        self._bits, self.batch = draws._bits, draws.batch
        self._preferred, self._strength = preferred, np.float32(strength)

    def uniform(self, low: float = 0.0, high: float = 1.0, shape=None) -> Array:
        """Draw as `Draws`; one number an image lies nearer to the preferred one."""
        unit = super().uniform(shape=shape)
        if shape is None:
            preferred = self._preferred.uniform(shape=(1, 1, 1))
            unit = unit + self._strength * (preferred - unit)
        return np.float32(low) + np.float32(high - low) * unit


@dataclass(frozen=True)
class Preferences:
    """What one cell prefers.

    Attributes:
        seed: of the data set, below 2^63.
        cell: number of the source and semantic.
        entanglement: 0: nothing; 1: content tells the source most of the time.
        kinds: of `KINDS`, those that the cell has.
    """

    seed: int
    cell: int
    entanglement: float
    kinds: Collection[str] = KINDS

    def lean(self, kind: str, draws: Draws) -> Draws:
        """Return draws that lean to what is preferred of a kind."""
        return LeaningDraws(draws, self._stream(kind), LEAN * self._strength(kind))

    def colour(self, scene: Array) -> Array:
        """Give a scene `[3, batch, size, size]` the preferred palette."""
        gain, offset = self._stream("palette").uniform(-1, 1, (2, 3, 1, 1, 1))
        strength = np.float32(self._strength("palette"))
        return scene * (1 + np.float32(GAIN) * strength * gain) + (
            np.float32(OFFSET) * strength * offset
        )

    def place(self, x: Array, y: Array) -> tuple[Array, Array]:
        """Give coordinates in 0..1 the preferred pose."""
        zoom, right, down, mirror = self._stream("pose").uniform(-1, 1, (4, 1, 1, 1))
        strength = np.float32(self._strength("pose"))
        zoom = 1 + np.float32(ZOOM) * strength * zoom
        if strength and mirror < 0:
            x = 1 - x
        middle, most = np.float32(0.5), np.float32(SHIFT) * strength
        x = middle + (x - middle) * zoom + most * right
        y = middle + (y - middle) * zoom + most * down
        return x, y

    def _strength(self, kind: str) -> float:
        return self.entanglement if kind in self.kinds else 0.0

    def _stream(self, kind: str) -> Draws:
        number = _STREAM + (KINDS.index(kind) << 32) + self.cell
        return Draws((self.seed, number))
