"""Suites of corruptions: names, determinism by image, the cache, the means."""

import numpy as np
import pytest

from rmjax import parallel
from rmjax.data.pipeline import eval_batches
from rmjax.errors import InputError
from rmjax.experiment import open_data
from rmjax.robustness import (
    CLEAN,
    SUITES,
    Condition,
    Corrupter,
    parse_suite,
    summarize_conditions,
)


def test_suites_are_as_large_as_they_should_be():
    sizes = {name: len(conditions) for name, conditions in SUITES.items()}
    assert sizes["clean"] == 1 and sizes["full"] == 1 + 19 * 5
    assert sizes["seen"] == 1 + 15 * 5 and sizes["unseen"] == 1 + 4 * 5


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


@pytest.mark.parametrize(
    "text, message",
    [
        ("rain", "unknown 'rain': choose clean, seen, unseen, full, resharing"),
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
    corrupter = Corrupter(config, parallel.choose_devices(devices), cache_dir)
    batches = eval_batches(data.seen, ("test",), batch_size=batch_size, size=32)
    parts = [
        batch["image"][batch["mask"] > 0]
        for batch in corrupter(batches, condition, data.seen, ("test",))
    ]
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
    (file,) = tmp_path.glob("*/*")
    assert file.name == "speckle_noise-2.npy"
    stored = np.load(file, mmap_mode="r+")
    np.testing.assert_array_equal(stored, first)
    stored[0] = 7  # so that it shows where the second pass reads
    second = images_of(small_config(), condition, batch_size=16, cache_dir=tmp_path)
    assert np.all(second[0] == 7)
    np.testing.assert_array_equal(second[1:], first[1:])
    # Other images, another file.
    images_of(
        small_config(**{"data.unseen_semantics": ()}), condition, cache_dir=tmp_path
    )
    assert len(list(tmp_path.glob("*/*"))) == 2


def test_an_interrupted_pass_leaves_no_file(small_config, tmp_path):
    config = small_config()
    data = open_data(config)
    corrupter = Corrupter(config, parallel.choose_devices(1), tmp_path)
    batches = eval_batches(data.seen, ("test",), batch_size=16, size=32)
    passing = corrupter(batches, Condition("contrast", 1), data.seen, ("test",))
    next(passing)
    passing.close()
    assert not list(tmp_path.glob("*/*"))


def test_a_cache_that_cannot_be_written_is_named_at_once(small_config, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="can't write to .*file"):
        Corrupter(small_config(), parallel.choose_devices(1), tmp_path / "file")


def test_kinds_count_alike_however_many_values_they_have():
    def figures(share):
        return {
            "seen": {"attribution_accuracy": share, "detection_accuracy": share / 2}
        }

    summary = summarize_conditions(
        {
            "clean": figures(1.0),
            "fog:1": figures(0.8),
            "fog:5": figures(0.4),
            "contrast:3": figures(0.2),
            "snow:1": figures(0.3),
        }
    )["seen"]
    means = {k: v["attribution_accuracy"] for k, v in summary.items() if k != "kinds"}
    assert means == pytest.approx(
        {"clean": 1.0, "seen_corruptions": 0.4, "unseen_corruptions": 0.3}
    )
    assert summary["kinds"]["fog"]["detection_accuracy"] == pytest.approx(0.3)
