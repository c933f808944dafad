"""Walks image containers for the blocks that carry metadata.

Own code rather than Pillow's, because Pillow knows no C2PA blocks, reads PNG texts
behind the pixels only by decoding the pixels, and copies whatever an EXIF directory
points at, which a file of a few MB can make more than any memory. Every walker stops
where the file ends or makes no sense, and keeps what it had by then.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from rmjax.provenance.bmff import read_boxes, read_items

# XMP Specification, part 3, "JPEG".
XMP_HEADER = b"http://ns.adobe.com/xap/1.0/\0"
# ISO/IEC 19566-5 (JUMBF): a superbox `jumb` begins with its description box `jumd`,
# whose first 16 bytes name the content; those of a C2PA manifest store begin with
# "c2pa" (C2PA Technical Specification, "Use of JUMBF").
_MANIFEST_TYPE = bytes.fromhex("63327061 00110010 800000AA 00389B71")
# C2PA Technical Specification, "Embedding manifests into BMFF-based assets".
_C2PA_UUID = bytes.fromhex("d8fec3d6 1b0e483c 92975828 877ec481")
# XMP Specification, part 3, "JPEG 2000" and "MPEG-4".
_XMP_UUID = bytes.fromhex("be7acfcb 97a942e8 9c719994 91e3afac")
# C2PA Technical Specification, "Embedding manifests into GIFs".
_C2PA_GIF = b"C2PA_GIF\x01\0\0"
_TIFF_MAGICS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


@dataclass(frozen=True)
class Block:
    """Part of a file: `kind` c2pa, exif (a TIFF structure), xmp, iptc or png_text.

    `where` is what a reader calls the block, such as `PNG tEXt`.
    """

    kind: str
    where: str
    content: bytes


def read_blocks(data: bytes) -> Iterator[Block]:
    """Return the blocks of an encoded image file; none of an unknown format."""
    if data.startswith(b"\xff\xd8"):
        return _jpeg(data)
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return _png(data)
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return _webp(data)
    if data.startswith((b"GIF87a", b"GIF89a")):
        return _gif(data)
    if data.startswith(_TIFF_MAGICS):
        return iter([Block("exif", "TIFF", data)])
    if data[4:8] in (b"ftyp", b"jP  "):
        return _bmff(data)
    return iter(())


def _is_manifest(box: bytes) -> bool:
    at = 16 if box.startswith(b"\0\0\0\x01") else 8  # 1: the length is in 8 more bytes
    description = box[at : at + 24]
    return (
        box[4:8] == b"jumb"
        and description[4:8] == b"jumd"
        and description[8:] == _MANIFEST_TYPE
    )


def _jpeg(data: bytes) -> Iterator[Block]:
    at = 2
    while data[at : at + 1] == b"\xff" and at + 4 <= len(data):
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        if marker in (0xD9, 0xDA):  # the end, or the pixels
            return
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4])
        if end < at + 4 or end > len(data):
            return
        yield from _jpeg_segment(marker, data[at + 4 : end])
        at = end


def _jpeg_segment(marker: int, content: bytes) -> Iterator[Block]:
    if marker == 0xE1 and content.startswith(b"Exif\0"):
        yield Block("exif", "EXIF", content[6:])
    elif marker == 0xE1 and content.startswith(XMP_HEADER):
        yield Block("xmp", "XMP", content[len(XMP_HEADER) :])
    elif marker == 0xED and content.startswith(b"Photoshop 3.0\0"):
        yield Block("iptc", "IPTC", content[14:])
    # Instance and sequence number stand before the box (ISO/IEC 18477-3). A manifest
    # of several segments is known by the first one.
    elif marker == 0xEB and content.startswith(b"JP") and _is_manifest(content[8:]):
        yield Block("c2pa", "JPEG APP11", content[8:])


def _png(data: bytes) -> Iterator[Block]:
    at = 8
    while (end := at + 12 + int.from_bytes(data[at : at + 4])) <= len(data):
        name, start = data[at + 4 : at + 8], at + 8
        if name == b"IEND":
            return
        if name == b"caBX" and _is_manifest(data[start : start + 64]):
            yield Block("c2pa", "PNG caBX", data[start : end - 4])
        elif name == b"eXIf":
            yield Block("exif", "EXIF", data[start : end - 4])
        elif name in (b"tEXt", b"zTXt", b"iTXt"):
            yield Block("png_text", f"PNG {name.decode()}", data[start : end - 4])
        at = end


def _webp(data: bytes) -> Iterator[Block]:
    at = 12
    while at + 8 <= len(data):
        start = at + 8
        end = start + int.from_bytes(data[at + 4 : start], "little")
        if end > len(data):
            return
        match data[at : at + 4]:
            case b"C2PA" if _is_manifest(data[start : start + 64]):
                yield Block("c2pa", "WebP C2PA", data[start:end])
            case b"EXIF":
                yield Block("exif", "EXIF", data[start:end].removeprefix(b"Exif\0\0"))
            case b"XMP ":
                yield Block("xmp", "XMP", data[start:end])
        at = end + end % 2


def _gif(data: bytes) -> Iterator[Block]:
    at = 13 + _palette(data[10:11])
    while at + 2 <= len(data):
        if data[at] == 0x2C:  # a frame: descriptor, palette, code size, then sub-blocks
            at += 11 + _palette(data[at + 9 : at + 10])
            _, at = _sub_blocks(data, at, keep=False)
        elif data[at] == 0x21:
            # An application's extension: 3 bytes, its name of 11, then sub-blocks.
            name = data[at + 3 : at + 14] if data[at + 1] == 0xFF else b""
            start = at + 14
            content, at = _sub_blocks(data, at + 2, keep=name == _C2PA_GIF)
            if name == _C2PA_GIF and _is_manifest(content[11:]):
                yield Block("c2pa", "GIF C2PA_GIF", content[11:])
            elif name == b"XMP DataXMP":
                # Plain text, not cut into sub-blocks: a reader takes its letters for
                # lengths, and 258 bytes of trailer make sure that it ends all the
                # same (XMP Specification, part 3, "GIF").
                yield Block("xmp", "XMP", data[start : max(start, at - 258)])
        else:
            return


def _palette(flags: bytes) -> int:
    """Bytes of a GIF palette, from the byte whose highest bit says if there is one."""
    return 3 << (flags[0] & 7) + 1 if flags and flags[0] & 0x80 else 0


def _sub_blocks(data: bytes, at: int, keep: bool) -> tuple[bytes, int]:
    """Join a GIF's sub-blocks, each a length and as many bytes, up to length 0."""
    parts = []
    while at < len(data) and (length := data[at]):
        if keep:
            parts.append(data[at + 1 : at + 1 + length])
        at += 1 + length
    return b"".join(parts), at + 1


def _bmff(data: bytes) -> Iterator[Block]:
    for name, start, end in read_boxes(data, 0, len(data)):
        if name == b"uuid":
            yield from _uuid_box(data[start:end])
        elif name == b"meta" and start < end:
            for kind, content in read_items(data, start, end):
                yield Block(kind, kind.upper(), content)


def _uuid_box(content: bytes) -> Iterator[Block]:
    if content.startswith(_XMP_UUID):
        yield Block("xmp", "XMP", content[16:])
    # After the UUID: version and flags, a purpose ending in 0, 8 bytes of offset.
    elif content.startswith(_C2PA_UUID) and content[20:29] == b"manifest\0":
        if _is_manifest(content[37:]):
            yield Block("c2pa", "BMFF uuid", content[37:])
