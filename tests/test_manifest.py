"""Reading of trees and manifests, and the splits made from them."""

import os
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from rmjax.errors import InputError
from rmjax.prepare.lists import read_manifest
from rmjax.prepare.manifest import Row, read_tree
from rmjax.prepare.splits import assign_splits


def touch(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()


def write(
    folder: Path, text: str, name: str = "m.csv", encoding: str = "utf-8"
) -> Path:
    file = folder / name
    file.write_text(text, encoding=encoding)
    return file


def rows(groups: dict[str, list[str]], semantic: str = "cat") -> list[Row]:
    """Rows of the given sources by group."""
    return [
        Row(f"{source}/{semantic}/{group}", source, semantic, group, "", "here")
        for group, sources in groups.items()
        for source in sources
    ]


def test_tree_names_are_sorted_with_real_first(tmp_path):
    touch(
        tmp_path,
        "zgan/dog/1.png",
        "agan/cat/1.JPG",
        "real/dog/2.webp",
        "real/cat/1.png",
    )
    found = read_tree(tmp_path)
    assert found.source_names == ("real", "agan", "zgan")
    assert found.semantic_names == ("cat", "dog")
    assert [row.path for row in found.rows] == [
        "agan/cat/1.JPG",
        "real/cat/1.png",
        "real/dog/2.webp",
        "zgan/dog/1.png",
    ]
    assert found.rows[0].group == found.rows[1].group == "cat/1"
    assert found.rows[3].group == "dog/1"


def test_tree_passes_over_what_is_no_image(tmp_path):
    touch(
        tmp_path, "real/cat/1.png", "real/cat/.2.png", "real/cat/notes.txt", "README.md"
    )
    touch(tmp_path, ".cache/x/3.png")
    assert [row.path for row in read_tree(tmp_path).rows] == ["real/cat/1.png"]


def test_tree_tells_images_by_content_where_the_name_says_nothing(tmp_path, caplog):
    touch(tmp_path, "real/cat/1.png", "real/cat/notes.txt", "real/cat/page")
    names = ["1", "2.image", "3.dat"]
    for name, fmt in zip(names, ["PNG", "JPEG", "WEBP"], strict=True):
        (tmp_path / "agan/cat").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "agan/cat" / name, fmt)
    os.mkfifo(tmp_path / "agan/cat/pipe")
    found = read_tree(tmp_path)
    assert [row.path for row in found.rows] == [
        *(f"agan/cat/{name}" for name in [*names, "pipe"]),
        "real/cat/1.png",
    ]
    assert "1 .txt, 1 no suffix" in caplog.text


@pytest.mark.parametrize("files", [[], ["cat/notes.txt", "cat/page"]])
def test_tree_source_without_images_is_refused(tmp_path, files):
    touch(tmp_path, "real/cat/1.png", *(f"agan/{file}" for file in files))
    (tmp_path / "agan").mkdir(exist_ok=True)
    with pytest.raises(InputError, match="agan: a source without images") as error:
        read_tree(tmp_path)
    assert not files or "1 .txt, 1 no suffix" in str(error.value)


def test_tree_of_real_and_fake_folders(tmp_path):
    touch(tmp_path, "agan/0_real/1.png", "agan/1_fake/1.png")
    touch(tmp_path, "bgan/cat/0_real/1.png", "bgan/cat/1_fake/2.png")
    found = read_tree(tmp_path)
    assert found.source_names == ("real", "agan", "bgan")
    assert found.semantic_names == ("cat", "unspecified")
    assert [(row.path, row.source, row.semantic, row.split) for row in found.rows] == [
        ("agan/0_real/1.png", "real", "unspecified", ""),
        ("agan/1_fake/1.png", "agan", "unspecified", ""),
        ("bgan/cat/0_real/1.png", "real", "cat", ""),
        ("bgan/cat/1_fake/2.png", "bgan", "cat", ""),
    ]
    touch(tmp_path, "cgan/0_real/1.png", "cgan/1_fake/notes.txt")
    with pytest.raises(InputError, match="cgan: a source without images"):
        read_tree(tmp_path)
    touch(tmp_path, "bgan/cat/deep/0_real/1.png")
    with pytest.raises(InputError, match="by a CSV manifest"):
        read_tree(tmp_path)


@pytest.mark.parametrize("top", ["train", "val"])
def test_tree_of_real_and_fake_folders_under_splits_asks_for_a_list(tmp_path, top):
    touch(tmp_path, f"{top}/cat/0_real/1.png", f"{top}/cat/1_fake/1.png")
    with pytest.raises(InputError, match="by a CSV manifest"):
        read_tree(tmp_path)


@pytest.mark.parametrize("path", ["top.png", "real/1.png", "real/cat/old/1.png"])
def test_tree_of_another_depth_is_refused(tmp_path, path):
    touch(tmp_path, "real/cat/1.png", path)
    with pytest.raises(InputError, match=rf"{path}: an image at this depth; expected"):
        read_tree(tmp_path)


def test_tree_without_images_or_without_real_is_refused(tmp_path):
    with pytest.raises(InputError, match="missing: no such folder"):
        read_tree(tmp_path / "missing")
    with pytest.raises(InputError, match="no images found"):
        read_tree(tmp_path)
    touch(tmp_path, "agan/cat/1.png")
    with pytest.raises(InputError, match="no source is called 'real', only agan"):
        read_tree(tmp_path)


@pytest.mark.parametrize("link", ["real", "real/cat", "real/cat/1.png"])
def test_tree_link_that_leaves_the_root_is_refused(tmp_path, link):
    touch(tmp_path, "outside/cat/1.png", "outside/1.png", "root/agan/cat/1.png")
    target = {0: "outside", 1: "outside/cat", 2: "outside/1.png"}[link.count("/")]
    place = tmp_path / "root" / link
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(tmp_path / target)
    with pytest.raises(InputError, match=f"root/{link}.* link out of the root"):
        read_tree(tmp_path / "root")


def test_tree_link_within_the_root_is_followed(tmp_path):
    touch(tmp_path, "agan/cat/1.png")
    os.symlink("agan", tmp_path / "real")
    assert len(read_tree(tmp_path).rows) == 2


def test_manifest_keeps_the_order_of_labels_but_for_real(tmp_path):
    file = write(
        tmp_path,
        "path,label,dlabel,source,semantic,group,split\n"
        "a.png,2,1,real,dog,g1,train\n"
        "b.png,0,0,zgan,zebra,g1,train\n"
        "c.png,1,1,agan,dog,g2,test\n",
    )
    found = read_manifest(file)
    assert found.root == tmp_path
    assert found.source_names == ("real", "zgan", "agan")
    assert found.semantic_names == ("zebra", "dog")
    assert [(r.path, r.source, r.semantic, r.group, r.split) for r in found.rows] == [
        ("a.png", "real", "dog", "g1", "train"),
        ("b.png", "zgan", "zebra", "g1", "train"),
        ("c.png", "agan", "dog", "g2", "test"),
    ]


def test_manifest_without_names_reads_them_from_the_paths(tmp_path):
    file = write(
        tmp_path, "path,label,dlabel\nagan/cat/1.png,1,0\nreal/cat/x/1.png,0,0\n"
    )
    found = read_manifest(file, root=tmp_path)
    assert [(row.source, row.semantic) for row in found.rows] == [
        ("agan", "cat"),
        ("real", "cat"),
    ]
    assert found.rows[0].group != found.rows[1].group
    assert {row.split for row in found.rows} == {""}


def test_three_manifests_give_the_splits_by_their_names(tmp_path):
    files = [
        write(tmp_path, f"path,label,dlabel\nreal/cat/{name}.png,0,0\n", f"{name}.csv")
        for name in ("train", "val", "test")
    ]
    assert [row.split for row in read_manifest(files).rows] == ["train", "val", "test"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_what_spreadsheets_write_does_no_harm(tmp_path, encoding, line_end):
    lines = [
        *("# exported", "", "path, label, dlabel", "real/cat/1.png , 0, 0", ",,", " "),
        '"real/cat/a, b.png", 0, 0',
    ]
    (tmp_path / "m.csv").write_bytes(line_end.join(lines).encode(encoding))
    paths = [row.path for row in read_manifest(tmp_path / "m.csv").rows]
    assert paths == ["real/cat/1.png", "real/cat/a, b.png"]


@pytest.mark.parametrize(
    ("separator", "word"), [(";", "semicolons"), ("\t", "tabs"), ("|", "bars")]
)
def test_wrong_separator_is_named(tmp_path, separator, word):
    text = "path,label,dlabel\nreal/cat/1.png,0,0\n".replace(",", separator)
    with pytest.raises(InputError, match=f"line 1: no column path.* {word}"):
        read_manifest(write(tmp_path, text))


def test_columns_are_told_in_any_case(tmp_path):
    text = "PATH,Label,dlabel,Source\nreal/cat/1.png,0,0,real\nx/cat/1.png,1,0,agan\n"
    assert read_manifest(write(tmp_path, text)).source_names == ("real", "agan")


def test_list_that_is_a_pipe_is_refused(tmp_path):
    os.mkfifo(tmp_path / "m.csv")
    with pytest.raises(InputError, match="m.csv: .*not a regular file"):
        read_manifest(tmp_path / "m.csv")


def test_absolute_paths_within_the_root_are_made_relative(tmp_path):
    file = write(tmp_path, f"path,label,dlabel\n{tmp_path}/real/./cat/1.png,0,0\n")
    assert read_manifest(file).rows[0].path == "real/cat/1.png"


@pytest.mark.parametrize("listed", ["root", "link", "above/root", "inner"])
@pytest.mark.parametrize("root", ["root", "link", "above/root"])
def test_absolute_paths_and_root_may_be_reached_by_different_links(
    tmp_path, listed, root
):
    touch(tmp_path, "root/real/cat/1.png")
    os.symlink("root", tmp_path / "link")
    os.symlink(".", tmp_path / "above")
    os.symlink("root/real", tmp_path / "inner")
    path = tmp_path / listed / ("cat" if listed == "inner" else "real/cat") / "1.png"
    file = write(tmp_path, f"path,label,dlabel\n{path},0,0\n")
    assert read_manifest(file, root=tmp_path / root).rows[0].path == "real/cat/1.png"


def test_link_out_of_a_linked_root_is_refused_all_the_same(tmp_path):
    touch(tmp_path, "outside/1.png", "root/real/cat/2.png")
    os.symlink("root", tmp_path / "link")
    os.symlink("../../outside", tmp_path / "root/real/dog")
    for path in ("root/real/dog/1.png", "link/real/dog/1.png", "outside/1.png"):
        file = write(tmp_path, f"path,label,dlabel\n{tmp_path / path},0,0\n")
        for root in ("root", "link"):
            with pytest.raises(InputError, match="line 2: .*(link out of|outside)"):
                read_manifest(file, root=tmp_path / root)


HEADER = "path,label,dlabel,source,semantic\nok.png,0,0,real,cat\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\nreal/cat/1.png,0\n", "line 1: no column dlabel"),
        ("", "line 1: no column path, label, dlabel"),
        ("path,label,dlabel,label\n", "line 1: column label is there twice"),
        ("path,label,dlabel\n", "no rows"),
        (HEADER + "../1.png,0,0,real,cat\n", r"line 3: path '\.\./1\.png' is outside"),
        (HEADER + "a/../../1.png,0,0,real,cat\n", "line 3: .* is outside"),
        (HEADER + "/etc/1.png,0,0,real,cat\n", "line 3: path '/etc/1.png' is outside"),
        (HEADER + ",0,0,real,cat\n", "line 3: path '' is outside"),
        (HEADER + "1.png,0,0,real\n", "line 3: not 5 cells"),
        (HEADER + "1.png,0,0,real,cat,x\n", "line 3: not 5 cells"),
        (HEADER + "1.png,zero,0,real,cat\n", "line 3: label 'zero' is not an integer"),
        (HEADER + "1.png,0,-1,real,cat\n", "line 3: dlabel '-1' is not an integer"),
        (
            HEADER + "1.png,0,0,agan,cat\n",
            "line 3: label 0 is source 'agan' here, but 'real'",
        ),
        (
            HEADER + "1.png,1,0,real,cat\n",
            "line 3: source 'real' has label 1 here, but 0",
        ),
        (
            HEADER + "1.png,0,1,real,cat\n",
            "line 3: semantic 'cat' has dlabel 1 here, but 0",
        ),
        (HEADER + "1.png,0,0,real,\n", "line 3: empty semantic"),
        (
            HEADER + "ok.png,0,0,real,cat\n",
            "line 3: path 'ok.png' already given in .*line 2",
        ),
        (
            HEADER + "./ok.png,0,0,real,cat\n",
            "line 3: path 'ok.png' already given in .*line 2",
        ),
        (
            "path,label,dlabel\nreal/1.png,0,0\n",
            "line 2: .* has no folder for the semantic",
        ),
        ("path,label,dlabel\nagan/cat/1.png,1,0\n", "no source is called 'real'"),
        (
            "path,label,dlabel,split\nreal/cat/1.png,0,0,dev\n",
            "line 2: split 'dev'; the choices",
        ),
        (
            "path,label,dlabel,group,split\nreal/cat/1.png,0,0,g,train\nreal/cat/2.png,0,0,g,test\n",
            "line 3: group 'g' is in split 'test' here, but in 'train' in .*line 2",
        ),
    ],
)
def test_bad_manifest_is_refused_with_file_and_line(tmp_path, text, message):
    file = write(tmp_path, text)
    with pytest.raises(InputError, match=rf"^{file}.*{message}") as error:
        read_manifest(file)
    assert "\n" not in str(error.value)


def test_manifest_that_is_missing_or_no_text_is_refused(tmp_path):
    with pytest.raises(InputError, match="absent.csv: cannot read"):
        read_manifest(tmp_path / "absent.csv")
    (tmp_path / "m.csv").write_bytes(b"\xff\xfe\x00path")
    with pytest.raises(InputError, match="m.csv: cannot read"):
        read_manifest(tmp_path / "m.csv")
    file = write(tmp_path, HEADER)
    with pytest.raises(InputError, match="elsewhere: no such folder"):
        read_manifest(file, root=tmp_path / "elsewhere")


@pytest.mark.parametrize("linked", ["real/cat/1.png", "real/cat"])
def test_manifest_link_that_leaves_the_root_is_refused(tmp_path, linked):
    touch(tmp_path, "outside/1.png")
    place = tmp_path / "root" / linked
    place.parent.mkdir(parents=True)
    place.symlink_to(
        tmp_path / ("outside/1.png" if linked.endswith("png") else "outside")
    )
    file = write(tmp_path / "root", "path,label,dlabel\nreal/cat/1.png,0,0\n")
    with pytest.raises(InputError, match="line 2: .*real/cat/1.png lies behind a link"):
        read_manifest(file)


def test_splits_keep_groups_whole_and_sizes_to_within_a_group():
    given = rows({f"p{i}": ["real", "agan", "bgan"][: 1 + i % 3] for i in range(200)})
    made = assign_splits(given, seed=1, fractions=(0.7, 0.1, 0.2))
    by_group = {}
    for row in made:
        assert by_group.setdefault(row.group, row.split) == row.split
    counts = Counter(row.split for row in made)
    for split, share in (("train", 0.7), ("val", 0.1), ("test", 0.2)):
        assert abs(counts[split] - share * len(given)) <= 3
    for source in ("real", "agan", "bgan"):
        of_source = [row.split for row in made if row.source == source]
        assert abs(of_source.count("train") / len(of_source) - 0.7) < 0.05
    assert [row.path for row in made] == [row.path for row in given]


def test_splits_depend_on_the_seed_alone():
    given = rows({f"p{i}": ["real"] for i in range(60)})
    of = {row.group: row.split for row in assign_splits(given, seed=0)}
    assert of == {row.group: row.split for row in assign_splits(given[::-1], seed=0)}
    assert of != {row.group: row.split for row in assign_splits(given, seed=1)}
    # Known values: the same on every machine and in every later version.
    chosen = sorted(group for group, split in of.items() if split == "test")
    assert chosen == ["p11", "p22", "p28", "p44", "p54", "p9"]


def test_a_share_of_nothing_gets_nothing():
    given = rows({f"p{i}": ["real"] for i in range(50)})
    made = assign_splits(given, seed=0, fractions=(0.8, 0, 0.2))
    assert Counter(row.split for row in made) == {"train": 40, "test": 10}


@pytest.mark.parametrize(
    "fractions", [(0.8, 0.2), (0.8, 0.1, 0.2), (0, 0.5, 0.5), (1.2, -0.1, -0.1)]
)
def test_wrong_fractions_are_refused(fractions):
    with pytest.raises(InputError, match="split fractions"):
        assign_splits(rows({"p": ["real"]}), seed=0, fractions=fractions)


def test_splits_given_for_some_rows_only_are_refused():
    given = rows({"a": ["real"], "b": ["real"]})
    given[0] = Row("x", "real", "cat", "x", "train", "m.csv", 2)
    with pytest.raises(InputError, match="here/real/cat/b: no split"):
        assign_splits(given, seed=0)
