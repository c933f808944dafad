"""PNG files whose bytes do not depend on a compressor's version."""

import struct
import zlib

import numpy as np

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_BLOCK = 65535  # largest stored deflate block


def _chunk(kind: bytes, data: bytes) -> bytes:
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))


def _stored(data: bytes) -> bytes:
    """Wrap bytes as a zlib stream of stored (uncompressed) blocks."""
    out = [b"\x78\x01"]
    for start in range(0, len(data), _BLOCK):
        block = data[start : start + _BLOCK]
        final = start + _BLOCK >= len(data)
        out.append(struct.pack("<BHH", final, len(block), len(block) ^ 0xFFFF) + block)
    return b"".join(out) + struct.pack(">I", zlib.adler32(data))


def encode_png(image: np.ndarray) -> bytes:
    """Encode an uint8 RGB image `[height, width, 3]` as an uncompressed PNG.

    The output of zlib differs between versions and builds, stored blocks do not;
    array_record compresses the file anyway.

    References:
      RFC 1950 and 1951 (zlib, deflate); PNG specification, 3rd edition.
    """
    height, width, _ = image.shape
    rows = np.zeros((height, 1 + 3 * width), np.uint8)  # filter type 0 opens each row
    rows[:, 1:] = image.reshape(height, 3 * width)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"".join(
        (
            _SIGNATURE,
            _chunk(b"IHDR", header),
            _chunk(b"IDAT", _stored(rows.tobytes())),
            _chunk(b"IEND", b""),
        )
    )
