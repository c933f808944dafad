"""Units of a collection to shards of a data set, each whole or not there at all.

What a unit gives, its shards, its labels and what is left out, depends on that unit
alone. So any number of processes or Apache Beam may write them, and after a kill those
that are whole stay. `dataset_info.json` comes last: without it nothing counts.
"""

import contextlib
import io
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core.naming import ShardedFileTemplate
from tqdm import tqdm

from rmjax.data.labels import TYPES, save_labels
from rmjax.data.parts import Entry, Unusable
from rmjax.errors import InputError
from rmjax.prepare.left_out import LeftOut
from rmjax.prepare.manifest import SPLITS
from rmjax.prepare.records import Encoder, SplitWriter
from rmjax.prepare.survey import SHARD_BYTES, Engine, Splitter, Survey, Unit
from rmjax.utils.files import remove_file, replace_bytes, replaced
from rmjax.utils.processes import FEW, cores, in_blocks, ordered_map

REPORTS = "units"  # the folder of what each finished unit says of itself


class Task(NamedTuple):
    """A unit to write.

    Attributes:
        number: of the unit.
        unit: its parts.
        counts: its images by source, semantic and split.
        unusable: how many more it has, that cannot be used.
        shards: by split, the numbers of its shards among those of the whole split.
    """

    number: int
    unit: Unit
    counts: Mapping[tuple[str, str, str], int]
    unusable: int
    shards: Mapping[str, range]

    @property
    def images(self) -> int:
        """Return how many images there are, those that cannot be used among them."""
        return sum(self.counts.values()) + self.unusable


@dataclass(frozen=True)
class Writer:
    """Writes units; a copy works in each process.

    Attributes:
        folder: of the data set.
        made_from: differs for other images, names or splits.
        dataset: begins the names of its files.
        shards: the number of shards of each split.
        total: images of all units.
        splitter: gives images a split.
        encoder: makes records of images.
        processes: that encode the images of a unit.
        tick: called with a number of images when they are encoded.
    """

    folder: Path
    made_from: str
    dataset: str
    shards: Mapping[str, int]
    total: int
    splitter: Splitter
    encoder: Encoder
    processes: int = 1
    tick: Callable[[int], object] | None = None

    def __call__(self, task: Task) -> dict[str, str]:
        """Write a unit, and last its report.

        Returns:
            Reasons by path of the images that were left out.

        Raises:
            InputError: a part cannot be read, holds other images than when it was
                surveyed, or more images of this unit are unusable than may be of all.
        """
        bad = LeftOut(self.total)
        written: Counter = Counter()
        with contextlib.ExitStack() as stack:
            writers = {}
            for split, numbers in task.shards.items():
                files = [self._file(split, number) for number in numbers]
                # A runner of Beam may try one unit twice at the same time.
                scratch = [
                    stack.enter_context(replaced(file, alone=False)) for file in files
                ]
                writers[split] = SplitWriter(scratch)
                stack.callback(writers[split].close)
            for entry, record in self._records(task.unit, bad):
                cell = entry.source, entry.semantic, self.splitter(entry)
                written[cell] += 1
                if cell in task.counts:
                    writers[cell[2]].write(record, self.encoder.labels(entry))
            _check_unchanged(task, written, bad.count)
        report = Report(
            self.made_from,
            bad.reasons,
            {split: writer.lengths() for split, writer in writers.items()},
            {split: writer.bytes for split, writer in writers.items()},
            {split: writer.labels() for split, writer in writers.items()},
        )
        report.save(self.folder, task.number)
        return bad.reasons

    def template(self, split: str) -> ShardedFileTemplate:
        """Return how TFDS names the shards of a split."""
        return ShardedFileTemplate(
            data_dir=self.folder,
            dataset_name=self.dataset,
            split=split,
            filetype_suffix="array_record",
        )

    def _file(self, split: str, number: int) -> Path:
        count = self.shards[split]
        name = self.template(split).relative_filepath(
            shard_index=number, num_shards=count
        )
        return self.folder / name

    def _records(self, unit: Unit, bad: LeftOut) -> Iterator[tuple[Entry, bytes]]:
        with ordered_map(self.encoder, self.processes) as encode:
            for block, records in encode(in_blocks(_images(unit, bad))):
                for (entry, _), record in zip(block, records, strict=True):
                    if isinstance(record, str):
                        bad.add(entry.path, record)
                    else:
                        yield entry, record
                if self.tick:
                    self.tick(len(block))


@dataclass(frozen=True)
class Report:
    """What a finished unit says of itself.

    Attributes:
        made_from: as of the `Writer`.
        left_out: reasons by path of the images that were left out.
        lengths: records of each of its shards, by split.
        bytes: of its records, by split.
        labels: of its records, by split, as of `rmjax.data.dataset.Dataset.labels`.
    """

    made_from: str
    left_out: dict[str, str]
    lengths: dict[str, list[int]]
    bytes: dict[str, int]
    labels: dict[str, dict[str, np.ndarray]]

    @staticmethod
    def file(folder: Path, number: int) -> Path:
        return folder / REPORTS / f"{number:05d}.npz"

    def save(self, folder: Path, number: int) -> None:
        """Write it, in one piece."""
        arrays: dict[str, Any] = {
            f"{split}/{name}": values
            for split, columns in self.labels.items()
            for name, values in columns.items()
        }
        about = json.dumps([self.made_from, self.left_out, self.lengths, self.bytes])
        stream = io.BytesIO()
        np.savez(stream, about=np.array(about), **arrays)
        replace_bytes(self.file(folder, number), stream.getvalue())

    @classmethod
    def load(cls, folder: Path, number: int) -> "Report":
        """Read that of a unit."""
        with np.load(io.BytesIO(cls.file(folder, number).read_bytes())) as stored:
            made_from, left_out, lengths, sizes = json.loads(stored["about"].item())
            labels = {
                split: {name: stored[f"{split}/{name}"] for name in TYPES}
                for split in lengths
            }
        return cls(made_from, left_out, lengths, sizes, labels)


def plan_tasks(
    units: Sequence[Unit], surveys: Sequence[Survey]
) -> tuple[list[Task], dict[str, int]]:
    """Return what to write for each unit, and the number of shards of each split."""
    named = {split for found in surveys for split in found.of_split()}
    count = {split: 0 for split in (*SPLITS, *sorted(named - set(SPLITS)))}
    tasks = []
    for number, (unit, found) in enumerate(zip(units, surveys, strict=True)):
        per_image = sum(part.size for part in unit) / max(found.images, 1)
        shards = {}
        for split, images in found.of_split().items():
            first = count[split]
            count[split] += max(1, round(images * per_image / SHARD_BYTES))
            shards[split] = range(first, count[split])
        tasks.append(Task(number, unit, found.counts, found.unusable, shards))
    return tasks, {split: shards for split, shards in count.items() if shards}


def write_tasks(
    writer: Writer,
    tasks: Sequence[Task],
    engine: Engine | None = None,
    processes: int | None = None,
) -> None:
    """Write units.

    Args:
        writer: of the data set.
        tasks: what is still to be written.
        engine: others than processes of this machine that write.
        processes: None uses every core for more than a few images.

    Raises:
        InputError: as of a `Writer`, or too many images of all are unusable.
    """
    processes = processes or (1 if writer.total < FEW else cores())
    alone = engine is None and (len(tasks) == 1 or processes == 1)
    images = sum(task.images for task in tasks)
    bad = LeftOut(writer.total)
    with tqdm(total=images, desc="writing", unit="image", delay=1) as bar:
        if alone:
            writer = replace(writer, processes=processes, tick=bar.update)
        here = partial(ordered_map, processes=1 if alone else processes)
        with (engine or here)(writer) as written:
            for task, reasons in written(tasks):
                for path, reason in reasons.items():
                    bad.add(path, reason)
                if not alone:
                    bar.update(task.images)


def unfinished(folder: Path, tasks: Sequence[Task]) -> list[Task]:
    """Return the tasks without a report."""
    return [task for task in tasks if not Report.file(folder, task.number).exists()]


def finish(
    writer: Writer, tasks: Sequence[Task], trained: Mapping[int, str]
) -> list[tfds.core.SplitInfo]:
    """Join what the units say of themselves: labels, the list of what was left out.

    Args:
        writer: that wrote them all.
        tasks: all units.
        trained: the sources that have to have training images, by label.

    Returns:
        What TFDS notes of each split.

    Raises:
        InputError: too many images are unusable, a split is without any, a source
            without training images, or another process wrote there too.
    """
    bad = LeftOut(writer.total)
    reports = []
    if not unfinished(writer.folder, tasks):
        reports = [Report.load(writer.folder, task.number) for task in tasks]
    if not reports or any(r.made_from != writer.made_from for r in reports):
        raise InputError(  # stores know no locks
            f"{writer.folder}: another process prepared something else there at the same "
            "time; remove that folder, and prepare one after the other"
        )
    for report in reports:
        for path, reason in report.left_out.items():
            bad.add(path, reason)
    bad.check()
    infos = []
    for split in writer.shards:
        own = [report for report in reports if split in report.lengths]
        labels = {
            name: np.concatenate([report.labels[split][name] for report in own])
            for name in TYPES
        }
        if not len(labels["source"]):
            raise InputError(f"no readable image in split {split}")
        if split == "train":
            _check_trained(labels["source"], trained)
        save_labels(writer.folder, split, labels)
        info = tfds.core.SplitInfo(
            name=split,
            shard_lengths=[n for report in own for n in report.lengths[split]],
            num_bytes=sum(report.bytes[split] for report in own),
            filename_template=writer.template(split),
        )
        infos.append(info)
    bad.save(writer.folder)
    for file in writer.folder.glob(".*.part"):  # of a kill
        remove_file(file)
    return infos


def _check_unchanged(
    task: Task, written: Mapping[tuple[str, str, str], int], left_out: int
) -> None:
    """Check that a unit holds what it did when it was surveyed.

    What turned out unusable since is missing among what was written.
    """
    other = [cell for cell in written if written[cell] > task.counts.get(cell, 0)]
    if other or sum(written.values()) + left_out != task.images:
        names = ", ".join(part.name for part in task.unit[:3])
        raise InputError(
            f"{names}{' ...' if task.unit[3:] else ''}: changed while it was read; see to "
            "it that nothing writes there, and prepare it anew"
        )


def _check_trained(found: np.ndarray, wanted: Mapping[int, str]) -> None:
    present = set(np.unique(found).tolist())
    absent = [name for label, name in wanted.items() if label not in present]
    if absent:
        raise InputError(
            f"no readable image of source {', '.join(map(repr, absent))} in the training split; "
            "add some, or change the splits"
        )


def _images(unit: Unit, bad: LeftOut) -> Iterator[tuple[Entry, bytes]]:
    for part in unit:
        for image in part.images():
            if isinstance(image, Unusable):
                bad.add(image.path, image.reason)
            else:
                yield image
