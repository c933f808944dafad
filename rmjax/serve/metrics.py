"""Figures for Prometheus."""

from collections.abc import Callable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)

from rmjax.inference.attribute import BATCHES


class Metrics:
    """Counts what the server does.

    Attributes:
        requests: answered, by path and status.
        seconds: from a request's head to the end of its answer, by path.
        images: read or refused.
        batches: sizes of batches, in images and views of images.
        waiting: requests that are being read or answered.
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = self._make(
            Counter, "requests", "Requests answered.", ["path", "status"]
        )
        self.seconds = self._make(
            Histogram, "request_seconds", "Time until the answer was sent.", ["path"]
        )
        self.images = self._make(Counter, "images", "Images that were sent.")
        self.batches = self._make(
            Histogram,
            "batch_images",
            "Images, their views included, that ran together.",
            buckets=BATCHES,
        )
        self.waiting = self._make(
            Gauge, "queue_requests", "Requests being read or answered."
        )

    def text(self) -> bytes:
        """Return all figures in Prometheus' text format."""
        return generate_latest(self._registry)

    def _make(self, kind: Callable, name: str, *arguments, **options):
        return kind(f"rmjax_{name}", *arguments, registry=self._registry, **options)
