"""The tables of a report, as text; what is not defined is a dash."""

from collections import Counter
from typing import TypedDict

from rmjax.report.view import (
    DASH,
    SETS,
    alarms,
    by_kind,
    cells_of,
    change,
    decimal,
    interval,
    main_subset,
    mean,
    percent,
    subsets,
    words,
)

CONFUSIONS = 10  # most frequent ones listed
OF_A_SOURCE = 2  # at most, of these
ANSWERS = ("attribution", "detection")
# How far off probabilities are, as it is spoken.
SCORES = {"ece": "calibration error", "brier": "Brier score", "nll": "log loss"}


class Table(TypedDict):
    """Names of columns, rows of them, and how many of the first are text, not numbers."""

    head: list[str]
    rows: list[list[str]]
    text: int


def main_table(results: dict) -> Table:
    """Return the main figures by subset of semantics and set of conditions."""
    head = ["attribution, %", "detection, %", "macro F1, %", "NMI"]
    rows = [
        [
            words(subset),
            SETS[conditions],
            *(interval(summary[conditions], f"{name}_accuracy") for name in ANSWERS),
            percent(summary[conditions]["macro_f1"]),
            decimal(summary[conditions]["nmi"]),
        ]
        for subset, summary in results["summary"].items()
        for conditions in SETS
        if conditions in summary
    ]
    return {"head": ["semantics", "images", *head], "rows": rows, "text": 2}


def kinds_table(results: dict) -> Table:
    """Return attribution and detection by kind of condition."""
    kinds = {subset: summary["kinds"] for subset, summary in results["summary"].items()}
    columns = [(subset, name) for subset in kinds for name in ANSWERS]
    rows = [
        [words(kind), *(percent(kinds[g][kind][f"{n}_accuracy"]) for g, n in columns)]
        for kind in next(iter(kinds.values()))
    ]
    head = ["kind", *(f"{name}, {words(subset)}, %" for subset, name in columns)]
    return {"head": head, "rows": rows, "text": 1}


def recall_table(results: dict) -> Table:
    """Return the recall of each source in each subset."""
    subsets = results["clean"]
    rows = []
    for number, source in enumerate(results["sources"], 1):
        shares = [subsets[subset]["recall"].get(source) for subset in subsets]
        told = ["no images" if share is None else percent(share) for share in shares]
        rows.append([f"{number}", source, *told])
    head = ["no.", "source", *(f"{words(subset)}, %" for subset in subsets)]
    return {"head": head, "rows": rows, "text": 2}


def semantics_table(results: dict) -> Table:
    """Return both accuracies on each semantic."""
    rows = [
        [name, words(subset), f"{own['images']:,}"]
        + [percent(own[f"{answer}_accuracy"]) for answer in ANSWERS]
        for subset in subsets(results)
        for name, own in results["clean"][subset]["by_semantic"].items()
    ]
    head = ["semantic", "group", "images", "attribution, %", "detection, %"]
    return {"head": head, "rows": rows, "text": 2}


def pairs_table(results: dict) -> Table:
    """Return the semantics that each source was trained on."""
    pairs = results["data"]["trained_pairs"].items()
    rows = [[source, ", ".join(names), f"{len(names)}"] for source, names in pairs]
    return {"head": ["source", "trained on", "semantics"], "rows": rows, "text": 2}


def confusions_table(results: dict) -> Table:
    """Return the most frequent wrong attributions of clean images."""
    sources = results["sources"]
    wrong = [
        (count / sum(row), count, source, sources[j])
        for i, (source, row) in enumerate(
            zip(
                sources,
                results["clean"][main_subset(results)]["confusion"],
                strict=True,
            )
        )
        for j, count in enumerate(row)
        if i != j and count
    ]
    rows: list[list[str]] = []
    times: Counter[str] = Counter()
    for share, count, source, named in sorted(wrong, key=lambda w: (-w[0], -w[1])):
        times[source] += 1
        if times[source] <= OF_A_SOURCE and len(rows) < CONFUSIONS:
            rows.append([source, named, f"{count:,}", percent(share)])
    head = ["true source", "attributed to", "images", "share, %"]
    return {"head": head, "rows": rows, "text": 2}


def calibration_table(results: dict, prefix: str = "") -> Table:
    """Return calibration error, Brier score and loss, before and after calibration.

    Args:
        results: of an evaluation.
        prefix: "" of the attribution, "detection_" of real or synthetic.
    """
    rows = [
        [
            words(subset),
            SETS[conditions],
            *(change(results, subset, conditions, prefix + score) for score in SCORES),
        ]
        for subset, summary in results["summary"].items()
        for conditions in SETS
        if conditions in summary
    ]
    return {"head": ["semantics", "images", *SCORES.values()], "rows": rows, "text": 2}


def points_table(results: dict) -> Table:
    """Return the operating points and what they come to on clean test images."""
    rows = []
    for point in results["calibration"]["operating_points"]:
        aim = f"{percent(point['fpr'], 0)} %"
        in_validation = f"{alarms(point)} ({percent(point['achieved'])} %)"
        for subset in results["summary"]:
            clean = cells_of(results, subset)[0]
            rates = [clean[f"{rate}_at_{point['fpr']:g}"] for rate in ("fpr", "tpr")]
            threshold = decimal(point["threshold"])
            rows.append(
                [aim, words(subset), *map(percent, rates), in_validation, threshold]
            )
    head = ["aim", "semantics", "false alarms, %", "detected, %"]
    head += ["false alarms in validation", "threshold"]
    return {"head": head, "rows": rows, "text": 2}


def points_by_kind(results: dict) -> Table:
    """Return both rates at each operating point under each kind of condition."""
    points = results["calibration"]["operating_points"]
    rates = {"fpr": "false alarms", "tpr": "detected"}
    columns = {
        f"{rate}_at_{point['fpr']:g}": f"{name} at {percent(point['fpr'], 0)} %"
        for point in points
        for rate, name in rates.items()
    }
    rows = [
        [words(kind), *(percent(mean(cell[key] for cell in own)) for key in columns)]
        for kind, own in by_kind(cells_of(results, main_subset(results))).items()
    ]
    return {"head": ["kind", *columns.values()], "rows": rows, "text": 1}


def open_set_table(open_set: dict, kin: str) -> Table:
    """Return how well each score tells known from unknown sources of that kin."""
    rows = []
    for score, measures in open_set["scores"].items():
        own = measures[kin]
        aupr = f"{decimal(own['aupr'])} ({decimal(own['aupr_chance'])})"
        told = [
            decimal(own["auroc"]),
            percent(own["fpr95"]),
            aupr,
            decimal(own["oscr"]),
        ]
        rows.append([words(score), *told])
    head = ["score", "AUROC", "FPR95, %", "AUPR (chance)", "OSCR"]
    return {"head": head, "rows": rows, "text": 1}


def rejected_table(results: dict) -> Table:
    """Return what happens to the images of each held-out source."""
    open_set = results["open_set"]
    points, rejected = open_set["called_synthetic"] or {}, open_set["rejected"]
    rows = []
    for name, about in open_set["held_out"].items():
        guesses = open_set["attributed_to"][name].items()
        best = sorted(guesses, key=lambda item: -(item[1] or 0))[:3]
        told = ", ".join(
            f"{guess} {percent(share, 0)} %"
            for guess, share in best
            if share and share >= 0.005  # what is not rounded to 0
        )
        shares = [rejected["by_source"][name]] if rejected else []
        shares += [shares_at.get(name) for shares_at in points.values()]
        count = f"{about['images']:,}"
        rows.append([name, told or DASH, *map(percent, shares), about["kin"], count])
    head = ["held-out source", "attributed most often to"]
    head += ["called unknown, %"] if rejected else []
    head += [f"called synthetic (aim {percent(float(p), 0)} %), %" for p in points]
    return {"head": [*head, "kin", "images"], "rows": rows, "text": 2}


def map_table(results: dict) -> Table:
    """Return purities and Fréchet ratio of each subset."""
    names = ("purity", "fingerprint_purity", "frechet_ratio")
    rows = [
        [words(subset), *(decimal(own.get(name)) for name in names)]
        for subset, own in results["clean"].items()
    ]
    head = ["semantics", "purity", "purity of fingerprints", "Fréchet ratio"]
    return {"head": head, "rows": rows, "text": 1}


def sheet_table(sheet: dict) -> Table:
    """Return images by split, formats and JPEG qualities of each source."""
    splits = list(sheet["splits"])
    rows = []
    for source in sheet["sources"]:
        counts = sheet["counts"][source].values()
        own = [f"{sum(c.get(split, 0) for c in counts):,}" for split in splits]
        quality = sheet["jpeg"].get(source, {}).get("frequent", {})
        rows.append([source, _listed(sheet["formats"][source]), _listed(quality), *own])
    head = ["source", "formats", "JPEG quality (images)", *splits]
    return {"head": head, "rows": rows, "text": 3}


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} ({n:,})" for name, n in list(counts.items())[:4]) or DASH
