"""Damage image files in many ways, always the same: what has to read any file is tried.

    python examples/fuzz_images.py OUT IMAGE...

writes 200 files into the folder OUT. Each is one of the images cut off, with bits turned,
bytes taken out, put in, repeated or exchanged with another image's, or with numbers of
its header set to extremes.
"""

import random
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

COUNT = 200
HEAD = 64  # bytes in which formats keep sizes and types

# Function of (chance, an image, another image) to a damaged image.
Damage = Callable[[random.Random, bytes, bytes], bytes]


def cut(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """Keep the beginning."""
    return data[: rng.randrange(len(data))]


def behead(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """Keep the end."""
    return data[rng.randrange(1, len(data)) :]


def turn_bits(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """Turn a few bits, anywhere."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 3, 10, 100))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def set_extremes(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """Set a number of the header to none, or to as much as it can hold."""
    at, width = rng.randrange(min(HEAD, len(data))), rng.choice((1, 2, 4))
    return (
        data[:at] + rng.choice((b"\0", b"\xff", b"\x7f")) * width + data[at + width :]
    )


def take_out(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """Take a stretch out."""
    start, end = _stretch(rng, data)
    return data[:start] + data[end:]


def put_in(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """Put noise in."""
    at = rng.randrange(len(data))
    return data[:at] + rng.randbytes(rng.randrange(1, 2000)) + data[at:]


def repeat(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """Repeat a stretch many times."""
    start, end = _stretch(rng, data)
    return data[:start] + data[start:end] * rng.choice((2, 50)) + data[end:]


def graft(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """Go on with another image, perhaps of another format."""
    share = rng.random()
    return data[: int(share * len(data))] + other[int(share * len(other)) :]


DAMAGES: tuple[Damage, ...] = (
    cut,
    behead,
    turn_bits,
    set_extremes,
    take_out,
    put_in,
    repeat,
    graft,
)


def fuzz(
    images: Sequence[bytes], count: int = COUNT, seed: int = 0
) -> Iterator[tuple[str, bytes]]:
    """Yield damaged images, with names that say what was done.

    Args:
        images: encoded files, none empty; each is damaged in each way in turn.
        count: how many to yield.
        seed: of all chance.
    """
    rng = random.Random(seed)
    for number in range(count):
        damage = DAMAGES[number % len(DAMAGES)]
        image = images[number // len(DAMAGES) % len(images)]
        yield f"{number:03}_{damage.__name__}", damage(rng, image, rng.choice(images))


def _stretch(rng: random.Random, data: bytes) -> tuple[int, int]:
    start = rng.randrange(len(data))
    return start, min(start + rng.randrange(1, 1000), len(data))


def main(out: str, *paths: str) -> None:
    """Write the damaged images into a folder."""
    Path(out).mkdir(parents=True, exist_ok=True)
    for name, data in fuzz([Path(path).read_bytes() for path in paths]):
        (Path(out) / name).write_bytes(data)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
