"""A training's very step, compiled ahead of time for a machine that is not here."""

import logging
import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from rmjax.bench.machines import Machine
from rmjax.bench.topology import platform_of
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
from rmjax.utils.platform import targeting

_NO_TILES = "find output tile sizes"  # in XLA's message

logger = logging.getLogger(__name__)


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

        It is lowered as one process that had all chips would: a process of a pod has the
        same program, and its own images alone.
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
            items = (len(devices), per_chip)
            image = (*items, config.data.crop, config.data.crop, 3)
            batch = {
                "image": jax.ShapeDtypeStruct(image, jnp.uint8),
                "source": jax.ShapeDtypeStruct(items, jnp.int32),
                "semantic": jax.ShapeDtypeStruct(items, jnp.int32),
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
            compiled = _compile(lowered)
        except jax.errors.JaxRuntimeError as error:
            if not str(error).startswith("RESOURCE_EXHAUSTED"):
                raise InputError(f"{what}: {str(error).splitlines()[0]}") from error
            needed = needed_gb(str(error))
            outcome = Outcome(needed, False, time.perf_counter() - start)
        else:
            gb = sum(memory_gb(compiled).values())
            seconds = time.perf_counter() - start
            # A TPU's compiler gives up where it has no room; a GPU's does not look.
            fits = bool(self.machine.ghz) or gb <= self.machine.usable_gb
            outcome = Outcome(gb, fits, seconds, compiled)
        taken = "more" if outcome.gb is None else f"{outcome.gb:.2f} GB"
        verdict = "fits" if outcome.fits else "does not fit"
        logger.info(
            f"{what}: {taken} of {self.machine.usable_gb:.2f} GB, {verdict} "
            f"({outcome.seconds:.0f} s)"
        )
        return outcome


def _compile(lowered: jax.stages.Lowered) -> jax.stages.Compiled:
    """Compile; products that XLA finds no tiles for go to the GPU's library instead.

    Without a GPU to try them on, XLA takes the first tiles that it thinks of, and of a
    transformer's projection after the attention (jax 0.10.2) it then can make none.
    """
    try:
        return lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if _NO_TILES not in str(error):
            raise
        return lowered.compile({"xla_gpu_enable_triton_gemm": False})


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
