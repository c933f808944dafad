"""Encoded image files to 8-bit RGB arrays, and the resampling before the network."""

import io
import re
from typing import Literal, NamedTuple

import imagecodecs
import numpy as np
import simplejpeg
from PIL import ExifTags, Image, ImageOps

from rmjax.errors import InputError
from rmjax.provenance.tiff import read_tags
from rmjax.utils.choose import choose

# 100 million pixels are 300 MB of RGB: more than any generator makes, and few
# enough that a file which only claims to be larger cannot exhaust the memory.
MAX_PIXELS = 100_000_000

# Bitmap formats alone. Pillow hands EPS files to Ghostscript, which a folder of
# images from elsewhere should never be able to start.
FORMATS = (
    *("PNG", "JPEG", "MPO", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "TGA"),
    *("JPEG2000", "AVIF", "ICO", "QOI"),
)

FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}

# What counts as an image by its name; the last three, which Pillow reads with a plug-in
# at most, so that they are named as unreadable and not passed over.
SUFFIXES = frozenset(
    ".png .apng .jpg .jpeg .jpe .jfif .mpo .webp .gif .bmp .dib .tif .tiff .pbm .pgm "
    ".ppm .pnm .tga .jp2 .j2k .avif .ico .qoi .heic .heif .jxl".split()
)

# Chunks of a PNG file, and beginnings of its texts, that make its picture other than
# its pixels: transparency, frames, an orientation.
_PNG_EXTRAS = (b"tRNS", b"acTL", b"eXIf")
_PNG_TEXTS = (b"Raw profile type", b"XML:com.adobe.xmp")
_PNG_PROFILE = "Raw profile type exif"

_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
_SCAN_END = re.compile(rb"\xff+[\x01-\xcf\xd8-\xfe]")  # a marker, but no restart


def readable_formats() -> list[str]:
    """Return those of `FORMATS` that this build of Pillow can read."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def decode_rgb(data: bytes, name: str = "") -> np.ndarray:
    """Decode an image file to the RGB picture that a viewer would show.

    Palettes, grey and CMYK are converted; the EXIF orientation is applied; of an
    animation the first frame is taken. Transparent images are composited on
    white, because what lies under full transparency is arbitrary and was never
    meant to be seen; opaque pixels come out unchanged. Grey of 16 bits is scaled
    to 8. Colour profiles are not applied, as in the published pipeline. A JPEG that
    lacks nothing but its end marker counts as whole.

    Args:
        data: the encoded file.
        name: what error messages call it, such as its path.

    Returns:
        uint8 array `[height, width, 3]`.

    Raises:
        InputError: the data are no readable image of `FORMATS`, are truncated, or
            declare more than `MAX_PIXELS` pixels.
    """
    name = name or "image"
    image = open_image(data, name)
    try:
        pixels = _decode_plain(data, image)
        if pixels is not None:
            return pixels
        image.load()
    except Exception as error:  # Pillow's decoders raise a dozen different types
        if _lacks_end_alone(data):
            return decode_rgb(data + _JPEG_END, name)
        raise InputError(f"{name}: unreadable image ({_one_line(error)})") from error
    return _to_picture(image, name)


def open_image(
    data: bytes, name: str = "image", max_pixels: int = MAX_PIXELS
) -> Image.Image:
    """Read an image file's header alone; arguments and errors as for `decode_rgb`."""
    try:
        image = Image.open(io.BytesIO(data), formats=readable_formats())
    except Image.DecompressionBombError:
        raise InputError(
            f"{name}: declares far more than the {MAX_PIXELS:,} pixels that are read"
        ) from None
    except Image.UnidentifiedImageError:
        # Pillow's own message gives the address of a buffer, not the reason.
        raise InputError(f"{name}: not an image of a known format") from None
    except Exception as error:  # Pillow's decoders raise a dozen different types
        raise InputError(f"{name}: unreadable image ({_one_line(error)})") from error
    _check_pixels(image, name, max_pixels)
    return image


def convert_rgb(image: Image.Image, name: str = "image") -> np.ndarray:
    """Return what `decode_rgb` makes of a file, of an image that Pillow holds.

    Of an animation it is the frame that the image stands at.

    Raises:
        InputError: its file is closed or damaged, or has more than `MAX_PIXELS` pixels.
    """
    _check_pixels(image, name)
    try:
        image.load()
        image = image.copy()  # what follows writes into `info`
    except Exception as error:
        raise InputError(f"{name}: unreadable image ({_one_line(error)})") from error
    return _to_picture(image, name)


class Resize(NamedTuple):
    """How images are resampled before the network.

    Attributes:
        side: pixels that the shorter side measures then, or both.
        filter: key of `FILTERS`.
        squash: bring both sides to `side`, whatever their proportion.
    """

    side: int
    filter: str = "bilinear"
    squash: bool = False


def resize(image: np.ndarray, how: Resize) -> np.ndarray:
    """Resample an image, with Pillow's antialiasing.

    The longer side is rounded down, as by torchvision's `Resize` of a PIL image. An
    image of that size already is returned as it is, because any resampling rewrites
    the fingerprint.

    Args:
        image: uint8 `[height, width, 3]`.
        how: size and filter.

    Returns:
        uint8 `[new_height, new_width, 3]`.

    Raises:
        InputError: there is no such filter; the message lists them.
    """
    # JPEGs are decoded whole before, though libjpeg could do so at 1/2 or 1/4: measured
    # on photographs of 1024 px, 1/2 takes up to a quarter off the power of the finest
    # detail left, and 1/4 changes it by factors of 0.7 to 2.7.
    filter = choose("data.filter", how.filter, FILTERS)
    height, width = image.shape[:2]
    if how.squash:
        shape = (how.side, how.side)
    elif width <= height:
        shape = (how.side, int(how.side * height / width))
    else:
        shape = (int(how.side * width / height), how.side)
    if shape == (width, height):
        return image
    return np.asarray(Image.fromarray(image).resize(shape, filter))


def resize_shorter(image: np.ndarray, size: int) -> np.ndarray:
    """Resample an image bilinearly so that its shorter side measures `size` pixels."""
    return resize(image, Resize(size))


def window(image: np.ndarray, size: int, place: tuple[float, float]) -> np.ndarray:
    """Cut a square of `size` pixels out of an image.

    Args:
        image: `[height, width, ...]`, no side shorter than `size`.
        size: side of the square in pixels.
        place: where vertically and horizontally, each in [0, 1): all windows are
            equally likely for uniform numbers.

    Returns:
        `[size, size, ...]`, a view.
    """
    top = int(place[0] * (image.shape[0] - size + 1))
    left = int(place[1] * (image.shape[1] - size + 1))
    return image[top : top + size, left : left + size]


def centre(image: np.ndarray, size: int) -> np.ndarray:
    """Cut the middle square of `size` pixels out of an image `[height, width, ...]`."""
    top, left = (image.shape[0] - size) // 2, (image.shape[1] - size) // 2
    return image[top : top + size, left : left + size]


def _decode_plain(data: bytes, image: Image.Image) -> np.ndarray | None:
    """Decode a plain JPEG or PNG to Pillow's pixels in a fraction of its time.

    Anything else is None, files with the least fault among it: what they show, if
    anything, is for Pillow to say.
    """
    height, width = image.height, image.width
    try:
        if image.format == "JPEG" and image.mode in ("L", "RGB"):
            # Pillow knows the size from its own reading of the header.
            same = simplejpeg.decode_jpeg_header(data)[:2] == (height, width)
            if same and not _is_turned(image):
                return simplejpeg.decode_jpeg(data, "RGB")
        if image.format == "PNG" and _is_plain_png(data):
            pixels = imagecodecs.spng_decode(data)
            return pixels if pixels.shape == (height, width, 3) else None
    except (ValueError, imagecodecs.SpngError):
        return None
    return None


def _lacks_end_alone(data: bytes) -> bool:
    """Whether a JPEG has every bit of every coefficient, and only no end marker."""
    if not data.startswith(_JPEG_START) or data.endswith(_JPEG_END):
        return False
    missing: dict[int, np.ndarray] = {}  # lowest bits, by component: 64, -1 for none
    at = 2
    while at < len(data) - 4:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4])
        segment = data[at + 4 : at + 2 + length]
        at += 2 + length
        if 0xC0 <= marker <= 0xC2:  # the frame: eight bytes, then three a component
            missing = {part: np.full(64, -1) for part in segment[6::3]}
        elif marker == 0xDA and segment[3:]:  # a scan
            first, last, bits = segment[-3:]
            for part in segment[1:-3:2]:
                if part in missing:
                    missing[part][first : last + 1] = bits & 15
            end = _SCAN_END.search(data, at)
            at = end.start() if end else len(data)
    if not missing or any(part.any() for part in missing.values()):
        return False
    try:  # strict: it raises where a scan ends early
        simplejpeg.decode_jpeg(data + _JPEG_END, "RGB" if len(missing) < 4 else "CMYK")
    except ValueError:
        return False
    return True


def _is_turned(image: Image.Image) -> bool:
    """Whether the EXIF block or XMP of an opened JPEG asks to turn or mirror it."""
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1) != 1
    except Exception:  # a damaged block counts as none
        return False


def _is_plain_png(data: bytes) -> bool:
    """Whether a PNG is 8-bit RGB, not interlaced, and nothing beside."""
    depth, colour, interlaced = data[24], data[25], data[28]
    if (depth, colour, interlaced) != (8, 2, 0):
        return False
    at = 8  # the first chunk: length, name, contents, checksum
    while at < len(data):
        name = data[at + 4 : at + 8]
        if name in _PNG_EXTRAS or data.startswith(_PNG_TEXTS, at + 8):
            return False
        at += int.from_bytes(data[at : at + 4]) + 12
    return True


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _upright(image: Image.Image) -> Image.Image:
    """Apply the EXIF orientation; a damaged EXIF block counts as none."""
    try:
        _keep_orientation(image)
        return ImageOps.exif_transpose(image)
    except Exception:  # the pixels are loaded and sound: a viewer shows them too
        return image


def _keep_orientation(image: Image.Image) -> None:
    """Leave of an EXIF block in `info` the orientation alone.

    Pillow copies all that the block's directory points at, and thousands of entries
    may point at the same megabytes.
    """
    block = image.info.get("exif")
    if block is None and _PNG_PROFILE in image.info:  # a name, a length, then hex
        lines = image.info[_PNG_PROFILE].split("\n")[3:]
        block = bytes.fromhex("".join(lines))
    if block is None:
        return
    block = block.removeprefix(b"Exif\0\0")
    order: Literal["big", "little"] = "big" if block.startswith(b"MM") else "little"
    kept = Image.Exif()
    # Of the first directory; the others are of thumbnails.
    for tag, value in read_tags(block, {ExifTags.Base.Orientation}, directories=1):
        kept[tag] = int.from_bytes(value, order)
    image.info["exif"] = kept.tobytes()


def _check_pixels(image: Image.Image, name: str, max_pixels: int = MAX_PIXELS) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise InputError(
            f"{name}: declares {width}x{height} pixels; at most {max_pixels:,} are read"
        )


def _to_picture(image: Image.Image, name: str) -> np.ndarray:
    """Return the upright RGB picture of a loaded image."""
    try:
        return _to_rgb(_upright(image))
    except Exception as error:
        raise InputError(
            f"{name}: cannot convert {image.mode} ({_one_line(error)})"
        ) from error


def _to_rgb(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        grey = _deep_grey(np.asarray(image))
        return np.repeat(grey[..., None], 3, axis=-1)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return np.asarray(image.convert("RGB"))


def _deep_grey(pixels: np.ndarray) -> np.ndarray:
    """Scale grey of more than 8 bits to 8.

    Integers are 16-bit values (Pillow's 32-bit mode carries them for some
    formats). Floats have no agreed range: up to 1 they are fractions of white,
    up to 255 they are grey levels.

    Args:
        pixels: `[height, width]`, integers 0..65535, or floats 0..1 or 0..255.

    Returns:
        uint8 `[height, width]`, rounded.

    Raises:
        ValueError: a value lies outside those ranges.
    """
    low, high = pixels.min(), pixels.max()
    if np.issubdtype(pixels.dtype, np.integer):
        limit = 65535
    else:
        limit = 1 if high <= 1 else 255
    if not (low >= 0 and high <= limit):  # written so that NaN fails as well
        raise ValueError(f"grey values from {low} to {high}; 0 to {limit} are known")
    return np.rint(pixels.astype(np.float64) * (255 / limit)).astype(np.uint8)
