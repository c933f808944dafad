"""Equalised images: one size, one encoder, and compressed as the photographs are."""

import io
import pickle
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from PIL import Image
from scipy.stats import chisquare

from rmjax.data.facts import image_facts
from rmjax.data.images import decode_rgb, open_image
from rmjax.data.parts import Entry, Unusable
from rmjax.datasets.benchmarks.make_tree import draw_scene
from rmjax.errors import InputError
from rmjax.prepare.equalise import (
    GRID,
    Equaliser,
    Measures,
    equalise,
    measure,
    plan_equalise,
    read_recipe,
)


def measured(part) -> Measures:
    return measure([part])


@dataclass(frozen=True)
class Images:
    """A part whose images are given."""

    held: tuple[tuple[Entry, bytes] | Unusable, ...]
    name: str = "here"
    size: int = 1

    def entries(self) -> Iterator[Entry | Unusable]:
        for image in self.held:
            yield image if isinstance(image, Unusable) else image[0]

    def images(self) -> Iterator[tuple[Entry, bytes] | Unusable]:
        yield from self.held


def encode(image: Image.Image, format: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def entry(path: str, source: str = "real") -> Entry:
    return Entry(path, source, "any", path, "")


def photographs(seed: int, count: int) -> tuple[tuple[Entry, bytes], ...]:
    """JPEG files of many sizes, and of three kinds of compression."""
    rng = np.random.default_rng(seed)
    kinds = [(96, "4:2:0"), (96, "4:2:0"), (80, "4:4:4"), (70, "4:2:2")]
    made = []
    for number in range(count):
        quality, sampling = kinds[number % len(kinds)]
        image = draw_scene(rng, *rng.integers(100, 180, 2))
        data = encode(image, "JPEG", quality=quality, subsampling=sampling)
        made.append((entry(f"{seed}/{number}.jpg"), data))
    return tuple(made)


def fakes(count: int) -> tuple[tuple[Entry, bytes], ...]:
    rng = np.random.default_rng(9)
    data = encode(draw_scene(rng, 128, 128), "PNG")
    return tuple((entry(f"fake/{i}.png", "gan"), data) for i in range(count))


@pytest.fixture(scope="module")
def plan() -> Equaliser:
    return plan_equalise([measured(Images(photographs(0, 40) + fakes(1)))])


def kind(data: bytes) -> tuple:
    facts = image_facts(data)
    return facts.format, facts.mode, facts.quality, facts.standard, facts.subsampling


def test_all_have_one_size_and_fakes_the_compressions_of_photographs(plan):
    real = [plan(e, data) for e, data in photographs(0, 40)]
    fake = [plan(e, data) for e, data in fakes(400)]
    assert {open_image(data).size for data in real + fake} == {(plan.size,) * 2}
    before = [kind(data) for _, data in photographs(0, 40)]
    assert [kind(data) for data in real] == before
    expected, drawn = Counter(before), Counter(kind(data) for data in fake)
    assert set(drawn) == set(expected)
    observed = [drawn[k] for k in expected]
    shares = [400 * expected[k] / 40 for k in expected]
    assert chisquare(observed, shares).pvalue > 1e-3


def test_photographs_are_cut_on_their_grid_and_hardly_change(plan):
    for e, data in photographs(1, 8):
        before, after = decode_rgb(data), decode_rgb(plan(e, data)).astype(int)
        top, left = ((s - plan.size) // 2 // GRID * GRID for s in before.shape[:2])
        inner = slice(GRID, plan.size - GRID)  # decoders smooth chroma across the edge
        same = before[top : top + plan.size, left : left + plan.size]
        assert np.abs(after - same)[inner, inner].mean() < 0.2
        moved = before[top + 1 : top + 1 + plan.size, left : left + plan.size]
        recipe = read_recipe(open_image(data))
        off_grid = equalise(encode(Image.fromarray(moved), "PNG"), plan.size, recipe)
        assert np.abs(decode_rgb(off_grid) - moved.astype(int)).mean() > 0.4


def test_draws_depend_on_seed_and_path_alone(plan):
    parts = [Images(photographs(0, 40)[i::3]) for i in range(3)] + [Images(fakes(1))]
    again = plan_equalise([measured(part) for part in reversed(parts)])
    assert again == plan == pickle.loads(pickle.dumps(plan))
    paths = [str(number) for number in range(50)]
    draws = [plan.draw(path) for path in paths]
    other = plan_equalise([measured(part) for part in parts], seed=1)
    assert draws != [other.draw(path) for path in paths]
    (e, data), *_ = fakes(1)
    assert plan(e, data) == again(e, data)


def test_size_is_what_nearly_all_images_of_each_source_have():
    def sized(source: str, sides: list[int]) -> Images:
        images = [
            (entry(f"{source}/{i}", source), encode(Image.new("RGB", (s, 300)), "PNG"))
            for i, s in enumerate(sides)
        ]
        return Images((*images, (entry("text"), b"text"), Unusable("gone", "why")))

    few = measured(sized("real", [40] + [100] * 199))
    assert plan_equalise([few]).size == 96
    assert plan_equalise([measured(sized("real", [40] * 2 + [100] * 198))]).size == 32
    assert plan_equalise([few, measured(sized("gan", [70]))]).size == 64
    with pytest.raises(InputError, match="'gan'.* 10 px"):
        plan_equalise([few, measured(sized("gan", [10]))])
    with pytest.raises(InputError, match="no image"):
        plan_equalise([measured(Images(()))])


@pytest.mark.parametrize("case", ["grey", "cmyk", "turned", "alpha", "palette", "png"])
def test_photographs_that_cannot_keep_their_tables_get_others(plan, case):
    image = draw_scene(np.random.default_rng(0), 150, 130)
    turned = Image.Exif()
    turned[274] = 6
    data = {
        "grey": lambda: encode(image.convert("L"), "JPEG", quality=33),
        "cmyk": lambda: encode(image.convert("CMYK"), "JPEG", quality=33),
        "turned": lambda: encode(image, "JPEG", quality=33, exif=turned),
        "alpha": lambda: encode(image.convert("RGBA"), "PNG"),
        "palette": lambda: encode(image.convert("P"), "GIF"),
        "png": lambda: encode(image, "PNG"),
    }[case]()
    made = plan(entry("odd"), data)
    assert read_recipe(open_image(made)) == plan.draw("odd")
    assert open_image(made).size == (plan.size, plan.size)
    shown = decode_rgb(data).astype(int)
    top, left = ((s - plan.size) // 2 // GRID * GRID for s in shown.shape[:2])
    cut = shown[top : top + plan.size, left : left + plan.size]
    assert np.abs(decode_rgb(made) - cut).mean() < 12


def test_without_jpeg_photographs_all_get_one_quality():
    held = ((entry("a"), encode(Image.new("RGB", (64, 64)), "PNG")), *fakes(3))
    plan = plan_equalise([measured(Images(held))])
    assert {kind(plan(e, data)) for e, data in held} == {
        ("JPEG", "RGB", 96, True, "4:2:0")
    }
    assert plan.metadata()["photographs"] == {"96 4:2:0": 1}


def test_metadata_counts_photographs(plan):
    kept = plan.metadata()
    assert kept["photographs"] == {"96 4:2:0": 20, "80 4:4:4": 10, "70 4:2:2": 10}
    assert kept["seed"] == 0 and kept["size"] == plan.size


def test_small_and_damaged_images_are_refused_by_name(plan):
    small = encode(Image.new("RGB", (300, plan.size - 1)), "PNG")
    with pytest.raises(InputError, match=rf"^few: 300x{plan.size - 1} .*{plan.size}"):
        plan(entry("few"), small)
    e, data = photographs(0, 1)[0]
    for source, broken in (("real", data[: len(data) // 2]), ("gan", b"text")):
        with pytest.raises(InputError, match="^broken: ") as error:
            plan(entry("broken", source), broken)
        assert "\n" not in str(error.value)
