"""A sweep that nobody trained: cells of made-up runs, and what is found in them."""

from pathlib import Path

from results_sample import sample_results, write_answers, write_run

from rmjax.sweep.collect import collect, read_found
from rmjax.sweep.record import Entry, Record
from rmjax.sweep.tables import Findings, Unfinished

REFERENCE = "mix.name=none"
# Of each cell: share of right answers, number of seeds, whether it is in the grid.
CELLS = {
    REFERENCE: (0.6, 3, True),
    "mix.name=repmix": (0.85, 2, True),
    "mix.name=old": (0.6, 1, False),
}


def sample_findings(folder: Path, results: dict | None = None) -> Findings:
    """Write such runs to a folder and collect them; one run of the grid failed."""
    results = results or sample_results()
    found = []
    for number, (label, (right, seeds, present)) in enumerate(CELLS.items()):
        folders = {}
        for seed in range(seeds):
            folders[seed] = write_run(folder / label / f"seed{seed}", results).parents[
                1
            ]
            answers = folders[seed] / "evaluation" / "full"
            write_answers(answers, results, right, 10 * number + seed)
        found.append(read_found(label, present, folders, "full"))
    rows, reasons = collect(found, REFERENCE, draws=200)
    entries = [
        Entry(label, {"mix.name": label.split("=")[1]}, 3, present)
        for label, (_, _, present) in CELLS.items()
    ]
    record = Record(
        "attribution_mini",
        ("--config.num_epochs=2",),
        "mix.name=none,repmix",
        3,
        "full",
        REFERENCE,
        "rmjax sweep --grid mix.name=none,repmix",
        tuple(entries),
    )
    failed = Unfinished("mix.name=repmix", 2, "failed", "status 3: <b>nan</b>")
    return Findings(record, rows, reasons, [failed], results)
