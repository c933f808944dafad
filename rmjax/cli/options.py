"""The options that several commands share, and how words are read."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from rmjax.cli.parser import Word
from rmjax.errors import InputError
from rmjax.utils.files import check_writable


def at_least_one(text: str) -> int:
    """Read a count."""
    if not (text.isdecimal() and int(text)):
        raise InputError(f"{text!r} is not a number from 1 on")
    return int(text)


def fraction(text: str) -> tuple[int, int]:
    """Read a part K/N."""
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and int(number) < int(count)):
        raise InputError(f"'{text}' is not K/N with K from 0 to N - 1")
    return int(number), int(count)


def share(text: str) -> float:
    """Read a number between 0 and 1, neither of them."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < 1:
        raise InputError(f"'{text}' is not a number between 0 and 1")
    return number


def new_file(text: str) -> str:
    """Read the path of a file to write, in a folder that is there."""
    path = Path(text)
    if path.is_dir():
        raise InputError(f"{text} is a folder: give a file")
    if not path.parent.is_dir():
        raise InputError(f"{path.parent}: no such folder")
    check_writable(path.parent)
    return text


def new_folder(text: str) -> str:
    """Read the path of a folder to write to, which is there or can be made."""
    check_writable(Path(text))
    return text


Names = tuple[str, ...]
Integers = tuple[int, ...]
Count = Annotated[int, Word(at_least_one)]
Fraction = Annotated[tuple[int, int], Word(fraction)]
Share = Annotated[float, Word(share)]
NewFile = Annotated[str, Word(new_file)]
NewFolder = Annotated[str, Word(new_folder)]

ConfigName = Annotated[
    str, "name of a shipped config, a Python file, or the folder of a run"
]
RunFolder = Annotated[str, "folder of the run"]
Weights = Annotated[
    str | None,
    "folder of a run, or a file of weights (default: the fingerprint network that ships "
    "with rmjax)",
]
DataDir = Annotated[str, "folder of all prepared data sets"]
RunDataDir = Annotated[
    str | None, "folder of all prepared data sets (default: as in the config)"
]
JsonFile = Annotated[NewFile | None, "a file to write the figures to as well"]


@dataclass(frozen=True, kw_only=True)
class Hosts:
    """Several processes.

    The same command on every host, with --distributed; where JAX can't find out itself,
    with the three other options too.

    Attributes:
        distributed: work with other processes (on Cloud TPU, Slurm and Kubernetes: no
            more)
        coordinator: of process 0
        processes: how many there are
        process: which one this is, from 0
    """

    distributed: bool = False
    coordinator: Annotated[str | None, Word(str, "HOST:PORT")] = None
    processes: Annotated[int | None, Word(int, "N")] = None
    process: Annotated[int | None, Word(int, "I")] = None

    def join(self, *, preemptible: bool = False) -> None:
        """Join the other processes, where the command is one of several.

        Raises:
            InputError: the options are wrong, or incomplete.
        """
        where = (self.coordinator, self.processes, self.process)
        if self.distributed:
            from rmjax.experiment.hosts import connect

            connect(*where, preemptible=preemptible)
        elif where != (None, None, None):
            raise InputError(
                "--coordinator, --processes and --process are for --distributed: add it"
            )

    def say(self, text: str) -> None:
        """Print a line; of several processes, the first does."""
        from rmjax.experiment.hosts import is_first

        if not self.distributed or is_first():
            print(text)
