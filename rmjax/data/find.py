"""The files that a place stands for: a file, a folder, a pattern, a data set of the Hub."""

import hashlib
import os
import posixpath
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from rmjax.errors import InputError
from rmjax.utils.places import filesystem, is_remote, reason

HUB = "hf:"  # begins the address of a data set on the Hugging Face Hub
# Where the Hub keeps its own parquet files of a data set that has none.
_CONVERTED = "@refs/convert/parquet"
_MAGIC = re.compile(r"[*?\[]")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_BRACES = re.compile(r"\{([^{}]*)\}")

Place = str | Path | Sequence[str | Path]


class File(NamedTuple):
    """A file that was found.

    Attributes:
        name: relative to the place, with forward slashes.
        address: where it is: a path of this machine, or an address in a store.
        size: in bytes.
        state: what changes with its contents: its tag in a store, or when it was written.
    """

    name: str
    address: str
    size: int
    state: str = ""


def find_files(place: Place, suffixes: tuple[str, ...]) -> list[File]:
    """Return the files of some kinds that a place, or several, stand for.

    Args:
        place: a file, whatever its suffix; a folder, searched to its depth; a pattern
            with `*`, `?`, `[...]`, or with `{000..127}` and `{a,b}`, all of which
            have to be there; an address that fsspec knows; or `hf:user/dataset` for a
            data set of the Hub. Or several of these.
        suffixes: what the names of files of a folder or of the Hub end in.

    Returns:
        The files, in the order of several places, else of their names. Of several
        places, names are relative to the folder that they share.

    Raises:
        InputError: nothing is there, it can't be read, or a file is named twice.
    """
    places = [place] if isinstance(place, str | Path) else list(place)
    if not places:
        raise InputError(f"no file is given; give {' or '.join(suffixes)} files")
    if len({is_remote(one) for one in places}) > 1:
        raise InputError(f"{places[0]}: give files of one store, not of several")
    # One after the other: the first that is missing ends it, be the range ever so long.
    expanded = (text for one in places for text in _expand(str(one)))
    found = [_find(text, suffixes) for text in expanded]
    base = posixpath.commonpath([root for root, _ in found])
    files = [
        File(posixpath.relpath(path, base), *row)
        for _, rows in found
        for path, *row in rows
    ]
    name, times = Counter(file.name for file in files).most_common(1)[0]
    if times > 1:
        raise InputError(f"{name} is named twice: give each file once")
    return files


def state_of(files: Iterable[File]) -> str:
    """Return a hash that is another one if any of these files is another."""
    told = repr([(file.name, file.size, file.state) for file in files])
    return hashlib.sha256(told.encode(errors="surrogateescape")).hexdigest()


def describe_place(place: Place) -> str:
    """Return what error messages call a place, or several."""
    places = [place] if isinstance(place, str | Path) else list(place)
    more = f" and {len(places) - 1} more" if places[1:] else ""
    return f"{places[0]}{more}"


@contextmanager
def reading(name: object) -> Iterator[None]:
    """Turn what goes wrong in reading a file, in any store, into one line.

    Raises:
        InputError: in place of every other exception.
    """
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError as error:
        what = "file, folder or bucket" if is_remote(name) else "file or folder"
        raise InputError(f"{name}: no such {what}") from error
    except Exception as error:  # each store has its own
        raise InputError(f"{name}: {reason(error)}") from error


def _expand(text: str) -> Iterator[str]:
    """Yield what a text with braces stands for, as a shell has it.

    A file that is called so is meant itself.
    """
    braces = _BRACES.search(text)
    if not braces or os.path.lexists(text):
        yield text
        return
    span = _RANGE.fullmatch(braces[1])
    words: Iterable[str] = braces[1].split(",")
    if span:
        first, last = int(span[1]), int(span[2])
        if first > last:
            raise InputError(
                f"{text}: {braces[0]} counts down: give the lower number first"
            )
        words = (f"{n:0{len(span[1])}}" for n in range(first, last + 1))
    for word in words:
        yield from _expand(text[: braces.start()] + word + text[braces.end() :])


def _find(text: str, suffixes: tuple[str, ...]) -> tuple[str, list]:
    """Return the folder that names are relative to, and files.

    These as path, and what `File` has but for the name.
    """
    if text.startswith(HUB) and not is_remote(text):
        return _find_on_hub(text, suffixes)
    with reading(text):
        fs, path = filesystem(text)
        magic = _MAGIC.search(path)
        if fs.isdir(path):
            root = fs.info(path)["name"]
            infos = _visible(_walk(fs, path, suffixes), root)
        elif magic and not fs.exists(path):
            root = posixpath.dirname(path[: magic.start()] + "x")
            infos = _visible(fs.glob(path, detail=True).values(), root)
        else:
            root, infos = posixpath.dirname(path), [fs.info(path)]
        infos = [_follow(fs, info) for info in infos]
        if not infos:
            raise InputError(f"{text}: no {' or '.join(suffixes)} files there")
        unstrip = fs.unstrip_protocol if is_remote(text) else str
        rows = [
            (info["name"], unstrip(info["name"]), info["size"], _state(info))
            for info in infos
        ]
        return root, sorted(rows)


def _find_on_hub(text: str, suffixes: tuple[str, ...]) -> tuple[str, list]:
    try:
        import huggingface_hub  # noqa: F401  # what fsspec reads the Hub by
    except ImportError as error:
        raise InputError(f"{text}: hf: needs: pip install rmjax[hub]") from error
    name = text.removeprefix(HUB).strip("/")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+(@[\w./-]+|/.+)?", name, re.ASCII):
        raise InputError(f"{text}: no data set of the Hub; give hf:USER/DATASET")
    try:
        return _find(f"hf://datasets/{name}", suffixes)
    except InputError:
        if ".parquet" in suffixes and name.count("/") == 1 and "@" not in name:
            with suppress(InputError):
                return _find(f"hf://datasets/{name}{_CONVERTED}", suffixes)
        raise


def _walk(fs: Any, root: str, suffixes: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    for _, _, files in fs.walk(root, detail=True, on_error="raise"):
        for name, info in files.items():
            if name.lower().endswith(suffixes):
                yield info


def _visible(infos: Iterable[dict[str, Any]], root: str) -> list[dict[str, Any]]:
    """Return what is no folder, and has no name with a leading dot below the root."""
    return [
        info
        for info in infos
        if info["type"] != "directory"
        and "/." not in f"/{posixpath.relpath(info['name'], root)}"
    ]


def _state(info: dict[str, Any]) -> str:
    """Return what changes with a file's contents, as its file system calls it."""
    names = ("ETag", "etag", "md5Hash", "blob_id", "mtime", "LastModified")
    return str(next((info[name] for name in names if info.get(name)), ""))


def _follow(fs: Any, info: dict[str, Any]) -> dict[str, Any]:
    """Return what is known of a file, or of the one that a link leads to."""
    if info["type"] != "file":
        with reading(info["name"]):
            info = fs.info(info["name"])  # in a list of files, links are not followed
    if info["type"] != "file":
        raise InputError(f"{info['name']}: not a regular file")
    return info
