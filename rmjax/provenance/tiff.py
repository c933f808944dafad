"""Tags in TIFF structures, which EXIF blocks are too.

Own code rather than Pillow's, which copies all that a directory points at, over and
over if it points at the same bytes: 400 tags in 1 MB took 450 MB, and there can be
65,535. It also ends at a value that lies outside of the structure, and leaves out
texts of Exif 3.0's type for UTF-8.
"""

from collections.abc import Collection, Iterator
from typing import Literal

# Bytes of an element by type: those of texts, bytes and pointers; 129 is Exif 3.0's
# UTF-8. Other types are none of ours.
_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 6: 1, 7: 1, 13: 4, 16: 8, 18: 8, 129: 1}


def read_tags(
    data: bytes,
    wanted: Collection[int],
    sub: int | None = None,
    directories: int = 8,
) -> Iterator[tuple[int, bytes]]:
    """Read tags of a TIFF or BigTIFF structure, the first of each, and nothing else.

    A value that points beyond the end is left out.

    Args:
        data: the structure, from its byte order mark on.
        wanted: numbers of the tags.
        sub: tag that points to a further directory, such as that of EXIF.
        directories: how many are followed along their chain, those of `sub` among them.

    Returns:
        Pairs of tag and value, the value's bytes as they lie in the file.
    """
    order: Literal["little", "big"] = "big" if data.startswith(b"MM") else "little"

    def number(at: int, size: int) -> int:
        return int.from_bytes(data[at : at + size], order)

    magic = number(2, 2)
    if not data.startswith((b"II", b"MM")) or magic not in (42, 43):
        return
    # BigTIFF, 43: counts and offsets take 8 bytes each.
    word, counter, first = (8, 8, 8) if magic == 43 else (4, 2, 4)
    todo, visited, seen = [number(first, word)], set[int](), set[int]()
    for start in todo:  # which grows meanwhile
        if len(visited) == directories:
            return
        if start in visited or not 0 < start < len(data) - counter:
            continue
        visited.add(start)
        entries, step = number(start, counter), 4 + 2 * word
        at = start + counter
        stop = min(at + min(entries, 0xFFFF) * step, len(data) - step + 1)
        for entry in range(at, stop, step):
            tag, code = number(entry, 2), number(entry + 2, 2)
            if tag not in wanted and tag != sub:
                continue
            size = number(entry + 4, word) * _TYPE_BYTES.get(code, 0)
            value = entry + 4 + word
            if size > word:
                value = number(value, word)
            if tag == sub:
                todo.append(number(value, min(size, word)))
            elif tag not in seen and 0 < size <= len(data) - value:
                seen.add(tag)
                yield tag, data[value : value + size]
        if at + entries * step + word <= len(data):
            todo.append(number(at + entries * step, word))
