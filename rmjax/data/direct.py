"""Parquet files and WebDatasets that are looked at as they are, without preparation."""

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rmjax.data import parquet, webdataset
from rmjax.data.collected import check_paths, hash_path
from rmjax.data.columns import Columns, list_columns
from rmjax.data.find import HUB, describe_place, find_files
from rmjax.data.image_files import ImageFile, walk_images
from rmjax.data.listing import Item
from rmjax.data.parts import Collection, Unusable
from rmjax.errors import InputError
from rmjax.utils.places import is_remote

MEMORY = 256 * 2**20  # bytes of images that are in memory at once, about

Places = Sequence[str | Path]


class Format(NamedTuple):
    """A form of files that hold many images.

    Attributes:
        suffixes: of the files.
        open: makes a collection of places and columns.
        columns: lists where places may have labels.
    """

    suffixes: tuple[str, ...]
    open: Callable[[Places, Columns], Collection]
    columns: Callable[[Places], list[str]]


FORMATS = {
    "parquet": Format(parquet.SUFFIXES, parquet.open_parquet, parquet.parquet_columns),
    "webdataset": Format(
        webdataset.SUFFIXES, webdataset.open_shards, webdataset.shard_columns
    ),
}
_SUFFIXES = tuple(suffix for one in FORMATS.values() for suffix in one.suffixes)


def find_format(places: Places) -> Format | None:
    """Return the form of the files that places stand for.

    Args:
        places: files or patterns, told by their suffix; or folders that hold such files
            and no images, addresses of folders, or `hf:user/dataset`.

    Returns:
        It, or None where one of the places is something else.

    Raises:
        InputError: there are several, or a place can't be read.
    """
    found = [_format_of(place) for place in places]
    forms = {form for one in found for form in one}
    if not all(found) or not forms:
        return None
    if len(forms) > 1:
        raise InputError(
            f"{describe_place(places)}: there are {' and '.join(sorted(forms))} files; "
            "give those of one form"
        )
    return FORMATS[forms.pop()]


def open_directly(places: Places, columns: Columns) -> Collection | None:
    """Open files that hold many images, or return None where they are none.

    Raises:
        InputError: as of `find_format`, `open_parquet` and `open_shards`; or columns are
            given, and places that have none.
    """
    form = find_format(places)
    if form is None and columns != Columns():
        raise InputError(
            f"{describe_place(places)}: no parquet files and no WebDataset; only these "
            "have columns"
        )
    return form.open(places, columns) if form else None


def check_source(form: Format, places: Places, columns: Columns) -> None:
    """Raise an InputError, with what columns there are, if the source has none."""
    if not columns.source:
        raise InputError(
            f"{describe_place(places)}: say where the source stands (--source); there "
            f"are {list_columns(form.columns(places)) or 'no labels'}"
        )


def open_labelled(places: Places, columns: Columns) -> Collection | None:
    """Open files as `open_directly` does, if it is said where the source stands.

    Raises:
        InputError: it is not, and the places are such files; with what columns they have.
    """
    form = find_format(places)
    if form:
        check_source(form, places, columns)
    return open_directly(places, columns)


def list_collection(
    collection: Collection,
) -> tuple[Callable[[], Iterator[Item]], int]:
    """List the images of a collection, as `rmjax.data.listing.list_images` does.

    An item holds its image; reading one that is unusable raises an `InputError`.

    Returns:
        A function that yields them, and how many there are.

    Raises:
        InputError: labels are wrong, a part can't be read, or two images have one path.
    """
    count, paths = 0, array("q")
    for part in collection.parts:
        for entry in part.entries():
            count += 1
            if not isinstance(entry, Unusable):
                paths.append(hash_path(entry.path))
    check_paths(collection.parts, np.array(paths, np.int64))
    return partial(_items, collection), count


def rows_in_memory(collection: Collection, count: int) -> int:
    """Return how many of `count` images may be in memory at once."""
    size = sum(part.size for part in collection.parts)
    return max(MEMORY * count // max(size, 1), 1)


def list_single(
    images: Iterable[str], image: str = ""
) -> Iterator[str | ImageFile | Unusable]:
    """Yield image files as they are, and of files that hold many images each of these.

    Args:
        images: both.
        image: of files that hold many, the column or the suffix of the image.

    Raises:
        InputError: such a file can't be read, or `image` is given for image files.
    """
    for place in images:
        collection = open_directly([place], Columns(image))
        if collection is None:
            yield place
            continue
        for part in collection.parts:
            for found in part.images():
                if isinstance(found, Unusable):
                    yield found
                else:
                    yield ImageFile(found[0].path, found[1])


def _format_of(place: str | Path) -> set[str]:
    """Return the forms of the files of a place; none where it is something else."""
    text, folder = str(place), Path(place)
    formats = _formats_of(text)
    a_folder = folder.is_dir() or text.startswith(HUB)
    if not a_folder and (formats or not is_remote(text)):
        return formats
    if folder.is_dir() and any(walk_images(folder)):
        return set()
    try:
        files = find_files(place, _SUFFIXES)
    except InputError:
        if folder.is_dir():  # others say what is wrong with it
            return set()
        raise
    return {form for file in files for form in _formats_of(file.name)}


def _formats_of(name: str) -> set[str]:
    text = name.lower()
    return {form for form in FORMATS if text.endswith(FORMATS[form].suffixes)}


def _items(collection: Collection) -> Iterator[Item]:
    for part in collection.parts:
        for found in part.images():
            if isinstance(found, Unusable):
                yield Item(found.path, None, partial(_refuse, found))
            else:
                entry, data = found
                yield Item(
                    entry.path,
                    entry.source or None,
                    partial(bytes, data),
                    {"semantic": entry.semantic},
                )


def _refuse(image: Unusable) -> bytes:
    raise InputError(f"{image.path}: {image.reason}")
