"""What the figures of an evaluation share: style, files, names, rows of conditions.

The figures, in `figures_accuracy` and `figures_trust`, are functions from plain data to
a matplotlib Figure. All are as wide as a phone is narrow, so that a page can show them
at full width there and side by side elsewhere. Colours are told apart by people who see
fewer of them, and shapes, fillings or dashes say the same for a print in grey.
"""

import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from rmjax.evaluation.results import subset_words
from rmjax.report.view import SETS, by_kind, words
from rmjax.utils.files import replace_bytes

WIDTH = 5.0  # inches, 360 pt: what 9 pt letters are read at on a phone
INK, GREY, PALE = "#222222", "#6b6b6b", "#ececec"
BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
PALETTE = (BLUE, "#E69F00", GREEN, PURPLE, "#56B4E9", ORANGE, INK, "#9c8f00")
STYLE: dict[Any, Any] = {
    "font.family": ["DejaVu Sans"],
    "font.size": 9,
    "text.parse_math": False,  # names may hold a dollar sign
    "text.color": INK,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelcolor": INK,
    "axes.edgecolor": GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.7,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "svg.hashsalt": "rmjax",
    "savefig.dpi": 200,
}
LONGEST = 18  # characters of a name beside an axis
NAMED = 30  # names beside an axis that are read one by one
SUBSETS = {  # how a subset of semantics is drawn
    "seen": {"color": BLUE, "marker": "o", "mfc": BLUE},
    "new_pairs": {"color": GREEN, "marker": "^", "mfc": "none"},
    "unseen": {"color": ORANGE, "marker": "D", "mfc": "none"},
    "chosen": {"color": BLUE, "marker": "o", "mfc": BLUE},
}
styled = matplotlib.rc_context(STYLE)


def render(figure: Figure) -> dict[str, bytes]:
    """Return the figure as `svg` and `png` files, the same bytes every time."""
    files = {}
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        for kind, metadata in (("svg", {"Date": None}), ("png", {"Software": None})):
            stream = io.BytesIO()
            figure.savefig(stream, format=kind, metadata=metadata)
            files[kind] = stream.getvalue()
    return files


def write_figures(pictures: dict[str, dict[str, bytes]], folder: Path) -> None:
    """Write rendered figures, by name, as `NAME.svg` and `NAME.png`, each whole."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, files in pictures.items():
        for kind, data in files.items():
            replace_bytes(folder / f"{name}.{kind}", data)


def short(name: str, longest: int = LONGEST) -> str:
    """Return a name on one line, its middle left out where it is too long."""
    name = " ".join(name.split())
    if len(name) <= longest:
        return name
    end = (longest - 1) // 2
    return f"{name[: longest - 1 - end]}…{name[-end:]}"


def ink(colour: Sequence[float]) -> str:
    """Return whether white or black is read better on a colour, 4.5 : 1 or more.

    The contrast is that of the Web Content Accessibility Guidelines 2.2.
    """
    rgb = np.asarray(colour[:3], float)
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    luminance = linear @ (0.2126, 0.7152, 0.0722)
    return "white" if (luminance + 0.05) ** 2 < 1.05 * 0.05 else "black"


def kind_rows(cells: Sequence[dict]) -> list[tuple[str, list[dict]]]:
    """Return a row of cells for each kind, and before each set a row with its name."""
    rows: list[tuple[str, list[dict]]] = []
    for name, spoken in SETS.items():
        kinds = by_kind(cell for cell in cells if cell["set"] == name)
        if kinds and name != "clean":
            rows.append((spoken, []))
        rows += [(words(kind), own) for kind, own in kinds.items()]
    return rows


def new_figure(height: float) -> tuple[Figure, Axes]:
    """Return a figure so many inches high, and its axes."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.subplots()


def percent_ticks(*axes: Axis) -> None:
    """Number axes over shares as per cent."""
    for axis in axes:
        axis.set_major_formatter(PercentFormatter(1, 0, symbol=""))


def dots(
    axes: Axes, subset: str, points: Sequence[tuple], size: float = 6, **options: Any
) -> None:
    """Draw values of a subset of semantics as dots, with their intervals as bars.

    Args:
        axes: to draw on.
        subset: key of `SUBSETS`.
        points: a value, the ends of its interval, and the row of each; a value or ends
            that are None are not drawn.
        size: of the dots, in points.
        **options: of the dots.
    """
    style = SUBSETS[subset] | {"label": subset_words(subset), "ls": ""} | options
    for _, low, high, row in points:
        if low is not None and high is not None:
            bar = {"color": style["color"], "lw": 2, "solid_capstyle": "butt"}
            axes.plot((low, high), (row, row), **bar)
    drawn = [(value, row) for value, _, _, row in points if value is not None]
    x, y = zip(*drawn, strict=True) if drawn else ((), ())
    axes.plot(x, y, ms=size, **style)


def name_rows(axes: Axes, labels: Sequence[str], size: float = 9) -> None:
    """Make the y axis one of named rows, first on top."""
    axes.set_yticks(range(len(labels)), labels, size=size)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.grid(axis="x")
    axes.tick_params(axis="y", length=0)


def name_subsets(figure: Figure, subsets: Sequence[str]) -> None:
    """Add a legend of the subsets of semantics, if there are several."""
    if len(subsets) > 1:
        figure.legend(loc="outside lower center", ncols=3)


def share_axis(axes: Axes) -> None:
    """Make the x axis one of shares, from 0 to 1."""
    axes.set_xlim(-0.02, 1.02)
    percent_ticks(axes.xaxis)
