"""Make a tree of GenImage's form, to try its preparation and to measure what leaks.

python -m rmjax.datasets.benchmarks.make_tree FOLDER --images 300

What real and synthetic images show is drawn alike, so that they differ in their files
alone, as GenImage's do: the real ones are JPEG of several sizes, qualities and
subsamplings, the synthetic ones PNG of one size. Not for training.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

GENERATORS = ("agan", "bgan")
SIZE = 256  # of the synthetic images
SIDES = (200, 420)  # of the real ones, from and up to
QUALITIES = {96: 0.4, 92: 0.2, 90: 0.15, 85: 0.15, 75: 0.1}  # and their shares
BLOT = 12  # px
SUBSAMPLINGS = {"4:2:0": 0.7, "4:4:4": 0.3}


def write_tree(folder: str | Path, images: int, seed: int = 0) -> None:
    """Write `<generator>/<train or val>/<ai or nature>/<image>`.

    Args:
        folder: of the generators.
        images: in each of the lowest folders.
        seed: of all that is drawn.
    """
    rng = np.random.default_rng(seed)
    for place in (
        f"{name}/{split}" for name in GENERATORS for split in ("train", "val")
    ):
        for kind in ("ai", "nature"):
            lowest = Path(folder, place, kind)
            lowest.mkdir(parents=True)
            for number in range(images):
                if kind == "ai":
                    draw_scene(rng, SIZE, SIZE).save(lowest / f"{number:05d}.png")
                    continue
                image = draw_scene(rng, *rng.integers(*SIDES, 2))
                quality = int(rng.choice([*QUALITIES], p=[*QUALITIES.values()]))
                sampling = str(rng.choice([*SUBSAMPLINGS], p=[*SUBSAMPLINGS.values()]))
                file = lowest / f"{number:05d}.JPEG"
                image.save(file, quality=quality, subsampling=sampling)


def draw_scene(rng: np.random.Generator, height: int, width: int) -> Image.Image:
    """Return soft blots under noise; where a blot begins says nothing of the size."""
    rows, columns = height // BLOT + 3, width // BLOT + 3
    blots = Image.fromarray(rng.integers(0, 256, (rows, columns, 3), np.uint8))
    large = blots.resize((columns * BLOT, rows * BLOT), Image.Resampling.BICUBIC)
    top, left = rng.integers(0, BLOT, 2)
    shown = np.asarray(large, float)[top : top + height, left : left + width]
    pixels = shown + rng.normal(0, rng.uniform(2, 10), (height, width, 3))
    return Image.fromarray(np.clip(np.round(pixels), 0, 255).astype(np.uint8))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("--images", type=int, default=300, help="in each lowest folder")
    args = parser.parse_args()
    write_tree(args.folder, args.images)
