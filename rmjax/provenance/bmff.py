"""Boxes of ISO-BMFF files (AVIF, HEIC), and the EXIF and XMP items among them.

ISO/IEC 14496-12, sections 4.2 (boxes), 8.11.3 (iloc) and 8.11.6 (iinf); 23008-12,
annex A.2 (EXIF as an item). JPEG 2000 files have the same boxes.
"""

from collections.abc import Iterator

_XMP_TYPE = b"application/rdf+xml"


def read_boxes(data: bytes, at: int, stop: int) -> Iterator[tuple[bytes, int, int]]:
    """Return the name, and where the content begins and ends, of boxes side by side.

    Ends at the first one that does not end within `stop`.
    """
    while at + 8 <= stop:
        size, start = int.from_bytes(data[at : at + 4]), at + 8
        if size == 1:  # it is in 8 more bytes
            size, start = int.from_bytes(data[at + 8 : at + 16]), at + 16
        end = at + size if size else stop
        if end < start or end > stop:
            return
        yield data[at + 4 : at + 8], start, end
        at = end


def read_items(data: bytes, start: int, stop: int) -> Iterator[tuple[str, bytes]]:
    """Return EXIF (from its TIFF header on) and XMP items that a meta box names.

    The first item of each, and its first extent: more were never seen, and could
    point at the same bytes over and over.

    Args:
        data: the whole file.
        start: where the content of the meta box begins.
        stop: where it ends.
    """
    boxes = {n: (a, z) for n, a, z in read_boxes(data, start + 4, stop) if a < z}
    if b"iinf" not in boxes or b"iloc" not in boxes:
        return
    wanted: dict[int, str] = {}
    for number, kind in _item_kinds(data, *boxes[b"iinf"]):
        if kind not in wanted.values():
            wanted[number] = kind
    for number, at, size in _item_places(data, *boxes[b"iloc"], wanted):
        content = data[at : at + size]
        kind = wanted.pop(number)
        if kind == "exif":  # the first 4 bytes tell how far on the TIFF header is
            content = content[4 + int.from_bytes(content[:4]) :]
        yield kind, content


def _item_kinds(data: bytes, start: int, stop: int) -> Iterator[tuple[int, str]]:
    entries = start + (6 if data[start] == 0 else 8)
    for name, at, end in read_boxes(data, entries, stop):
        if name != b"infe" or at == end or data[at] not in (2, 3):
            continue
        kind_at = at + (8 if data[at] == 2 else 10)
        number = int.from_bytes(data[at + 4 : kind_at - 2])
        kind, _, rest = data[kind_at : min(end, kind_at + 256)].partition(b"\0")
        if kind[:4] == b"Exif":
            yield number, "exif"
        elif kind[:4] == b"mime" and rest.startswith(_XMP_TYPE):
            yield number, "xmp"


def _item_places(
    data: bytes, start: int, stop: int, wanted: dict[int, str]
) -> Iterator[tuple[int, int, int]]:
    """Number, position in the file and size of the wanted items."""
    version, sizes = data[start], data[start + 4 : start + 6].hex()
    if version > 2 or len(sizes) < 4:
        return
    of_offset, of_length, of_base, of_index = (int(digit, 16) for digit in sizes)
    of_index *= version > 0
    of_number = 4 if version == 2 else 2

    def number(at: int, size: int) -> int:
        return int.from_bytes(data[at : at + size])

    at = start + 6 + of_number
    while at + of_number + 4 <= stop:
        item, at = number(at, of_number), at + of_number
        method = number(at, 2) & 15 if version else 0  # 0: positions in the file
        base_at = at + (4 if version else 2)
        count_at = base_at + of_base
        extents = number(count_at, 2)
        at = count_at + 2 + of_index
        if item in wanted and extents and method == 0:
            place = number(base_at, of_base) + number(at, of_offset)
            yield item, place, number(at + of_offset, of_length)
        at += extents * (of_index + of_offset + of_length) - of_index
