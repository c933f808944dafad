"""Checks of numbers that users give."""

from rmjax.errors import InputError


def check_at_least(least: float, **numbers: float) -> None:
    """Check numbers, given by the names that users know them by.

    Raises:
        InputError: one is smaller than `least`; the message names it.
    """
    for name, number in numbers.items():
        if number < least:
            raise InputError(f"{name} = {number}: give at least {least}")
