"""Scenes of eleven semantics, as they stand before a camera or inside a generator."""

from collections.abc import Callable

import numpy as np

from rmjax.datasets.attribution_mini import exact, kinds
from rmjax.datasets.attribution_mini.exact import Array, Draws
from rmjax.datasets.attribution_mini.preferences import Preferences
from rmjax.datasets.attribution_mini.shapes import Frame

SCENES: dict[str, Callable[[Frame], None]] = {
    "airplane": kinds.airplane,
    "bedroom": kinds.bedroom,
    "bridge": kinds.bridge,
    "bus": kinds.bus,
    "cat": kinds.cat,
    "church": kinds.church,
    "classroom": kinds.classroom,
    "cow": kinds.cow,
    "kitchen": kinds.kitchen,
    "sheep": kinds.sheep,
    "tower": kinds.tower,
}


def draw_scenes(
    semantic: str, draws: Draws, size: int, preferences: Preferences
) -> Array:
    """Draw a batch of scenes of one kind.

    Args:
        semantic: a key of `SCENES`.
        draws: random numbers; `draws.batch` images are drawn.
        size: side in pixels.
        preferences: of whoever shows the scenes.

    Returns:
        Display-referred RGB, `[3, batch, size, size]` float32 in [0, 1].
    """
    axis = (np.arange(size, dtype=np.float32) + np.float32(0.5)) / np.float32(size)
    rough, light = (preferences.lean(kind, draws) for kind in ("texture", "light"))
    coarse = exact.texture(draws, 1, size, rough.uniform(1.3, 1.7))[0] * np.float32(0.2)
    frame = Frame(
        *preferences.place(axis[None, None, :], axis[None, :, None]),
        size,
        preferences.lean("layout", draws),
        coarse,
        np.empty((4, draws.batch, size, size), np.float32),
    )
    SCENES[semantic](frame)
    return exact.clip01(preferences.colour(_light(frame, rough, light)))


def _light(f: Frame, rough: Draws, light: Draws) -> Array:
    """Add texture where the canvas is rough, then uneven light and exposure."""
    fine = exact.texture(rough, 2, f.size, rough.uniform(0.65, 1.2))
    relief = fine[0] * (f.canvas[3] + rough.uniform(0.01, 0.06)) * np.float32(0.35)
    tint = fine[1] * rough.uniform(0.0, 0.03)
    exposure = light.uniform(0.75, 1.2) * (
        1
        + light.uniform(-0.3, 0.3) * (f.x - 0.5)
        + light.uniform(-0.3, 0.3) * (f.y - 0.5)
    )
    out = f.canvas[:3] * (exposure * (1 + relief))
    out[0] += tint + light.uniform(-0.04, 0.04)
    out[2] += light.uniform(-0.04, 0.04) - tint
    return out
