"""The image_folder builder: what it writes, and what it refuses."""

import errno
import logging
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from rmjax.data.dataset import find_dataset, open_dataset, select
from rmjax.data.pipeline import eval_batches
from rmjax.datasets.image_folder import Builder, Config, prepare
from rmjax.errors import InputError
from rmjax.prepare import left_out
from rmjax.prepare.records import SplitWriter


def make_tree(root: Path, per_cell: int = 10) -> Path:
    """Write `real`, `agan` and `bgan`, each with two semantics, in several formats."""
    rng = np.random.default_rng(0)
    formats = {"png": "RGB", "jpg": "RGB", "gif": "P", "webp": "RGBA", "bmp": "L"}
    for source in ("agan", "bgan", "real"):
        for semantic in ("cat", "dog"):
            folder = root / source / semantic
            folder.mkdir(parents=True)
            for i in range(per_cell):
                suffix, mode = list(formats.items())[i % len(formats)]
                pixels = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8))
                pixels.convert(mode).save(folder / f"{i}.{suffix}")
    return root


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    return make_tree(tmp_path_factory.mktemp("tree"))


def left_behind(data_dir: Path) -> list[Path]:
    return [path for path in data_dir.rglob("*") if path.is_file()]


def copy_with(tmp_path: Path, per_cell: int, damage: list[str]) -> Path:
    root = make_tree(tmp_path / "damaged", per_cell)
    for path in damage:
        file = root / path
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    return root


def test_tree_is_written_and_read_back_byte_for_byte(tree, tmp_path):
    directory = prepare("mine", tmp_path, tree=tree)
    assert directory == find_dataset(tmp_path, "image_folder/mine")
    dataset = open_dataset(directory)
    assert dataset.source_names == ("real", "agan", "bgan")
    assert dataset.semantic_names == ("cat", "dog")
    assert dataset.split_sizes == {"train": 48, "val": 6, "test": 6}
    groups, paths = {}, set()
    for split in dataset.split_sizes:
        for record in dataset.records(split):
            path = record["path"].decode()
            source, semantic, name = path.split("/")
            assert record["image"] == (tree / path).read_bytes()
            assert dataset.source_names[record["source"]] == source
            assert dataset.semantic_names[record["semantic"]] == semantic
            assert record["group"].decode() == f"{semantic}/{name.split('.')[0]}"
            assert groups.setdefault(record["group"], split) == split
            paths.add(path)
    assert paths == {file.relative_to(tree).as_posix() for file in left_behind(tree)}
    batches = eval_batches(select(dataset), ["test"], batch_size=4, size=12)
    assert sum(batch["mask"].sum() for batch in batches) == 6
    assert "tensorflow" not in sys.modules


def test_same_images_give_the_same_bytes(tree, tmp_path):
    first, second = (prepare("mine", tmp_path / name, tree=tree) for name in "ab")
    for file in first.glob("*array_record*"):
        assert file.read_bytes() == (second / file.name).read_bytes()


def test_prepared_again_is_the_same_and_other_images_are_refused(tree, tmp_path):
    directory = prepare("mine", tmp_path, tree=tree)
    before = {file: file.stat().st_mtime_ns for file in left_behind(directory)}
    assert prepare("mine", tmp_path, tree=tree) == directory
    assert {file: file.stat().st_mtime_ns for file in left_behind(directory)} == before
    with pytest.raises(InputError, match="1.0.0 was prepared from other images"):
        prepare("mine", tmp_path, tree=tree, seed=1)
    assert prepare("other", tmp_path, tree=tree, seed=1) != directory


def test_manifest_gives_names_and_splits(tree, tmp_path):
    lines = ["path,label,dlabel,split"]
    for i, name in enumerate(["0.png", "1.jpg", "2.gif"]):
        for label, source in enumerate(("bgan", "real")):
            lines.append(
                f"{source}/cat/{name},{label},0,{['train', 'val', 'train'][i]}"
            )
    manifest = tmp_path / "m.csv"
    manifest.write_text("\n".join(lines))
    dataset = open_dataset(
        prepare("m", tmp_path / "data", manifest=manifest, root=tree)
    )
    assert dataset.source_names == ("real", "bgan")
    assert dataset.split_sizes == {"train": 4, "val": 2}


@pytest.mark.parametrize(
    "damage", [["agan/cat/3.webp"], ["real/dog/0.png", "agan/cat/1.jpg"]]
)
def test_few_damaged_images_are_left_out_and_listed(tmp_path, damage, caplog):
    root = copy_with(tmp_path, 34, damage)
    with caplog.at_level(logging.WARNING):
        directory = prepare("mine", tmp_path / "data", tree=root)
    dataset = open_dataset(directory)
    assert sum(dataset.split_sizes.values()) == 6 * 34 - len(damage)
    lines = (directory / "left_out.txt").read_text().splitlines()
    assert [line.split("\t")[0] for line in lines] == sorted(damage)
    assert all(line.split("\t")[1] for line in lines)
    assert f"left out {len(damage)} of 204 images" in caplog.text
    assert prepare("mine", tmp_path / "data", tree=root) == directory


def test_name_that_is_not_utf8_is_left_out_and_listed(tmp_path):
    root = make_tree(tmp_path / "odd", 34)
    os.rename(root / "agan/cat/0.png", os.fsencode(root / "agan/cat") + b"/\xff.png")
    directory = prepare("mine", tmp_path / "data", tree=root)
    assert (directory / "left_out.txt").read_text().split("\t") == [
        r"agan/cat/\udcff.png",
        "the name is not UTF-8\n",
    ]
    os.rename(root / "agan", os.fsencode(root) + b"/\xff")
    with pytest.raises(InputError, match=r"odd: source '.udcff': rename it"):
        prepare("other", tmp_path / "data", tree=root)


def test_pipe_and_giant_are_left_out(tmp_path):
    root = make_tree(tmp_path / "odd", 60)
    os.mkfifo(root / "agan/cat/pipe.png")
    with open(root / "agan/cat/giant.png", "wb") as stream:
        stream.truncate(2**29 + 1)
    directory = prepare("mine", tmp_path / "data", tree=root)
    assert (directory / "left_out.txt").read_text().splitlines() == [
        "agan/cat/giant.png\t536,870,913 bytes; at most 536,870,912 are read",
        "agan/cat/pipe.png\tnot a regular file",
    ]


def test_split_without_a_readable_image_is_refused(tree, tmp_path, monkeypatch):
    lines = ["path,label,dlabel,split", "real/cat/none.png,0,0,val"]
    for label, source in enumerate(("real", "agan", "bgan")):
        lines.append(f"{source}/cat/0.png,{label},0,train")
    (tmp_path / "m.csv").write_text("\n".join(lines))
    monkeypatch.setattr(left_out, "MAX_BAD", 0.5)
    with pytest.raises(InputError, match="no readable image in split val"):
        prepare("m", tmp_path / "data", manifest=tmp_path / "m.csv", root=tree)
    assert not left_behind(tmp_path / "data")


@pytest.mark.parametrize("name", ["unknown", "Inconclusive", "UNKNOWN ", "REAL"])
def test_source_called_as_an_answer_is_refused(tmp_path, name):
    root = make_tree(tmp_path / "tree")
    (root / "agan").rename(root / name)
    with pytest.raises(InputError, match=f"source '{name}': rename it"):
        prepare("mine", tmp_path / "data", tree=root)
    assert not left_behind(tmp_path / "data")


def test_images_without_a_suffix_are_prepared(tmp_path):
    root = make_tree(tmp_path / "tree")
    for i, file in enumerate(sorted((root / "agan").rglob("*.*"))):
        file.rename(file.with_suffix("" if i % 2 else ".picture"))
    dataset = open_dataset(prepare("mine", tmp_path / "data", tree=root))
    assert dataset.source_names == ("real", "agan", "bgan")
    assert sum(dataset.split_sizes.values()) == 60


def test_real_and_fake_folders_are_prepared(tmp_path):
    for number, place in enumerate(["agan/0_real", "agan/1_fake", "bgan/cat/1_fake"]):
        (tmp_path / "tree" / place).mkdir(parents=True)
        for i in range(10):
            image = Image.new("RGB", (8, 8), (number, i, 0))
            image.save(tmp_path / "tree" / place / f"{i}.png")
    dataset = open_dataset(prepare("mine", tmp_path / "data", tree=tmp_path / "tree"))
    assert dataset.source_names == ("real", "agan", "bgan")
    assert dataset.split_sizes == {"train": 24, "val": 3, "test": 3}


def test_many_damaged_images_stop_the_preparation(tmp_path):
    root = copy_with(tmp_path, 10, ["agan/cat/0.png"])  # 1 of 60
    with pytest.raises(
        InputError, match="1 of 60 .* more than 1%.*agan/cat/0.png: "
    ) as error:
        prepare("mine", tmp_path / "data", tree=root)
    assert "\n" not in str(error.value)
    assert not left_behind(tmp_path / "data")


def test_missing_file_of_a_manifest_counts_as_damaged(tree, tmp_path):
    manifest = tmp_path / "m.csv"
    manifest.write_text(
        "path,label,dlabel\nreal/cat/0.png,0,0\nreal/cat/absent.png,0,0\n"
    )
    with pytest.raises(InputError, match="1 of 2 .*absent.png: No such file"):
        prepare("m", tmp_path / "data", manifest=manifest, root=tree)


def test_source_without_training_images_is_refused(tree, tmp_path):
    manifest = tmp_path / "m.csv"
    manifest.write_text(
        "path,label,dlabel,split\nreal/cat/0.png,0,0,train\nagan/cat/0.png,1,0,test\n"
    )
    with pytest.raises(InputError, match="source 'agan' in the training split"):
        prepare("m", tmp_path / "data", manifest=manifest, root=tree)
    assert not left_behind(tmp_path / "data")


def test_failure_while_writing_leaves_nothing(tree, tmp_path, monkeypatch):
    def fail(self, *record):
        write(self, *record)
        if self.length == 3:
            raise OSError(errno.ENOSPC, "No space left on device")

    write = SplitWriter.write
    monkeypatch.setattr(SplitWriter, "write", fail)
    with pytest.raises(InputError, match="the disk is full"):
        prepare("mine", tmp_path, tree=tree)
    assert not left_behind(tmp_path)


@pytest.mark.parametrize("name", ["", "a/b", "..", "-x", "a b", "é"])
def test_wrong_name_is_refused(tree, tmp_path, name):
    with pytest.raises(InputError, match="data set name"):
        prepare(name, tmp_path, tree=tree)


def test_tree_and_manifest_exclude_each_other(tree, tmp_path):
    for options in ({}, {"tree": tree, "manifest": "m.csv"}):
        with pytest.raises(InputError, match="tree.* or .*manifest"):
            prepare("mine", tmp_path, **options)


def test_metadata_is_what_tfds_expects(tree, tmp_path):
    builder = Builder(
        config=Config(name="mine", tree=tree),
        data_dir=tmp_path,
        file_format="array_record",
    )
    assert builder.name == "image_folder"
    metadata = builder.get_metadata()
    assert metadata.description.strip() and metadata.citation.strip()
    assert set(metadata.tags) <= set(tfds.core.dataset_metadata.valid_tags())
