"""Make an archive of the form of Attribution88, to try and to measure its preparation.

python -m rmjax.datasets.attribution88.make_archive Attribution88.tar.gz --images-per-cell 100

Its JPEG files hold noise, 15 KB each at 256 px, no two alike: what they show is one of
a few pictures, and a comment in each makes it different. Not for training.
"""

import argparse
import csv
import io
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from isal import igzip
from PIL import Image
from tqdm import tqdm

SOURCES = ("real", *(f"gan{i}" for i in range(1, 8)))
SEMANTICS = tuple(f"semantic{i:02d}" for i in range(11))
SPLITS = {"train": 0.8, "val": 0.1, "test": 0.1}
PICTURES = 32
COLUMNS = ("path", "label", "dlabel")


def make_archive(
    path: str | Path,
    images_per_cell: int,
    *,
    size: int = 256,
    lists_first: bool = False,
    test_only: bool = False,
    folder: str = "Attribution88",
    show_progress: bool = True,
) -> None:
    """Write a tar archive with images and their lists.

    Args:
        path: of the archive; compressed if it ends in gz.
        images_per_cell: of each of 8 sources and 11 semantics.
        size: side of the images in pixels.
        lists_first: put the lists before the images, not behind them.
        test_only: the form of the processed test set, `test/<source>/<semantic>/*`.
        folder: that everything is in.
        show_progress: whether to draw a bar.
    """
    rows = dict(_rows(images_per_cell, test_only))
    texts = _lists(rows)
    pictures = draw_pictures(size)
    bar = tqdm(rows, str(path), unit="image", disable=not show_progress)
    gzipped = str(path).endswith("gz")
    opened = igzip.open(path, "wb", compresslevel=0) if gzipped else open(path, "wb")
    with opened as stream, tarfile.open(fileobj=stream, mode="w|") as tar:
        if lists_first:
            _add_all(tar, folder, texts)
        for number, name in enumerate(bar):
            add_member(tar, f"{folder}/{name}", numbered(pictures, number))
            tar.members = []  # type: ignore[attr-defined]  # it would keep them all
        if not lists_first:
            _add_all(tar, folder, texts)


def _rows(images_per_cell: int, test_only: bool) -> Iterator[tuple[str, tuple]]:
    """Yield the path of each image with its split, label and dlabel."""
    bounds = np.cumsum([0, *SPLITS.values()]) * images_per_cell
    for label, source in enumerate(SOURCES):
        for dlabel, semantic in enumerate(SEMANTICS):
            for i in range(images_per_cell):
                place = int(np.searchsorted(bounds, i, side="right")) - 1
                split = "test" if test_only else list(SPLITS)[place]
                prefix = "test/" if test_only else ""
                name = f"{prefix}{source}/{semantic}/{i:05d}.jpg"
                yield name, (split, label, dlabel)


def _lists(rows: dict[str, tuple]) -> dict[str, bytes]:
    texts = {}
    for split in SPLITS:
        listed = [
            (name, *labels) for name, (at, *labels) in rows.items() if at == split
        ]
        if listed:
            stream = io.StringIO()
            csv.writer(stream).writerows([COLUMNS, *listed])
            texts[f"{split}.csv"] = stream.getvalue().encode()
    return texts


def draw_pictures(size: int) -> list[bytes]:
    """Return JPEG files of noise, 15 KB each at a side of 256 pixels."""
    rng = np.random.default_rng(0)
    pictures = []
    for _ in range(PICTURES):
        coarse = rng.integers(0, 256, (8, 8, 3), np.uint8)
        smooth = np.asarray(Image.fromarray(coarse).resize((size, size)), float)
        noisy = smooth + rng.normal(0, 9.5, (size, size, 3))
        stream = io.BytesIO()
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(
            stream, "JPEG", quality=78
        )
        pictures.append(stream.getvalue())
    return pictures


def numbered(pictures: Sequence[bytes], number: int) -> bytes:
    """Return a picture with its number in a JPEG comment."""
    picture, comment = pictures[number % len(pictures)], b"%08d" % number
    length = (len(comment) + 2).to_bytes(2, "big")
    return picture[:2] + b"\xff\xfe" + length + comment + picture[2:]


def _add_all(tar: tarfile.TarFile, folder: str, texts: dict[str, bytes]) -> None:
    for name, text in texts.items():
        add_member(tar, f"{folder}/{name}", text)


def add_member(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    """Append a file to an archive."""
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line and write the archive."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path", help="the archive to write, .tar.gz or .tar")
    parser.add_argument("--images-per-cell", type=int, default=100, help="default: 100")
    parser.add_argument("--size", type=int, default=256, help="pixels (default: 256)")
    parser.add_argument("--lists-first", action="store_true", help="before the images")
    parser.add_argument("--test", action="store_true", help="as the processed test set")
    args = parser.parse_args(arguments)
    make_archive(
        args.path,
        args.images_per_cell,
        size=args.size,
        lists_first=args.lists_first,
        test_only=args.test,
    )


if __name__ == "__main__":
    main()
