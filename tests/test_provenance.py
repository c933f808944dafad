"""Provenance: what is found is there, nothing is made up, no file does harm."""

import dataclasses
import io
import json
import random
import struct
import sys
import threading
import zlib
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from provenance_sample import sign

from rmjax.data.images import decode_rgb
from rmjax.provenance import describe, find_provenance
from rmjax.provenance.manifest import NOT_CHECKED
from rmjax.provenance.patterns import PATTERNS
from rmjax.provenance.text import MAX_SHOWN, printable

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "AVIF")
STEPS = (
    "a cat\nNegative prompt: dog\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1"
)
JOB = "a cat --ar 2:1 Job ID: a7421d2f-b262-44f9-977c-ac23e9c7d3e3"
SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/"


@pytest.fixture
def no_c2pa(monkeypatch):
    """As if c2pa-python were not installed."""
    monkeypatch.setitem(sys.modules, "c2pa", None)


def encoded(format: str = "PNG", **options) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format, **options)
    return file.getvalue()


def with_texts(texts: dict[str, str], write="add_text", **options) -> bytes:
    info = PngInfo()
    for key, text in texts.items():
        getattr(info, write)(key, text, **options)
    return encoded(pnginfo=info)


def with_exif(format: str = "JPEG", comment: bytes = b"", **tags) -> bytes:
    exif = Image.Exif()
    numbers = {"caption": 0x10E, "make": 0x10F, "model": 0x110, "software": 0x131}
    for name, text in tags.items():
        exif[numbers[name]] = text
    if comment:
        exif.get_ifd(0x8769)[0x9286] = comment
    return encoded(format, exif=exif if format == "TIFF" else exif.tobytes())


def packet(body: str, attributes: str = "") -> bytes:
    return f"""<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description xmlns:xmp="http://ns.adobe.com/xap/1.0/"
 xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:dcterms="http://purl.org/dc/terms/"
 xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/"
 xmlns:ext="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
 xmlns:TC260="http://www.tc260.org.cn/ns/AIGC/1.0/" {attributes}>{body}
</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="w"?>""".encode()


def with_xmp(body: str, attributes: str = "", format: str = "JPEG") -> bytes:
    return encoded(format, xmp=packet(body, attributes))


def with_caption(text: bytes) -> bytes:
    """A JPEG with an IPTC caption behind another one of Photoshop's resources."""
    dataset = b"\x1c\x02\x78" + struct.pack(">H", len(text)) + text
    resource = b"8BIM\x04\x04\0\0" + struct.pack(">I", len(dataset)) + dataset
    content = b"Photoshop 3.0\x008BIM\x03\xed\x02ab\0\0\0\0\x03xyz\0" + resource
    segment = b"\xff\xed" + struct.pack(">H", len(content) + 2) + content
    return b"\xff\xd8" + segment + encoded("JPEG")[2:]


def chunk(name: bytes, content: bytes) -> bytes:
    check = zlib.crc32(name + content)
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", check)


def with_chunk(name: bytes, content: bytes) -> bytes:
    """A PNG with a chunk behind the pixels."""
    return encoded()[:-12] + chunk(name, content) + encoded()[-12:]


def utf16(text: str, order: str) -> bytes:
    return b"UNICODE\0" + text.encode(f"utf-16-{order}")


WEB_UI = "Stable Diffusion web UI (AUTOMATIC1111, Forge or one that writes alike)"
SAMPLES = {
    "web UI, PNG": (
        with_texts({"parameters": STEPS}),
        ("PNG tEXt parameters", "generator", WEB_UI),
    ),
    "web UI, behind the pixels": (
        with_chunk(b"tEXt", b"parameters\0" + STEPS.encode()),
        ("PNG tEXt parameters", "generator", WEB_UI),
    ),
    "web UI, compressed": (
        with_texts({"parameters": STEPS}, zip=True),
        ("PNG zTXt parameters", "generator", WEB_UI),
    ),
    "web UI, Unicode": (
        with_texts({"parameters": STEPS + " ☃"}, "add_itxt", zip=True),
        ("PNG iTXt parameters", "generator", WEB_UI),
    ),
    "web UI, JPEG": (
        with_exif(comment=utf16(STEPS, "be")),
        ("EXIF UserComment", "generator", WEB_UI),
    ),
    "web UI, WebP": (
        with_exif("WEBP", comment=utf16(STEPS, "le")),
        ("EXIF UserComment", "generator", WEB_UI),
    ),
    "web UI, AVIF": (
        with_exif("AVIF", comment=b"ASCII\0\0\0" + STEPS.encode()),
        ("EXIF UserComment", "generator", WEB_UI),
    ),
    "SwarmUI": (
        with_texts({"parameters": json.dumps({"sui_image_params": {"steps": 20}})}),
        ("PNG tEXt parameters", "generator", "SwarmUI"),
    ),
    "Fooocus, PNG": (
        with_texts({"fooocus_scheme": "fooocus"}),
        ("PNG tEXt fooocus_scheme", "generator", "Fooocus"),
    ),
    "Fooocus, JPEG": (
        with_exif(software="Fooocus v2.5.5"),
        ("EXIF Software", "generator", "Fooocus"),
    ),
    "Fooocus, JSON": (
        with_exif(comment=b"\0" * 8 + b'{"seed": 1, "version": "Fooocus v2.5.5"}'),
        ("EXIF UserComment", "generator", "Fooocus"),
    ),
    "Easy Diffusion, PNG": (
        with_texts({"use_stable_diffusion_model": "sd-v1-4"}),
        ("PNG tEXt use_stable_diffusion_model", "generator", "Easy Diffusion"),
    ),
    "Easy Diffusion, JPEG": (
        with_exif(comment=utf16('{"use_stable_diffusion_model": "sd-v1-4"}', "be")),
        ("EXIF UserComment", "generator", "Easy Diffusion"),
    ),
    "ComfyUI, PNG": (
        with_texts({"prompt": '{"3": {"class_type": "KSampler"}}'}),
        ("PNG tEXt prompt", "generator", "ComfyUI"),
    ),
    "ComfyUI, WebP": (
        with_exif("WEBP", model='prompt:{"3": {"class_type": "KSampler"}}'),
        ("EXIF Model", "generator", "ComfyUI"),
    ),
    "InvokeAI": (
        with_texts({"invokeai_metadata": '{"app_version": "5.0"}'}),
        ("PNG tEXt invokeai_metadata", "generator", "InvokeAI"),
    ),
    "InvokeAI 2": (
        with_texts({"sd-metadata": '{"image": {}}'}),
        ("PNG tEXt sd-metadata", "generator", "InvokeAI"),
    ),
    "InvokeAI 1": (
        with_texts({"Dream": '"a cat" -s 50 -S 123 -W 512 -H 512 -C 7.5'}),
        ("PNG tEXt Dream", "generator", "InvokeAI"),
    ),
    "NovelAI": (
        with_texts({"Software": "NovelAI", "Comment": '{"uc": "dog"}'}),
        ("PNG tEXt Software", "generator", "NovelAI"),
    ),
    "Draw Things": (
        with_xmp("<xmp:CreatorTool>Draw Things</xmp:CreatorTool>"),
        ("XMP CreatorTool", "generator", "Draw Things"),
    ),
    "Midjourney, PNG": (
        with_texts({"Description": JOB}),
        ("PNG tEXt Description", "generator", "Midjourney"),
    ),
    "Midjourney, XMP": (
        with_xmp(
            "<dc:description><rdf:Alt><rdf:li xml:lang='x-default'>"
            f"{JOB}</rdf:li></rdf:Alt></dc:description>"
        ),
        ("XMP description", "generator", "Midjourney"),
    ),
    "Midjourney, IPTC": (
        with_caption(JOB.encode()),
        ("IPTC Caption", "generator", "Midjourney"),
    ),
    "Google": (
        with_xmp("", 'photoshop:Credit="Edited with Google AI"', "WEBP"),
        ("XMP Credit", "generator", "Google AI"),
    ),
    "stated, made": (
        with_xmp("", f'ext:DigitalSourceType="{SOURCE_TYPE}trainedAlgorithmicMedia"'),
        ("XMP DigitalSourceType", "ai_generated", "trainedAlgorithmicMedia"),
    ),
    "stated, edited, AVIF": (
        with_xmp(
            "<ext:DigitalSourceType rdf:resource="
            f"'{SOURCE_TYPE}compositeWithTrainedAlgorithmicMedia'/>",
            format="AVIF",
        ),
        (
            "XMP DigitalSourceType",
            "ai_generated",
            "compositeWithTrainedAlgorithmicMedia",
        ),
    ),
    "stated, system": (
        with_xmp("<ext:AISystemUsed>Some Model</ext:AISystemUsed>"),
        ("XMP AISystemUsed", "generator", "Some Model"),
    ),
    "stated, China": (
        with_xmp("""<TC260:AIGC>{"Label":"1","ProduceID":"x"}</TC260:AIGC>"""),
        ("XMP AIGC", "ai_generated", "AIGC label 1"),
    ),
    "XMP in PNG": (
        with_texts(
            {"XML:com.adobe.xmp": packet("", 'xmp:CreatorTool="ComfyUI"').decode()}
        ),
        ("XMP CreatorTool", "generator", "ComfyUI"),
    ),
    "ImageMagick's profile": (
        with_texts(
            {
                "Raw profile type xmp": "\nxmp\n    999\n"
                + packet("", 'xmp:CreatorTool="Draw Things"').hex("\n", 36)
            },
            zip=True,
        ),
        ("XMP CreatorTool", "generator", "Draw Things"),
    ),
    "camera": (
        with_exif("TIFF", make="Canon"),
        ("EXIF Make", "camera", "Canon"),
    ),
    "camera, BigTIFF": (
        encoded("TIFF", tiffinfo={271: "Canon"}, big_tiff=True),
        ("EXIF Make", "camera", "Canon"),
    ),
    **{
        f"name {name}": (
            with_exif(software=f"{name} 2.0"),
            ("EXIF Software", "generator", name),
        )
        for name in (
            *("OpenAI", "Adobe Firefly", "Leonardo.Ai", "Bing Image Creator"),
            *("Midjourney", "Ideogram", "Stable Diffusion", "ComfyUI", "InvokeAI"),
        )
    },
}


@pytest.mark.parametrize("sample", SAMPLES)
def test_finds_what_generators_write(sample, no_c2pa):
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
    # Directory entries that all point at the same bytes, 3 GB in all: Pillow's EXIF
    # reader would copy every one.
    tags = b"".join(struct.pack("<HHII", tag, 7, 10**6, 9) for tag in range(3000))
    exif = b"II*\0\x08\0\0\0" + struct.pack("<H", 3000) + tags + bytes(10**6)
    assert find_provenance(with_chunk(b"eXIf", exif)).metadata == ()


def test_directories_in_a_circle_end():
    entry = struct.pack("<HHII", 0x8769, 4, 1, 8)
    data = b"II*\0\x08\0\0\0\1\0" + entry + struct.pack("<I", 8)
    assert find_provenance(data).metadata == ()


def damaged_samples() -> list[bytes]:
    names = ("web UI, compressed", "web UI, WebP", "web UI, AVIF", "camera")
    names += ("Midjourney, IPTC", "Midjourney, XMP", "ImageMagick's profile")
    return [SAMPLES[name][0] for name in names]


def test_truncated_files_show_a_part(no_c2pa):
    for data in damaged_samples():
        whole = {(f.where, f.name) for f in find_provenance(data).metadata}
        assert whole
        for length in range(0, len(data), 1 + len(data) // 400):
            part = find_provenance(data[:length]).metadata
            assert {(f.where, f.name) for f in part} <= whole


def test_damaged_files_raise_nothing(no_c2pa):
    rng = random.Random(0)
    for data in [*damaged_samples(), *(manifest_in(format) for format in FORMATS)]:
        for _ in range(200):
            mutant = bytearray(data)
            for _ in range(rng.choice((1, 4, 16))):
                mutant[rng.randrange(min(len(mutant), 2000))] = rng.choice(
                    (0, 1, 0x7F, 0xFF, rng.randrange(256))
                )
            json.dumps(dataclasses.asdict(find_provenance(bytes(mutant))))


STORE = b"\0\0\0\x26jumb\0\0\0\x1ejumdc2pa\0\x11\0\x10\x80\0\0\xaa\0\x38\x9bq\x03c2pa\0"


def manifest_in(format: str, store: bytes = STORE) -> bytes:
    """A file with an empty manifest store, laid out by hand after the specification."""
    data = encoded(format)
    if format == "JPEG":
        content = b"JP\0\1\0\0\0\1" + store
        return (
            data[:2]
            + b"\xff\xeb"
            + struct.pack(">H", len(content) + 2)
            + content
            + data[2:]
        )
    if format == "PNG":
        return data[:33] + chunk(b"caBX", store) + data[33:]
    if format == "WEBP":
        body = data[8:] + b"C2PA" + struct.pack("<I", len(store)) + store
        return b"RIFF" + struct.pack("<I", len(body)) + body
    if format == "GIF":
        blocks = b"\x0bC2PA_GIF\1\0\0" + bytes([len(store)]) + store + b"\0"
        return data[:-1] + b"\x21\xff" + blocks + b";"
    if format == "TIFF":
        entry = struct.pack("<HHII", 0xCD41, 7, len(store), 26)
        return b"II*\0\x08\0\0\0\1\0" + entry + bytes(4) + store
    uuid = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")
    content = b"uuid" + uuid + bytes(4) + b"manifest\0" + bytes(8) + store
    return data + struct.pack(">I", len(content) + 4) + content


@pytest.mark.parametrize("format", FORMATS)
def test_finds_an_embedded_manifest(format, no_c2pa):
    c2pa = find_provenance(manifest_in(format)).c2pa
    assert c2pa.found and c2pa.where.split()[0].upper() in (format, "BMFF")
    assert c2pa.validation == NOT_CHECKED
    other = STORE.replace(b"c2pa", b"c2pb")
    if format != "TIFF":  # whose tag says it all
        assert not find_provenance(manifest_in(format, other)).c2pa.found


@pytest.mark.parametrize("format", FORMATS)
def test_reads_and_validates_what_c2pa_python_signs(format):
    pytest.importorskip("c2pa")
    data, _ = sign(encoded(format), f"image/{format.lower()}")
    c2pa = find_provenance(data).c2pa
    assert c2pa.found and c2pa.validation == "Valid"
    assert c2pa.failures == ("signingCredential.untrusted",)
    assert (c2pa.claim_generator, c2pa.title) == ("drawer 1.0", "a \ufffd[2Jpicture")
    assert (c2pa.signer, c2pa.ai_generated) == ("Someone", "trainedAlgorithmicMedia")
    assert all(line.isprintable() for line in describe(find_provenance(data)))


def test_a_changed_picture_is_invalid():
    pytest.importorskip("c2pa")
    data, _ = sign(encoded("JPEG"), "image/jpeg")
    changed = data[:-20] + bytes([data[-20] ^ 1]) + data[-19:]
    c2pa = find_provenance(changed).c2pa
    assert c2pa.validation == "Invalid"
    assert "assertion.dataHash.mismatch" in c2pa.failures


def test_an_empty_store_is_unreadable():
    pytest.importorskip("c2pa")
    assert find_provenance(manifest_in("PNG")).c2pa.validation == "unreadable"


def test_fetches_nothing():
    c2pa = pytest.importorskip("c2pa")
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
        with c2pa.Reader("image/png", io.BytesIO(data)):  # which fetches by itself
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
