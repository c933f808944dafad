"""Figures of a sweep's cells beside each other, each from plain data to a Figure."""

from collections.abc import Sequence
from os.path import commonprefix
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy.optimize import isotonic_regression

from rmjax.evaluation.results import subset_words
from rmjax.report.figures import (
    GREY,
    PALETTE,
    SUBSETS,
    dots,
    name_rows,
    name_subsets,
    new_figure,
    short,
    styled,
)

LINE = 34  # characters of a line of a label
BESIDE = 24  # characters of a label beside the dots
APART = 0.15  # inches from one label beside the dots to the next
# What is drawn of a row: its value and the two ends of its interval.
MEAN = ("mean", "mean_low", "mean_high")
DIFFERENCE = ("difference", "difference_low", "difference_high")


@styled
def cell_dots(
    rows: Sequence[dict],
    names: dict[str, str],
    what: tuple[str, str, str],
    reference: str = "",
) -> Figure | None:
    """Draw a share of each cell, or its difference to the reference, with intervals.

    Args:
        rows: of one set of conditions and one metric, as `rmjax.sweep.collect` gives
            them.
        names: by label of a cell what it is called, in the order from above.
        what: `MEAN` or `DIFFERENCE`.
        reference: label of the cell that the others are compared with.

    Returns:
        None where no cell has such a value.
    """
    subsets = [g for g in SUBSETS if any(row["semantics"] == g for row in rows)]
    drawn = [row for row in rows if row[what[0]] is not None]
    if not drawn or not subsets:
        return None
    places = {label: place for place, label in enumerate(names)}
    # The parts of a cell's name stand under each other.
    labels = [
        "\n".join(short(part, LINE) for part in name.split(","))
        for name in names.values()
    ]
    lines = max(label.count("\n") for label in labels) + 1
    pitch = max(0.17 * lines, 0.14 * len(subsets)) + 0.14
    figure, axes = new_figure(1.0 + pitch * len(labels))
    for k, subset in enumerate(subsets):
        offset = 0.13 * (2 * k - len(subsets) + 1)
        own = [row for row in drawn if row["semantics"] == subset]
        points = [
            (*(row[name] for name in what), places[row["cell"]] + offset) for row in own
        ]
        dots(axes, subset, points)
    name_rows(axes, labels, 9 if lines == 1 else 8)
    axes.margins(x=0.06)
    _number(axes.xaxis)
    axes.set_xlabel("right answers, %")
    if what == DIFFERENCE:
        axes.set_xlabel("percentage points more than the reference")
        axes.axvline(0, color=GREY, lw=1, ls="--")
        for label in names.keys() - {row["cell"] for row in drawn}:
            words = " reference" if label == reference else " not compared"
            axes.text(0, places[label], words, va="center", color=GREY, size=8)
    name_subsets(figure, subsets)
    return figure


@styled
def seen_against(
    rows: Sequence[dict], names: dict[str, str], other: str, reference: str = ""
) -> Figure | None:
    """Draw each cell's share on another subset (y) against that on seen semantics (x).

    Where y = x, which is drawn, there is no gap. Names stand in a column beside the dots,
    in the order of y, and a line leads from each dot to its own: so many dots in one
    place can be told apart.

    Args:
        rows: of one set of conditions and one metric, as `rmjax.sweep.collect` gives
            them.
        names: by label of a cell what it is called.
        other: subset of semantics, such as "unseen".
        reference: label of the cell that is drawn as a star.

    Returns:
        None where no cell has both.
    """
    by_place = {(row["cell"], row["semantics"]): row for row in rows}
    both = [
        (label, by_place[label, "seen"], by_place[label, other])
        for label in names
        if {(label, "seen"), (label, other)} <= by_place.keys()
    ]
    if not both:
        return None
    both.sort(key=lambda cell: (-cell[2]["mean"], -cell[1]["mean"]))
    room = max(3.2, APART * len(both))  # inches, of the axes
    figure, axes = new_figure(room + 0.8)
    _draw_no_gap(
        axes, [_ends(seen) for _, seen, _ in both], [_ends(y) for *_, y in both]
    )
    bottom, top = axes.get_ylim()
    heights = [(row["mean"] - bottom) / (top - bottom) for *_, row in both]
    shown = _own_parts([names[label] for label, *_ in both])
    for number, (place, name) in enumerate(
        zip(_spread(heights, APART / room), shown, strict=True)
    ):
        label, seen, row = both[number]
        dot = seen["mean"], row["mean"]
        colour = PALETTE[number % len(PALETTE)]
        cross: dict[str, Any] = {"color": colour, "lw": 0.8, "alpha": 0.5, "zorder": 1}
        axes.plot(_ends(seen), (dot[1], dot[1]), **cross)
        axes.plot((dot[0], dot[0]), _ends(row), **cross)
        look: dict[str, Any] = {"marker": "o"}
        text: dict[str, Any] = {"text": short(name, BESIDE)}
        if label == reference:
            look = {"marker": "*", "ms": 13}
            text = {"text": f"{short(name, BESIDE)} (reference)", "weight": "bold"}
        axes.plot(*dot, color=colour, mec="white", mew=0.6, **look)
        lead: dict[str, Any] = {"arrowstyle": "-", "color": colour, "lw": 1, "ls": ":"}
        lead |= {"relpos": (0, 0.5), "shrinkA": 1, "shrinkB": 4}
        text |= {"xytext": (1.05, place), "textcoords": "axes fraction", "va": "center"}
        axes.annotate(xy=dot, size=8, arrowprops=lead, **text)
    axes.grid()
    _number(axes.xaxis, axes.yaxis)
    trained = "trained pairs" if other == "new_pairs" else "seen semantics"
    axes.set_xlabel(f"right answers, {trained}, %")
    axes.set_ylabel(f"right answers, {subset_words(other)}, %")
    return figure


def _draw_no_gap(axes: Axes, across: Sequence[tuple], upward: Sequence[tuple]) -> None:
    """Draw y = x, and limit the axes to all intervals and to it over all of x."""
    least, most = min(low for low, _ in across), max(high for _, high in across)
    upward = [(least, most), *upward]
    margin = 0.04 * (most - least) + 1e-3  # a single share may have no interval
    axes.set_xlim(least - margin, most + margin)
    axes.set_ylim(
        min(low for low, _ in upward) - margin, max(high for _, high in upward) + margin
    )
    axes.axline((0, 0), slope=1, color=GREY, lw=1, ls="--", zorder=0)
    text: dict[str, Any] = {"rotation": 45, "transform_rotates_text": True}
    text |= {"rotation_mode": "anchor", "va": "center", "size": 8, "color": GREY}
    text["bbox"] = {"fc": "white", "ec": "none", "pad": 1}
    axes.text(least, least, "no gap", zorder=0, **text)


def _ends(row: dict) -> tuple[float, float]:
    """Return the interval of a mean, which alone is its interval if it has none."""
    low, high = row["mean_low"], row["mean_high"]
    return (row["mean"],) * 2 if low is None or high is None else (low, high)


def _own_parts(names: Sequence[str]) -> list[str]:
    """Return names without the keys that all of them begin with."""
    same = commonprefix(names)
    start = max(same.rfind("="), same.rfind(",")) + 1
    return [name[start:] for name in names]


def _spread(heights: Sequence[float], apart: float) -> np.ndarray:
    """Return the heights nearest to falling ones that are so far apart, within 0 to 1."""
    steps = apart * np.arange(len(heights))
    # Of heights whose distances are taken out only the order is to be kept.
    level = isotonic_regression(heights + steps, increasing=False).x
    return np.clip(level, steps[-1], 1) - steps


def _number(*axes: Axis) -> None:
    """Number axes over shares as per cent, with decimals where they are close."""
    for axis in axes:
        axis.set_major_locator(MaxNLocator(5, steps=(1, 2, 2.5, 5, 10)))
        axis.set_major_formatter(lambda share, _: f"{round(100 * share, 6):g}")
