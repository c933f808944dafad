"""The server as a process: bind, compile, listen, end when told to."""

import json
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from rmjax.errors import InputError
from rmjax.inference.attributor import load_pretrained
from rmjax.serve.app import make_app
from rmjax.serve.guard import LOOPBACK, Access
from rmjax.serve.limits import Limits
from rmjax.serve.service import Service
from rmjax.serve.shelf import Shelf


def serve(
    workdir: str | Path | None,
    *,
    gallery: str | Path | None,
    default_gallery: str | Path,
    host: str,
    port: int,
    token: str | None,
    limits: Limits,
    say: Callable[[str], None],
) -> None:
    """Serve a network until SIGTERM; then answer what is in flight, and return.

    Args:
        workdir: the network, as for `load_pretrained`.
        gallery: folder of its gallery, which need not be there yet; None for none.
        default_gallery: the same for a network without sources, which can't do without.
        host: address to listen at.
        port: of it; 0 for any that is free.
        token: that requests have to show.
        limits: of requests.
        say: is told the server's address as soon as it listens.

    Raises:
        InputError: the address is not this machine alone and there is no token, it is
            taken, a limit is out of range, or the network or gallery can't be loaded.
    """
    limits.check()
    access = make_access(host, token)
    with bind(host, port) as listener:
        model = load_pretrained(workdir)
        if gallery is None and not model.source_names:
            gallery = default_gallery
        shelf = None if gallery is None else Shelf(gallery, model)
        service = Service(model, shelf, limits)
        service.warm_up()
        server = make_server(service, access, say)
        # Uvicorn raises the signal that ended it once more, when all is done.
        before = signal.signal(signal.SIGTERM, lambda number, frame: None)
        try:
            server.run([listener])
        finally:
            signal.signal(signal.SIGTERM, before)
            service.close()


def make_access(host: str, token: str | None) -> Access:
    """Return who may ask a server that listens at `host`.

    Raises:
        InputError: it could be reached from elsewhere, and there is no token; or that is
            empty.
    """
    if token is not None and not (token.isascii() and token.isprintable() and token):
        raise InputError("--token: give printable ASCII characters, one or more")
    if host in LOOPBACK:
        return Access(token, LOOPBACK)
    if token is None:
        raise InputError(
            f"--host {host} can be reached from elsewhere: give a --token that whoever "
            "asks has to show, or leave it at 127.0.0.1"
        )
    return Access(token, None)


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that has an address and does not listen yet.

    Raises:
        InputError: there is no such address, or it is taken.
    """
    if not 0 <= port < 2**16:
        raise InputError(f"--port {port}: give 0 to {2**16 - 1}")
    try:
        info = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        family, kind, protocol, _, address = info[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise InputError(f"--host {host} --port {port}: {error.strerror}") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise InputError(f"--host {host} --port {port}: {error.strerror}") from error
    return listener


def make_server(
    service: Service, access: Access, say: Callable[[str], None]
) -> uvicorn.Server:
    """Return a server, ready to run on a socket; arguments as for `serve`."""
    config = uvicorn.Config(
        make_app(service, access),
        http=_Protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
    )
    return _Server(config, say)


class _Server(uvicorn.Server):
    """Says when it listens."""

    def __init__(self, config: uvicorn.Config, say: Callable[[str], None]):
        super().__init__(config)
        self._say = say

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listener in sockets or ():
            host, port = listener.getsockname()[:2]
            self._say(f"http://{f'[{host}]' if ':' in host else host}:{port}/")


class _Protocol(H11Protocol):
    """HTTP, whose own error is JSON as all others are."""

    def send_400_response(self, msg: str) -> None:
        body = json.dumps({"error": "no valid HTTP request"}).encode()
        headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
        events = (
            h11.Response(status_code=400, headers=headers),
            h11.Data(data=body),
            h11.EndOfMessage(),
        )
        for event in events:
            self.transport.write(self.conn.send(event))
        self.transport.close()
