"""What a training costs on machines that are not at hand: counted, then estimated.

Counting comes from the network's shapes alone. The estimate rests on what XLA moves
through an H100's memory in ResNet-50's training step, and on the share of a memory's speed
that such a step reaches: on an H100 as measured, in float32 and in bfloat16 alike; on a
TPU by the cycles of its compiler. Products count where they take longer.

`rmjax.bench.compile` asks the machines' own compilers instead.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from rmjax.bench.machines import (
    MACHINES,
    Machine,
    allreduce_seconds,
    find_machine,
)
from rmjax.errors import InputError
from rmjax.experiment.build import build_model, network_input, variable_shapes
from rmjax.experiment.ranges import check_values
from rmjax.experiment.step import HEADS
from rmjax.mixing import make_mixing
from rmjax.models.conv import Conv
from rmjax.utils.checks import check_at_least
from rmjax.utils.table import format_table

PyTree = Any

_PRODUCTS = (Conv, nn.Conv, nn.Dense)

# A training step's products are those of a forward pass, and as many again for the
# gradients of inputs and of weights each.
PASSES = 3
# Fitted to XLA's `bytes accessed` of eight programs that it compiled for an H100, and to
# their scratch memory (docs/results/accelerators.md): passes over the values that convolutions put
# out, in the network's type, and over the parameters; values kept for the gradients.
MAP_PASSES, PARAM_PASSES, MAPS_KEPT = 11.5, 28, 2
# Measured there: a large product reached 590 of 989 TFLOP/s.
PRODUCT_SHARE = 0.6
# JPEG images of 256 px that one of its host's processors decoded per second.
DECODED = 970
ADAM = 4  # values per parameter: itself, its gradient, and two moments
SAVED = 3  # of them in a checkpoint


# What is printed of a machine's figures: by title, their key and their format.
COLUMNS = {
    "ms per step": ("step_ms", ".1f"),
    "compute": ("compute_ms", ".1f"),
    "gradients": ("gradients_ms", ".2f"),
    "norms": ("norms_ms", ".2f"),
    "input": ("input_ms", ".2f"),
    "images/s": ("images_per_second", ",.0f"),
    "efficiency": ("efficiency", ".0%"),
    "GB per chip": ("chip_gb", ".1f"),
    "hours": ("hours", ".1f"),
    "USD": ("dollars", ",.0f"),
    "": ("note", ""),
}


@dataclass(frozen=True)
class Size:
    """What the shapes of a network say.

    Attributes:
        params: trained values.
        stats: running statistics.
        norms: batch norms.
        maps: values per image that its convolutions and dense layers put out.
        gflop: of an image's forward pass, by the definition of the convolution.
    """

    params: int
    stats: int
    norms: int
    maps: int
    gflop: float


def measure_size(config: ConfigDict, num_sources: int) -> Size:
    """Count a config's network for images of `data.crop` px; nothing is computed."""
    model, variables, inputs = _plain_network(config, num_sources)
    apply = partial(
        model.apply,
        capture_intermediates=lambda module, _: isinstance(module, _PRODUCTS),
        mutable=["intermediates"],
    )
    _, outputs = jax.eval_shape(apply, variables, inputs)
    stats = variables.get("batch_stats", {})
    return Size(
        params=_count(variables["params"]),
        stats=_count(stats),
        norms=len(jax.tree.leaves(stats)) // 2,  # a mean and a variance each
        maps=_count(outputs),
        gflop=forward_gflop(config, num_sources),
    )


def forward_gflop(config: ConfigDict, num_sources: int) -> float:
    """Return GFLOP of an image's forward pass, by the definition of the convolution."""
    model, variables, inputs = _plain_network(config, num_sources)

    def answer(variables: PyTree, inputs: jax.Array) -> list[jax.Array]:
        outputs: Any = model.apply(variables, inputs)  # others need not be computed
        return [outputs[name] for name in ("embedding", *HEADS) if name in outputs]

    costs = jax.jit(answer).lower(variables, inputs).cost_analysis()
    assert costs is not None  # as on backends that do not count
    return costs["flops"] / 1e9


def _plain_network(
    config: ConfigDict, num_sources: int
) -> tuple[nn.Module, PyTree, jax.ShapeDtypeStruct]:
    """Return the network without tricks, and the shapes of its variables and input."""
    model = build_model(config, num_sources, lowering="native")
    return model, variable_shapes(config, num_sources), network_input(config)


def step_seconds(size: Size, machine: Machine, batch: int, dtype: str) -> dict:
    """Estimate a training step of `batch` images over all chips.

    Nothing overlaps but reading images: gradients are reduced after all are known.

    Returns:
        Seconds: `compute`, `gradients` (their all-reduce), `norms` (the statistics of
        batch norms over all chips, once forward and once backward, one after the
        other), `input` (decoding on the hosts' cores), and `step`.
    """
    images = batch / machine.chips
    maps = size.maps * images * jnp.dtype(dtype).itemsize
    moved = MAP_PASSES * maps + PARAM_PASSES * size.params * 4
    gflop = images * PASSES * size.gflop
    return sum_seconds(
        compute=compute_seconds(moved, gflop, machine, dtype),
        gradients=allreduce_seconds(4 * (size.params + size.stats), machine),
        norms=2 * size.norms * allreduce_seconds(0, machine),
        images=batch,
        machine=machine,
    )


def compute_seconds(moved: float, gflop: float, machine: Machine, dtype: str) -> float:
    """Estimate what a chip takes to move so many bytes, or to multiply, if longer."""
    moving = moved / (machine.memory_share * machine.memory_speed * 1e9)
    speed = machine.tflops * (1 if dtype == "bfloat16" else 0.5)  # TF32 is half
    return max(moving, gflop / (PRODUCT_SHARE * speed * 1e3))


def sum_seconds(
    *, compute: float, gradients: float, norms: float, images: int, machine: Machine
) -> dict[str, float]:
    """Return the seconds of a step and what it consists of, see `step_seconds`."""
    reading = images / (DECODED * machine.cores)
    busy = compute + gradients + norms
    return {
        "compute": compute,
        "gradients": gradients,
        "norms": norms,
        "input": reading,
        "step": max(busy, reading),
    }


def chip_gb(size: Size, images: float, dtype: str) -> float:
    """Estimate the memory of one chip with so many images, in GB."""
    maps = MAPS_KEPT * size.maps * images * jnp.dtype(dtype).itemsize
    return (4 * ADAM * size.params + maps) / 1e9


def plan_training(
    config: ConfigDict,
    *,
    num_sources: int,
    images: int,
    epochs: int,
    machines: Sequence[str] = tuple(MACHINES),
    price: float | None = None,
) -> dict:
    """Estimate a whole training on several machines.

    Args:
        config: `batch_size`, `mix`, `model` and `data.crop` count.
        num_sources: classes.
        images: in the training set; an epoch is one pass over first members.
        epochs: of them.
        machines: names, see `find_machine`.
        price: US dollars per chip and hour, instead of those there.

    Returns:
        `size` (see `Size`), `checkpoint_mb`, `allreduce_mb`, `steps`, `read` (images
        decoded in all); and by machine `batch_multiple`, which its chips can share;
        where the batch is one, `step_ms` and what it consists of, `images_per_second`,
        `efficiency` (compute's share of the step), `bound`, `chip_gb`, `fits`, `hours`
        and `dollars`.

    Raises:
        InputError: no such machine (the message lists the choices), or numbers under 1.
    """
    check_at_least(1, sources=num_sources, images=images, epochs=epochs)
    check_values(config)
    if config.fit.name:
        raise InputError(
            f"fit.name = '{config.fit.name}': only a training by gradient is planned"
        )
    size = measure_size(config, num_sources)
    mixing, batch = make_mixing(**config.mix), config.batch_size
    read = images * epochs * mixing.drawn
    steps = epochs * max(images * mixing.drawn // batch, 1)
    rows = {}
    for name in machines:
        machine = find_machine(name)
        if price is not None:
            machine = replace(machine, price=price)
        multiple = machine.chips * mixing.unit
        rows[name] = {"batch_multiple": multiple}
        if batch % multiple == 0:
            dtype = config.model.dtype
            seconds = step_seconds(size, machine, batch, dtype)
            needed = chip_gb(size, batch / machine.chips, dtype)
            rows[name] |= price_steps(seconds, needed, machine, batch, steps)
    return {
        "batch_size": batch,
        "dtype": config.model.dtype,
        "size": vars(size),
        "checkpoint_mb": 4 * (SAVED * size.params + size.stats) / 1e6,
        "allreduce_mb": 4 * (size.params + size.stats) / 1e6,
        "steps": steps,
        "read": read,
        "machines": rows,
    }


def price_steps(
    seconds: dict[str, float], chip_gb: float, machine: Machine, batch: int, steps: int
) -> dict:
    """Return what a machine's row of `plan_training` says.

    Args:
        seconds: what a step consists of, as from `step_seconds`.
        chip_gb: memory that it needs of a chip.
        machine: where.
        batch: images of a step, over all chips.
        steps: of the training.
    """
    step = seconds["step"]
    hours = steps * step / 3600
    return {
        **{f"{name}_ms": 1e3 * value for name, value in seconds.items()},
        "images_per_second": batch / step,
        "efficiency": seconds["compute"] / step,
        "bound": max(seconds.keys() - {"step"}, key=lambda name: seconds[name]),
        "chip_gb": chip_gb,
        "fits": chip_gb < machine.memory_gb,
        "hours": hours,
        "dollars": hours * machine.chips * machine.price,
    }


def format_plan(plan: dict) -> str:
    """Return `plan_training`'s results as lines of text."""
    size = plan["size"]
    rows, notes = {}, []
    for name, row in plan["machines"].items():
        if "step_ms" in row:
            rows[name] = row | {"note": None if row["fits"] else "does not fit"}
        else:
            notes.append(f"{name} needs a multiple of {row['batch_multiple']} images")
    return "\n".join(
        [
            f"{size['params'] / 1e6:.1f} M parameters, {size['gflop']:.2f} GFLOP per "
            f"image and forward pass, {size['maps'] / 1e6:.1f} M values in its maps",
            f"{plan['steps']:,} steps of {plan['batch_size']} images ({plan['dtype']}), "
            f"{plan['read']:,} images decoded; {plan['allreduce_mb']:.0f} MB all-reduced "
            f"per step, {plan['checkpoint_mb']:.0f} MB per checkpoint",
            "",
            *format_table("estimated", COLUMNS, rows),
            *notes,
        ]
    )


def _count(tree: PyTree) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))
