"""Figures of how far an answer can be trusted: probabilities, thresholds, unknowns.

As in `rmjax.report.figures`, each is a function from plain data to a matplotlib Figure.
"""

from collections.abc import Collection, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from rmjax.report.figures import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PALE,
    PURPLE,
    WIDTH,
    kind_rows,
    mean,
    rows_axis,
    short,
    styled,
    words,
)

PALETTE = (BLUE, "#E69F00", GREEN, PURPLE, "#56B4E9", ORANGE, INK, "#9c8f00")
MARKERS = "osD^vP"
LINES = {
    "max_probability": (BLUE, "-"),
    "energy": (ORANGE, "--"),
    "knn": (GREEN, "-."),
    "mahalanobis": (INK, ":"),
}
LISTED = 20  # names in a legend


@styled
def reliability(
    before: Sequence[dict],
    after: Sequence[dict] | None,
    labels: tuple[str, str] = ("probability given", "right answers, %"),
) -> Figure:
    """Draw how often answers of a given probability are right, and of how many images.

    Args:
        before: bins of uncalibrated probabilities, as in `results.json`.
        after: the same calibrated; None if they never were.
        labels: of the two axes.
    """
    figure = Figure(figsize=(WIDTH, 3.9), layout="constrained")
    axis = figure.subplots()
    axis.plot((0, 1), (0, 1), color=GREY, ls=":", lw=1)
    drawn = [("uncalibrated", before, ORANGE, "D", "white")]
    if after is not None:
        drawn.append(("calibrated", after, BLUE, "o", BLUE))
    counts = []
    for label, bins, colour, marker, filling in drawn:
        bins = [b for b in bins if b["images"]]
        counts += [b["images"] for b in bins]
        style = {"color": colour, "marker": marker, "mfc": filling, "ms": 5}
        x, y = [b["confidence"] for b in bins], [b["accuracy"] for b in bins]
        axis.plot(x, y, ls="", label=label, **style)
    if counts:
        least, most = min(counts), max(counts)
        images = f"{most:,}" if least == most else f"{least:,} to {most:,}"
        text = f"n = {images} a point"
        axis.text(1, 0.03, text, ha="right", transform=axis.transAxes, color=GREY)
    axis.grid()
    axis.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    axis.set(xlabel=f"{labels[0]}, %", ylabel=labels[1])
    for ticks in (axis.xaxis, axis.yaxis):
        ticks.set_major_formatter(PercentFormatter(1, 0, symbol=""))
    axis.legend(loc="upper left")
    return figure


@styled
def roc(measures: dict[str, dict]) -> Figure:
    """Draw known images accepted against unknown images accepted, score by score.

    Args:
        measures: by score, as in `results.json` (`open_set.scores`, of one kin).
    """
    return _curves(measures, "tpr", "auroc", "AUROC", "known images accepted, %")


@styled
def oscr(measures: dict[str, dict]) -> Figure:
    """Draw known images accepted and rightly attributed against unknown accepted."""
    label = "known images accepted and right, %"
    return _curves(measures, "ccr", "oscr", "OSCR", label)


def _curves(
    measures: dict[str, dict], rate: str, area: str, name: str, label: str
) -> Figure:
    figure = Figure(figsize=(WIDTH, 4.2), layout="constrained")
    axis = figure.subplots()
    if rate == "tpr":
        axis.plot((0, 1), (0, 1), color=GREY, lw=0.8)
    for score, found in measures.items():
        colour, dashes = LINES.get(score, (PURPLE, "-"))
        value = "–" if found[area] is None else f"{found[area]:.3f}"
        curve = found["curve"]
        text = f"{words(score)}: {name} {value}"
        axis.plot(curve["fpr"], curve[rate], dashes, color=colour, lw=1.8, label=text)
    for ticks in (axis.xaxis, axis.yaxis):
        ticks.set_major_formatter(PercentFormatter(1, 0, symbol=""))
    axis.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), ylabel=label)
    axis.set_xlabel("unknown images accepted, %")
    axis.grid()
    axis.legend(loc="lower right")
    return figure


@styled
def operating_points(cells: Sequence[dict], fpr: str) -> Figure:
    """Draw which share of synthetic and of real images is called synthetic, by kind.

    Args:
        cells: of one group of semantics, as in `results.json`.
        fpr: the operating point as its keys spell it, such as "0.05".
    """
    rows = kind_rows(cells)
    figure = Figure(figsize=(WIDTH, 1.0 + 0.235 * len(rows)), layout="constrained")
    axis = figure.subplots()
    for row, (name, own) in enumerate(rows):
        if not own:
            paper = {"fc": "white", "ec": "none", "pad": 1}
            axis.text(0, row, name, va="center", weight="bold", color=GREY, bbox=paper)
            continue
        axis.axhline(row, color=PALE, lw=1, zorder=0)
        for key, colour, marker, filling, label in (
            ("tpr", BLUE, "o", BLUE, "synthetic images called synthetic"),
            ("fpr", ORANGE, "D", "white", "real images called synthetic"),
        ):
            value = mean([c[f"{key}_at_{fpr}"] for c in own])
            if value is not None:
                options = {"color": colour, "mfc": filling, "ms": 6}
                text = label if row == 0 else None
                axis.plot(value, row, marker, label=text, **options)
    rows_axis(axis, [name if own else "" for name, own in rows])
    axis.axvline(float(fpr), color=ORANGE, ls="--", lw=1, zorder=0)
    axis.set_xlabel("called synthetic, %")
    figure.legend(loc="outside lower center", ncols=1)
    return figure


@styled
def fingerprint_map(
    x: Sequence[float],
    y: Sequence[float],
    names: Sequence[str],
    order: Sequence[str],
    outside: Collection[str] = (),
) -> Figure:
    """Draw points in the plane, coloured and shaped by name.

    Args:
        x: of each image.
        y: of each image.
        names: what to tell apart, source or semantic of each image.
        order: all names, in the order of their colours.
        outside: names that the network was not trained with; they are hollow.
    """
    x, y, names = np.asarray(x), np.asarray(y), np.asarray(names, str)
    kinds, counts = np.unique(names, return_counts=True)
    often = dict(zip(kinds.tolist(), counts.tolist(), strict=True))
    shown = sorted(often, key=lambda name: (-often[name], name))[:LISTED]
    found = [name for name in order if name in shown]
    lines = -(-(len(found) + (len(often) > LISTED)) // 3)
    figure = Figure(figsize=(WIDTH, 4.6 + 0.2 * lines), layout="constrained")
    axis = figure.subplots()
    for number, name in enumerate(found):
        colour = PALETTE[number % len(PALETTE)]
        marker = MARKERS[number % len(MARKERS)]
        hollow = name in outside
        own = names == name
        axis.scatter(
            x[own], y[own], 16, marker=marker, linewidths=0.9 if hollow else 0,
            facecolors="none" if hollow else colour, edgecolors=colour, alpha=0.85,
            label=short(name),
        )  # fmt: skip
    rest = ~np.isin(names, found)
    if rest.any():
        style = {"s": 8, "c": "#c4c4c4", "linewidths": 0, "zorder": 0}
        axis.scatter(
            x[rest], y[rest], label=f"{len(often) - len(found)} others", **style
        )
    axis.set(xticks=[], yticks=[])
    axis.set_aspect("equal", "datalim")
    axis.spines[:].set_visible(True)
    axis.spines[:].set_color("#cccccc")
    figure.legend(loc="outside lower center", ncols=3, handletextpad=0.2)
    return figure
