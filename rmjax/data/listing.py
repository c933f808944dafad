"""Lists of images: the CSV reader of all commands, and images to be asked about."""

import codecs
import csv
import io
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from logging import getLogger
from pathlib import Path
from typing import IO, Any, TextIO

from rmjax.data.dataset import Dataset, find_dataset, open_dataset
from rmjax.data.features import describe_dataset
from rmjax.data.image_files import (
    as_text,
    check_regular,
    count_suffixes,
    read_bytes,
    walk_images,
)
from rmjax.errors import InputError
from rmjax.utils.places import as_path, is_remote, open_bytes, path_of, reason

logger = getLogger(__name__)

_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars", ":": "colons"}


@dataclass(frozen=True, slots=True)
class Item:
    """One image.

    Attributes:
        path: what to call it: below the folder, as the CSV has it, or in the data set.
        source: what made it, where that is known.
        read: returns the encoded file.
        record: of a data set's image its `split`, `index`, `semantic` and `group`, see
            `rmjax.data.features`.
    """

    path: str
    source: str | None
    read: Callable[[], bytes]
    record: Mapping[str, Any] = field(default_factory=dict)


def read_rows(
    name: str,
    source: Path | bytes,
    required: Sequence[str] = ("path",),
    optional: str = "",
) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the line number and the cells by column of each row of a CSV list.

    Blanks around cells are dropped, and columns told in upper or lower case. Rows of empty cells are passed over, as are lines
    above the header that begin with `#`.

    Args:
        name: what error messages call the list.
        source: its file, or its contents.
        required: columns that it must have.
        optional: more columns, for the message that one is missing.

    Raises:
        InputError: it is no text (see `open_text`), has not these columns, or another
            number of cells in a row; naming the line.
    """
    header: list[str] = []
    with open_text(name, source) as stream:
        reader = csv.reader(stream, skipinitialspace=True)
        for row in reader:
            cells = [cell.strip() for cell in row]
            if not any(cells) or (not header and cells[0].startswith("#")):
                continue
            where = f"{name}, line {reader.line_num}"
            if not header:
                header = [cell.lower() for cell in cells]
                _check_header(where, row, header, required, optional)
                continue
            if len(cells) != len(header):
                raise InputError(f"{where}: not {len(header)} cells as the header")
            named = dict(zip(header, cells, strict=True))
            if any("\n" in named[column] for column in required):
                raise InputError(f"{where}: a quote is not closed in a line before")
            yield reader.line_num, named
    if not header:
        _check_header(f"{name}, line 1", [""], header, required, optional)


@contextmanager
def open_text(name: str, source: Path | bytes) -> Iterator[TextIO]:
    """Open a list: UTF-8, or UTF-16 with its mark, as spreadsheets write it.

    Raises:
        InputError: now or while it is read: it can't be, or is no such text.
    """
    try:
        stream: IO[bytes]
        if isinstance(source, bytes):
            stream = io.BytesIO(source)
        else:
            check_regular(source)
            stream = open_bytes(source)
        wide = stream.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
        stream.seek(0)
        encoding = "utf-16" if wide else "utf-8-sig"
        with io.TextIOWrapper(stream, encoding, newline="") as text:
            yield text
    except UnicodeDecodeError as error:
        raise InputError(
            f"{name}: cannot read this list, it is no UTF-8 text ({error.reason}); save "
            "it as UTF-8"
        ) from error
    except (OSError, csv.Error) as error:
        raise InputError(f"{name}: cannot read this list ({reason(error)})") from error


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
    path = as_path(images)
    walk: Callable[[], Iterator[Item]]
    passed_over: Counter[str] = Counter()
    if path.is_dir():
        walk = partial(_walk, path, frozenset(known), Counter())
        count = sum(1 for _ in _walk(path, frozenset(known), passed_over))
    else:
        if path.exists():
            walk = partial(_rows, path)
        else:
            walk = partial(_records, _open(images, data_dir), tuple(splits))
        count = sum(1 for _ in walk())
    _check_some(images, count, passed_over)
    return walk, count


def describe_images(
    images: str | Path, *, data_dir: str | Path = "data", splits: Sequence[str] = ()
) -> dict[str, Any] | None:
    """Return what there is to know of a data set, see `describe_dataset`.

    Arguments and errors as for `list_images`; None for a folder or a CSV file.
    """
    if as_path(images).exists():
        return None
    dataset = _open(images, data_dir)
    return describe_dataset(dataset, str(images), splits or [*dataset.split_sizes])


def list_files(paths: Iterable[str | Path]) -> list[str | Path]:
    """Return image files, for a folder those in it, as `list_images` finds them.

    Raises:
        InputError: a folder can't be read, or holds no image.
    """
    files: list[str | Path] = []
    for path in paths:
        place = as_path(path)
        is_folder = place.is_dir() if is_remote(path) else os.path.isdir(path)
        files += _files_in(place) if is_folder else [path]
    return files


def _files_in(folder: Path) -> list[Path]:
    passed_over: Counter[str] = Counter()
    found = [*walk_images(folder, lambda path: passed_over.update([path.suffix]))]
    _check_some(folder, len(found), passed_over)
    return [folder / path for path in found]


def _check_some(images: str | Path, count: int, passed_over: Counter[str]) -> None:
    """Say what of a place was passed over, and check that there are images in it."""
    passed = f": no image by name or content: {count_suffixes(passed_over)}"
    if passed_over:
        logger.warning("%s%s", images, passed)
    if not count:
        raise InputError(f"{images}: no images in it{passed if passed_over else ''}")


def _check_header(
    where: str,
    row: Sequence[str],
    header: Sequence[str],
    required: Sequence[str],
    optional: str,
) -> None:
    missing = [column for column in required if column not in header]
    if missing:
        line = ",".join(row)
        guess = max(_SEPARATORS, key=line.count)
        hint = f"; a list has the columns {','.join(required)}"
        if optional:
            hint += f" and optionally {optional}"
        if guess in line:
            hint = f", it seems to be separated by {_SEPARATORS[guess]}: use commas"
        raise InputError(f"{where}: no column {', '.join(missing)}{hint}")
    named = [column for column in header if column]
    twice = next((column for column in named if named.count(column) > 1), None)
    if twice:
        raise InputError(f"{where}: column {twice} is there twice")


def _open(name: str | Path, data_dir: str | Path) -> Dataset:
    if is_remote(name):
        raise InputError(f"{name}: no such file or folder")
    try:
        return open_dataset(find_dataset(data_dir, str(name)))
    except InputError as error:
        raise InputError(
            f"{name}: no folder, no CSV file and no data set ({error})"
        ) from error


def _walk(root: Path, known: frozenset[str], passed_over: Counter) -> Iterator[Item]:
    for path in walk_images(root, lambda p: passed_over.update([p.suffix])):
        source = path.parts[0] if path.parts[0] in known and path.parts[1:] else None
        yield Item(as_text(str(path)), source, partial(read_bytes, root / path))


def _rows(path: Path) -> Iterator[Item]:
    for line, row in read_rows(str(path), path):
        if not row["path"]:
            raise InputError(f"{path}, line {line}: no path")
        named = row["path"]
        file = path_of(named) if is_remote(named) else path.parent / named
        yield Item(row["path"], row.get("source") or None, partial(read_bytes, file))


def _records(dataset: Dataset, splits: tuple[str, ...]) -> Iterator[Item]:
    for split in splits or dataset.split_sizes:
        files = dataset.files(split)
        labels = dataset.labels(split)
        for number, source in enumerate(labels["source"]):
            yield Item(
                f"{split}/{number}",
                dataset.source_names[source],
                partial(_record, files, number),
                {
                    "split": split,
                    "index": number,
                    "semantic": dataset.semantic_names[labels["semantic"][number]],
                    "group": int(labels["group"][number]),
                },
            )


def _record(files, number: int) -> bytes:
    return files.read([number])[0][1]
