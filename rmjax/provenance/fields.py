"""Texts in an image file's metadata: PNG texts, EXIF, XMP, IPTC and comments.

Pillow inflates PNG texts and reads GIF, defusedxml reads XMP. The chunks of JPEG, PNG
and WebP are walked here, because Pillow's readers (12.3) are not up to files by
strangers: opening a JPEG, TIFF or AVIF of 1 MB took 450 MB (see `tiff`) and opening a
JPEG of many EXIF segments quadratic time; texts behind a PNG's pixels are read only by
decoding these, and what a WebP's header does not announce is passed over.
"""

import io
import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

from defusedxml import ElementTree
from PIL import ExifTags, GifImagePlugin, PngImagePlugin

from rmjax.provenance.patterns import FIELD_NAMES
from rmjax.provenance.tiff import read_tags

MAX_READ = 1 << 20  # bytes of one text that are looked at
_MAX_XMP = 4 * MAX_READ
_MAX_OTHERS = 1000  # chunks other than texts: a large XMP in JPEG takes hundreds
# The property through which XMP refers to a manifest that is not embedded (C2PA
# Technical Specification, "External manifests").
REMOTE = "XMP provenance"

# Image files by how they begin. BMFF: AVIF, HEIC and JPEG 2000.
_CONTAINERS = {
    "JPEG": rb"\xff\xd8",
    "PNG": rb"\x89PNG\r\n\x1a\n",
    "WebP": rb"RIFF....WEBP",
    "GIF": rb"GIF8[79]a",
    "TIFF": rb"II[*+]\0|MM\0[*+]",
    "BMFF": rb"....(?:ftyp|jP  )",
}
# Where chunks begin; name and size before each, as `struct` writes it; how many bytes
# of these the size counts too; bytes of checksum behind; what chunks are aligned to.
_LAYOUTS = {
    "JPEG": (2, ">2sH", 2, 0, 1),
    "PNG": (8, ">I4s", 0, 4, 1),
    "WebP": (12, "<4sI", 0, 0, 2),
}
_LAST = (b"\xff\xd9", b"\xff\xda", b"IEND")  # a JPEG's end and pixels, a PNG's end
_JPEG_COMMENT = b"\xff\xfe"
_PACKETS = (b"\xff\xe1", b"\xff\xed", b"eXIf", b"EXIF", b"XMP ")
# "comf" is ComfyUI's, in animations (comfy_extras/nodes_images.py), laid out as tEXt.
_PNG_TEXTS = (b"tEXt", b"zTXt", b"iTXt", b"comf")
_PNG_NAMES = {name[4:].lower(): name for name in FIELD_NAMES if name.startswith("PNG ")}
# Keywords of PNG texts that hold a packet: Adobe's, and ImageMagick's and exiftool's.
_PNG_PACKET = re.compile("XML:com.adobe.xmp|Raw profile type (exif|APP1|xmp|iptc|8bim)")
# How EXIF begins in AVIF and HEIC (ISO/IEC 23008-12, annex A.2: how far on its TIFF
# header is), and in JPEG 2000 as exiftool writes it.
_BMFF_EXIF = re.compile(
    rb"(?:\0\0\0[\0\x06](?:Exif\0\0)?|JpgTiffExif->JP2)(?=II\*\0|MM\0\*)"
)
_EXIF_HEADER = re.compile(rb"\A(?:Exif\0[\0\xff])+")  # JPEG's, and often others'
_GIF_HEAD = 1 << 16  # bytes that have the comments; Pillow joins many in quadratic time

# CIPA DC-008 (Exif), TIFF 6.0; XMP, IPTC and Photoshop's blocks in TIFF: XMP
# Specification, part 3.
_EXIF_TAGS = {
    int(ExifTags.Base[name[5:]]): name
    for name in FIELD_NAMES
    if name.startswith("EXIF ")
}
_XMP_TAG, _IPTC_TAGS = 0x02BC, (0x83BB, 0x8649)
_CODES = (b"", b"ASCII", b"UNICODE", b"JIS")
# IPTC-NAA IIM 4.2, record 2.
_IPTC_DATASETS = {65: "IPTC Program", 110: "IPTC Credit", 120: "IPTC Caption"}
_IPTC_DATASET = re.compile(rb"\x1c\x02([\x41\x6e\x78])(..)", re.DOTALL)
_XMP_NAMES = {name for name in (*FIELD_NAMES, REMOTE) if name.startswith("XMP ")}
_RESOURCE = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}resource"

_ASCII = frozenset(map(chr, range(33, 127)))
_MANY = 8  # different ASCII characters, enough to tell UTF-16 by


class Field(NamedTuple):
    """A text in a file's metadata.

    `name` is what patterns ask for (`PNG parameters`), `where` what people are told
    (`PNG iTXt parameters`).
    """

    name: str
    where: str
    text: str


def tell_container(data: bytes) -> str | None:
    """Return which of `_CONTAINERS` an encoded image is, if any."""
    for name, magic in _CONTAINERS.items():
        if re.match(magic, data, re.DOTALL):
            return name
    return None


def read_fields(data: bytes) -> Iterator[Field]:
    """Read the fields of an encoded image that patterns or `REMOTE` ask for, and more.

    Damaged ones are left out, and so is all behind a chunk that is not whole. At most
    `MAX_READ` bytes of each are looked at; of several PNG texts of one keyword the
    first alone, so that no file can have us inflate over and over.
    """
    container = tell_container(data)
    keywords: set[bytes] = set()
    others = 0
    for name, content in _chunks(data, container):
        if name in _PNG_TEXTS:
            keyword = content.partition(b"\0")[0]
            if keyword not in keywords:
                keywords.add(keyword)
                yield from _png_text(name, keyword.decode("latin-1"), content)
        elif name in (_JPEG_COMMENT, *_PACKETS) and others < _MAX_OTHERS:
            others += 1
            if name == _JPEG_COMMENT:
                yield Field("comment", "JPEG comment", _decode(content))
            else:
                yield from _packet(content)
    if container == "TIFF":
        yield from _exif(data)
    elif container == "GIF":
        yield from _gif_comment(data)
        yield from _scanned_xmp(data)
    elif container == "BMFF":
        if item := _BMFF_EXIF.search(data):
            yield from _exif(data[item.end() :])
        yield from _scanned_xmp(data)


def _chunks(data: bytes, container: str | None) -> Iterator[tuple[bytes, bytes]]:
    """Return name and content of chunks, until one is the last or is not whole."""
    if container not in _LAYOUTS:
        return
    at, layout, counted, checksum, align = _LAYOUTS[container]
    head = struct.Struct(layout)
    while at + head.size <= len(data):
        if data.startswith(b"\xff\xff", at):  # a fill byte of JPEG; no other begins so
            at += 1
            continue
        pair = head.unpack_from(data, at)
        name, size = pair if isinstance(pair[0], bytes) else pair[::-1]
        start = at + head.size
        end = start + size - counted
        if name in _LAST or not start <= end <= len(data):
            return
        yield name, data[start:end]
        at = -(-end // align) * align + checksum


def _png_text(chunk: bytes, keyword: str, content: bytes) -> Iterator[Field]:
    name, packet = _PNG_NAMES.get(keyword.lower()), _PNG_PACKET.fullmatch(keyword)
    if name is None and packet is None:
        return
    content = content[:_MAX_XMP]
    png = PngImagePlugin.PngStream(io.BytesIO(content))
    read = {b"zTXt": png.chunk_zTXt, b"iTXt": png.chunk_iTXt}
    try:
        read.get(chunk, png.chunk_tEXt)(0, len(content))
    except (ValueError, SyntaxError):  # too much to inflate; an unknown method
        return
    # Back to bytes, because many put UTF-8 where the standard has Latin-1.
    encoding = "utf-8" if chunk == b"iTXt" else "latin-1"
    text = "".join(png.im_text.values()).encode(encoding)
    if name:
        yield Field(name, f"PNG {chunk.decode()} {keyword}", _decode(text))
    elif keyword.startswith("Raw"):
        yield from _packet(_unhex(text))
    else:
        yield from _packet(text)


def _unhex(profile: bytes) -> bytes:
    """A packet that ImageMagick made text of: its name, its length, then hex."""
    try:
        return bytes.fromhex(profile.split(maxsplit=2)[2].decode("ascii"))
    except (IndexError, ValueError):
        return b""


def _gif_comment(data: bytes) -> Iterator[Field]:
    try:
        gif = GifImagePlugin.GifImageFile(io.BytesIO(data[:_GIF_HEAD]))
    except Exception:  # Pillow's errors are many
        return
    yield Field("comment", "GIF comment", _decode(gif.info.get("comment", b"")))


def _scanned_xmp(data: bytes) -> Iterator[Field]:
    """Find XMP by how it begins (XMP Specification, part 1, "Packet scanning").

    For containers that point at it in roundabout ways, yet have it in one piece. The
    last one: a manifest's thumbnails, which may have their own, come earlier.
    """
    start = data.rfind(b"<rdf:RDF")
    end = data.find(b"</rdf:RDF>", start)
    if 0 <= start < end:
        yield from _xmp(data[start : end + 10])


def _packet(content: bytes) -> Iterator[Field]:
    """Read EXIF, IPTC or XMP, told by how it begins and not by where it stands."""
    content = _EXIF_HEADER.sub(b"", content)
    if tell_container(content) == "TIFF":
        yield from _exif(content)
    elif content.startswith((b"Photoshop 3.0\0", b"8BIM", b"\x1c")):
        yield from _iptc(content)
    else:
        yield from _xmp(content)


def _exif(content: bytes) -> Iterator[Field]:
    wanted = {*_EXIF_TAGS, _XMP_TAG, *_IPTC_TAGS}
    for tag, value in read_tags(content, wanted, ExifTags.IFD.Exif):
        if tag == _XMP_TAG:
            yield from _xmp(value)
        elif tag in _IPTC_TAGS:
            yield from _iptc(value)
        else:
            # The first 8 bytes may name the text's code (Exif 2.32, table 9), rightly
            # or not: what calls itself UNICODE can be UTF-8, what has no name UTF-16.
            code = value[:8].rstrip(b"\0 ").upper()
            if tag == ExifTags.Base.UserComment and code in _CODES:
                value = value[8:]
            yield Field(_EXIF_TAGS[tag], _EXIF_TAGS[tag], _decode(value))


def _xmp(content: bytes) -> Iterator[Field]:
    """The first property of each name, which is enough without its namespace.

    Document type definitions, and so entities, are refused.
    """
    text = _decode(content, _MAX_XMP)
    text = text[text.find("<") : text.rfind(">") + 1]
    try:
        root = ElementTree.fromstring(text, forbid_dtd=True)
    except Exception:  # not well-formed, or a document type
        return
    texts: dict[str, str] = {}
    for element in root.iter():
        for tag, value in element.attrib.items():
            if (name := _xmp_name(tag)) in _XMP_NAMES:
                texts.setdefault(name, value)
        if (name := _xmp_name(element.tag)) in _XMP_NAMES and name not in texts:
            inner = "".join(element.itertext()).strip()
            texts[name] = inner or element.get(_RESOURCE, "")
    for name, text in texts.items():
        yield Field(name, name, text[:MAX_READ])


def _xmp_name(tag: str) -> str:
    return f"XMP {tag.rpartition('}')[2]}"


def _iptc(content: bytes) -> Iterator[Field]:
    """Datasets of record 2, the first of each, wherever they stand in the content."""
    seen = set()
    for match in _IPTC_DATASET.finditer(content[:MAX_READ]):
        end = match.end() + int.from_bytes(match[2])
        name = _IPTC_DATASETS[match[1][0]]
        if name not in seen and end <= len(content):
            seen.add(name)
            yield Field(name, name, _decode(content[match.end() : end]))


def _decode(value: bytes, most: int = MAX_READ) -> str:
    """Decode a text of which nothing reliable says how it is encoded.

    It is UTF-16 if one byte order makes many different ASCII characters of it, which
    takes a 0 before or behind each of them. Else UTF-8, or Latin-1 if it is not.
    """
    value = value[:most].rstrip(b"\0 ")
    whole = value + b"\0" * (len(value) % 2)  # the half of a character that was cut off
    texts = [whole.decode(f"utf-16-{order}", "replace") for order in ("be", "le")]
    text = max(texts, key=lambda text: len(_ASCII & set(text)))
    least = min(_MANY, 1 + len(_ASCII & set(value.decode("latin-1"))) / 2)
    if len(_ASCII & set(text)) < least:
        try:
            text = value.decode("utf-8")
        except UnicodeDecodeError:
            text = value.decode("latin-1")
    return text.replace("\0", "").removeprefix("\ufeff")
