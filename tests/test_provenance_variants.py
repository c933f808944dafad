"""A generator's statement is found however a writer encodes and wraps it."""

import io
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from provenance_sample import (
    JOB,
    SOURCE_TYPE,
    STEPS,
    WEB_UI,
    encoded,
    packet,
    with_caption,
    with_chunk,
    with_texts,
)

from rmjax.provenance import find_provenance

CASES = Path(__file__).resolve().parents[2] / "shared/cases/metadata"
# Spaces whose lower byte is 0, more of them than letters whose higher byte is.
PROMPT = "猫\u3000犬\u3000" * 60 + STEPS
CREATED = packet("", 'xmp:CreatorTool="Draw Things"')
CAPTION = b"\x1c\x02\x78" + struct.pack(">H", len(JOB)) + JOB.encode()


def tiff(value: bytes, tag: int = 0x9286, kind: int = 7, order: str = "<") -> bytes:
    """A TIFF structure with one tag, UserComment in the Exif directory unless told."""

    def directory(at: int, tag: int, kind: int, count: int, value: int) -> bytes:
        return struct.pack(f"{order}HHHLLL", 1, tag, kind, count, value, 0)

    mark = b"II*\0" if order == "<" else b"MM\0*"
    data, at = mark + struct.pack(f"{order}L", 8), 8
    if tag == 0x9286:
        data, at = data + directory(8, 0x8769, 4, 1, 26), 26
    count = len(value) // (4 if kind == 4 else 1)
    return data + directory(at, tag, kind, count, at + 18) + value.ljust(8, b"\0")


def raw_profile(name: str, content: bytes, **options) -> bytes:
    text = f"\n{name}\n{len(content):8}\n{content.hex(chr(10), 36)}\n"
    return with_texts({f"Raw profile type {name}": text}, **options)


def box(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", 8 + len(content)) + name + content


def segment(marker: int, content: bytes) -> bytes:
    head = struct.pack(">BBH", 0xFF, marker, len(content) + 2)
    return b"\xff\xd8" + head + content + encoded("JPEG")[2:]


def webp(name: bytes, content: bytes) -> bytes:
    """A WebP whose header does not announce the chunk."""
    content += b"\0" * (len(content) % 2)
    body = encoded("WEBP")[8:] + name + struct.pack("<I", len(content)) + content
    return b"RIFF" + struct.pack("<I", len(body)) + body


def heic(item: bytes) -> bytes:
    return box(b"ftyp", b"heic\0\0\0\0mif1heic") + box(b"mdat", b"\1" * 99 + item)


def finds(data: bytes, name: str = WEB_UI) -> bool:
    return name in [finding.name for finding in find_provenance(data).metadata]


EXIF_WRITERS = {
    "JPEG": lambda block: segment(0xE1, b"Exif\0\0" + block),
    "PNG": lambda block: with_chunk(b"eXIf", block),
    "PNG, header": lambda block: with_chunk(b"eXIf", b"Exif\0\0" + block),
    "PNG, profile": lambda block: raw_profile("exif", block),
    "PNG, profile, header": lambda block: raw_profile("exif", b"Exif\0\0" + block),
    "PNG, zTXt profile": lambda block: raw_profile("exif", block, zip=True),
    "PNG, iTXt profile": lambda block: raw_profile(
        "APP1", b"Exif\0\0" + block, write="add_itxt", zip=True
    ),
    "WebP": lambda block: encoded("WEBP", exif=block),
    "WebP, unannounced": lambda block: webp(b"EXIF", block),
    "WebP, header": lambda block: webp(b"EXIF", b"Exif\0\0" + block),
    "TIFF": lambda block: block,
    "AVIF": lambda block: encoded("AVIF", exif=block),
    "HEIC": lambda block: heic(bytes(4) + block),
    "HEIC, header": lambda block: heic(b"\0\0\0\6Exif\0\0" + block),
    "JPEG 2000": lambda block: (
        encoded("JPEG2000") + box(b"uuid", b"JpgTiffExif->JP2" + block)
    ),
}
COMMENTS = {
    "ASCII": b"ASCII\0\0\0" + STEPS.encode(),
    "ASCII, ended": b"ASCII\0\0\0" + STEPS.encode() + b"\0\0\0",
    "ASCII, UTF-8": b"ASCII\0\0\0" + PROMPT.encode(),
    "JIS": b"JIS\0\0\0\0\0" + PROMPT.encode("iso2022_jp"),
    "JIS, Shift-JIS": b"JIS\0\0\0\0\0" + PROMPT.encode("shift_jis"),
    "undefined": bytes(8) + PROMPT.encode(),
    "undefined, UTF-16": bytes(8) + PROMPT.encode("utf-16-be"),
    "bare": STEPS.encode(),
    "bare, UTF-8, mark": PROMPT.encode("utf-8-sig"),
    "bare, UTF-16": PROMPT.encode("utf-16-le"),
    "bare, UTF-16, mark": PROMPT.encode("utf-16"),
    "bare, Latin-1": "café, ".encode("latin-1") + STEPS.encode(),
    "UNICODE, big": b"UNICODE\0" + PROMPT.encode("utf-16-be"),
    "UNICODE, little": b"UNICODE\0" + PROMPT.encode("utf-16-le"),
    "UNICODE, big, mark": b"UNICODE\0\xfe\xff" + PROMPT.encode("utf-16-be"),
    "UNICODE, little, mark": b"UNICODE\0\xff\xfe" + PROMPT.encode("utf-16-le"),
    "UNICODE, UTF-8": b"UNICODE\0" + PROMPT.encode(),
    "UNICODE, UTF-32": b"UNICODE\0" + PROMPT.encode("utf-32-le"),
    "Unicode": b"Unicode\0" + PROMPT.encode("utf-16-le"),
}


@pytest.mark.parametrize("comment", COMMENTS)
@pytest.mark.parametrize("writer", EXIF_WRITERS)
def test_user_comments(writer, comment):
    for order in "<>":
        assert finds(EXIF_WRITERS[writer](tiff(COMMENTS[comment], order=order)))


@pytest.mark.parametrize("comment", ["UNICODE, big", "UNICODE, UTF-8", "bare, UTF-16"])
def test_what_is_shown_is_what_was_written(comment):
    data = with_chunk(b"eXIf", tiff(COMMENTS[comment]))
    [finding] = find_provenance(data).metadata
    assert finding.value.startswith("猫 犬 猫 犬")


def test_exif_that_pillow_writes():
    exif = Image.Exif()
    exif[0x131] = "NovelAI"
    for format in ("JPEG", "PNG", "WEBP", "AVIF", "TIFF"):
        assert finds(encoded(format, exif=exif), "NovelAI")


@pytest.mark.parametrize("kind", [1, 2, 7, 129])
def test_types_of_exif_texts(kind):
    for tag in (0x10E, 0x9286):
        assert finds(segment(0xE1, b"Exif\0\0" + tiff(STEPS.encode(), tag, kind)))
    for tag in (0x10E, 0x9C9C):
        value = STEPS.encode("utf-16-le")
        assert finds(segment(0xE1, b"Exif\0\0" + tiff(value, tag, kind)))


XMP_WRITERS = {
    "JPEG": lambda text: segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + text),
    "PNG": lambda text: with_texts({"XML:com.adobe.xmp": text.decode()}, "add_itxt"),
    "PNG, compressed": lambda text: with_texts(
        {"XML:com.adobe.xmp": text.decode()}, "add_itxt", zip=True
    ),
    "PNG, profile": lambda text: raw_profile("xmp", text),
    "PNG, APP1": lambda text: raw_profile(
        "APP1", b"http://ns.adobe.com/xap/1.0/\0" + text, zip=True
    ),
    "WebP": lambda text: encoded("WEBP", xmp=text),
    "WebP, unannounced": lambda text: webp(b"XMP ", text),
    "TIFF": lambda text: encoded("TIFF", tiffinfo={700: text}),
    "TIFF, bytes": lambda text: tiff(text, 700, 1, ">"),
    "GIF": lambda text: (
        encoded("GIF")[:-1]
        + b"\x21\xff\x0bXMP DataXMP"
        + text
        + bytes([1, 0, 0])
        + b";"
    ),
    "AVIF": lambda text: encoded("AVIF", xmp=text),
    "HEIC": heic,
    "JPEG 2000": lambda text: (
        encoded("JPEG2000")
        + box(b"uuid", bytes.fromhex("be7acfcb97a942e89c71999491e3afac") + text)
    ),
}


@pytest.mark.parametrize("writer", XMP_WRITERS)
def test_xmp(writer):
    assert finds(XMP_WRITERS[writer](CREATED), "Draw Things")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be"])
def test_encodings_of_xmp(encoding):
    text = CREATED.decode().encode(encoding)
    assert finds(tiff(text + b"\n\0", 700), "Draw Things")
    declared = b'<?xml version="1.0" encoding="UTF-8"?>' + CREATED
    assert finds(tiff(declared, 700), "Draw Things")


@pytest.mark.parametrize(
    "property",
    [
        "<ext:DigitalSourceType>{}</ext:DigitalSourceType>",
        "<ext:DigitalSourceType>\n {}/ \n</ext:DigitalSourceType>",
        "<ext:DigitalSourceType rdf:resource='{}'/>",
        "<ext:DigitalSourceType><rdf:Bag><rdf:li>{}</rdf:li></rdf:Bag>"
        "</ext:DigitalSourceType>",
    ],
)
def test_digital_source_types(property):
    for kind in (
        SOURCE_TYPE,
        SOURCE_TYPE.replace("http:", "https:"),
        "digsrctype:",
        "",
    ):
        text = packet(property.format(f"{kind}trainedAlgorithmicMedia"))
        for writer in ("JPEG", "PNG", "WebP", "AVIF"):
            assert finds(XMP_WRITERS[writer](text), "trainedAlgorithmicMedia")


RESOURCE = b"8BIM\x04\x04\0\0" + struct.pack(">L", len(CAPTION)) + CAPTION
IPTC = {
    "JPEG": with_caption(JOB.encode()),
    "PNG": raw_profile("iptc", CAPTION),
    "PNG, resource": raw_profile("iptc", RESOURCE),
    "PNG, 8BIM": raw_profile("8bim", RESOURCE, zip=True),
    "TIFF": tiff(CAPTION, 0x83BB),
    "TIFF, numbers": tiff(CAPTION, 0x83BB, 4),
    "TIFF, resource": tiff(RESOURCE, 0x8649, 1),
}


@pytest.mark.parametrize("writer", IPTC)
def test_iptc(writer):
    assert finds(IPTC[writer], "Midjourney")


TEXTS = {
    "GIF": encoded("GIF", comment=STEPS),
    "JPEG": encoded("JPEG", comment=PROMPT),
    "TIFF": encoded("TIFF", description=STEPS),
    "PNG, capital": with_texts({"Parameters": STEPS}),
    "PNG, UserComment": with_texts({"UserComment": STEPS}, "add_itxt"),
    "PNG, Comment": with_texts({"Comment": PROMPT}, zip=True),
    "PNG, UTF-8": with_chunk(b"tEXt", b"parameters\0" + PROMPT.encode()),
    "PNG, UTF-8, zTXt": with_chunk(
        b"zTXt", b"parameters\0\0" + zlib.compress(PROMPT.encode())
    ),
    "PNG, iTXt with language": with_chunk(
        b"iTXt", b"parameters\0\1\0ja\0\0" + zlib.compress(PROMPT.encode())
    ),
}


@pytest.mark.parametrize("writer", TEXTS)
def test_texts_and_comments(writer):
    assert finds(TEXTS[writer])


def test_an_animation_by_comfyui():
    info = PngInfo()
    info.add(b"comf", b'prompt\0{"3": {"class_type": "KSampler"}}', after_idat=True)
    file = io.BytesIO()
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(file, "PNG", save_all=True, append_images=frames[1:], pnginfo=info)
    assert finds(file.getvalue(), "ComfyUI")


def test_a_damaged_value_hides_nothing_else():
    block = tiff(b"Canon\0", 0x10F, 2)
    entry = struct.pack("<HHLL", 0x100, 7, 10**6, 10**7)
    offset = struct.pack("<L", 8 + 2 + 24 + 4)
    block = block[:8] + b"\2\0" + entry + block[10:18] + offset + block[22:]
    assert finds(with_chunk(b"eXIf", block), "Canon")


def test_what_lies_behind_the_image_is_not_its_own():
    other = with_texts({"parameters": STEPS}) + CREATED
    for format in ("PNG", "JPEG"):
        assert not find_provenance(encoded(format) + other[8:]).metadata


@pytest.mark.parametrize(
    ("missed", "read"),
    [
        ("raw_exif_without.png", "raw_exif_with.png"),
        ("exif_prefixed.png", "exif.png"),
        ("utf8_II.jpg", "be_II.jpg"),
        ("nohdr16le.jpg", "le_II.jpg"),
    ],
)
def test_files_that_were_missed(missed, read):
    if not CASES.is_dir():
        pytest.skip(f"{CASES} is not there")
    findings, expected = (
        find_provenance(CASES.joinpath(name).read_bytes()).metadata
        for name in (missed, read)
    )
    assert findings and findings == expected
