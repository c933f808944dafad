"""Image files: which there are in a folder, what they hold, what is wrong with them."""

import errno
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from PIL import Image

from rmjax.data.images import SUFFIXES, readable_formats
from rmjax.errors import InputError
from rmjax.utils.places import filesystem, is_remote, open_bytes, reason, walk

MAX_BYTES = 512 * 2**20  # no list or image is larger


class ImageFile(NamedTuple):
    """An encoded image file that was read.

    Attributes:
        name: what to call it, such as its path.
        data: its contents.
    """

    name: str
    data: bytes


def read_file(image: str | Path | ImageFile) -> ImageFile:
    """Return a file with its path as name; one that was read already as it is.

    Raises:
        InputError: as of `read_bytes`.
    """
    if isinstance(image, ImageFile):
        return image
    return ImageFile(str(image), read_bytes(image))


def read_bytes(path: str | Path, name: str = "") -> bytes:
    """Return a file's contents.

    Args:
        path: of a regular file of at most `MAX_BYTES`.
        name: what error messages call it; its path for none.

    Raises:
        InputError: it is none, or can't be read.
        OSError: a store can't be asked; that says nothing of the image.
    """
    name = name or as_text(path)
    if is_remote(path):
        return _fetch(path, name)
    try:
        size = check_regular(path)
        if size > MAX_BYTES:
            raise InputError(f"{name}: {size:,} bytes; at most {MAX_BYTES:,} are read")
        return Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{name}: {error.strerror or error}") from error
    except InputError:  # a ValueError as well
        raise
    except ValueError as error:
        raise InputError(f"{name}: no file name ({error})") from error


def _fetch(place: str | Path, name: str) -> bytes:
    """Return the contents of a store's file, by one request; errors as `read_bytes`."""
    system, key = filesystem(place)
    try:
        try:
            data = system.cat_file(key, start=0, end=MAX_BYTES + 1)
        except OSError:  # an empty file has no such part
            if system.info(key)["type"] == "directory" or system.size(key):
                raise
            data = b""
    except FileNotFoundError as error:
        raise InputError(f"{name}: {reason(error)}") from error
    except Exception as error:  # each store's package has its own
        raise OSError(errno.EIO, reason(error), name) from error
    if len(data) > MAX_BYTES:
        raise InputError(f"{name}: at most {MAX_BYTES:,} bytes are read, it has more")
    return data


def check_regular(path: str | Path) -> int:
    """Return a file's size in bytes, if it is a regular one.

    Raises:
        OSError: it is not: a pipe would be waited for, and a device may never end.
    """
    if is_remote(path):
        system, key = filesystem(path)
        about = system.info(key)
        if about["type"] == "directory":
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
        return about["size"]
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        if stat.S_ISDIR(status.st_mode):
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
        raise OSError(errno.EINVAL, "not a regular file")
    return status.st_size


def walk_images(
    root: Path,
    pass_over: Callable[[PurePosixPath], object] = lambda path: None,
    check_link: Callable[[Path], object] | None = None,
) -> Iterator[PurePosixPath]:
    """Yield the images under a folder in a stable order, relative to it.

    An image is told by its suffix or, where that says nothing, by its first bytes.
    What is no regular file may be one: reading it says what it is. Names that begin
    with a dot are hidden.

    Args:
        root: the folder.
        pass_over: called with each file that is no image.
        check_link: raises for what a link leads out of the folder; links to folders
            are followed only if it is given.

    Raises:
        InputError: a folder can't be read.
    """

    def refuse(error: OSError) -> None:
        raise InputError(f"{as_text(error.filename)}: {error.strerror}")

    follow = check_link is not None
    for folder, folders, names in walk(root, followlinks=follow, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if check_link:
            for name in folders:  # before descending: a link may lead anywhere
                check_link(folder / name)
        for name in sorted(name for name in names if not name.startswith(".")):
            file = folder / name
            path = PurePosixPath(file.relative_to(root).as_posix())
            if file.suffix.lower() not in SUFFIXES and not _may_be_image(file):
                pass_over(path)
                continue
            if check_link:
                check_link(file)
            yield path


def count_suffixes(counts: Counter[str]) -> str:
    """Return numbers of files by suffix in words."""
    return ", ".join(f"{n} {name or 'no suffix'}" for name, n in counts.most_common())


def as_text(path: str | Path) -> str:
    """Return a path with what is no UTF-8 in it escaped: tables hold text alone."""
    return os.fsencode(path).decode(errors="backslashreplace")


def _may_be_image(file: Path) -> bool:
    """Look into a file whose name says nothing."""
    try:
        if not is_remote(file) and not stat.S_ISREG(file.stat().st_mode):
            return True
        # A TGA file has no mark of its own: others would pass for one.
        formats = [name for name in readable_formats() if name != "TGA"]
        with open_bytes(file) as stream, Image.open(stream, formats=formats):
            return True
    except Image.UnidentifiedImageError:
        return False
    except Exception:  # a header that is damaged, or a file that can't be opened
        return True
