"""Suites of corruptions: names, determinism by image, the cache."""

import numpy as np
import pytest

from rmjax.data.pipeline import eval_batches
from rmjax.errors import InputError
from rmjax.evaluation.robustness import (
    CLEAN,
    SUITES,
    Condition,
    Corrupter,
    cache_file,
    parse_suite,
)
from rmjax.experiment import parallel
from rmjax.experiment.data import open_data


def test_suites_are_as_large_as_they_should_be():
    sizes = {name: len(conditions) for name, conditions in SUITES.items()}
    assert sizes["clean"] == 1
    assert sizes["seen"] == 1 + 15 * 5 and sizes["unseen"] == 1 + 4 * 5
    assert sizes["full"] == 19 * 5 + sizes["resharing"]
    sets = {condition.set for condition in SUITES["full"]}
    assert sets == {"clean", "seen_corruptions", "unseen_corruptions", "resharing"}


def test_a_list_of_kinds_is_a_suite():
    suite = [str(condition) for condition in parse_suite("fog:3,flip,jpeg:75,nearest")]
    assert suite == [
        "clean",
        "fog:3",
        "flip:1",
        "jpeg:75",
        "nearest:0.5",
        "nearest:0.25",
    ]


def test_suites_may_stand_in_a_list():
    assert parse_suite("unseen, fog:2,clean") == (
        *SUITES["unseen"],
        Condition("fog", 2),
    )


def test_a_set_of_corruptions_at_one_severity():
    found = parse_suite("seen:1,unseen:2")
    assert len(found) == 1 + 15 + 4
    assert set(found) <= set(SUITES["full"])
    assert {c.value for c in found if c.set == "seen_corruptions"} == {1}
    assert {c.value for c in found if c.set == "unseen_corruptions"} == {2}


@pytest.mark.parametrize(
    "text, message",
    [
        ("full:1", "unknown 'full:1': choose .*, spatter, .*, seen, unseen"),
        ("seen:0", "severity of .*:0 is not in 1..5"),
        ("rain", "unknown 'rain': choose clean, seen, unseen, resharing, full"),
        ("fog:6", "severity of fog:6 is not in 1..5"),
        ("fog:x", "'fog:x' is not NAME:VALUE"),
        ("jpeg:0", "value = 0 of jpeg"),
    ],
)
def test_bad_suites_are_named(text, message):
    with pytest.raises(InputError, match=message):
        parse_suite(text)


def images_of(config, condition, *, batch_size=48, devices=1, cache_dir=None):
    """The test split's images under a condition, in the data set's order."""
    data = open_data(config)
    devices = parallel.choose_devices(devices)
    corrupter = Corrupter(config, devices, cache_dir)
    folder = corrupter.cache_folder(data.seen, ("test",), batch_size)
    batches = eval_batches(data.seen, ("test",), batch_size=batch_size, size=32)
    parts = []
    for number, batch in enumerate(batches):
        needed = {name: batch[name] for name in ("image", "split", "index")}
        file = cache_file(folder, condition, number)
        images = corrupter(condition, parallel.shard(needed, devices), file)
        parts.append(parallel.fetch(images)[batch["mask"] > 0])
    return np.concatenate(parts)


@pytest.mark.parametrize("name, value", [("gaussian_noise", 3), ("jpeg", 50)])
def test_a_corrupted_image_depends_on_itself_alone(small_config, name, value):
    condition = Condition(name, value)
    images = images_of(small_config(), condition)
    assert images.dtype == np.uint8
    again = images_of(small_config(), condition, batch_size=16, devices=8)
    np.testing.assert_array_equal(images, again)
    clean = images_of(small_config(), CLEAN)
    assert 2 < np.abs(images - clean.astype(float)).mean() < 60
    if name == "gaussian_noise":
        noise = images - clean.astype(float)
        assert np.abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 0.2


def test_the_cache_gives_the_same_images(small_config, tmp_path):
    condition = Condition("speckle_noise", 2)
    first = images_of(small_config(), condition, cache_dir=tmp_path)
    (file,) = tmp_path.glob("*/*/*")
    assert file.parent.name == "speckle_noise-2"
    stored = np.load(file, mmap_mode="r+")
    np.testing.assert_array_equal(stored[: len(first)], first)
    stored[0] = 7  # so that it shows where the second pass reads
    second = images_of(small_config(), condition, cache_dir=tmp_path)
    assert np.all(second[0] == 7)
    np.testing.assert_array_equal(second[1:], first[1:])
    # Other images, or other batches of them: other files.
    other = small_config(**{"data.unseen_semantics": ()})
    images_of(other, condition, cache_dir=tmp_path)
    images_of(small_config(), condition, batch_size=16, cache_dir=tmp_path)
    assert len(list(tmp_path.glob("*"))) == 3


def test_a_cache_that_cannot_be_written_is_named_at_once(small_config, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="can't write to .*file"):
        Corrupter(small_config(), parallel.choose_devices(1), tmp_path / "file")
