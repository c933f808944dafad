"""The image_attribution_bench builder: which images it reads, and its splits."""

import hashlib
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from rmjax.data.dataset import open_dataset
from rmjax.datasets.image_attribution_bench import (
    Builder,
    image_attribution_bench_dataset_builder,
    prepare,
)
from rmjax.datasets.image_attribution_bench.image_attribution_bench_dataset_builder import (
    split_as_published,
)
from rmjax.errors import InputError
from rmjax.prepare.manifest import read_tree

SOURCES = ("4o", "FLUX", "SDXL", "gemini", "mid-6.0", "real")
FOLDERS = (
    "AnimalFace/cat",
    "AnimalFace/dog",
    "COCO",
    "HumanFace/FFHQ",
    "Scene/bedroom",
)


def make_tree(root: Path, prompts: tuple[int, ...], images: int) -> Path:
    for source in SOURCES:
        for folder in FOLDERS:
            (root / source / folder).mkdir(parents=True)
            for prompt in prompts:
                for image in range(images):
                    suffix = "jpg" if source == "real" else "png"
                    name = f"x_p{prompt}_i{image}.{suffix}"
                    (root / source / folder / name).touch()
    return root


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("tree")
    return make_tree(root, (0, 1, 2, 3, 10, 11, 999, 1000), 5)


# SHA-256 of the splits that the benchmark's own loader makes of this tree. Of the
# splits by semantics it drops one more training image, to have an even number.
@pytest.mark.parametrize(
    ("per_cell", "semantics", "sizes", "digest"),
    [
        (2000, (), (496, 62, 62), "7db51102057dd386"),
        (7, (), (168, 18, 24), "9a24979a9e43d628"),
        (2000, ("cat",), (109, 15, 496), "73e6fba705439a93"),
        (2000, ("FFHQ",), (109, 15, 496), "5ef4f3f78c9624c1"),
    ],
)
def test_splits_are_the_published(
    tree, per_cell, semantics, sizes, digest, monkeypatch
):
    monkeypatch.setattr(
        image_attribution_bench_dataset_builder, "IMAGES_PER_CELL", per_cell
    )
    rows = list(split_as_published(read_tree(tree, levels=1).rows, semantics))
    splits = ("train", "val", "test")
    counts = Counter(row.split for row in rows)
    assert tuple(counts[split] for split in splits) == sizes
    lines = [f"{s} {p}" for s in splits for p in sorted(_paths(rows, s))]
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16] == digest
    if semantics:
        assert {row.semantic for row in rows if row.split != "test"} == set(semantics)


def _paths(rows, split: str) -> list[str]:
    return [row.path for row in rows if row.split == split]


def test_images_are_those_of_the_first_prompts(tree):
    rows = split_as_published(read_tree(tree, levels=1).rows)
    counts = Counter(row.source for row in rows)
    # 7 prompts, not the one above 999; 2 images of each, 4 of Midjourney's; all real.
    assert counts == {"mid-6.0": 140, "real": 200} | {s: 70 for s in SOURCES[:4]}


def test_tree_is_prepared(tmp_path):
    root = make_tree(tmp_path / "tree", (0, 1, 2, 3, 4), 2)
    for i, file in enumerate(sorted(root.rglob("*.*g"))):
        Image.new("RGB", (8, 8), f"#{i:06x}").save(file)
    dataset = open_dataset(prepare(root, tmp_path))
    assert dataset.source_names == ("real", *SOURCES[:-1])
    assert dataset.semantic_names == ("COCO", "FFHQ", "bedroom", "cat", "dog")
    assert dataset.split_sizes == {"train": 240, "val": 30, "test": 30}
    dataset = open_dataset(prepare(root, tmp_path, train_semantics=("cat",)))
    assert dataset.directory.parent.name == "cat"
    assert dataset.split_sizes == {"train": 54, "val": 6, "test": 240}


def test_bad_input_is_refused(tree, tmp_path):
    with pytest.raises(
        InputError, match="absent: no such folder; give one with <source>"
    ):
        prepare(tmp_path / "absent", tmp_path)
    with pytest.raises(InputError, match="semantic 'cow'.* COCO"):
        prepare(tree, tmp_path, train_semantics=("cow",))
    (tmp_path / "deep/real/a/b/c").mkdir(parents=True)
    (tmp_path / "deep/real/a/b/c/1.png").touch()
    with pytest.raises(InputError, match=r"expected .*<source>/\[<group>/\]<semantic>"):
        prepare(tmp_path / "deep", tmp_path)


def test_metadata_is_what_tfds_expects():
    metadata = Builder.get_metadata()
    assert metadata.description.strip() and metadata.citation.strip()
