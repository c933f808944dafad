"""Soft-edged shapes, painted for a whole batch of scenes at once.

Coordinates run from 0 to 1, x to the right and y down; edges are one pixel soft.
Sizes and places are numbers or `[batch, 1, 1]`; masks are `[batch, size, size]`.
"""

from dataclasses import dataclass

import numpy as np

from rmjax.datasets.attribution_mini import exact
from rmjax.datasets.attribution_mini.exact import Array, Draws


@dataclass(frozen=True)
class Frame:
    """What a scene is drawn with.

    Attributes:
        x, y: coordinates, `[1, 1, size]` and `[1, size, 1]`.
        size: side in pixels.
        draws: random numbers, one stream a batch.
        cloud: coarse noise in about [-2, 2], `[batch, size, size]`, for clouds, fur, patches.
        canvas: `[4, batch, size, size]`, painted in place.
    """

    x: Array
    y: Array
    size: int
    draws: Draws
    cloud: Array
    canvas: Array

    def u(self, low: float, high: float) -> Array:
        """Draw one number an image in [low, high), `[batch, 1, 1]`."""
        return self.draws.uniform(low, high)


def soft(f: Frame, depth: Array) -> Array:
    """Turn a depth inside an outline (in image sides) into coverage 0..1."""
    return exact.clip01(depth * np.float32(f.size) + np.float32(0.5))


def ellipse(f: Frame, cx, cy, rx, ry) -> Array:
    """Cover an ellipse."""
    dx, dy = (f.x - cx) / rx, (f.y - cy) / ry
    return soft(
        f, (1 - np.sqrt(dx * dx + dy * dy)) * np.minimum(rx, ry, dtype=np.float32)
    )


def box(f: Frame, cx, cy, rx, ry) -> Array:
    """Cover a rectangle of half sides rx, ry."""
    return soft(f, np.minimum(rx - np.abs(f.x - cx), ry - np.abs(f.y - cy)))


def wedge(f: Frame, cx, top, bottom, half_top, half_bottom) -> Array:
    """Cover an upright trapezium; half_top 0 makes it a triangle."""
    slope = (half_bottom - half_top) / (bottom - top)
    half = half_top + (f.y - top) * slope
    inside = half - np.abs(f.x - cx)
    return soft(f, np.minimum(inside, np.minimum(f.y - top, bottom - f.y)))


def bars(f: Frame, along: Array, period, share) -> Array:
    """Cover stripes across the coordinate `along`: `share` of each period."""
    depth = (exact.wave(along / period) - (1 - share)) * period * np.float32(0.5)
    return soft(f, depth)


def turned(f: Frame, cx, cy, lean) -> Frame:
    """Turn the coordinates about (cx, cy) by twice the angle whose tangent is `lean`."""
    scale = 1 / (1 + lean * lean)
    cos, sin = (1 - lean * lean) * scale, 2 * lean * scale
    dx, dy = f.x - cx, f.y - cy
    return Frame(
        cx + cos * dx + sin * dy,
        cy - sin * dx + cos * dy,
        f.size,
        f.draws,
        f.cloud,
        f.canvas,
    )


def colour(f: Frame, base: tuple[float, float, float], rough=0.1, spread=0.22) -> Array:
    """Draw one colour an image around `base`, with its roughness, `[4, batch, 1, 1]`."""
    light = f.u(-spread, spread)
    rgb = [b + light + f.u(-spread / 2, spread / 2) for b in base]
    return np.stack([*rgb, rough * f.u(0.5, 1.5)]).astype(np.float32)


def paint(f: Frame, mask: Array, paint_colour: Array) -> None:
    """Blend a colour into the canvas where the mask covers it."""
    delta = paint_colour - f.canvas
    delta *= mask
    np.add(f.canvas, delta, out=f.canvas)  # in place, also through a turned frame


def ground(f: Frame, top: Array, bottom: Array, horizon, tilt=0.0) -> None:
    """Paint two grounds that meet at the height `horizon`."""
    edge = f.y - horizon + tilt * (f.x - 0.5)
    f.canvas[...] = top
    shade = 1 + f.u(-0.35, 0.35) * (f.y - horizon)
    f.canvas[:3] *= shade
    paint(f, soft(f, edge), bottom)


def sky(f: Frame) -> Array:
    """Draw a sky colour, from blue to grey to dusk."""
    dusk = f.u(0, 1)
    mix = colour(f, (0.45, 0.6, 0.8), 0.05)
    return mix + dusk * (colour(f, (0.7, 0.62, 0.55), 0.05) - mix)


def clouds(f: Frame) -> None:
    """Lay clouds over what is painted so far."""
    cover = exact.clip01((f.cloud - f.u(-0.2, 1.2)) * f.u(0.5, 2.0)) * f.u(0, 0.8)
    paint(f, cover, colour(f, (0.8, 0.8, 0.82), 0.06))
