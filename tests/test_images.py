"""Decoding, resampling and cutting of images."""

import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from rmjax.data import images
from rmjax.data.images import centre, decode_rgb, resize_shorter, window
from rmjax.errors import InputError


def encode(image: Image.Image, fmt: str = "PNG", **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, fmt, **options)
    return stream.getvalue()


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def test_rgb_is_untouched():
    pixels = noise(7, 9, 3)
    np.testing.assert_array_equal(decode_rgb(encode(Image.fromarray(pixels))), pixels)


def test_grey_fills_three_channels():
    pixels = noise(5, 6)
    expected = np.stack([pixels] * 3, axis=-1)
    np.testing.assert_array_equal(decode_rgb(encode(Image.fromarray(pixels))), expected)


def test_one_bit_becomes_black_and_white():
    image = Image.new("1", (2, 1))
    image.putpixel((1, 0), 1)
    assert decode_rgb(encode(image)).tolist() == [[[0, 0, 0], [255, 255, 255]]]


def test_rgba_opaque_pixels_are_exact_and_transparent_ones_white():
    pixels = noise(16, 16, 4)
    pixels[..., 3] = 255
    pixels[0, 0, 3] = 0
    pixels[0, 1] = (0, 100, 200, 51)  # one fifth opaque
    decoded = decode_rgb(encode(Image.fromarray(pixels)))
    assert decoded[0, 0].tolist() == [255, 255, 255]
    assert decoded[0, 1].tolist() == [204, 224, 244]
    np.testing.assert_array_equal(decoded[1:], pixels[1:, :, :3])


def test_grey_with_alpha():
    image = Image.fromarray(np.array([[[10, 255], [10, 0]]], np.uint8), "LA")
    assert decode_rgb(encode(image))[0, :, 0].tolist() == [10, 255]


def test_palette_with_and_without_transparency():
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    colours = [[255, 0, 0], [0, 255, 0], [0, 0, 255]]
    assert decode_rgb(encode(image)).tolist() == [colours]
    shown = [colours[0], [255, 255, 255], colours[2]]
    assert decode_rgb(encode(image, transparency=1)).tolist() == [shown]


def test_sixteen_bit_grey_is_scaled_not_clipped():
    values = np.array([[0, 257, 32768, 65535]], np.uint16)
    for fmt in ("PNG", "TIFF"):
        decoded = decode_rgb(encode(Image.fromarray(values), fmt))
        assert decoded[0, :, 1].tolist() == [0, 1, 128, 255], fmt


def test_float_grey_is_a_fraction_or_a_level():
    fraction = Image.fromarray(np.array([[0, 0.5, 1]], np.float32))
    level = Image.fromarray(np.array([[0, 77.2, 255]], np.float32))
    assert decode_rgb(encode(fraction, "TIFF"))[0, :, 0].tolist() == [0, 128, 255]
    assert decode_rgb(encode(level, "TIFF"))[0, :, 0].tolist() == [0, 77, 255]


@pytest.mark.parametrize("value", [-1.0, 300.0, float("nan")])
def test_float_grey_of_unknown_range_is_refused(value):
    data = encode(Image.fromarray(np.array([[0, value]], np.float32)), "TIFF")
    with pytest.raises(InputError, match="x.tif: cannot convert F"):
        decode_rgb(data, "x.tif")


def test_cmyk_is_not_inverted():
    # Full cyan, no black. JPEG files of this kind carry Adobe's inverted values.
    cyan = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    for fmt, tolerance in (("TIFF", 0), ("JPEG", 4)):
        pixel = decode_rgb(encode(cyan, fmt))[8, 8].astype(int)
        assert np.abs(pixel - [0, 255, 255]).max() <= tolerance, fmt


@pytest.mark.parametrize("fmt", ["PNG", "JPEG", "TIFF"])
def test_exif_orientation_is_applied(fmt):
    upright = np.zeros((16, 32, 3), np.uint8)
    upright[:, :8] = 255  # a white bar on the left
    stored = Image.fromarray(np.rot90(upright))  # orientation 6: turn clockwise
    exif = Image.Exif()
    exif[0x0112] = 6
    decoded = decode_rgb(encode(stored, fmt, exif=exif))
    assert decoded.shape == (16, 32, 3)
    assert decoded[:, :7].min() > 240 and decoded[:, 9:].max() < 15


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_exif_does_not_lose_the_image():
    pixels = noise(16, 16, 3)
    data = encode(Image.fromarray(pixels), exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff")
    np.testing.assert_array_equal(decode_rgb(data), pixels)


@pytest.mark.parametrize("fmt", ["PNG", "WEBP"])
def test_an_exif_directory_is_not_copied_over_and_over(fmt):
    """Of 100 entries that all point at one megabyte, none is read."""
    count, size = 100, 1_000_000
    entries = [struct.pack("<HHII", 0x0112, 3, 1, 6)]
    entries += [
        struct.pack("<HHII", 0x8000 + n, 7, size, 14 + 12 * (count + 1))
        for n in range(count)
    ]
    directory = struct.pack("<H", count + 1) + b"".join(entries) + bytes(4)
    exif = b"Exif\0\0II*\0\x08\0\0\0" + directory + bytes(size)
    data = encode(Image.new("RGB", (32, 16)), fmt, exif=exif)
    tracemalloc.start()
    decoded = decode_rgb(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert decoded.shape == (32, 16, 3)  # orientation 6: turned
    assert peak < 20 * size


@pytest.mark.parametrize("fmt", ["GIF", "PNG", "WEBP"])
def test_animation_gives_its_first_frame(fmt):
    colours = [(200, 0, 0), (0, 200, 0)]
    frames = [Image.new("RGB", (8, 8), colour) for colour in colours]
    options = {"lossless": True} if fmt == "WEBP" else {}
    data = encode(frames[0], fmt, save_all=True, append_images=frames[1:], **options)
    assert Image.open(io.BytesIO(data)).n_frames == 2
    assert decode_rgb(data)[4, 4].tolist() == [200, 0, 0]


@pytest.mark.parametrize("fmt", ["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP"])
def test_truncated_file_is_refused_by_name(fmt):
    data = encode(Image.fromarray(noise(64, 64, 3)), fmt)
    decode_rgb(data)
    with pytest.raises(InputError, match="folder/broken.img: ") as error:
        decode_rgb(data[: len(data) // 2], "folder/broken.img")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("data", [b"", b"<html>not found</html>", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_image_is_refused_by_name(data):
    with pytest.raises(InputError, match="page.png: "):
        decode_rgb(data, "page.png")


def test_postscript_is_not_handed_to_an_interpreter():
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n"
    with pytest.raises(InputError, match="not an image of a known format"):
        decode_rgb(eps, "a.eps")


def test_declared_size_is_checked_before_decoding(monkeypatch):
    data = encode(Image.new("1", (12_000, 9_000)))
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    monkeypatch.setattr(images, "_decode_plain", lambda *_: pytest.fail("decoded"))
    with pytest.raises(
        InputError, match="big.png: declares 12000x9000 pixels; at most 100,000,000"
    ):
        decode_rgb(data, "big.png")


def test_enormous_declared_size_is_refused(monkeypatch):
    # Headers of 30000 x 30000 pixels and no data behind them.
    monkeypatch.setattr(images, "_decode_plain", lambda *_: pytest.fail("decoded"))
    data = bytearray(encode(Image.new("L", (1, 1)), "JPEG"))
    size = data.index(b"\xff\xc0") + 5
    data[size : size + 4] = (30000).to_bytes(2, "big") * 2
    with pytest.raises(InputError, match="bomb.jpg"):
        decode_rgb(bytes(data), "bomb.jpg")
    data = bytearray(encode(Image.new("L", (1, 1))))
    data[16:24] = (30000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    with pytest.raises(InputError, match="bomb.png"):
        decode_rgb(bytes(data), "bomb.png")


SCENE = np.asarray(
    Image.fromarray(noise(9, 9, 3, seed=1)).resize((150, 130), Image.Resampling.BICUBIC)
)


def plainly(data: bytes) -> np.ndarray | None:
    return images._decode_plain(data, Image.open(io.BytesIO(data)))


def by_pillow(data: bytes, monkeypatch) -> np.ndarray:
    with monkeypatch.context() as patch:
        patch.setattr(images, "_decode_plain", lambda *_: None)
        return decode_rgb(data)


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0", "4:1:1"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"restart_marker_blocks": 2}]
)
def test_plain_jpeg_has_pillows_pixels(monkeypatch, subsampling, mode, options):
    for height, width in ((1, 1), (8, 16), (17, 33), (129, 147)):
        for pixels in (noise(height, width, 3), SCENE[:height, :width]):
            image = Image.fromarray(pixels).convert(mode)
            for quality in (30, 75, 96):
                quantized = {"quality": quality, "subsampling": subsampling}
                data = encode(image, "JPEG", **quantized, **options)
                fast = plainly(data)
                assert fast.dtype == np.uint8 and fast.shape == pixels.shape
                np.testing.assert_array_equal(fast, by_pillow(data, monkeypatch))
                np.testing.assert_array_equal(decode_rgb(data), fast)


def test_jpeg_that_stores_rgb_has_pillows_pixels(monkeypatch):
    data = encode(Image.fromarray(SCENE), "JPEG", keep_rgb=True)
    np.testing.assert_array_equal(decode_rgb(data), by_pillow(data, monkeypatch))


@pytest.mark.parametrize("level", [0, 1, 6, 9])
def test_plain_png_has_its_pixels(level):
    for height, width in ((1, 1), (1, 9), (9, 1), (17, 33), (129, 147)):
        for pixels in (noise(height, width, 3), SCENE[:height, :width]):
            data = encode(Image.fromarray(pixels), compress_level=level)
            np.testing.assert_array_equal(plainly(data), pixels)
            np.testing.assert_array_equal(decode_rgb(data), pixels)


def text(**entries: str) -> PngInfo:
    info = PngInfo()
    for key, value in entries.items():
        info.add_text(key, value)
    return info


def test_prompts_and_upright_exif_do_not_slow_an_image_down(monkeypatch):
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 1, "a description"
    for data in (
        encode(Image.fromarray(SCENE), "JPEG", exif=exif),
        encode(Image.fromarray(SCENE), pnginfo=text(parameters="a cat")),
    ):
        np.testing.assert_array_equal(plainly(data), by_pillow(data, monkeypatch))


XMP = '<rdf:Description tiff:Orientation="6"/>'


@pytest.mark.parametrize(
    ("image", "fmt", "options"),
    [
        (
            Image.fromarray(SCENE),
            "JPEG",
            {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0"},
        ),
        (Image.fromarray(SCENE), "JPEG", {"xmp": XMP.encode()}),
        (
            Image.fromarray(SCENE),
            "PNG",
            {"pnginfo": text(**{"XML:com.adobe.xmp": XMP})},
        ),
        (Image.fromarray(SCENE).convert("CMYK"), "JPEG", {}),
        (Image.fromarray(SCENE), "PNG", {"transparency": tuple(SCENE[0, 0].tolist())}),
        (Image.fromarray(SCENE).convert("L"), "PNG", {}),
        (Image.fromarray(SCENE).quantize(9), "PNG", {}),
        (Image.fromarray(SCENE).convert("RGBA"), "PNG", {}),
        (
            Image.fromarray(SCENE),
            "PNG",
            {"save_all": True, "append_images": [Image.fromarray(SCENE[::-1].copy())]},
        ),
    ],
)
def test_what_is_not_plain_is_left_to_pillow(monkeypatch, image, fmt, options):
    data = encode(image, fmt, **options)
    assert plainly(data) is None
    np.testing.assert_array_equal(decode_rgb(data), by_pillow(data, monkeypatch))


@pytest.mark.parametrize("fmt", ["JPEG", "PNG"])
def test_damaged_files_fare_as_with_pillow(monkeypatch, fmt):
    """Some bytes changed, or the end missing: the same pixels, or the same words."""

    def outcome(decode, data: bytes) -> bytes | str:
        try:
            return decode(data).tobytes()
        except InputError as error:
            return str(error)

    whole = encode(Image.fromarray(SCENE[:40, :50]), fmt)
    rng = np.random.default_rng(0)
    kinds = set()
    for trial in range(400):
        data = bytearray(whole)
        data[rng.integers(33, len(data))] = rng.integers(256)
        if trial % 4 == 0:
            data = whole[: len(whole) - trial // 4]
        found = outcome(decode_rgb, bytes(data))
        expected = outcome(lambda d: by_pillow(d, monkeypatch), bytes(data))
        assert found == expected, trial
        kinds.add(type(found))
    assert kinds == {bytes, str}


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"restart_marker_blocks": 3}]
)
def test_jpeg_that_lacks_its_end_marker_is_whole(mode, options):
    exif = Image.Exif()
    exif[0x0112] = 6
    for extra in ({}, {"exif": exif}):
        data = encode(Image.fromarray(SCENE).convert(mode), "JPEG", **options, **extra)
        for end in (data[:-2], data[:-1]):
            np.testing.assert_array_equal(decode_rgb(end), decode_rgb(data))
        for cut in range(4, 400, 3):
            with pytest.raises(InputError, match="unreadable image"):
                decode_rgb(data[:-cut])


def test_progressive_jpeg_without_its_last_scan_is_truncated():
    data = encode(Image.fromarray(SCENE), "JPEG", progressive=True)
    scans = [at for at in range(len(data)) if data[at : at + 2] == b"\xff\xda"]
    for start in scans[1:]:
        with pytest.raises(InputError, match="unreadable image"):
            decode_rgb(data[:start])


def test_real_files_have_pillows_pixels(real_images, monkeypatch):
    files = sorted(p for p in real_images.rglob("*") if p.suffix in (".jpg", ".png"))
    fast = 0
    for file in files[::5]:
        data = file.read_bytes()
        np.testing.assert_array_equal(
            decode_rgb(data), by_pillow(data, monkeypatch), err_msg=file.name
        )
        fast += plainly(data) is not None
    assert fast > 0.9 * len(files[::5])


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((100, 80), (40, 32)),
        ((80, 100), (32, 40)),
        ((33, 47), (32, 45)),
        ((20, 31), (32, 49)),
    ],
)
def test_resize_shorter_rounds_the_longer_side_down(shape, expected):
    assert resize_shorter(noise(*shape, 3), 32).shape == (*expected, 3)


def test_resize_is_antialiased_bilinear():
    # Halving with a triangle filter of twice the width: weights 1 3 3 1 over 8.
    row = np.array([0, 0, 0, 80, 160, 0, 0, 0], np.uint8)
    image = np.broadcast_to(row[None, :, None], (8, 8, 3)).copy()
    middle = resize_shorter(image, 4)[1, :, 0]
    assert middle.tolist() == [0, 50, 70, 0]


def test_matching_size_is_not_resampled():
    for shape in ((32, 48, 3), (48, 32, 3), (32, 32, 3)):
        image = noise(*shape)
        assert resize_shorter(image, 32) is image


def test_window_reaches_every_place_and_no_further():
    image = np.arange(5 * 4).reshape(5, 4)
    places = [
        (v, h) for v in np.linspace(0, 0.999, 9) for h in np.linspace(0, 0.999, 9)
    ]
    corners = {int(window(image, 3, place)[0, 0]) for place in places}
    assert corners == {0, 1, 4, 5, 8, 9}
    assert all(window(image, 3, place).shape == (3, 3) for place in places)


def test_centre():
    image = np.arange(5 * 4).reshape(5, 4)
    np.testing.assert_array_equal(centre(image, 2), [[5, 6], [9, 10]])
    np.testing.assert_array_equal(centre(image, 3)[0], [4, 5, 6])
