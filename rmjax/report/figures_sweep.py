"""Figures of a sweep's cells beside each other, each from plain data to a Figure."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rmjax.report.figures import GREY, GROUPS, WIDTH, short, styled

LINE = 34  # characters of a line of a label
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
    groups = [g for g in GROUPS if any(row["semantics"] == g for row in rows)]
    drawn = [row for row in rows if row[what[0]] is not None]
    if not drawn or not groups:
        return None
    places = {label: place for place, label in enumerate(names)}
    labels = [_lines(name) for name in names.values()]
    height = max(label.count("\n") for label in labels) + 1
    pitch = max(0.17 * height, 0.16 * len(groups)) + 0.14
    figure = Figure(figsize=(WIDTH, 1.0 + pitch * len(labels)), layout="constrained")
    axis = figure.subplots()
    for k, group in enumerate(groups):
        offset = 0.15 * (2 * k - len(groups) + 1)
        own = [row for row in drawn if row["semantics"] == group]
        _dots(axis, own, [places[row["cell"]] + offset for row in own], what, group)
    axis.set_yticks(range(len(labels)), labels, size=9 if height == 1 else 8)
    axis.set_ylim(len(labels) - 0.5, -0.5)
    axis.margins(x=0.06)
    axis.xaxis.set_major_locator(MaxNLocator(5))
    axis.xaxis.set_major_formatter(lambda share, _: f"{round(100 * share, 6):g}")
    axis.grid(axis="x")
    axis.tick_params(axis="y", length=0)
    axis.set_xlabel("right answers, %")
    if what == DIFFERENCE:
        axis.set_xlabel("percentage points more than the reference")
        axis.axvline(0, color=GREY, lw=1, ls="--")
        for label in names.keys() - {row["cell"] for row in drawn}:
            words = " reference" if label == reference else " not compared"
            axis.text(0, places[label], words, va="center", color=GREY, size=8)
    if len(groups) > 1:
        figure.legend(loc="outside lower center", ncols=2)
    return figure


def _dots(
    axis: Axes,
    rows: Sequence[dict],
    spots: Sequence[float],
    what: tuple[str, str, str],
    group: str,
) -> None:
    """Draw a group's values as dots, with their intervals as bars."""
    colour, marker, filling = GROUPS[group]
    for row, spot in zip(rows, spots, strict=True):
        ends = [row[name] for name in what[1:]]
        if None not in ends:
            axis.plot(ends, [spot] * 2, color=colour, lw=2, solid_capstyle="butt")
    values = [row[what[0]] for row in rows]
    options = {"color": colour, "mfc": filling if filling != "none" else "white"}
    axis.plot(values, spots, marker, ls="", ms=6, label=f"{group} semantics", **options)


def _lines(name: str) -> str:
    """Write the parts of a cell's name under each other."""
    return "\n".join(short(part, LINE) for part in name.split(","))
