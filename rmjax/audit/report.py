"""A leakage audit as a table, as sentences and as a picture."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from rmjax.utils.files import replacing, write_json


def format_audit(results: dict) -> str:
    """Return the table of an audit and what follows from it as lines of text."""
    sources = results["sources"]
    most = max(sources.values()) / results["images"]
    lines = [
        f"{results['images']} images of {len(sources)} sources, {results['folds']} "
        f"folds; chance {results['chance']:.3f}; accuracy of always the commonest "
        f"source {most:.3f}",
        "",
        f"{'cue':<11}{'balanced':>9}{'folds':>14}{'permuted labels':>18}"
        f"{'accuracy':>10}",
    ]
    for name, figures in results["cues"].items():
        row = f"{name:<11}{figures['balanced_accuracy']:>9.3f}"
        if figures["constant"]:
            lines.append(f"{row}{'constant':>14}")
            continue
        low, high = min(figures["folds"]), max(figures["folds"])
        folds = f"{low:.3f}-{high:.3f}"
        permuted = f"{figures['measured_chance']:.3f} +- {figures['deviation']:.3f}"
        lines.append(
            f"{row}{folds:>14}{permuted:>18}{figures['accuracy']:>10.3f}"
            + ("  leaks" if figures["leaks"] else "")
        )
    return "\n".join([*lines, "", *audit_sentences(results)])


def audit_sentences(results: dict) -> list[str]:
    """Return a warning for each cue that leaks and for how real files differ, or that none is."""
    lines = []
    for name, figures in results["cues"].items():
        if not figures["leaks"]:
            continue
        best = sorted(figures["recall"].items(), key=lambda item: -item[1])[:5]
        told = ", ".join(
            f"{source} {share:.2f}" for source, share in best if share > 0.8
        )
        what = "all cues together tell" if name == "all" else f"{name} tells"
        lines.append(
            f"WARNING: {what} the source: {figures['balanced_accuracy']:.2f} where chance "
            f"is {results['chance']:.2f}{told and f' (recall: {told})'}. What to do: "
            f"{figures['advice']}."
        )
    lines += _real_sentences(results.get("real") or {})
    if results["unreadable"]:
        lines.append(f"{results['unreadable']} unreadable images were left out.")
    return lines or ["No cue tells the sources far above chance."]


def _real_sentences(real: dict) -> list[str]:
    """Return a warning for each way in which real files differ from the others."""
    lines = []
    for name, found in real.items():
        if found["differs"]:
            ours, theirs = (_WORDS[name](found[who]) for who in ("real", "others"))
            lines.append(
                f"WARNING: real images differ from the others in {name}: {ours} against "
                f"{theirs}. What tells these apart need not be a fingerprint."
            )
    return lines


def _format_words(shares: dict[str, float]) -> str:
    return ", ".join(f"{share:.0%} {name}" for name, share in [*shares.items()][:3])


def _size_words(median: list[float]) -> str:
    return "{:.0f} x {:.0f} px (median)".format(*median)


_WORDS: dict[str, Callable[[Any], str]] = {
    "format": _format_words,
    "size": _size_words,
}


def draw_audit(results: dict, path: Path) -> None:
    """Draw the balanced accuracies as bars, chance as a line.

    Args:
        results: what `rmjax.audit.audit.audit` returns.
        path: the PNG to write.
    """
    cues = results["cues"]
    figure = Figure(figsize=(8, 1.6 + 0.42 * len(cues)), layout="constrained")
    axis = figure.subplots()
    for row, figures in enumerate(cues.values()):
        if figures["constant"]:
            axis.text(0.01, row, "constant", va="center", color="grey", size=9)
            continue
        value, low, high = (
            figures["balanced_accuracy"],
            min(figures["folds"]),
            max(figures["folds"]),
        )
        colour = "#c0392b" if figures["leaks"] else "#7f9db9"
        axis.barh(row, value, color=colour, height=0.62)
        axis.plot((low, high), (row, row), "k-|", lw=1, ms=7)
        permuted = figures["permuted"]
        axis.plot(permuted, [row] * len(permuted), "o", ms=3, mec="k", mfc="w", mew=0.6)
        right = max(value, high, *permuted)
        axis.text(right + 0.015, row, f"{value:.2f}", va="center", size=9)
    chance = results["chance"]
    axis.axvline(chance, color="k", ls="--", lw=1)
    axis.set_yticks(range(len(cues)), list(cues))
    axis.set_ylim(len(cues) - 0.5, -0.5)
    axis.set_xlim(0, 1.08)
    axis.set_xlabel(
        "balanced accuracy (bar: all images; line: least to greatest fold;\n"
        f"dots: labels permuted; dashed: chance {chance:.3f}; red: leaks)",
        size=9,
    )
    axis.set_title(
        f"How well the source is told without a fingerprint\n{results['images']} "
        f"images, {len(results['sources'])} sources",
        size=10,
    )
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    with matplotlib.rc_context({"savefig.dpi": 120}):
        figure.savefig(path, format="png")


def write_audit(results: dict, folder: Path) -> dict[str, Path]:
    """Write `audit.png` and `audit.json`, each whole or not at all.

    Returns:
        Their paths, as `picture` and `results`.

    Raises:
        InputError: the folder can't be written to.
    """
    picture, file = folder / "audit.png", folder / "audit.json"
    with replacing(picture) as scratch:
        folder.mkdir(parents=True, exist_ok=True)
        draw_audit(results, scratch)
        write_json(file, results)
    return {"results": file, "picture": picture}
