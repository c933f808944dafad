"""Work on many things in several processes, in order and in bounded memory."""

import fcntl
import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from typing import IO, TypeVar

from rmjax.errors import InputError

BLOCK = 64  # images that travel to a worker together
FEW = 2000  # images that one process has read before others have started

A = TypeVar("A")
B = TypeVar("B")
# Maps a function over items: yields each item with its result, in order.
OrderedMap = Callable[[Iterable[A]], Iterator[tuple[A, B]]]


def cores() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


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


@contextmanager
def ordered_map(
    function: Callable[[A], B], processes: int
) -> Iterator[OrderedMap[A, B]]:
    """Give a map of `function` over items that works ahead in other processes.

    Args:
        function: can be pickled, as can its arguments and results; each process gets
            one copy, at its start.
        processes: how many; 1 works in this one.
    """
    if processes == 1:
        yield lambda items: ((item, function(item)) for item in items)
        return
    # spawn: a fork of a process that runs JAX's threads may hang
    context = get_context("spawn")
    with ProcessPoolExecutor(processes, context, _start, (function,)) as pool:
        try:
            yield lambda items: _map_ahead(pool, items, 2 * processes + 2)
        except BrokenProcessPool as error:
            raise InputError(
                "a worker process was killed, perhaps for want of memory; try with fewer "
                "--processes"
            ) from error


def in_blocks(items: Iterable[A], size: int = BLOCK) -> Iterator[list[A]]:
    """Yield lists of `size` items, the last one shorter."""
    block = []
    for item in items:
        block.append(item)
        if len(block) == size:
            yield block
            block = []
    if block:
        yield block


def _map_ahead(
    pool: ProcessPoolExecutor, items: Iterable[A], ahead: int
) -> Iterator[tuple[A, B]]:
    """Yield items with their results, with `ahead` of them under way at most."""
    waiting: deque = deque()
    try:
        for item in items:
            waiting.append((item, pool.submit(_work, item)))
            if len(waiting) >= ahead:
                item, future = waiting.popleft()
                yield item, future.result()
        while waiting:
            item, future = waiting.popleft()
            yield item, future.result()
    finally:
        for _, future in waiting:
            future.cancel()


_function: Callable | None = None


def _start(function: Callable) -> None:
    global _function
    _function = function
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    """End this process when its parent has ended, even if that was killed."""
    multiprocessing.parent_process().join()
    os._exit(1)


def _work(item: A) -> B:
    return _function(item)
