"""Figures of how often the answers are right, each from plain data to a Figure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

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
    GROUPS,
    INK,
    NAMED,
    ORANGE,
    SETS,
    WIDTH,
    ink,
    kind_rows,
    mean,
    rows_axis,
    short,
    styled,
)

NUMBERED = 12  # columns of a matrix, above which it has no numbers


@dataclass(frozen=True)
class Shades:
    """How shares are coloured and written: from `low` to `high`, by `form`."""

    colours: str
    low: float
    high: float
    form: str = "{:.0f}"

    def paint(self, axis: Axes, box: Bbox, value: float | None, **text) -> None:
        """Fill a box with the colour of a share and write it there as per cent."""
        letters = INK
        if value is not None:
            colour = matplotlib.colormaps[self.colours](
                (value - self.low) / (self.high - self.low)
            )
            axis.add_patch(
                Rectangle(box.p0, box.width, box.height, fc=colour, ec="white")
            )
            letters = ink(colour)
        x, y = (box.p0 + box.p1) / 2
        note = text.pop("note", "")
        if note:
            axis.text(
                x, y - 0.38, note, ha="center", va="center", color=letters, size=8
            )
            y += 0.3
        words = "–"
        if value is not None:
            words = self.form.format(100 * value).replace("-", "−")
            words = "0" if words in ("+0", "−0") else words
        axis.text(x, y, words, ha="center", va="center", color=letters, **text)


@styled
def robustness(cells: Sequence[dict], metric: str = "attribution_accuracy") -> Figure:
    """Draw a share by kind of corruption and severity, and its mean over them.

    Args:
        cells: of one group of semantics, as in `results.json`.
        metric: which of their shares.
    """
    return _kinds_grid(cells, metric, Shades("Blues", 0, 1), frame_least=True)


@styled
def robustness_difference(cells: Sequence[dict], metric: str = "difference") -> Figure:
    """Draw differences of shares by kind and severity, about a white zero."""
    most = max([abs(c[metric]) for c in cells if c[metric] is not None] or [0])
    most = max(most, 0.05)
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
    figure = Figure(figsize=(WIDTH, 0.5 + 0.235 * edges[-1]), layout="constrained")
    axis = figure.subplots()
    drawn = []
    for top, bottom, (name, own) in zip(edges, edges[1:], rows, strict=False):
        if not own:
            axis.text(
                0, (top + bottom) / 2, name, va="center", weight="bold", color=GREY
            )
            continue
        if own[0]["set"] != "clean":
            for j, cell in enumerate(own):
                x = int(cell["value"]) - 1 if _graded(cell) else j
                box = Bbox([[x, top], [x + 1, bottom]])
                note = "" if _graded(cell) else f"{cell['value']:g}"
                shades.paint(axis, box, cell[metric], note=note)
                drawn.append((cell[metric], box))
        box = Bbox([[width + 0.25, top], [width + 1.25, bottom]])
        shades.paint(axis, box, mean(cell[metric] for cell in own), weight="bold")
    known = [(value, box) for value, box in drawn if value is not None]
    if frame_least and known:
        _, box = min(known, key=lambda item: item[0])
        options = {"fill": False, "ec": ORANGE, "lw": 2, "zorder": 3}
        axis.add_patch(Rectangle(box.p0, box.width, box.height, **options))
    _grid_axes(axis, rows, edges, width, graded)
    return figure


def _graded(cell: dict) -> bool:
    """Return whether the value of the cell's condition is a severity."""
    return cell["set"].endswith("corruptions")


def _grid_axes(axis: Axes, rows: list, edges: np.ndarray, width: int, graded) -> None:
    labels = [f"{j + 1}" if graded else "" for j in range(width)]
    axis.set_xticks([j + 0.5 for j in range(width)] + [width + 0.75], [*labels, "mean"])
    kinds = [i for i, (_, own) in enumerate(rows) if own]
    axis.set_yticks((edges[:-1] + edges[1:])[kinds] / 2, [rows[i][0] for i in kinds])
    axis.set(xlim=(-0.03, width + 1.28), ylim=(edges[-1] + 0.05, 0))
    axis.xaxis.tick_top()
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)


@styled
def seen_unseen(
    summary: dict[str, dict], metric: str, chance: float, guess: str = "guessing"
) -> Figure:
    """Draw a share by set of conditions and group, with its 95 % intervals.

    Args:
        summary: by group of semantics, as in `results.json`.
        metric: which share, such as "attribution_accuracy".
        chance: the share that answers without looking have.
        guess: what such answers are called.
    """
    groups = {g: summary[g] for g in GROUPS if g in summary}
    sets = [s for s in SETS if s in next(iter(groups.values()))]
    figure = Figure(figsize=(WIDTH, 1.0 + 0.42 * len(sets)), layout="constrained")
    axis = figure.subplots()
    for k, (group, found) in enumerate(groups.items()):
        colour, marker, filling = GROUPS[group]
        offset = 0.16 * (2 * k - len(groups) + 1)
        for row, part in enumerate(sets):
            ends = [found[part].get(metric + end) for end in ("_low", "_high")]
            if None not in ends:
                axis.plot(ends, [row + offset] * 2, color=colour, lw=2)
        points = [(found[s][metric], row + offset) for row, s in enumerate(sets)]
        points = [point for point in points if point[0] is not None]
        _plot(axis, points, marker, colour, filling, f"{group} semantics")
    rows_axis(axis, [SETS[part] for part in sets])
    axis.set_xlabel("right answers, %")
    axis.axvline(chance, color=GREY, ls=":", lw=1)
    side = "left" if chance < 0.5 else "right"
    axis.text(chance, len(sets) - 0.55, f" {guess} ", size=8, color=GREY, ha=side)
    if len(groups) > 1:
        figure.legend(loc="outside lower center", ncols=2)
    return figure


def _plot(
    axis: Axes, points: list, marker: str, colour: str, filling: str, label: str, size=6
) -> None:
    """Plot points that may be none."""
    x, y = zip(*points, strict=True) if points else ((), ())
    axis.plot(x, y, marker, color=colour, mfc=filling, ms=size, label=label, ls="")


@styled
def recall(recalls: dict[str, dict[str, float | None]]) -> Figure:
    """Draw the share of each source's images that is attributed to it.

    Args:
        recalls: by group of semantics and source; None: it has no images.
    """
    groups = {g: recalls[g] for g in GROUPS if g in recalls}
    names = list(dict.fromkeys(name for found in groups.values() for name in found))
    pitch, size = (0.27, 9) if len(names) <= NAMED else (0.15, 7)
    height = 0.9 + pitch * len(names)
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axis = figure.subplots()
    for row, name in enumerate(names):
        ends = [f[name] for f in groups.values() if f.get(name) is not None]
        if len(ends) > 1:
            axis.plot(ends, [row] * len(ends), color="#bbbbbb", lw=2, zorder=1)
        if not ends:
            axis.text(0, row, "no images", va="center", color=GREY, size=size)
    for group, found in groups.items():
        colour, marker, filling = GROUPS[group]
        points = [(v, names.index(n)) for n, v in found.items() if v is not None]
        _plot(
            axis, points, marker, colour, filling, f"{group} semantics",
            6 if size == 9 else 4,
        )  # fmt: skip
    rows_axis(axis, [short(name) for name in names], size)
    axis.set_xlabel("attributed to their source, %")
    if len(groups) > 1:
        figure.legend(loc="outside lower center", ncols=2)
    return figure


@styled
def recall_by_semantic(
    shares: dict[str, dict[str, float | None]], unseen: Sequence[str] = ()
) -> Figure:
    """Draw the recall of each source in each semantic.

    Args:
        shares: by semantic and source.
        unseen: semantics that were not trained on; they stand last.
    """
    semantics = sorted(shares, key=lambda name: name in unseen)
    sources = list(dict.fromkeys(name for row in shares.values() for name in row))
    values = np.array(
        [[shares[m].get(s) for m in semantics] for s in sources], dtype=float
    )
    labels = [f"{short(m)} *" if m in unseen else short(m) for m in semantics]
    figure = _matrix(values, sources, labels)
    axis = figure.axes[0]
    border = sum(m not in unseen for m in semantics)
    if 0 < border < len(semantics):
        axis.axvline(border, color=INK, lw=1.5)
    axis.set_xlabel("semantic" + (" (* unseen)" if unseen else ""))
    axis.set_ylabel("true source")
    return figure


@styled
def confusion(counts: Sequence[Sequence[int]], sources: Sequence[str]) -> Figure:
    """Draw a confusion matrix as shares of each true source.

    Args:
        counts: rows true, columns attributed.
        sources: class names.
    """
    counts = np.asarray(counts, float)
    total = counts.sum(1, keepdims=True)
    with np.errstate(invalid="ignore"):
        shares = np.where(total > 0, counts / total, np.nan)
    figure = _matrix(shares, sources, [short(name) for name in sources])
    figure.axes[0].set(xlabel="attributed to", ylabel="true source")
    return figure


def _matrix(values: np.ndarray, rows: Sequence[str], columns: Sequence[str]) -> Figure:
    """Draw shares as a coloured table: numbers if few, names unless very many."""
    height, width = values.shape
    pitch = 3.6 / max(width, 8)
    least = 0.22 * height if height <= NAMED else 0
    inches = min(max(pitch * height, least), 12) + 1.4
    figure = Figure(figsize=(WIDTH, inches), layout="constrained")
    axis = figure.subplots()
    line = 0.8 if max(height, width) <= NAMED else 0
    mesh = axis.pcolormesh(
        values, cmap="Blues", vmin=0, vmax=1, edgecolors="white", linewidth=line
    )
    if max(width, height / 2) <= NUMBERED:
        for (i, j), value in np.ndenumerate(values):
            if value > 0.005:  # what is not rounded to 0
                options = {"ha": "center", "va": "center"}
                options["color"] = ink(matplotlib.colormaps["Blues"](value))
                axis.text(j + 0.5, i + 0.5, f"{100 * value:.0f}", **options)
    else:
        bar = figure.colorbar(mesh, location="top", aspect=40, shrink=0.6)
        bar.ax.xaxis.set_major_formatter(PercentFormatter(1, 0, symbol=" %"))
    for set_ticks, names, turn in (
        (axis.set_yticks, [short(name) for name in rows], 0),
        (axis.set_xticks, columns, 90 if width > NUMBERED else 45),
    ):
        if len(names) > NAMED:
            places = range(9, len(names), 10)
            set_ticks([p + 0.5 for p in places], [f"{p + 1}" for p in places])
            continue
        anchor = {"rotation": turn, "ha": "right", "rotation_mode": "anchor"}
        options = anchor | {"va": "center" if turn == 90 else "top"} if turn else {}
        size = 9 if len(names) <= 20 else 7
        set_ticks(np.arange(len(names)) + 0.5, names, size=size, **options)
    axis.set_ylim(height, 0)
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    return figure


@styled
def training(rows: Iterable[dict], names: dict[str, str], share: bool) -> Figure | None:
    """Draw what a run has logged over its steps; without any there is no figure.

    Args:
        rows: what `rmjax.experiment.log.read_log` returns.
        names: what to draw of which kind of rows, such as `{"train": "loss"}`.
        share: whether it is one, to be shown as per cent.
    """
    curves = {
        kind: [
            (row["step"], row[name])
            for row in rows
            if row["kind"] == kind and row.get(name) is not None
        ]
        for kind, name in names.items()
    }
    if not any(curves.values()):
        return None
    figure = Figure(figsize=(WIDTH, 2.9), layout="constrained")
    axis = figure.subplots()
    for (kind, points), colour, style in zip(
        curves.items(), (BLUE, ORANGE), ("-", "D--"), strict=False
    ):
        if points:
            options = {"color": colour, "ms": 5, "mfc": "white", "label": kind}
            axis.plot(*zip(*points, strict=True), style, **options)
    axis.grid()
    axis.legend()
    axis.set_xlabel("training step")
    axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    if share:
        axis.set_ylim(-0.02, 1.02)
        axis.yaxis.set_major_formatter(PercentFormatter(1, 0, symbol=""))
    return figure
