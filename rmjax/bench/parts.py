"""To which part of a training step a compiled operation belongs."""

import re
from typing import NamedTuple

from rmjax.bench.program import COLLECTIVES, Operation, Program

# The scopes that `rmjax.experiment.step` and `RepMix` open, and what they are about.
_SCOPES = {
    "simulate": "simulation",
    "corrupt": "corruption",
    "augment": "flip, crop, input",
    "mix": "mixing",
    "optimizer": "optimiser",
    "loss": "pool, heads, loss",
    "attribution": "pool, heads, loss",
    "detection": "pool, heads, loss",
    "embedding": "pool, heads, loss",
    "backbone": "pool, heads, loss",  # but for its stages: the mean over places
}
_STAGE = re.compile(r"(stem|layer[1-4])(_\d+)?")
_CONVOLUTION = re.compile(r"(downsample_)?conv\d*")
_NORM = re.compile(r"(downsample_)?bn\d*")
# What is found, in the order of a step; "other" is without a scope of these.
PARTS = (
    "flip, crop, input",
    "simulation",
    "corruption",
    "stem",
    "layer1",
    "layer2",
    "layer3",
    "layer4",
    "mixing",
    "pool, heads, loss",
    "optimiser",
    "other",
)


class Place(NamedTuple):
    """Where an operation belongs.

    Attributes:
        part: one of `PARTS`.
        kind: "convolutions", "norms" or "rest".
        backward: whether it is of the gradients.
    """

    part: str
    kind: str
    backward: bool


def place(origin: str) -> Place:
    """Return where an operation belongs by its scopes, see `Operation.origin`.

    What was fused counts whole where XLA says that it is from: a batch norm's sums, for
    instance, with the convolution that computes what is summed.
    """
    # jit(f)/transpose(jvp(RepMix))/backbone/stem/bn/add: transformations wrap names
    names = re.findall(r"[\w.]+", origin)
    stages = [found[1] for found in map(_STAGE.fullmatch, names) if found]
    scopes = [_SCOPES[name] for name in names if name in _SCOPES]
    part = (stages or scopes or ["other"])[0]
    kind = "rest"
    if any(map(_CONVOLUTION.fullmatch, names)):
        kind = "convolutions"
    elif any(map(_NORM.fullmatch, names)):
        kind = "norms"
    return Place(part, kind, "transpose(jvp" in origin)


def sum_parts(program: Program, *, cycles: bool) -> dict[str, dict[str, float]]:
    """Return what each part takes: the compiler's cycles, or the bytes it moves.

    Returns:
        By part, all of `PARTS`: `total`; `forward` and `backward`, which add up to it,
        as do `convolutions`, `norms` and `rest`; and `kernels` that are started.
    """
    keys = ("total", "forward", "backward", "convolutions", "norms", "rest", "kernels")
    parts = {part: dict.fromkeys(keys, 0.0) for part in PARTS}
    for run in program.runs():
        found = place(run.origin)
        row = parts[found.part]
        amount = run.times * (run.operation.cycles if cycles else run.moved)
        for key in ("total", found.kind, "backward" if found.backward else "forward"):
            row[key] += amount
        row["kernels"] += run.times * run.operation.is_kernel
    return parts


class Exchange(NamedTuple):
    """What chips tell each other at once.

    Attributes:
        kind: one of `COLLECTIVES`.
        volume: bytes of the result.
        times: per step.
        norms: whether it is of batch norms' statistics.
    """

    kind: str
    volume: float
    times: float
    norms: bool


def exchanges(program: Program) -> list[Exchange]:
    """Return all exchanges between chips, in order."""
    found = []
    for run in program.runs():
        kind = run.operation.kind.removesuffix("-start")
        if kind in COLLECTIVES:
            norms = place(run.origin).kind == "norms"
            volume = _received(run.operation)
            found.append(Exchange(kind, volume, run.times, norms))
    return found


def _received(operation: Operation) -> float:
    # What begins an exchange holds both what is sent and what is received; not where
    # they are of one shape.
    both = operation.kind.endswith("-start") and operation.kind != "all-reduce-start"
    return operation.volume / 2 if both else operation.volume
