"""Records of a split, read from the files it was written to."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rmjax.errors import InputError


@dataclass(frozen=True)
class Records(Sequence):
    """A split's records for random access; a file that can't be read is named.

    Attributes:
        source: the records, as TFDS reads them, many at a time.
        paths: the files, in the order of their records.
        lengths: how many records each of them holds.
    """

    source: Any
    paths: Sequence[Path]
    lengths: Sequence[int]

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, number: Any) -> Any:
        if number >= len(self):
            raise IndexError(number)
        return self.__getitems__([number])[0]

    def __getitems__(self, numbers: Sequence[int]) -> list:
        """Return the records of these numbers.

        Raises:
            InputError: one of the files is damaged or gone.
        """
        try:
            return self._read(numbers)
        except Exception as error:  # array_record and protobuf raise many types
            for number in numbers:  # which of them?
                self._try(int(number))
            raise InputError(f"{self.paths[0].parent}: {_first_line(error)}") from error

    def _try(self, number: int) -> None:
        try:
            self._read([number])
        except Exception as error:
            ends = np.cumsum(self.lengths)
            path = self.paths[int(np.searchsorted(ends, number, side="right"))]
            raise InputError(
                f"{path}: can't be read ({_first_line(error)}); put the file back, or "
                f"remove {path.parent} and prepare it anew, then run the same command "
                "again"
            ) from error

    def _read(self, numbers: Sequence[int]) -> list:
        found = self.source.__getitems__(numbers)
        if b"" in found:  # of a file that was cut while it was open
            raise ValueError("a record is empty")
        return found


def _first_line(error: Exception) -> str:
    return (str(error).strip() or repr(error)).splitlines()[0][:200]
