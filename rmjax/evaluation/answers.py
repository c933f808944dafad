"""Arrays on disk that are filled in from the front and survive a stop."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from rmjax.errors import InputError
from rmjax.utils.files import write_json


class Answers:
    """float32 arrays in a folder, and how many rows of them are finished.

    Attributes:
        done: finished rows, of the axis that `finish` counts.
    """

    def __init__(self, folder: Path, shapes: Mapping[str, tuple[int, ...]], key: str):
        """Open what an earlier run left in `folder` under the same `key`, or start.

        Args:
            folder: made if it is not there; emptied if it holds other answers.
            shapes: of the arrays, by name.
            key: names all that the values depend on.

        Raises:
            InputError: the folder can't be written to, or has no room.
        """
        self._folder, self._shapes, self._key = folder, dict(shapes), key
        self._progress = folder / "progress.json"
        self.done = self._read_progress()
        if self.done is None:
            self.done = 0
            with self._errors():
                self._allocate()

    def write(self, name: str, place: tuple[int, ...], values: np.ndarray) -> None:
        """Write `values` into an array from the row `place` on.

        Raises:
            InputError: the file can't be written.
        """
        shape = self._shapes[name]
        row = np.ravel_multi_index(place, shape[: len(place)])
        width = int(np.prod(shape[len(place) :]))
        data = np.ascontiguousarray(values, np.float32)
        with self._errors(), self._file(name).open("r+b") as stream:
            stream.seek(int(row) * width * data.itemsize)
            stream.write(data.data)

    def finish(self, done: int) -> None:
        """Note that the rows before `done` are whole in every array."""
        self.done = done
        with self._errors():
            write_json(self._progress, {"key": self._key, "done": done})

    def load(self) -> dict[str, np.ndarray]:
        """Return all arrays, read from disk as they are used."""
        return {
            name: np.memmap(self._file(name), np.float32, "r", shape=shape)
            for name, shape in self._shapes.items()
        }

    def _file(self, name: str) -> Path:
        return self._folder / f"{name}.f32"

    def _read_progress(self) -> int | None:
        try:
            progress = json.loads(self._progress.read_text(encoding="utf-8"))
            key, done = progress["key"], int(progress["done"])
            sizes = {name: self._file(name).stat().st_size for name in self._shapes}
        except (OSError, ValueError, KeyError, TypeError):
            return None
        whole = {name: 4 * int(np.prod(s)) for name, s in self._shapes.items()}
        return done if (key, sizes) == (self._key, whole) else None

    def _allocate(self) -> None:
        """Make the files in full, so that a lack of room shows now."""
        if self._folder.exists():
            shutil.rmtree(self._folder)
        self._folder.mkdir(parents=True)
        for name, shape in self._shapes.items():
            with self._file(name).open("wb") as stream:
                size = 4 * int(np.prod(shape))
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(stream.fileno(), 0, size)
                stream.truncate(size)
        self.finish(0)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = error.strerror or str(error)
            raise InputError(f"can't write to {self._folder}: {reason}") from error
