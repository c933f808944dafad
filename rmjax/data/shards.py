"""Records of a split, read from the files it was written to."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rmjax.errors import InputError
from rmjax.utils.places import reason


@dataclass(frozen=True)
class Records(Sequence):
    """A split's records for random access; a file that can't be read is named.

    Attributes:
        source: the records, as TFDS or `RemoteRecords` reads them, many at a time.
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
        except InputError:
            raise
        except Exception as error:  # array_record and protobuf raise many types
            if len(numbers) > 1:  # which of them?
                return [self[int(number)] for number in numbers]
            ends = np.cumsum(self.lengths)
            path = self.paths[int(np.searchsorted(ends, numbers[0], side="right"))]
            raise InputError(
                f"{path}: can't be read ({reason(error)}); put the file back, or "
                f"remove {path.parent} and prepare it anew, then run the same command "
                "again"
            ) from error

    def _read(self, numbers: Sequence[int]) -> list:
        records = self.source.__getitems__(numbers)
        if b"" in records:  # of a file that was cut while it was open
            raise ValueError("a record is empty")
        return records
