"""What is read from image files beside their pixels."""

import hashlib
import io

import numpy as np
import pytest
from PIL import Image

from rmjax.data.dataset import find_dataset, open_dataset
from rmjax.data.facts import collect_facts, image_facts, jpeg_quality
from rmjax.errors import InputError


def encode(image: Image.Image, fmt: str = "PNG", **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, fmt, **options)
    return stream.getvalue()


def noise(*shape: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(
        np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    )


def test_every_quality_that_pillow_saves_is_found():
    image = noise(16, 16, 3)
    for quality in range(1, 101):
        found = image_facts(encode(image, "JPEG", quality=quality))
        assert (found.quality, found.standard) == (quality, True)


def test_quality_of_a_table_of_its_own_is_the_nearest():
    data = encode(noise(16, 16, 3), "JPEG", quality=80)
    table = np.array(Image.open(io.BytesIO(data)).quantization[0])
    table[[3, 40]] += 1
    own = encode(noise(16, 16, 3), "JPEG", qtables=[table.tolist()] * 2)
    found = image_facts(own)
    assert (found.quality, found.standard) == (80, False)
    assert np.isnan(jpeg_quality(None)[0])


@pytest.mark.parametrize(
    ("shape", "options", "expected"),
    [
        ((16, 16, 3), {"subsampling": 0}, "4:4:4"),
        ((16, 16, 3), {"subsampling": 1}, "4:2:2"),
        ((16, 16, 3), {"subsampling": 2}, "4:2:0"),
        ((16, 16), {}, "grey"),
        ((16, 16, 4), {}, "1x1,1x1,1x1,1x1"),
    ],
)
def test_subsampling(shape, options, expected):
    image = noise(*shape)
    if shape[-1] == 4:
        image = Image.frombytes("CMYK", (16, 16), image.tobytes())
    assert image_facts(encode(image, "JPEG", **options)).subsampling == expected


def test_png_with_its_size_hash_and_thumbnail():
    image = noise(24, 40, 3)
    data = encode(image)
    found = image_facts(data)
    assert (found.format, found.mode) == ("PNG", "RGB")
    assert (found.width, found.height, found.bytes) == (40, 24, len(data))
    assert np.isnan(found.quality) and found.subsampling == "" and found.reason == ""
    assert found.digest.tobytes() == hashlib.sha256(data).digest()[:16]
    means = np.asarray(image, float).reshape(8, 3, 8, 5, 3).mean((1, 3))
    assert np.abs(found.thumbnail - means).max() <= 1


def test_size_is_as_stored_and_thumbnail_as_shown():
    image = Image.new("RGB", (16, 8))
    image.paste((255, 255, 255), (0, 0, 8, 8))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise
    found = image_facts(encode(image, exif=exif))
    assert (found.width, found.height) == (16, 8)
    assert found.thumbnail[:4].min() == 255 and found.thumbnail[4:].max() == 0


def test_damaged_files_have_a_reason():
    cut = image_facts(encode(noise(64, 64, 3))[:3000])
    assert (cut.format, cut.width) == ("PNG", 64) and "truncated" in cut.reason
    other = image_facts(b"no image at all")
    assert (other.format, other.width, other.bytes) == ("", 0, 15)
    assert other.reason == "not an image of a known format"
    assert not other.thumbnail.any()


def test_columns_are_in_record_order_for_any_number_of_processes(mini_dir):
    dataset = open_dataset(find_dataset(mini_dir, "attribution_mini"))
    here = collect_facts(dataset, processes=1, show_progress=False)
    there = collect_facts(dataset, processes=2, show_progress=False)
    for name in vars(here):
        np.testing.assert_array_equal(getattr(here, name), getattr(there, name))
    assert len(here) == 704 and here.split_names == tuple(dataset.split_sizes)
    at = 0
    for number, split in enumerate(dataset.split_sizes):
        for row in dataset.records(split):
            assert here.path[at] == row["path"].decode()
            assert here.split[at] == number and here.source[at] == row["source"]
            digest = hashlib.sha256(row["image"]).digest()[:16]
            assert here.digest[at].tobytes() == digest
            at += 1


def test_some_splits_and_records(mini_dir):
    dataset = open_dataset(find_dataset(mini_dir, "attribution_mini"))
    everything = collect_facts(dataset, ["val", "test"], show_progress=False)
    chosen = {"test": np.array([5, 2])}
    some = collect_facts(dataset, ["test"], records=chosen, show_progress=False)
    start = dataset.split_sizes["val"]
    assert some.path.tolist() == everything.path[[start + 5, start + 2]].tolist()
    with pytest.raises(InputError, match="'dev'"):
        collect_facts(dataset, ["dev"])


def test_groups_are_equal_where_their_names_are(memory_dataset):
    image = encode(noise(8, 8, 3))
    common = {"image": image, "source": "real", "semantic": "cat", "split": "train"}
    groups = ["a", "b", "a", "c"]
    rows = [common | {"path": f"{i}", "group": g} for i, g in enumerate(groups)]
    found = collect_facts(memory_dataset(rows)).group
    assert found[0] == found[2] and len(set(found.tolist())) == 3
