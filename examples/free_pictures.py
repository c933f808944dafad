"""Pictures that anybody may use, cut into tiles: what the shipped fingerprints saw.

    python examples/free_pictures.py PHOTOGRAPHS pictures
    rmjax prepare image_folder --name pictures --tree pictures

PHOTOGRAPHS is a folder of images of any sizes; rmjax/weights/README.md names those that the
shipped weights come from, and where they are. Each is cut into tiles at several scales.
Most tiles are given a history of their own (blur, noise, old compression): that is no
fingerprint, and the network has to see such pictures to know. Procedural scenes are drawn
beside them, whose detail no camera made.
"""

import argparse
import io
import sys
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from rmjax.data.image_files import walk_images
from rmjax.data.images import decode_rgb
from rmjax.datasets.attribution_mini.images import SEMANTICS, Settings, draw_block
from rmjax.errors import InputError

SIDE, STEP = 160, 80  # px: of a tile, and from one to the next
SCALES = (1.5, 1.0, 0.7, 0.5, 0.35, 0.25, 0.15)
FILTERS = [getattr(Image.Resampling, n) for n in ("LANCZOS", "BICUBIC", "BILINEAR")]
TILES = 40  # at most, of a photograph at one scale
BLURRED, NOISY, COMPRESSED = 0.2, 0.3, 0.35  # shares of the tiles
FLAT = 6  # deviation in grey levels below which a tile shows nothing
SCENES = Settings(seed=7, size=SIDE, entanglement=0.0)
BLOCKS = 2  # of 20 scenes, of each kind


def cut_all(
    folder: Path, rng: np.random.Generator
) -> Iterator[tuple[str, list[np.ndarray]]]:
    """Yield a name and the tiles of each photograph that has any; say which has none.

    Raises:
        InputError: an image can't be read, or none can be cut.
    """
    empty = True
    for path in walk_images(folder):
        pixels = decode_rgb((folder / path).read_bytes(), str(path))
        tiles = cut_tiles(Image.fromarray(pixels), rng)
        if tiles:
            empty = False
            yield str(path.with_suffix("")).replace("/", "_"), tiles
        else:
            print(f"{path}: left out, under {SIDE} px or flat", file=sys.stderr)
    if empty:
        raise InputError(
            f"{folder}: no photograph that tiles of {SIDE} px can be cut of"
        )


def cut_tiles(photograph: Image.Image, rng: np.random.Generator) -> list[np.ndarray]:
    """Return tiles `[SIDE, SIDE, 3]` of a photograph at all scales, chosen by chance."""
    tiles = []
    for scale in SCALES:
        size = [int(scale * side) for side in photograph.size]
        if min(size) < SIDE:
            continue
        pixels = np.asarray(photograph.resize(size, FILTERS[rng.integers(3)]))
        height, width = pixels.shape[:2]
        corners = np.mgrid[: height - SIDE + 1 : STEP, : width - SIDE + 1 : STEP]
        for top, left in rng.permutation(corners.reshape(2, -1).T)[:TILES]:
            tile = pixels[top : top + SIDE, left : left + SIDE]
            if tile.std() >= FLAT:
                tiles.append(tile)
    return tiles


def wear(tile: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Blur a tile, add noise and compress it, each by chance."""
    if rng.random() < BLURRED:
        radius = rng.uniform(0.2, 1.2)
        tile = np.asarray(
            Image.fromarray(tile).filter(ImageFilter.GaussianBlur(radius))
        )
    if rng.random() < NOISY:
        noise = rng.normal(size=(SIDE, SIDE, 1)) + rng.integers(2) * rng.normal(
            size=tile.shape
        )
        deviation = np.exp(rng.uniform(np.log(0.5), np.log(8)))  # of grey levels
        tile = np.clip(np.rint(tile + deviation * noise), 0, 255).astype(np.uint8)
    if rng.random() < COMPRESSED:
        file = io.BytesIO()
        settings = {
            "quality": int(rng.integers(50, 99)),
            "subsampling": int(rng.integers(3)),
        }
        Image.fromarray(tile).save(file, "JPEG", **settings)
        tile = np.asarray(Image.open(file))
    return tile


def save(folder: Path, pictures: Iterable[np.ndarray]) -> None:
    """Write pictures as PNG, numbered."""
    folder.mkdir(parents=True)
    for number, pixels in enumerate(pictures):
        Image.fromarray(pixels).save(folder / f"{number:04}.png")


def main() -> None:
    """Write OUT/real/<photograph or scene>/<number>.png."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("photographs", type=Path)
    parser.add_argument("out", type=Path, help="a folder to make")
    parser.add_argument("--plain", action="store_true", help="give tiles no history")
    arguments = parser.parse_args()
    if arguments.out.exists():
        parser.error(f"{arguments.out} is there already: give a new folder")
    rng = np.random.default_rng(0)
    finish = (lambda tile: tile) if arguments.plain else partial(wear, rng=rng)
    try:
        for name, tiles in cut_all(arguments.photographs, rng):
            save(arguments.out / "real" / name, map(finish, tiles))
    except InputError as error:
        parser.error(str(error))
    for semantic in SEMANTICS:
        blocks = [draw_block("real", semantic, n, SCENES) for n in range(BLOCKS)]
        scenes = map(finish, np.concatenate(blocks))
        save(arguments.out / "real" / f"scene_{semantic}", scenes)


if __name__ == "__main__":
    main()
