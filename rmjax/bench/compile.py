"""A training's very step, compiled for a machine that is not here by its own compiler.

What the compiler says is exact: memory, exchanges, kernels, and a TPU's estimate of
cycles by operation. What it doesn't say is estimated as in `rmjax.bench.plan`: exchanges
between chips, by rings; on a GPU, the time, by the bytes that are moved.
"""

import logging
import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from rmjax.bench.machines import Machine, allreduce_seconds, find_machine
from rmjax.bench.parts import PARTS, exchanges, sum_parts
from rmjax.bench.plan import (
    COLUMNS,
    plan_training,
    price_steps,
    sum_seconds,
)
from rmjax.bench.program import COLLECTIVES, UNKNOWN_TRIPS, count, read_program
from rmjax.bench.topology import describe_devices, platform_of
from rmjax.errors import InputError
from rmjax.experiment import parallel
from rmjax.experiment.build import (
    build_model,
    build_optimizer,
    make_train_steps,
    network_input,
)
from rmjax.experiment.step import create_state
from rmjax.mixing import make_mixing
from rmjax.models.repmix import RepMix
from rmjax.utils.checks import check_at_least
from rmjax.utils.platform import targeting
from rmjax.utils.table import format_table

logger = logging.getLogger(__name__)

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
# 50.9 ms and 52.5 GB in 25.7 ms (docs/scaling.md).
KERNELS_SHARE = 0.615


@dataclass(frozen=True)
class Outcome:
    """What came of compiling a step.

    Attributes:
        gb: memory that the program takes of a chip; None where the compiler gave up
            and did not say.
        fits: whether a chip has as much.
        seconds: that it took.
        compiled: the program; None where the compiler gave up for want of memory.
    """

    gb: float | None
    fits: bool
    seconds: float
    compiled: jax.stages.Compiled | None = None


@dataclass(frozen=True)
class StepCompiler:
    """Compiles the training step of a config for a machine.

    Attributes:
        config: its batch size and devices don't count.
        num_sources: classes.
        machine: where.
        devices: all of the machine's, described.
    """

    config: ConfigDict
    num_sources: int
    machine: Machine
    devices: parallel.Devices

    @cached_property
    def levels(self) -> tuple[int, ...]:
        """Where the config's mixing mixes: there is a program for each."""
        return make_mixing(**self.config.mix).levels

    def lower(self, level: int, per_chip: int) -> jax.stages.Lowered:
        """Return the step, built as a training builds it, of `per_chip` images a chip.

        It is one process's: with the pod's own devices it would hold its own images.
        """
        config, devices = self.config, self.devices
        shared = config.model.sync_batch_norm and len(devices) > 1
        shape = network_input(config).shape[1:]
        with targeting(platform_of(self.machine)):
            axis_name = parallel.AXIS if shared else None
            model = build_model(config, self.num_sources, axis_name)
            assert isinstance(model, RepMix)  # as `config.fit.name` is empty
            # How many steps an epoch has is a number in the program, whichever it is.
            optimizer = build_optimizer(config, steps_per_epoch=1000)
            mixing = make_mixing(**config.mix)
            steps = make_train_steps(config, model, optimizer, mixing, devices)
            state = jax.eval_shape(partial(create_state, model, optimizer, 0, shape))
            items = (len(parallel.local(devices)), per_chip)
            image = (*items, config.data.crop, config.data.crop, 3)
            batch = {
                "image": jax.ShapeDtypeStruct(image, jnp.uint8),
                "source": jax.ShapeDtypeStruct(items, jnp.int32),
                "position": jax.ShapeDtypeStruct(items, jnp.int32),
            }
            step: Any = steps[level]  # a mapped function, which can be lowered
            return step.lower(state, batch)

    def compile(self, level: int, per_chip: int) -> Outcome:
        """Compile the step; a line on the log before and after, as it takes minutes."""
        what = f"level {level}, {per_chip} images per chip"
        logger.info(f"compiling {what} for {self.machine.chip}:{self.machine.layout}")
        start = time.perf_counter()
        lowered = self.lower(level, per_chip)
        try:
            compiled = lowered.compile()
        except jax.errors.JaxRuntimeError as error:
            if not str(error).startswith("RESOURCE_EXHAUSTED"):
                raise InputError(f"{what}: {str(error).splitlines()[0]}") from error
            needed = needed_gb(str(error))
            outcome = Outcome(needed, False, time.perf_counter() - start)
        else:
            gb = sum(memory_gb(compiled).values())
            seconds = time.perf_counter() - start
            outcome = Outcome(gb, gb <= self.machine.usable_gb, seconds, compiled)
        taken = "more" if outcome.gb is None else f"{outcome.gb:.2f} GB"
        verdict = "fits" if outcome.fits else "does not fit"
        logger.info(
            f"{what}: {taken} of {self.machine.usable_gb:.2f} GB, {verdict} "
            f"({outcome.seconds:.0f} s)"
        )
        return outcome


def memory_gb(compiled: jax.stages.Compiled) -> dict[str, float]:
    """Return the memory that a compiled program takes of a chip, in GB, by its use."""
    memory = compiled.memory_analysis()
    assert memory is not None  # as on backends that do not say
    # What is given away by the caller, the state, is the result's memory as well.
    results = memory.output_size_in_bytes - memory.alias_size_in_bytes
    return {
        "state and images": memory.argument_size_in_bytes / 1e9,
        "results": results / 1e9,
        "scratch": memory.temp_size_in_bytes / 1e9,
        "program": memory.generated_code_size_in_bytes / 1e9,
    }


def needed_gb(message: str) -> float | None:
    """Return the memory that XLA says it lacks room for, in GB; None if it doesn't say.

    Its messages are "Used 18.1G of 15.7G hbm" and "... temporaries (18.1G) exceeds
    available HBM (15.7G)", in powers of 1,024.
    """
    amounts = re.findall(r"\b(\d+(?:\.\d+)?)([KMGT])\b", message)
    sizes = [float(x) * 1024 ** ("KMGT".index(unit) + 1) / 1e9 for x, unit in amounts]
    return max(sizes, default=None)


def find_largest(
    attempt: Callable[[int], tuple[float | None, bool]],
    start: int,
    limit: float,
) -> int:
    """Return the largest number that fits, with few attempts; 0: not even 1 does.

    Memory is nearly a straight line: where the line through the last two attempts
    crosses the limit is tried next, or the middle of what is left, where that did not
    halve it.

    Args:
        attempt: of a number, the memory it takes (None: more than there is) and whether
            it fits.
        start: the number to begin with.
        limit: the memory that there is, about.
    """
    low, high, guess = 0, math.inf, start
    tried: list[tuple[int, float]] = []
    while high - low > 1:
        before = high - low
        taken, fits = attempt(guess)
        low, high = (guess, high) if fits else (low, guess)
        if taken is not None:
            tried = [*tried[-1:], (guess, taken)]
        if 2 * (high - low) > before and math.isfinite(before):
            guess = (low + int(high)) // 2
            continue
        guess = 2 * low if fits else guess // 2
        if len(tried) == 2:
            (n, a), (m, b) = tried
            if a != b:
                guess = math.floor(n + (limit - a) * (m - n) / (b - a))
        guess = int(min(max(guess, low + 1), high - 1))
    return low


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
        `levels`, `seconds` of compiling, `memory_gb` by use, `usable_gb`, `fits`; where
        it does, `counts` (see `rmjax.bench.program.Counts`), `collectives`, `parts` (see `rmjax.bench.parts.sum_parts`) in `unit` and a `row`
        as those of `machines`; `largest`, the largest batch that fits, 0 for none.

    Raises:
        InputError: as `plan_training`, `describe_devices` and `parallel.check_batch`.
    """
    check_at_least(1, sources=num_sources, images=images, epochs=epochs)
    found = find_machine(machine)
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
    results = {
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
    exchanged = exchanges(program)
    seconds = {"compute": compute, "gradients": 0.0, "norms": 0.0}
    collectives = {kind: {"count": 0.0, "mb": 0.0} for kind in sorted(COLLECTIVES)}
    for exchange in exchanged:
        took = exchange.times * allreduce_seconds(exchange.volume, machine)
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
        lines += [f"largest batch that fits: {found:,} images, {each:,} per chip"]
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
        f"{counts['moved'] / 1e9:.1f} GB moved, {counts['kernels']:,.0f} kernels, "
        f"{counts['branches']:,.0f} branches, {counts['transfers']:.0f} transfers to or "
        "from the host",
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
        lines += [
            f"{counts['guessed_cycles'] / 1e6:.2f} M cycles of these are in loops whose "
            f"length the compiler does not know, counted as {UNKNOWN_TRIPS} rounds"
        ]
    return lines
