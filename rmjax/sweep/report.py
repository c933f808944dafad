"""The page, the table and the figures of a sweep."""

from pathlib import Path

from rmjax.errors import InputError
from rmjax.report.figures import SETS, render
from rmjax.report.figures_sweep import DIFFERENCE, MEAN, cell_dots
from rmjax.report.page import render_page, write_page
from rmjax.sweep import tables
from rmjax.sweep.tables import Findings


def write_sweep(folder: Path, found: Findings) -> dict[str, Path]:
    """Write `sweep.csv`, `sweep.html` and `figures/`.

    Returns:
        Their paths: `table`, `report` and `figures`.

    Raises:
        InputError: the folder can't be written to.
    """
    pictures = {}
    for part in found.sets():
        rows = found.select(part, "attribution")
        for name, what in (("means", MEAN), ("differences", DIFFERENCE)):
            drawn = cell_dots(rows, found.names(), what, found.record.reference)
            if drawn:
                pictures[f"{name}_{part}"] = render(drawn)
    apart, all_of_them = tables.count_verdicts(found)
    page = render_page(
        "sweep.html.jinja",
        pictures,
        r=found.results,
        record=found.record,
        names=found.names(),
        parts=found.sets(),
        unfinished=tables.unfinished_table(found),
        changes=tables.changes_table(found),
        notes=tables.notes(found),
        apart=apart,
        compared=all_of_them,
        tables_of={
            (part, metric): tables.cells_table(found, part, metric)
            for part in found.sets()
            for metric in ("attribution", "detection")
        },
        spoken_sets=SETS | {"clean": "clean images"},
    )
    written = write_page(folder, "sweep", page, pictures)
    try:
        tables.write_csv(folder / "sweep.csv", found.rows)
    except OSError as error:
        raise InputError(f"can't write {error.filename}: {error.strerror}") from error
    return {
        "table": folder / "sweep.csv",
        "report": written["sweep"],
        "figures": written["figures"],
    }
