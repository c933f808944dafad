"""A plan by what the machine's own compiler says of a training's step.

Exact are memory, exchanges, kernels, and a TPU's cycles by operation, as its compiler
estimates them. The rest is estimated as in `rmjax.bench.plan`: exchanges between chips,
by rings; on a GPU the time, by the bytes that its kernels move.
"""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from rmjax.bench.ahead import StepCompiler, find_largest, memory_gb
from rmjax.bench.machines import Machine, allreduce_seconds, find_machine
from rmjax.bench.parts import PARTS, exchanges, sum_parts
from rmjax.bench.plan import COLUMNS, plan_training, price_steps, sum_seconds
from rmjax.bench.program import COLLECTIVES, UNKNOWN_TRIPS, count, read_program
from rmjax.bench.topology import describe_devices
from rmjax.experiment import parallel
from rmjax.mixing import make_mixing
from rmjax.utils.checks import check_at_least
from rmjax.utils.table import format_table

# The largest batch is looked for in steps of so many images a chip, or of as many as
# are mixed among each other: a TPU's memory holds maps in eights of images anyway.
TILE = 8

PART_COLUMNS = {
    "total": ("total", ".2f"),
    "share": ("share", ".1%"),
    "forward": ("forward", ".2f"),
    "backward": ("backward", ".2f"),
    "convolutions": ("convolutions", ".2f"),
    "batch norms": ("norms", ".2f"),
    "rest": ("rest", ".2f"),
    "kernels": ("kernels", ",.0f"),
}
# What the parts are measured in: a title, and what is divided by.
UNITS = {"cycles": ("M cycles", 1e6), "bytes": ("GB moved", 1e9)}

# By the bytes that all kernels move, cuDNN's too, which XLA's own count leaves out, the
# two steps measured on an H100 ran at 62 and 61 % of its memory's speed: 106.1 GB in
# 50.9 ms and 52.5 GB in 25.7 ms (docs/results/accelerators.md).
KERNELS_SHARE = 0.615


def compile_training(
    config: ConfigDict,
    *,
    machine: str,
    num_sources: int,
    images: int,
    epochs: int,
    price: float | None = None,
    largest: bool = False,
    save: str | None = None,
) -> dict:
    """Compile a training's step for a machine, and plan it by that and on paper.

    A mixing with several levels has a step for each, all as likely: figures are means
    over them, memory is that of the one that takes most.

    Args:
        config: of the training.
        machine: see `find_machine`.
        num_sources, images, epochs, price: as for `plan_training`.
        largest: find the largest batch that fits, too: some more compilations.
        save: folder for the compiled programs, as XLA's text.

    Returns:
        What `plan_training` does, and `compiled`: `machine`, `chips`, `per_chip` images,
        `levels`, `seconds` of compiling, `chip_gb`, `usable_gb`, `fits`; where a program
        came of it, `memory_gb` by use, `counts` (see `rmjax.bench.program.Counts`),
        `collectives` by kind, `parts` (see `rmjax.bench.parts.sum_parts`) in `unit`, and
        a `row` as those of `machines`; `largest`, the largest batch that fits, 0: none.

    Raises:
        InputError: as `plan_training`, `describe_devices` and `parallel.check_batch`.
    """
    check_at_least(1, sources=num_sources, images=images, epochs=epochs)
    found = find_machine(machine)
    if price is not None:
        found = replace(found, price=price)
    devices = describe_devices(found)
    plan = plan_training(
        config,
        num_sources=num_sources,
        images=images,
        epochs=epochs,
        machines=(machine,),
        price=price,
    )
    unit = make_mixing(**config.mix).unit
    pieces = config.accumulate_steps
    parallel.check_batch(config.batch_size, unit, devices, pieces)
    compiler = StepCompiler(config, num_sources, found, devices)
    per_chip = config.batch_size // found.chips
    outcomes = {level: compiler.compile(level, per_chip) for level in compiler.levels}
    hungriest = max(outcomes, key=lambda level: outcomes[level].gb or math.inf)
    results: dict[str, Any] = {
        "machine": f"{found.chip}:{found.layout}",
        "chips": found.chips,
        "per_chip": per_chip,
        "levels": list(compiler.levels),
        "seconds": sum(outcome.seconds for outcome in outcomes.values()),
        "chip_gb": outcomes[hungriest].gb,
        "usable_gb": found.usable_gb,
        "fits": all(outcome.fits for outcome in outcomes.values()),
    }
    programs = {k: o.compiled for k, o in outcomes.items() if o.compiled is not None}
    if save:
        Path(save).mkdir(parents=True, exist_ok=True)
        for level, program in programs.items():
            name = f"level{level}-{found.chip}-{found.layout}-{per_chip}.txt"
            (Path(save) / name).write_text(program.as_text() or "")
    if len(programs) == len(outcomes):
        figures = [_figures(program, found) for program in programs.values()]
        means = jax.tree.map(lambda *values: sum(values) / len(values), *figures)
        seconds = sum_seconds(
            **means.pop("seconds"), images=config.batch_size, machine=found
        )
        taken = (results["chip_gb"], found, config.batch_size, plan["steps"])
        results |= means | {
            "memory_gb": memory_gb(programs[hungriest]),
            "unit": "cycles" if found.ghz else "bytes",
            "row": price_steps(seconds, *taken) | {"fits": results["fits"]},
        }
    if largest:
        step = math.lcm(unit * pieces, TILE)

        def attempt(number: int) -> tuple[float | None, bool]:
            if number * step == per_chip:
                outcome = outcomes[hungriest]
            else:
                outcome = compiler.compile(hungriest, number * step)
            return outcome.gb, outcome.fits

        start = max(per_chip // step, 1)
        number = find_largest(attempt, start, found.usable_gb)
        results["largest"] = number * step * found.chips
    return plan | {"compiled": results}


def _figures(compiled: jax.stages.Compiled, machine: Machine) -> dict:
    """Return what a step's program says, as numbers of which means are taken."""
    program = read_program(compiled.as_text() or "")
    counts = count(program)
    if machine.ghz:
        compute = counts.cycles / (machine.ghz * 1e9)
    else:
        compute = counts.moved / (KERNELS_SHARE * machine.memory_speed * 1e9)
    seconds = {"compute": compute, "gradients": 0.0, "norms": 0.0}
    collectives = {kind: {"count": 0.0, "mb": 0.0} for kind in sorted(COLLECTIVES)}
    for exchange in exchanges(program):
        # An all-reduce is two rounds of the ring; what only hands out or adds up, one.
        volume = exchange.volume / (1 if exchange.kind == "all-reduce" else 2)
        took = exchange.times * allreduce_seconds(volume, machine)
        seconds["norms" if exchange.norms else "gradients"] += took
        collectives[exchange.kind]["count"] += exchange.times
        collectives[exchange.kind]["mb"] += exchange.times * exchange.volume / 1e6
    return {
        "counts": counts._asdict(),
        "collectives": collectives,
        "parts": sum_parts(program, cycles=bool(machine.ghz)),
        "seconds": seconds,
    }


def format_compiled(plan: dict) -> str:
    """Return `compile_training`'s results as lines of text."""
    results = plan["compiled"]
    levels = " or ".join(map(str, results["levels"]))
    lines = [
        f"compiled for {results['machine']} in {results['seconds']:.0f} s: "
        f"{results['per_chip']} images on each of {results['chips']} chips, "
        f"mixed at level {levels}"
    ]
    fits = "fits" if results["fits"] else "does not fit"
    taken = "more" if results["chip_gb"] is None else f"{results['chip_gb']:.2f}"
    uses = ", ".join(f"{v:.2f} {k}" for k, v in results.get("memory_gb", {}).items())
    lines += [
        f"memory per chip: {taken} of {results['usable_gb']:.2f} GB, {fits}"
        + (f" ({uses})" if uses else "")
    ]
    rows = {"on paper": next(iter(plan["machines"].values()))}
    if "row" in results:
        lines += _describe_program(results)
        rows["compiled"] = results["row"]
    if "largest" in results:
        chips = results["chips"]
        found, each = results["largest"], results["largest"] // chips
        lines += ["", f"largest batch that fits: {found:,} images, {each:,} per chip"]
    columns = {title: key for title, key in COLUMNS.items() if title}
    return "\n".join([*lines, "", *format_table("estimated", columns, rows)])


def _describe_program(results: dict) -> list[str]:
    counts = results["counts"]
    exchanged = [
        f"{row['count']:,.0f} {kind} ({row['mb']:.1f} MB)"
        for kind, row in results["collectives"].items()
        if row["count"]
    ]
    lines = [
        f"per step and chip: {', '.join(exchanged) or 'no exchange'}; "
        f"{counts['kernels']:,.0f} kernels, {counts['branches']:,.0f} branches"
        f"{' decided by the host' if results['unit'] == 'bytes' else ''}, "
        f"{counts['transfers']:.0f} transfers to or from the host",
        "",
    ]
    title, unit = UNITS[results["unit"]]
    parts = {part: results["parts"][part] for part in PARTS}
    parts = {part: row for part, row in parts.items() if row["total"]}
    total = {
        key: sum(row[key] for row in parts.values())
        for key in next(iter(parts.values()))
    }
    rows = {
        name: {key: value / unit for key, value in row.items()}
        | {"share": row["total"] / total["total"], "kernels": row["kernels"]}
        for name, row in (parts | {"all": total}).items()
    }
    lines += format_table(title, PART_COLUMNS, rows)
    if counts["guessed_cycles"]:
        row = results["row"]
        share = counts["guessed_cycles"] / counts["cycles"]
        lines += [
            f"{counts['guessed_cycles'] / 1e6:.2f} M of these are in loops whose length "
            f"the compiler does not know, counted as {UNKNOWN_TRIPS} rounds: "
            f"{share * row['compute_ms']:.1f} of {row['compute_ms']:.1f} ms"
        ]
    return lines
