"""The tables of a report, as text.

A table is a dict of `head`, `rows` and `text`, the number of its first columns that are
text and not numbers; what is not defined is a dash.
"""

from collections import Counter

from rmjax.report.figures import SETS, mean, words
from rmjax.report.view import (
    DASH,
    alarms,
    cells_of,
    decimal,
    interval,
    main_group,
    mean_by_kind,
    parts,
    percent,
)

Table = dict[str, list | int]
CONFUSIONS = 10  # most frequent ones listed
OF_A_SOURCE = 2  # at most, of these
# How far off probabilities are, as it is spoken.
SCORES = {"ece": "calibration error", "brier": "Brier score", "nll": "log loss"}


def main_table(results: dict) -> Table:
    """Return the main figures by group of semantics and set of conditions."""
    rows = []
    for group, summary in results["summary"].items():
        for part in SETS:
            if part in summary:
                names = ("attribution", "detection")
                found = [interval(summary[part], f"{n}_accuracy") for n in names]
                more = [
                    percent(summary[part]["macro_f1"]),
                    decimal(summary[part]["nmi"]),
                ]
                rows.append([group, SETS[part], *found, *more])
    head = [
        "semantics",
        "images",
        "attribution, %",
        "detection, %",
        "macro F1, %",
        "NMI",
    ]
    return {"head": head, "rows": rows, "text": 2}


def kinds_table(results: dict) -> Table:
    """Return attribution and detection by kind of condition."""
    groups = list(results["summary"])
    kinds = results["summary"][groups[0]]["kinds"]
    names = ("attribution", "detection")
    head = ["kind", *(f"{name}, {group}, %" for group in groups for name in names)]
    rows = []
    for kind in kinds:
        found = [results["summary"][group]["kinds"][kind] for group in groups]
        shares = [percent(f[f"{name}_accuracy"]) for f in found for name in names]
        rows.append([words(kind), *shares])
    return {"head": head, "rows": rows, "text": 1}


def recall_table(results: dict) -> Table:
    """Return the recall of each source in each group."""
    groups = list(results["clean"])
    rows = []
    for number, source in enumerate(results["sources"], 1):
        found = [results["clean"][g]["recall"].get(source) for g in groups]
        shares = ["no images" if share is None else percent(share) for share in found]
        rows.append([f"{number}", source, *shares])
    head = ["no.", "source", *(f"{g}, %" for g in groups)]
    return {"head": head, "rows": rows, "text": 2}


def semantics_table(results: dict) -> Table:
    """Return both accuracies on each semantic."""
    rows = [
        [
            name,
            group,
            f"{found['images']:,}",
            percent(found["attribution_accuracy"]),
            percent(found["detection_accuracy"]),
        ]
        for group in parts(results)
        for name, found in results["clean"][group]["by_semantic"].items()
    ]
    head = ["semantic", "group", "images", "attribution, %", "detection, %"]
    return {"head": head, "rows": rows, "text": 2}


def confusions_table(results: dict) -> Table:
    """Return the most frequent wrong attributions of clean images."""
    sources, counts = results["sources"], _clean_counts(results)
    found = [
        (share / sum(row), share, sources[i], sources[j])
        for i, row in enumerate(counts)
        for j, share in enumerate(row)
        if i != j and share
    ]
    found.sort(key=lambda item: (-item[0], -item[1]))
    rows, times = [], Counter()
    for share, count, true, guess in found:
        times[true] += 1
        if times[true] <= OF_A_SOURCE and len(rows) < CONFUSIONS:
            rows.append([true, guess, f"{count:,}", percent(share)])
    return {
        "head": ["true source", "attributed to", "images", "share, %"],
        "rows": rows,
        "text": 2,
    }


def _clean_counts(results: dict) -> list[list[int]]:
    return results["clean"][main_group(results)]["confusion"]


def calibration_table(results: dict, prefix: str = "") -> Table:
    """Return calibration error, Brier score and loss, before and after calibration.

    Args:
        results: of an evaluation.
        prefix: "" of the attribution, "detection_" of real or synthetic.
    """
    rows = []
    for group in results["summary"]:
        cells = cells_of(results, group)
        for part in SETS:
            own = [c for c in cells if c["set"] == part]
            if not own:
                continue
            row = [group, SETS[part]]
            for score in SCORES:
                before, after = (
                    decimal(mean_by_kind(own, f"{prefix}{score}{end}"))
                    for end in ("_uncalibrated", "")
                )
                row.append(f"{before} → {after}" if results["calibration"] else before)
            rows.append(row)
    return {"head": ["semantics", "images", *SCORES.values()], "rows": rows, "text": 2}


def points_table(results: dict) -> Table:
    """Return the operating points and what they come to on clean test images."""
    rows = []
    for point in results["calibration"]["operating_points"]:
        name = f"{point['fpr']:g}"
        for group in results["summary"]:
            cell = cells_of(results, group)[0]
            rows.append(
                [
                    f"{percent(point['fpr'], 0)} %",
                    group,
                    percent(cell[f"fpr_at_{name}"]),
                    percent(cell[f"tpr_at_{name}"]),
                    f"{alarms(point)} ({percent(point['achieved'])} %)",
                    decimal(point["threshold"]),
                ]
            )
    head = ["aim", "semantics", "false alarms, %", "detected, %"]
    head += ["false alarms in validation", "threshold"]
    return {"head": head, "rows": rows, "text": 2}


def points_by_kind(results: dict) -> Table:
    """Return both rates at each operating point under each kind of condition."""
    cells = cells_of(results, main_group(results))
    names = [f"{p['fpr']:g}" for p in results["calibration"]["operating_points"]]
    rows = []
    for kind in dict.fromkeys(cell["kind"] for cell in cells):
        own = [cell for cell in cells if cell["kind"] == kind]
        keys = [f"{rate}_at_{name}" for name in names for rate in ("fpr", "tpr")]
        rows.append([words(kind), *(percent(mean(c[k] for c in own)) for k in keys)])
    heads = [
        f"{what} at {percent(float(name), 0)} %"
        for name in names
        for what in ("false alarms", "detected")
    ]
    return {"head": ["kind", *heads], "rows": rows, "text": 1}


def open_set_table(open_set: dict, kin: str) -> Table:
    """Return how well each score tells known from unknown sources of that kin."""
    names = ("auroc", "fpr95", "aupr", "oscr")
    rows = [
        [words(score), *(_measure(measures[kin], name) for name in names)]
        for score, measures in open_set["scores"].items()
    ]
    head = ["score", "AUROC", "FPR95, %", "AUPR (chance)", "OSCR"]
    return {"head": head, "rows": rows, "text": 1}


def _measure(measure: dict, name: str) -> str:
    if name == "fpr95":
        return percent(measure[name])
    value = decimal(measure[name])
    return f"{value} ({decimal(measure['aupr_chance'])})" if name == "aupr" else value


def rejected_table(results: dict) -> Table:
    """Return what happens to the images of each held-out source."""
    open_set = results["open_set"]
    points = open_set["called_synthetic"] or {}
    turned = open_set["rejected"]
    rows = []
    for name, found in open_set["held_out"].items():
        guesses = open_set["attributed_to"][name].items()
        best = sorted(guesses, key=lambda item: -(item[1] or 0))[:3]
        told = ", ".join(
            f"{guess} {percent(share, 0)} %"
            for guess, share in best
            if share and share >= 0.005  # what is not rounded to 0
        )
        rejected = [percent(turned["by_source"][name])] if turned else []
        called = [percent(shares.get(name)) for shares in points.values()]
        count = f"{found['images']:,}"
        rows.append([name, told or DASH, *rejected, *called, found["kin"], count])
    called = [f"called synthetic (aim {percent(float(p), 0)} %), %" for p in points]
    head = ["held-out source", "attributed most often to"]
    head += ["called unknown, %"] if turned else []
    return {"head": [*head, *called, "kin", "images"], "rows": rows, "text": 2}


def map_table(results: dict) -> Table:
    """Return purities and Fréchet ratio of each group."""
    names = ("purity", "fingerprint_purity", "frechet_ratio")
    rows = [
        [group, *(decimal(found.get(name)) for name in names)]
        for group, found in results["clean"].items()
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
