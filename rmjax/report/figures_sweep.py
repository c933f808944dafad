"""Figures of a sweep's cells beside each other, each from plain data to a Figure."""

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rmjax.report.figures import (
    GREY,
    SUBSETS,
    dots,
    name_rows,
    name_subsets,
    new_figure,
    short,
    styled,
)

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
    pitch = max(0.17 * lines, 0.16 * len(subsets)) + 0.14
    figure, axes = new_figure(1.0 + pitch * len(labels))
    for k, subset in enumerate(subsets):
        offset = 0.15 * (2 * k - len(subsets) + 1)
        own = [row for row in drawn if row["semantics"] == subset]
        points = [
            (*(row[name] for name in what), places[row["cell"]] + offset) for row in own
        ]
        dots(axes, subset, points)
    name_rows(axes, labels, 9 if lines == 1 else 8)
    axes.margins(x=0.06)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(lambda share, _: f"{round(100 * share, 6):g}")
    axes.set_xlabel("right answers, %")
    if what == DIFFERENCE:
        axes.set_xlabel("percentage points more than the reference")
        axes.axvline(0, color=GREY, lw=1, ls="--")
        for label in names.keys() - {row["cell"] for row in drawn}:
            words = " reference" if label == reference else " not compared"
            axes.text(0, places[label], words, va="center", color=GREY, size=8)
    name_subsets(figure, subsets)
    return figure
