"""What the parsers of several commands have in common."""

import argparse
from collections.abc import Callable

# Adds a command to a parser: `add_parser` of its subparsers.
Add = Callable[..., argparse.ArgumentParser]


def at_least_one(text: str) -> int:
    """Read a count of the command line."""
    if not (text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 on")
    return int(text)


def fraction(text: str) -> tuple[int, int]:
    """Read a part K/N of the command line."""
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and int(number) < int(count)):
        raise argparse.ArgumentTypeError(f"'{text}' is not K/N with K from 0 to N - 1")
    return int(number), int(count)


def names(text: str) -> tuple[str, ...]:
    """Read a list A,B of the command line."""
    found = tuple(text.split(",")) if text else ()
    if not all(found):
        raise argparse.ArgumentTypeError(f"{text!r} has an empty name")
    return found


def add_data_dir(parser: argparse.ArgumentParser, default: str | None) -> None:
    """Add the option of where data sets are; None stands for the run's own place."""
    where = f"default: {default}" if default else "default: as in the config"
    parser.add_argument(
        "--data-dir",
        default=default,
        help=f"folder of all prepared data sets ({where})",
    )
