"""The files of an evaluation: results.json with a versioned schema, results.csv, text."""

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rmjax.errors import InputError
from rmjax.utils.files import write_csv, write_json

SCHEMA = "rmjax-evaluation"
SCHEMA_VERSION = 1
EVALUATIONS = "evaluation"  # folder of a run's evaluations
RESULTS_FILE = "results.json"
KEYS = (
    "run evaluation data sources semantics without_images cells summary confusion clean "
    "calibration reliability open_set map mistakes"
).split()


def partial_folder(folder: Path) -> Path:
    """Say where the answers lie while an evaluation that will be in `folder` runs."""
    return folder.with_name(f".{folder.name}.partial")


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Give an empty folder to fill, which then takes the place of `folder` as a whole.

    An old one goes only when the new one is complete, and then its answers too.

    Raises:
        InputError: it can't be written to.
    """
    fresh, old = (folder.with_name(f".{folder.name}.{end}") for end in ("new", "old"))
    try:
        for rest in (fresh, old):
            shutil.rmtree(rest, ignore_errors=True)
        fresh.mkdir(parents=True)
        yield fresh
        if folder.exists():
            folder.rename(old)
        fresh.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
        shutil.rmtree(partial_folder(folder), ignore_errors=True)
    except OSError as error:
        raise InputError(f"can't write to {folder}: {error.strerror}") from error


def write_results(folder: Path, results: dict) -> None:
    """Write `results.csv`, one row a cell, and `results.json`, whole or not at all."""
    columns = dict.fromkeys(name for cell in results["cells"] for name in cell)
    write_csv(folder / "results.csv", columns, results["cells"])
    write_json(folder / RESULTS_FILE, results)


def read_results(folder: Path) -> dict:
    """Return what `write_results` wrote.

    Raises:
        InputError: there is no such file, or it is not of this schema and version, or
            not whole.
    """
    path = folder / RESULTS_FILE
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
        found = results.get("schema"), results.get("schema_version")
    except FileNotFoundError as error:
        raise InputError(
            f"no evaluation in {folder}: {RESULTS_FILE} is missing; make it with "
            "`rmjax evaluate`"
        ) from error
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: no results of an evaluation ({error})") from error
    if found != (SCHEMA, SCHEMA_VERSION):
        raise InputError(
            f"{path}: schema {found[0]}, version {found[1]}; this rmjax reads {SCHEMA}, "
            f"version {SCHEMA_VERSION}: run `rmjax evaluate` again"
        )
    missing = [key for key in KEYS if key not in results]
    if missing:
        raise InputError(
            f"{path} is damaged: no '{missing[0]}'; run `rmjax evaluate` again"
        )
    return results


def find_evaluation(workdir: Path, name: str | None = None) -> Path:
    """Return the folder of one of a run's evaluations.

    Args:
        workdir: folder of the run.
        name: which; None takes `full` if there is one, and else the only one.

    Raises:
        InputError: there is no such run or evaluation, or several to choose from.
    """
    if not workdir.is_dir():
        raise InputError(f"no run in {workdir}")
    folder = workdir / EVALUATIONS
    names = sorted(path.parent.name for path in folder.glob(f"*/{RESULTS_FILE}"))
    if not names:
        raise InputError(
            f"no evaluation in {workdir}; make one with: rmjax evaluate --workdir "
            f"{workdir} --suite full"
        )
    if name is None:
        if "full" not in names and len(names) > 1:
            raise InputError(
                f"{workdir} has several evaluations: choose --evaluation "
                + ", ".join(names)
            )
        name = "full" if "full" in names else names[0]
    if name not in names:
        raise InputError(
            f"{workdir} has no evaluation '{name}'; it has {', '.join(names)}"
        )
    return folder / name


def format_results(results: dict) -> str:
    """Return the main figures as lines of text."""
    parts = [_format_clean(results)]
    if len(results["summary"][next(iter(results["summary"]))]["kinds"]) > 1:
        parts.append(_format_summary(results["summary"]))
    parts.append("\n".join(_format_decisions(results)))
    return "\n\n".join(parts)


def _format_clean(results: dict) -> str:
    columns = {
        "images": "images",
        "attribution": "attribution_accuracy",
        "95 % interval": "attribution_accuracy",
        "detection": "detection_accuracy",
        "macro F1": "macro_f1",
        "NMI": "nmi",
        "loss": "loss",
        "ECE": "ece",
    }
    lines = [f"{'clean images':<14}" + "".join(f"{name:>14}" for name in columns)]
    for cell in results["cells"]:
        if cell["condition"] == "clean":
            texts = [
                _format_interval(cell, key)
                if name.startswith("95")
                else _format_number(cell[key])
                for name, key in columns.items()
            ]
            lines.append(
                f"{cell['semantics']:<14}" + "".join(f"{t:>14}" for t in texts)
            )
    return "\n".join(lines)


def _format_summary(summary: dict[str, dict]) -> str:
    groups = list(summary)
    columns = [(g, name) for g in groups for name in ("attribution", "detection")]
    lines = [
        f"{'mean over severities':<22}"
        + "".join(f"{group + ' ' + name[:6] + '.':>18}" for group, name in columns)
    ]

    def row(label: str, values: dict[str, dict]) -> str:
        cells = (values[group][f"{name}_accuracy"] for group, name in columns)
        return f"{label:<22}" + "".join(f"{_format_number(c):>18}" for c in cells)

    first = summary[groups[0]]
    for kind in first["kinds"]:
        if kind != "clean":
            lines.append(row(kind, {g: summary[g]["kinds"][kind] for g in groups}))
    for name in first:
        if name not in ("kinds", "worst"):
            lines.append(
                row(name.replace("_", " "), {g: summary[g][name] for g in groups})
            )
    for group in groups:
        worst = summary[group]["worst"]
        lines.append(
            f"worst, {group} semantics: {worst['condition']}, attribution "
            f"{worst['attribution_accuracy']:.4f}"
        )
    return "\n".join(lines)


def _format_decisions(results: dict) -> Sequence[str]:
    """Describe calibration, thresholds and unknown sources, a line each."""
    found = results["calibration"]
    if found is None:
        return [
            "not calibrated: there are no validation images; no probability of this "
            "run is one to rely on"
        ]
    measured, heat = found["validation"]["attribution"], found["temperature"]
    lines = [
        f"calibrated on {found['images']} validation images: temperature "
        f"{heat['attribution']:.3f} (detection {heat['detection']:.3f}), ECE there "
        f"{measured['ece_uncalibrated']:.4f} -> {measured['ece']:.4f}"
    ]
    cell = results["cells"][0]
    for point in found["operating_points"]:
        name, real = f"{point['fpr']:g}", point["real_images"]
        lines.append(
            f"synthetic from P = {point['threshold']:.4f} on (aim {100 * point['fpr']:g} "
            f"%: {round(point['achieved'] * real)} of {real} real validation images): "
            f"{_format_number(cell[f'tpr_at_{name}'])} of synthetic and "
            f"{_format_number(cell[f'fpr_at_{name}'])} of real images, clean, "
            f"{cell['semantics']} semantics"
        )
    if results["open_set"]:
        for name, by_kin in results["open_set"]["scores"].items():
            kins = [k for k in ("near", "far", "all") if by_kin[k]]
            texts = [
                f"{k} {by_kin[k]['auroc']:.4f} (FPR95 {by_kin[k]['fpr95']:.4f})"
                for k in kins
            ]
            lines.append(f"AUROC of unknown by {name}: {', '.join(texts)}")
    return lines


def _format_number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:d}" if isinstance(value, int) else f"{value:.4f}"


def _format_interval(cell: dict, key: str) -> str:
    low, high = cell[f"{key}_low"], cell[f"{key}_high"]
    return "-" if low is None else f"{low:.3f}-{high:.3f}"
