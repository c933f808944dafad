"""Locks of files: one process at a time."""

import fcntl
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from rmjax.errors import InputError
from rmjax.utils.places import is_remote


class Busy(InputError):
    """Another process holds a lock."""


class NoLocks(InputError):
    """The file system, or the store, knows no locks."""


@contextmanager
def locked(path: Path, busy: str, *, wait: bool = False) -> Iterator[IO[str]]:
    """Hold the lock file `path` until the end of the block; yield it, open.

    The lock is the system's (`flock`), which ends with the process that holds it,
    however that ends; a process that inherits the open file holds it too. On a folder
    that several hosts share it is one lock for all where the file system keeps it so:
    NFS does on Linux, Lustre if it is mounted with `flock`.

    The holder writes its name into the file, and may remove the file, or the folder
    that it lies in, before the block ends: whoever had opened it meanwhile sees that
    it is no longer what it locked, and begins again.

    Args:
        path: of the lock file; its folder is made if need be.
        busy: the message where another process holds the lock.
        wait: wait for the other process instead.

    Raises:
        Busy: another process holds the lock; the message says which, and on what host.
        NoLocks: the file system knows no locks, as no store does.
        InputError: the file can't be written.
    """
    if is_remote(path):
        raise NoLocks(f"can't lock {path.parent}: a store knows no locks")
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("a+", encoding="utf-8")
        except OSError as error:
            is_file = isinstance(error, FileExistsError)  # what should be a folder
            reason = "Not a directory" if is_file else error.strerror
            raise InputError(f"can't write to {path.parent}: {reason}") from error
        with file:
            file.seek(0)
            holder = file.read().strip()
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                raise Busy(f"{busy} ({holder})" if holder else busy) from None
            except OSError as error:
                raise NoLocks(f"can't lock {path}: {error.strerror}") from error
            if not _is_still(file, path):
                continue
            file.truncate(0)
            file.write(f"process {os.getpid()} on {platform.node()}\n")
            file.flush()
            yield file
            return


def _is_still(file: IO, path: Path) -> bool:
    """Tell whether an open file is the one that now has this path."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
