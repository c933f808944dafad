"""What the training loop measures between two lines of its log."""

import time
from collections.abc import Iterator

import jax
import numpy as np

from rmjax.errors import TrainingError


class Meter:
    """Collects the steps' scalars and fetches them, averaged, once in a while.

    Adds `images_per_second`, and `data_wait`, the share of the time since `clear` that
    the loop waited for batches, 0 to 1. A step on an accelerator is only started: the
    loop runs ahead of the device, which starves where the share comes near 1.
    """

    def __init__(self, batch_size: int):
        self.batch_size = batch_size
        self.clear()

    def clear(self) -> None:
        """Forget what was collected and start the clock."""
        self.steps: list[dict] = []
        self.waited = 0.0
        self.since = time.perf_counter()

    def wait_for(self, batches: Iterator) -> dict:
        """Return the next batch; the time until it is there counts as waiting."""
        start = time.perf_counter()
        batch = next(batches)
        self.waited += time.perf_counter() - start
        return batch

    def average(self, done: int) -> dict[str, float]:
        """Average the scalars since `clear`, the newest of step `done`.

        Raises:
            TrainingError: one of them is not finite.
        """
        rows = jax.device_get(self.steps)
        for i, row in enumerate(rows, start=done - len(rows) + 1):
            bad = [name for name, value in row.items() if not np.isfinite(value)]
            if bad:
                raise TrainingError(
                    f"{bad[0]} is {row[bad[0]]} at step {i}: training stopped, the "
                    "last good checkpoint stays; try a smaller optim.lr"
                )
        seconds = time.perf_counter() - self.since
        speed = {
            "images_per_second": len(rows) * self.batch_size / seconds,
            "data_wait": self.waited / seconds,
        }
        means = {name: float(np.mean([r[name] for r in rows])) for name in rows[0]}
        return means | speed
