"""The files of an evaluation: results.json with a versioned schema, results.csv, text."""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from rmjax.errors import InputError
from rmjax.utils.files import (
    remove_file,
    remove_tree,
    send,
    write_csv,
    write_json,
)
from rmjax.utils.places import is_remote, reason

SCHEMA = "rmjax-evaluation"
SCHEMA_VERSION = 1
# Sets of conditions, in the order in which they are listed.
SETS = ("clean", "seen_corruptions", "unseen_corruptions", "resharing")
# Subsets of test images beside `seen`, which is the rest: of pairs of source and semantic
# that were never trained on together, and of semantics that were never trained on.
BESIDE_SEEN = ("new_pairs", "unseen")
EVALUATIONS = "evaluation"  # folder of a run's evaluations
RESULTS_FILE = "results.json"
KEYS = (
    "run evaluation data sources semantics without_images cells summary confusion clean "
    "calibration reliability open_set map mistakes"
).split()


@contextmanager
def partial_folder(folder: Path) -> Iterator[Path]:
    """Say where the answers lie while an evaluation that will be in `folder` runs.

    They are there for the next one after a stop; but not those for a store, which lie
    in a temporary folder here.
    """
    if is_remote(folder):
        with TemporaryDirectory(prefix="rmjax-") as scratch:
            yield Path(scratch, "answers")
    else:
        yield _beside(folder, "partial")


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Give an empty folder to fill, which then takes the place of `folder` as a whole.

    An old one goes only when the new one is complete, and then its answers too. In a
    store its `RESULTS_FILE` goes first and comes last, without which it is none.

    Raises:
        InputError: it can't be written to.
    """
    fresh, old = _beside(folder, "new"), _beside(folder, "old")
    try:
        if is_remote(folder):
            with TemporaryDirectory(prefix="rmjax-") as scratch:
                yield Path(scratch)
                _send(Path(scratch), folder)
            return
        for rest in (fresh, old):
            shutil.rmtree(rest, ignore_errors=True)
        fresh.mkdir(parents=True)
        yield fresh
        if folder.exists():
            folder.rename(old)
        fresh.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
        shutil.rmtree(_beside(folder, "partial"), ignore_errors=True)
    except OSError as error:
        raise InputError(f"can't write to {folder}: {reason(error)}") from error


def _beside(folder: Path, end: str) -> Path:
    return folder.with_name(f".{folder.name}.{end}")


def _send(made: Path, folder: Path) -> None:
    """Let the files of a folder take the place of those in a store's."""
    remove_file(folder / RESULTS_FILE)
    remove_tree(folder)
    others = [f for f in made.rglob("*") if f.is_file() and f.name != RESULTS_FILE]
    for file in (*others, made / RESULTS_FILE):
        send(file, folder / file.relative_to(made).as_posix())


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


def subset_words(subset: str) -> str:
    """Return what a subset of test images is called in a sentence."""
    return "new pairs" if subset == "new_pairs" else f"{subset} semantics"


def format_results(results: dict) -> str:
    """Return the main figures as lines of text."""
    blocks = [_format_clean(results["cells"])]
    if len(results["summary"][next(iter(results["summary"]))]["kinds"]) > 1:
        blocks.append(_format_summary(results["summary"]))
    blocks.append("\n".join(_format_decisions(results)))
    return "\n\n".join(blocks)


def _format_clean(cells: Sequence[dict]) -> str:
    keys = {
        "images": "images",
        "attribution": "attribution_accuracy",
        "95 % interval": "attribution_accuracy",
        "detection": "detection_accuracy",
        "macro F1": "macro_f1",
        "NMI": "nmi",
        "loss": "loss",
        "ECE": "ece",
    }
    rows = [["clean images", *keys]]
    for cell in cells:
        if cell["condition"] == "clean":
            texts = {name: _format_number(cell[key]) for name, key in keys.items()}
            low, high = (cell[f"attribution_accuracy_{end}"] for end in ("low", "high"))
            texts["95 % interval"] = "-" if low is None else f"{low:.3f}-{high:.3f}"
            rows.append([cell["semantics"].replace("_", " "), *texts.values()])
    return _lay_out(rows, 14, 14)


def _format_summary(summary: dict[str, dict]) -> str:
    columns = [(g, name) for g in summary for name in ("attribution", "detection")]
    head = [f"{g.replace('_', ' ')} {name[:6]}." for g, name in columns]
    rows = [["mean over severities", *head]]

    def add(label: str, means: Mapping[str, dict]) -> None:
        shares = (means[subset][f"{name}_accuracy"] for subset, name in columns)
        rows.append([label, *map(_format_number, shares)])

    first = next(iter(summary.values()))
    for kind in first["kinds"]:
        if kind != "clean":
            add(kind, {subset: own["kinds"][kind] for subset, own in summary.items()})
    for name in SETS:
        if name in first:
            add(name.replace("_", " "), {g: own[name] for g, own in summary.items()})
    worst = [
        f"worst, {subset_words(subset)}: {own['worst']['condition']}, attribution "
        f"{own['worst']['attribution_accuracy']:.4f}"
        for subset, own in summary.items()
    ]
    return "\n".join([_lay_out(rows, 22, 18), *worst])


def _format_decisions(results: dict) -> list[str]:
    """Describe calibration, thresholds and unknown sources, a line each."""
    calibration = results["calibration"]
    if calibration is None:
        return [
            "not calibrated: there are no validation images; no probability of this "
            "run is one to rely on"
        ]
    measured = calibration["validation"]["attribution"]
    temperature = calibration["temperature"]
    lines = [
        f"calibrated on {calibration['images']} validation images: temperature "
        f"{temperature['attribution']:.3f} (detection {temperature['detection']:.3f}), "
        f"ECE there {measured['ece_uncalibrated']:.4f} -> {measured['ece']:.4f}"
    ]
    cell = results["cells"][0]
    for point in calibration["operating_points"]:
        name, real = f"{point['fpr']:g}", point["real_images"]
        lines.append(
            f"synthetic from P = {point['threshold']:.4f} on (aim {100 * point['fpr']:g} "
            f"%: {round(point['achieved'] * real)} of {real} real validation images): "
            f"{_format_number(cell[f'tpr_at_{name}'])} of synthetic and "
            f"{_format_number(cell[f'fpr_at_{name}'])} of real images, clean, "
            f"{subset_words(cell['semantics'])}"
        )
    for name, by_kin in (results["open_set"] or {"scores": {}})["scores"].items():
        texts = [
            f"{kin} {by_kin[kin]['auroc']:.4f} (FPR95 {by_kin[kin]['fpr95']:.4f})"
            for kin in ("near", "far", "all")
            if by_kin[kin]
        ]
        lines.append(f"AUROC of unknown by {name}: {', '.join(texts)}")
    return lines


def _format_number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:d}" if isinstance(value, int) else f"{value:.4f}"


def _lay_out(rows: Sequence[Sequence[str]], first: int, others: int) -> str:
    """Return rows as lines of text; columns are so many characters wide."""
    return "\n".join(
        f"{label:<{first}}" + "".join(f"{text:>{others}}" for text in texts)
        for label, *texts in rows
    )
