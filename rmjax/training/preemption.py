"""Being asked to stop: what a scheduler's SIGTERM becomes between two steps."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import jax
from jax.experimental import multihost_utils


@contextmanager
def stop_requests() -> Iterator[Callable[[int], bool]]:
    """Take SIGTERM as a request until the end of the `with` block.

    Yields `stop_requested(step)`: whether training is to stop after this many steps. Of
    several processes, all stop after the same step, whichever of them was asked.
    A second signal changes nothing. Elsewhere than in the main thread, where Python
    lets nobody take signals, nobody ever asks.
    """
    if (
        jax.process_count() > 1
    ):  # JAX takes the signal, see `rmjax.experiment.hosts.connect`
        yield multihost_utils.reached_preemption_sync_point
        return
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield lambda step: False
        return
    before = signal.signal(signal.SIGTERM, lambda number, frame: asked.set())
    try:
        yield lambda step: asked.is_set()
    finally:
        signal.signal(signal.SIGTERM, before)
