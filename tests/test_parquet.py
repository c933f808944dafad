"""Images in parquet files: what is read of files as the Hub and others write them."""

import json
import os
import pickle

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rmjax.data import parquet
from rmjax.data.columns import Columns, splits_of_files
from rmjax.data.parquet import open_parquet, parquet_columns
from rmjax.data.parts import Unusable
from rmjax.errors import InputError

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
NAMES = ["sdxl", "nature", "dalle"]
LABEL = {"names": NAMES, "_type": "ClassLabel"}
FEATURES = {"image": {"_type": "Image"}, "label": LABEL}


def data(count: int, start: int = 0) -> list[bytes]:
    return [b"image %d" % number for number in range(start, start + count)]


def structs(count: int, start: int = 0) -> list[dict]:
    return [{"bytes": one, "path": "a.png"} for one in data(count, start)]


def write(file, columns: dict, features=None, rows: int | None = None):
    """Write a file as `datasets` does, with its features in the schema's metadata."""
    table = pa.table(columns)
    if features:
        stated = json.dumps({"info": {"features": features}})
        table = table.replace_schema_metadata({"huggingface": stated})
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, file, row_group_size=rows)
    return file


def hub_file(file, count: int = 6, start: int = 0, rows: int = 4, **more):
    images = pa.array(structs(count, start), IMAGE)
    labels = pa.array([i % 3 for i in range(count)])
    return write(file, {"image": images, "label": labels, **more}, FEATURES, rows)


def read(collection) -> tuple[list, list]:
    """Return entries and images, of parts that travelled to another process."""
    parts = pickle.loads(pickle.dumps(collection.parts))
    entries = [entry for part in parts for entry in part.entries()]
    return entries, [image for part in parts for image in part.images()]


def test_files_of_the_hub_are_read_in_their_order(tmp_path):
    for number in range(2):
        name = f"data/train-{number:05}-of-00002.parquet"
        hub_file(tmp_path / name, start=6 * number)
    (tmp_path / "README.md").write_text("passed over")
    collection = open_parquet(tmp_path, Columns(source="label", real=("nature",)))
    entries, images = read(collection)
    assert collection.sources == ("real", "sdxl", "dalle")
    assert [entry for entry, _ in images] == entries
    assert [one for _, one in images] == data(12)
    assert [e.source for e in entries] == ["sdxl", "real", "dalle"] * 4
    assert entries[8].path == "data/train-00001-of-00002.parquet:2"
    assert {(e.semantic, e.split) for e in entries} == {("unspecified", "")}
    assert [e.group for e in entries] == [e.path for e in entries]
    assert [part.name for part in collection.parts] == [
        f"data/train-0000{number}-of-00002.parquet" for number in range(2)
    ]


@pytest.mark.parametrize(
    "kind, values",
    [
        (IMAGE, structs(3)),
        (
            pa.struct([("path", pa.large_string()), ("bytes", pa.large_binary())]),
            structs(3),
        ),
        (pa.binary(), data(3)),
        (pa.large_binary(), data(3)),
        (pa.binary_view(), data(3)),
        (pa.dictionary(pa.int32(), pa.binary()), data(3)),
        (pa.string(), ["b0.png", "sub/b1.png", "b2.png"]),
        (pa.string_view(), ["b0.png", "sub/b1.png", "b2.png"]),
        (pa.dictionary(pa.int32(), pa.string()), ["b0.png", "sub/b1.png", "b2.png"]),
        (
            IMAGE,
            [{"bytes": None, "path": p} for p in ("b0.png", "sub/b1.png", "b2.png")],
        ),
    ],
    ids=str,
)
@pytest.mark.parametrize("nested", [False, True])
def test_every_type_of_image(tmp_path, kind, values, nested):
    for name, one in zip(("b0.png", "sub/b1.png", "b2.png"), data(3), strict=True):
        (tmp_path / "sub").mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(one)
    column = pa.array(values, kind)
    if nested:
        inner = pa.StructArray.from_arrays(
            [column, pa.array([1, 2, 3])], ["image", "n"]
        )
        column = pa.StructArray.from_arrays([inner], ["data"])
    name = "sample.data.image" if nested else "image"
    file = write(tmp_path / "a.parquet", {name.split(".")[0]: column})
    _, images = read(open_parquet(file, Columns(image=name)))
    assert [one for _, one in images] == data(3)
    if not any(isinstance(value, str) for value in values):
        assert read(open_parquet(file, Columns()))[1] == images  # it is found


@pytest.mark.parametrize(
    "kind, values, expected",
    [
        (pa.string(), ["b", "a", "b"], ["b", "a", "b"]),
        (pa.large_string(), ["b", "a", "b"], ["b", "a", "b"]),
        (pa.dictionary(pa.int8(), pa.string()), ["b", "a", "b"], ["b", "a", "b"]),
        (pa.int8(), [0, 7, 0], ["0", "7", "0"]),
        (pa.uint64(), [0, 7, 0], ["0", "7", "0"]),
        (pa.bool_(), [True, False, True], ["True", "False", "True"]),
    ],
    ids=str,
)
def test_every_type_of_label(tmp_path, kind, values, expected):
    labels = pa.array(values, kind)
    meta = pa.StructArray.from_arrays([labels], ["model"])
    columns = {"image": data(3), "label": labels, "meta": meta}
    file = write(tmp_path / "a.parquet", columns)
    for name in ("label", "meta.model"):
        wanted = Columns(source=name, semantic=name, real=(expected[1],))
        collection = open_parquet(file, wanted)
        entries, _ = read(collection)
        assert [entry.semantic for entry in entries] == expected
        assert [e.source for e in entries] == [expected[0], "real", expected[2]]
        assert collection.sources == collection.semantics == ()


def test_names_of_nested_classes_and_real_by_number(tmp_path):
    meta = pa.array([{"label": i % 3} for i in range(6)])
    features = {"image": {"_type": "Image"}, "meta": {"label": LABEL}}
    columns = {"image": pa.array(structs(6), IMAGE), "meta": meta}
    file = write(tmp_path / "a.parquet", columns, features)
    wanted = Columns(source="meta.label", semantic="meta.label", real=("0", "dalle"))
    collection = open_parquet(file, wanted)
    assert collection.sources == ("real", "nature")
    assert collection.semantics == tuple(NAMES)
    assert [e.source for e in read(collection)[0]] == ["real", "nature", "real"] * 2


def test_splits_and_groups_of_columns(tmp_path):
    splits = ["train", "Training", "validation", "dev", "val", "test"]
    more = {"split": splits, "photo": [1, 1, 2, -2, 3, 3]}
    file = hub_file(tmp_path / "test.parquet", **more)
    entries, _ = read(open_parquet(file, Columns(split="split", group="photo")))
    assert [e.split for e in entries] == ["train"] * 2 + ["val"] * 3 + ["test"]
    assert [e.group for e in entries] == ["1", "1", "2", "-2", "3", "3"]


@pytest.mark.parametrize(
    "names, expected",
    [
        (["data/train-00000-of-00005.parquet", "data/test-0.parquet"], "train test"),
        (["validation/0000.parquet", "train/0000.parquet"], "val train"),
        (["test/train.parquet", "test/dev.parquet"], "train val"),
        (["train_1.parquet", "VALID.parquet"], "train val"),
        (["trainer.parquet", "contest.parquet"], " "),
        (["train/a.parquet", "train/b.parquet"], " "),
    ],
)
def test_splits_of_names(names, expected):
    assert splits_of_files(names) == expected.split(" ")


def test_splits_of_files_are_those_of_their_rows(tmp_path):
    for split in ("train", "validation"):
        hub_file(tmp_path / split / "0000.parquet", 2)
    entries, _ = read(open_parquet(tmp_path, Columns()))
    assert [entry.split for entry in entries] == ["train"] * 2 + ["val"] * 2


def test_parts_are_whole_row_groups(tmp_path, monkeypatch):
    file = hub_file(tmp_path / "a.parquet", 23, rows=3)
    bytes_of_group = pq.read_metadata(file).row_group(0).total_byte_size
    whole = read(open_parquet(file, Columns(source="label")))
    monkeypatch.setattr(parquet, "PART_BYTES", 2 * bytes_of_group)
    collection = open_parquet(file, Columns(source="label"))
    assert len(collection.parts) == 4
    assert [len([*part.entries()]) for part in collection.parts] == [6, 6, 6, 5]
    assert read(collection) == whole
    assert [entry.path for entry in whole[0]] == [f"a.parquet:{i}" for i in range(23)]


def test_large_row_group_is_not_held(tmp_path):
    images = [os.urandom(8_000) for _ in range(6000)]
    file = write(tmp_path / "a.parquet", {"image": pa.array(images)})
    assert pq.read_metadata(file).num_row_groups == 1
    before, peak = pa.total_allocated_bytes(), 0
    (part,) = open_parquet(file, Columns()).parts
    for (_, one), image in zip(part.images(), images, strict=True):
        assert one == image
        peak = max(peak, pa.total_allocated_bytes() - before)
    assert peak < sum(map(len, images)) / 2


def test_several_places(tmp_path):
    one, two = (hub_file(tmp_path / d / "a.parquet", 2) for d in "xy")
    hub_file(tmp_path / ".cache" / "a.parquet", 2)
    expected = ["x/a.parquet:0", "x/a.parquet:1", "y/a.parquet:0", "y/a.parquet:1"]
    for place in (tmp_path, [one, two], tmp_path / "*" / "a.parquet"):
        entries, _ = read(open_parquet(place, Columns()))
        assert [entry.path for entry in entries] == expected
    braces = open_parquet(f"{tmp_path}/{{x,y}}/a.parquet", Columns())
    assert [entry.path for entry in read(braces)[0]] == expected
    odd = hub_file(tmp_path / "{a} [b]*" / "{c,d}?.parquet", 2)
    for place in (odd, odd.parent):
        (part,) = open_parquet(place, Columns()).parts
        assert part.name == odd.name


def test_links_are_followed_or_named(tmp_path):
    file = hub_file(tmp_path / "blobs" / "0", 2)
    (tmp_path / "x").mkdir()
    link = tmp_path / "x" / "a.parquet"
    link.symlink_to(file)
    for place in (tmp_path / "x", link, tmp_path / "x" / "*"):
        (part,) = open_parquet(place, Columns()).parts
        assert part.name == "a.parquet" and len([*part.images()]) == 2
    (tmp_path / "x" / "b.parquet").symlink_to(tmp_path / "absent")
    with pytest.raises(InputError, match="x/b.parquet"):
        open_parquet(tmp_path / "x", Columns())
    (tmp_path / "x" / "b.parquet").unlink()
    os.mkfifo(tmp_path / "x" / "c.parquet")
    for place in (tmp_path / "x", tmp_path / "x" / "c.parquet"):
        with pytest.raises(InputError, match="c.parquet: not a regular file"):
            open_parquet(place, Columns())


def test_files_in_a_store(tmp_path):
    file = hub_file(tmp_path / "x" / "a.parquet")
    values = ["sub/b.png", "http://a.org/b.png", "../b.png"]
    listed = write(tmp_path / "b.parquet", {"image": values})
    store = fsspec.filesystem("memory")
    store.pipe("/bucket/x/a.parquet", file.read_bytes())
    store.pipe("/bucket/y/b.parquet", listed.read_bytes())
    store.pipe("/bucket/y/sub/b.png", b"beside")
    here = open_parquet(tmp_path / "x", Columns(source="label"))
    there = open_parquet("memory://bucket/x", Columns(source="label"))
    assert read(there) == read(here)
    _, images = read(
        open_parquet("memory://bucket/y/*.parquet", Columns(image="image"))
    )
    assert images[0][1] == b"beside"
    assert [type(image) for image in images[1:]] == [Unusable, Unusable]


def test_images_that_are_none_are_unusable(tmp_path):
    values = [
        "https://a.org/b.png",
        None,
        "/etc/hostname",
        "../b.png",
        "absent.png",
        "b",
    ]
    (tmp_path / "b").write_bytes(b"file")
    file = write(tmp_path / "a.parquet", {"image": values})
    entries, images = read(open_parquet(file, Columns(image="image")))
    assert [one.path for one in images[:5]] == [f"a.parquet:{i}" for i in range(5)]
    assert [type(one) for one in images[:5]] == [Unusable] * 5
    assert "https://a.org/b.png" in images[0].reason
    assert images[5] == (entries[5], b"file")
    parents = [None, {"image": None}, {"image": {"bytes": None, "path": None}}]
    kind = pa.struct([("image", IMAGE)])
    file = write(tmp_path / "b.parquet", {"sample": pa.array(parents, kind)})
    assert all(
        isinstance(one, Unusable) for one in read(open_parquet(file, Columns()))[1]
    )


@pytest.mark.parametrize(
    "values, features, words",
    [
        ([0, 1, 3], FEATURES, "a.parquet, row 2.*3"),
        ([0, -1, 1], FEATURES, "a.parquet, row 1.*-1"),
        ([0, None, 1], FEATURES, "a.parquet, row 1"),
        ([0, 5, -1], None, "a.parquet, row 2.*-1"),
        (["a", "a", None], None, "a.parquet, row 2"),
        (["a", "", "b"], None, "a.parquet, row 1"),
    ],
)
def test_bad_labels_are_named_with_their_row(tmp_path, values, features, words):
    columns = {"image": pa.array(structs(3), IMAGE), "label": values}
    file = write(tmp_path / "a.parquet", columns, features, 2)
    (part,) = open_parquet(file, Columns(source="label")).parts
    for yielded in (part.entries(), part.images()):
        with pytest.raises(InputError, match=words):
            list(yielded)


@pytest.mark.parametrize(
    "columns, words",
    [
        (
            Columns(source="model"),
            r"a.parquet.*'model'.*image, label, meta.model, score",
        ),
        (Columns(image="picture"), "a.parquet.*'picture'.*image, label, meta.model"),
        (Columns(source="meta"), "'meta'"),
        (Columns(source="score"), "a.parquet.*'score'.*double"),
        (Columns(source="tags"), "a.parquet.*'tags'.*list"),
        (Columns(source="image"), "a.parquet.*'image'"),
        (Columns(image="label"), "a.parquet.*'label'"),
        (Columns(source="label", real=("photo",)), "a.parquet.*'photo'.*sdxl, nature"),
        (Columns(source="label", real=("3",)), "a.parquet.*'3'.*sdxl, nature"),
    ],
)
def test_wrong_columns_are_named(tmp_path, columns, words):
    more = {"meta": [{"model": "a"}], "score": [0.5], "tags": [["a"]]}
    file = hub_file(tmp_path / "a.parquet", 1, **more)
    assert parquet_columns(file) == ["image", "label", "meta.model", "score", "tags"]
    with pytest.raises(InputError, match=words):
        open_parquet(file, columns)


@pytest.mark.parametrize(
    "columns", [{"a": data(2)}, {"image": data(2), "img": data(2)}]
)
def test_image_has_to_be_found(tmp_path, columns):
    file = write(tmp_path / "a.parquet", columns)
    with pytest.raises(InputError, match=f"a.parquet.*{', '.join(columns)}"):
        open_parquet(file, Columns())


def test_not_all_of_many_columns_are_listed(tmp_path):
    columns = {"image": data(1)} | {f"column{i}": [i] for i in range(2000)}
    file = write(tmp_path / "a.parquet", columns)
    with pytest.raises(InputError, match="a.parquet.*image, column0") as caught:
        open_parquet(file, Columns(source="model"))
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    "columns, features",
    [
        ({"image": pa.array(structs(2), IMAGE), "label": ["a", "b"]}, FEATURES),
        ({"image": pa.array(structs(2), IMAGE)}, FEATURES),
        ({"image": data(2), "label": [0, 1]}, FEATURES),
        ({"image": pa.array(structs(2), IMAGE), "label": [0, 1]}, None),
        (
            {"image": pa.array(structs(2), IMAGE), "label": [0, 1]},
            {"label": {"names": NAMES[::-1], "_type": "ClassLabel"}},
        ),
    ],
)
def test_file_of_another_schema_is_named(tmp_path, columns, features):
    hub_file(tmp_path / "a.parquet")
    write(tmp_path / "b.parquet", columns, features)
    hub_file(tmp_path / "c.parquet")
    with pytest.raises(InputError, match="b.parquet.*a.parquet"):
        open_parquet(tmp_path, Columns(source="label"))


@pytest.mark.parametrize(
    "names", [[1, 2, 3], {"0": "a", "1": "b", "2": "c"}, "abc", [None] * 3]
)
def test_names_of_classes_that_are_none(tmp_path, names):
    columns = {"image": pa.array(structs(3), IMAGE), "label": [0, 1, 2]}
    features = {"label": {"names": names, "_type": "ClassLabel"}}
    write(tmp_path / "a.parquet", columns, features)
    with pytest.raises(InputError, match="a.parquet: .*label"):
        open_parquet(tmp_path, Columns(source="label"))


@pytest.mark.parametrize(
    "stated", [b"{", b"[1]", b"\xff\xfe{", b'{"info": null}', b"[" * 100_000]
)
def test_features_that_are_none(tmp_path, stated):
    table = pa.table({"image": data(2)})
    file = tmp_path / "a.parquet"
    pq.write_table(table.replace_schema_metadata({"huggingface": stated}), file)
    with pytest.raises(InputError, match="a.parquet: .*huggingface"):
        open_parquet(file, Columns())


@pytest.mark.parametrize("cut", [0, 3, 200, -1])
def test_file_that_is_no_parquet_is_named(tmp_path, cut):
    hub_file(tmp_path / "a.parquet")
    file = hub_file(tmp_path / "b.parquet")
    file.write_bytes(file.read_bytes()[:cut])
    with pytest.raises(InputError, match="b.parquet: .") as caught:
        open_parquet(tmp_path, Columns())
    assert "\n" not in str(caught.value)


def test_damaged_pages_are_named(tmp_path):
    file = hub_file(tmp_path / "a.parquet", 200)
    whole = bytearray(file.read_bytes())
    whole[4:400] = bytes(396)
    file.write_bytes(whole)
    (part,) = open_parquet(file, Columns()).parts
    with pytest.raises(InputError, match="a.parquet: ."):
        list(part.images())


def test_empty_files_are_passed_over(tmp_path):
    hub_file(tmp_path / "a.parquet", 0)
    with pytest.raises(InputError, match=str(tmp_path)):
        open_parquet(tmp_path, Columns())
    hub_file(tmp_path / "b.parquet")
    (part,) = open_parquet(tmp_path, Columns()).parts
    assert part.name == "b.parquet"


@pytest.mark.parametrize(
    "names, split, place, words",
    [
        ([], "", "", "parquet"),
        ([], "", "absent.parquet", "absent.parquet"),
        ([], "", "*.parquet", "parquet"),
        (["a.parquet"], "", "{a,b}.parquet", "b.parquet"),
        (["a.parquet"], "", "{a,a}.parquet", "a.parquet.*twice"),
        (["train.parquet", "test.parquet", "x.parquet"], "", "", "x.parquet"),
        (["train.parquet", "train-test.parquet"], "", "", "train-test.parquet"),
        (["a.parquet"], "split", "", "a.parquet, row 1.*'holdout'"),
    ],
)
def test_wrong_places_and_splits_are_named(tmp_path, names, split, place, words):
    for name in names:
        hub_file(tmp_path / name, 2, split=["test", "holdout"])
    with pytest.raises(InputError, match=words):
        read(open_parquet(f"{tmp_path}/{place}", Columns(split=split)))


def test_place_on_the_hub(tmp_path, monkeypatch):
    """The Hub's file system, but for its protocol, stands for the Hub."""
    store = fsspec.filesystem("memory")
    file = hub_file(tmp_path / "a.parquet").read_bytes()
    store.pipe("/datasets/user/own/data/train-0.parquet", file)
    store.pipe("/datasets/user/other/a.zip", b"")
    store.pipe(
        "/datasets/user/other@refs/convert/parquet/default/train/0.parquet", file
    )
    to_memory = {"hf://": "memory://"}
    opened = parquet.filesystem
    monkeypatch.setattr(
        "rmjax.data.find.filesystem",
        lambda place: opened(str(place).replace("hf://", to_memory["hf://"])),
    )
    expected = {"own": "data/train-0.parquet", "other": "default/train/0.parquet"}
    for name, path in expected.items():
        (part,) = open_parquet(f"hf:user/{name}", Columns()).parts
        assert part.name == path and len([*part.images()]) == 6
    for place in ("hf:user", "hf:user/none", "hf:user/../x"):
        with pytest.raises(InputError, match=place.replace("user", ".*user")):
            open_parquet(place, Columns())


def test_hub_needs_its_package(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(InputError, match="hf:user/name.*huggingface_hub|hub"):
        open_parquet("hf:user/name", Columns())
