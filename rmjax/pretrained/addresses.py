"""Addresses on the Hugging Face Hub: `hf:owner/name`, `hf:owner/name@revision`."""

import re
from dataclasses import dataclass
from pathlib import Path

from rmjax.errors import InputError

PREFIX = "hf:"
_ADDRESS = re.compile(r"hf:([\w.-]+/[\w.-]+)(?:@([\w.+/-]+))?", re.ASCII)


@dataclass(frozen=True)
class Address:
    """A repository of the Hub.

    Attributes:
        repo: `owner/name`.
        revision: a branch, tag or commit; None for the main branch.
    """

    repo: str
    revision: str | None = None

    def __str__(self) -> str:
        return f"{PREFIX}{self.repo}" + (f"@{self.revision}" if self.revision else "")


def is_address(path: str | Path) -> bool:
    """Tell whether a path is an address on the Hub."""
    return str(path).startswith(PREFIX)


def parse_address(text: str | Path) -> Address:
    """Read `hf:owner/name` or `hf:owner/name@revision`.

    Raises:
        InputError: it is neither.
    """
    found = _ADDRESS.fullmatch(str(text))
    if found is None or ".." in str(text):
        raise InputError(
            f"{text}: no address on the Hub; give hf:OWNER/NAME, or "
            "hf:OWNER/NAME@REVISION with a branch, tag or commit"
        )
    return Address(*found.groups())
