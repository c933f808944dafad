"""Texts in metadata blocks: PNG texts, EXIF tags, XMP properties, IPTC datasets."""

import zlib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from defusedxml import ElementTree

from rmjax.provenance.blocks import XMP_HEADER, Block
from rmjax.provenance.text import MAX_READ
from rmjax.provenance.tiff import read_tags

# CIPA DC-008 (Exif), TIFF 6.0; XMP and IPTC in TIFF: XMP Specification, part 3.
EXIF_TAGS = {
    0x010E: "ImageDescription",
    0x010F: "Make",
    0x0110: "Model",
    0x0131: "Software",
    0x9286: "UserComment",
}
_XMP_TAG, _IPTC_TAG, C2PA_TAG = 0x02BC, 0x83BB, 0xCD41
_EXIF_IFD = 0x8769

# IPTC-NAA IIM 4.2, record 2.
IPTC_DATASETS = {65: "Program", 110: "Credit", 120: "Caption"}

_IPTC_EXT = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
XMP_PROPERTIES = {
    "{http://ns.adobe.com/xap/1.0/}CreatorTool": "CreatorTool",
    "{http://ns.adobe.com/tiff/1.0/}Software": "Software",
    "{http://ns.adobe.com/photoshop/1.0/}Credit": "Credit",
    "{http://purl.org/dc/elements/1.1/}description": "description",
    "{http://purl.org/dc/terms/}provenance": "provenance",
    f"{{{_IPTC_EXT}}}DigitalSourceType": "DigitalSourceType",
    f"{{{_IPTC_EXT}}}AISystemUsed": "AISystemUsed",
    "{http://www.tc260.org.cn/ns/AIGC/1.0/}AIGC": "AIGC",
}
_MAX_XMP = 4 * MAX_READ


@dataclass(frozen=True)
class Field:
    """A text in a file's metadata.

    `name` is what patterns ask for (`PNG parameters`), `where` what people are told
    (`PNG iTXt parameters`).
    """

    name: str
    where: str
    text: str


def read_fields(blocks: Iterable[Block], names: Collection[str]) -> Iterator[Field]:
    """Read the fields of those names in blocks; damaged ones are left out.

    At most `MAX_READ` characters of each; of several PNG texts of one keyword the
    first alone. Others are never inflated, so that no file can have us do so over
    and over.
    """
    seen: set[bytes] = set()
    for block in blocks:
        fields: Iterable[Field] = ()
        if block.kind == "png_text":
            keyword, _, rest = block.content.partition(b"\0")
            wanted = keyword in _PNG_PACKETS or _png_name(keyword) in names
            if wanted and keyword not in seen:
                seen.add(keyword)
                fields = _png_text(block.where, keyword, rest)
        elif block.kind in _READERS:
            fields = _READERS[block.kind](block.content)
        yield from (field for field in fields if field.name in names)


def _png_name(keyword: bytes) -> str:
    return f"PNG {keyword.decode('latin-1')}"


def _png_text(chunk: str, keyword: bytes, rest: bytes) -> Iterator[Field]:
    """PNG specification, 11.3.3: what follows the keyword in tEXt, zTXt and iTXt."""
    encoding = "utf-8" if chunk == "PNG iTXt" else "latin-1"
    if chunk == "PNG zTXt":
        rest = _inflate(rest[1:])
    elif chunk == "PNG iTXt":
        compressed = rest[:1] == b"\x01"
        parts = rest[2:].split(b"\0", 2)  # language, translated keyword, text
        rest = parts[2] if len(parts) == 3 else b""
        rest = _inflate(rest) if compressed else rest
    if keyword in _PNG_PACKETS:
        yield from _PNG_PACKETS[keyword](rest)
    else:
        where = f"{chunk} {keyword.decode('latin-1')}"
        yield Field(
            _png_name(keyword), where, rest[:MAX_READ].decode(encoding, "replace")
        )


def _inflate(data: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(data, _MAX_XMP)
    except zlib.error:
        return b""


def _raw_profile(text: bytes) -> Iterator[Field]:
    """A profile as ImageMagick writes it: its name, its length, then hex."""
    parts = text.split(maxsplit=2)
    try:
        content = bytes.fromhex(parts[2].decode())
    except (IndexError, ValueError):
        return
    if content.startswith(b"Exif\0\0"):
        yield from _exif(content[6:])
    elif content.startswith(XMP_HEADER):
        yield from _xmp(content[len(XMP_HEADER) :])
    else:
        yield from _xmp(content) if parts[0] == b"xmp" else _iptc(content)


def _exif(content: bytes) -> Iterator[Field]:
    wanted = {*EXIF_TAGS, _XMP_TAG, _IPTC_TAG}
    for tag, value in read_tags(content, wanted, _EXIF_IFD, _MAX_XMP):
        if tag == _XMP_TAG:
            yield from _xmp(value)
        elif tag == _IPTC_TAG:
            yield from _iptc(value)
        else:
            name = f"EXIF {EXIF_TAGS[tag]}"
            decode = _user_comment if tag == 0x9286 else _exif_text
            yield Field(name, name, decode(value[:MAX_READ]))


def _exif_text(value: bytes) -> str:
    return value.rstrip(b"\0 ").decode("utf-8", "replace")


def _user_comment(value: bytes) -> str:
    """Decode UserComment, whose first 8 bytes name its code (Exif 2.32, table 9)."""
    if not value.startswith(b"UNICODE\0"):
        return _exif_text(value.removeprefix(b"ASCII\0\0\0").removeprefix(b"\0" * 8))
    text = value[8:]
    if text.startswith((b"\xff\xfe", b"\xfe\xff")):
        return text.decode("utf-16", "replace")
    # Nothing says which byte comes first; in the texts that we look for, most
    # characters are ASCII, so that the higher byte is 0.
    big = text[::2].count(0) >= text[1::2].count(0)
    return text.decode("utf-16-be" if big else "utf-16-le", "replace")


def _xmp(content: bytes) -> Iterator[Field]:
    """Properties of `XMP_PROPERTIES`, the first of each.

    Document type definitions, and so entities, are refused.
    """
    packet = content[:_MAX_XMP].strip(b"\0 \t\r\n")
    if not packet:
        return
    try:
        root = ElementTree.fromstring(packet, forbid_dtd=True)
    except Exception:  # not well-formed, or a document type
        return
    texts: dict[str, str] = {}
    for element in root.iter():
        for tag, value in element.attrib.items():
            if tag in XMP_PROPERTIES:
                texts.setdefault(tag, value)
        if element.tag in XMP_PROPERTIES and element.tag not in texts:
            resource = element.get(
                "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}resource", ""
            )
            texts[element.tag] = "".join(element.itertext()).strip() or resource
    for tag, text in texts.items():
        name = f"XMP {XMP_PROPERTIES[tag]}"
        yield Field(name, name, text[:MAX_READ])


def _iptc(content: bytes) -> Iterator[Field]:
    """Datasets of record 2, the first of each, in Photoshop's resource 0x0404 or bare."""
    at = 0
    while content[at : at + 4] == b"8BIM":
        # Photoshop File Formats Specification, "Image resource blocks": number, name
        # (a length and as many letters, padded to even), length, data, padded.
        number = content[at + 4 : at + 6]
        letters = int.from_bytes(content[at + 6 : at + 7])
        size_at = at + 6 + (letters + 2) // 2 * 2
        start = size_at + 4
        end = start + int.from_bytes(content[size_at:start])
        if number == b"\x04\x04":
            yield from _datasets(content[start:end])
        at = start + (end - start + 1) // 2 * 2
    if not at:
        yield from _datasets(content)


def _datasets(content: bytes) -> Iterator[Field]:
    at, seen = 0, set()
    while content[at : at + 1] == b"\x1c" and at + 5 <= len(content):
        record, dataset = content[at + 1], content[at + 2]
        end = at + 5 + int.from_bytes(content[at + 3 : at + 5])
        if end > len(content):
            return
        if record == 2 and dataset in IPTC_DATASETS and dataset not in seen:
            seen.add(dataset)
            name = f"IPTC {IPTC_DATASETS[dataset]}"
            yield Field(name, name, content[at + 5 : end].decode("utf-8", "replace"))
        at = end


_READERS = {"exif": _exif, "xmp": _xmp, "iptc": _iptc}
_PNG_PACKETS = {
    b"XML:com.adobe.xmp": _xmp,
    **{
        b"Raw profile type " + kind: _raw_profile
        for kind in (b"exif", b"APP1", b"xmp", b"iptc")
    },
}
