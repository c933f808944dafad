"""Make images in parquet files or WebDataset shards, to try and to measure their preparation.

python -m rmjax.datasets.shards.make_shards parquet FOLDER --images 10000

They are as the Hugging Face Hub and the webdataset package have them. The JPEG files hold
noise, 15 KB each at 256 px, no two alike. Not for training.
"""

import argparse
import json
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from rmjax.datasets.attribution88.make_archive import (
    SEMANTICS,
    SOURCES,
    add_member,
    draw_pictures,
    numbered,
)
from rmjax.utils.processes import in_blocks

GROUP = 1000  # rows of a row group


class Sample(NamedTuple):
    """An image; its labels are numbers of `SOURCES` and `SEMANTICS`."""

    name: str
    data: bytes
    source: int
    semantic: int


def draw_samples(images: int, size: int = 256) -> Iterator[Sample]:
    """Yield images whose sources and semantics take turns."""
    pictures = draw_pictures(size)
    for number in range(images):
        source, semantic = (
            number % len(SOURCES),
            number // len(SOURCES) % len(SEMANTICS),
        )
        data = numbered(pictures, number)
        yield Sample(f"{number:08d}", data, source, semantic)


def write_parquet(file: Path, samples: Sequence[Sample], group: int = GROUP) -> None:
    """Write a file with the columns `image`, `model` and `class`, as the Hub does."""
    labels = {"model": SOURCES, "class": SEMANTICS}
    features: dict[str, dict] = {"image": {"_type": "Image"}}
    features |= {
        name: {"names": list(names), "_type": "ClassLabel"}
        for name, names in labels.items()
    }
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema(
        [("image", image), ("model", pa.int64()), ("class", pa.int64())],
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )
    with pq.ParquetWriter(file, schema) as writer:
        for block in in_blocks(samples, group):
            columns = [
                [{"bytes": s.data, "path": f"{s.name}.jpg"} for s in block],
                [s.source for s in block],
                [s.semantic for s in block],
            ]
            arrays = [pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)]
            writer.write_table(pa.table(arrays, schema=schema))


def write_shard(file: Path, samples: Sequence[Sample]) -> None:
    """Write a tar file with NAME.jpg and NAME.json of each image."""
    with tarfile.open(file, "w") as tar:
        for sample in samples:
            said = {
                "model": SOURCES[sample.source],
                "class": SEMANTICS[sample.semantic],
            }
            add_member(tar, f"{sample.name}.jpg", sample.data)
            add_member(tar, f"{sample.name}.json", json.dumps(said).encode())
            tar.members.clear()  # type: ignore[attr-defined]  # it would keep them all


# What a file of each format is called, by its number and that of all, and its writer.
WRITERS: dict[str, tuple[str, Callable[[Path, Sequence[Sample]], None]]] = {
    "parquet": ("part-{:05d}-of-{:05d}.parquet", write_parquet),
    "webdataset": ("shard-{:06d}.tar", write_shard),
}


def make_shards(
    format: str,
    folder: str | Path,
    images: int,
    *,
    per_file: int = 10_000,
    size: int = 256,
    show_progress: bool = True,
) -> list[Path]:
    """Write images to files of one format.

    Args:
        format: key of `WRITERS`.
        folder: for the files; it is made.
        images: how many.
        per_file: in a file.
        size: side of the images in pixels.
        show_progress: whether to draw a bar.

    Returns:
        The files.
    """
    name, write = WRITERS[format]
    Path(folder).mkdir(parents=True, exist_ok=True)
    count = -(-images // per_file)
    samples = draw_samples(images, size)
    blocks = tqdm(
        in_blocks(samples, per_file), format, count, disable=not show_progress
    )
    files = []
    for number, block in enumerate(blocks):
        files.append(Path(folder) / name.format(number, count))
        write(files[-1], block)
    return files


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line and write the files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("format", choices=list(WRITERS))
    parser.add_argument("folder", help="for the files")
    parser.add_argument("--images", type=int, default=10_000, help="default: 10000")
    parser.add_argument("--per-file", type=int, default=10_000, help="default: 10000")
    parser.add_argument("--size", type=int, default=256, help="pixels (default: 256)")
    args = parser.parse_args(arguments)
    make_shards(
        args.format, args.folder, args.images, per_file=args.per_file, size=args.size
    )


if __name__ == "__main__":
    main()
