"""The annotation_list builder: lists of path and label, known and unknown sources."""

from pathlib import Path

import pytest
from PIL import Image

from rmjax.data.dataset import check_every_source, open_dataset, select
from rmjax.datasets.annotation_list import Builder, prepare
from rmjax.errors import InputError

KNOWN = {"real/summer": 0, "real/faces": 0, "fake/agan/bus": 1, "fake/bgan/cat/deep": 2}
UNKNOWN = {"fake/agan/tower": 0, "fake/cgan/seed 1": 1}


@pytest.fixture
def lists(tmp_path) -> dict[str, Path]:
    """Lists as OSMA has them: paths start above the lists' folder."""
    folder = tmp_path / "dataset" / "annotations"
    folder.mkdir(parents=True)
    files = {}
    for split in ("train", "val", "test", "seed"):
        lines = []
        for place, label in (UNKNOWN if split == "seed" else KNOWN).items():
            for i in range(3):
                path = f"./dataset/{place}/{split} {i}.png"
                (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
                colour = f"#{len(lines):02x}{len(split):02x}{label:02x}"
                Image.new("RGB", (8, 8), colour).save(tmp_path / path)
                lines.append(path + ("\t" if split != "val" else " ") + str(label))
        files[split] = folder / f"{split}.txt"
        files[split].write_text("\n".join(lines) + "\n")
    return files


def known(lists: dict[str, Path]) -> dict[str, Path]:
    return {split: lists[split] for split in ("train", "val", "test")}


def test_lists_are_prepared(lists, tmp_path):
    unknown = {"seed": lists["seed"]}
    directory = prepare("osma", tmp_path / "data", lists=known(lists), unknown=unknown)
    dataset = open_dataset(directory)
    assert dataset.source_names == (
        *("real", "fake/agan/bus", "fake/bgan/cat/deep"),
        *("fake/agan/tower", "fake/cgan/seed 1"),
    )
    assert dataset.unknown_sources == ("fake/agan/tower", "fake/cgan/seed 1")
    assert dataset.semantic_names == ("unspecified",)
    assert dataset.split_sizes == {
        "train": 12,
        "val": 12,
        "test": 12,
        "unknown_seed": 6,
    }
    for split, label_of in (("test", KNOWN), ("unknown_seed", UNKNOWN)):
        for record in dataset.records(split):
            path = record["path"].decode()
            place = str(Path(path).parent).removeprefix("dataset/")
            expected = label_of[place] + (3 if split != "test" else 0)
            assert record["source"] == expected
            assert record["image"] == (tmp_path / path).read_bytes()


def test_unknown_sources_are_not_trained_on_unless_named(lists, tmp_path):
    unknown = {"seed": lists["seed"]}
    directory = prepare("osma", tmp_path / "data", lists=known(lists), unknown=unknown)
    selection = select(open_dataset(directory))
    assert selection.source_names == ("real", "fake/agan/bus", "fake/bgan/cat/deep")
    check_every_source(selection, "train")
    assert selection.size("unknown_seed") == 0
    everything = select(selection.dataset, selection.dataset.source_names)
    assert everything.size("unknown_seed") == 6


def test_names_may_be_given(lists, tmp_path):
    directory = prepare(
        "osma",
        tmp_path / "data",
        lists={"train": lists["train"]},
        root=tmp_path,
        names=("real", "first", "second"),
    )
    assert open_dataset(directory).source_names == ("real", "first", "second")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "train.txt: an empty list"),
        (
            "a.png\n",
            "train.txt, line 1: 'a.png' is not a path, a tab or a space, and a lab",
        ),
        ("a.png\t-1\n", "train.txt, line 1: .* is not a path"),
        ("gone/a.png\t0\n", "gone/a.png is in no folder from .* upward; give the root"),
        (
            "./dataset/real/summer/train 0.png 0\n./dataset/real/summer/train 1.png 1\n"
            "./dataset/fake/agan/bus/train 0.png 2\n",
            "two labels are called",
        ),
        (
            "./dataset/real/summer/train 0.png 0\n./dataset/real/summer/train 0.png 0\n"
            "./dataset/fake/agan/bus/train 0.png 1\n",
            "train.txt, line 2: path .* already given",
        ),
        (
            "./dataset/real/summer/train 0.png 0\n/dataset/a.png 1\n",
            "train.txt: absolute and relative paths are mixed",
        ),
        (
            "./dataset/real/summer/train 0.png 0\n./dataset/fake/agan/a\0b.png 1\n",
            "train.txt, line 2: path .* holds a NUL",
        ),
        (
            "./dataset/real/summer/train 0.png 0\n./dataset/real/summer/train 1.png 0\n",
            "train.txt: images of a label lie in the folder of all others",
        ),
        (
            "./dataset/real/summer/train 0.png 1\n./dataset/fake/agan/bus/train 0.png 2\n",
            "train.txt: no image has label 0",
        ),
        (
            "./dataset/real/summer/train 0.png 0\n../out/a.png 1\n",
            "train.txt, line 2: path .* is outside the root",
        ),
    ],
)
def test_bad_list_is_refused_with_its_place(lists, tmp_path, text, message):
    lists["train"].write_text(text)
    with pytest.raises(InputError, match=message) as error:
        prepare("osma", tmp_path / "data", lists={"train": lists["train"]})
    assert "\n" not in str(error.value)


def test_byte_order_mark_does_no_harm(lists, tmp_path):
    text = lists["train"].read_text()
    lists["train"].write_text(text, encoding="utf-8-sig")
    directory = prepare("osma", tmp_path / "data", lists={"train": lists["train"]})
    assert open_dataset(directory).split_sizes == {"train": 12}


def test_known_source_cannot_be_unknown(lists, tmp_path):
    lists["seed"].write_text("./dataset/fake/agan/bus/train 0.png 0\n")
    with pytest.raises(InputError, match="'fake/agan/bus' is a known source as well"):
        prepare(
            "osma",
            tmp_path,
            lists={"train": lists["train"]},
            unknown={"a": lists["seed"]},
        )
    lists["seed"].write_text(
        "./dataset/fake/cgan/seed 1/seed 0.png 0\n./dataset/fake/cgan/seed 1/seed 1.png 1\n"
    )
    with pytest.raises(InputError, match="seed.txt: two labels are called"):
        prepare(
            "osma",
            tmp_path,
            lists={"train": lists["train"]},
            unknown={"a": lists["seed"]},
        )


def test_other_bad_input_is_refused(lists, tmp_path):
    with pytest.raises(InputError, match="absent.txt: cannot read this list"):
        prepare("osma", tmp_path / "data", lists={"train": tmp_path / "absent.txt"})
    with pytest.raises(InputError, match="split 'dev'.* train, val, test"):
        prepare("osma", tmp_path / "data", lists={"dev": lists["train"]})
    with pytest.raises(InputError, match="label 2 has no name"):
        prepare("osma", tmp_path / "data", lists=known(lists), names=("real", "agan"))


def test_metadata_is_what_tfds_expects():
    metadata = Builder.get_metadata()
    assert metadata.description.strip() and metadata.citation.strip()
