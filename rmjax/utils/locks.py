"""Locks of files: one process at a time."""

import fcntl
from typing import IO

from rmjax.errors import InputError


class Busy(InputError):
    """Another process holds a lock."""


def lock(file: IO, busy: str, wait: bool = False) -> None:
    """Lock an open file until it is closed or this process ends, however that is.

    A process that inherits the open file holds the lock too.

    Args:
        file: what to lock.
        busy: the message where another process holds the lock.
        wait: wait for the other process instead.

    Raises:
        Busy: another process holds the lock.
        InputError: the file system knows no locks.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Busy(busy) from None
    except OSError as error:
        raise InputError(f"can't lock {file.name}: {error.strerror}") from error
