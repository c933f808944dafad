"""Benchmark of `rmjax serve`: many clients at once, and every answer is checked."""

import http.client
import io
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from rmjax.errors import InputError
from rmjax.utils.checks import check_at_least

FILES = 64  # images that are sent in turn
WARM_UP = 0.2  # share of the requests that are sent before those that are measured
NEAR = 1e-4  # by which probabilities of one image differ in batches of other sizes
_NUMBER = re.compile(r"-?\d+\.\d+")
_BOUNDARY = "rmjax"


class _Process(NamedTuple):
    """A server that runs: its process, and where it listens."""

    number: int
    host: str
    port: int


def bench_serve(
    *,
    workdir: str,
    requests: int = 10_000,
    clients: int = 32,
    size: int = 64,
) -> dict[str, Any]:
    """Send a server images, one a request, and compare with `rmjax attribute --json`.

    Server and clients share the machine.

    Args:
        workdir: a network with sources.
        requests: that are measured; a share `WARM_UP` of them is sent before.
        clients: that send one request after another.
        size: side of the images in pixels; they are noise, smooth and not.

    Returns:
        `requests`, `clients`, `size`; `requests_per_s`; `p50_ms` and `p99_ms` of a
        request; `wrong`, how many answers differ, and `first_difference`; `memory_mib`,
        resident memory of the server before and after, None where /proc is not there.

    Raises:
        InputError: a number is too small, or the server or the command failed.
    """
    check_at_least(1, requests=requests, clients=clients)
    check_at_least(16, size=size)
    with TemporaryDirectory(prefix="rmjax-") as folder:
        files = _draw(Path(folder), size)
        expected = _ask_command(workdir, files)
        with _serve(workdir) as server:
            load = _Load(server, files, expected, clients)
            load.run(int(WARM_UP * requests))
            before = _memory(server.number)
            seconds, elapsed = load.run(requests)
            after = _memory(server.number)
    p50, p99 = np.percentile(seconds, (50, 99))
    return {
        "requests": requests,
        "clients": clients,
        "size": size,
        "requests_per_s": requests / elapsed,
        "p50_ms": 1000 * float(p50),
        "p99_ms": 1000 * float(p99),
        "wrong": len(load.differences),
        "first_difference": next(iter(load.differences), None),
        "memory_mib": [before, after],
    }


def format_serve_bench(results: dict) -> str:
    """Return the figures as lines of text."""
    before, after = results["memory_mib"]
    memory = "not known here"
    if before and after:
        memory = (
            f"{before:.0f} MiB before, {after:.0f} after ({after / before - 1:+.1%})"
        )
    lines = [
        f"{results['requests']} requests, an image of {results['size']} px each, from "
        f"{results['clients']} clients on the same machine",
        f"requests/s  {results['requests_per_s']:.1f}",
        f"latency     p50 {results['p50_ms']:.0f} ms, p99 {results['p99_ms']:.0f} ms",
        f"memory      {memory}",
        f"answers     {results['wrong']} differ from the command line's",
    ]
    if results["first_difference"]:
        lines.append(f"the first:  {results['first_difference']}")
    return "\n".join(lines)


def difference(found: Any, expected: Any, where: str = "") -> str:
    """Say where two JSON documents differ, but for the last bits of numbers.

    A network's outputs depend, in their last bits, on the size of the batch. Numbers
    that are `NEAR`, and texts that are equal but for decimal numbers in them, count as
    equal.

    Returns:
        The place of the first difference and both values; "" for none.
    """
    if (
        isinstance(found, dict)
        and isinstance(expected, dict)
        and [*found] == [*expected]
    ):
        pairs = [(f"{where}.{key}", found[key], expected[key]) for key in found]
    elif isinstance(found, list) and isinstance(expected, list):
        if len(found) != len(expected):
            return f"{where}: {len(found)} instead of {len(expected)} entries"
        pairs = [
            (f"{where}[{i}]", *pair)
            for i, pair in enumerate(zip(found, expected, strict=True))
        ]
    elif _is_same(found, expected):
        pairs = []
    else:
        return f"{where}: {found!r} instead of {expected!r}"
    said = (difference(mine, theirs, place) for place, mine, theirs in pairs)
    return next(filter(None, said), "")


def _is_same(found: Any, expected: Any) -> bool:
    if isinstance(found, float) and isinstance(expected, float):
        return abs(found - expected) <= NEAR
    if isinstance(found, str) and isinstance(expected, str):
        return _NUMBER.sub("#", found) == _NUMBER.sub("#", expected)
    return type(found) is type(expected) and found == expected


class _Load:
    """Clients that send images in turn.

    Attributes:
        differences: of the answers from what was expected, as they come.
    """

    def __init__(
        self,
        server: _Process,
        files: Sequence[Path],
        expected: dict[str, Any],
        clients: int,
    ):
        self.differences: list[str] = []
        self._server = server
        self._bodies = [_form(file) for file in files]
        self._model = expected["model"]
        self._expected = expected["images"]
        self._clients = clients
        self._local = threading.local()

    def run(self, requests: int) -> tuple[list[float], float]:
        """Send requests; return the seconds that each took, and all together."""
        start = time.perf_counter()
        with ThreadPoolExecutor(self._clients) as pool:
            seconds = [*pool.map(self._ask, range(requests))]
        return seconds, time.perf_counter() - start

    def _ask(self, number: int) -> float:
        which = number % len(self._bodies)
        if not hasattr(self._local, "connection"):
            self._local.connection = http.client.HTTPConnection(*self._server[1:])
        connection = self._local.connection
        kind = {"Content-Type": f"multipart/form-data; boundary={_BOUNDARY}"}
        start = time.perf_counter()
        connection.request("POST", "/v1/attribute", self._bodies[which], kind)
        text = connection.getresponse().read()
        seconds = time.perf_counter() - start
        expected = {"model": self._model, "images": [self._expected[which]]}
        if said := difference(json.loads(text), expected):
            self.differences.append(said)
        return seconds


def _draw(folder: Path, size: int) -> list[Path]:
    """Draw images, PNG and JPEG in turn, from noise to smooth."""
    rng = np.random.default_rng(0)
    files = []
    for number in range(FILES):
        side = max(2, size >> number % 4)
        noise = rng.integers(0, 256, (side, side, 3), np.uint8)
        image = Image.fromarray(noise).resize((size, size), Image.Resampling.BICUBIC)
        files.append(folder / f"{number}.{('png', 'jpg')[number % 2]}")
        image.save(files[-1])
    return files


def _form(file: Path) -> bytes:
    """Return a multipart form with one image."""
    body = io.BytesIO()
    body.write(
        f"--{_BOUNDARY}\r\nContent-Disposition: form-data; "
        f'name="images"; filename="{file.name}"\r\n\r\n'.encode()
    )
    body.write(file.read_bytes())
    body.write(f"\r\n--{_BOUNDARY}--\r\n".encode())
    return body.getvalue()


def _command(*words: str) -> list[str]:
    return [sys.executable, "-m", "rmjax.cli", *words]


def _ask_command(workdir: str, files: Sequence[Path]) -> dict[str, Any]:
    """Return the document of the command line, with names for paths."""
    words = ["attribute", "--json", "--workdir", workdir, *map(str, files)]
    done = subprocess.run(_command(*words), capture_output=True, text=True)
    if done.returncode:
        raise InputError((done.stderr.strip().splitlines() or ["no answer"])[-1])
    document = json.loads(done.stdout)
    for image in document["images"]:
        image["image"] = Path(image["image"]).name
    return document


@contextmanager
def _serve(workdir: str) -> Iterator[_Process]:
    """Run a server on a free port."""
    words = ["serve", "--workdir", workdir, "--port", "0"]
    with subprocess.Popen(
        _command(*words), stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            line = process.stdout.readline() if process.stdout else ""
            address = re.search(r"http://(.*):(\d+)/", line)
            if address is None:
                raise InputError("the server did not start: its error is above")
            yield _Process(process.pid, address[1], int(address[2]))
        finally:
            process.terminate()


def _memory(process: int) -> float | None:
    """Return a process's resident memory in MiB; None where the system does not say."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return None
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    return int(found[1]) / 1024 if found else None
