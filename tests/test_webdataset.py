"""Images in WebDataset shards, beside the webdataset package itself."""

import gzip
import io
import json
import pickle
import tarfile

import fsspec
import pytest
import webdataset

from rmjax.data.columns import Columns
from rmjax.data.parts import Entry, Unusable
from rmjax.data.webdataset import open_shards, shard_columns
from rmjax.errors import InputError


def pack(file, members: dict[str, object] | list[tuple[str, object]], opener=open):
    """Write a tar file; of what are no bytes, the JSON."""
    file.parent.mkdir(parents=True, exist_ok=True)
    pairs = members.items() if isinstance(members, dict) else members
    with opener(file, "wb") as out, tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in pairs:
            one = (
                content if isinstance(content, bytes) else json.dumps(content).encode()
            )
            member = tarfile.TarInfo(name)
            member.size = len(one)
            tar.addfile(member, io.BytesIO(one))
    return file


def samples(count: int, start: int = 0, suffix: str = "jpg") -> dict[str, object]:
    members: dict[str, object] = {}
    for i in range(start, start + count):
        members[f"{i // 4:03}/{i:04}.{suffix}"] = b"image %d" % i
        members[f"{i // 4:03}/{i:04}.json"] = {
            "model": "ab"[i % 2],
            "meta": {"n": i % 3},
        }
        members[f"{i // 4:03}/{i:04}.cls"] = b"%d\n" % (i % 2)
    return members


def read(collection) -> list:
    """Return images, of parts that travelled to another process; entries are as theirs."""
    parts = pickle.loads(pickle.dumps(collection.parts))
    images = [image for part in parts for image in part.images()]
    entries = [entry for part in parts for entry in part.entries()]
    assert entries == [i if isinstance(i, Unusable) else i[0] for i in images]
    return images


SOURCE = Columns(source="model")


@pytest.mark.parametrize("opener", [open, gzip.open])
def test_samples_are_those_of_the_webdataset_package(tmp_path, opener):
    members = samples(6) | {"001/left.v1.right.PNG": b"x", "001/left.cls": b"3"}
    members |= {
        ".hidden.jpg": b"",
        "noSuffix": b"",
        "a.b/c.webp": b"y",
        "a.b/c.cls": b"4",
    }
    members |= {"a.b/c.npy": b"not asked for"}
    file = str(pack(tmp_path / "a.tar", members, opener))
    found = read(open_shards(file, Columns(source="cls")))
    theirs = webdataset.WebDataset(file, shardshuffle=False, empty_check=False)
    expected = [
        (f"{sample['__key__']}.{suffix}", content, sample["cls"].decode().strip())
        for sample in theirs
        if "cls" in sample
        for suffix, content in sample.items()
        if suffix.split(".")[-1] in ("jpg", "png", "webp")
    ]
    assert len(expected) == 8
    ours = [(entry.path, image, entry.source) for entry, image in found]
    assert [(p.replace("PNG", "png"), *rest) for p, *rest in ours] == expected


def test_labels_of_json_and_members(tmp_path):
    file = pack(tmp_path / "a.tar", samples(4))
    wanted = Columns("", "cls", "model", "", "meta.n", ("0",))
    found = [entry for entry, _ in read(open_shards(file, wanted))]
    assert found[:2] == [
        Entry("000/0000.jpg", "real", "a", "0", "", stated="0"),
        Entry("000/0001.jpg", "1", "b", "1", ""),
    ]
    plain = [entry for entry, _ in read(open_shards(file, Columns()))]
    assert plain[1] == Entry("000/0001.jpg", "", "unspecified", "000/0001.jpg", "")
    assert shard_columns(file) == ["model", "meta.n", "cls"]


def test_splits_of_json_and_of_names(tmp_path):
    for name, start in (("train-000", 0), ("train-001", 2), ("val-000", 4)):
        pack(tmp_path / f"{name}.tar", samples(2, start))
    found = read(open_shards(tmp_path, SOURCE))
    assert [e.split for e, _ in found] == ["train"] * 4 + ["val"] * 2
    file = pack(tmp_path / "x.tar", {"a.jpg": b"", "a.json": {"s": "dev"}})
    ((entry, _),) = read(open_shards(file, Columns(split="s")))
    assert entry.split == "val"


def test_places(tmp_path):
    for number in range(8, 12):
        pack(tmp_path / f"s-{number:03}.tar", samples(2, 2 * number))
    store = fsspec.filesystem("memory")
    for file in tmp_path.iterdir():
        store.pipe(f"/wds/{file.name}", file.read_bytes())
    expected = read(open_shards(tmp_path, SOURCE))
    assert [image for _, image in expected] == [b"image %d" % n for n in range(16, 24)]
    for folder in (str(tmp_path), "memory://wds"):
        for name in ("", "/s-{008..011}.tar", "/s-0{08,09,10,11}.tar", "/s-*.tar"):
            collection = open_shards(folder + name, SOURCE)
            assert [part.name for part in collection.parts] == [
                f"s-{number:03}.tar" for number in range(8, 12)
            ]
            assert read(collection) == expected
        with pytest.raises(InputError, match=f"{folder}/s-012.tar"):
            open_shards(folder + "/s-{008..012}.tar", SOURCE)


def test_one_of_several_images_is_named(tmp_path):
    members = {"a.left.jpg": b"l", "a.right.jpg": b"r", "a.txt": b"t"}
    file = pack(tmp_path / "a.tar", members)
    (bad,) = read(open_shards(file, Columns()))
    assert bad.path == "a.tar: a.left.jpg" and "a.right.jpg" in bad.reason
    for image, words in (
        ("", "a.tar, a.left.jpg.*a.right.jpg"),
        ("png", "a.tar, a.txt"),
    ):
        with pytest.raises(InputError, match=words):
            open_shards(file, Columns(image=image, source="txt"))
    found = read(open_shards(file, Columns(image="right.jpg", source="txt")))
    assert found == [
        (Entry("a.right.jpg", "t", "unspecified", "a.right.jpg", ""), b"r")
    ]


@pytest.mark.parametrize(
    "members, path",
    [
        ({"x.jpg": b""}, "x.jpg"),
        ({"x.json": {"model": "a"}}, "x.json"),
        ({"x.cls": b"1"}, "x.cls"),
        ({"x.jpg": b"", "x.png": b"", "x.json": {"model": "a"}}, "x.jpg"),
        ({"x.jpg": b"", "x.json": b'{"model": '}, "x.jpg"),
        ({"x.jpg": b"", "x.json": b"\xff\xfe\xfd"}, "x.jpg"),
        ({"x.jpg": b"", "x.json": b"[" * 100_000}, "x.jpg"),
        ({"x.jpg": b"", "x.json": ["model"]}, "x.jpg"),
        ({"x.jpg": b"", "x.json": {"other": "a"}}, "x.jpg"),
        ({"x.jpg": b"", "x.json": {"model": None}}, "x.jpg"),
        ({"x.jpg": b"", "x.cls": b"1"}, "x.jpg"),
    ],
)
def test_lonely_and_broken_members_are_listed(tmp_path, members, path):
    file = pack(tmp_path / "s.tar", samples(2) | members | samples(2, 8))
    found = read(open_shards(file, SOURCE))
    assert [image[1] for image in found if not isinstance(image, Unusable)] == [
        b"image %d" % n for n in (0, 1, 8, 9)
    ]
    (bad,) = [image for image in found if isinstance(image, Unusable)]
    assert bad.path == f"s.tar: {path}" and bad.reason


@pytest.mark.parametrize("member", [b"", b" \n", b"\xff\xfe"])
def test_texts_that_are_none_are_listed(tmp_path, member):
    members = {"a.jpg": b"", "a.txt": b"x", "b.jpg": b"", "b.txt": member}
    file = pack(tmp_path / "s.tar", members)
    _, bad = read(open_shards(file, Columns(source="txt")))
    assert (
        isinstance(bad, Unusable)
        and bad.path == "s.tar: b.jpg"
        and "b.txt" in bad.reason
    )


@pytest.mark.parametrize("opener", [open, gzip.open])
def test_what_stands_before_damage_is_read(tmp_path, opener):
    whole = [pack(tmp_path / f"{k}.tar", samples(40, 40 * k), opener) for k in range(3)]
    expected = read(open_shards(tmp_path, SOURCE))
    content = whole[1].read_bytes()
    counts = set()
    for length in range(
        0, len(content) - 12_000 * (opener is open), 1 + len(content) // 10
    ):
        whole[1].write_bytes(content[:length])
        found = read(open_shards(tmp_path, SOURCE))
        bad = [image for image in found if isinstance(image, Unusable)]
        assert bad[-1].path == "1.tar" and len(bad) <= 2  # and the sample that was cut
        good = [image for image in found if not isinstance(image, Unusable)]
        assert good[:40] == expected[:40] and good[-40:] == expected[-40:]
        assert good[40:-40] == expected[40 : 40 + len(good) - 80]
        counts.add(len(good))
    assert 80 in counts and max(counts) > 100


@pytest.mark.parametrize("opener", [open, gzip.open])
def test_what_stands_behind_the_end_is_not_passed_over(tmp_path, opener):
    whole = [pack(tmp_path / f"{k}.tar", samples(3, 4 * k), opener) for k in range(2)]
    expected = read(open_shards(whole[0], SOURCE))
    whole[0].write_bytes(b"".join(file.read_bytes() for file in whole))
    *found, bad = read(open_shards(whole[0], SOURCE))
    assert found == expected and bad.path == "0.tar" and bad.rest


def test_keys_with_dots_and_names_with_line_breaks(tmp_path):
    document = {"gen.v1": {"n.a": "x"}, "gen": {"v1": {"b": "y"}, "v2": {}}}
    file = pack(tmp_path / "a.tar", {"a\nb/c.jpg": b"i", "a\nb/c.json": document})
    for column, value in (("gen.v1.n.a", "x"), ("gen.v1.b", "y")):
        assert column in shard_columns(file)
        ((entry, image),) = read(open_shards(file, Columns(source=column)))
        assert (entry.path, entry.source, image) == ("a\nb/c.jpg", value, b"i")


@pytest.mark.parametrize("depth", [3, 600])
def test_keys_of_deep_json_are_listed(tmp_path, depth):
    text = b'{"a":' * depth + b"1" + b"}" * depth
    file = pack(tmp_path / "a.tar", {"a.jpg": b"", "a.json": text})
    assert shard_columns(file) == [".".join("a" * depth)]


@pytest.mark.parametrize("content", [b"", b"no tar at all" * 100])
def test_shards_that_are_none_are_listed(tmp_path, content):
    (tmp_path / "a.tar").write_bytes(content)
    (bad,) = read(open_shards(tmp_path, SOURCE))
    assert isinstance(bad, Unusable) and bad.path == "a.tar"


@pytest.mark.parametrize(
    "members, columns, words",
    [
        ([("a.jpg", b""), ("b.jpg", b""), ("a.cls", b"1")], SOURCE, "s.tar.*a.cls"),
        ([("a.jpg", b""), ("a.jpg", b"")], SOURCE, "s.tar.*a.jpg"),
        (
            {"a.jpg": b"", "a.json": {"model": [1]}},
            SOURCE,
            "s.tar, a.jpg.*source.*list",
        ),
        (
            {"a.jpg": b"", "a.json": {"model": 0.5}},
            SOURCE,
            "s.tar, a.jpg.*source.*float",
        ),
        ({"a.jpg": b"", "a.json": {"model": -1}}, SOURCE, "s.tar, a.jpg.*source.*-1"),
        (
            samples(1) | {"a.jpg": b"", "a.json": {"model": 1}},
            SOURCE,
            "s.tar, a.jpg.* 1 ",
        ),
        (
            samples(1) | {"a.jpg": b"", "a.cls": b"cat"},
            Columns(source="cls"),
            "s.tar, a.jpg.*'cat'",
        ),
        (samples(3), Columns(split="model"), "s.tar, 000/0000.jpg.*'a'"),
        (samples(3), Columns(source="meta.m"), "s.tar.*'meta.m'.*model, meta.n, cls"),
        (samples(3), Columns(source="txt"), "s.tar.*'txt'.*model, meta.n, cls"),
        ({"a.jpg": b"", "../b.jpg": b""}, Columns(), "s.tar.*b.jpg"),
    ],
)
def test_bad_shards_are_named_with_their_member(tmp_path, members, columns, words):
    file = pack(tmp_path / "s.tar", members)
    with pytest.raises(InputError, match=words):
        read(open_shards(file, columns))


def test_types_are_those_of_the_first_shard(tmp_path):
    pack(tmp_path / "a.tar", {"a.jpg": b"", "a.json": {"model": "x"}})
    pack(tmp_path / "b.tar", {"b.jpg": b"", "b.json": {"model": 3}})
    with pytest.raises(InputError, match="b.tar, b.jpg"):
        read(open_shards(tmp_path, SOURCE))


@pytest.mark.parametrize(
    "place", ["", "absent.tar", "{b,c}.tar", "*.tar", "{0..99999999999}.tar", "{2..1}"]
)
def test_places_without_shards_are_named(tmp_path, place):
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(InputError, match=f"{tmp_path}"):
        open_shards(f"{tmp_path}/{place}", SOURCE)
