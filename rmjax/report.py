"""Pictures of an evaluation."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from rmjax.corruptions import NAMES, RESHARING, SEVERITIES
from rmjax.data.dataset import Selection
from rmjax.data.images import decode_rgb
from rmjax.metrics import Predictions

MAX_MISTAKES = 24


def format_table(groups: dict[str, dict]) -> str:
    """Return the main figures of each group as lines of text."""
    names = {
        "images": "images",
        "attribution": "attribution_accuracy",
        "detection": "detection_accuracy",
        "det. head": "detection_head_accuracy",
        "NMI": "nmi",
        "loss": "loss",
    }
    lines = [f"{'semantics':<10}" + "".join(f"{name:>13}" for name in names)]
    for group, figures in groups.items():
        values = (figures[key] for key in names.values())
        cells = (f"{v:>13d}" if isinstance(v, int) else f"{v:>13.4f}" for v in values)
        lines.append(f"{group:<10}" + "".join(cells))
    return "\n".join(lines)


def format_summary(summary: dict[str, dict]) -> str:
    """Return accuracies by kind of corruption as lines of text, groups as columns."""
    groups = list(summary)
    columns = [
        (group, name) for group in groups for name in ("attribution", "detection")
    ]
    lines = [
        f"{'mean over severities':<22}"
        + "".join(f"{group + ' ' + name[:6] + '.':>18}" for group, name in columns)
    ]

    def row(label: str, values: dict[str, dict]) -> str:
        cells = (values[group][f"{name}_accuracy"] for group, name in columns)
        return f"{label:<22}" + "".join(f"{cell:>18.4f}" for cell in cells)

    for kind in summary[groups[0]]["kinds"]:
        if kind != "clean":
            lines.append(row(kind, {g: summary[g]["kinds"][kind] for g in groups}))
    for name in summary[groups[0]]:
        if name != "kinds":
            label = name.replace("_", " ")
            lines.append(row(label, {g: summary[g][name] for g in groups}))
    return "\n".join(lines)


def draw_robustness(figures: dict[str, dict], path: Path) -> None:
    """Draw attribution accuracy by kind of corruption and severity, group by group.

    Args:
        figures: by condition ("clean", "fog:3") and group, with
            `attribution_accuracy`.
        path: the PNG to write.
    """
    kinds: dict[str, list[str]] = {}
    for condition in figures:
        kinds.setdefault(condition.partition(":")[0], []).append(condition)
    groups = list(figures["clean"])
    width = max(len(conditions) for conditions in kinds.values())
    graded = any(name in NAMES for name in kinds)
    if graded:
        width = max(width, len(SEVERITIES))
    size = (2 + 0.6 * width * len(groups), 1.2 + 0.27 * len(kinds))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(1, len(groups), squeeze=False, sharey=True)[0]
    for axis, group in zip(axes, groups, strict=True):
        shares = np.full((len(kinds), width), np.nan)
        for i, (name, conditions) in enumerate(kinds.items()):
            for j, condition in enumerate(conditions):
                share = figures[condition][group]["attribution_accuracy"]
                value = condition.partition(":")[2]
                if name in NAMES:  # its severity is the column
                    j = int(value) - 1
                shares[i, j] = share
                note = f"{value}: " if name in RESHARING else ""
                colour = "white" if share < 0.5 else "black"
                text = f"{note}{share:.2f}"
                axis.text(j, i, text, ha="center", va="center", color=colour, size=7)
        axis.imshow(shares, vmin=0, vmax=1, cmap="viridis", aspect="auto")
        axis.set_xticks(range(width), range(1, width + 1))
        axis.set_xlabel("severity" if graded else "")
        axis.set_title(f"{group} semantics", size=10)
    axes[0].set_yticks(range(len(kinds)), list(kinds))
    figure.suptitle("attribution accuracy", size=10)
    _save(figure, path)


def draw_confusion(groups: dict[str, dict], sources: Sequence[str], path: Path) -> None:
    """Draw the confusion matrices of all groups side by side, as shares of a row."""
    side = 1.6 + 0.55 * len(sources)
    figure = Figure(figsize=(side * len(groups), side + 0.6), layout="constrained")
    axes = figure.subplots(1, len(groups), squeeze=False)[0]
    for axis, (group, figures) in zip(axes, groups.items(), strict=True):
        counts = np.array(figures["confusion"])
        shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
        axis.imshow(shares, vmin=0, vmax=1, cmap="Blues")
        for (i, j), share in np.ndenumerate(shares):
            if counts[i, j]:
                colour = "white" if share > 0.5 else "black"
                text = f"{share:.2f}".lstrip("0") if share < 1 else "1"
                axis.text(j, i, text, ha="center", va="center", color=colour, size=8)
        ticks = range(len(sources))
        axis.set_xticks(ticks, sources, rotation=45, ha="right")
        axis.set_yticks(ticks, sources)
        axis.set_xlabel("attributed to")
        axis.set_title(
            f"{group} semantics ({figures['images']} images)\nattribution "
            f"{figures['attribution_accuracy']:.3f}, detection "
            f"{figures['detection_accuracy']:.3f}",
            size=10,
        )
    axes[0].set_ylabel("true source")
    _save(figure, path)


def draw_curves(rows: list[dict], path: Path) -> None:
    """Draw the losses and accuracies that a run has logged, over its steps."""
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axis, names in (
        (left, {"train": "loss", "validation": "loss"}),
        (right, {"train": "accuracy", "validation": "attribution_accuracy"}),
    ):
        for kind, name in names.items():
            points = [(r["step"], r[name]) for r in rows if r["kind"] == kind]
            if points:
                style = "-" if kind == "train" else "o-"
                axis.plot(*zip(*points, strict=True), style, ms=3, label=kind)
        axis.set_xlabel("step")
        axis.grid(alpha=0.3)
        axis.legend()
    left.set_title("compound loss (training: of mixed groups)", size=10)
    right.set_title("attribution accuracy", size=10)
    right.set_ylim(0, 1.02)
    _save(figure, path)


def draw_mistakes(
    parts: dict[str, tuple[Predictions, Selection, tuple[str, ...]]],
    sources: Sequence[str],
    path: Path,
) -> None:
    """Draw the images that are most confidently attributed to a wrong source.

    Args:
        parts: by group, predictions and the selection and splits they are of.
        sources: class names.
        path: the PNG to write.
    """
    tiles = []
    for group, (predictions, selection, splits) in parts.items():
        for row, share in _worst(predictions, MAX_MISTAKES // len(parts)):
            split = splits[predictions.split[row]]
            record = selection.dataset.records(split)[int(predictions.index[row])]
            guess = sources[predictions.attribution[row].argmax()]
            truth = sources[predictions.source[row]]
            title = f"{group}: {truth}\nas {guess} ({share:.2f})"
            tiles.append((title, decode_rgb(record["image"])))
    columns = 6
    lines = max(-(-len(tiles) // columns), 1)
    figure = Figure(figsize=(2 * columns, 2.5 * lines), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    for axis in axes:
        axis.axis("off")
    for axis, (title, image) in zip(axes, tiles, strict=False):
        axis.imshow(image, interpolation="nearest")
        axis.set_title(title, size=8)
    if not tiles:
        axes[0].set_title("no mistakes")
    _save(figure, path)


def _worst(predictions: Predictions, count: int) -> list[tuple[int, float]]:
    """Return rows and shares of the wrong predictions with the largest softmax."""
    logits = predictions.attribution - predictions.attribution.max(-1, keepdims=True)
    shares = np.exp(logits)
    shares = (shares / shares.sum(-1, keepdims=True)).max(-1)
    wrong = np.flatnonzero(predictions.attribution.argmax(-1) != predictions.source)
    worst = wrong[np.argsort(-shares[wrong], kind="stable")][:count]
    return [(int(i), float(shares[i])) for i in worst]


def _save(figure: Figure, path: Path) -> None:
    with matplotlib.rc_context({"savefig.dpi": 120}):
        figure.savefig(path)
