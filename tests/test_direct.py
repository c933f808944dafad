"""Embed, attribute and audit on parquet files and shards: as on the same images in a folder."""

import io
import json
import re
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from rmjax.audit.audit import CUES
from rmjax.audit.real import compare_real
from rmjax.cli.main import main
from rmjax.data.collected import collect_labels
from rmjax.data.columns import Columns
from rmjax.data.direct import find_format, list_collection, list_single, open_directly
from rmjax.data.facts import collect_facts
from rmjax.data.image_files import ImageFile
from rmjax.errors import InputError
from rmjax.inference.attribute import read_views

COUNT = 24
BROKEN = 5


def encode(number: int) -> bytes:
    """A JPEG for every third image, which is real, else a PNG of another size."""
    rng = np.random.default_rng(number)
    real = number % 3 == 0
    side = 40 if real else 32
    pixels = Image.fromarray(rng.integers(0, 256, (side, side, 3), np.uint8))
    stream = io.BytesIO()
    pixels.save(stream, "JPEG" if real else "PNG")
    return b"no image" if number == BROKEN else stream.getvalue()


@pytest.fixture(scope="module")
def images() -> list[tuple[str, bytes]]:
    """Images of three sources, in the order of their names."""
    names = ("nature", "sdxl", "dalle")
    return [(names[number % 3], encode(number)) for number in range(COUNT)]


@pytest.fixture(scope="module")
def places(images, tmp_path_factory) -> dict[str, str]:
    """The images in a folder, and, by the name of what they are in, in files."""
    root = tmp_path_factory.mktemp("places")
    for name in ("folder", "parquet/data", "shards"):
        (root / name).mkdir(parents=True)
    half = COUNT // 2
    for part in range(2):
        rows = images[part * half : (part + 1) * half]
        own = {
            "image": [{"bytes": data, "path": None} for _, data in rows],
            "meta": [
                {"model": source, "class": f"c{i % 2}"}
                for i, (source, _) in enumerate(rows)
            ],
        }
        split = ("train", "test")[part]
        pq.write_table(
            pa.table(own),
            root / f"parquet/data/{split}-{part}.parquet",
            row_group_size=5,
        )
        with tarfile.open(root / f"shards/s-{part}.tar", "w") as tar:
            for i, (source, data) in enumerate(rows):
                label = json.dumps({"meta": {"model": source, "class": f"c{i % 2}"}})
                for suffix, content in (("png", data), ("json", label.encode())):
                    member = tarfile.TarInfo(f"{part * half + i:03}.{suffix}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
    for number, (_, data) in enumerate(images):
        (root / f"folder/{number:03}.png").write_bytes(data)
    return {
        "folder": str(root / "folder"),
        "parquet": str(root / "parquet"),
        "file": str(root / "parquet/data/train-0.parquet"),
        "shards": str(root / "shards/s-{0..1}.tar"),
    }


def pack(file, members: dict[str, bytes]) -> None:
    file.parent.mkdir(exist_ok=True)
    with tarfile.open(file, "w") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


COLUMNS = ["--source", "meta.model", "--real", "nature"]


@pytest.fixture(scope="module")
def tables(places, small_run, tmp_path_factory) -> dict[str, list[dict]]:
    out = tmp_path_factory.mktemp("tables")
    found = {}
    for name in ("folder", "parquet", "shards"):
        file = out / f"{name}.parquet"
        command = ["embed", "--workdir", str(small_run), "--images", places[name]]
        columns = [*COLUMNS, "--semantic", "meta.class"] if name != "folder" else []
        assert main([*command, "--out", str(file), *columns]) == 1  # one can't be read
        found[name] = pq.read_table(file).to_pylist()
    return found


@pytest.mark.parametrize("name", ["parquet", "shards"])
def test_fingerprints_are_those_of_the_folder(tables, images, name):
    theirs, ours = tables["folder"], tables[name]
    if name == "parquet":  # the test split comes first by name
        theirs = theirs[COUNT // 2 :] + theirs[: COUNT // 2]
        images = images[COUNT // 2 :] + images[: COUNT // 2]
        assert [row["path"] for row in ours[:2]] == [
            "data/test-1.parquet:0",
            "data/test-1.parquet:1",
        ]
    else:
        assert [row["path"] for row in ours] == [row["path"] for row in theirs]
    expected = ["real" if source == "nature" else source for source, _ in images]
    assert [row["source"] for row in ours] == expected
    assert [row["semantic"] for row in ours] == ["c0", "c1"] * (COUNT // 2)
    for row, other in zip(ours, theirs, strict=True):
        assert bool(row["error"]) == bool(other["error"])
        if not row["error"]:
            assert row["embedding"] == pytest.approx(other["embedding"], abs=1e-5)


def test_answers_are_those_of_the_files(places, small_run, capsys):
    command = ["attribute", "--workdir", str(small_run), "--json"]
    photo = f"{places['folder']}/000.png"
    plain = [f"{places['folder']}/{number:03}.png" for number in range(COUNT)]
    half = plain[: COUNT // 2]
    assert main([*command, *half, *plain, photo]) == 1
    expected = json.loads(capsys.readouterr().out)["images"]
    assert main([*command, places["file"], places["shards"], photo]) == 1
    found = json.loads(capsys.readouterr().out)["images"]
    names = [f"train-0.parquet:{row}" for row in range(len(half))]
    names += [f"{number:03}.png" for number in range(COUNT)]
    assert [answer.pop("image") for answer in found] == [*names, photo]
    for answer, other in zip(found, expected, strict=True):
        if "error" not in other:
            assert answer["sources"] == [
                [name, pytest.approx(chance, abs=1e-5)]
                for name, chance in other["sources"]
            ]
            assert answer["answer"] == other["answer"]


def test_unusable_images_are_answered_as_such(tmp_path):
    rows = [
        {"bytes": b"a", "path": None},
        {"bytes": None, "path": "http://a.org/b.png"},
    ]
    pq.write_table(pa.table({"image": rows}), tmp_path / "a.parquet")
    file = str(tmp_path / "a.parquet")
    good, bad = list_single([file])
    assert good == ImageFile("a.parquet:0", b"a")
    reading = read_views(None, bad)  # no network is asked
    assert reading.image == "a.parquet:1" and not reading.views
    assert "http://a.org/b.png" in reading.known["error"]
    walk, count = list_collection(open_directly([file], Columns()))
    first, second = walk()
    assert (count, first.read(), second.path) == (2, b"a", "a.parquet:1")
    with pytest.raises(InputError, match="a.parquet:1: .*http://a.org/b.png"):
        second.read()


@pytest.mark.parametrize(
    "name, processes", [("parquet", 1), ("shards", 1), ("parquet", 2)]
)
def test_facts_are_those_of_the_images(places, images, name, processes):
    wanted = Columns("", "meta.model", "meta.class", "", "meta.class", ("nature",))
    surveyed = collect_labels(open_directly([places[name]], wanted), processes)
    assert surveyed.source_names == ("real", "dalle", "sdxl")
    assert surveyed.split_sizes == (
        {"test": 12, "train": 12} if name == "parquet" else {"all": COUNT}
    )
    facts = collect_facts(surveyed, None, processes, show_progress=False)
    if name == "parquet":
        images = images[COUNT // 2 :] + images[: COUNT // 2]
    assert facts.bytes.tolist() == [len(data) for _, data in images]
    names = [surveyed.source_names[i].replace("real", "nature") for i in facts.source]
    assert names == [source for source, _ in images]
    assert len(set(facts.group)) == 2
    split = list(surveyed.split_sizes)[-1]
    chosen = {split: np.array([1, 4, 8])}
    some = collect_facts(surveyed, [split], 1, chosen, show_progress=False)
    start = COUNT - surveyed.split_sizes[split]
    assert some.path.tolist() == facts.path[[start + 1, start + 4, start + 8]].tolist()


def test_splits_that_lie_among_each_other(tmp_path):
    rows = [{"bytes": encode(i), "path": None} for i in range(9)]
    columns = {"image": rows, "split": ["train", "test", "val"] * 3, "model": ["a"] * 9}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet", row_group_size=2)
    wanted = Columns(source="model", split="split")
    surveyed = collect_labels(open_directly([tmp_path / "a.parquet"], wanted))
    facts = collect_facts(surveyed, ["val", "test"], show_progress=False)
    numbers = (2, 5, 8, 1, 4, 7)
    assert facts.path.tolist() == [f"a.parquet:{number}" for number in numbers]
    assert facts.bytes.tolist() == [len(encode(number)) for number in numbers]
    assert facts.split.tolist() == [0] * 3 + [1] * 3


@pytest.mark.parametrize("name", ["parquet", "shards"])
def test_audit_of_files(places, tmp_path, capsys, monkeypatch, name):
    monkeypatch.setattr("rmjax.audit.audit.CUES", {"container": CUES["container"]})
    out = str(tmp_path / "out")
    command = ["audit", places[name], *COLUMNS, "--folds", "2", "--out", out]
    assert main(command) == 0
    results = json.loads((tmp_path / "out/audit.json").read_text())
    assert results["sources"] == {"real": 8, "dalle": 7, "sdxl": 8}
    assert results["unreadable"] == 1 and results["dataset"] == places[name]
    assert results["real"]["format"]["real"] == {"JPEG": 1.0}
    assert results["real"]["format"]["others"] == {"PNG": 1.0}
    assert results["real"]["size"]["real"] == [40, 40]
    warned = [line for line in capsys.readouterr().out.splitlines() if "JPEG" in line]
    assert any("PNG" in line and "real" in line for line in warned)
    assert main([*command[:-1], str(tmp_path / "b"), "--max-images", "6"]) == 0
    assert json.loads((tmp_path / "b/audit.json").read_text())["images"] in (5, 6)


@pytest.mark.parametrize("name", ["parquet", "shards"])
def test_audit_says_which_columns_there_are(places, capsys, name):
    assert main(["audit", places[name]]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "--source" in line and "meta.model, meta.class" in line


def test_real_images_that_do_not_differ(memory_dataset):
    rows = [
        {
            "image": encode(0 if number % 4 else 1),
            "source": ("real", "gan")[number % 2 if number % 4 else number // 4 % 2],
            "semantic": "x",
            "path": str(number),
            "split": "train",
        }
        for number in range(80)
    ]
    facts = collect_facts(memory_dataset(rows), show_progress=False)
    found = compare_real(facts, facts.source == 1)
    assert not found["format"]["differs"] and not found["size"]["differs"]
    assert found["format"]["distance"] < 0.3 and found["size"]["distance"] < 0.3
    apart = compare_real(facts, facts.format == "JPEG")
    assert apart["format"]["differs"] and apart["size"]["differs"]
    assert apart["format"]["distance"] == apart["size"]["distance"] == 1


def test_what_files_hold_images(places, tmp_path):
    assert find_format([places["folder"]]) is find_format(["absent"]) is None
    assert find_format([places["parquet"]]) is find_format(["x.parquet"])
    assert find_format([places["shards"]]) is find_format(["x.tar.gz", "y.tgz"])
    (tmp_path / "notes.txt").write_text("")
    assert find_format([tmp_path]) is None
    single = list(list_single([f"{places['folder']}/000.png", places["file"]]))
    assert single[0] == f"{places['folder']}/000.png"
    assert [type(one) for one in single[1:]] == [ImageFile] * (COUNT // 2)


@pytest.mark.parametrize(
    "command, words",
    [
        ("embed --images {folder} --source model --out {out}", "folder"),
        (
            "embed --images {file} --source model --out {out}",
            "'model'.*image, meta.model",
        ),
        ("embed --images absent.parquet --out {out}", "absent.parquet"),
        ("attribute {file} absent-{{0..1}}.tar", "absent-0.tar"),
        ("audit {file} {shards} --source meta.model", "parquet.*webdataset"),
        ("audit one two", "two"),
        ("embed --images {twice} --out {out}", "b.tar: a.jpg .*a.tar"),
        ("audit {twice} --source cls", "b.tar: a.jpg .*a.tar"),
        ("audit {bad} --source model", "bad.parquet.*'Real'"),
        ("attribute {two}", "image, mask"),
        ("attribute {two} {file} --image mask", "train-0.parquet.*'mask'"),
        ("audit {file} --source meta.model --real photo", "photo.*dalle, nature, sdxl"),
    ],
)
def test_bad_input_is_one_line(places, small_run, tmp_path, capsys, command, words):
    for name in ("a", "b"):
        pack(tmp_path / f"twice/{name}.tar", {"a.jpg": b"", "a.cls": b"1"})
    image = [{"bytes": encode(1), "path": None}]
    pq.write_table(pa.table({"image": image, "mask": image}), tmp_path / "two.parquet")
    pq.write_table(
        pa.table({"image": image, "model": ["Real"]}), tmp_path / "bad.parquet"
    )
    made = {"twice": tmp_path / "twice", "out": tmp_path / "t.npz"}
    made |= {name: tmp_path / f"{name}.parquet" for name in ("two", "bad")}
    line = command.format(**places, **made).split()
    if line[0] != "audit":
        line += ["--workdir", str(small_run)]
    assert main(line) == 2
    *_, error = capsys.readouterr().err.splitlines()
    assert error.startswith(f"rmjax {line[0]}: error: ")
    assert re.search(words, error)


def test_one_of_several_columns_of_images(tmp_path, small_run, capsys):
    rows = [[{"bytes": encode(i), "path": None}] for i in (1, BROKEN)]
    file = tmp_path / "two.parquet"
    pq.write_table(pa.table({"image": rows[0], "mask": rows[1]}), file)
    command = ["attribute", "--workdir", str(small_run), str(file), "--image"]
    assert [main([*command, name]) for name in ("image", "mask")] == [0, 1]


def test_images_that_cannot_be_used_are_named(tmp_path, caplog):
    members = {"a.jpg": b"x", "a.json": b'{"m": 1}', "b.json": b'{"m": 1}'}
    pack(tmp_path / "a.tar", members)
    columns = Columns(source="m")
    assert len(collect_labels(open_directly([tmp_path], columns)).parts) == 1
    assert "b.json" in caplog.text


def test_several_formats_in_one_folder_are_refused(places, tmp_path):
    for suffix in ("parquet", "tar"):
        (tmp_path / f"a.{suffix}").write_bytes(b"")
    with pytest.raises(InputError, match="parquet and webdataset"):
        find_format([tmp_path])
