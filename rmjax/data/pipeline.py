"""Batches on the host: read, decode, resize and cut, on grain.

Everything random is a function of the seed and the step alone, so a stream can
start at any step and does not depend on how many processes share it.
"""

import logging
import math
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import grain
import grain.experimental
import numpy as np
from absl import flags
from grain.experimental import index_shuffle

from rmjax.data.dataset import Dataset, Selection, check_every_source
from rmjax.data.features import FeatureTable
from rmjax.data.images import Resize, centre, decode_rgb, resize, window
from rmjax.data.labels import TYPES
from rmjax.data.partners import Choose, make_partners
from rmjax.errors import InputError
from rmjax.utils.processes import leave_stopping_to_parent

logger = logging.getLogger(__name__)

Batch = dict[str, np.ndarray]

_SHARED_MEMORY = "/dev/shm"  # where Linux has it; containers have 64 MB of it
_LOCKS = 2**18  # bytes for those of a worker's queues; 106,000 were measured
_SPARE = 2  # room for another command that starts at the same time


class ImageCache:
    """Decoded images kept in memory, up to a number of bytes.

    Decoding a 256-px PNG costs as much as training on a crop of it does on CPU.
    What has no room is decoded again each time: nothing is thrown out, because
    in a shuffled pass every image is as likely to come next as any other. Safe
    to share between threads; a worker process starts with an empty one.
    """

    def __init__(self, max_bytes: int):
        self.max_bytes = max_bytes
        self._images: dict[tuple, np.ndarray] = {}
        self._free = max_bytes

    def get(self, key: tuple) -> np.ndarray | None:
        return self._images.get(key)

    def put(self, key: tuple, image: np.ndarray) -> None:
        # Two threads may both see room for one last image: that is harmless.
        if image.nbytes <= self._free and key not in self._images:
            self._free -= image.nbytes
            self._images[key] = image

    def __reduce__(self):
        return ImageCache, (self.max_bytes,)


def train_batches(
    selection: Selection,
    *,
    split: str = "train",
    batch_size: int,
    members: int,
    size: int,
    resizing: Resize | None = None,
    partners: str = "any",
    seed: int = 0,
    start_step: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    num_workers: int = 0,
    prefetch: int = 4,
    cache: ImageCache | None = None,
) -> Iterator[Batch]:
    """Yield training batches for ever.

    The first members of the groups are one shuffled pass over the selected
    images per epoch, and the passes follow each other without a gap; the other
    members are drawn at random from the whole selection, or by label.

    Args:
        selection: what to train on.
        split: the split to read.
        batch_size: images of one step over all processes.
        members: images of a group, which stand next to each other.
        size: side of the square images that come out, a random window where the
            image is larger.
        resizing: how images are resampled before that; None leaves them at their
            native resolution.
        partners: who the other members are, key of `rmjax.data.partners.PARTNERS`.
        seed: any integer from 0; another seed is another stream.
        start_step: the step of the first batch.
        process_index: which part of each batch is wanted, from 0.
        process_count: how many processes share a batch.
        num_workers: processes that decode; 0 decodes in threads of this one.
        prefetch: batches to prepare ahead, in each worker if there are any.
        cache: keeps decoded images for the next epoch.

    Returns:
        An iterator over dicts of arrays, `items = batch_size / process_count`:
        `image` uint8 `[items, size, size, 3]`, or of a `FeatureTable` the features as
        they are, float32 `[items, features]`; `source` and `semantic` int32
        `[items]`, indices of the selection and of the data set; `index` int32
        `[items]`, the record number in the split; `position` int32 `[items]`, the
        image's place in the whole stream, `step * batch_size` and on. The
        processes' parts of a step, one after the other, are the batch of a single
        process.

    Raises:
        InputError: a batch that does not divide, a source without images, no such
            partners, or, while iterating, an image smaller than `size`.
    """
    items = _items(batch_size, process_index, process_count, members)
    check_every_source(selection, split)
    if seed < 0:
        raise InputError(f"seed = {seed} is not an integer from 0")
    order_seed, draw_seed = (
        int(s) for s in np.random.SeedSequence(seed).generate_state(2)
    )
    labels = selection.labels[split]
    choose = make_partners(partners, labels["source"], labels["semantic"])
    draw = _Draw(choose, members)
    reader = _open(selection.dataset, split, size, resizing, cache)
    load = _LoadTrain(selection, split, reader, items, process_index)
    order = _Order(selection.size(split), batch_size // members, order_seed)
    # Grain numbers batches through all epochs, so (seed, number) is the state.
    steps = grain.MapDataset.range(sys.maxsize).map(order)
    steps = steps.random_map(draw, seed=draw_seed)
    steps = steps.map_with_index(load)[start_step:]
    return _iterate(steps, items * size**2 * 3, num_workers, prefetch)


def eval_batches(
    selection: Selection,
    splits: Sequence[str],
    *,
    batch_size: int,
    size: int,
    resizing: Resize | None = None,
    first_batch: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    num_workers: int = 0,
    prefetch: int = 4,
    cache: ImageCache | None = None,
) -> Iterator[Batch]:
    """Yield every selected image of the given splits once, in a fixed order.

    Args:
        selection: what to evaluate on.
        splits: the splits to read, one after the other.
        batch_size: images of one batch over all processes.
        size: side of the square images that come out, the middle of larger ones.
        resizing: as in `train_batches`.
        first_batch: leave out the batches before it; the others are as in
            `train_batches`.

    Returns:
        An iterator over `num_eval_batches` dicts of arrays, the same number in
        every process, `items = batch_size / process_count`: `image`, and `source`,
        `semantic`, `index` int32 `[items]`, as in `train_batches`; `group` int64 `[items]`; `split` int32 `[items]`, the place in `splits`; `mask`
        float32 `[items]`, 1, or 0 for the padding of the last batch, whose other
        entries are 0.

    Raises:
        InputError: a batch that does not divide, an unknown split, nothing
            selected, or, while iterating, an image smaller than `size`.
    """
    items = _items(batch_size, process_index, process_count, 1)
    splits = (splits,) if isinstance(splits, str) else tuple(splits)
    readers = [
        _open(selection.dataset, split, size, resizing, cache) for split in splits
    ]
    if not selection.size(*splits):
        raise InputError(
            f"{selection.dataset.directory}: nothing selected in {', '.join(splits)}: no image "
            f"of {', '.join(selection.source_names)} with {', '.join(selection.semantic_names)}"
        )
    sizes = [selection.size(split) for split in splits]
    chosen = [split for split, size in zip(splits, sizes, strict=True) if size]
    rows = {
        name: np.concatenate([selection.labels[split][name] for split in chosen])
        for name in TYPES
    }
    records = np.concatenate([selection.records[split] for split in chosen])
    rows["index"] = records.astype(np.int32)
    rows["split"] = np.repeat(np.arange(len(splits), dtype=np.int32), sizes)
    load = _LoadEval(rows, readers, batch_size, items, process_index)
    count = num_eval_batches(selection, splits, batch_size)
    batches = grain.MapDataset.range(first_batch, count).map(load)
    return _iterate(batches, items * size**2 * 3, num_workers, prefetch)


def num_eval_batches(
    selection: Selection, splits: Sequence[str], batch_size: int
) -> int:
    """Return how many batches `eval_batches` yields."""
    splits = (splits,) if isinstance(splits, str) else splits
    return math.ceil(selection.size(*splits) / batch_size)


@dataclass(frozen=True)
class _Order:
    """The first members of each step: one shuffled pass over all images after the other.

    The order of grain's `shuffle().repeat().batch()`, which spends 40 us on each image.

    Attributes:
        total: images.
        groups: first members in a step.
        seed: of the shuffling.
    """

    total: int
    groups: int
    seed: int

    def __call__(self, step: int) -> np.ndarray:
        """Return places int `[groups]` in the selection."""
        first = step * self.groups
        return np.array(
            [self._shuffled(number) for number in range(first, first + self.groups)]
        )

    def _shuffled(self, number: int) -> int:
        epoch, place = divmod(number, self.total)
        seed = (self.seed + epoch) % 2**32
        return index_shuffle(place, max_index=self.total - 1, seed=seed, rounds=4)


@dataclass(frozen=True)
class _Draw:
    """The random part of a step: partners for the first members, and windows."""

    choose: Choose
    members: int

    def __call__(self, first: np.ndarray, rng: np.random.Generator):
        partners = self.choose(first, self.members, rng)
        chosen = np.concatenate([first[:, None], partners], axis=1).reshape(-1)
        return chosen, rng.random((len(chosen), 2))


def _open(
    dataset: Dataset,
    split: str,
    size: int,
    resizing: Resize | None,
    cache: ImageCache | None,
) -> "_Rows | _Images":
    if isinstance(dataset, FeatureTable):
        return _Rows(dataset.files(split).features)
    return _Images(dataset, split, size, resizing, cache)


class _Rows:
    """Reads stored features, of which there is nothing to be cut."""

    def __init__(self, features: np.ndarray):
        self.features = features
        self.shape, self.dtype = features.shape[1:], np.float32

    def __call__(
        self, numbers: np.ndarray, places: np.ndarray | None = None
    ) -> np.ndarray:
        """Return features `[items, size]` for record numbers."""
        return self.features[numbers]


class _Images:
    """Reads images of one split, decoded and resized, through the cache."""

    def __init__(
        self,
        dataset: Dataset,
        split: str,
        size: int,
        resizing: Resize | None,
        cache: ImageCache | None,
    ):
        self.files = dataset.files(split)
        self.key = (str(dataset.directory), split, resizing)
        self.size, self.resizing = size, resizing
        self.shape, self.dtype = (size, size, 3), np.uint8
        self.cache = cache or ImageCache(0)

    def __call__(
        self, numbers: np.ndarray, places: np.ndarray | None = None
    ) -> np.ndarray:
        """Return windows `[items, size, size, 3]` at places, or for None the middles."""
        images = np.empty((len(numbers), *self.shape), self.dtype)
        for row, image in enumerate(self._read(numbers)):
            if places is None:
                images[row] = centre(image, self.size)
            else:
                images[row] = window(image, self.size, places[row])
        return images

    def _read(self, records: np.ndarray) -> Iterator[np.ndarray]:
        """Yield uint8 `[height, width, 3]`, no side under `size`, for record numbers.

        One after the other, so that the next image can take the memory of the last.
        """
        numbers = records.tolist()
        cached = [self.cache.get((*self.key, number)) for number in numbers]
        absent = [n for n, image in zip(numbers, cached, strict=True) if image is None]
        files = iter(self.files.read(absent))
        for number, image in zip(numbers, cached, strict=True):
            if image is None:
                image = self._decode(*next(files))
                self.cache.put((*self.key, number), image)
            yield image

    def _decode(self, name: str, data: bytes) -> np.ndarray:
        image = decode_rgb(data, name)
        after = ""
        if self.resizing is not None:
            image = resize(image, self.resizing)
            after = f" after resizing to {self.resizing.side}"
        height, width = image.shape[:2]
        if min(height, width) < self.size:
            raise InputError(
                f"{name}: {width}x{height} pixels{after}, smaller than the {self.size}x"
                f"{self.size} asked for; choose a smaller size or resize to {self.size} or more"
            )
        return image


@dataclass(frozen=True)
class _LoadTrain:
    """Load this process's part of a training step."""

    selection: Selection
    split: str
    reader: "_Rows | _Images"
    items: int
    process_index: int

    def __call__(self, step: int, drawn: tuple[np.ndarray, np.ndarray]) -> Batch:
        chosen, places = drawn
        start = self.process_index * self.items
        part = slice(start, start + self.items)
        position = step * len(chosen) + start + np.arange(self.items)
        numbers = self.selection.records[self.split][chosen[part]]
        labels = self.selection.labels[self.split]
        return {
            "image": self.reader(numbers, places[part]),
            "source": labels["source"][chosen[part]],
            "semantic": labels["semantic"][chosen[part]],
            "index": numbers.astype(np.int32),
            "position": position.astype(np.int32),
        }


@dataclass(frozen=True)
class _LoadEval:
    """Load this process's part of an evaluation batch, padded to full length."""

    rows: dict[str, np.ndarray]  # of all images, split by split
    readers: "list[_Rows | _Images]"
    batch_size: int
    items: int
    process_index: int

    def __call__(self, number: int) -> Batch:
        begin = number * self.batch_size + self.process_index * self.items
        part = {name: v[begin : begin + self.items] for name, v in self.rows.items()}
        count, first = len(part["index"]), self.readers[0]
        images = np.zeros((self.items, *first.shape), first.dtype)
        for place in np.unique(part["split"]):
            chosen = np.flatnonzero(part["split"] == place)
            images[chosen] = self.readers[place](part["index"][chosen])
        batch = {name: np.pad(v, (0, self.items - count)) for name, v in part.items()}
        mask = (np.arange(self.items) < count).astype(np.float32)
        return {**batch, "image": images, "mask": mask}


def _items(
    batch_size: int, process_index: int, process_count: int, members: int
) -> int:
    """Return the images of one process in a batch of `batch_size`, if it divides."""
    if batch_size < 1 or batch_size % (process_count * members):
        raise InputError(
            f"batch_size = {batch_size} images does not divide by {process_count} processes "
            f"x {members} members of a group; give a multiple of {process_count * members}"
        )
    if not 0 <= process_index < process_count:
        raise InputError(
            f"process_index = {process_index} is not in 0..{process_count - 1}"
        )
    return batch_size // process_count


def _iterate(
    batches: grain.MapDataset, batch_bytes: int, num_workers: int, prefetch: int
) -> Iterator[Batch]:
    """Read batches ahead in threads, in worker processes if asked to."""
    prefetch = max(prefetch, 1)
    threads = min(os.cpu_count() or 1, prefetch, 16)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=prefetch)
    dataset = batches.to_iter_dataset(options)
    if num_workers:
        if not flags.FLAGS.is_parsed():  # grain asks for its flags, even in a notebook
            flags.FLAGS.mark_as_parsed()
        if not _fit_shared_memory(batch_bytes, num_workers, prefetch):
            pipes = grain.experimental.DatasetOptions(min_shm_size=2**62)
            dataset = grain.experimental.WithOptionsIterDataset(dataset, pipes)
        workers = grain.MultiprocessingOptions(
            num_workers, per_worker_buffer_size=prefetch
        )
        dataset = dataset.mp_prefetch(workers, leave_stopping_to_parent)
    return iter(dataset)


def _fit_shared_memory(batch_bytes: int, num_workers: int, prefetch: int) -> bool:
    """Whether the batches on their way from workers have room in shared memory.

    A worker that finds none is killed in the midst of its work.

    Raises:
        InputError: there is not even room for the locks of their queues.
    """
    if not os.path.isdir(_SHARED_MEMORY):
        return True
    free = shutil.disk_usage(_SHARED_MEMORY).free
    if free < num_workers * _LOCKS or not os.access(_SHARED_MEMORY, os.W_OK):
        raise InputError(
            f"{_SHARED_MEMORY} can't be written to or is full, and worker processes "
            "need it: free it (docker run --shm-size), or set data.workers=0"
        )
    # Measured: both ends of a worker's queue are full, each with one more in hand, and
    # one batch is in use.
    needed = _SPARE * batch_bytes * (num_workers * (2 * prefetch + 2) + 1)
    fit = needed <= free
    if not fit:
        logger.warning(
            "%s has %d MiB left, of which %d worker processes may need %d: their "
            "batches come through pipes, which is slower; enlarge it (docker run "
            "--shm-size) or set data.workers=0",
            *(_SHARED_MEMORY, free // 2**20, num_workers, needed // 2**20),
        )
    return fit
