"""A data set's datasheet: counts, files, duplicates, problems."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from rmjax.data.datasheet import datasheet, find_duplicates, write_datasheet
from rmjax.data.facts import collect_facts
from rmjax.errors import InputError


def picture(seed: int, size=(12, 10), fmt: str = "PNG", **options) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, fmt, **options)
    return stream.getvalue()


def row(path: str, image: bytes) -> dict:
    """A row of a path `split/source/semantic/name`."""
    split, source, semantic, _ = path.split("/")
    names = {"split": split, "source": source, "semantic": semantic}
    return {"path": path, "image": image, **names}


ROWS = [
    row("train/real/cat/0", picture(0)),
    row("train/real/cat/1", picture(1)),
    row("train/real/cat/2", picture(0)),  # as 0
    row("train/real/dog/0", picture(2, (9, 9))),
    row("train/gan/cat/0", picture(3, fmt="JPEG", quality=75)),
    row("train/gan/cat/1", picture(4, fmt="JPEG", quality=90)),
    row("train/gan/cat/2", picture(5)[:200]),  # cut
    row("test/real/cat/0", picture(1)),  # as train/real/cat/1
    row("test/gan/cat/0", picture(2, (9, 9))),  # as train/real/dog/0
    row("test/gan/cat/1", picture(6, fmt="JPEG", quality=75)),
]


@pytest.fixture
def sheet(memory_dataset):
    dataset = memory_dataset(ROWS)
    facts = collect_facts(dataset)
    return datasheet(dataset, facts, expected_per_cell=4, missing=["real/dog/7"])


def paths(kind: dict) -> list[list[str]]:
    return [[image["path"] for image in group["images"]] for group in kind["first"]]


def test_counts_of_every_cell_and_split(sheet):
    assert sheet["images"] == 10 and sheet["splits"] == {"train": 7, "test": 3}
    assert sheet["counts"] == {
        "real": {"cat": {"train": 3, "test": 1}, "dog": {"train": 1, "test": 0}},
        "gan": {"cat": {"train": 3, "test": 2}, "dog": {"train": 0, "test": 0}},
    }
    uneven = [tuple(cell.values()) for cell in sheet["uneven_cells"]]
    assert uneven == [("real", "dog", 1), ("gan", "cat", 5), ("gan", "dog", 0)]


def test_files_of_each_source(sheet):
    assert sheet["sizes"]["frequent"] == {"12x10": 7, "9x9": 2}
    assert sheet["sizes"]["width"]["least"] == 9
    assert sheet["formats"] == {"real": {"PNG": 5}, "gan": {"JPEG": 3, "PNG": 1}}
    assert set(sheet["jpeg"]) == {"gan"}
    assert sheet["jpeg"]["gan"]["frequent"] == {"75": 2, "90": 1}
    assert sheet["jpeg"]["gan"]["standard_tables"] == 3
    assert sheet["bytes"]["sum"] == sum(len(r["image"]) for r in ROWS) - 200


def test_duplicates_within_and_across_splits_and_sources(sheet):
    found = sheet["duplicates"]
    assert (found["groups"], found["repeats"]) == (3, 3)
    assert paths(found["within_split"]) == [["train/real/cat/0", "train/real/cat/2"]]
    assert paths(found["across_splits"]) == [
        ["train/real/cat/1", "test/real/cat/0"],
        ["train/real/dog/0", "test/gan/cat/0"],
    ]
    assert paths(found["across_sources"]) == [["train/real/dog/0", "test/gan/cat/0"]]


def test_all_duplicates_are_counted_and_twenty_listed(memory_dataset):
    rows = [
        row(f"{split}/real/cat/{i}", picture(i))
        for split in ("train", "test")
        for i in range(30)
    ]
    dataset = memory_dataset(rows)
    facts = collect_facts(dataset)
    assert [g.tolist() for g in find_duplicates(facts)] == [
        [i, 30 + i] for i in range(30)
    ]
    found = datasheet(dataset, facts)["duplicates"]["across_splits"]
    assert found["groups"] == 30 and len(found["first"]) == 20


def test_unreadable_images_come_with_the_reason(sheet):
    assert list(sheet["unreadable"]) == ["train/gan/cat/2"]
    assert "truncated" in sheet["unreadable"]["train/gan/cat/2"]


def test_both_files_are_written(sheet, tmp_path):
    figures, text = write_datasheet(sheet, tmp_path)
    assert json.loads(figures.read_text()) == sheet
    lines = text.read_text().splitlines()
    assert "| real | 3 / 1 | 1 / 0 |" in lines and "- gan, dog: 0" in lines
    assert "- across splits: 2" in lines
    assert "  - `train/real/cat/1` (train) = `test/real/cat/0` (test)" in lines
    assert "- `real/dog/7`" in lines and "## Missing images: 1" in lines
    assert "| gan | JPEG (3), PNG (1) | RGB (4) | 75 (2), 90 (1) |" in text.read_text()
    assert {p.name for p in tmp_path.iterdir()} == {"datasheet.json", "datasheet.md"}


def test_a_folder_that_is_none_is_one_line(sheet, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="can't write to .*file"):
        write_datasheet(sheet, tmp_path / "file")
