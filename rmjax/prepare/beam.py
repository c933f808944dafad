"""The same preparation over a cluster, by Apache Beam (the extra `rmjax[beam]`)."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rmjax.errors import InputError
from rmjax.prepare.left_out import LEFT_OUT, LeftOut, printable, read_left_out
from rmjax.prepare.manifest import Manifest, Row
from rmjax.prepare.records import Encoder, check_trained, example

if TYPE_CHECKING:
    import apache_beam as beam

ROWS = "rows.jsonl"  # what workers are given to read; removed when they are done


def read_with_beam(
    pipeline: beam.Pipeline, manifest: Manifest, encoder: Encoder, folder: Path
) -> beam.PCollection:
    """Read and check the images of a manifest.

    Workers see the images, and `folder`, under the same paths as this process.

    Args:
        pipeline: that a TFDS builder runs.
        manifest: which images; in a folder, because an archive cannot be split.
        encoder: reads and checks them.
        folder: of the data set; gets the list of what was left out.

    Returns:
        `(split, (path, example))` of each image that can be used.

    Raises:
        InputError: the images are in an archive.
    """
    import apache_beam as beam

    if not manifest.root.is_dir():
        raise InputError(
            f"{manifest.root}: an archive cannot be read in parallel by Beam; extract it and give "
            "the folder, or prepare it without Beam"
        )
    with open(folder / ROWS, "w", encoding="utf-8") as stream:
        for row in manifest.rows:  # in a file: a million rows are too many for a graph
            stream.write(json.dumps(dataclasses.astuple(row)) + "\n")

    class Read(beam.DoFn):
        def process(self, line: str) -> Iterator:
            row = Row(*json.loads(line))
            try:
                data = encoder.read((row, None))
            except InputError as error:
                reason = str(error).removeprefix(f"{row.path}: ")
                line = f"{printable(row.path)}\t{printable(reason)}"
                yield beam.pvalue.TaggedOutput("bad", line)
            else:
                yield row.split, (row.path, example(row, data))

    read = (
        pipeline
        | "list images" >> beam.io.ReadFromText(str(folder / ROWS))
        | "spread" >> beam.Reshuffle()
        | "read" >> beam.ParDo(Read()).with_outputs("bad", main="good")
    )
    left_out = str(folder / LEFT_OUT)
    _ = read.bad | beam.io.WriteToText(left_out, shard_name_template="")
    return read.good


@contextmanager
def beam_errors_in_words() -> Iterator[None]:
    """Turn what a runner or a worker raises into one line."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # every runner has its own
        reason = (str(error).strip() or repr(error)).splitlines()[-1]
        raise InputError(f"Apache Beam: {type(error).__name__}: {reason}") from error


def only(images: beam.PCollection, split: str) -> beam.PCollection:
    """Return `(path, example)` of the images of one split."""
    import apache_beam as beam

    return (
        images
        | f"of {split}" >> beam.Filter(lambda image: image[0] == split)
        | f"for {split}" >> beam.Values()
    )


def check_with_beam(manifest: Manifest, folder: Path) -> None:
    """Check what a finished pipeline left out, and that every source has training images.

    Raises:
        InputError: too many, or a source without.
    """
    (folder / ROWS).unlink()
    bad = LeftOut(len(manifest.rows))
    for line in read_left_out(folder):
        bad.add(*line.split("\t", 1))
    bad.check()
    (folder / LEFT_OUT).unlink()
    bad.save(folder)
    rows = (row for row in manifest.rows if printable(row.path) not in bad.reasons)
    check_trained(manifest, {row.source for row in rows if row.split == "train"})
