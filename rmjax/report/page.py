"""The report of an evaluation: one HTML page that needs nothing else, and its figures.

Drawn from the files that `rmjax evaluate` wrote; the network is not run.
"""

import base64
import json
import os
import re
from contextlib import suppress
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from rmjax.errors import InputError
from rmjax.evaluation.results import find_evaluation, read_results
from rmjax.experiment.log import read_log
from rmjax.report import figures_accuracy as accuracy
from rmjax.report import figures_trust as trust
from rmjax.report import summary, tables, view
from rmjax.report.figures import SETS, render, words, write_figures
from rmjax.report.origin import commands, find_audit, read_json, train_command
from rmjax.utils.versions import own_version

LARGEST_SVG = 200_000  # bytes, above which the page shows the PNG


def write_report(
    workdir: str | Path,
    *,
    evaluation: str | None = None,
    out: str | Path | None = None,
    audit: str | Path | None = None,
) -> dict[str, Path]:
    """Write `report.html` and `figures/` of an evaluation.

    Args:
        workdir: folder of a training run.
        evaluation: name of one of its evaluations; None: `full`, or the only one.
        out: folder to write to; None: that of the evaluation.
        audit: file of a leakage audit; None: where `rmjax audit` puts it, if there.

    Returns:
        The paths of `report` and `figures`.

    Raises:
        InputError: there is no such evaluation or audit, its files can't be read or
            are of another version, the audit is of another data set, or the folder
            can't be written to.
    """
    folder = find_evaluation(Path(workdir), evaluation)
    results = read_results(folder)
    shown = {
        "r": results,
        "mistakes": _mistakes(folder, results),
        "sheet": read_json(
            Path(results["data"]["directory"]) / "datasheet.json", False
        ),
        "audit": find_audit(results, audit),
        "reliability": reliability_shown(results),
        "config": json.dumps(results["run"]["config"], indent=2, ensure_ascii=False),
        "commands": commands(results),
        "train_command": train_command(results["run"]),
    }
    figures = draw_figures(results, read_log(Path(workdir)))
    pictures = {name: render(figure) for name, figure in figures.items()}
    page = render_page("report.html.jinja", pictures, **shown)
    return write_page(Path(out or folder), "report", page, pictures)


def draw_figures(results: dict, log: list[dict]) -> dict[str, Figure]:
    """Draw what an evaluation has figures of.

    Args:
        results: of `results.json`.
        log: rows of the training log.

    Returns:
        By name of the file, without an ending.
    """
    found = _accuracy_figures(results) | _trust_figures(results)
    if results["map"]:
        found |= _maps(results["map"], results)
    for name, share, keys in (
        ("loss", False, ("loss", "loss")),
        ("accuracy", True, ("accuracy", "attribution_accuracy")),
    ):
        drawn = dict(zip(("train", "validation"), keys, strict=True))
        if curves := accuracy.training(log, drawn, share):
            found[f"training_{name}"] = curves
    return found


def _accuracy_figures(results: dict) -> dict[str, Figure]:
    groups = view.parts(results)
    clean, main = results["clean"], view.main_group(results)
    found = {}
    for group in groups:
        cells = view.cells_of(results, group)
        if len(cells) > 1:
            found[f"robustness_{group}"] = accuracy.robustness(cells)
        counts = clean[group]["confusion"]
        found[f"confusion_{group}"] = accuracy.confusion(counts, results["sources"])
    if part := view.harder(results):
        counts = results["confusion"][view.hardest(results)][part]
        found[f"confusion_{part}"] = accuracy.confusion(counts, results["sources"])
    name, share = view.majority(results)
    for what, *guess in (
        ("attribution", 1 / len(results["sources"]), "guessing"),
        ("detection", share, f"always “{name}”"),
    ):
        if len(groups) > 1 or view.harder(results):  # more than a single dot
            found[f"semantics_{what}"] = accuracy.seen_unseen(
                results["summary"], f"{what}_accuracy", *guess
            )
    found["recall"] = accuracy.recall({g: clean[g]["recall"] for g in groups})
    shares = clean[main]["recall_by_semantic"]
    if len(shares) > 1:
        unseen = results["semantics"].get("unseen", [])
        found["recall_by_semantic"] = accuracy.recall_by_semantic(shares, unseen)
    return found


def _trust_figures(results: dict) -> dict[str, Figure]:
    main, calibration = view.main_group(results), results["calibration"]
    found = {}
    for part, what in reliability_shown(results):
        bins = results["reliability"][main][part][what]
        labels = {
            "attribution": ("probability of the source named", "right answers, %"),
            "detection": ("probability of synthetic", "synthetic images, %"),
        }
        after = bins["calibrated"] if calibration else None
        found[f"reliability_{what}_{part}"] = trust.reliability(
            bins["uncalibrated"], after, labels[what]
        )
    for point in (calibration or {}).get("operating_points", []):
        fpr = f"{point['fpr']:g}"
        cells = view.cells_of(results, main)
        found[f"operating_point_{fpr}"] = trust.operating_points(cells, fpr)
    for kin in view.KINS if results["open_set"] else ():
        scores = results["open_set"]["scores"].items()
        measures = {score: m[kin] for score, m in scores if m[kin]}
        if measures:
            found[f"open_set_roc_{kin}"] = trust.roc(measures)
            found[f"open_set_oscr_{kin}"] = trust.oscr(measures)
    return found


def reliability_shown(results: dict) -> list[tuple[str, str]]:
    """Return the sets of conditions and answers that reliability is drawn for."""
    harder = view.harder(results)
    shown = ["clean", *([harder] if harder else [])]
    return [(part, what) for what in ("attribution", "detection") for part in shown]


def _maps(found: dict, results: dict) -> dict[str, Figure]:
    semantics = [name for names in results["semantics"].values() for name in names]
    outside = {
        "source": set(found["source"]) - set(results["sources"]),
        "semantic": set(results["semantics"].get("unseen", [])),
    }
    order = {"source": results["sources"], "semantic": semantics}
    pictures = {}
    for what, names in order.items():
        if what == "semantic" and len(set(found[what])) == 1:
            continue
        more = sorted(set(found[what]) - set(names))
        pictures[f"map_{what}"] = trust.fingerprint_map(
            found["x"], found["y"], found[what], [*names, *more], outside[what]
        )
    return pictures


def _mistakes(folder: Path, results: dict) -> list[dict]:
    """Return the most confident mistakes, each with its picture as `uri` or None."""
    found = []
    for mistake in results["mistakes"]:
        path = folder / "mistakes" / Path(mistake["file"]).name
        uri = data_uri(path.read_bytes(), "png") if path.is_file() else None
        found.append(mistake | {"uri": uri})
    return found


def render_page(template: str, pictures: dict[str, dict[str, bytes]], **shown) -> str:
    """Return a page as HTML.

    Args:
        template: in `rmjax/report/templates`.
        pictures: rendered figures by name.
        **shown: what the template names.
    """
    environment = Environment(
        loader=PackageLoader("rmjax.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": view.percent,
        "decimal": view.decimal,
        "words": words,
        "spoken": view.spoken,
    }
    environment.globals |= {
        "summary": summary,
        "view": view,
        "tables": tables,
        "sets": SETS,
        "rmjax_version": own_version(),
    }
    uris = {}
    for name, files in pictures.items():
        kind = "svg" if len(files["svg"]) <= LARGEST_SVG else "png"
        uris[name] = data_uri(files[kind], "svg+xml" if kind == "svg" else kind)
    page = environment.get_template(template).render(pictures=uris, **shown)
    return re.sub(r"(?<=\d) %", "\u00a0%", page)  # no line starts with a per cent sign


def data_uri(data: bytes, kind: str) -> Markup:
    """Return a picture as the text of a `src` attribute; it needs no escaping."""
    return Markup(f"data:image/{kind};base64,{base64.b64encode(data).decode()}")


def write_page(
    folder: Path, name: str, page: str, pictures: dict[str, dict[str, bytes]]
) -> dict[str, Path]:
    """Write a page and its figures, each file whole or not at all.

    Returns:
        The paths of the page, under its name, and of the folder of `figures`.

    Raises:
        InputError: the folder can't be written to.
    """
    path, figures = folder / f"{name}.html", folder / "figures"
    scratch = path.with_name(path.name + ".part")
    try:
        write_figures(pictures, figures)
        scratch.write_text(page, encoding="utf-8")
        os.replace(scratch, path)
    except OSError as error:
        with suppress(OSError):  # what failed may be the folder
            scratch.unlink()
        raise InputError(f"can't write to {folder}: {error.strerror}") from error
    return {name: path, "figures": figures}
