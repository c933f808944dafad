"""Suites of corruptions: names, determinism by image, the cache."""

import zlib

import jax
import numpy as np
import pytest

from rmjax.corruptions import NAMES
from rmjax.corruptions.dispatch import CHUNK
from rmjax.data.dataset import take
from rmjax.data.pipeline import eval_batches
from rmjax.errors import InputError
from rmjax.evaluation import robustness
from rmjax.evaluation.robustness import (
    CLEAN,
    IMAGE_CODE,
    SUITES,
    Condition,
    Corrupter,
    cache_file,
    kind_key,
    parse_suite,
)
from rmjax.experiment import parallel
from rmjax.experiment.data import open_data
from rmjax.utils.platform import targeting


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
        ("fog:2.5", "severity of fog:2.5 is not in 1..5"),
        ("fog:", "'fog:' is not NAME:VALUE"),
        ("fog:nan", "severity of fog:nan is not in 1..5"),
        ("jpeg:0", "value = 0 of jpeg"),
        ("jpeg:75.5", "value = 75.5 of jpeg .* is not a whole number"),
        ("jpeg:nan", "value = nan of jpeg"),
        ("jpeg:inf", "value = inf of jpeg"),
        ("flip:2", "value = 2 of flip"),
        ("crop:1.01", "value = 1.01 of crop"),
        ("blur:0", "value = 0 of blur"),
        ("nearest:0", "value = 0 of nearest"),
    ],
)
def test_bad_suites_are_named(text, message):
    with pytest.raises(InputError, match=message):
        parse_suite(text)


def test_values_that_differ_have_names_that_differ():
    found = parse_suite("crop:0.12345678,crop:0.12345679,jpeg:75.0,jpeg:75")
    names = [str(condition) for condition in found]
    assert names == ["clean", "crop:0.12345678", "crop:0.12345679", "jpeg:75"]


def test_draws_of_a_kind_are_its_own():
    """Its name's alone: other kinds, or more of them, change nothing."""
    keys = {name: jax.random.key_data(kind_key(name)).tolist() for name in NAMES}
    assert len({tuple(key) for key in keys.values()}) == len(NAMES)
    data = np.uint32(zlib.crc32(b"fog"))
    expected = jax.random.fold_in(jax.random.key(0), data)
    assert keys["fog"] == jax.random.key_data(expected).tolist()


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


def test_some_of_the_images_are_others(small_config, tmp_path):
    config = small_config()
    seen = open_data(config).seen
    corrupter = Corrupter(config, parallel.choose_devices(1), tmp_path)
    rows = (np.arange(8), np.arange(8, 16), np.arange(seen.size("test")))
    folders = [
        corrupter.cache_folder(take(seen, "test", own), ("test",), 8) for own in rows
    ]
    assert len(set(folders)) == 3
    assert folders[2] == corrupter.cache_folder(seen, ("test",), 8)


def test_images_of_other_code_are_not_taken_from_the_cache(
    small_config, tmp_path, monkeypatch
):
    condition = Condition("contrast", 2)
    first = images_of(small_config(), condition, cache_dir=tmp_path)
    (file,) = tmp_path.glob("*/*/*")
    np.load(file, mmap_mode="r+")[:] = 7  # as an error made them that has been mended
    monkeypatch.setattr(robustness, "IMAGE_CODE", (*IMAGE_CODE, "rmjax.models"))
    again = images_of(small_config(), condition, cache_dir=tmp_path)
    np.testing.assert_array_equal(again, first)


def test_a_cache_that_cannot_be_written_is_named_at_once(small_config, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="can't write to .*file"):
        Corrupter(small_config(), parallel.choose_devices(1), tmp_path / "file")


def test_on_accelerators_images_are_corrupted_side_by_side():
    random = np.random.default_rng(0)
    batch = {
        "image": random.integers(0, 256, (CHUNK + 2, 32, 32, 3), np.uint8),
        "split": np.ones(CHUNK + 2, np.int32),
        "index": np.arange(CHUNK + 2, dtype=np.int32),
    }

    def corrupt():
        step = jax.jit(lambda batch: robustness._corrupt_batch(3, batch, **how))
        return step.lower(batch).as_text(), np.asarray(step(batch), int)

    how = {"name": "gaussian_noise", "options": {}}
    text, expected = corrupt()
    with targeting("gpu"):
        chunked, ours = corrupt()
    chunk = f"tensor<{CHUNK}x32x32x3xf32>"
    assert chunk in chunked and chunk not in text
    assert np.abs(ours - expected).max() <= 1  # a level, where rounding falls otherwise
