"""Looking things up by name."""

from collections.abc import Collection, Mapping
from typing import TypeVar

from rmjax.errors import InputError

T = TypeVar("T")


def choose(what: str, name: str, among: Mapping[str, T]) -> T:
    """Return the entry called `name` of a registry; arguments and errors as below."""
    check_choice(what, name, among)
    return among[name]


def check_choice(what: str, name: str, among: Collection[str]) -> None:
    """Check that a name is one of those that there are.

    Args:
        what: what the entries are, for the message: "mixing", or a config's key.
        name: of the entry.
        among: the names.

    Raises:
        InputError: it is none of them; the message lists the choices.
    """
    if name not in among:
        raise InputError(f"unknown {what} '{name}'; choose from {', '.join(among)}")
