"""Opening, selecting and batching a small data set whose pixels say which image it is."""

import csv
import shutil
import tempfile
from collections import Counter
from itertools import islice
from pathlib import Path

import grain
import numpy as np
import pytest
from grain.multiprocessing import SharedMemoryArray
from PIL import Image

from rmjax.data import dataset as dataset_module
from rmjax.data.dataset import find_dataset, open_dataset, select
from rmjax.data.images import Resize, centre
from rmjax.data.pipeline import (
    ImageCache,
    _Order,
    eval_batches,
    num_eval_batches,
    train_batches,
)
from rmjax.datasets.image_folder import prepare
from rmjax.errors import InputError

SOURCES, SEMANTICS = ("real", "agan", "bgan"), ("cat", "dog", "street")


def picture(number: int) -> np.ndarray:
    """20 x 24 pixels: number, row and column in the three channels."""
    row, column = np.mgrid[:20, :24]
    return np.stack([np.full_like(row, number), row, column], axis=-1).astype(np.uint8)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    """103 images in three splits; bgan has no street in training."""
    root = tmp_path_factory.mktemp("tree")
    lines = ["path,label,dlabel,source,semantic,split"]
    for number in range(103):
        source, semantic = number % 3, number // 3 % 3
        split = ("train", "train", "train", "val", "test")[number // 9 % 5]
        if (SOURCES[source], SEMANTICS[semantic]) == ("bgan", "street"):
            split = "test"
        Image.fromarray(picture(number)).save(root / f"{number}.png")
        names = f"{SOURCES[source]},{SEMANTICS[semantic]},{split}"
        lines.append(f"{number}.png,{source},{semantic},{names}")
    (root / "m.csv").write_text("\n".join(lines))
    return prepare("small", root / "data", manifest=root / "m.csv")


@pytest.fixture(scope="module")
def whole(prepared):
    return select(open_dataset(prepared))


def take(steps: int, selection, **options) -> list[dict]:
    defaults = {"batch_size": 8, "members": 2, "size": 16, "seed": 5}
    return list(islice(train_batches(selection, **defaults | options), steps))


def assert_same(first: list[dict], second: list[dict]) -> None:
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def joined(batches: list[dict], name: str) -> np.ndarray:
    return np.concatenate([batch[name] for batch in batches])


def number_of(selection, split: str, index: int) -> int:
    """The number in the name of a record's file."""
    return int(selection.dataset.records(split)[index]["path"].split(b".")[0])


def test_batches_have_the_documented_arrays(whole):
    (batch,) = take(1, whole, start_step=3)
    assert batch["image"].shape == (8, 16, 16, 3) and batch["image"].dtype == np.uint8
    for name in ("source", "semantic", "index", "position"):
        assert batch[name].shape == (8,) and batch[name].dtype == np.int32
    assert batch["position"].tolist() == list(range(24, 32))


def test_images_and_labels_belong_to_the_record(whole):
    tops = set()
    for batch in take(60, whole):
        for i, index in enumerate(batch["index"]):
            number = number_of(whole, "train", index)
            image = batch["image"][i]
            assert (batch["source"][i], batch["semantic"][i]) == (
                number % 3,
                number // 3 % 3,
            )
            top, left = image[0, 0, 1:]
            expected = picture(number)[top : top + 16, left : left + 16]
            np.testing.assert_array_equal(image, expected)
            tops.add((top, left))
    assert len(tops) == 5 * 9  # every window of 16 in 20 x 24 turns up


def test_first_members_are_one_shuffled_pass_per_epoch(whole):
    size = whole.size("train")
    batches = take(2 * size // 4 + 1, whole)
    first = joined(batches, "index")[::2]
    epochs = first[:size], first[size : 2 * size]
    for epoch in epochs:
        assert sorted(epoch) == list(range(size))
        assert list(epoch) != sorted(epoch)
    assert list(epochs[0]) != list(epochs[1])


def test_partners_are_drawn_over_all_images(whole):
    size = whole.size("train")
    index = joined(take(size, whole, members=4), "index").reshape(-1, 4)
    counts = np.bincount(index[:, 1:].ravel(), minlength=size)
    mean = 3 * len(index) / size
    assert counts.min() > 0 and counts.max() < mean + 6 * mean**0.5
    # A partner neither repeats nor follows the first member.
    assert (index[:, 0] == index[:, 1]).mean() < 5 / size


def test_seeds_give_different_streams_and_one_seed_the_same(whole):
    assert_same(take(3, whole), take(3, whole))
    one, other = (joined(take(3, whole, seed=seed), "index") for seed in (5, 6))
    for member in (0, 1):
        assert (one[member::2] != other[member::2]).any(), member
    with pytest.raises(InputError, match="seed = -1"):
        take(1, whole, seed=-1)


@pytest.mark.parametrize("start", [1, 9, 40])
def test_stream_resumes_anywhere(whole, start):
    straight = take(start + 4, whole)
    assert_same(take(4, whole, start_step=start), straight[start:])


def in_order(parts: list[list[dict]]) -> list[dict]:
    """The processes' parts of every batch, one after the other."""
    return [
        {name: np.concatenate([part[name] for part in step]) for name in step[0]}
        for step in zip(*parts, strict=True)  # strict: as many batches in each
    ]


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_processes_share_the_same_batches(whole, count):
    """Over the end of a pass: its remainder begins the next batch, in its place."""
    parts = [
        take(4, whole, batch_size=48, process_index=i, process_count=count)
        for i in range(count)
    ]
    for part in parts:
        assert all(len(values) == 48 // count for b in part for values in b.values())
    positions = np.concatenate([joined(part, "position") for part in parts])
    assert sorted(positions) == list(range(4 * 48))
    assert 4 * 48 // 2 > whole.size("train")
    assert_same(in_order(parts), take(4, whole, batch_size=48))


def test_cache_and_read_ahead_change_nothing(whole):
    plain = take(30, whole, prefetch=1)
    small = ImageCache(10 * 20 * 24 * 3)  # room for ten images
    large = ImageCache(2**20)
    assert_same(take(30, whole, cache=small, prefetch=8), plain)
    assert_same(take(30, whole, cache=large), plain)
    assert_same(take(30, whole, cache=large), plain)
    assert len(large._images) == whole.size("train")
    assert 10 <= len(small._images) <= 12


def test_worker_processes_change_nothing(whole):
    assert_same(
        take(5, whole, num_workers=2, start_step=2), take(5, whole, start_step=2)
    )


def test_single_images(whole):
    size = whole.size("train")
    batches = take(size, whole, members=1, batch_size=2)
    assert sorted(joined(batches, "index")[:size]) == list(range(size))


def test_resize_comes_before_the_cut(whole):
    (batch,) = take(1, whole, resizing=Resize(10), size=10)
    assert batch["image"].shape == (8, 10, 10, 3)
    number = number_of(whole, "train", batch["index"][0])
    resized = Image.fromarray(picture(number)).resize(
        (12, 10), Image.Resampling.BILINEAR
    )
    windows = [np.asarray(resized)[:, left : left + 10] for left in range(3)]
    assert any((batch["image"][0] == window).all() for window in windows)


def test_image_smaller_than_asked_is_refused_by_name(whole):
    with pytest.raises(
        InputError, match=r"\d+\.png: 24x20 pixels, smaller than the 21x21"
    ):
        take(1, whole, size=21)
    with pytest.raises(InputError, match="after resizing to 18"):
        next(eval_batches(whole, ["test"], batch_size=4, size=19, resizing=Resize(18)))


@pytest.mark.parametrize(
    "options",
    [
        {"batch_size": 9},
        {"batch_size": 0},
        {"batch_size": 8, "members": 3},
        {"batch_size": 8, "process_count": 8},
    ],
)
def test_batch_that_does_not_divide_is_refused(whole, options):
    with pytest.raises(
        InputError, match=f"batch_size = {options['batch_size']} images does not"
    ):
        take(1, whole, **options)


def test_process_index_out_of_range_is_refused(whole):
    with pytest.raises(InputError, match=r"process_index = 2 is not in 0\.\.1"):
        take(1, whole, process_index=2, process_count=2)


@pytest.mark.parametrize("batch_size", [4, 7, 64])
def test_evaluation_sees_every_image_once(whole, batch_size):
    splits = ["train", "val", "test"]
    batches = list(eval_batches(whole, splits, batch_size=batch_size, size=16))
    assert len(batches) == num_eval_batches(whole, splits, batch_size)
    kept = joined(batches, "mask") == 1
    assert kept.sum() == 103 and kept[:103].all()
    seen = Counter()
    for batch in batches:
        for i in np.flatnonzero(batch["mask"]):
            number = number_of(whole, splits[batch["split"][i]], batch["index"][i])
            assert (batch["source"][i], batch["semantic"][i]) == (
                number % 3,
                number // 3 % 3,
            )
            np.testing.assert_array_equal(
                batch["image"][i], centre(picture(number), 16)
            )
            seen[number] += 1
    assert seen == Counter(range(103))


@pytest.mark.parametrize("count", [1, 2, 3, 8])
@pytest.mark.parametrize("batch_size", [24, 48, 120])
def test_evaluation_over_processes_sees_every_image_once(whole, count, batch_size):
    splits, options = ["test", "val", "train"], {"batch_size": batch_size, "size": 16}
    parts = [
        list(
            eval_batches(whole, splits, **options, process_index=i, process_count=count)
        )
        for i in range(count)
    ]
    seen = Counter()
    for part in parts:
        assert len(part) == num_eval_batches(whole, splits, batch_size)
        for batch in part:
            assert all(len(values) == batch_size // count for values in batch.values())
            kept = batch["mask"] == 1
            seen.update(batch["image"][kept, 0, 0, 0].tolist())  # the image's number
    assert seen == Counter(range(103))
    assert_same(in_order(parts), list(eval_batches(whole, splits, **options)))


def test_padding_is_zero(whole):
    *_, last = eval_batches(whole, "val", batch_size=64, size=16)
    padding = last["mask"] == 0
    assert padding.sum() == 64 - whole.size("val") % 64
    for name, values in last.items():
        assert not values[padding].any(), name


def test_selection_renumbers_sources_and_keeps_semantics(prepared):
    chosen = select(open_dataset(prepared), ["real", "bgan"], ["street", "dog"])
    assert chosen.source_names == ("real", "bgan")
    seen = 0
    for batch in eval_batches(chosen, ["train", "val", "test"], batch_size=8, size=16):
        for i in np.flatnonzero(batch["mask"]):
            number = batch["image"][i, 0, 0, 0]
            assert number % 3 == {0: 0, 1: 2}[batch["source"][i]]
            assert batch["semantic"][i] == number // 3 % 3 in (1, 2)
            seen += 1
    expected = sum(n % 3 in (0, 2) and n // 3 % 3 in (1, 2) for n in range(103))
    assert seen == expected == chosen.size("train", "val", "test")


def test_training_sees_the_selection_alone(prepared):
    chosen = select(open_dataset(prepared), ["real", "agan"], ["cat"])
    numbers = joined(take(20, chosen), "image")[:, 0, 0, 0]
    assert {n % 3 for n in numbers} == {0, 1} and {n // 3 % 3 for n in numbers} == {0}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"sources": ["real", "cgan"]},
            "unknown source 'cgan'.* real, agan",
        ),
        ({"semantics": ["horse"]}, "unknown semantic 'horse'.* cat"),
        ({"sources": ["agan", "real"]}, "'real' must be the first"),
        ({"sources": ["agan", "agan"]}, "names a source twice"),
        ({"semantics": []}, "list of semantics is empty"),
        ({"semantics": "cat"}, "must be a list of names, not the text 'cat'"),
    ],
)
def test_wrong_selection_is_refused(prepared, options, message):
    with pytest.raises(InputError, match=message):
        select(open_dataset(prepared), **options)


def test_source_without_training_images_is_refused_for_training_alone(prepared):
    chosen = select(open_dataset(prepared), semantics=["street"])
    with pytest.raises(
        InputError, match="no image of source 'bgan' .* in split 'train'"
    ):
        take(1, chosen)
    assert list(eval_batches(chosen, ["test"], batch_size=4, size=16))


def test_evaluation_of_nothing_is_refused(prepared):
    chosen = select(open_dataset(prepared), ["bgan"], ["street"])
    with pytest.raises(
        InputError, match="nothing selected in train, val: .*bgan with street"
    ):
        eval_batches(chosen, ["train", "val"], batch_size=4, size=16)
    with pytest.raises(InputError, match="no split 'dev'; it has"):
        eval_batches(chosen, ["dev"], batch_size=4, size=16)


def test_newest_version_is_found(prepared, tmp_path):
    for version in ("1.0.0", "9.0.0", "10.0.0"):
        shutil.copytree(prepared, tmp_path / "image_folder" / "small" / version)
    unfinished = tmp_path / "image_folder" / "small" / "incomplete.X_11.0.0"
    shutil.copytree(prepared, unfinished)
    (tmp_path / "image_folder" / "small" / "12.0.0").mkdir()
    found = find_dataset(tmp_path, "image_folder/small")
    assert found.name == "10.0.0"
    assert open_dataset(found).source_names == SOURCES


@pytest.mark.parametrize("name", ["attribution_mini", "image_folder/mine"])
def test_missing_data_set_is_refused_with_the_command(tmp_path, name):
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(
            InputError, match=f"rmjax prepare {name.split('/')[0]} .*{folder}"
        ):
            find_dataset(folder, name)
        with pytest.raises(InputError, match="rmjax prepare"):
            open_dataset(folder)


def test_labels_are_stored_once_and_checked(prepared, tmp_path, monkeypatch):
    copy = tmp_path / "1.0.0"
    shutil.copytree(prepared, copy)
    expected = open_dataset(prepared).labels("train")
    (copy / "labels-train.npz").unlink()
    shutil.copy(copy / "labels-val.npz", copy / "labels-test.npz")  # a stale index
    labels = open_dataset(copy).labels
    for name in ("source", "semantic"):
        np.testing.assert_array_equal(labels("train")[name], expected[name])
    assert len(labels("test")["source"]) == open_dataset(copy).split_sizes["test"]
    monkeypatch.setattr(
        dataset_module, "read_labels", lambda *_: pytest.fail("read again")
    )
    assert len(open_dataset(copy).labels("train")["source"]) == len(expected["source"])
    assert not list(copy.glob(".labels*"))


def test_damaged_data_set_is_refused_in_one_line(prepared, tmp_path):
    copy = tmp_path / "1.0.0"
    shutil.copytree(prepared, copy)
    (copy / "labels-train.npz").write_bytes(b"PK\x03\x04 and no more")  # read anew
    assert len(open_dataset(copy).labels("train")["source"]) > 0
    shard = next(copy.glob("*-train.array_record-*"))
    shard.rename(tmp_path / "elsewhere")
    with pytest.raises(
        InputError, match=f"{shard}: missing; put it back, or remove {copy} and"
    ):
        open_dataset(copy)
    (copy / "dataset_info.json").write_text("{")
    with pytest.raises(InputError, match=f"{copy}: damaged .*; remove it and") as error:
        open_dataset(copy)
    assert "\n" not in str(error.value)


def test_labels_without_write_access(prepared, tmp_path, monkeypatch):
    def refuse(**_):
        raise PermissionError

    copy = tmp_path / "1.0.0"
    shutil.copytree(prepared, copy)
    for file in copy.glob("labels-*.npz"):
        file.unlink()
    monkeypatch.setattr(tempfile, "mkstemp", refuse)
    assert select(open_dataset(copy)).size("train", "val", "test") == 103
    assert not list(copy.glob("labels-*"))


def test_real_images_come_back_as_their_manifest_lists_them(real_images, tmp_path):
    """2,080 files of many sizes and formats: bytes, names and splits."""
    manifest = real_images / "manifest.csv"
    dataset = open_dataset(prepare("real", tmp_path, manifest=manifest))
    with manifest.open(encoding="utf-8") as stream:
        rows = {row["path"]: row for row in csv.DictReader(stream)}
    assert sum(dataset.split_sizes.values()) == len(rows) == 2080
    for split in dataset.split_sizes:
        for record in dataset.records(split):
            row = rows.pop(record["path"].decode())
            assert row["split"] == split
            assert dataset.source_names[record["source"]] == row["source"]
            assert dataset.semantic_names[record["semantic"]] == row["semantic"]
            assert record["image"] == (real_images / row["path"]).read_bytes()
    assert not rows


@pytest.mark.parametrize("name", ["unknown", "Inconclusive "])
def test_source_called_as_an_answer_is_not_trained_on(memory_dataset, name):
    rows = [
        {
            "image": b"",
            "source": source,
            "semantic": "cat",
            "path": source,
            "split": "train",
        }
        for source in ("real", name)
    ]
    selection = select(memory_dataset(rows))
    with pytest.raises(InputError, match=f"source '{name}': rename it"):
        train_batches(selection, batch_size=2, members=1, size=8)


def test_workers_need_no_shared_memory(whole, monkeypatch, caplog):
    usage = shutil.disk_usage("/")
    kinds = []
    for free in (2**40, 2**19):
        usage = usage._replace(free=free)
        monkeypatch.setattr(shutil, "disk_usage", lambda path, usage=usage: usage)
        batches = take(5, whole, batch_size=32, num_workers=2)
        assert_same(batches, take(5, whole, batch_size=32))
        kinds.append(type(batches[0]["image"]))
    assert kinds == [SharedMemoryArray, np.ndarray]
    assert "/dev/shm" in caplog.text and "data.workers=0" in caplog.text
    usage = usage._replace(free=2**12)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(InputError, match="/dev/shm .*data.workers=0"):
        take(1, whole, num_workers=2)


@pytest.mark.parametrize(("total", "groups"), [(100, 32), (5, 16), (1, 3)])
def test_the_order_is_that_of_grain(total, groups):
    order = _Order(total, groups, seed=123)
    passes = grain.MapDataset.range(total).shuffle(seed=123).repeat()
    expected = passes.batch(groups, batch_fn=np.asarray)
    for step in (0, 1, 2, 40):
        np.testing.assert_array_equal(order(step), expected[step])
