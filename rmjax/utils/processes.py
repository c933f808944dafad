"""Work on many things in several processes, in order and in bounded memory."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any, TypeVar

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
            yield lambda items: map_ahead(pool, _work, items, 2 * processes + 2)
        except KeyboardInterrupt:
            for child in multiprocessing.active_children():
                child.terminate()
            raise
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


def map_ahead(
    pool: Executor, function: Callable[[A], B], items: Iterable[A], ahead: int
) -> Iterator[tuple[A, B]]:
    """Yield items with their results, with `ahead` of them under way at most."""
    waiting: deque = deque()
    try:
        for item in items:
            with _without_interrupts():
                waiting.append((item, pool.submit(function, item)))
            if len(waiting) >= ahead:
                item, future = waiting.popleft()
                yield item, future.result()
        while waiting:
            item, future = waiting.popleft()
            yield item, future.result()
    finally:
        for _, future in waiting:
            future.cancel()


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Put off Ctrl-C; processes that are started in the block never get it.

    A terminal sends it to all of them, and each would print where it was.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_function: Callable = id  # what `_start` sets in a worker


def _start(function: Callable) -> None:
    global _function
    _function = function
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    """End this process when its parent has ended, even if that was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)


def _work(item: Any) -> Any:
    return _function(item)


def leave_stopping_to_parent(index: int, count: int) -> None:
    """Let a worker process ignore SIGTERM, which is often sent to a whole group."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
