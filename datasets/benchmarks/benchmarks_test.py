"""The benchmarks builder: what each published form says, and equalised files."""

import io
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from sklearn.model_selection import StratifiedKFold

from rmjax.audit.audit import CUES, audit_cue
from rmjax.data.dataset import find_dataset, open_dataset
from rmjax.data.facts import Facts, collect_facts
from rmjax.data.parts import Entry
from rmjax.datasets.benchmarks import Builder, Config, prepare
from rmjax.datasets.benchmarks.make_tree import write_tree
from rmjax.errors import InputError
from rmjax.prepare.benchmarks import BENCHMARKS

# Of each benchmark paths as published: source, semantic, split ("" is made by a hash).
PUBLISHED = {
    "genimage": {
        "Midjourney/imagenet_midjourney/train/ai/208_midjourney_7.png": "Midjourney - -",
        "Midjourney/imagenet_midjourney/train/nature/n01440764_10026.JPEG": "real - -",
        "Midjourney/imagenet_midjourney/val/ai/0_midjourney_169.png": "Midjourney - test",
        "Midjourney/imagenet_midjourney/val/nature/ILSVRC2012_val_00000001.JPEG": (
            "real - test"
        ),
        "imagenet_ai_0508_adm/train/ai/0_adm_175.PNG": "ADM - -",
        "wukong/val/ai/0_wukong_image0.png": "wukong - test",
    },
    "forensynths": {
        "train/airplane/0_real/00001.png": "real airplane train",
        "train/airplane/1_fake/00001.png": "progan airplane train",
        "val/cat/1_fake/00002.png": "progan cat val",
        "test/progan/airplane/1_fake/00003.png": "progan airplane test",
        "test/stylegan2/horse/1_fake/seed1.png": "stylegan2 horse test",
        "test/biggan/0_real/1.png": "real - test",
        "test/biggan/1_fake/1.png": "biggan - test",
    },
    "synthbuster": {
        "dalle2/r000da54ft.png": "dalle2 - test",
        "stable-diffusion-xl/r000da54ft.png": "stable-diffusion-xl - test",
        "real_RAISE_1k/r000da54ft.png": "real - test",
    },
    "omnifake": {
        "train/real/1.jpg": "real - -",
        "train/FLUX_Dev/1.jpg": "FLUX_Dev - -",
        "val/FLUX_Dev/2.jpg": "FLUX_Dev - test",
        "val/real/2.jpg": "real - test",
        "val/ADM/2.jpg": "ADM - test",
    },
}
UNKNOWN = {
    "genimage": ("wukong",),
    "forensynths": ("biggan", "stylegan2"),
    "synthbuster": (),
    "omnifake": ("ADM",),
}


def encoded(number: int) -> bytes:
    """A PNG file unlike those of other numbers."""
    file = io.BytesIO()
    Image.new("RGB", (20, 20), (number, 0, 0)).save(file, "PNG")
    return file.getvalue()


def write(root: Path, *paths: str) -> None:
    for number, path in enumerate(paths):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(encoded(number))


def labels(entry: Entry) -> str:
    semantic = "-" if entry.semantic == "unspecified" else entry.semantic
    return f"{entry.source} {semantic} {entry.split or '-'}"


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_paths_say_source_semantic_and_split(tmp_path, name):
    tree = tmp_path / "tree"
    write(tree, *PUBLISHED[name])
    (tree / "prompts.csv").write_text("a toad")
    manifest = BENCHMARKS[name](tree)
    assert {row.path: labels(row) for row in manifest.rows} == PUBLISHED[name]
    assert manifest.source_names[0] == "real"
    assert manifest.unknown == UNKNOWN[name]
    groups = Counter(row.group for row in manifest.rows)
    # Each generator of Synthbuster was asked for what a photograph of RAISE shows.
    assert max(groups.values()) == (3 if name == "synthbuster" else 1)
    dataset = open_dataset(prepare(name, tree, tmp_path / "data"))
    assert dataset.directory.parts[-3:] == (name, "standard", "1.0.0")
    assert set(dataset.unknown_sources) == set(manifest.unknown)
    assert sum(dataset.split_sizes.values()) == len(manifest.rows)


def test_test_sets_of_forensynths_are_read_alone(tmp_path):
    write(
        tmp_path, "crn/0_real/1.png", "crn/1_fake/1.png", "cyclegan/apple/1_fake/1.png"
    )
    manifest = BENCHMARKS["forensynths"](tmp_path)
    assert manifest.source_names == ("real", "crn", "cyclegan")
    assert {row.split for row in manifest.rows} == {"test"}
    assert manifest.unknown == ()


@pytest.mark.parametrize(
    ("name", "paths", "named"),
    [
        (
            "genimage",
            ["a/train/ai/1.png", "a/test/ai/1.png"],
            "a/test/ai/1.png.*nature",
        ),
        ("genimage", ["train/ai/1.png"], "train/ai/1.png.*<generator>"),
        ("genimage", ["a/train/ai/cat/1.png"], "a/train/ai/cat/1.png"),
        ("genimage", ["a/train/ai/1.png", "b/val/nature/1.png"], "tree/b: "),
        ("genimage", ["a/train/ai/1.png"], "tree: .*real"),
        ("forensynths", ["train/1_fake/1.png"], "train/1_fake/1.png.*0_real"),
        ("forensynths", ["a/b/c/0_real/1.png"], "a/b/c/0_real/1.png"),
        ("forensynths", ["a/cat/1.png"], "a/cat/1.png.*1_fake"),
        ("synthbuster", ["dalle2/x/1.png"], "dalle2/x/1.png.*RAISE"),
        ("synthbuster", ["dalle2/1.png"], "tree: .*real.*dalle2"),
        ("omnifake", ["ADM/1.jpg"], "ADM/1.jpg.*<train or val>"),
        ("omnifake", [], "no images found as <train or val>"),
    ],
)
def test_other_layouts_are_refused_in_a_line(tmp_path, name, paths, named):
    (tmp_path / "tree").mkdir()
    write(tmp_path / "tree", *paths)
    with pytest.raises(InputError, match=named) as error:
        BENCHMARKS[name](tmp_path / "tree")
    assert "\n" not in str(error.value)


def test_place_that_is_none_is_refused(tmp_path):
    with pytest.raises(InputError, match="missing: no such folder.*<archive>"):
        prepare("genimage", tmp_path / "missing", tmp_path)
    with pytest.raises(InputError, match="2 places"):
        prepare("genimage", ["a", "b"], tmp_path)
    with pytest.raises(InputError, match="genimagine.*genimage, forensynths"):
        prepare("genimagine", tmp_path, tmp_path)


def write_community_forensics(file: Path, rows: list[tuple], **columns) -> Path:
    """Write the columns as published; `rows` are of model, split and label."""
    models, splits, of_label = zip(*rows, strict=True)
    table = {
        "image_name": [f"{i:08d}.png" for i in range(len(rows))],
        "format": ["PNG"] * len(rows),
        "resolution": [[512, 512]] * len(rows),
        "mode": ["RGB"] * len(rows),
        "image_data": [encoded(i) for i in range(len(rows))],
        "model_name": models,
        "nsfw_flag": [False] * len(rows),
        "prompt": ["a toad"] * len(rows),
        "real_source": ["LAION"] * len(rows),
        "subset": ["Systematic"] * len(rows),
        "split": splits,
        "label": of_label,
        "architecture": ["LatDiff"] * len(rows),
    }
    pq.write_table(pa.table(table | columns), file)
    return file


def test_community_forensics_reads_the_published_columns(tmp_path):
    small = [("user/model", "train", 1), ("ffhq", "train", 0)]
    # A photograph of the evaluation set bears the name of the generator beside it.
    compared = [("user/model", "test", 1), ("Midjourney", "test", 1)]
    compared += [("Midjourney", "test", 0)]
    files = [
        write_community_forensics(tmp_path / "small.parquet", small),
        write_community_forensics(tmp_path / "CompEval-0.parquet", compared),
    ]
    found = BENCHMARKS["community_forensics"](files)
    images = [image for part in found.parts for image in part.images()]
    assert sorted(labels(entry) for entry, _ in images) == [
        "Midjourney - test",
        "real - -",
        "real - test",
        "user/model - -",
        "user/model - test",
    ]
    assert {data for _, data in images} == {encoded(i) for i in range(3)}
    assert [e for part in found.parts for e in part.entries()] == [e for e, _ in images]
    assert found.unknown == ("Midjourney",)


def test_parquet_files_are_equalised_and_known_again(tmp_path):
    rows = [("model", "train", number % 2) for number in range(40)]
    file = write_community_forensics(tmp_path / "a.parquet", rows)
    first = prepare("community_forensics", file, tmp_path, equalise=True)
    assert prepare("community_forensics", file, tmp_path, equalise=True) == first
    dataset = open_dataset(first)
    assert dataset.source_names == ("real", "model")
    facts = collect_facts(dataset, show_progress=False)
    assert set(facts.format) == {"JPEG"} and set(facts.width) == {16}
    write_community_forensics(file, rows + rows)
    with pytest.raises(InputError, match="other images"):
        prepare("community_forensics", file, tmp_path, equalise=True)


def test_community_forensics_of_another_form_is_refused(tmp_path):
    file = tmp_path / "a.parquet"
    write_community_forensics(file, [("model", "train", 2)])
    with pytest.raises(InputError, match="a.parquet:0: label '2'"):
        BENCHMARKS["community_forensics"](file)
    pq.write_table(pa.table({"image": [b"x"], "model": ["m"]}), file)
    with pytest.raises(InputError, match="image_data.*model") as error:
        BENCHMARKS["community_forensics"](file)
    assert "\n" not in str(error.value)


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("genimage")
    write_tree(root, 15)
    return root


@pytest.fixture(scope="module")
def data(tree, tmp_path_factory) -> Path:
    """Both data sets of the tree."""
    folder = tmp_path_factory.mktemp("data")
    for equalise in (False, True):
        prepare("genimage", tree, folder, equalise=equalise)
    return folder


def test_prepared_images_are_those_of_the_tree(tree, data):
    directory = find_dataset(data, "genimage/standard")
    assert directory == data / "genimage/standard/1.0.0"
    dataset = open_dataset(directory)
    assert dataset.source_names == ("real", "agan", "bgan")
    assert dataset.split_sizes["test"] == 60  # all of the folders val
    assert 1 <= dataset.split_sizes["val"] <= 12  # of 60
    assert sum(dataset.split_sizes.values()) == 120
    for split in dataset.split_sizes:
        for record in dataset.records(split):
            path = record["path"].decode()
            assert record["image"] == (tree / path).read_bytes()
            assert ("/val/" in path) == (split == "test")


def test_equalised_files_are_alike_and_tell_nothing(data):
    standard = open_dataset(find_dataset(data, "genimage/standard"))
    assert leaks(collect_facts(standard, show_progress=False), "container")
    dataset = open_dataset(find_dataset(data, "genimage/equalised"))
    facts = collect_facts(dataset, show_progress=False)
    for column in (facts.format, facts.mode, facts.width, facts.height):
        assert len(set(column)) == 1
    assert set(facts.quality[facts.source > 0]) <= set(facts.quality[facts.source == 0])
    assert not leaks(facts, "JPEG") and not leaks(facts, "file size")
    kept = json.loads((dataset.directory / "metadata.json").read_text())["equalised"]
    assert kept["size"] == facts.width[0]
    assert sum(kept["photographs"].values()) == np.sum(facts.source == 0)


def leaks(facts: Facts, cue: str) -> bool:
    """Whether the audit finds that a cue tells photographs from the rest."""
    real = (facts.source == 0).astype(int)
    parts = StratifiedKFold(3, shuffle=True, random_state=0).split(real, real)
    return audit_cue(CUES[cue].features(facts), real, list(parts))["leaks"]


def test_prepared_again_is_the_same_and_another_seed_is_refused(tree, data):
    for equalise in (False, True):
        prepare("genimage", tree, data, equalise=equalise)
        with pytest.raises(InputError, match="other images"):
            prepare("genimage", tree, data, equalise=equalise, seed=1)


def test_metadata_is_what_tfds_expects(tree, tmp_path):
    config = Config(name="standard", benchmark="genimage", place=tree)
    metadata = Builder(config=config, data_dir=tmp_path).get_metadata()
    assert metadata.description.strip() and metadata.citation.strip()
    assert set(metadata.tags) <= set(tfds.core.dataset_metadata.valid_tags())
