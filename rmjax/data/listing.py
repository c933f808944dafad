"""Images to be asked about, one after another: of a folder, a CSV or a data set."""

import csv
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rmjax.data.dataset import Dataset, find_dataset, open_dataset
from rmjax.data.images import SUFFIXES
from rmjax.errors import InputError


@dataclass(frozen=True, slots=True)
class Item:
    """One image.

    Attributes:
        path: what to call it: below the folder, as the CSV has it, or in the data set.
        source: what made it, where that is known.
        read: returns the encoded file.
    """

    path: str
    source: str | None
    read: Callable[[], bytes]


def list_images(
    images: str | Path,
    *,
    data_dir: str | Path = "data",
    splits: Sequence[str] = (),
    known: Sequence[str] = (),
) -> tuple[Callable[[], Iterator[Item]], int]:
    """List the images of a folder, a CSV file or a prepared data set.

    Nothing but names is held: ten million images are walked through one by one, each
    time in the same order.

    Args:
        images: a folder, searched to its depth; a CSV with the column `path` (from the
            CSV's folder) and, where known, `source`; or the name of a data set such
            as `image_folder/mine`.
        data_dir: where data sets are.
        splits: of a data set; empty for all.
        known: sources; a file of a folder is of one of them where the uppermost
            folder it lies in is called so.

    Returns:
        A function that yields them, and how many there are.

    Raises:
        InputError: there is no such thing, it can't be read, or holds no image.
    """
    path = Path(images)
    if path.is_dir():
        walk = partial(_walk, path, frozenset(known))
    elif path.is_file():
        walk = partial(_rows, path)
    else:
        try:
            folder = find_dataset(data_dir, str(images))
        except InputError as error:
            raise InputError(
                f"{images}: no folder, no CSV file and no data set ({error})"
            ) from error
        walk = partial(_records, open_dataset(folder), tuple(splits))
    count = sum(1 for _ in walk())
    if not count:
        raise InputError(f"{images}: no images in it")
    return walk, count


def read_bytes(path: str | Path) -> bytes:
    """Return a file's contents.

    Raises:
        InputError: it can't be read.
    """
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{_as_text(path)}: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"{_as_text(path)}: no file name ({error})") from error


def _as_text(path: str | Path) -> str:
    """Return a path with what is no UTF-8 in it escaped: tables hold text alone."""
    return os.fsencode(path).decode(errors="backslashreplace")


def _walk(root: Path, known: frozenset[str]) -> Iterator[Item]:
    def refuse(error: OSError) -> None:
        raise InputError(f"{_as_text(error.filename)}: {error.strerror}")

    for folder, folders, files in os.walk(root, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if name.startswith(".") or Path(name).suffix.lower() not in SUFFIXES:
                continue
            file = Path(folder) / name
            path = file.relative_to(root)
            top = path.parts[0]
            source = top if top in known and len(path.parts) > 1 else None
            yield Item(_as_text(path.as_posix()), source, partial(read_bytes, file))


def _rows(path: Path) -> Iterator[Item]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            if "path" not in (rows.fieldnames or ()):
                raise InputError(f"{path}: no column 'path' in its first line")
            for row in rows:
                if not row["path"]:
                    raise InputError(f"{path}, line {rows.line_num}: no path")
                file_path = path.parent / row["path"]
                source = row.get("source") or None
                yield Item(row["path"], source, partial(read_bytes, file_path))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: no readable CSV ({error})") from error


def _records(dataset: Dataset, splits: tuple[str, ...]) -> Iterator[Item]:
    for split in splits or dataset.split_sizes:
        files = dataset.files(split)
        for number, source in enumerate(dataset.labels(split)["source"]):
            yield Item(
                f"{split}/{number}",
                dataset.source_names[source],
                partial(_record, files, number),
            )


def _record(files, number: int) -> bytes:
    return files.read([number])[0][1]
