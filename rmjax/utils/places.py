"""Places of files: a path of this machine, or the address of one in a store.

An address has a scheme: `s3://`, `gs://` or `az://`. fsspec knows others, which
`filesystem` gives, and which have no paths here. A store has no folders, only names with
slashes in them; no locks; and no renaming: a file is written as a whole, and a folder is
moved file by file.
"""

import io
import os
import re
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from etils import epath

from rmjax.errors import InputError

if TYPE_CHECKING:
    import fsspec

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]+)://", re.IGNORECASE)
# Schemes that have paths (those of `epath`), and what has to be installed for them.
_PATHS = {"gs": "rmjax[gcs]", "s3": "rmjax[s3]", "az": "adlfs"}
_PACKAGES = _PATHS | {"gcs": "rmjax[gcs]", "abfs": "adlfs"}
_MISTAKES = AssertionError, AttributeError, LookupError, NameError, TypeError
_AT_ONCE = 2**23  # bytes that are fetched ahead of what is read, at least


def is_remote(place: Any) -> bool:
    """Tell whether a place is an address in a store, not a path of this machine."""
    return bool(_SCHEME.match(str(place)))


def path_of(place: Any) -> Path:
    """Return the path of a place; of an address without a look into the store.

    Args:
        place: text or a path. `Path(place)` would make of an address a folder of this
            machine that is called `s3:`.

    Returns:
        A `Path`; of an address an `epath.Path`, which has the same methods, but for
        `resolve` and `absolute`.

    Raises:
        InputError: the scheme is unknown.
    """
    if not is_remote(place):
        return Path(place)
    scheme, _, rest = str(place).partition("://")
    if scheme.lower() not in _PATHS:
        known = ", ".join(f"{name}://" for name in _PATHS)
        raise InputError(
            f"{place}: no such store is known; give a path, or one of {known}"
        )
    return epath.Path(f"{scheme.lower()}://{rest}")  # type: ignore[return-value]


def as_path(place: Any) -> Path:
    """Return the path of a place, as `path_of`, once its store has answered.

    Raises:
        InputError: the scheme is unknown, the package for it is not installed, there
            is no such bucket, or the store can't be asked.
    """
    if not is_remote(place):
        return Path(place)
    text = str(path_of(place))
    system, path = filesystem(text)
    try:
        system.info(path)
    except FileNotFoundError as error:
        if error.__cause__ is not None or "/" not in path:  # and not just the file
            raise InputError(f"{text}: no such bucket") from error
    except Exception as error:  # each store's package has its own
        raise InputError(f"{text}: {reason(error)}") from error
    return path_of(text)


def local_path(place: Any) -> Path:
    """Return a path of this machine.

    Raises:
        InputError: the place is an address in a store.
    """
    if is_remote(place):
        raise InputError(f"{place}: give a path of this machine, not an address")
    return Path(place)


def filesystem(place: Any) -> tuple["fsspec.AbstractFileSystem", str]:
    """Return the file system of a place, and the place's path in it.

    Raises:
        InputError: there is none for such addresses, or it is not installed.
    """
    import fsspec

    if not is_remote(place):  # its name may be anything
        return fsspec.filesystem("file"), os.path.abspath(place)
    for known in _PACKAGES:  # what others have written meanwhile is to be seen
        fsspec.config.conf.setdefault(known, {}).setdefault("use_listings_cache", False)
    scheme = _SCHEME.match(str(place))
    try:
        return fsspec.core.url_to_fs(str(place))
    except ImportError as error:
        name = scheme[1] if scheme else "file"
        package = _PACKAGES.get(name, str(error))
        raise InputError(f"{place}: {name}:// needs: pip install {package}") from error
    except ValueError as error:
        raise InputError(f"{place}: {error}") from error


def absolute(path: Path) -> Path:
    """Return a path from the root on, links resolved; an address as it is."""
    return path if is_remote(path) else path.resolve()


def open_bytes(path: Path) -> io.BufferedReader:
    """Open a file to read here and there; of a store's, only what is read is fetched."""
    if not is_remote(path):
        return path.open("rb")
    system, name = filesystem(path)
    return io.BufferedReader(system.open(name, "rb", block_size=_AT_ONCE))


def walk(root: Path, **options: Any) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Yield each folder with the names of its folders and files, as `os.walk` does.

    Args:
        root: where to begin; of what is taken out of the names of folders, nothing is
            yielded.
        options: of `os.walk`; in a store there are neither links nor folders that
            can't be read by themselves.

    Raises:
        InputError: a store can't be asked, or has a folder whose name is empty.
    """
    if not is_remote(root):
        for folder, folders, names in os.walk(root, **options):
            yield Path(folder), folders, names
        return
    system, own = filesystem(root)
    folders, names = [], []
    try:
        for about in system.ls(own, detail=True):
            name = about["name"].removeprefix(f"{own.rstrip('/')}/")
            if about["type"] == "directory":
                folders.append(name.rstrip("/"))
            elif about["name"].rstrip("/") != own.rstrip("/"):  # a mark of the folder
                names.append(name)
    except Exception as error:  # each store's package has its own
        raise InputError(f"{root}: {reason(error)}") from error
    if "" in folders:
        raise InputError(f"{root}//: a folder without a name can't be read; rename it")
    yield root, folders, names
    for folder in folders:
        yield from walk(root / folder)


def list_sizes(root: Path) -> dict[str, int]:
    """Return the bytes of all files below a store's folder, by their paths from there."""
    system, own = filesystem(root)
    found = system.find(own, detail=True)
    return {
        name.removeprefix(f"{own}/"): about["size"] for name, about in found.items()
    }


def state_of(path: Path) -> str | int:
    """Return what changes with every change of a file.

    When it was written; of a file in a store its tag (ETag), or what there is like it.
    """
    if not is_remote(path):
        return os.stat(path).st_mtime_ns
    system, name = filesystem(path)
    return system.ukey(name)


def reason(error: BaseException) -> str:
    """Say in a few words what the system, or a store, complains of."""
    words = getattr(error, "strerror", None) or str(error) or type(error).__name__
    if isinstance(error, FileNotFoundError) and error.strerror is None:
        words = "no such file or bucket"
    elif isinstance(error, PermissionError) and error.strerror is None:
        words = f"no permission ({words})"
    return " ".join(words.split())[:200]


def is_of_store(error: BaseException) -> bool:
    """Tell whether an error came from asking a store, by where it was raised.

    What only a mistake in a program raises is none.
    """
    if isinstance(error, _MISTAKES):
        return False
    frames = traceback.walk_tb(error.__traceback__)
    modules = (frame.f_globals.get("__name__", "") for frame, _ in frames)
    return any(name.startswith("fsspec.") for name in modules)
