"""What a sweep found, as lines of text, a CSV file, a page and figures."""

from dataclasses import dataclass
from pathlib import Path

from rmjax.errors import InputError
from rmjax.evaluation.results import BESIDE_SEEN, subset_words
from rmjax.report.comparison import excludes_zero, points
from rmjax.report.figures import SETS, SUBSETS, render
from rmjax.report.figures_sweep import DIFFERENCE, MEAN, cell_dots, seen_against
from rmjax.report.page import render_page, write_page
from rmjax.report.tables import Table
from rmjax.report.view import DASH, interval, percent, words
from rmjax.sweep.collect import COLUMNS
from rmjax.sweep.intervals import POWER
from rmjax.sweep.runs import Sweep
from rmjax.utils.files import write_csv

REFERENCE = "reference"


@dataclass(frozen=True)
class Findings:
    """All that is shown of a sweep.

    Attributes:
        sweep: what it is of.
        rows: what `rmjax.sweep.collect.collect` returns.
        reasons: by label, why a cell has no difference to the reference.
        unfinished: the runs of the grid that have no figures: cell, seed, how far it
            is, and the last line of its log if it failed.
        results: of one of its evaluations, for what all share.
    """

    sweep: Sweep
    rows: list[dict]
    reasons: dict[str, str]
    unfinished: list[tuple[str, int, str, str]]
    results: dict

    def names(self) -> dict[str, str]:
        """Return how the cells with figures are called, by label, in their order."""
        have = {row["cell"] for row in self.rows}
        return {c.label: c.name for c in self.sweep.cells if c.label in have}

    def sets(self) -> list[str]:
        """Return the sets of conditions that there are figures of."""
        have = {row["set"] for row in self.rows}
        return [of_set for of_set in SETS if of_set in have]

    def select(self, of_set: str, metric: str) -> list[dict]:
        """Return the rows of a set of conditions and a metric."""
        return [r for r in self.rows if (r["set"], r["metric"]) == (of_set, metric)]


def write_sweep(folder: Path, findings: Findings) -> dict[str, Path]:
    """Write `sweep.csv`, `sweep.html` and `figures/`.

    Returns:
        Their paths: `table`, `report` and `figures`.

    Raises:
        InputError: the folder can't be written to.
    """
    pictures = {}
    reference = findings.sweep.reference
    rows = findings.select(findings.sets()[0], "attribution")
    for subset in BESIDE_SEEN:
        if drawn := seen_against(rows, findings.names(), subset, reference):
            pictures[f"seen_{subset}"] = render(drawn)
    for of_set in findings.sets():
        rows = findings.select(of_set, "attribution")
        for name, what in (("means", MEAN), ("differences", DIFFERENCE)):
            drawn = cell_dots(rows, findings.names(), what, reference)
            if drawn:
                pictures[f"{name}_{of_set}"] = render(drawn)
    apart, compared = _count_verdicts(findings)
    page = render_page(
        "sweep.html.jinja",
        pictures,
        r=findings.results,
        record=findings.sweep,
        names=findings.names(),
        parts=findings.sets(),
        unfinished=_unfinished_table(findings),
        changes=_changes_table(findings.sweep),
        notes=_notes(findings),
        power=_power(findings),
        apart=apart,
        compared=compared,
        tables_of={
            (of_set, metric): _cells_table(findings, of_set, metric)
            for of_set in findings.sets()
            for metric in ("attribution", "detection")
        },
        spoken_sets=SETS | {"clean": "clean images"},
    )
    written = write_page(folder, "sweep", page, pictures)
    try:
        write_csv(folder / "sweep.csv", COLUMNS, findings.rows)
    except OSError as error:
        raise InputError(f"can't write {error.filename}: {error.strerror}") from error
    return {
        "table": folder / "sweep.csv",
        "report": written["sweep"],
        "figures": written["figures"],
    }


def format_findings(findings: Findings) -> str:
    """Return the main figures as lines of text."""
    blocks = []
    for of_set in findings.sets():
        head = f"attribution, {SETS[of_set]}"
        blocks.append(_lay_out(_cells_table(findings, of_set, "attribution", head)))
    legend = (
        f"Means over seeds and 95 % intervals; differences in percentage points to "
        f"{findings.sweep.reference}, by the same seeds and images."
    )
    said = [legend, _power(findings), *_notes(findings)]
    return "\n\n".join([*blocks, "\n".join(filter(None, said))])


def describe_run(results: dict) -> str:
    """Return a run's shares of clean images on a line, as it ends."""
    shares = [
        f"{percent(figures['clean']['attribution_accuracy'])} % {subset_words(semantics)}"
        for semantics, figures in results["summary"].items()
        if semantics != "combined"
    ]
    return f"attribution, clean images: {', '.join(shares)}"


def _cells_table(
    findings: Findings, of_set: str, metric: str, first: str = "cell"
) -> Table:
    """Return mean and difference of every cell, by subset of semantics."""
    rows = findings.select(of_set, metric)
    parts = [s for s in SUBSETS if any(row["semantics"] == s for row in rows)]
    by_place = {(row["cell"], row["semantics"]): row for row in rows}
    lines = []
    for label, name in findings.names().items():
        own = [by_place.get((label, part)) for part in parts]
        if any(own):  # else of another suite, or of other semantics
            line = [name, *(_difference(row, findings.sweep.reference) for row in own)]
            line += [interval(row or {}, "mean") for row in own]
            lines.append([*line, next(_seeds(row) for row in own if row)])
    # What decides first: a narrow screen shows no more.
    head = [first, *(f"{words(part)} − reference" for part in parts)]
    head += [*(f"{words(part)}, %" for part in parts), "seeds"]
    return {"head": head, "rows": lines, "text": 1}


def _changes_table(sweep: Sweep) -> Table:
    """Return the values of the config that each cell has of its own."""
    keys = list(dict.fromkeys(key for cell in sweep.cells for key in cell.changes))
    rows = [
        [c.name, *(_value(c.changes[k]) if k in c.changes else DASH for k in keys)]
        for c in sweep.cells
    ]
    return {"head": ["cell", *keys], "rows": rows, "text": len(keys) + 1}


def _unfinished_table(findings: Findings) -> Table:
    """Return the runs that have no figures, and why."""
    rows = [
        [cell, f"{seed}", state, reason or DASH]
        for cell, seed, state, reason in findings.unfinished
    ]
    head = ["cell", "seed", "state", "last line of its log"]
    return {"head": head, "rows": rows, "text": 4}


def _count_verdicts(findings: Findings) -> tuple[int, int]:
    """Count the differences to the reference: those whose interval excludes 0, and all."""
    told = [
        excludes_zero({"low": r["difference_low"], "high": r["difference_high"]})
        for r in findings.rows
        if r["metric"] == "attribution" and r["semantics"] != "combined"
        if r["difference"] is not None
    ]
    return sum(bool(answer) for answer in told), len(told)


def _notes(findings: Findings) -> list[str]:
    """Return what is to be known beside the numbers, a sentence each."""
    said = []
    names = findings.names()
    alone = dict.fromkeys(
        names[row["cell"]]
        for row in findings.rows
        if 1 in (row["seeds"], row["paired_seeds"])
    )
    if alone:
        whose = "all cells" if len(alone) == len(names) else ", ".join(alone)
        said.append(
            f"One seed alone: the intervals of {whose} are about other images, and say "
            "nothing of another seed."
        )
    for label, why in findings.reasons.items():
        said.append(f"{names[label]} is not compared with the reference: {why}.")
    if any(not cell.present for cell in findings.sweep.cells):
        said.append("* Not in the present grid: kept from an earlier one.")
    return said


def _power(findings: Findings) -> str:
    """Return how small a true difference the sweep could show; empty without any."""
    said = []
    for of_set in findings.sets():
        rows = findings.select(of_set, "attribution")
        for part in SUBSETS:
            found = [
                row["detectable"]
                for row in rows
                if row["semantics"] == part and row["detectable"] is not None
            ]
            if found:
                ends = dict.fromkeys(map(percent, (min(found), max(found))))
                where = f"{subset_words(part)}, {SETS[of_set]}"
                said.append(f"{' to '.join(ends)} ({where})")
    if not said:
        return ""
    return (
        f"A true difference shows with a probability of {POWER} from this size on, in "
        f"percentage points, by cell: {'; '.join(said)}."
    )


def _lay_out(table: Table) -> str:
    rows = [table["head"], *table["rows"]]
    widths = [max(len(text) for text in column) for column in zip(*rows, strict=True)]
    lines = []
    for name, *numbers in rows:
        cells = [name.ljust(widths[0])]
        cells += [text.rjust(w) for text, w in zip(numbers, widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _seeds(row: dict) -> str:
    pairs = row["paired_seeds"]
    return f"{row['seeds']}" + (f" ({pairs})" if pairs not in (0, row["seeds"]) else "")


def _difference(row: dict | None, reference: str) -> str:
    if row and row["cell"] == reference:
        return REFERENCE
    if row is None or row["difference"] is None:
        return DASH
    text = points(row["difference"])
    if row["difference_low"] is None:
        return text
    ends = points(row["difference_low"]), points(row["difference_high"])
    return f"{text} ({ends[0]} to {ends[1]})"


def _value(value: object) -> str:
    # A tuple of the config, or what JSON made of it.
    return ", ".join(map(str, value)) if isinstance(value, tuple | list) else f"{value}"
