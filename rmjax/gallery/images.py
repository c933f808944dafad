"""The images of a benchmark: all splits of a data set, clean or under a condition."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from rmjax.data.dataset import (
    REAL,
    Selection,
    choose_evenly,
    find_dataset,
    open_dataset,
    select,
)
from rmjax.data.images import open_image
from rmjax.errors import InputError
from rmjax.evaluation.robustness import CLEAN, Condition, Corrupter
from rmjax.experiment import parallel
from rmjax.gallery.features import BATCH
from rmjax.gallery.identification import Labels
from rmjax.inference.attributor import decode, equal_shapes

MAX_IMAGES = 2000  # two million pairs; of more, so many, evenly by source
MAX_SIDE = 256  # px, of the middle that `logdct` and `prnu` look at
AT_ONCE = 128  # images held at once: bounds the memory


class BenchmarkImages:
    """The images of a benchmark: labels, and pixels when they are asked for.

    Attributes:
        directory: of the data set.
        sources: names by number.
        labels: of the images.
        available: images by source, before at most `MAX_IMAGES` were chosen.
        side: of the largest square in px that every image holds, a multiple of 8 and at
            most `MAX_SIDE`.
    """

    def __init__(self, data_dir: str | Path, name: str, sources: Sequence[str] | None):
        """Choose images of a prepared data set, of some sources or of all.

        Raises:
            InputError: no such data set or source, fewer than two sources, one without
                images, or an image that can't be read.
        """
        self.directory = find_dataset(data_dir, name)
        dataset = open_dataset(self.directory)
        wanted = dataset.source_names if sources is None else sources
        # Real photographs come first in a selection; here they are one source of many.
        selection = select(dataset, sorted(wanted, key=lambda n: n != REAL))
        self.sources = selection.source_names
        if len(self.sources) < 2:
            raise InputError(f"one source, {self.sources[0]}: give two or more")
        whole = _flatten(selection)
        self.available = self.count(whole["source"])
        empty = [name for name, count in self.available.items() if not count]
        if empty:
            raise InputError(f"{self.directory}: no image of {', '.join(empty)}")
        rows = choose_evenly(whole["source"], MAX_IMAGES)
        flat = {name: values[rows] for name, values in whole.items()}
        self.labels = Labels(flat["source"], flat["semantic"], flat["group"])
        self._split, self._number = flat["split"], flat["number"]
        self._names = list(dataset.split_sizes)
        self._files = [dataset.files(split) for split in self._names]
        shortest = min(min(open_image(data, name).size) for name, data in self._all())
        self.side = min(shortest // 8 * 8, MAX_SIDE)

    def __len__(self) -> int:
        return len(self._number)

    def count(self, source: np.ndarray) -> dict[str, int]:
        """Count images by the name of their source."""
        counts = np.bincount(source, minlength=len(self.sources)).tolist()
        return dict(zip(self.sources, counts, strict=True))

    def read(
        self, corrupter: Corrupter, condition: Condition, devices: parallel.Devices
    ) -> Iterator[list[np.ndarray]]:
        """Yield the images under a condition, `AT_ONCE`, at their own sizes, uint8.

        Raises:
            InputError: one can't be read, or is too small.
        """
        for first in range(0, len(self), AT_ONCE):
            rows = np.arange(first, min(first + AT_ONCE, len(self)))
            pixels = [decode(data, name) for name, data in self._some(rows)]
            if condition != CLEAN:
                size = -(-BATCH // len(devices)) * len(devices)
                for own in equal_shapes(pixels, size):
                    # Those that come again fill up the batch: compiled once a shape.
                    filled = np.resize(own, size)
                    batch = {
                        "image": np.stack([pixels[i] for i in filled]),
                        "index": self._number[rows[filled]].astype(np.int32),
                        "split": self._split[rows[filled]].astype(np.int32),
                    }
                    changed = corrupter(condition, parallel.shard(batch, devices))
                    for i, image in zip(own, parallel.fetch(changed), strict=False):
                        pixels[i] = image
            yield pixels

    def _all(self) -> Iterator[tuple[str, bytes]]:
        return self._some(np.arange(len(self)))

    def _some(self, rows: np.ndarray) -> Iterator[tuple[str, bytes]]:
        """Yield what to call each image, and its encoded bytes."""
        for split, number in zip(self._split[rows], self._number[rows], strict=True):
            ((path, data),) = self._files[split].read([int(number)])
            yield f"{self._names[split]}: {path}", data


def _flatten(selection: Selection) -> dict[str, np.ndarray]:
    """Return labels of all splits' images, with the `split`'s place and `number` in it."""
    parts = [
        {
            **selection.labels[split],
            "split": np.full(len(numbers), place),
            "number": numbers,
        }
        for place, (split, numbers) in enumerate(selection.records.items())
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
