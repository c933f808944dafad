"""The one thread that runs the network: it takes together what has come meanwhile."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, NamedTuple

import jax
import numpy as np

from rmjax.inference.attribute import BATCHES, run_together
from rmjax.inference.attributor import Attributor

# Images smaller than the network's window run as they are, and a program is compiled for
# each shape. When there are so many, all are dropped: they would fill the memory.
MAX_SHAPES = 64


class _Job(NamedTuple):
    """Images to run, or else a function to call, and where the result goes."""

    future: Future
    images: Sequence[np.ndarray] = ()
    call: Callable[[], Any] | None = None


class Device:
    """Runs a network for many threads.

    Args:
        model: the network.
        on_batch: is told how many images run together.
    """

    def __init__(self, model: Attributor, on_batch: Callable[[int], None]):
        self._model = model
        self._on_batch = on_batch
        self._shapes: set[tuple[int, ...]] = set()
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._is_open = True
        self._thread = Thread(target=self._work, name="device", daemon=True)
        self._thread.start()

    def run(self, images: Sequence[np.ndarray]) -> Future:
        """Run the network on images that `Attributor.read` made.

        Returns:
            What will hold their outputs, see `Attributor.run`.
        """
        return self._put(_Job(Future(), images=images))

    def call(self, function: Callable[[], Any]) -> Future:
        """Call a function that runs the network itself; return what will hold its result."""
        return self._put(_Job(Future(), call=function))

    def warm_up(self) -> None:
        """Compile the network for images of its window's size, in every size of batch."""
        data = self._model.image_config
        side = max(data.eval_size, data.eval_resize)
        image = self._model.read(np.zeros((side, side, 3), np.uint8))
        for size in BATCHES:
            self.run([image] * size).result()

    def close(self) -> None:
        """Do what was asked for, and end the thread."""
        self._jobs.put(None)
        self._thread.join()

    def _put(self, job: _Job) -> Future:
        self._jobs.put(job)
        return job.future

    def _work(self) -> None:
        while self._is_open:
            jobs = self._take()
            for job in jobs:
                if job.call is not None:
                    _settle([job], _call)
            batch = [job for job in jobs if job.call is None]
            if batch:
                _settle(batch, self._run)

    def _take(self) -> list[_Job]:
        """Wait for a job; return it and those behind it that go into a batch with it."""
        jobs: list[_Job] = []
        job = self._jobs.get()
        while job is not None:
            if job.future.set_running_or_notify_cancel():
                jobs.append(job)
            if sum(len(job.images) for job in jobs) >= BATCHES[-1]:
                return jobs
            try:
                job = self._jobs.get_nowait()
            except Empty:
                return jobs
        self._is_open = False
        return jobs

    def _run(self, jobs: list[_Job]) -> list[dict[str, np.ndarray]]:
        images = [image for job in jobs for image in job.images]
        self._on_batch(len(images))
        self._shapes |= {image.shape for image in images}
        if len(self._shapes) > MAX_SHAPES:
            jax.clear_caches()
            self._shapes.clear()
        return run_together(self._model, [job.images for job in jobs])


def _call(jobs: list[_Job]) -> list[Any]:
    return [job.call() for job in jobs if job.call is not None]


def _settle(jobs: list[_Job], work: Callable[[list[_Job]], list[Any]]) -> None:
    """Give each job its result, or all of them the error."""
    try:
        results = work(jobs)
    except Exception as error:
        for job in jobs:
            job.future.set_exception(error)
        return
    for job, result in zip(jobs, results, strict=True):
        job.future.set_result(result)
