"""Figures of how often the answers are right, each from plain data to a Figure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, PercentFormatter
from matplotlib.transforms import Bbox

from rmjax.report.figures import (
    BLUE,
    GREY,
    INK,
    NAMED,
    ORANGE,
    SUBSETS,
    dots,
    ink,
    kind_rows,
    name_rows,
    name_subsets,
    new_figure,
    percent_ticks,
    share_axis,
    short,
    styled,
)
from rmjax.report.view import SETS, gap, mean, percent, words

NUMBERED = 12  # columns of a matrix, above which it has no numbers
Shares = dict[str, dict[str, float | None]]
Pairs = Mapping[str, Sequence[str]]  # semantics by source


@dataclass(frozen=True)
class Shades:
    """How shares are coloured and written: from `low` to `high`, by `form`."""

    colours: str
    low: float
    high: float
    form: str = "{:.0f}"

    def paint(
        self, axes: Axes, box: Bbox, value: float | None, note: str = "", **text: Any
    ) -> None:
        """Fill a box with the colour of a share and write it there as per cent."""
        text |= {"ha": "center", "va": "center", "color": INK}
        words = "–"
        if value is not None:
            share = (value - self.low) / (self.high - self.low)
            colour = matplotlib.colormaps[self.colours](share)
            axes.add_patch(
                Rectangle(box.p0, box.width, box.height, fc=colour, ec="white")
            )
            text["color"] = ink(colour)
            words = self.form.format(100 * value).replace("-", "−")
            words = "0" if words in ("+0", "−0") else words
        x, y = (box.p0 + box.p1) / 2
        if note:
            axes.text(x, y - 0.38, note, **text | {"size": 8})
            y += 0.3
        axes.text(x, y, words, **text)


@styled
def robustness(cells: Sequence[dict], metric: str = "attribution_accuracy") -> Figure:
    """Draw a share by kind of corruption and severity, and its mean over them.

    Args:
        cells: of one subset of semantics, as in `results.json`.
        metric: which of their shares.
    """
    return _kinds_grid(cells, metric, Shades("Blues", 0, 1), frame_least=True)


@styled
def robustness_difference(cells: Sequence[dict], metric: str = "difference") -> Figure:
    """Draw differences of shares by kind and severity, about a white zero."""
    most = max([0.05, *(abs(c[metric]) for c in cells if c[metric] is not None)])
    return _kinds_grid(cells, metric, Shades("RdBu", -most, most, "{:+.0f}"))


def _kinds_grid(
    cells: Sequence[dict], metric: str, shades: Shades, frame_least: bool = False
) -> Figure:
    """Draw a row of boxes for each kind, the mean at its end, under those of its set."""
    rows = kind_rows(cells)
    graded = any(_graded(cell) for cell in cells)
    width = max([5 * graded, *(len(own) for _, own in rows)])
    heights = [1.7 if own and own[0]["set"] == "resharing" else 1 for _, own in rows]
    edges = np.concatenate([[0], np.cumsum(heights)])
    figure, axes = new_figure(0.5 + 0.235 * edges[-1])
    drawn = []
    for top, bottom, (name, own) in zip(edges, edges[1:], rows, strict=False):
        if not own:
            style: dict[str, Any] = {"va": "center", "weight": "bold", "color": GREY}
            axes.text(0, (top + bottom) / 2, name, **style)
            continue
        for j, cell in enumerate(own if own[0]["set"] != "clean" else ()):
            x = int(cell["value"]) - 1 if _graded(cell) else j
            box = Bbox([[x, top], [x + 1, bottom]])
            note = "" if _graded(cell) else f"{cell['value']:g}"
            shades.paint(axes, box, cell[metric], note=note)
            if cell[metric] is not None:
                drawn.append((cell[metric], box))
        box = Bbox([[width + 0.25, top], [width + 1.25, bottom]])
        shades.paint(axes, box, mean(cell[metric] for cell in own), weight="bold")
    if frame_least and drawn:
        _, box = min(drawn, key=lambda item: item[0])
        frame: dict[str, Any] = {"fill": False, "ec": ORANGE, "lw": 2, "zorder": 3}
        axes.add_patch(Rectangle(box.p0, box.width, box.height, **frame))
    labels = [f"{j + 1}" if graded else "" for j in range(width)]
    axes.set_xticks([j + 0.5 for j in range(width)] + [width + 0.75], [*labels, "mean"])
    kinds = [i for i, (_, own) in enumerate(rows) if own]
    axes.set_yticks((edges[:-1] + edges[1:])[kinds] / 2, [rows[i][0] for i in kinds])
    axes.set(xlim=(-0.03, width + 1.28), ylim=(edges[-1] + 0.05, 0))
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


def _graded(cell: dict) -> bool:
    """Return whether the value of the cell's condition is a severity."""
    return cell["set"].endswith("corruptions")


@styled
def seen_unseen(
    summary: dict[str, dict], metric: str, chance: float, guess: str = "guessing"
) -> Figure:
    """Draw a share by set of conditions and subset, its 95 % intervals and the gaps.

    A gap is the share on seen semantics minus that on a subset, in percentage points. It
    is a line between the two, and a number.

    Args:
        summary: by subset of semantics, as in `results.json`.
        metric: which share, such as "attribution_accuracy".
        chance: the share that answers without looking have.
        guess: what such answers are called.
    """
    subsets = [subset for subset in SUBSETS if subset in summary]
    sets = [conditions for conditions in SETS if conditions in summary[subsets[0]]]
    labels, rows, heads = _subset_rows(sets, subsets)
    figure, axes = new_figure(1.1 + 0.25 * len(labels))
    if len(subsets) > 1:
        _write_beside(axes, -0.75, "%", 38, color=GREY)
        _write_beside(axes, -0.75, "gap", 72, color=GREY)
    for subset in subsets:
        points = []
        for conditions in sets:
            own, row = summary[subset][conditions], rows[conditions, subset]
            points.append((*(own.get(metric + e) for e in ("", "_low", "_high")), row))
            _write_beside(axes, row, percent(own[metric]), 38)
            less = gap(summary, subset, metric, conditions)
            if less is not None:
                ends = own[metric], own[metric] + less
                axes.plot(ends, (row, row), color="#bbbbbb", lw=1.2, zorder=1)
                text = percent(less).replace("-", "−")
                _write_beside(axes, row, text, 72, weight="bold")
        dots(axes, subset, points)
    name_rows(axes, labels)
    paper = {"fc": "white", "ec": "none", "pad": 1}
    style: dict[str, Any] = {"va": "center", "weight": "bold", "color": GREY}
    for row, name in heads.items():
        axes.text(0, row, name, bbox=paper, **style)
    share_axis(axes)
    axes.set_xlabel("right answers, %")
    axes.axvline(chance, color=GREY, ls=":", lw=1)
    side = "left" if chance < 0.5 else "right"
    axes.text(chance, -0.75, guess, size=8, color=GREY, ha=side, va="center")
    return figure


def _write_beside(axes: Axes, row: float, text: str, end: float, **style: Any) -> None:
    """Write a text that ends so many points right of the axes."""
    place: dict[str, Any] = {"xycoords": axes.get_yaxis_transform()}
    # In points, not in parts of the axes: the layout knows how much room that takes.
    place |= {"xytext": (end, 0), "textcoords": "offset points"}
    style |= {"ha": "right", "va": "center", "annotation_clip": False}
    axes.annotate(text, (1, row), **place, **style)


def _subset_rows(
    sets: Sequence[str], subsets: Sequence[str]
) -> tuple[list[str], dict[tuple[str, str], int], dict[int, str]]:
    """Lay out rows: one for each set of conditions and subset, under a head for each set.

    There are no heads where there is but one set, or but one subset.

    Returns:
        The name beside each row, the row of each set and subset, and heads by row.
    """
    labels: list[str] = []
    rows, heads = {}, {}
    for conditions in sets:
        if len(subsets) > 1 and len(sets) > 1:
            heads[len(labels)] = SETS[conditions]
            labels.append("")
        for subset in subsets:
            rows[conditions, subset] = len(labels)
            labels.append(words(subset) if len(subsets) > 1 else SETS[conditions])
    return labels, rows, heads


@styled
def recall(recalls: Shares) -> Figure:
    """Draw the share of each source's images that is attributed to it.

    Args:
        recalls: by subset of semantics and source; None: it has no images.
    """
    subsets = [subset for subset in SUBSETS if subset in recalls]
    names = list(dict.fromkeys(name for subset in subsets for name in recalls[subset]))
    pitch, size, dot = (0.27, 9, 6) if len(names) <= NAMED else (0.15, 7, 4)
    figure, axes = new_figure(0.9 + pitch * len(names))
    for row, name in enumerate(names):
        shares = [recalls[subset].get(name) for subset in subsets]
        ends = [share for share in shares if share is not None]
        if len(ends) > 1:
            axes.plot(ends, [row] * len(ends), color="#bbbbbb", lw=2, zorder=1)
        if not ends:
            axes.text(0, row, "no images", va="center", color=GREY, size=size)
    for subset in subsets:
        points = [(v, None, None, names.index(n)) for n, v in recalls[subset].items()]
        dots(axes, subset, points, dot)
    name_rows(axes, [short(name) for name in names], size)
    share_axis(axes)
    axes.set_xlabel("attributed to their source, %")
    name_subsets(figure, subsets)
    return figure


@styled
def recall_by_semantic(
    shares: Shares, unseen: Sequence[str] = (), trained: Pairs | None = None
) -> Figure:
    """Draw the recall of each source in each semantic.

    Args:
        shares: by semantic and source.
        unseen: semantics that were not trained on; they stand last.
        trained: the semantics that each source was trained on; new pairs of both are
            framed. None: none are.
    """
    semantics = sorted(shares, key=lambda name: name in unseen)
    sources = list(dict.fromkeys(name for row in shares.values() for name in row))
    values = [[shares[m].get(s) for m in semantics] for s in sources]
    labels = [f"{short(m)} *" if m in unseen else short(m) for m in semantics]
    figure, axes = _matrix(np.array(values, dtype=float), sources, labels)
    border = sum(m not in unseen for m in semantics)
    if 0 < border < len(semantics):
        axes.axvline(border, color=INK, lw=1.5)
    marks = ["* unseen"] if unseen else []
    if trained is not None:
        frame: dict[str, Any] = {
            "fill": False,
            "edgecolor": SUBSETS["new_pairs"]["color"],
            "lw": 1.5,
        }
        for (i, source), (j, semantic) in product(
            enumerate(sources), enumerate(semantics[:border])
        ):
            if semantic not in trained[source]:
                axes.add_patch(Rectangle((j + 0.06, i + 0.06), 0.88, 0.88, **frame))
        marks.append("framed: new pairs")
    axes.set_xlabel("semantic" + (f" ({'; '.join(marks)})" if marks else ""))
    axes.set_ylabel("true source")
    return figure


@styled
def confusion(counts: Sequence[Sequence[int]], sources: Sequence[str]) -> Figure:
    """Draw a confusion matrix as shares of each true source.

    Args:
        counts: rows true, columns attributed.
        sources: class names.
    """
    images = np.asarray(counts, float)
    total = images.sum(1, keepdims=True)
    shares = np.divide(
        images, total, out=np.full(images.shape, np.nan), where=total > 0
    )
    figure, axes = _matrix(shares, sources, [short(name) for name in sources])
    axes.set(xlabel="attributed to", ylabel="true source")
    return figure


def _matrix(
    values: np.ndarray, rows: Sequence[str], columns: Sequence[str]
) -> tuple[Figure, Axes]:
    """Draw shares as a coloured table: numbers if few, names unless very many."""
    height, width = values.shape
    least = 0.22 * height if height <= NAMED else 0
    figure, axes = new_figure(min(max(3.6 / max(width, 8) * height, least), 12) + 1.4)
    line = 0.8 if max(height, width) <= NAMED else 0
    mesh = axes.pcolormesh(
        values, cmap="Blues", vmin=0, vmax=1, edgecolors="white", linewidth=line
    )
    if max(width, height / 2) <= NUMBERED:
        for (i, j), value in np.ndenumerate(values):
            if value > 0.005:  # what is not rounded to 0
                style: dict[str, Any] = {"ha": "center", "va": "center"}
                style["color"] = ink(matplotlib.colormaps["Blues"](value))
                axes.text(j + 0.5, i + 0.5, f"{100 * value:.0f}", **style)
    else:
        bar = figure.colorbar(mesh, location="top", aspect=40, shrink=0.6)
        bar.ax.xaxis.set_major_formatter(PercentFormatter(1, 0, symbol=" %"))
    turn = 90 if width > NUMBERED else 45
    turned = {"rotation": turn, "ha": "right", "rotation_mode": "anchor"}
    turned["va"] = "center" if turn == 90 else "top"
    _name_fields(axes.set_yticks, [short(name) for name in rows], {})
    _name_fields(axes.set_xticks, columns, turned)
    axes.set_ylim(height, 0)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure, axes


def _name_fields(set_ticks: Any, names: Sequence[str], style: dict[str, Any]) -> None:
    """Name the rows or columns of a matrix, or number every tenth of very many."""
    if len(names) > NAMED:
        places = range(9, len(names), 10)
        set_ticks([place + 0.5 for place in places], [f"{p + 1}" for p in places])
    else:
        size = 9 if len(names) <= 20 else 7
        set_ticks(np.arange(len(names)) + 0.5, names, size=size, **style)


@styled
def training(rows: Iterable[dict], names: dict[str, str], share: bool) -> Figure | None:
    """Draw what a run has logged over its steps; without any there is no figure.

    Args:
        rows: what `rmjax.experiment.log.read_log` returns.
        names: what to draw of which kind of rows, such as `{"train": "loss"}`.
        share: whether it is one, to be shown as per cent.
    """
    curves: dict[str, list[tuple]] = {kind: [] for kind in names}
    for row in rows:
        value = row.get(names.get(row["kind"], ""))
        if value is not None:
            curves[row["kind"]].append((row["step"], value))
    if not any(curves.values()):
        return None
    figure, axes = new_figure(2.9)
    looks = ((BLUE, "-"), (ORANGE, "D--"))
    for (kind, points), (colour, look) in zip(curves.items(), looks, strict=False):
        if points:
            style: dict[str, Any] = {"color": colour, "ms": 5, "mfc": "white"}
            axes.plot(*zip(*points, strict=True), look, label=kind, **style)
    axes.grid()
    axes.legend()
    axes.set_xlabel("training step")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    if share:
        axes.set_ylim(-0.02, 1.02)
        percent_ticks(axes.yaxis)
    return figure
