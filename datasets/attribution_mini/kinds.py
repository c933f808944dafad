"""The eleven painters: one function for each kind of scene.

Each paints shapes on a `Frame`'s canvas of four planes: red, green, blue and roughness,
which says how strongly the fine texture shows there. Places, sizes and colours are drawn
anew for each image. The last five kinds are finer and rougher than the first six: content
of unseen semantics hides, or looks like, a fingerprint.
"""

import numpy as np

from rmjax.datasets.attribution_mini import exact
from rmjax.datasets.attribution_mini.shapes import (
    Frame,
    bars,
    box,
    clouds,
    colour,
    ellipse,
    ground,
    paint,
    sky,
    soft,
    turned,
    wedge,
)


def airplane(f: Frame) -> None:
    """A plane in the sky: fuselage, wings, fin, a row of windows."""
    ground(f, sky(f), sky(f), f.u(0.7, 1.2), f.u(-0.2, 0.2))
    clouds(f)
    cx, cy, scale = f.u(0.35, 0.65), f.u(0.35, 0.65), f.u(0.7, 1.3)
    t = turned(f, cx, cy, f.u(-0.35, 0.35))
    body = colour(f, (0.75, 0.75, 0.78), 0.06)
    wing = colour(f, (0.55, 0.56, 0.6), 0.08)
    up, down = f.u(0.1, 0.28) * scale, f.u(0.1, 0.28) * scale
    paint(f, wedge(t, cx - 0.02, cy - up, cy, 0.02 * scale, 0.09 * scale), wing)
    paint(
        f, wedge(t, cx + 0.27 * scale, cy - 0.14 * scale, cy, 0.02, 0.06 * scale), body
    )
    hull = ellipse(t, cx, cy, 0.33 * scale, f.u(0.04, 0.075) * scale)
    paint(f, hull, body)
    paint(f, wedge(t, cx + 0.02, cy, cy + down, 0.09 * scale, 0.02 * scale), wing)
    windows = bars(t, t.x, f.u(0.035, 0.06), f.u(0.3, 0.6)) * box(
        t, cx, cy - 0.01, 0.25 * scale, 0.012 * scale
    )
    paint(f, windows, colour(f, (0.2, 0.22, 0.28)))


def bedroom(f: Frame) -> None:
    """A room with wallpaper, a window, a bed, a pillow and a picture."""
    floor = f.u(0.6, 0.8)
    ground(
        f,
        colour(f, (0.68, 0.62, 0.55), 0.06),
        colour(f, (0.42, 0.3, 0.22), 0.25),
        floor,
    )
    stripes = bars(f, f.x, f.u(0.05, 0.16), f.u(0.2, 0.6)) * box(f, 0.5, 0, 1.0, floor)
    paint(f, stripes * f.u(0, 0.5), colour(f, (0.6, 0.55, 0.5)))
    wx, wy = f.u(0.15, 0.85), f.u(0.2, 0.35)
    paint(
        f,
        box(f, wx, wy, f.u(0.09, 0.15), f.u(0.1, 0.18)),
        colour(f, (0.85, 0.85, 0.82), 0.03),
    )
    paint(f, box(f, wx, wy, 0.008, 0.14), colour(f, (0.5, 0.42, 0.36)))
    bx, by, half = f.u(0.3, 0.7), f.u(0.66, 0.8), f.u(0.22, 0.36)
    sheet = colour(f, (0.62, 0.5, 0.52), 0.3)
    paint(f, box(f, bx, by - 0.14, half, 0.08), colour(f, (0.36, 0.25, 0.18), 0.2))
    paint(f, box(f, bx, by + 0.08, half, 0.17), sheet)
    quilt = bars(f, f.x + f.y, f.u(0.05, 0.14), 0.4) * box(f, bx, by + 0.12, half, 0.13)
    paint(f, quilt * f.draws.chance(0.5), colour(f, (0.55, 0.45, 0.5), 0.3))
    pillow = colour(f, (0.82, 0.8, 0.78), 0.1)
    paint(f, ellipse(f, bx - half / 2, by - 0.06, half * 0.42, 0.06), pillow)
    paint(f, ellipse(f, bx + half / 2, by - 0.06, half * 0.42, 0.06), pillow)


def bridge(f: Frame) -> None:
    """A deck over rippled water, with towers and hanging cables."""
    shore = f.u(0.55, 0.72)
    ground(f, sky(f), colour(f, (0.28, 0.4, 0.48), 0.18), shore)
    clouds(f)
    ripple = bars(f, f.y + 0.01 * f.cloud, f.u(0.03, 0.07), 0.5) * soft(f, f.y - shore)
    paint(f, ripple * f.u(0.2, 0.7), colour(f, (0.5, 0.58, 0.62), 0.15))
    deck, steel = shore - f.u(0.03, 0.15), colour(f, (0.45, 0.3, 0.26), 0.12)
    left, right, top = f.u(0.1, 0.32), f.u(0.65, 0.9), deck - f.u(0.22, 0.36)
    span = (f.x - (left + right) / 2) / ((right - left) / 2)
    cable = top + (deck - top) * (1 - np.minimum(span * span, np.float32(1.0)))
    paint(f, soft(f, 0.008 - np.abs(f.y - cable)), steel)
    hangers = bars(f, f.x, f.u(0.045, 0.09), 0.16) * soft(
        f, np.minimum(f.y - cable, deck - f.y)
    )
    paint(f, hangers, steel)
    paint(f, box(f, 0.5, deck, 0.7, f.u(0.012, 0.03)), steel)
    for x in (left, right):
        paint(
            f,
            box(f, x, (top + shore) / 2, f.u(0.012, 0.03), (shore - top) / 2 + 0.03),
            steel,
        )


def bus(f: Frame) -> None:
    """A bus on a street: body, window row, door, wheels, lights."""
    road = f.u(0.7, 0.82)
    ground(
        f, colour(f, (0.6, 0.58, 0.55), 0.2), colour(f, (0.32, 0.32, 0.33), 0.3), road
    )
    facade = bars(f, f.x, f.u(0.08, 0.2), 0.5) * bars(f, f.y, f.u(0.1, 0.2), 0.5)
    paint(f, facade * soft(f, road - f.y) * f.u(0, 0.6), colour(f, (0.35, 0.38, 0.42)))
    cx, half, tall = f.u(0.4, 0.6), f.u(0.28, 0.42), f.u(0.14, 0.22)
    cy = road - tall + 0.03
    paint(f, box(f, cx, cy, half, tall), colour(f, (0.65, 0.3, 0.2), 0.05, 0.4))
    glass = colour(f, (0.2, 0.24, 0.3), 0.05)
    panes = bars(f, f.x, f.u(0.07, 0.14), f.u(0.7, 0.88))
    paint(f, box(f, cx, cy - tall * 0.4, half * 0.94, tall * 0.33) * panes, glass)
    paint(
        f, box(f, cx + half * f.u(-0.8, 0.8), cy + tall * 0.1, 0.035, tall * 0.8), glass
    )
    for side in (-0.62, 0.62):
        wheel = f.u(0.045, 0.07)
        paint(
            f,
            ellipse(f, cx + half * side, cy + tall, wheel, wheel),
            colour(f, (0.1, 0.1, 0.1)),
        )
        paint(
            f,
            ellipse(f, cx + half * side, cy + tall, wheel * 0.45, wheel * 0.45),
            colour(f, (0.5, 0.5, 0.5)),
        )
    paint(
        f,
        ellipse(f, cx - half, cy + tall * 0.7, 0.02, 0.02),
        colour(f, (0.9, 0.85, 0.6)),
    )


def cat(f: Frame) -> None:
    """A striped furry animal from the front: body, head, ears, eyes, nose."""
    ground(
        f,
        colour(f, (0.55, 0.5, 0.45), 0.12, 0.3),
        colour(f, (0.45, 0.38, 0.3), 0.3, 0.3),
        f.u(0.5, 0.9),
    )
    cx, cy, r = f.u(0.38, 0.62), f.u(0.36, 0.5), f.u(0.16, 0.25)
    fur = colour(f, (0.55, 0.45, 0.35), 0.6, 0.3)
    dark = fur * f.u(0.35, 0.8)
    for side in (-1, 1):
        paint(
            f,
            wedge(
                f,
                cx + side * r * 0.65,
                cy - r * f.u(1.3, 1.7),
                cy - r * 0.3,
                0.0 * r,
                r * 0.42,
            ),
            dark,
        )
    shape = ellipse(f, cx + f.u(-0.1, 0.1), cy + r * 2.1, r * f.u(1.2, 1.7), r * 1.6)
    shape = np.maximum(shape, ellipse(f, cx, cy, r, r * f.u(0.82, 1.0)))
    paint(f, shape, fur)
    stripes = bars(
        f,
        f.y + f.u(-0.5, 0.5) * np.abs(f.x - cx) + 0.02 * f.cloud,
        f.u(0.06, 0.12),
        0.4,
    )
    paint(f, shape * stripes * f.draws.chance(0.6) * f.u(0.3, 0.9), dark)
    eye = colour(f, (0.6, 0.65, 0.2))
    for place in (-0.42, 0.42):
        paint(f, ellipse(f, cx + place * r, cy - r * 0.08, r * 0.2, r * 0.15), eye)
        paint(
            f,
            ellipse(f, cx + place * r, cy - r * 0.08, r * 0.06, r * 0.14),
            colour(f, (0.05, 0.05, 0.05), 0.0, 0.05),
        )
    paint(
        f,
        wedge(f, cx, cy + r * 0.25, cy + r * 0.42, r * 0.14, r * 0.02),
        colour(f, (0.6, 0.35, 0.35)),
    )


def church(f: Frame) -> None:
    """A gabled nave with a spire, a door and arched windows on grass."""
    horizon = f.u(0.75, 0.88)
    ground(f, sky(f), colour(f, (0.3, 0.42, 0.2), 0.5), horizon)
    clouds(f)
    cx, half, eaves = f.u(0.4, 0.6), f.u(0.18, 0.28), f.u(0.45, 0.58)
    wall, roof = colour(f, (0.68, 0.62, 0.55), 0.3), colour(f, (0.4, 0.26, 0.22), 0.35)
    paint(f, wedge(f, cx, eaves - f.u(0.12, 0.25), eaves, 0.0 * half, half * 1.1), roof)
    paint(f, box(f, cx, (eaves + horizon) / 2, half, (horizon - eaves) / 2), wall)
    stones = bars(f, f.y, f.u(0.03, 0.06), 0.15) * box(
        f, cx, (eaves + horizon) / 2, half, (horizon - eaves) / 2
    )
    paint(f, stones * f.u(0, 0.6), roof)
    tx, tw, tt = cx + half * f.u(-0.8, 0.8), f.u(0.05, 0.09), f.u(0.28, 0.4)
    paint(f, wedge(f, tx, tt - f.u(0.15, 0.25), tt, 0.0 * tw, tw * 1.2), roof)
    paint(
        f, box(f, tx, (tt + horizon) / 2, tw, (horizon - tt) / 2), wall * f.u(0.85, 1.1)
    )
    glass = colour(f, (0.18, 0.2, 0.26))
    for x in (-0.55, 0.55):
        paint(f, box(f, cx + half * x, eaves + 0.12, 0.022, 0.05), glass)
        paint(f, ellipse(f, cx + half * x, eaves + 0.07, 0.022, 0.03), glass)
    paint(f, box(f, tx, horizon - 0.07, 0.03, 0.07), colour(f, (0.3, 0.2, 0.14), 0.3))
    paint(f, ellipse(f, tx, tt + 0.08, 0.03, 0.03), glass)


def classroom(f: Frame) -> None:
    """Rows of desks before a board, under strip lights."""
    floor = f.u(0.48, 0.6)
    ground(
        f, colour(f, (0.72, 0.7, 0.62), 0.25), colour(f, (0.5, 0.42, 0.34), 0.9), floor
    )
    boards = bars(f, f.x + f.u(-0.3, 0.3) * f.y, f.u(0.035, 0.08), f.u(0.2, 0.5))
    paint(
        f, boards * soft(f, f.y - floor) * f.u(0.2, 0.8), colour(f, (0.35, 0.3, 0.26))
    )
    paint(
        f,
        box(f, f.u(0.4, 0.6), 0.3, f.u(0.22, 0.34), f.u(0.1, 0.15)),
        colour(f, (0.2, 0.34, 0.27), 0.25),
    )
    lamps = bars(f, f.x, f.u(0.2, 0.35), 0.6) * box(f, 0.5, 0.05, 0.6, 0.02)
    paint(f, lamps, colour(f, (0.95, 0.95, 0.9), 0.02, 0.08))
    wood, leg = colour(f, (0.6, 0.45, 0.28), 0.3), colour(f, (0.25, 0.25, 0.27))
    for row in range(3):
        y, period = floor + 0.08 + row * f.u(0.12, 0.15), f.u(0.2, 0.26) + 0.06 * row
        shift = f.x + f.u(0, 0.3)
        thin = bars(f, shift, period, 0.55)
        paint(
            f,
            bars(f, shift, period / 2, 0.14) * thin * box(f, 0.5, y + 0.06, 0.6, 0.06),
            leg,
        )
        paint(f, thin * box(f, 0.5, y, 0.6, 0.02 + 0.008 * row), wood)


def cow(f: Frame) -> None:
    """A patched animal from the side on a meadow."""
    horizon = f.u(0.3, 0.55)
    ground(f, sky(f), colour(f, (0.35, 0.48, 0.2), 1.3), horizon, f.u(-0.2, 0.2))
    clouds(f)
    cx, cy, s = f.u(0.4, 0.6), f.u(0.52, 0.62), f.u(0.8, 1.2)
    side = 1 - 2 * f.draws.chance(0.5)
    hide, patch = colour(f, (0.78, 0.74, 0.7), 0.15), colour(f, (0.25, 0.17, 0.13), 0.2)
    for x in (-0.19, -0.11, 0.1, 0.18):
        paint(
            f,
            box(f, cx + x * s, cy + 0.19 * s, 0.022 * s, 0.13 * s),
            hide * f.u(0.7, 1.0),
        )
    shape = ellipse(f, cx, cy, 0.26 * s, f.u(0.12, 0.16) * s)
    hx, hy = cx + side * 0.3 * s, cy - f.u(-0.02, 0.12) * s
    shape = np.maximum(shape, ellipse(f, hx, hy, 0.09 * s, 0.065 * s))
    paint(f, shape, hide)
    paint(f, shape * exact.clip01((f.cloud - f.u(-0.6, 0.8)) * 4), patch)
    paint(
        f,
        ellipse(f, hx + side * 0.07 * s, hy + 0.02, 0.03 * s, 0.04 * s),
        colour(f, (0.65, 0.45, 0.42)),
    )
    paint(
        f,
        wedge(f, hx - side * 0.03 * s, hy - 0.11 * s, hy - 0.03, 0.004 * s, 0.02 * s),
        patch,
    )


def kitchen(f: Frame) -> None:
    """Wall tiles, cupboards with handles, a worktop, a hob and a window."""
    top = f.u(0.5, 0.62)
    ground(
        f, colour(f, (0.76, 0.76, 0.74), 0.3), colour(f, (0.55, 0.5, 0.45), 0.4), top
    )
    pitch = f.u(0.035, 0.08)
    joints = np.maximum(bars(f, f.x, pitch, 0.16), bars(f, f.y, pitch, 0.16))
    paint(f, joints * soft(f, top - f.y) * f.u(0.2, 0.9), colour(f, (0.5, 0.5, 0.5)))
    doors = colour(f, (0.55, 0.42, 0.32), 0.7, 0.35)
    wide = f.u(0.15, 0.26)
    panels = bars(f, f.x + f.u(0, 1), wide, 0.92)
    paint(f, panels * box(f, 0.5, 0.12, 0.6, f.u(0.08, 0.14)), doors)
    paint(f, panels * box(f, 0.5, top + 0.27, 0.6, 0.2), doors)
    grips = bars(f, f.x, wide / 2, 0.12) * box(f, 0.5, top + 0.12, 0.6, 0.01)
    paint(f, grips, colour(f, (0.8, 0.8, 0.8)))
    paint(
        f,
        box(f, 0.5, top, 0.6, f.u(0.015, 0.03)),
        colour(f, (0.35, 0.33, 0.32), 0.4, 0.3),
    )
    wx = f.u(0.2, 0.8)
    paint(f, box(f, wx, top - 0.17, 0.11, 0.09), sky(f))
    hx = f.u(0.2, 0.8)
    paint(f, box(f, hx, top + 0.16, 0.12, 0.14), colour(f, (0.2, 0.2, 0.22)))
    paint(f, box(f, hx, top + 0.19, 0.085, 0.07), colour(f, (0.35, 0.3, 0.27)))


def sheep(f: Frame) -> None:
    """A flock of woolly animals on a meadow."""
    ground(
        f,
        colour(f, (0.45, 0.52, 0.3), 0.4),
        colour(f, (0.33, 0.46, 0.18), 1.3),
        f.u(0.15, 0.5),
        f.u(-0.3, 0.3),
    )
    wool = colour(f, (0.8, 0.77, 0.7), 1.2)
    face = colour(f, (0.3, 0.26, 0.24), 0.1, 0.25)
    for row in range(5):
        cx, cy = f.u(0.1, 0.9), 0.3 + 0.12 * row + f.u(-0.05, 0.05)
        r, side = f.u(0.07, 0.11) + 0.014 * row, 1 - 2 * f.draws.chance(0.5)
        paint(
            f,
            box(f, cx, cy + r * 0.8, r * 0.55, r * 0.4) * bars(f, f.x, r * 0.5, 0.4),
            face,
        )
        dx, dy = (f.x - cx) / (1.4 * r), (f.y - cy) / r
        bumpy = soft(f, (1 + 0.12 * f.cloud - np.sqrt(dx * dx + dy * dy)) * r)
        paint(f, bumpy, wool * f.u(0.88, 1.05))
        paint(
            f, ellipse(f, cx + side * 1.35 * r, cy - 0.3 * r, r * 0.35, r * 0.45), face
        )


def tower(f: Frame) -> None:
    """Tall buildings with window grids against the sky."""
    ground(f, sky(f), sky(f), f.u(0.5, 1.0))
    clouds(f)
    for centre, low, high in ((0.2, 0.4, 0.7), (0.8, 0.35, 0.7), (0.5, 0.12, 0.35)):
        cx, top = centre + f.u(-0.12, 0.12), f.u(low, high)
        wide, taper = f.u(0.09, 0.17), f.u(0.7, 1.0)
        wall = colour(f, (0.5, 0.48, 0.47), 0.9, 0.3)
        body = wedge(f, cx, top, np.float32(1.1), wide * taper, wide)
        paint(f, body, wall)
        grid = bars(f, f.x - cx, f.u(0.03, 0.06), f.u(0.4, 0.7))
        grid = grid * bars(f, f.y - top, f.u(0.03, 0.07), f.u(0.4, 0.7))
        paint(f, body * grid, colour(f, (0.3, 0.34, 0.42), 0.3, 0.35))
    paint(f, wedge(f, cx, top - f.u(0.05, 0.2), top, 0.004 * wide, wide * 0.3), wall)
