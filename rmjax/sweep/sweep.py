"""Running a sweep that is planned: every cell trained and evaluated, and collected."""

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from rmjax.errors import InputError
from rmjax.evaluation.differences import read_runs
from rmjax.evaluation.results import EVALUATIONS, RESULTS_FILE
from rmjax.experiment.run import load_run_config, whole_facts
from rmjax.sweep.collect import collect
from rmjax.sweep.plan import with_earlier, write_record
from rmjax.sweep.report import Findings, describe_run, format_findings, write_sweep
from rmjax.sweep.runner import Slot, holding, run_all
from rmjax.sweep.runs import LOGS, Cell, Run, State, Sweep, look_at
from rmjax.utils.places import is_remote


def describe_plan(sweep: Sweep) -> str:
    """Return a line for each cell, how far its seeds are, and one for all."""
    states = look_at(sweep.runs, Run.state)
    lines = []
    for cell in sweep.cells:
        seeds: dict[State, list[str]] = {}
        for run, state in states.items():
            if run.cell is cell:
                seeds.setdefault(state, []).append(f"seed{run.seed}")
        text = "; ".join(f"{state}: {', '.join(own)}" for state, own in seeds.items())
        lines.append(f"{cell.label:<40} {text or 'not in the present grid: kept'}")
    lines.append(f"{len(states)} runs: {_counted(Counter(states.values()))}")
    return "\n".join(lines)


def run_sweep(
    sweep: Sweep,
    slots: Sequence[Slot] = ({},),
    shard: tuple[int, int] = (0, 1),
    say: Callable[[str], None] = tqdm.write,
) -> int:
    """Run what is not done, then collect what there is.

    Args:
        sweep: from `rmjax.sweep.plan.plan_sweep`.
        slots: for each run at once, what to set in its environment.
        shard: K and N: this call does every Nth run, from the Kth on.
        say: takes the lines that are to be read meanwhile.

    Returns:
        How many runs of this shard failed.

    Raises:
        KeyboardInterrupt, Preempted: it was stopped; nothing was collected.
    """
    if is_remote(sweep.folder):
        say(
            f"{sweep.folder}: a store knows no locks; see to it that no other command "
            "does the same runs"
        )
    with _recorded(sweep) as recorded:
        kept = [cell.label for cell in recorded.cells if not cell.present]
    if kept:
        say(f"kept, though not in the present grid: {', '.join(kept)}")
    mine = sweep.runs[shard[0] :: shard[1]]
    counts: Counter[State] = Counter()
    with tqdm(total=len(mine), unit="run", desc="sweep") as bar:

        def on_end(run: Run, outcome: State, words: str) -> None:
            counts[outcome] += 1
            if outcome == State.DONE and words:
                words = f"{describe_run(run.results())} ({words})"
            if words:
                say(f"{outcome}: {run}: {words}")
            bar.update()

        def idle() -> None:
            if sys.stderr.isatty():  # in a file every drawing would be a line
                bar.refresh()

        run_all(mine, slots, on_end, idle)
    if busy := counts[State.BUSY]:
        say(f"{busy} of the runs are left to another command that works on them")
    _show(sweep, say)
    return counts[State.FAILED]


@contextmanager
def _recorded(sweep: Sweep) -> Iterator[Sweep]:
    """Write the record, and hold the folder until the end of the block.

    Yields the sweep with the cells that other commands recorded meanwhile; whoever else
    wants to write there waits.
    """
    with holding(sweep.folder / LOGS / ".lock", wait=True):
        present = [cell for cell in sweep.cells if cell.present]
        sweep = replace(sweep, cells=with_earlier(present, sweep.folder))
        write_record(sweep)
        yield sweep


def _show(sweep: Sweep, say: Callable[[str], None]) -> None:
    """Collect what there is, write it and print it."""
    # The last of several commands to come here sees what all of them did.
    with _recorded(sweep) as recorded:
        findings = _collect(recorded, say)
        if findings is None:
            say("no run has figures yet: no table")
            return
        paths = write_sweep(sweep.folder, findings)
    say("\n" + format_findings(findings))
    if findings.unfinished:
        counts = Counter(state for _, _, state, _ in findings.unfinished)
        say(f"{len(findings.unfinished)} runs have no figures: {_counted(counts)}")
    say("")
    for what, path in paths.items():
        say(f"{what + ':':<9} {path}")


def _collect(sweep: Sweep, say: Callable[[str], None]) -> Findings | None:
    states = look_at(sweep.runs, Run.state)
    done = [run for run, state in states.items() if state == State.DONE]
    cells = {}
    for cell in sweep.cells:
        try:
            seeds = [run.seed for run in done if run.cell is cell]
            if not cell.present:
                seeds = _kept_seeds(sweep, cell)
            workdirs = [sweep.workdir(cell, seed) for seed in seeds]
            runs = read_runs(workdirs, sweep.evaluation)
        except InputError as error:
            if cell.present:
                raise
            say(f"left out: {cell.label}, not in the present grid: {error}")
            continue
        if runs:
            cells[cell] = dict(zip(seeds, runs, strict=True))
    if not cells:
        return None
    rows, reasons = collect(cells, sweep.reference)
    unfinished = [
        (run.cell.label, run.seed, f"{state}", _reason(run))
        for run, state in states.items()
        if state != State.DONE
    ]
    first = next(iter(next(iter(cells.values())).values()))
    return Findings(sweep, rows, reasons, unfinished, first.results)


def _kept_seeds(sweep: Sweep, cell: Cell) -> list[int]:
    """Return the seeds of an earlier grid's cell that were evaluated.

    Raises:
        InputError: a run differs from the reference by more than the grids.
    """
    inside = Path(EVALUATIONS) / sweep.evaluation / RESULTS_FILE
    seeds = [n for n in range(cell.seeds) if (sweep.workdir(cell, n) / inside).exists()]
    base = next(c for c in sweep.cells if c.label == sweep.reference)
    varied = {*cell.changes, *base.changes, "seed"}
    for seed in seeds:
        old, new = map(
            whole_facts, (load_run_config(sweep.workdir(cell, seed)), base.config)
        )
        for key in old:
            # A key that one of the two has no use for is no difference.
            if key in new and key not in varied and old[key] != new[key]:
                raise InputError(
                    f"its {key} is {old[key]!r}, that of the present grid {new[key]!r}"
                )
    return seeds


def _reason(run: Run) -> str:
    path = run.file("failed")
    return path.read_text(encoding="utf-8").strip() if path.exists() else ""


def _counted(counts: Counter) -> str:
    return ", ".join(f"{count} {what}" for what, count in counts.items())
