"""The server: answers as the command line's, and what it does with everything else."""

import io
import json
import re
import runpy
import socket
import subprocess
import sys
import tempfile
import threading
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import httpx
import jax
import numpy as np
import pytest
from PIL import Image
from serving import running

import rmjax
from rmjax.bench.serve import bench_serve, difference, format_serve_bench
from rmjax.cli.main import main
from rmjax.data.image_files import ImageFile
from rmjax.errors import InputError
from rmjax.experiment.data import open_data
from rmjax.gallery import ask
from rmjax.gallery.store import load_gallery, locked, save_gallery
from rmjax.inference.attribute import BATCHES, VIEWS, attribute
from rmjax.inference.explain import explain
from rmjax.serve import device
from rmjax.serve.device import Device
from rmjax.serve.server import bind, make_access


@pytest.fixture(scope="module")
def model(small_run):
    return rmjax.load(small_run, num_devices=1)


@pytest.fixture(scope="module")
def images(small_run, model):
    """Encoded images by name, the last of them no image."""
    data = open_data(model.config)
    found = {f"{i}.png": data.dataset.records("test")[i]["image"] for i in range(4)}
    return found | {"text.png": b"no image"}


@pytest.fixture(scope="module")
def server(model):
    with running(model) as server:
        yield server


@pytest.fixture
def folder(images, tmp_path, monkeypatch):
    """A folder of the images, to work in."""
    monkeypatch.chdir(tmp_path)
    for name, data in images.items():
        Path(name).write_bytes(data)
    return tmp_path


def form(images, field="images"):
    return [(field, (name, data)) for name, data in images.items()]


def post(server, path, images, **options):
    response = httpx.post(server.url + path, files=form(images), timeout=60, **options)
    return response.status_code, response.json()


def command_line(capsys, *arguments):
    """The document that a command prints."""
    capsys.readouterr()
    main([*arguments])
    return json.loads(capsys.readouterr().out)


def assert_same(found, expected):
    assert difference(found, expected) == ""


def test_answers_are_the_command_line_s(server, small_run, folder, images, capsys):
    arguments = ["attribute", "--json", "--workdir", str(small_run)]
    expected = command_line(capsys, *arguments, *images)
    status, document = post(server, "/v1/attribute", images)
    assert status == 200
    assert_same(document, expected)
    assert document["images"][-1] == {
        "image": "text.png",
        "error": "text.png: not an image of a known format",
    }
    for number, name in enumerate(images):
        status, alone = post(server, "/v1/attribute", {name: images[name]})
        assert_same(alone["images"], expected["images"][number : number + 1])


@pytest.mark.parametrize(
    ("sent", "name"),
    [
        ("../../etc/a.png", "a.png"),
        ("C:\\pictures\\a.png", "a.png"),
        ("ünï.png", "ünï.png"),
        ("a\u202eb.png", "a\ufffdb.png"),
        ("folder/", "image"),
    ],
)
def test_of_names_the_last_part_counts(server, images, sent, name):
    _, document = post(server, "/v1/embed", {sent: images["text.png"]})
    assert document["images"][0]["image"] == name
    assert document["images"][0]["error"].startswith(f"{name}: ")


def test_fingerprints_are_the_network_s(server, model, images):
    status, document = post(server, "/v1/embed", images)
    assert status == 200 and document["layer"] == "embedding"
    *found, failed = document["images"]
    expected = model.embed(list(images.values())[:-1])
    np.testing.assert_allclose([f["embedding"] for f in found], expected, atol=1e-4)
    assert set(failed) == {"image", "error"}


def test_an_explanation_is_explain_s(server, model, images):
    data = {"a.png": images["0.png"]}
    answer = httpx.post(
        f"{server.url}/v1/explain", files=form(data, "image"), timeout=60
    )
    assert answer.status_code == 200
    assert_same(answer.json(), explain(model, data["a.png"], "a.png"))


def test_the_model_says_what_can_be_asked(server, model):
    said = httpx.get(f"{server.url}/v1/model").json()
    assert said["sha256"] == model.digest
    assert said["sources"] == list(model.source_names)
    assert said["gallery"] is None and said["explains"] is True
    limits = server.service.limits
    assert said["limits"] == {
        "bytes": limits.max_bytes,
        "pixels": limits.max_pixels,
        "images": limits.max_images,
    }


def test_a_network_without_sources_answers_by_its_gallery(
    fingerprint_run, folder, images, capsys
):
    network = rmjax.load(fingerprint_run, num_devices=1)
    asked = {name: images[name] for name in ("2.png", "text.png")}
    run = ["--workdir", str(fingerprint_run), "--gallery", "mine"]
    with running(network, gallery="mine") as server:
        assert post(server, "/v1/attribute", asked)[0] == 409
        assert httpx.get(f"{server.url}/v1/gallery").json() == {"generators": []}

        def enrol(name, *files):
            sent = {file: images[file] for file in files}
            return post(server, "/v1/gallery", sent, data={"generator": name})

        assert enrol("new", "0.png", "1.png") == (
            200,
            {"generator": "new", "enrolled": ["0.png", "1.png"], "images": 2},
        )
        status, document = post(server, "/v1/attribute", asked)
        expected = command_line(capsys, "attribute", "--json", *run, *asked)
        assert expected["gallery"].pop("folder") == "mine"
        assert_same(document, expected)
        assert document["images"][0]["ranked"][0]["generator"] == "new"

        # What the command line refuses, and in its words.
        for name, file in (("other", "0.png"), ("unknown", "2.png"), ("x", "text.png")):
            status, said = enrol(name, file)
            made, sent = load_gallery(Path("mine")), [ImageFile(file, images[file])]
            with pytest.raises(InputError) as error:
                ask.enrol_files(made, network, name, sent)
            assert (status, said) == (422, {"error": str(error.value)})

        # What others enrol, the server knows.
        later = partial(
            ask.enrol_files, model=network, name="later", files=[folder / "3.png"]
        )
        ask.change_gallery(Path("mine"), network, later)
        listed = httpx.get(f"{server.url}/v1/gallery").json()["generators"]
        assert [(g["name"], g["images"]) for g in listed] == [("new", 2), ("later", 1)]
        assert httpx.get(f"{server.url}/v1/model").json()["gallery"]["images"] == 3
        answer = httpx.post(
            f"{server.url}/v1/explain",
            files=form({"2.png": images["2.png"]}, "image"),
            timeout=60,
        )
        assert answer.json()["map"]["of"] in ("new", "later")


@pytest.fixture
def gallery(model, folder):
    """Folder of an empty gallery of the network with sources, which needs no fit."""
    save_gallery(folder / "mine", ask.new_gallery(model, "cosine"))
    return folder / "mine"


def test_beside_its_sources_a_network_names_the_nearest_generators(
    model, gallery, images
):
    mine = {"a.png": images["0.png"]}
    said = [*attribute(model, [ImageFile(*one) for one in mine.items()])]
    expected = json.loads(json.dumps(said))
    with running(model, gallery=gallery) as server:
        _, before = post(server, "/v1/attribute", mine)
        assert before["images"][0].pop("nearest") == []
        assert_same(before["images"], expected)
        post(server, "/v1/gallery", mine, data={"generator": "new"})
        _, after = post(server, "/v1/attribute", mine)
        (nearest,) = after["images"][0].pop("nearest")
        assert nearest["generator"] == "new"
        assert nearest["similarity"] == pytest.approx(1, abs=1e-3)
        assert_same(after["images"], expected)


def test_a_gallery_that_another_command_changes_is_waited_for(model, gallery, images):
    one = {"0.png": images["0.png"]}
    with running(model, gallery=gallery) as server, locked(gallery):
        answer = httpx.post(
            f"{server.url}/v1/gallery", files=form(one), data={"generator": "new"}
        )
        assert answer.status_code == 503 and "retry-after" in answer.headers
        assert str(gallery) not in answer.text
        assert httpx.get(f"{server.url}/v1/gallery").json() == {"generators": []}


def test_a_gallery_that_breaks_is_no_secret_s_leak(model, gallery, images):
    one = {"0.png": images["0.png"]}
    with running(model, gallery=gallery) as server:
        (gallery / "gallery.json").write_text("{")
        for answer in (
            httpx.get(f"{server.url}/v1/model"),
            httpx.post(f"{server.url}/v1/attribute", files=form(one)),
            httpx.post(
                f"{server.url}/v1/gallery", files=form(one), data={"generator": "x"}
            ),
        ):
            assert answer.status_code == 500 and list(answer.json()) == ["error"]
            assert str(gallery) not in answer.text
        assert httpx.get(f"{server.url}/healthz").status_code == 200


MULTIPART = {"content-type": "multipart/form-data; boundary=b"}
PART = b'--b\r\nContent-Disposition: form-data; name="images"; filename="a"\r\n\r\n'


@pytest.mark.parametrize(
    ("method", "path", "options", "status", "word"),
    [
        ("GET", "/nothing", {}, 404, "no such path"),
        ("GET", "/page/..%2fapp.py", {}, 404, "no such path"),
        ("GET", "/page/../app.py", {}, 404, "no such path"),
        ("GET", "/v1/attribute", {}, 405, "use POST"),
        ("DELETE", "/v1/model", {}, 405, "use GET"),
        ("PUT", "/v1/gallery", {}, 405, "use GET, POST"),
        ("POST", "/v1/attribute", {"content": b"x"}, 415, "multipart/form-data"),
        ("POST", "/v1/embed", {"json": {"a": 1}}, 415, "application/json"),
        ("POST", "/v1/attribute", {"files": {"image": b"x"}}, 422, "'images'"),
        ("POST", "/v1/explain", {"files": {"images": b"x"}}, 422, "'image'"),
        ("POST", "/v1/explain", {"files": {"image": b"x"}}, 422, "known format"),
        (
            "POST",
            "/v1/attribute",
            {"content": b"x", "headers": {"content-type": "multipart/form-data"}},
            422,
            "broken form",
        ),
        (
            "POST",
            "/v1/attribute",
            {"content": b"--c\r\n", "headers": MULTIPART},
            422,
            "broken form",
        ),
        (
            "POST",
            "/v1/attribute",
            {"content": PART + b"half an image", "headers": MULTIPART},
            422,
            "last boundary",
        ),
        (
            "POST",
            "/v1/attribute",
            {"data": {"images": "text"}, "files": {"other": b"x"}},
            422,
            "'images'",
        ),
        ("POST", "/v1/gallery", {"files": {"images": b"x"}}, 404, "--gallery"),
        ("GET", "/v1/gallery", {}, 404, "--gallery"),
    ],
)
def test_errors_are_one_line_of_json(server, method, path, options, status, word):
    answer = httpx.request(method, server.url + path, **options)
    assert answer.status_code == status
    (line,) = answer.json().values()
    assert list(answer.json()) == ["error"] and word in line and "\n" not in line


def test_what_is_no_http_is_an_error_as_well(server):
    with socket.create_connection(server.address) as client:
        client.sendall(b"\x16\x03\x01 hello\r\n\r\n")
        head, _, body = receive(client).partition(b"\r\n\r\n")
    assert b" 400 " in head and "error" in json.loads(body)


def test_every_answer_is_sealed(server):
    for path in ("/", "/page/page.js", "/v1/model", "/nothing", "/docs", "/healthz"):
        headers = httpx.get(server.url + path).headers
        assert "default-src 'self'" in headers["content-security-policy"]
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] == "no-store"


def test_the_page_and_the_description_need_no_other_host(server):
    for path, kind in (
        ("/", "text/html"),
        ("/docs", "text/html"),
        ("/page/page.css", "text/css"),
        ("/page/page.js", "javascript"),
    ):
        answer = httpx.get(server.url + path)
        assert answer.status_code == 200 and kind in answer.headers["content-type"]
        loaded = re.findall(r'(?:src|href|url\()\s*=?\s*["\'](\w+:)?//', answer.text)
        assert not loaded
    described = httpx.get(f"{server.url}/openapi.json").json()
    text = httpx.get(f"{server.url}/docs").text
    assert len(described["paths"]) >= 7
    for name in (*described["paths"], *described["components"]["schemas"]):
        assert name in text


def test_large_requests_are_not_read_to_their_end(model, images):
    large = {"a.png": bytes(200_000)}
    with running(model, max_bytes=100_000) as server:
        status, said = post(server, "/v1/attribute", large)
        assert status == 413 and "100,000 bytes" in said["error"]

        def endless():  # without a length
            yield PART
            while True:
                yield bytes(10_000)

        try:
            answer = httpx.post(
                f"{server.url}/v1/attribute", content=endless(), headers=MULTIPART
            )
            assert answer.status_code == 413
        except httpx.TransportError:  # the connection was closed while it sent
            pass
        fine = {"0.png": images["0.png"]}
        assert post(server, "/v1/embed", fine)[0] == 200


def test_many_images_and_large_ones_are_refused(model, images):
    first = images["0.png"]
    large = io.BytesIO()
    Image.new("RGB", (100, 41)).save(large, "PNG")
    with running(model, max_images=3, max_pixels=4096) as server:
        for count, expected in ((3, 200), (4, 413), (40, 413)):
            sent = {f"{i}.png": first for i in range(count)}
            assert post(server, "/v1/attribute", sent)[0] == expected
        both = {"large.png": large.getvalue(), "0.png": first}
        for path in ("/v1/attribute", "/v1/embed"):
            status, said = post(server, path, both)
            assert status == 200
            assert "at most 4,096 are read" in said["images"][0]["error"]
            assert "error" not in said["images"][1]
        answer = httpx.post(
            f"{server.url}/v1/explain", files={"image": large.getvalue()}
        )
        assert answer.status_code == 422 and "4,096" in answer.json()["error"]


def test_a_token_is_asked_for_but_by_the_page(model, images):
    with running(model, token="s3cret") as server:
        for path in ("/", "/page/page.js", "/healthz"):
            assert httpx.get(server.url + path).status_code == 200
        for given in (None, "Bearer s3cre", "Bearer s3cret2", "Basic s3cret", "s3cret"):
            headers = {"Authorization": given} if given else {}
            for path in ("/v1/model", "/metrics", "/docs", "/openapi.json", "/nothing"):
                answer = httpx.get(server.url + path, headers=headers)
                assert answer.status_code == 401 and "Bearer" in answer.json()["error"]
                assert answer.headers["www-authenticate"] == "Bearer"
            assert post(server, "/v1/embed", images, headers=headers)[0] == 401
        headers = {"Authorization": "Bearer s3cret"}
        assert httpx.get(f"{server.url}/v1/model", headers=headers).status_code == 200
        assert post(server, "/v1/embed", images, headers=headers)[0] == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "localhost:{port}"}, 200),
        ({"Host": "[::1]:{port}"}, 200),
        ({"Host": "evil.example:{port}"}, 403),
        ({"Host": "127.0.0.1.evil.example"}, 403),
        ({"Host": "evil.example#@127.0.0.1"}, 403),
        ({"Host": ""}, 403),
        ({"Origin": "http://127.0.0.1:{port}"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({"Origin": "null"}, 403),
    ],
)
def test_pages_from_elsewhere_are_refused(server, images, headers, status):
    port = str(server.address[1])
    headers = {name: text.replace("{port}", port) for name, text in headers.items()}
    one = {"0.png": images["0.png"]}
    assert post(server, "/v1/embed", one, headers=headers)[0] == status
    assert httpx.get(f"{server.url}/v1/model", headers=headers).status_code == status


def receive(client):
    """All that a server sends until it closes the connection."""
    client.settimeout(30)
    parts = []
    try:
        while part := client.recv(65536):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


def begin_upload(server, data, rest=b"\r\n--b--\r\n", name="a.png"):
    """Send a request but for its last bytes; return the connection, and these."""
    client = socket.create_connection(server.address)
    body = PART.replace(b'"a"', f'"{name}"'.encode()) + data + rest
    head = (
        f"POST /v1/embed HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n"
        f"Connection: close\r\nContent-Type: {MULTIPART['content-type']}\r\n\r\n"
    )
    client.sendall(head.encode() + body[: -len(rest)])
    return client, rest


def test_a_slow_upload_gives_its_place_back(model, images):
    with running(model, upload_seconds=0.5, max_requests=1) as server:
        client, rest = begin_upload(server, images["0.png"])
        answers = []
        reader = threading.Thread(target=lambda: answers.append(receive(client)))
        reader.start()
        try:
            for byte in rest[:-1] * 20:  # one after another, and never all
                client.sendall(bytes([byte]))
                time.sleep(0.1)
        except OSError:
            pass
        reader.join()
        assert b" 408 " in answers[0] and b'{"error"' in answers[0]
        client.close()
        assert post(server, "/v1/embed", {"0.png": images["0.png"]})[0] == 200


def test_when_all_places_are_taken_others_come_again(model, images):
    one = {"0.png": images["0.png"]}
    with running(model, max_requests=1) as server:
        client, rest = begin_upload(server, images["0.png"])
        wait_for(lambda: gauge(server, "rmjax_queue_requests") == 1)
        refused = httpx.post(f"{server.url}/v1/embed", files=form(one))
        assert refused.status_code == 503 and "again" in refused.json()["error"]
        assert int(refused.headers["retry-after"]) >= 1
        assert httpx.get(f"{server.url}/healthz").status_code == 200
        client.sendall(rest)
        assert b" 200 " in receive(client)
        assert post(server, "/v1/embed", one)[0] == 200


def test_an_upload_that_breaks_off_leaves_the_server_as_it_was(model, images):
    with running(model, max_requests=1) as server:
        client, _ = begin_upload(server, images["0.png"])
        wait_for(lambda: gauge(server, "rmjax_queue_requests") == 1)
        client.close()
        wait_for(lambda: gauge(server, "rmjax_queue_requests") == 0)
        assert post(server, "/v1/embed", {"0.png": images["0.png"]})[0] == 200


def test_what_is_in_flight_is_answered_before_the_end(model, images):
    with running(model) as server:
        client, rest = begin_upload(server, images["0.png"])
        wait_for(lambda: gauge(server, "rmjax_queue_requests") == 1)
        server.stop()
        time.sleep(0.3)
        client.sendall(rest)
        answer = receive(client)
        assert b" 200 " in answer and b'"embedding"' in answer
        server.join()
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{server.url}/healthz")


def gauge(server, name):
    text = httpx.get(f"{server.url}/metrics").text
    return float(re.search(rf"^{re.escape(name)} (\S+)$", text, re.M).group(1))


def wait_for(condition):
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_metrics_count_what_was_asked(model, images):
    with running(model) as server:
        post(server, "/v1/attribute", images)
        for path in ("/nothing", "/strange/" + "x" * 50):
            httpx.get(server.url + path)
        asked = 'rmjax_requests_total{path="/v1/attribute",status="200"}'
        assert gauge(server, asked) == 1
        assert gauge(server, 'rmjax_requests_total{path="other",status="404"}') == 2
        assert gauge(server, 'rmjax_request_seconds_count{path="/v1/attribute"}') == 1
        assert gauge(server, "rmjax_images_total") == len(images)
        ran = (len(images) - 1) * (1 + len(VIEWS))
        assert gauge(server, "rmjax_batch_images_sum") == ran


def test_uploads_are_never_written_to_disk(server, monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("a file was made")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    large = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (1200, 1200, 3), np.uint8)
    Image.fromarray(noise).save(large, "PNG")
    assert len(large.getvalue()) > 4 * 2**20
    status, said = post(server, "/v1/embed", {"large.png": large.getvalue()})
    assert status == 200 and "embedding" in said["images"][0]


def test_what_comes_meanwhile_runs_together(model, images):
    pixels = model.read(images["0.png"])
    sizes = []
    worker = Device(model, sizes.append)
    go_on = threading.Event()
    blocked = worker.call(go_on.wait)
    several = [worker.run([pixels] * 5) for _ in range(BATCHES[-1] // 5 + 2)]
    go_on.set()
    outputs = [one.result() for one in several]
    assert blocked.result() and sizes == [BATCHES[-1], 10]
    for output in outputs:
        np.testing.assert_allclose(
            output["embedding"], outputs[0]["embedding"], atol=1e-5
        )
    failing = worker.call(lambda: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        failing.result()
    assert len(worker.run([pixels]).result()["embedding"]) == 1
    worker.close()


def test_a_server_that_others_reach_needs_a_token(capsys, monkeypatch):
    monkeypatch.delenv("RMJAX_TOKEN", raising=False)
    for arguments, word in (
        (["--host", "0.0.0.0"], "--token"),
        (["--host", "::"], "--token"),
        (["--token", "a\nb"], "printable"),
        (["--max-images", "0"], "max_images = 0"),
    ):
        assert main(["serve", *arguments]) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert line.startswith("rmjax serve: error: ") and word in line
    assert make_access("0.0.0.0", "s3cret").hosts is None
    assert make_access("localhost", None).hosts


def test_an_address_that_is_taken_is_named(capsys):
    with bind("127.0.0.1", 0) as taken:
        taken.listen()
        port = str(taken.getsockname()[1])
        assert main(["serve", "--port", port]) == 2
    assert f"--port {port}: " in capsys.readouterr().err
    for port in (-1, 70000):
        with pytest.raises(InputError, match="give 0 to 65535"):
            bind("127.0.0.1", port)
    with pytest.raises(InputError, match="no.where"):
        bind("no.where.invalid", 80)


def test_without_the_extra_the_command_says_what_to_install(monkeypatch, capsys):
    monkeypatch.delitem(sys.modules, "rmjax.serve.server")
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert main(["serve"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "pip install 'rmjax[serve]'" in line


def test_programs_of_many_shapes_do_not_pile_up(model, monkeypatch):
    monkeypatch.setattr(device, "MAX_SHAPES", 2)
    worker = Device(model, lambda size: None)
    first = np.zeros((16, 16, 3), np.uint8)
    before = worker.run([first]).result()["embedding"]
    client = jax.devices()[0].client
    counts = []
    for width in (17, 18):
        worker.run([np.zeros((16, width, 3), np.uint8)]).result()
        counts.append(len(client.live_executables()))
    assert counts[1] < counts[0]
    np.testing.assert_array_equal(worker.run([first]).result()["embedding"], before)
    worker.close()


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ({"a": 1.0}, {"b": 1.0}),
        ({"a": 1.0}, {"a": 1.001}),
        ([1], [1, 2]),
        ("real", "fake"),
        ("P = 0.5, real", "P = 0.5, fake"),
        (1, True),
        ([None], [0.0]),
        ({}, []),
    ],
)
def test_what_differs_is_found(found, expected):
    assert difference(found, expected) and difference([{"x": found}], [{"x": expected}])
    assert not difference(found, found) and not difference(expected, expected)


def test_the_last_bits_of_numbers_are_no_difference():
    assert not difference({"a": [0.5, "P = 0.123"]}, {"a": [0.50001, "P = 0.124"]})


@pytest.mark.slow
def test_the_load_is_answered_as_by_the_command_line(small_run):
    results = bench_serve(workdir=str(small_run), requests=64, clients=8, size=32)
    assert results["wrong"] == 0 and results["p50_ms"] <= results["p99_ms"]
    assert "64 requests" in format_serve_bench(results)


@pytest.fixture(scope="module")
def process(small_run, tmp_path_factory):
    """A server as a process of its own, which has to end well."""
    gallery = str(tmp_path_factory.mktemp("process") / "gallery")
    command = [sys.executable, "-m", "rmjax.cli", "serve", "--port", "0"]
    command += ["--workdir", str(small_run), "--gallery", gallery]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        url = server.stdout.readline().removeprefix("serving: ").strip()
        yield SimpleNamespace(url=url.rstrip("/"))
        server.terminate()
        assert server.wait(timeout=60) == 0


@pytest.fixture(scope="module")
def damaged():
    """Images of many formats, damaged."""
    path = Path(__file__).resolve().parents[1] / "examples" / "fuzz_images.py"
    fuzz = runpy.run_path(str(path))["fuzz"]
    pixels = np.random.default_rng(0).integers(0, 256, (48, 40, 3), np.uint8)
    kinds = "PNG JPEG WEBP GIF BMP TIFF TGA PPM JPEG2000 AVIF ICO".split()
    files = []
    for kind in kinds:
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, kind)
        files.append(file.getvalue())
    found = dict(fuzz(files))
    assert found == dict(fuzz(files)) and len(found) == 200
    return found


@pytest.mark.slow
def test_damaged_images_get_an_answer_or_an_error_each(process, damaged):
    names = list(damaged)
    outcomes = {"answer": 0, "error": 0}
    for first in range(0, len(names), 10):
        part = {name: damaged[name] for name in names[first : first + 10]}
        status, document = post(process, "/v1/attribute", part)
        assert status == 200
        assert [image["image"] for image in document["images"]] == list(part)
        for image in document["images"]:
            (outcome,) = outcomes.keys() & image.keys()
            outcomes[outcome] += 1
    assert sum(outcomes.values()) == 200 and min(outcomes.values()) > 20


@pytest.mark.slow
def test_the_server_is_as_its_description_says(process, tmp_path):
    """By schemathesis, but for one check: no schema says which bytes are an image."""
    command = [str(Path(sys.executable).with_name("schemathesis")), "run"]
    command += [f"{process.url}/openapi.json", "--checks", "all", "--seed", "1"]
    command += ["--exclude-checks", "positive_data_acceptance", "--max-examples", "50"]
    found = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert found.returncode == 0, found.stdout
