"""Pictures that anybody may use, cut into tiles: what the shipped fingerprints saw.

    python examples/free_pictures.py PHOTOGRAPHS pictures
    rmjax prepare image_folder --name pictures --tree pictures

PHOTOGRAPHS is a folder of images of any sizes; docs/fingerprints.md names those that the
shipped weights come from, and where they are. Each is cut into tiles at several scales,
so that sharp and soft detail, noise and old compression all occur. Procedural scenes are
drawn beside them, whose detail no camera made.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from rmjax.data.image_files import walk_images
from rmjax.datasets.attribution_mini.images import SEMANTICS, Settings, draw_block

SIDE, STEP = 160, 80  # px: of a tile, and from one to the next
SCALES = (1.0, 0.7, 0.5, 0.35, 0.25, 0.15)
TILES = 25  # at most, of a photograph at one scale
FLAT = 6  # deviation in grey levels below which a tile shows nothing
SCENES = Settings(seed=7, size=SIDE, entanglement=0.0)
BLOCKS = 2  # of 20 scenes, of each kind


def cut_tiles(photograph: Image.Image) -> list[np.ndarray]:
    """Return tiles `[SIDE, SIDE, 3]` of a photograph at all scales, chosen by chance."""
    tiles = []
    rng = np.random.default_rng(0)
    for scale in SCALES:
        size = [int(scale * side) for side in photograph.size]
        if min(size) < SIDE:
            continue
        pixels = np.asarray(photograph.resize(size, Image.Resampling.LANCZOS))
        height, width = pixels.shape[:2]
        corners = np.mgrid[: height - SIDE + 1 : STEP, : width - SIDE + 1 : STEP]
        for top, left in rng.permutation(corners.reshape(2, -1).T)[:TILES]:
            tile = pixels[top : top + SIDE, left : left + SIDE]
            if tile.std() >= FLAT:
                tiles.append(tile)
    return tiles


def save(folder: Path, pictures: list[np.ndarray]) -> None:
    """Write pictures as PNG, numbered."""
    folder.mkdir(parents=True)
    for number, pixels in enumerate(pictures):
        Image.fromarray(pixels).save(folder / f"{number:04}.png")


def main() -> None:
    """Write OUT/real/<photograph or scene>/<number>.png."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("photographs", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    real = arguments.out / "real"
    for path in walk_images(arguments.photographs):
        with Image.open(arguments.photographs / path) as image:
            save(real / path.stem, cut_tiles(image.convert("RGB")))
    for semantic in SEMANTICS:
        blocks = [draw_block("real", semantic, n, SCENES) for n in range(BLOCKS)]
        save(real / f"scene_{semantic}", [*np.concatenate(blocks)])


if __name__ == "__main__":
    main()
