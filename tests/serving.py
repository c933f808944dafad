"""A server in a thread, for tests that ask one."""

from collections.abc import Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from threading import Thread

from rmjax.serve.guard import Access
from rmjax.serve.limits import Limits
from rmjax.serve.server import bind, make_server
from rmjax.serve.service import Service
from rmjax.serve.shelf import Shelf


class Running:
    """A server that runs.

    Attributes:
        url: where.
        address: host and port.
        service: what answers.
    """

    def __init__(self, service, access):
        said = SimpleQueue()
        listener = bind("127.0.0.1", 0)
        self.service = service
        self._server = make_server(service, access, said.put)
        self._thread = Thread(target=self._server.run, args=([listener],))
        self._thread.start()
        self.url = said.get(timeout=60).rstrip("/")
        self.address = "127.0.0.1", int(self.url.rpartition(":")[2])

    def stop(self):
        """Do what SIGTERM does."""
        self._server.should_exit = True

    def join(self):
        self._thread.join(timeout=60)
        assert not self._thread.is_alive()
        self.service.close()


@contextmanager
def running(model, *, gallery=None, token=None, **limits) -> Iterator[Running]:
    """Serve a loaded network on a free port; `limits` as of `Limits`."""
    shelf = None if gallery is None else Shelf(gallery, model)
    server = Running(Service(model, shelf, Limits(**limits)), Access(token))
    try:
        yield server
    finally:
        server.stop()
        server.join()
