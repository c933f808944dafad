"""The report of an evaluation: one HTML page that needs nothing else, and its figures.

Drawn from the files that `rmjax evaluate` wrote; the network is not run.
"""

import base64
import json
import re
from pathlib import Path

from jinja2 import Environment
from markupsafe import Markup
from matplotlib.figure import Figure

from rmjax.errors import InputError
from rmjax.evaluation.results import find_evaluation, read_results, subset_words
from rmjax.experiment.log import read_log
from rmjax.report import figures_accuracy as accuracy
from rmjax.report import figures_trust as trust
from rmjax.report import tables, view
from rmjax.report.figures import render, write_figures
from rmjax.report.origin import commands, find_audit, read_origin, train_command
from rmjax.utils.files import replace_text
from rmjax.utils.places import as_path, path_of, reason
from rmjax.utils.templates import package_environment
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
    workdir = as_path(workdir)
    folder = find_evaluation(workdir, evaluation)
    results = read_results(folder)
    shown = {
        "r": results,
        "mistakes": _mistakes(folder, results),
        "sheet": read_origin(
            path_of(results["data"]["directory"]) / "datasheet.json", False
        ),
        "audit": find_audit(results, audit),
        "reliability": reliability_shown(results),
        "config": json.dumps(results["run"]["config"], indent=2, ensure_ascii=False),
        "commands": commands(results),
        "train_command": train_command(results["run"]),
    }
    figures = draw_figures(results, read_log(workdir))
    pictures = {name: render(figure) for name, figure in figures.items()}
    page = render_page("report.html.jinja", pictures, **shown)
    return write_page(as_path(out or folder), "report", page, pictures)


def draw_figures(results: dict, log: list[dict]) -> dict[str, Figure]:
    """Draw what an evaluation has figures of.

    Args:
        results: of `results.json`.
        log: rows of the training log.

    Returns:
        By name of the file, without an ending.
    """
    figures = _accuracy_figures(results) | _trust_figures(results)
    if results["map"]:
        figures |= _maps(results["map"], results)
    loss = {"train": "loss", "validation": "loss"}
    right = {"train": "accuracy", "validation": "attribution_accuracy"}
    for name, keys in (("loss", loss), ("accuracy", right)):
        if curves := accuracy.training(log, keys, share=keys is right):
            figures[f"training_{name}"] = curves
    return figures


def _accuracy_figures(results: dict) -> dict[str, Figure]:
    subsets, sources = view.subsets(results), results["sources"]
    clean, main = results["clean"], view.main_subset(results)
    figures = {}
    for subset in subsets:
        cells = view.cells_of(results, subset)
        if len(cells) > 1:
            figures[f"robustness_{subset}"] = accuracy.robustness(cells)
        counts = clean[subset]["confusion"]
        figures[f"confusion_{subset}"] = accuracy.confusion(counts, sources)
    conditions = view.hardest_set(results)
    if conditions:
        counts = results["confusion"][view.hardest_subset(results)][conditions]
        figures[f"confusion_{conditions}"] = accuracy.confusion(counts, sources)
    if len(subsets) > 1 or conditions:  # more than a single dot
        name, share = view.majority(results)
        for what, chance, guess in (
            ("attribution", 1 / len(sources), "guessing"),
            ("detection", share, f"always “{name}”"),
        ):
            figures[f"semantics_{what}"] = accuracy.seen_unseen(
                results["summary"], f"{what}_accuracy", chance, guess
            )
    figures["recall"] = accuracy.recall({g: clean[g]["recall"] for g in subsets})
    shares = clean[main]["recall_by_semantic"]
    if len(shares) > 1:
        unseen = results["semantics"].get("unseen", [])
        trained = results["data"]["trained_pairs"] if "new_pairs" in clean else None
        figures["recall_by_semantic"] = accuracy.recall_by_semantic(
            shares, unseen, trained
        )
    return figures


def _trust_figures(results: dict) -> dict[str, Figure]:
    main, calibration = view.main_subset(results), results["calibration"]
    labels = {
        "attribution": ("probability of the source named", "right answers, %"),
        "detection": ("probability of synthetic", "synthetic images, %"),
    }
    figures = {}
    for conditions, what in reliability_shown(results):
        bins = results["reliability"][main][conditions][what]
        after = bins["calibrated"] if calibration else None
        figures[f"reliability_{what}_{conditions}"] = trust.reliability(
            bins["uncalibrated"], after, labels[what]
        )
    for point in (calibration or {}).get("operating_points", []):
        fpr, cells = f"{point['fpr']:g}", view.cells_of(results, main)
        figures[f"operating_point_{fpr}"] = trust.operating_points(cells, fpr)
    for kin in view.KINS if results["open_set"] else ():
        scores = results["open_set"]["scores"].items()
        measures = {score: m[kin] for score, m in scores if m[kin]}
        if measures:
            figures[f"open_set_roc_{kin}"] = trust.roc(measures)
            figures[f"open_set_oscr_{kin}"] = trust.oscr(measures)
    return figures


def reliability_shown(results: dict) -> list[tuple[str, str]]:
    """Return the sets of conditions and answers that reliability is drawn for."""
    harder = view.hardest_set(results)
    shown = ["clean", *([harder] if harder else [])]
    return [
        (conditions, what)
        for what in ("attribution", "detection")
        for conditions in shown
    ]


def _maps(points: dict, results: dict) -> dict[str, Figure]:
    """Draw the map by source, and by semantic if there are several."""
    # New pairs are of semantics that others were trained on.
    semantics = dict.fromkeys(
        name for names in results["semantics"].values() for name in names
    )
    sources, unseen = results["sources"], results["semantics"].get("unseen", [])
    figures = {}
    for what, names, outside in (
        ("source", sources, {*points["source"]} - {*sources}),
        ("semantic", semantics, {*unseen}),
    ):
        if what == "source" or len(set(points[what])) > 1:
            order = [*names, *sorted({*points[what]} - {*names})]
            figures[f"map_{what}"] = trust.fingerprint_map(
                points["x"], points["y"], points[what], order, outside
            )
    return figures


def _mistakes(folder: Path, results: dict) -> list[dict]:
    """Return the most confident mistakes, each with its picture as `uri` or None."""
    paths = [folder / "mistakes" / Path(m["file"]).name for m in results["mistakes"]]
    return [
        mistake
        | {"uri": data_uri(path.read_bytes(), "png") if path.is_file() else None}
        for mistake, path in zip(results["mistakes"], paths, strict=True)
    ]


def make_environment() -> Environment:
    """Return what the templates are rendered in."""
    environment = package_environment("rmjax.report")
    environment.filters |= {
        "percent": view.percent,
        "decimal": view.decimal,
        "words": view.words,
        "subset_words": subset_words,
        "spoken": view.spoken,
    }
    environment.globals |= {
        "view": view,
        "tables": tables,
        "sets": view.SETS,
        "rmjax_version": own_version(),
    }
    return environment


def render_page(template: str, pictures: dict[str, dict[str, bytes]], **shown) -> str:
    """Return a page as HTML.

    Args:
        template: in `rmjax/report/templates`.
        pictures: rendered figures by name.
        **shown: what the template names.
    """
    uris = {}
    for name, files in pictures.items():
        kind = "svg" if len(files["svg"]) <= LARGEST_SVG else "png"
        uris[name] = data_uri(files[kind], "svg+xml" if kind == "svg" else kind)
    page = make_environment().get_template(template).render(pictures=uris, **shown)
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
    try:
        write_figures(pictures, figures)
        replace_text(path, page)
    except OSError as error:
        raise InputError(f"can't write to {folder}: {reason(error)}") from error
    return {name: path, "figures": figures}
