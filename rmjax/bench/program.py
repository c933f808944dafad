"""What XLA's text of a compiled program says: what runs, how often, at which cost.

The text is that of `jax.stages.Compiled.as_text()`. A TPU's compiler writes its own
estimate of cycles beside what it will run; a GPU's writes none.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

# How often a loop is counted whose length depends on what it computes, such as drawing
# until a number is accepted.
UNKNOWN_TRIPS = 32
# What a GPU starts as a kernel, and a TPU as a program of its own.
KERNELS = {
    "convolution",
    "copy",
    "custom-call",
    "dot",
    "fft",
    "fusion",
    "gather",
    "reduce",
    "scatter",
    "sort",
}
COLLECTIVES = {
    "all-gather",
    "all-reduce",
    "all-to-all",
    "collective-broadcast",
    "collective-permute",
    "reduce-scatter",
}
# What passes between chip and host while the program runs.
TRANSFERS = {"infeed", "outfeed", "recv", "send"}

# What takes pieces of what it is given.
_PIECES = {"dynamic-slice", "gather", "slice"}

_HEADER = re.compile(r"(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$")
_OPERATION = re.compile(r"\s+(?:ROOT )?%?([\w.\-]+) = (.*?) ([\w\-]+)\(([^)]*)")
_SHAPE = re.compile(r"([a-z]+(\d*)\w*)\[([\d,]*)\]")


@dataclass(frozen=True)
class Operation:
    """A line of a computation.

    Attributes:
        name: of its result.
        kind: XLA's word for what it does.
        shape: of the result, as XLA writes it.
        operands: the names of what it takes.
        line: all of it.
    """

    name: str
    kind: str
    shape: str
    operands: tuple[str, ...]
    line: str

    @property
    def cycles(self) -> int:
        """Estimated by the compiler; 0 where it gives none."""
        found = re.search(r'"estimated_cycles":"(\d+)"', self.line)
        return int(found[1]) if found else 0

    @property
    def origin(self) -> str:
        """The scopes in the source that it is from, such as jit(f)/model/add, or none.

        Of operations that were fused, the scopes of the last one.
        """
        found = re.search(r'op_name="([^"]*)"', self.line)
        return found[1] if found else ""

    @property
    def volume(self) -> float:
        """Bytes of its result."""
        return sum(
            _count(sides)
            * (int(bits) if bits else 8)
            / 8  # pred, a byte, has no digits
            for _, bits, sides in _SHAPE.findall(self.shape)
        )

    @property
    def is_kernel(self) -> bool:
        """Whether it is started as a kernel."""
        return self.kind in KERNELS

    def names(self, attribute: str) -> list[str]:
        """Return which computations an attribute such as `body` names."""
        value = r"=(?:\{([^}]*)\}|([\w.%\-]+))"
        found = re.search(rf"\b{attribute}{value}", self.line)
        listed = (found[1] or found[2]).split(",") if found else []
        return [name.strip().lstrip("%") for name in listed]


class Run(NamedTuple):
    """What runs, and how often.

    Attributes:
        operation: what.
        origin: as the operation's, or of what was fused into it, or of the loop, branch
            or call that it is in.
        moved: bytes that a kernel reads and writes.
        times: how often, on average where branches are chosen among.
        guessed: whether that takes a loop to have `UNKNOWN_TRIPS`.
    """

    operation: Operation
    origin: str
    moved: float
    times: float
    guessed: bool


@dataclass(frozen=True)
class Program:
    """A compiled program.

    Attributes:
        computations: their operations, by name.
        entry: the name of the first.
    """

    computations: dict[str, list[Operation]]
    entry: str

    def runs(self) -> Iterator[Run]:
        """Yield what is run, in order; what was fused is one operation.

        Loops run as often as the compiler knows, or as the one number that their
        condition compares with; of a condition's branches, each is as likely.
        """
        return self._follow(self.entry, "", 1.0, False)

    def _follow(
        self, name: str, origin: str, times: float, guessed: bool
    ) -> Iterator[Run]:
        operations = self.computations.get(name, [])
        volumes = {operation.name: operation.volume for operation in operations}
        for operation in operations:
            within = operation.origin or self._fused_origin(operation) or origin
            if operation.kind == "while":
                trips = self._trips(operation)
                (body,) = operation.names("body")
                often = times * (UNKNOWN_TRIPS if trips is None else trips)
                yield from self._follow(body, within, often, guessed or trips is None)
                continue
            moved = self._moved(operation, volumes) if operation.is_kernel else 0.0
            yield Run(operation, within, moved, times, guessed)
            if operation.kind == "conditional":
                branches = operation.names("branch_computations") or [
                    *operation.names("true_computation"),
                    *operation.names("false_computation"),
                ]
                share = times / len(branches)
                for branch in branches:
                    yield from self._follow(branch, within, share, guessed)
            elif operation.kind == "call":
                (called,) = operation.names("to_apply")
                yield from self._follow(called, within, times, guessed)

    def _fused_origin(self, operation: Operation) -> str:
        """Return the origin of the last that was fused into it and has one, or none."""
        inner = self._fused(operation)
        return next((x.origin for x in reversed(inner) if x.origin), "")

    def _fused(self, operation: Operation) -> list[Operation]:
        return [
            fused
            for called in operation.names("calls")
            for fused in self.computations.get(called, [])
        ]

    def _moved(self, kernel: Operation, volumes: dict[str, float]) -> float:
        """Return the bytes that a kernel reads and writes, given those of all results.

        Where it takes only pieces of an operand, these; where it changes a piece of
        one in place, that piece, once read and once written.
        """
        read = [volumes.get(name, 0.0) for name in kernel.operands]
        written = kernel.volume
        inner = self._fused(kernel)
        pieces = {operation.name: operation.volume for operation in inner}
        for operand in inner:
            number = re.search(r" parameter\((\d+)\)", operand.line)
            users = [x for x in inner if operand.name in x.operands]
            if not number or not users:
                continue
            if all(user.kind in _PIECES for user in users):
                taken = sum(user.volume for user in users)
                read[int(number[1])] = min(operand.volume, taken)
            elif users[0].kind == "dynamic-update-slice" and len(users) == 1:
                changed, piece, *_ = users[0].operands
                if changed == operand.name:
                    read[int(number[1])] = pieces[piece]
                    written -= operand.volume - pieces[piece]
        return sum(read) + max(written, 0.0)

    def _trips(self, loop: Operation) -> int | None:
        """Return how often a loop runs; None where that is not known."""
        told = re.search(r"known_trip_count\D*(\d+)", loop.line)
        if told:
            return int(told[1])
        (condition,) = loop.names("condition")
        lines = " ".join(x.line for x in self.computations.get(condition, []))
        limits = re.findall(r"s32\[\]\S* constant\((\d+)\)", lines)
        return int(limits[0]) if len(limits) == 1 else None


def read_program(text: str) -> Program:
    """Read XLA's text of a compiled program."""
    computations: dict[str, list[Operation]] = {}
    entry, operations = "", None
    for line in text.splitlines():
        if header := _HEADER.match(line):
            operations = computations[header[2]] = []
            entry = header[2] if header[1] else entry
        elif line.startswith("}"):
            operations = None
        elif operations is not None and (found := _OPERATION.match(line)):
            name, shape, kind, operands = found.groups()
            taken = tuple(re.findall(r"%([\w.\-]+)", operands))
            operations.append(Operation(name, kind, shape, taken, line))
    return Program(computations, entry)


class Counts(NamedTuple):
    """What a program takes in all.

    Attributes:
        cycles: the compiler's estimate; 0 on a GPU.
        guessed_cycles: of these, in loops of unknown length.
        kernels: started.
        moved: bytes that they read and write.
        branches: conditions decided while it runs; on a GPU the host decides them.
        transfers: operations that move data to or from the host, wherever they are.
        doubles: operations with results in float64, wherever they are.
    """

    cycles: float
    guessed_cycles: float
    kernels: float
    moved: float
    branches: float
    transfers: int
    doubles: int


def count(program: Program) -> Counts:
    """Count what a program takes."""
    runs = [*program.runs()]
    everything = [x for part in program.computations.values() for x in part]
    return Counts(
        cycles=sum(r.times * r.operation.cycles for r in runs),
        guessed_cycles=sum(r.times * r.operation.cycles for r in runs if r.guessed),
        kernels=sum(r.times for r in runs if r.operation.is_kernel),
        moved=sum(r.times * r.moved for r in runs),
        branches=sum(r.times for r in runs if r.operation.kind == "conditional"),
        transfers=sum(map(_is_transfer, everything)),
        doubles=sum("f64[" in operation.shape for operation in everything),
    )


def _is_transfer(operation: Operation) -> bool:
    if operation.kind in TRANSFERS:
        return True
    return operation.kind == "custom-call" and "callback" in operation.line


def _count(sides: str) -> int:
    product = 1
    for side in sides.split(",") if sides else ():
        product *= int(side)
    return product
