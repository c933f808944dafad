"""What a sweep found as tables: lines of text, a CSV file, tables of a page."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rmjax.report.comparison import excludes_zero, points
from rmjax.report.figures import SETS
from rmjax.report.tables import Table
from rmjax.report.view import DASH, interval, percent
from rmjax.sweep.record import Record
from rmjax.utils.files import replace_text

REFERENCE = "reference"
# Of a CSV file, in this order.
COLUMNS = (
    "cell present semantics set metric seeds mean mean_low mean_high paired_seeds "
    "difference difference_low difference_high"
).split()


@dataclass(frozen=True)
class Unfinished:
    """A run without figures: its cell, its seed, how far it is, and why."""

    cell: str
    seed: int
    status: str
    reason: str


@dataclass(frozen=True)
class Findings:
    """All that is shown of a sweep.

    Attributes:
        record: what it is of.
        rows: what `rmjax.sweep.collect.collect` returns.
        reasons: by label, why a cell has no difference to the reference.
        unfinished: the runs of the grid that have no figures.
        results: of one of its evaluations, for what all share.
    """

    record: Record
    rows: list[dict]
    reasons: dict[str, str]
    unfinished: list[Unfinished]
    results: dict

    def names(self) -> dict[str, str]:
        """Return how the cells with figures are called, by label, in their order."""
        have = {row["cell"] for row in self.rows}
        return {
            cell.label: cell.label + ("" if cell.present else " *")
            for cell in self.record.cells
            if cell.label in have
        }

    def sets(self) -> list[str]:
        """Return the sets of conditions that there are figures of."""
        return [part for part in SETS if any(row["set"] == part for row in self.rows)]

    def groups(self) -> list[str]:
        """Return the groups of semantics that share no image."""
        found = dict.fromkeys(row["semantics"] for row in self.rows)
        return [group for group in found if group != "combined"]

    def select(self, part: str, metric: str) -> list[dict]:
        """Return the rows of a set of conditions and a metric."""
        return [r for r in self.rows if (r["set"], r["metric"]) == (part, metric)]


def write_csv(path: Path, rows: Sequence[dict]) -> None:
    """Write rows as a table, whole or not at all; what is not defined is empty."""
    table = io.StringIO()
    writer = csv.DictWriter(table, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    replace_text(path, table.getvalue())


def cells_table(found: Findings, part: str, metric: str) -> Table:
    """Return mean and difference of every cell and group of semantics."""
    groups = found.groups()
    by_place = {(r["cell"], r["semantics"]): r for r in found.select(part, metric)}
    rows = []
    for label, name in found.names().items():
        own = [by_place.get((label, group)) for group in groups]
        if any(own):  # else of another suite, or of other semantics
            row = [name, *(_difference(r, found.record.reference) for r in own)]
            row += [interval(r or {}, "mean") for r in own]
            rows.append([*row, next(_seeds(r) for r in own if r)])
    # What decides first: a narrow screen shows no more.
    head = ["cell", *(f"{group} − reference" for group in groups)]
    head += [*(f"{group}, %" for group in groups), "seeds"]
    return {"head": head, "rows": rows, "text": 1}


def changes_table(found: Findings) -> Table:
    """Return the values of the config that each cell has of its own."""
    cells = found.record.cells
    keys = list(dict.fromkeys(key for cell in cells for key in cell.changes))
    rows = [
        [
            cell.label + ("" if cell.present else " *"),
            *(
                _value(cell.changes[key]) if key in cell.changes else DASH
                for key in keys
            ),
        ]
        for cell in cells
    ]
    return {"head": ["cell", *keys], "rows": rows, "text": len(keys) + 1}


def unfinished_table(found: Findings) -> Table:
    """Return the runs that have no figures, and why."""
    rows = [
        [run.cell, f"{run.seed}", run.status, run.reason or DASH]
        for run in found.unfinished
    ]
    return {
        "head": ["cell", "seed", "state", "last line of its log"],
        "rows": rows,
        "text": 4,
    }


def count_verdicts(found: Findings, metric: str = "attribution") -> tuple[int, int]:
    """Count the differences to the reference: those whose interval excludes 0, and all."""
    rows = [
        r for r in found.rows if r["metric"] == metric and r["semantics"] != "combined"
    ]
    told = [
        excludes_zero({"low": r["difference_low"], "high": r["difference_high"]})
        for r in rows
        if r["difference"] is not None
    ]
    return sum(bool(answer) for answer in told), len(told)


def notes(found: Findings) -> list[str]:
    """Return what is to be known beside the numbers, a sentence each."""
    said = []
    names = found.names()
    alone = dict.fromkeys(
        names[row["cell"]]
        for row in found.rows
        if 1 in (row["seeds"], row["paired_seeds"])
    )
    if alone:
        whose = "all cells" if len(alone) == len(names) else ", ".join(alone)
        said.append(
            f"One seed alone: the intervals of {whose} are about other images, and say "
            "nothing of another seed."
        )
    for label, why in found.reasons.items():
        said.append(f"{names[label]} is not compared with the reference: {why}.")
    if any(not cell.present for cell in found.record.cells):
        said.append("* Not in the present grid: kept from an earlier one.")
    return said


def format_findings(found: Findings) -> str:
    """Return the main figures as lines of text."""
    blocks = []
    for part in found.sets():
        table = cells_table(found, part, "attribution")
        table["head"][0] = f"attribution, {SETS[part]}"
        blocks.append(_lay_out(table))
    legend = (
        f"Means over seeds and 95 % intervals; differences in percentage points to "
        f"{found.record.reference}, by the same seeds and images."
    )
    return "\n\n".join([*blocks, "\n".join([legend, *notes(found)])])


def _lay_out(table: Table) -> str:
    rows = [table["head"], *table["rows"]]
    widths = [max(len(row[k]) for row in rows) for k in range(len(table["head"]))]
    lines = []
    for row in rows:
        first, *rest = zip(row, widths, strict=True)
        cells = [f"{first[0]:<{first[1]}}", *(f"{text:>{w}}" for text, w in rest)]
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
    return ", ".join(map(str, value)) if isinstance(value, list) else f"{value}"


def describe_run(results: dict) -> str:
    """Return a run's shares of clean images on a line, as it ends."""
    summary = results["summary"]
    shares = [
        f"{percent(summary[group]['clean']['attribution_accuracy'])} % {group}"
        for group in summary
        if group != "combined"
    ]
    return f"attribution, clean images: {', '.join(shares)} semantics"
