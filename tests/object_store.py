"""An object store on this machine for tests: moto's server, which speaks S3."""

import socket
import uuid
from collections.abc import Iterator
from logging import WARNING, getLogger

import pytest
from fsspec.asyn import sync_wrapper

moto_server = pytest.importorskip("moto.server", reason="moto[server] isn't installed")
pytest.importorskip("s3fs", reason="s3fs isn't installed")
# Decorator of a function during which the store refuses everybody (status 403).
knowing_nobody = pytest.importorskip("moto.core").set_initial_no_auth_action_count(0)


@pytest.fixture(scope="session")
def store() -> Iterator[str]:
    """Start the store for this process and those it starts; yield its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = moto_server.ThreadedMotoServer("127.0.0.1", port, verbose=False)
    getLogger("werkzeug").setLevel(WARNING)  # it would tell of each request
    server.start()
    address = f"http://127.0.0.1:{port}"
    settings = {
        "AWS_ENDPOINT_URL": address,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        yield address
    server.stop()


@pytest.fixture
def bucket(store: str) -> str:
    """Make an empty bucket and return its address."""
    from rmjax.utils.places import filesystem  # only where there is a store

    address = f"s3://test-{uuid.uuid4().hex[:8]}"
    system, name = filesystem(address)
    system.mkdir(name)
    return address


@pytest.fixture
def refusing(monkeypatch):
    """Function of a part of a name: the store refuses all files with it from then on."""
    from rmjax.utils.places import filesystem

    system, _ = filesystem("s3://")
    refused: list[str] = []
    real = type(system)._call_s3

    async def call(self, method, *arguments, **options):
        name = f"{options.get('Bucket')}/{options.get('Key')}"
        if method == "put_object" and any(part in name for part in refused):
            raise PermissionError("Access Denied")
        return await real(self, method, *arguments, **options)

    monkeypatch.setattr(type(system), "_call_s3", call)
    monkeypatch.setattr(type(system), "call_s3", sync_wrapper(call))
    return refused
