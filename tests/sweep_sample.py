"""A sweep that nobody trained: cells of made-up runs, and what is found in them."""

from pathlib import Path

from results_sample import sample_results, write_answers, write_run

from rmjax.evaluation.differences import read_runs
from rmjax.sweep.collect import collect
from rmjax.sweep.report import Findings
from rmjax.sweep.runs import Cell, Sweep

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
    found = {}
    for number, (label, (right, seeds, present)) in enumerate(CELLS.items()):
        folders = [folder / label / f"seed{seed}" for seed in range(seeds)]
        for seed, own in enumerate(folders):
            write_answers(write_run(own, results), results, right, 10 * number + seed)
        cell = Cell(label, {"mix.name": label.split("=")[1]}, 3, present)
        found[cell] = dict(enumerate(read_runs(folders, "full")))
    rows, reasons = collect(found, REFERENCE, draws=200)
    sweep = Sweep(
        folder,
        "attribution_mini",
        "mix.name=none,repmix",
        seeds=3,
        changes=("--config.num_epochs=2",),
        reference=REFERENCE,
        suite="full",
        command="rmjax sweep --grid mix.name=none,repmix",
        cells=tuple(found),
    )
    failed = ("mix.name=repmix", 2, "failed", "status 3: <b>nan</b>")
    return Findings(sweep, rows, reasons, [failed], results)
