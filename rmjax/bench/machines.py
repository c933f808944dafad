"""Accelerators that train together, by name, with their makers' figures.

References:
    H100 SXM (989 TFLOP/s, 80 GB, 3,350 GB/s):
        https://www.nvidia.com/en-us/data-center/h100/
    What NVLink gives a ring of its 450 GB/s: https://github.com/NVIDIA/nccl/issues/1264
    TPUs' TFLOP/s, memory, links, slices and hosts:
        https://docs.cloud.google.com/tpu/docs/v5e
        https://docs.cloud.google.com/tpu/docs/v5p
        https://docs.cloud.google.com/tpu/docs/v6e
    The ring's volume and steps: Patarasuk and Yuan, Bandwidth optimal all-reduce
        algorithms for clusters of workstations, JPDC 2009
"""

import math
from dataclasses import dataclass, replace

from rmjax.errors import InputError


@dataclass(frozen=True)
class Machine:
    """Accelerators that train together.

    Attributes:
        torus: chips along each axis of their network.
        tflops: of one's bfloat16 products, as its maker says.
        memory_gb: of one.
        memory_speed: of one's memory, GB/s.
        memory_share: of that speed, what a training step reaches, counting the bytes
            as `rmjax.bench.plan` does.
        link_speed: of a ring through it, GB/s in one direction.
        latency_us: of an all-reduce of a few values, microseconds; assumed.
        cores: virtual processors of all hosts, that decode images.
        price: of one chip, US dollars per hour on demand; assumed.
        chip: key of `CHIPS`.
        usable_gb: memory of one that a program may take, GB.
        ghz: clock rate by which a compiler's cycles are seconds; 0: it estimates none.
    """

    torus: tuple[int, ...]
    tflops: float
    memory_gb: float
    memory_speed: float
    memory_share: float
    link_speed: float
    latency_us: float
    cores: int
    price: float
    chip: str
    usable_gb: float
    ghz: float = 0.0

    @property
    def chips(self) -> int:
        """How many there are."""
        return math.prod(self.torus)

    @property
    def layout(self) -> str:
        """How they are arranged, such as 2x4."""
        return "x".join(map(str, self.torus))


# One of each. A TPU's clock rate is its peak by what its matrix units do in a cycle: v5e
# 4 x 128 x 128 products and as many sums, v5p twice as many, v6e 4 x 256 x 256. (Google
# says 2 units for v6e; its compiler counts 369,000 operations a cycle for a product of
# 8,192, which two could not do.) What a program may take of their memory is in the
# compiler's messages: 15.75, 95.74 and 31.25 GiB. Of a GPU's, JAX takes three quarters
# unless it is told otherwise. Of a TPU's links, half of what Google gives for both
# directions goes one way; a ring runs along one of its two or three axes. The share of
# memory speed: two steps measured on an H100, 256 images in bfloat16 in 50.9 ms and 64
# in float32 in 25.7; the cycles that v5e's compiler gives a step,
# for the others too (docs/results/accelerators.md).
CHIPS: dict[str, Machine] = {
    "h100": Machine((1,), 989, 80, 3350, 0.4, 375, 0, 26, 11.06, "h100", 63.7),
    "v5e": Machine((1, 1), 197, 16, 819, 0.63, 100, 0, 28, 1.2, "v5e", 16.91, 1.5),
    "v5p": Machine((1, 1, 1), 459, 95, 2765, 0.63, 200, 0, 52, 4.2, "v5p", 102.8, 1.75),
    "v6e": Machine((1, 1), 918, 32, 1638, 0.63, 200, 0, 45, 2.7, "v6e", 33.55, 1.75),
}

# What there is of each: the slices that Google offers, the GPUs of one host.
_SLICES = "1x1 2x2 2x4 4x4 4x8 8x8 8x16 16x16"
_CUBES = "2x2x1 2x2x2 2x2x4 2x4x4 4x4x4 4x4x8 4x8x8 8x8x8 8x8x16 8x16x16"
_CUBES += " 16x16x16 16x16x24"
LAYOUTS: dict[str, tuple[str, ...]] = {
    "h100": ("1", "8"),
    "v5e": tuple(_SLICES.split()),
    "v5p": tuple(_CUBES.split()),
    "v6e": tuple(_SLICES.split()),
}


def make_machine(chip: str, layout: str) -> Machine:
    """Return chips of a kind in one of its `LAYOUTS`."""
    one = CHIPS[chip]
    torus = tuple(map(int, layout.split("x")))
    chips = math.prod(torus)
    latency = 0.0
    if chips > 1:
        # A microsecond for each link of the rings, there and back, and two to begin;
        # through NVSwitch every GPU is as far. Assumed, both.
        latency = 2 + 2 * sum(side - 1 for side in torus) if one.ghz else 20
    return replace(one, torus=torus, latency_us=latency, cores=chips * one.cores)


# Those planned for by default, under the names that they are rented by.
MACHINES: dict[str, Machine] = {
    "h100": make_machine("h100", "1"),
    "h100x8": make_machine("h100", "8"),
    "v5e-8": make_machine("v5e", "2x4"),
    "v5e-64": make_machine("v5e", "8x8"),
}


def find_machine(name: str) -> Machine:
    """Return the machine called `name`: one of `MACHINES`, or CHIP:LAYOUT.

    Raises:
        InputError: there is none; the message lists the choices.
    """
    if name in MACHINES:
        return MACHINES[name]
    chip, _, layout = name.partition(":")
    if chip not in CHIPS:
        others = ", ".join(f"{c}:{layouts[1]}" for c, layouts in LAYOUTS.items())
        raise InputError(
            f"unknown machine '{name}'; choose from {', '.join(MACHINES)}, or give chip "
            f"and layout, such as {others}"
        )
    if layout not in LAYOUTS[chip]:
        listed = ", ".join(f"{chip}:{known}" for known in LAYOUTS[chip])
        raise InputError(f"unknown machine '{name}'; choose from {listed}")
    return make_machine(chip, layout)


def allreduce_seconds(volume: float, machine: Machine) -> float:
    """Return seconds of an all-reduce, by rings along one axis after the other.

    Args:
        volume: bytes that every chip has.
        machine: its torus, links and latency; a lone chip needs no time.
    """
    seconds = machine.latency_us / 1e6 if machine.chips > 1 else 0.0
    for chips in machine.torus:
        volume /= chips  # what a chip sends in a round, and reduces along the next axis
        seconds += 2 * (chips - 1) * volume / (machine.link_speed * 1e9)
    return seconds
