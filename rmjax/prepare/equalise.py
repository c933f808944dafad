"""Make the files of real and synthetic images alike: one size, one encoder.

Benchmarks often hold photographs as JPEG files of many sizes and synthetic images as PNG
files of one, and a network learns that instead of the generators. So every image

- is cut to one size, never resampled, because resampling leaves traces that differ by
  factor. The cut is as near the centre as the grid of 16 px allows, which holds that of
  JPEG's blocks and of its halved chroma: what was compressed before meets the same blocks;
- is written as JPEG by one encoder. A photograph that was JPEG keeps its quantisation
  tables and its subsampling: on the same grid that changes next to nothing, so it stays an
  image that was compressed once. All others get those of a photograph drawn by a hash of
  seed and path, which is likely in proportion to how many photographs have them.

What is left: synthetic images that were JPEG already, and photographs whose tables
cannot be kept (grey, CMYK, turned by EXIF), are compressed twice; and a cut from a large
image shows less of the scene than one from a small image.

References:
    Grommelt et al., Fake or JPEG? Revealing Common Biases in Generated Image Detection
        Datasets, ECCV 2024 workshops, https://arxiv.org/abs/2403.17608: synthetic images
        are compressed by qualities drawn from those of the photographs, and cut, not
        resampled; most photographs of GenImage have quality 96
"""

import bisect
import hashlib
import io
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import accumulate, chain
from typing import Any, NamedTuple

import numpy as np
import PIL
import simplejpeg
from PIL import ExifTags, Image, features
from PIL.JpegImagePlugin import JpegImageFile, get_sampling

from rmjax.data.dataset import REAL
from rmjax.data.facts import jpeg_quality
from rmjax.data.images import decode_rgb, open_image
from rmjax.data.parts import Entry, Part, Unusable
from rmjax.errors import InputError

GRID = 16  # px: two blocks of JPEG, one of chroma that was halved
SMALLER = (
    0.005  # share of each source's images that may be smaller than the common size
)
QUALITY = 96  # where no photograph is JPEG: GenImage's most frequent

_SUBSAMPLINGS = ("4:4:4", "4:2:2", "4:2:0")  # by Pillow's numbers


class Recipe(NamedTuple):
    """How a JPEG file is compressed.

    Attributes:
        luma: the 64 quantisation steps row by row.
        chroma: likewise.
        subsampling: of chroma: 0 for 4:4:4, 1 for 4:2:2, 2 for 4:2:0, as Pillow has it.
    """

    luma: tuple[int, ...]
    chroma: tuple[int, ...]
    subsampling: int


@dataclass(frozen=True)
class Measures:
    """What some images are like; those of all are summed by `plan_equalise`.

    Attributes:
        sides: number of images by source and shorter side.
        recipes: number of photographs by how they are compressed, if as JPEG.
    """

    sides: Counter[tuple[str, int]]
    recipes: Counter[Recipe]


@dataclass(frozen=True)
class Equaliser:
    """Makes an image like all others; can be pickled.

    Attributes:
        seed: another seed draws others.
        size: side of the cut in pixels, a multiple of `GRID`.
        recipes: how photographs are compressed.
        ends: number of photographs that have one of the first recipes, up to each.
    """

    seed: int
    size: int
    recipes: tuple[Recipe, ...]
    ends: tuple[int, ...]

    def __call__(self, entry: Entry, data: bytes) -> bytes:
        """Return the file of an image that is like all others.

        Args:
            entry: says what the image is called and whether it is a photograph.
            data: its file.

        Raises:
            InputError: it is unreadable, or smaller than the cut.
        """
        own = (
            read_recipe(open_image(data, entry.path)) if entry.source == REAL else None
        )
        return equalise(data, self.size, own or self.draw(entry.path), entry.path)

    def draw(self, path: str) -> Recipe:
        """Return the recipe for an image that does not keep its own."""
        text = f"{self.seed}/{path}".encode(errors="surrogateescape")
        number = int.from_bytes(hashlib.sha256(text).digest()[:8], "big")
        return self.recipes[bisect.bisect(self.ends, number % self.ends[-1])]

    def metadata(self) -> dict[str, Any]:
        """Return what was done, to be kept with a data set.

        `photographs` counts them by the nearest quality 1..100 and the subsampling.
        """
        counts: Counter[str] = Counter()
        starts = (0, *self.ends)
        for recipe, start, end in zip(self.recipes, starts, self.ends, strict=False):
            counts[_describe(recipe)] += end - start
        return {
            "seed": self.seed,
            "size": self.size,
            "grid": GRID,
            "photographs": dict(counts.most_common()),
            "encoder": f"Pillow {PIL.__version__}, "
            f"libjpeg-turbo {features.version('libjpeg_turbo')}",
        }


def measure(parts: Sequence[Part]) -> Measures:
    """Look at the headers of some images; those without a readable one are passed over."""
    sides: Counter[tuple[str, int]] = Counter()
    recipes: Counter[Recipe] = Counter()
    for image in chain.from_iterable(part.images() for part in parts):
        if isinstance(image, Unusable):
            continue
        entry, data = image
        with suppress(InputError):  # it will be left out, with the reason
            header = open_image(data, entry.path)
            sides[entry.source, min(header.size)] += 1
            recipe = read_recipe(header) if entry.source == REAL else None
            if recipe:
                recipes[recipe] += 1
    return Measures(sides, recipes)


def plan_equalise(measures: Iterable[Measures], seed: int = 0) -> Equaliser:
    """Choose the size that nearly all images have, and what recipes are drawn from.

    Args:
        measures: of all images, in any number of parts and any order.
        seed: of the draws.

    Raises:
        InputError: no images, or the images of a source are smaller than `GRID`.
    """
    sides: Counter[tuple[str, int]] = Counter()
    recipes: Counter[Recipe] = Counter()
    for part in measures:
        sides.update(part.sides)
        recipes.update(part.recipes)
    if not recipes:
        recipes[_standard_recipe(QUALITY)] = 1
    ordered = sorted(recipes)
    ends = tuple(accumulate(recipes[recipe] for recipe in ordered))
    return Equaliser(seed, _common_size(sides), tuple(ordered), ends)


def equalise(data: bytes, size: int, recipe: Recipe, name: str = "image") -> bytes:
    """Cut an image and write it as JPEG.

    Args:
        data: its file.
        size: both sides of the cut in pixels.
        recipe: how to compress it.
        name: what error messages call it, such as its path.

    Returns:
        A baseline JPEG file of RGB, without metadata.

    Raises:
        InputError: it is unreadable, or smaller than the cut.
    """
    pixels = _decode(data, name)
    height, width = pixels.shape[:2]
    if min(height, width) < size:
        raise InputError(
            f"{name}: {width}x{height} pixels, smaller than the {size} px of all others"
        )
    top, left = ((side - size) // 2 // GRID * GRID for side in (height, width))
    cut = Image.fromarray(pixels[top : top + size, left : left + size])
    file = io.BytesIO()
    tables = [list(recipe.luma), list(recipe.chroma)]
    cut.save(file, "JPEG", qtables=tables, subsampling=recipe.subsampling)
    return file.getvalue()


def read_recipe(header: Image.Image) -> Recipe | None:
    """Return how an opened file is compressed.

    Returns:
        None for what is no colour JPEG of a usual subsampling, or is shown turned.
    """
    if not isinstance(header, JpegImageFile) or header.mode != "RGB":
        return None
    subsampling = get_sampling(header)
    if subsampling < 0 or _is_turned(header):
        return None
    tables = (header.quantization.get(header.layer[i][3]) for i in (0, 1))
    luma, chroma = (tuple(table or ()) for table in tables)
    return Recipe(luma, chroma, subsampling) if luma and chroma else None


def _decode(data: bytes, name: str) -> np.ndarray:
    """Return the pixels of an image; of a JPEG, chroma that compresses to itself.

    The usual decoders smooth halved chroma, and halving it anew gives other values.
    Repeated values do not change: photographs came out of a second compression with a
    tenth of the difference.
    """
    if read_recipe(open_image(data, name)):
        with suppress(ValueError):  # damaged: the other decoder says what is wrong
            return simplejpeg.decode_jpeg(data, "RGB", fastupsample=True)
    return decode_rgb(data, name)


def _is_turned(header: Image.Image) -> bool:
    try:
        return header.getexif().get(ExifTags.Base.Orientation, 1) != 1
    except Exception:  # a damaged block counts as none, as in `decode_rgb`
        return False


def _common_size(sides: Counter[tuple[str, int]]) -> int:
    """Return the largest multiple of `GRID` that nearly all images of each source have."""
    if not sides:
        raise InputError("no image has a readable header: there is nothing to equalise")
    smallest = {}
    for source in {source for source, _ in sides}:
        own = {side: count for (name, side), count in sides.items() if name == source}
        ordered = np.sort(np.repeat(list(own), list(own.values())))
        smallest[source] = int(ordered[int(SMALLER * len(ordered))])
    source = min(smallest, key=lambda name: (smallest[name], name))
    if smallest[source] < GRID:
        raise InputError(
            f"images of source {source!r} have sides of {smallest[source]} px; at least "
            f"{GRID} are needed to make all alike"
        )
    return smallest[source] // GRID * GRID


def _standard_recipe(quality: int) -> Recipe:
    file = io.BytesIO()
    Image.new("RGB", (GRID, GRID)).save(file, "JPEG", quality=quality)
    recipe = read_recipe(open_image(file.getvalue()))
    assert recipe is not None
    return recipe


def _describe(recipe: Recipe) -> str:
    quality, _ = jpeg_quality(recipe.luma)
    return f"{quality:.0f} {_SUBSAMPLINGS[recipe.subsampling]}"
