"""What all data sets of image files have in common: kill, lock, full disk, Beam."""

import fcntl
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rmjax.data.dataset import find_dataset, open_dataset
from rmjax.datasets.attribution88 import Config, prepare
from rmjax.datasets.attribution88.make_archive import make_archive
from rmjax.datasets.image_folder import prepare as prepare_folder
from rmjax.errors import InputError
from rmjax.utils.processes import in_blocks, ordered_map

CONFIG = Config(name="a")


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("archive") / "Attribution88.tar.gz"
    make_archive(file, 30, size=16, show_progress=False)
    return file


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("tree")
    rng = np.random.default_rng(0)
    for source in ("real", "agan"):
        (root / source / "cat").mkdir(parents=True)
        for i in range(110):
            pixels = rng.integers(0, 256, (8, 8, 3), np.uint8)
            Image.fromarray(pixels).save(root / source / "cat" / f"{i}.png")
    return root


def by_path(directory: Path) -> dict[bytes, tuple]:
    dataset = open_dataset(directory)
    return {
        record["path"]: (split, record["image"], record["source"], record["group"])
        for split in dataset.split_sizes
        for record in dataset.records(split)
    }


def files_of(directory: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in directory.iterdir()}


def test_killed_preparation_starts_anew_and_leaves_nothing_behind(archive, tmp_path):
    command = (
        "from rmjax.datasets.attribution88 import *\n"
        f"prepare(Config(name='a'), {str(tmp_path)!r}, path={str(archive)!r}, processes=1)"
    )
    process = subprocess.Popen([sys.executable, "-c", command], stderr=subprocess.PIPE)
    folder = tmp_path / "attribution88" / "a"
    while process.poll() is None:
        if any(folder.glob("1.0.0/.*")):  # a shard that is being written
            process.send_signal(signal.SIGKILL)
            process.wait()
        time.sleep(0.001)
    assert process.returncode == -signal.SIGKILL, process.stderr.read()
    with pytest.raises(InputError, match="no prepared data set 'attribution88/a'"):
        find_dataset(tmp_path, "attribution88/a")
    directory = prepare(CONFIG, tmp_path, path=archive)
    assert [file.name for file in folder.iterdir()] == ["1.0.0"]
    assert files_of(directory) == files_of(
        prepare(CONFIG, tmp_path / "other", path=archive)
    )


def test_two_preparations_of_the_same_do_not_meet(archive, tmp_path):
    folder = tmp_path / "attribution88" / "a"
    folder.mkdir(parents=True)
    with open(folder / ".1.0.0.lock", "w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another process is preparing this"):
            prepare(CONFIG, tmp_path, path=archive)


def test_disk_without_room_is_told_before_anything_is_written(
    archive, tmp_path, monkeypatch
):
    usage = namedtuple("usage", "total used free")(100, 0, 100)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(InputError, match="the data set takes .* GiB, the disk has"):
        prepare(CONFIG, tmp_path, path=archive)


def test_room_for_a_subset_is_that_of_its_images(archive, tmp_path, monkeypatch):
    free = archive.stat().st_size // 2
    usage = namedtuple("usage", "total used free")(free, 0, free)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(InputError, match="the disk has"):
        prepare(CONFIG, tmp_path, path=archive)
    prepare(Config(name="b", sources=("real", "gan1")), tmp_path, path=archive)


def test_folder_that_is_none_is_one_line(archive, tmp_path):
    (tmp_path / "data").write_text("a file")
    with pytest.raises(InputError, match="data/attribution88.*: Not a directory"):
        prepare(CONFIG, tmp_path / "data", path=archive)


def test_large_splits_get_several_shards(archive, tmp_path, monkeypatch):
    monkeypatch.setattr("rmjax.prepare.write.SHARD_BYTES", 100_000)
    directory = prepare(CONFIG, tmp_path, path=archive)
    assert len(list(directory.glob("*-train.array_record-*"))) > 2
    dataset = open_dataset(directory)
    assert dataset.split_sizes == {"train": 2112, "val": 264, "test": 264}
    for split in dataset.split_sizes:
        records, labels = dataset.records(split), dataset.labels(split)
        stored = [(record["source"], record["semantic"]) for record in records]
        assert stored == list(zip(labels["source"], labels["semantic"], strict=True))


def test_map_keeps_the_order_in_any_number_of_processes():
    for processes in (1, 2):
        with ordered_map(abs, processes) as mapped:
            assert list(mapped(range(-20, 0))) == [(i, -i) for i in range(-20, 0)]
    assert list(in_blocks("abcde", 2)) == [["a", "b"], ["c", "d"], ["e"]]


@pytest.fixture(scope="module")
def beam_options():
    module = pytest.importorskip("apache_beam.options.pipeline_options")
    return module.PipelineOptions(["--runner=DirectRunner"])


def test_beam_writes_the_same_images(tree, tmp_path, beam_options):
    root = tmp_path / "damaged"
    shutil.copytree(tree, root)
    (root / "agan/cat/7.png").write_bytes(b"")
    local = prepare_folder("mine", tmp_path / "local", tree=root)
    beam = prepare_folder(
        "mine", tmp_path / "beam", tree=root, beam_options=beam_options
    )
    assert by_path(beam) == by_path(local) and len(by_path(beam)) == 219
    assert (beam / "left_out.txt").read_text() == (local / "left_out.txt").read_text()
    dataset = open_dataset(beam)
    assert dataset.source_names == ("real", "agan")
    assert sorted(files_of(beam)) == sorted(files_of(local))


def test_beam_refuses_what_is_refused_without_it(tree, tmp_path, beam_options):
    root = tmp_path / "damaged"
    shutil.copytree(tree, root)
    for i in range(3):
        (root / f"agan/cat/{i}.png").write_bytes(b"")
    with pytest.raises(InputError, match="3 of 220 images cannot be used"):
        prepare_folder("mine", tmp_path, tree=root, beam_options=beam_options)
    assert not list(tmp_path.glob("image_folder/mine/*"))
