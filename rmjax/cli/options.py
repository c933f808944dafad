"""The options that several commands share, and how words are read."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from rmjax.cli.parser import Word
from rmjax.errors import InputError
from rmjax.pretrained.addresses import is_address
from rmjax.utils.files import check_writable
from rmjax.utils.places import as_path, local_path, path_of

if TYPE_CHECKING:
    from rmjax.data.columns import Columns


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
    path = local_path(text)
    if path.is_dir():
        raise InputError(f"{text} is a folder: give a file")
    if not path.parent.is_dir():
        raise InputError(f"{path.parent}: no such folder")
    check_writable(path.parent)
    return text


def new_folder(text: str) -> str:
    """Read the path of a folder to write to, which is there or can be made."""
    local_path(text)
    return new_place(text)


def new_place(text: str) -> str:
    """Read the path of a folder to write to, or an address in a store."""
    if is_address(text):
        raise InputError(
            f"{text} is on the Hub, where only `rmjax push` writes: give a folder"
        )
    check_writable(path_of(text))
    return text


Names = tuple[str, ...]
Integers = tuple[int, ...]
Count = Annotated[int, Word(at_least_one)]
Fraction = Annotated[tuple[int, int], Word(fraction)]
Share = Annotated[float, Word(share)]
NewFile = Annotated[str, Word(new_file)]
NewFolder = Annotated[str, Word(new_folder)]
NewPlace = Annotated[str, Word(new_place)]

ConfigName = Annotated[
    str, "name of a shipped config, a Python file, or the folder of a run"
]
RunFolder = Annotated[str, "folder of the run"]
CopiedRun = Annotated[
    str,
    "folder of the run, or hf:OWNER/NAME on the Hub, of which a working copy is made in "
    "runs/OWNER--NAME",
]
Weights = Annotated[
    str | None,
    "folder of a run, a file of weights, or hf:OWNER/NAME on the Hugging Face Hub "
    "(default: the fingerprint network that ships with rmjax)",
]
DataDir = Annotated[str, "folder of all prepared data sets"]
RunDataDir = Annotated[
    str | None, "folder of all prepared data sets (default: as in the config)"
]
JsonFile = Annotated[NewFile | None, "a file to write the figures to as well"]


def find_run(workdir: str, distributed: bool = False) -> Path:
    """Return the folder of a run; of one on the Hub, that of a working copy.

    Raises:
        InputError: the copy can't be made, or several processes were to make it.
    """
    if not is_address(workdir):
        return as_path(workdir)
    if distributed:
        raise InputError(
            f"{workdir}: with --distributed, make a run of it first: rmjax convert "
            f"{workdir} --out DIR"
        )
    from rmjax.inference.local import working_copy

    return working_copy(workdir)


def name_of(place: str) -> str:
    """Return what to call a data set of these files: as they are, or their folder is.

    Raises:
        InputError: neither has a name.
    """
    *folders, last = [part for part in re.split(r"[/:]", place) if part] or [""]
    if re.search(r"[*?{\[]", last) and folders:
        last = folders[-1]
    stem = last.partition(".")[0]
    name = re.sub(r"[^\w-]+", "_", stem, flags=re.ASCII).strip("_-")
    if not name:
        raise InputError(f"{place}: give it a name (--name)")
    return name


@dataclass(frozen=True, kw_only=True)
class ColumnNames:
    """Where parquet files or WebDataset shards say what an image is.

    A column, with dots for nested ones; of shards a key of the JSON files, or cls or txt
    for such a member.

    Attributes:
        image: the encoded image (default: the one that looks like it); of shards its
            suffix
        source: what made it
        semantic: what it shows
        real: which sources are real photographs, by name or class number, A,B
    """

    image: str = ""
    source: str = ""
    semantic: str = ""
    real: Names = ()

    def read(self, group: str = "", split: str = "") -> "Columns":
        """Return them, and two more, as the readers take them."""
        from rmjax.data.columns import Columns

        return Columns(**vars(self), group=group, split=split)


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
