"""Running a sweep that is planned: every cell trained and evaluated, and collected."""

import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO

from tqdm import tqdm

from rmjax.errors import InputError
from rmjax.evaluation.differences import Evaluated, read_runs
from rmjax.evaluation.results import EVALUATIONS, RESULTS_FILE
from rmjax.sweep.collect import collect
from rmjax.sweep.plan import (
    LOGS,
    Cell,
    Run,
    State,
    Sweep,
    check_kept,
    with_earlier,
    write_record,
)
from rmjax.sweep.report import Findings, describe_run, format_findings, write_sweep
from rmjax.sweep.runner import Slot, run_all
from rmjax.utils.locks import lock


def describe_plan(sweep: Sweep) -> str:
    """Return a line for each cell, how far its seeds are, and one for all."""
    states = {run: run.state() for run in sweep.runs}
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
        shard: number and count: this call does every so manieth run.
        say: takes the lines that are to be read meanwhile.

    Returns:
        How many runs of this shard failed.

    Raises:
        KeyboardInterrupt, Preempted: it was stopped; nothing was collected.
    """
    with _alone(sweep.folder):
        kept = [cell.label for cell in _remember(sweep).cells if not cell.present]
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


def _remember(sweep: Sweep) -> Sweep:
    """Write the record; return the sweep with the cells of other commands meanwhile.

    To be called by one command at a time, see `_alone`.
    """
    present = [cell for cell in sweep.cells if cell.present]
    sweep = replace(sweep, cells=with_earlier(present, sweep.folder))
    write_record(sweep)
    return sweep


def _alone(folder: Path) -> IO:
    """Open and lock the folder's own lock file; wait for others that hold it."""
    path = folder / LOGS / ".lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a")
    except OSError as error:
        raise InputError(f"can't write to {folder}: {error.strerror}") from error
    lock(file, "", wait=True)
    return file


def _show(sweep: Sweep, say: Callable[[str], None]) -> None:
    """Collect what there is, write it and print it."""
    # The last of several commands to come here sees what all of them did.
    with _alone(sweep.folder):
        found = _collect(_remember(sweep), say)
        if found is None:
            say("no run has figures yet: no table")
            return
        paths = write_sweep(sweep.folder, found)
    say("\n" + format_findings(found))
    if found.unfinished:
        counts = Counter(state for _, _, state, _ in found.unfinished)
        say(f"{len(found.unfinished)} runs have no figures: {_counted(counts)}")
    say("")
    for what, path in paths.items():
        say(f"{what + ':':<9} {path}")


def _collect(sweep: Sweep, say: Callable[[str], None]) -> Findings | None:
    states = {run: run.state() for run in sweep.runs}
    cells = {}
    for cell in sweep.cells:
        if cell.present:
            own = [
                run for run, s in states.items() if run.cell is cell and s == State.DONE
            ]
            seeds = [run.seed for run in own]
            runs = _read(sweep, cell, seeds)
        else:
            try:
                runs = _read_kept(sweep, cell)
            except InputError as error:
                say(f"left out: {cell.label}, not in the present grid: {error}")
                continue
        if runs:
            cells[cell] = runs
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


def _read_kept(sweep: Sweep, cell: Cell) -> dict[int, Evaluated]:
    """Return the runs of an earlier grid's cell that were evaluated, by seed.

    Raises:
        InputError: one can't be read, or can't be compared with the reference.
    """
    inside = Path(EVALUATIONS) / sweep.evaluation / RESULTS_FILE
    seeds = [n for n in range(cell.seeds) if (sweep.workdir(cell, n) / inside).exists()]
    for seed in seeds:
        check_kept(sweep, cell, seed)
    return _read(sweep, cell, seeds)


def _read(sweep: Sweep, cell: Cell, seeds: Sequence[int]) -> dict[int, Evaluated]:
    workdirs = [sweep.workdir(cell, seed) for seed in seeds]
    return dict(zip(seeds, read_runs(workdirs, sweep.evaluation), strict=True))


def _reason(run: Run) -> str:
    path = run.file("failed")
    return path.read_text(encoding="utf-8").strip() if path.exists() else ""


def _counted(counts: Counter) -> str:
    return ", ".join(f"{count} {what}" for what, count in counts.items())
