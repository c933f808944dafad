"""Checks of numbers that users give."""

from collections.abc import Iterable

from rmjax.errors import InputError


def check_at_least(least: float, **numbers: float | Iterable[float]) -> None:
    """Check numbers, or several of a sort, by the names that users know them by.

    Raises:
        InputError: one is smaller than `least`; the message names it.
    """
    for name, value in numbers.items():
        if any(n < least for n in (value if isinstance(value, Iterable) else [value])):
            raise InputError(f"{name} = {value}: give at least {least}")
