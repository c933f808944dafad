"""Images of one cell (source x semantic) of the grid, in blocks that stand alone."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from rmjax.datasets.attribution_mini import exact
from rmjax.datasets.attribution_mini.exact import Draws
from rmjax.datasets.attribution_mini.png import encode_png
from rmjax.datasets.attribution_mini.preferences import KINDS, Preferences
from rmjax.datasets.attribution_mini.scenes import SCENES, draw_scenes
from rmjax.datasets.attribution_mini.tails import SOURCES, apply_tail

SEMANTICS = tuple(SCENES)
BLOCK = 20  # images drawn together
ENTANGLEMENT = 0.5  # by default: where the gap to unseen semantics is clear (README.md)


class Settings(NamedTuple):
    """What determines the images, but for how many there are.

    Attributes:
        seed: names scenes and preferences, non-negative integer below 2^63.
        size: side in pixels, a multiple of 16.
        entanglement: how much of the content is the source's preference, 0 to 1.
        preferences: of which kinds, of `preferences.KINDS`.
    """

    seed: int = 0
    size: int = 64
    entanglement: float = ENTANGLEMENT
    preferences: tuple[str, ...] = KINDS


def draw_block(
    source: str, semantic: str, block: int, settings: Settings
) -> np.ndarray:
    """Draw images `block * BLOCK ...` of a cell.

    Every block has its own random stream, named by seed, source, semantic and block: an
    image does not depend on how many images there are, nor on who draws the others, and
    no two sources share a scene.

    Args:
        source: one of `SOURCES`.
        semantic: one of `SEMANTICS`.
        block: number of the block, from 0.
        settings: of the data set.

    Returns:
        uint8 `[BLOCK, size, size, 3]`.
    """
    cell = SOURCES.index(source) * len(SEMANTICS) + SEMANTICS.index(semantic)
    draws = Draws((settings.seed, (cell << 32) + block), BLOCK)
    preferences = Preferences(
        settings.seed, cell, settings.entanglement, settings.preferences
    )
    scene = draw_scenes(semantic, draws, settings.size, preferences)
    image = exact.clip01(apply_tail(source, scene, draws))
    pixels = np.rint(image * np.float32(255.0)).astype(np.uint8)
    return np.ascontiguousarray(pixels.transpose(1, 2, 3, 0))


class Task(NamedTuple):
    """Images start..stop of a cell; all must lie in one block."""

    source: str
    semantic: str
    start: int
    stop: int
    settings: Settings


def tasks_of(start: int, stop: int, settings: Settings) -> Iterator[Task]:
    """Cut images start..stop of every cell into tasks, blocks outermost.

    The cells take turns, so that a reader of the first part sees all of them.
    """
    while start < stop:
        end = min(stop, (start // BLOCK + 1) * BLOCK)
        for source in SOURCES:
            for semantic in SEMANTICS:
                yield Task(source, semantic, start, end, settings)
        start = end


def encode_range(task: Task) -> list[bytes]:
    """Draw a task's images and encode them as PNG."""
    block = task.start // BLOCK
    drawn = draw_block(task.source, task.semantic, block, task.settings)
    first = block * BLOCK
    return [encode_png(drawn[i - first]) for i in range(task.start, task.stop)]
