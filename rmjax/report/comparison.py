"""The page that compares runs."""

import json
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from string import ascii_uppercase

from rmjax.evaluation.differences import (
    Evaluated,
    cell_differences,
    differences,
    read_runs,
)
from rmjax.evaluation.results import subset_words
from rmjax.report import view
from rmjax.report.figures import render
from rmjax.report.figures_accuracy import robustness_difference
from rmjax.report.origin import leaves
from rmjax.report.page import render_page, write_page
from rmjax.report.tables import SCORES, Table
from rmjax.report.view import DASH, SETS, decimal, percent, words
from rmjax.utils.places import as_path


def write_comparison(
    workdirs: Sequence[str | Path], *, out: str | Path, evaluation: str | None = None
) -> dict[str, Path]:
    """Write `comparison.html` and `figures/`: each run against the first.

    Args:
        workdirs: folders of two runs or more, evaluated on the same images.
        out: folder to write to.
        evaluation: name of their evaluation; None: `full`, or the only one.

    Returns:
        The paths of `comparison` and `figures`.

    Raises:
        InputError: a run has no such evaluation, they are not of the same images,
            sources and conditions, or the folder can't be written to.
    """
    runs = read_runs(workdirs, evaluation)
    names = letters(len(runs))
    others = dict(zip(names[1:], runs[1:], strict=True))
    rows_of = {name: differences(runs[0], run) for name, run in others.items()}
    pictures = {}
    subsets = view.subsets(runs[0].results)
    for name, run in others.items():
        for subset in subsets:
            cells = cell_differences(runs[0].results, run.results, subset)
            if len(cells) > 1:
                drawn = robustness_difference(cells)
                pictures[f"difference_{name}_{subset}"] = render(drawn)
    page = render_page(
        "comparison.html.jinja",
        pictures,
        r=runs[0].results,
        runs=dict(zip(names, runs, strict=True)),
        lines=[line for name, rows in rows_of.items() for line in verdicts(rows, name)],
        tables_of={
            name: difference_tables(rows, name) for name, rows in rows_of.items()
        },
        groups=subsets,
        runs_table=runs_table(runs),
        calibration=side_by_side(
            runs, ["images", "probability of", "score"], describe_calibration
        ),
        decisions=side_by_side(runs, ["aim", "rate"], describe_decisions),
        unknown=side_by_side(runs, ["unknown", "by", "measure"], describe_unknown),
        changes=config_table(runs),
        command=shlex.join(
            ["rmjax", "report", "--workdir", *map(str, workdirs)]
            + ["--evaluation", runs[0].results["evaluation"]["name"], "--out"]
        ),
    )
    return write_page(as_path(out), "comparison", page, pictures)


def letters(count: int) -> list[str]:
    """Return short names of so many runs: A, B, ..., Z, AA, ..."""
    names = list(ascii_uppercase)
    while len(names) < count:
        names += [a + b for a in names for b in ascii_uppercase]
    return names[:count]


def points(share: float | None) -> str:
    """Return a difference of shares in percentage points, signed unless it is 0."""
    if share is None:
        return DASH
    value = 100 * share
    digits = ".1f" if abs(value) >= 0.05 else ".1g"  # what is not 0 does not look it
    return f"{value:+{digits}}".replace("-", "−") if value else "0"


def excludes_zero(row: dict) -> bool | None:
    """Return whether an interval excludes 0; None without an interval."""
    if row["low"] is None:
        return None
    return row["low"] > 0 or row["high"] < 0


def verdicts(rows: Sequence[dict], name: str) -> list[str]:
    """Return a sentence on each set of conditions: attribution, hardest or all images."""
    subsets = {row["semantics"] for row in rows}
    subset = view.beside_seen(subsets) or next(iter(subsets))
    lines = []
    for row in rows:
        if row["semantics"] != subset or row["metric"] != "attribution":
            continue
        where = f"{SETS[row['set']]}, {subset_words(subset)}"
        ends = f"95 % interval {points(row['low'])} to {points(row['high'])}"
        how = {
            None: f"no interval, as all draws agree ({points(row['difference'])})",
            False: f"there could be no difference ({ends})",
            True: f"{points(row['difference'])} points ({ends})",
        }[excludes_zero(row)]
        if row["alike"]:
            how = "every image was answered alike, rightly or wrongly"
        lines.append(f"{name} against A, {where}: {how}.")
    return lines


def difference_tables(rows: Sequence[dict], name: str) -> dict[str, Table]:
    """Return by metric the difference of two runs, its interval, and both shares."""
    excluded = {None: "no interval", True: "yes", False: "no"}
    head = ["images", "semantics", f"{name} − A", "95 % interval", "excludes 0"]
    tables: dict[str, Table] = {}
    for row in rows:
        ends = f"{points(row['low'])} to {points(row['high'])}"
        body = [
            SETS[row["set"]],
            words(row["semantics"]),
            points(row["difference"]),
            DASH if row["low"] is None else ends,
            "all alike" if row["alike"] else excluded[excludes_zero(row)],
            percent(row["first"]),
            percent(row["other"]),
        ]
        empty: Table = {"head": [*head, "A, %", f"{name}, %"], "rows": [], "text": 2}
        tables.setdefault(row["metric"], empty)["rows"].append(body)
    return tables


def runs_table(runs: Sequence[Evaluated]) -> Table:
    """Return what the letters stand for."""
    rows = []
    for name, run in zip(letters(len(runs)), runs, strict=True):
        about = run.results["run"]
        rows.append([name, run.workdir, f"{about['checkpoint']}", f"{about['seed']}"])
    return {"head": ["", "run", "checkpoint", "seed"], "rows": rows, "text": 2}


# Numbers as text, by what stands in the first columns.
Described = dict[tuple[str, ...], str]


def side_by_side(
    runs: Sequence[Evaluated],
    head: Sequence[str],
    describe: Callable[[dict], Described],
) -> Table:
    """Return a table with a column for each run.

    Args:
        runs: what to compare.
        head: names of the first columns.
        describe: function of results to what is shown of them.
    """
    described = [describe(run.results) for run in runs]
    labels = dict.fromkeys(label for texts in described for label in texts)
    rows = [
        [*label, *(texts.get(label, DASH) for texts in described)] for label in labels
    ]
    return {"head": [*head, *letters(len(runs))], "rows": rows, "text": len(head)}


def describe_calibration(results: dict) -> Described:
    """Return the errors of the probabilities, all semantics together."""
    subset = view.main_subset(results)
    return {
        (SETS[conditions], what, name): decimal(
            view.mean_of(results, subset, conditions, prefix + key)
        )
        for conditions in dict.fromkeys(
            c["set"] for c in view.cells_of(results, subset)
        )
        for prefix, what in (("", "source"), ("detection_", "real or synthetic"))
        for key, name in SCORES.items()
    }


def describe_decisions(results: dict) -> Described:
    """Return the rates at the operating points, clean images of all semantics."""
    clean = view.cells_of(results, view.main_subset(results))[0]
    return {
        (f"{percent(point['fpr'], 0)} %", name): percent(
            clean[f"{key}_at_{point['fpr']:g}"]
        )
        for point in (results["calibration"] or {}).get("operating_points", [])
        for key, name in (("fpr", "false alarms, %"), ("tpr", "detected, %"))
    }


def describe_unknown(results: dict) -> Described:
    """Return how well known sources are told from unknown ones."""
    scores = results["open_set"]["scores"] if results["open_set"] else {}
    return {
        (kin, words(score), name): show(kins[kin][key])
        for score, kins in scores.items()
        for kin in view.KINS
        if kins[kin]
        for key, name, show in (
            ("auroc", "AUROC", decimal),
            ("oscr", "OSCR", decimal),
            ("fpr95", "FPR95, %", percent),
        )
    }


def config_table(runs: Sequence[Evaluated]) -> Table:
    """Return the keys in which the configs of training differ."""

    def describe(results: dict) -> Described:
        config = leaves(results["run"]["config"])
        return {(key,): json.dumps(value) for key, value in config.items()}

    table = side_by_side(runs, ["key"], describe)
    rows = [row for row in table["rows"] if len(set(row[1:])) > 1]
    return {"head": table["head"], "rows": rows, "text": len(runs) + 1}
