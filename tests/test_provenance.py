"""Provenance: what is found is there, nothing is made up, no file does harm."""

import dataclasses
import io
import json
import random
import struct
import threading
import time
import tracemalloc
import zlib
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import c2pa as c2pa_python
import pytest
from provenance_sample import (
    FORMATS,
    JOB,
    SAMPLES,
    SOURCE_TYPE,
    STORE,
    chunk,
    encoded,
    manifest_in,
    packet,
    with_chunk,
    with_exif,
    with_texts,
    with_xmp,
)
from provenance_signed import sign

from rmjax.data.images import decode_rgb
from rmjax.provenance import describe, find_provenance
from rmjax.provenance.manifest import UNREADABLE
from rmjax.provenance.patterns import PATTERNS
from rmjax.provenance.text import MAX_SHOWN, printable


@pytest.mark.parametrize("sample", SAMPLES)
def test_finds_what_generators_write(sample):
    data, (where, kind, name) = SAMPLES[sample]
    decode_rgb(data)  # the file is sound
    [finding] = find_provenance(data).metadata
    assert (finding.where, finding.kind, finding.name) == (where, kind, name)
    assert not find_provenance(data).c2pa.found


def test_every_pattern_has_a_sample():
    fields = {where.replace("tEXt ", "") for _, (where, _, _) in SAMPLES.values()}
    for pattern in PATTERNS:
        assert fields & set(pattern.fields), pattern


@pytest.mark.parametrize("format", [*FORMATS, "BMP", "JPEG2000", "PPM", "TGA", "ICO"])
def test_plain_files_have_nothing(format):
    provenance = find_provenance(encoded(format))
    assert not provenance.c2pa.found and not provenance.metadata


@pytest.mark.parametrize(
    "data",
    [
        with_exif(software="Adobe Photoshop 25.0", caption="a cat"),
        with_exif(software="GIMP 2.10"),
        with_texts({"parameters": "of the camera", "prompt": "a cat", "Title": JOB}),
        with_texts({"Software": "Firefly Pictures", "Description": "Job ID: 17"}),
        with_xmp("", f'ext:DigitalSourceType="{SOURCE_TYPE}digitalCapture"'),
        with_xmp("", f'ext:DigitalSourceType="{SOURCE_TYPE}algorithmicMedia"'),
        with_xmp("", 'xmp:CreatorTool="Adobe Photoshop Lightroom"'),
    ],
)
def test_editors_and_lookalikes_are_no_findings(data):
    assert find_provenance(data).metadata == ()


def test_hostile_text_cannot_reach_a_terminal():
    attack = "NovelAI \x1b[2J\x1b]0;owned\x07\r\n\u202egnp\u2028\x9b31m" + "A" * 9999
    provenance = find_provenance(with_texts({"Software": attack}, "add_itxt"))
    lines = describe(provenance)
    assert provenance.metadata[0].name == "NovelAI"
    assert len(provenance.metadata[0].value) == MAX_SHOWN
    assert all(line.isprintable() for line in lines)
    assert printable("\ud800 a\t\n b") == "\ufffd a b"


def test_names_taken_from_the_file_are_printable_too():
    data = with_exif(model="X\x1b[31m" + "Y" * 500)
    [finding] = find_provenance(data).metadata
    assert finding.name.isprintable() and len(finding.name) <= MAX_SHOWN


def test_says_what_not_found_and_found_mean():
    nothing = find_provenance(encoded())
    text = " ".join(describe(nothing))
    assert "C2PA manifest: not found" in text and "cameras: not found" in text
    assert nothing.caveat in text and "evidence of nothing" in text
    found = describe(find_provenance(SAMPLES["NovelAI"][0]))
    assert "generator: NovelAI (PNG tEXt Software: NovelAI)" in found
    assert "can be forged" in found[-1]


def test_is_json_able():
    provenance = find_provenance(SAMPLES["Google"][0])
    assert json.loads(json.dumps(dataclasses.asdict(provenance)))["metadata"][0] == {
        "where": "XMP Credit",
        "value": "Edited with Google AI",
        "kind": "generator",
        "name": "Google AI",
    }


def test_refuses_bombs():
    bomb = b"parameters\0\0" + zlib.compress(b"A" * 200_000_000, 9)
    assert find_provenance(with_chunk(b"zTXt", bomb)).metadata == ()
    laughs = '<!DOCTYPE a [<!ENTITY b "Draw Things">]>'
    xml = laughs + packet("<xmp:CreatorTool>&b;</xmp:CreatorTool>").decode()
    assert find_provenance(with_texts({"XML:com.adobe.xmp": xml})).metadata == ()


def bomb() -> bytes:
    """EXIF whose entries all point at the same bytes, 3 GB in all."""
    tags = b"".join(struct.pack("<HHII", tag, 7, 10**6, 9) for tag in range(3000))
    return b"II*\0\x08\0\0\0" + struct.pack("<H", 3000) + tags + bytes(10**6)


def segments(content: bytes, size: int) -> bytes:
    """A JPEG with EXIF cut into segments, which Pillow would join."""
    parts = [content[at : at + size] for at in range(0, len(content), size)]
    heads = [b"\xff\xe1" + struct.pack(">H", len(part) + 8) for part in parts]
    pairs = zip(heads, parts, strict=True)
    middle = b"".join(head + b"Exif\0\0" + part for head, part in pairs)
    return b"\xff\xd8" + middle + encoded("JPEG")[2:]


BOMBS = {
    "PNG": with_chunk(b"eXIf", bomb()),
    "JPEG": segments(bomb(), 60_000),
    "WebP": encoded("WEBP", exif=bomb()),
    "AVIF": encoded("AVIF") + bytes(4) + bomb(),
    "TIFF": bomb(),
}


@pytest.mark.parametrize("format", BOMBS)
def test_bombs_take_little_memory(format):
    tracemalloc.start()
    try:
        assert find_provenance(BOMBS[format]).metadata == ()
        assert tracemalloc.get_traced_memory()[1] < 100_000_000
    finally:
        tracemalloc.stop()


CROWDS = {
    "EXIF segments": lambda count: segments(bytes(count), 1),
    "EXIF headers": lambda count: with_chunk(b"eXIf", b"Exif\0\0" * count),
    "XMP": lambda count: b"\0\0\0\x0cftypavif" + b"<rdf:RDF" * count,
    "PNG texts": lambda count: (
        encoded()[:33] + chunk(b"zTXt", b"parameters\0\0") * count + encoded()[33:]
    ),
    "comments": lambda count: (
        b"\xff\xd8" + b"\xff\xfe\0\3x" * count + encoded("JPEG")[2:]
    ),
    "GIF comments": lambda count: encoded("GIF")[:-1] + b"\x21\xfe\1x\0" * count + b";",
}


@pytest.mark.parametrize("crowd", CROWDS)
def test_crowds_take_time_in_proportion(crowd):
    times = []
    for count in (50_000, 400_000):
        data = CROWDS[crowd](count)
        begun = time.process_time()
        assert find_provenance(data).metadata == ()
        times.append(time.process_time() - begun)
    assert times[1] < 24 * times[0] + 0.2  # 8 if in proportion, 64 if by the square


def test_directories_in_a_circle_end():
    entry = struct.pack("<HHII", 0x8769, 4, 1, 8)
    data = b"II*\0\x08\0\0\0\1\0" + entry + struct.pack("<I", 8)
    assert find_provenance(data).metadata == ()


def damaged_samples() -> list[bytes]:
    names = ("web UI, compressed", "web UI, WebP", "web UI, AVIF", "camera")
    names += ("Midjourney, IPTC", "Midjourney, XMP", "ImageMagick's profile")
    return [SAMPLES[name][0] for name in names]


def test_truncated_files_show_a_part():
    for data in damaged_samples():
        whole = {(f.where, f.name) for f in find_provenance(data).metadata}
        assert whole
        for length in range(0, len(data), 1 + len(data) // 400):
            part = find_provenance(data[:length]).metadata
            assert {(f.where, f.name) for f in part} <= whole


def test_damaged_files_raise_nothing():
    rng = random.Random(0)
    for data in [*damaged_samples(), *(manifest_in(format) for format in FORMATS)]:
        for _ in range(200):
            mutant = bytearray(data)
            for _ in range(rng.choice((1, 4, 16))):
                mutant[rng.randrange(min(len(mutant), 2000))] = rng.choice(
                    (0, 1, 0x7F, 0xFF, rng.randrange(256))
                )
            json.dumps(dataclasses.asdict(find_provenance(bytes(mutant))))


def test_empty_boxes_at_the_end_hold_nothing():
    def box(name, content=b""):
        return struct.pack(">I", 8 + len(content)) + name + content

    entry = box(b"iinf", bytes(6) + box(b"infe"))
    for boxes in (
        box(b"iinf") + box(b"iloc"),
        box(b"iloc") + box(b"iinf"),
        box(b"iloc", bytes(8)) + entry,
    ):
        data = box(b"ftyp", b"avif" + bytes(4)) + box(b"meta", bytes(4) + boxes)
        assert find_provenance(data).metadata == ()


@pytest.mark.parametrize("format", FORMATS)
def test_finds_an_embedded_manifest(format):
    c2pa = find_provenance(manifest_in(format)).c2pa
    assert c2pa.found and c2pa.where.split()[0].upper() in (format, "BMFF")
    assert c2pa.validation == UNREADABLE
    other = STORE.replace(b"c2pa", b"c2pb")
    if format != "TIFF":  # whose tag says it all
        assert not find_provenance(manifest_in(format, other)).c2pa.found


@pytest.mark.parametrize("format", FORMATS)
def test_reads_and_validates_what_c2pa_python_signs(format):
    data, _ = sign(encoded(format), f"image/{format.lower()}")
    c2pa = find_provenance(data).c2pa
    assert c2pa.found and c2pa.validation == "Valid"
    assert c2pa.failures == ("signingCredential.untrusted",)
    assert (c2pa.claim_generator, c2pa.title) == ("drawer 1.0", "a \ufffd[2Jpicture")
    assert (c2pa.signer, c2pa.ai_generated) == ("Someone", "trainedAlgorithmicMedia")
    assert all(line.isprintable() for line in describe(find_provenance(data)))


def test_a_changed_picture_is_invalid():
    data, _ = sign(encoded("JPEG"), "image/jpeg")
    changed = data[:-20] + bytes([data[-20] ^ 1]) + data[-19:]
    c2pa = find_provenance(changed).c2pa
    assert c2pa.validation == "Invalid"
    assert "assertion.dataHash.mismatch" in c2pa.failures


def test_an_empty_store_is_unreadable():
    assert find_provenance(manifest_in("PNG")).c2pa.validation == "unreadable"


def test_fetches_nothing():
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(manifest)

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}/manifest.c2pa"
    try:
        data, manifest = sign(encoded(), "image/png", remote=address)
        found = find_provenance(data).c2pa
        assert not found.found and found.remote == address and not asked
        # An embedded manifest beside, so that the file does reach c2pa-python.
        both = data[:33] + chunk(b"caBX", manifest) + data[33:]
        assert find_provenance(both).c2pa.found and not asked
        with c2pa_python.Reader(
            "image/png", io.BytesIO(data)
        ):  # which fetches by itself
            assert asked == ["/manifest.c2pa"]
    finally:
        server.shutdown()
        server.server_close()


def test_the_table_for_people_is_complete():
    text = Path(__file__).parents[1].joinpath("docs/provenance.md").read_text("utf-8")
    for pattern in PATTERNS:
        assert pattern.source in text, pattern.source
        if "{0}" not in pattern.name:
            assert pattern.name in text, pattern.name
        for field in pattern.fields:
            assert field in " ".join(text.split()), field
