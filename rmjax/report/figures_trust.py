"""Figures of how far an answer can be trusted: probabilities, thresholds, unknowns.

As in `rmjax.report.figures`, each is a function from plain data to a matplotlib Figure.
"""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from rmjax.report.figures import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PALE,
    PALETTE,
    PURPLE,
    kind_rows,
    name_rows,
    new_figure,
    percent_ticks,
    share_axis,
    short,
    styled,
)
from rmjax.report.view import mean, words

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
    figure, axes = new_figure(3.9)
    axes.plot((0, 1), (0, 1), color=GREY, ls=":", lw=1)
    counts = []
    for label, bins, colour, marker, filling in (
        ("uncalibrated", before, ORANGE, "D", "white"),
        ("calibrated", after, BLUE, "o", BLUE),
    ):
        if bins is not None:
            bins = [b for b in bins if b["images"]]
            counts += [b["images"] for b in bins]
            x, y = ([b[key] for b in bins] for key in ("confidence", "accuracy"))
            style: dict[str, Any] = {"color": colour, "marker": marker, "mfc": filling}
            axes.plot(x, y, ls="", label=label, ms=5, **style)
    if counts:
        least, most = min(counts), max(counts)
        images = f"{most:,}" if least == most else f"{least:,} to {most:,}"
        text = f"n = {images} a point"
        axes.text(1, 0.03, text, ha="right", transform=axes.transAxes, color=GREY)
    axes.grid()
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    axes.set(xlabel=f"{labels[0]}, %", ylabel=labels[1])
    percent_ticks(axes.xaxis, axes.yaxis)
    axes.legend(loc="upper left")
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
    figure, axes = new_figure(4.2)
    if rate == "tpr":
        axes.plot((0, 1), (0, 1), color=GREY, lw=0.8)
    for score, measure in measures.items():
        colour, dashes = LINES.get(score, (PURPLE, "-"))
        value = "–" if measure[area] is None else f"{measure[area]:.3f}"
        curve, text = measure["curve"], f"{words(score)}: {name} {value}"
        axes.plot(curve["fpr"], curve[rate], dashes, color=colour, lw=1.8, label=text)
    percent_ticks(axes.xaxis, axes.yaxis)
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), ylabel=label)
    axes.set_xlabel("unknown images accepted, %")
    axes.grid()
    axes.legend(loc="lower right")
    return figure


@styled
def operating_points(cells: Sequence[dict], fpr: str) -> Figure:
    """Draw which share of synthetic and of real images is called synthetic, by kind.

    Args:
        cells: of one subset of semantics, as in `results.json`.
        fpr: the operating point as its keys spell it, such as "0.05".
    """
    rows = kind_rows(cells)
    figure, axes = new_figure(1.0 + 0.235 * len(rows))
    paper = {"fc": "white", "ec": "none", "pad": 1}
    for row, (name, own) in enumerate(rows):
        if own:
            axes.axhline(row, color=PALE, lw=1, zorder=0)
        else:
            style: dict[str, Any] = {"va": "center", "weight": "bold", "color": GREY}
            axes.text(0, row, name, bbox=paper, **style)
    for key, colour, marker, filling, label in (
        ("tpr", BLUE, "o", BLUE, "synthetic images called synthetic"),
        ("fpr", ORANGE, "D", "white", "real images called synthetic"),
    ):
        shares = [mean(cell[f"{key}_at_{fpr}"] for cell in own) for _, own in rows]
        known = [(x, row) for row, x in enumerate(shares) if x is not None]
        if known:
            style = {"color": colour, "mfc": filling, "ms": 6, "ls": "", "label": label}
            axes.plot(*zip(*known, strict=True), marker, **style)
    name_rows(axes, [name if own else "" for name, own in rows])
    share_axis(axes)
    axes.axvline(float(fpr), color=ORANGE, ls="--", lw=1, zorder=0)
    axes.set_xlabel("called synthetic, %")
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
    points, labels = np.stack([x, y], -1), np.asarray(names, str)
    kinds, counts = np.unique(labels, return_counts=True)
    often = dict(zip(kinds.tolist(), counts.tolist(), strict=True))
    most = sorted(often, key=lambda name: (-often[name], name))[:LISTED]
    shown = [name for name in order if name in most]
    lines = -(-(len(shown) + (len(often) > LISTED)) // 3)
    figure, axes = new_figure(4.6 + 0.2 * lines)
    for number, name in enumerate(shown):
        colour = PALETTE[number % len(PALETTE)]
        hollow = name in outside
        look: dict[str, Any] = {
            "marker": MARKERS[number % len(MARKERS)],
            "linewidths": 0.9 if hollow else 0,
            "facecolors": "none" if hollow else colour,
            "edgecolors": colour,
        }
        own = points[labels == name]
        axes.scatter(own[:, 0], own[:, 1], 16, alpha=0.85, label=short(name), **look)
    rest = points[~np.isin(labels, shown)]
    if len(rest):
        grey: dict[str, Any] = {"c": "#c4c4c4", "linewidths": 0, "zorder": 0}
        others = f"{len(often) - len(shown)} others"
        axes.scatter(rest[:, 0], rest[:, 1], 8, label=others, **grey)
    axes.set(xticks=[], yticks=[])
    axes.set_aspect("equal", "datalim")
    axes.spines[:].set_visible(True)
    axes.spines[:].set_color("#cccccc")
    figure.legend(loc="outside lower center", ncols=3, handletextpad=0.2)
    return figure
