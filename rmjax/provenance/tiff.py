"""Tags in TIFF structures, which EXIF blocks are too."""

from collections.abc import Collection, Iterator

# Bytes of an element by type: those of texts, bytes and pointers; 129 is Exif 3.0's
# UTF-8. Other types are none of ours.
_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 6: 1, 7: 1, 13: 4, 16: 8, 18: 8, 129: 1}


def read_tags(
    data: bytes,
    wanted: Collection[int],
    sub: int | None = None,
    limit: int = 1 << 24,
    directories: int = 16,
) -> Iterator[tuple[int, bytes]]:
    """Read tags of a TIFF or BigTIFF structure, the first of each, and nothing else.

    A value that points beyond the end is left out.

    Args:
        data: the structure, from its byte order mark on.
        wanted: numbers of the tags.
        sub: tag that points to a further directory, such as that of EXIF.
        limit: bytes of a value that are read at most.
        directories: how many are followed along their chain, those of `sub` among them.

    Returns:
        Pairs of tag and value, the value's bytes as they lie in the file.
    """
    order = {b"II": "little", b"MM": "big"}.get(data[:2])
    magic = int.from_bytes(data[2:4], order) if order else 0
    if magic not in (42, 43):
        return
    # BigTIFF, 43: counts and offsets take 8 bytes each.
    wide = magic == 43
    word, counter, first = (8, 8, 8) if wide else (4, 2, 4)

    def number(at: int, size: int) -> int:
        return int.from_bytes(data[at : at + size], order)

    todo, visited, seen = [number(first, word)], set(), set()
    while todo and len(visited) < directories:
        start = todo.pop()
        if start in visited or not 0 < start < len(data) - counter:
            continue
        visited.add(start)
        entries, step = number(start, counter), 4 + 2 * word
        at = start + counter
        stop = min(at + min(entries, 0xFFFF) * step, len(data) - step + 1)
        for entry in range(at, stop, step):
            tag, kind = number(entry, 2), number(entry + 2, 2)
            if tag not in wanted and tag != sub:
                continue
            size = number(entry + 4, word) * _TYPE_BYTES.get(kind, 0)
            value = entry + 4 + word
            if size > word:
                value = number(value, word)
            if tag == sub:
                todo.append(number(value, min(size, word)))
            elif tag not in seen and 0 < size <= len(data) - value:
                seen.add(tag)
                yield tag, data[value : value + min(size, limit)]
        if at + entries * step + word <= len(data):
            todo.append(number(at + entries * step, word))
