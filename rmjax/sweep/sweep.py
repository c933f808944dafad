"""`sweep(config, grid, seeds, workdir)`: trains and evaluates every cell, and collects."""

import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from tqdm import tqdm

from rmjax.errors import InputError
from rmjax.evaluation.results import EVALUATIONS, RESULTS_FILE, read_results
from rmjax.evaluation.robustness import parse_suite
from rmjax.sweep import runs as state
from rmjax.sweep.cells import find_reference, make_cells
from rmjax.sweep.collect import collect, read_found
from rmjax.sweep.record import Entry, Record, list_cells, with_earlier, write_record
from rmjax.sweep.report import write_sweep
from rmjax.sweep.runner import BUSY, FAILED, Task, run_tasks
from rmjax.sweep.runs import DONE, Run
from rmjax.sweep.tables import Findings, Unfinished, describe_run, format_findings
from rmjax.utils.locks import lock


@dataclass(frozen=True)
class Sweep:
    """A sweep that was checked, and of which nothing has run yet.

    Attributes:
        folder: where all of it lies.
        record: what it is of.
        runs: all of them, seed by seed.
        data_dir: folder of the data sets; None: as in the config.
        cache_dir: folder of the evaluations' corrupted images; None: nothing is kept.
    """

    folder: Path
    record: Record
    runs: list[Run]
    data_dir: str | None
    cache_dir: str | None


def plan_sweep(
    config: str,
    grid: str,
    *,
    seeds: int,
    workdir: str | Path,
    changes: Sequence[str] = (),
    reference: str | None = None,
    suite: str = "clean",
    data_dir: str | None = None,
    cache_dir: str | None = None,
    command: str = "",
) -> Sweep:
    """Read a grid and check all that can be known before the first run; write nothing.

    Args:
        config: name or path of a config.
        grid: see `rmjax.sweep.grid.parse_grid`.
        seeds: how many each cell is trained with: 0, 1, ...
        workdir: folder of the sweep.
        changes: `--config.KEY=VALUE` for all cells.
        reference: the cell that others are compared with, see `find_reference`.
        suite: of the evaluations, see `rmjax.evaluation.robustness.parse_suite`.
        data_dir: folder of the data sets; None: as in the config.
        cache_dir: folder to keep the corrupted images of evaluations in.
        command: what to say that was run.

    Raises:
        InputError: something can't be used as it is, or a run's folder belongs to
            another config.
    """
    folder = Path(workdir)
    if seeds < 1:
        raise InputError(f"seeds = {seeds}: give at least 1")
    parse_suite(suite)
    cells = make_cells(config, grid, changes, data_dir)
    chosen = find_reference(cells, reference, config)
    runs = state.make_runs(cells, seeds, folder, suite)
    state.check_workdirs(runs)
    entries = list_cells(cells, seeds, folder)
    record = Record(
        config, tuple(changes), grid, seeds, suite, chosen.label, command, entries
    )
    return Sweep(folder, record, runs, data_dir, cache_dir)


def describe_plan(sweep: Sweep) -> str:
    """Return a line for each cell, how far its seeds are, and one for all."""
    found = {run: state.status(run) for run in sweep.runs}
    lines = []
    for entry in sweep.record.cells:
        own = [(r.seed, s) for r, s in found.items() if r.cell.label == entry.label]
        text = "; ".join(
            f"{what}: {', '.join(f'seed{n}' for n, s in own if s == what)}"
            for what in dict.fromkeys(s for _, s in own)
        )
        lines.append(f"{entry.label:<40} {text or 'not in the present grid: kept'}")
    counts = Counter(found.values())
    lines.append(f"{len(found)} runs: " + _counted(counts))
    return "\n".join(lines)


def run_sweep(
    sweep: Sweep,
    slots: Sequence[dict[str, str]] = ({},),
    shard: tuple[int, int] = (0, 1),
    say: Callable[[str], None] = tqdm.write,
) -> int:
    """Run what is not done, then collect what there is.

    Args:
        sweep: from `plan_sweep`.
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
    by_name = {str(run): run for run in mine}
    counts: Counter[str] = Counter()
    with tqdm(total=len(mine), unit="run", desc="sweep") as bar:

        def on_end(task: Task, outcome: str, words: str) -> None:
            counts[outcome] += 1
            run = by_name[task.name]
            if outcome == DONE and words:
                words = f"{describe_run(_results(run))} ({words})"
            if words:
                say(f"{outcome}: {task.name}: {words}")
            bar.update()

        def idle() -> None:
            if sys.stderr.isatty():  # in a file every drawing would be a line
                bar.refresh()

        run_tasks([_task(sweep, run) for run in mine], slots, on_end, idle)
    if counts[BUSY]:
        say(
            f"{counts[BUSY]} of the runs are left to another command that works on them"
        )
    _show(sweep, say)
    return counts[FAILED]


def _remember(sweep: Sweep) -> Record:
    """Write and return the record, with what other commands wrote there meanwhile.

    To be called by one command at a time, see `_alone`.
    """
    present = [cell for cell in sweep.record.cells if cell.present]
    record = replace(sweep.record, cells=with_earlier(present, sweep.folder))
    write_record(sweep.folder, record)
    return record


def _alone(folder: Path) -> IO:
    """Open and lock the folder's own lock file; wait for others that hold it."""
    path = folder / state.LOGS / ".lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a")
    except OSError as error:
        raise InputError(f"can't write to {folder}: {error.strerror}") from error
    lock(file, "", wait=True)
    return file


def _task(sweep: Sweep, run: Run) -> Task:
    return Task(
        name=str(run),
        commands=lambda: commands(sweep, run),
        log=run.file("log"),
        lock=run.file("lock"),
        failed=run.file("failed"),
    )


def commands(sweep: Sweep, run: Run) -> list[list[str]]:
    """Return what is left to do of a run, as commands."""
    if state.is_done(run):
        return []
    rmjax = [sys.executable, "-m", "rmjax.cli"]
    where = ["--workdir", str(run.workdir)]
    if sweep.data_dir:
        where += ["--data-dir", sweep.data_dir]
    own = run.cell.changes | {"seed": run.seed}
    changes = [f"--config.{key}={value}" for key, value in own.items()]
    train = [*rmjax, "train", "--config", sweep.record.config, *where]
    train += [*sweep.record.changes, *changes]
    evaluate = [*rmjax, "evaluate", "--suite", run.suite, *where]
    if sweep.cache_dir:
        evaluate += ["--cache-dir", sweep.cache_dir]
    return [evaluate] if state.is_trained(run) else [train, evaluate]


def _show(sweep: Sweep, say: Callable[[str], None]) -> None:
    """Collect what there is, write it and print it."""
    # The last of several commands to come here sees what all of them did.
    with _alone(sweep.folder):
        found = _collect(sweep, _remember(sweep), say)
        if found is None:
            say("no run has figures yet: no table")
            return
        paths = write_sweep(sweep.folder, found)
    say("\n" + format_findings(found))
    if found.unfinished:
        counts = Counter(run.status for run in found.unfinished)
        say(f"{len(found.unfinished)} runs have no figures: {_counted(counts)}")
    say("")
    for kind, path in paths.items():
        say(f"{kind + ':':<9} {path}")


def _collect(
    sweep: Sweep, record: Record, say: Callable[[str], None]
) -> Findings | None:
    statuses = {run: state.status(run) for run in sweep.runs}
    evaluation = state.evaluation_name(record.suite)
    compared = next(run for run in sweep.runs if run.cell.label == record.reference)
    cells = []
    for entry in record.cells:
        try:
            if entry.present:
                done = [r for r, s in statuses.items() if s == DONE]
                own = [r for r in done if r.cell.label == entry.label]
                folders = {r.seed: r.workdir for r in own}
            else:
                folders = _kept(sweep.folder, entry, evaluation, compared)
            if folders:
                own = read_found(entry.label, entry.present, folders, evaluation)
                cells.append(own)
        except InputError as error:
            if entry.present:
                raise
            say(f"left out: {entry.label}, not in the present grid: {error}")
    if not cells:
        return None
    rows, reasons = collect(cells, record.reference)
    unfinished = [
        Unfinished(r.cell.label, r.seed, s, _reason(r))
        for r, s in statuses.items()
        if s != DONE
    ]
    results = next(iter(cells[0].runs.values())).results
    return Findings(record, rows, reasons, unfinished, results)


def _kept(
    folder: Path, entry: Entry, evaluation: str, compared: Run
) -> dict[int, Path]:
    """Return the folders of an earlier grid's cell that were evaluated, by seed.

    Raises:
        InputError: one can't be compared with the run `compared`.
    """
    found = {n: state.run_folder(folder, entry.label, n) for n in range(entry.seeds)}
    inside = Path(EVALUATIONS) / evaluation / RESULTS_FILE
    found = {n: path for n, path in found.items() if (path / inside).exists()}
    for path in found.values():
        state.check_kept(path, entry.changes, compared)
    return found


def _reason(run: Run) -> str:
    path = run.file("failed")
    return path.read_text(encoding="utf-8").strip() if path.exists() else ""


def _results(run: Run) -> dict:
    return read_results(run.workdir / EVALUATIONS / run.evaluation)


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {what}" for what, count in counts.items())
