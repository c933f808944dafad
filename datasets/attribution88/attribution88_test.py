"""The attribution88 builder, on archives of the form of the published ones."""

import functools
import http.server
import io
import sys
import tarfile
import threading
from pathlib import Path

import pytest
import tensorflow_datasets as tfds
from PIL import Image

from rmjax.data.dataset import open_dataset
from rmjax.datasets.attribution88 import (
    CONFIGS,
    Builder,
    Config,
    attribution88_dataset_builder,
    prepare,
)
from rmjax.datasets.attribution88.make_archive import SEMANTICS, SOURCES, make_archive
from rmjax.errors import InputError

PER_CELL = 10


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("archive") / "Attribution88.tar.gz"
    make_archive(file, PER_CELL, size=16, show_progress=False)
    return file


def contents(archive: Path) -> dict[str, bytes]:
    with tarfile.open(archive) as tar:
        return {m.name: tar.extractfile(m).read() for m in tar if m.isreg()}


def jpeg(size: tuple[int, int] = (8, 8), colour: str = "red") -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", size, colour).save(stream, "JPEG")
    return stream.getvalue()


def small(**changes: bytes | None) -> dict[str, bytes]:
    """Files of a data set of two images a split; changes are by list."""
    files, rows = {}, {"train": [], "val": [], "test": []}
    for split, listed in rows.items():
        for label, source in enumerate(("real", "agan")):
            path = f"{source}/cat/{split}.jpg"
            files[path] = jpeg(colour=f"#{label}{len(split)}0000")
            listed.append(f"{path},{label},0")
        files[f"{split}.csv"] = "\n".join(["path,label,dlabel", *listed]).encode()
    files |= changes
    return {name: data for name, data in files.items() if data is not None}


def pack(file: Path, files: dict[str, bytes], *special: tarfile.TarInfo) -> Path:
    with tarfile.open(file, "w:gz" if file.suffix == ".gz" else "w") as tar:
        for member in special:
            tar.addfile(member)
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return file


def read_all(directory: Path) -> dict[str, tuple]:
    """Return (image, source, semantic, split) by path."""
    dataset = open_dataset(directory)
    found = {}
    for split in dataset.split_sizes:
        labels = dataset.labels(split)
        for i, record in enumerate(dataset.records(split)):
            assert record["source"] == labels["source"][i]
            assert record["semantic"] == labels["semantic"][i]
            names = (
                dataset.source_names[record["source"]],
                dataset.semantic_names[record["semantic"]],
            )
            found[record["path"].decode()] = (record["image"], *names, split)
    assert len(found) == sum(dataset.split_sizes.values())
    return found


def files_of(directory: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in directory.iterdir()}


def left_behind(data_dir: Path) -> list[Path]:
    # TFDS notes the default config there, whatever comes of it.
    files = (path for path in data_dir.rglob("*") if path.is_file())
    return [path for path in files if path.parent.name != ".config"]


def refused(tmp_path: Path, path: Path, message: str) -> None:
    """Check that an archive or folder is refused in one line and leaves nothing."""
    with pytest.raises(InputError, match=message) as error:
        prepare(Config(name="bad"), tmp_path / "data", path=path)
    assert "\n" not in str(error.value)
    assert not left_behind(tmp_path / "data")


def test_archive_is_written_and_read_back_byte_for_byte(archive, tmp_path):
    directory = prepare(Config(name="a"), tmp_path, path=archive)
    found = read_all(directory)
    images = {n: d for n, d in contents(archive).items() if n.endswith("jpg")}
    assert {name: image for name, (image, *_) in found.items()} == images
    for path, (_, source, semantic, _) in found.items():
        assert path.split("/")[1:3] == [source, semantic]
    dataset = open_dataset(directory)
    assert dataset.source_names == SOURCES and dataset.semantic_names == SEMANTICS
    assert dataset.split_sizes == {"train": 704, "val": 88, "test": 88}
    assert "tensorflow" not in sys.modules


def test_splits_are_those_of_the_lists(archive, tmp_path):
    found = read_all(prepare(Config(name="a"), tmp_path, path=archive))
    for name, data in contents(archive).items():
        if name.endswith("csv"):
            split = Path(name).stem
            paths = [line.split(",")[0] for line in data.decode().split()[1:]]
            expected = {f"Attribution88/{path}" for path in paths}
            assert {p for p, (*_, at) in found.items() if at == split} == expected


@pytest.mark.parametrize("order", [sorted, lambda names: sorted(names)[::-1]])
@pytest.mark.parametrize("folder", ["", "deep/down/"])
def test_lists_may_stand_anywhere(tmp_path, order, folder):
    files = {folder + name: data for name, data in small().items()}
    files = {name: files[name] for name in order(files)}
    found = read_all(
        prepare(Config(name="a"), tmp_path, path=pack(tmp_path / "a.tar", files))
    )
    assert found[f"{folder}agan/cat/val.jpg"][1:] == ("agan", "cat", "val")
    assert len(found) == 6


def test_paths_may_start_above_the_list(tmp_path):
    files = small()
    files["lists/train.csv"] = files.pop("train.csv")
    archive = pack(tmp_path / "a.tar.gz", files)
    assert len(read_all(prepare(Config(name="a"), tmp_path, path=archive))) == 6


def test_source_may_be_the_second_folder_in_the_test_list(tmp_path):
    files = small()
    for source in ("real", "agan"):
        files[f"test/{source}/cat/test.jpg"] = files.pop(f"{source}/cat/test.jpg")
    files["test.csv"] = files["test.csv"].replace(b"real/", b"test/real/")
    files["test.csv"] = files["test.csv"].replace(b"agan/", b"test/agan/")
    archive = pack(tmp_path / "a.tar.gz", files)
    found = read_all(prepare(Config(name="a"), tmp_path, path=archive))
    assert found["test/agan/cat/test.jpg"][1:] == ("agan", "cat", "test")


def test_real_is_label_0_whatever_its_folder_is_called(tmp_path):
    files = small()
    files = {
        name.replace("real/", "zoo/"): data.replace(b"real/", b"zoo/")
        for name, data in files.items()
    }
    directory = prepare(
        Config(name="a"), tmp_path, path=pack(tmp_path / "a.tar", files)
    )
    assert open_dataset(directory).source_names == ("zoo", "agan")


def test_processed_test_set_has_one_split(tmp_path):
    manual = tmp_path / "downloads" / "manual"
    manual.mkdir(parents=True)
    file = manual / "Attribution88_test.tar.gz"
    make_archive(file, 2, size=16, test_only=True, show_progress=False)
    dataset = open_dataset(prepare("test_processed", tmp_path))
    assert dataset.split_sizes == {"test": 176}
    assert dataset.source_names == SOURCES


def test_extracted_folder_gives_the_same(archive, tmp_path):
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path / "out", filter="data")
    config = Config(name="a")
    assert read_all(prepare(config, tmp_path / "f", path=tmp_path / "out")) == read_all(
        prepare(config, tmp_path / "a", path=archive)
    )


def test_number_of_processes_does_not_matter(archive, tmp_path):
    one, two = (
        prepare(Config(name="a"), tmp_path / str(n), path=archive, processes=n)
        for n in (1, 2)
    )
    assert files_of(one) == files_of(two)


def test_subset_keeps_the_shares_of_the_splits(archive, tmp_path):
    config = Config(
        name="some",
        sources=("gan2", "real"),
        semantics=SEMANTICS[3:5],
        images_per_cell=5,
    )
    directory = prepare(config, tmp_path, path=archive)
    dataset = open_dataset(directory)
    assert dataset.source_names == ("real", "gan2")
    assert dataset.semantic_names == SEMANTICS[3:5]
    # Of 10 images 8, 1 and 1; half of them, rounded up.
    assert dataset.split_sizes == {"train": 16, "val": 4, "test": 4}
    assert prepare(config, tmp_path, path=archive) == directory
    with pytest.raises(InputError, match="prepared from other images"):
        prepare(Config(name="some"), tmp_path, path=archive)
    with pytest.raises(InputError, match="source 'gan9'.* real"):
        prepare(Config(name="x", sources=("gan9",)), tmp_path, path=archive)
    with pytest.raises(InputError, match="images_per_cell = 0"):
        prepare(Config(name="x", images_per_cell=0), tmp_path, path=archive)
    with pytest.raises(InputError, match="real has to be among them, source 0"):
        prepare(Config(name="x", sources=("gan1",)), tmp_path, path=archive)


def test_another_archive_of_the_same_name_is_refused(archive, tmp_path):
    directory = prepare(Config(name="a"), tmp_path, path=archive)
    assert prepare(Config(name="a"), tmp_path) == directory  # whatever it was
    other = pack(tmp_path / "other.tar.gz", small())
    with pytest.raises(InputError, match="was prepared from other images"):
        prepare(Config(name="a"), tmp_path, path=other)
    with pytest.raises(InputError, match="absent.tar: no such file"):
        prepare(Config(name="a"), tmp_path, path=tmp_path / "absent.tar")


@pytest.mark.parametrize("name", ["../evil", "a/b", "", "a b"])
def test_wrong_name_is_refused(archive, tmp_path, name):
    with pytest.raises(InputError, match="data set name"):
        prepare(Config(name=name), tmp_path, path=archive)


def test_download_that_fails_is_one_line(tmp_path, monkeypatch):
    handler = functools.partial(
        http.server.SimpleHTTPRequestHandler, directory=tmp_path
    )
    monkeypatch.setattr(
        http.server.SimpleHTTPRequestHandler, "log_message", lambda *_: None
    )
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/"
        monkeypatch.setattr(attribution88_dataset_builder, "ADDRESS", address)
        with pytest.raises(InputError, match="cannot download http://127") as error:
            prepare("full", tmp_path, download=True)
        server.shutdown()
    assert "\n" not in str(error.value)
    assert not left_behind(tmp_path)


def test_archive_is_looked_for_and_can_be_downloaded(archive, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="no Attribution88.tar.gz in .*manual: put it"):
        prepare("full", tmp_path)
    handler = functools.partial(
        http.server.SimpleHTTPRequestHandler, directory=archive.parent
    )
    handler.log_message = lambda *_: None
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/"
        monkeypatch.setattr(attribution88_dataset_builder, "ADDRESS", address)
        directory = prepare("full", tmp_path, download=True)
        server.shutdown()
    assert sum(open_dataset(directory).split_sizes.values()) == 880


@pytest.mark.parametrize("share", [0.3, 0.999])
def test_truncated_archive_is_refused(archive, tmp_path, share):
    file = tmp_path / "a.tar.gz"
    file.write_bytes(archive.read_bytes()[: int(share * archive.stat().st_size)])
    refused(tmp_path, file, f"{file}: truncated or damaged")


def test_other_files_are_refused(tmp_path):
    refused(tmp_path, tmp_path / "absent.tar", "absent.tar: no such file or folder")
    (tmp_path / "no.tar.gz").write_bytes(b"no archive at all")
    refused(
        tmp_path, tmp_path / "no.tar.gz", "no.tar.gz: truncated or damaged, or no tar"
    )
    pack(tmp_path / "a.tar", {"x.jpg": jpeg()})
    refused(tmp_path, tmp_path / "a.tar", "a.tar: no train.csv, val.csv, test.csv")
    (tmp_path / "empty").mkdir()
    refused(tmp_path, tmp_path / "empty", "empty: no train.csv, val.csv, test.csv")


@pytest.mark.parametrize("name", ["../out.jpg", "/etc/out.jpg", "a/../../out.jpg"])
def test_member_outside_the_root_is_refused(tmp_path, name):
    file = pack(tmp_path / "a.tar", small() | {name: jpeg()})
    refused(tmp_path, file, f"member '{name}' is outside the archive's root")


def test_links_and_strangers_in_an_archive_are_passed_over(tmp_path):
    link = tarfile.TarInfo("real/cat/link.jpg")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    strange = {"real/cat/\udcff.jpg": jpeg(), "notes.txt": b"hello"}
    file = pack(tmp_path / "a.tar", small() | strange, link)
    assert len(read_all(prepare(Config(name="a"), tmp_path, path=file))) == 6


def test_link_that_a_list_names_counts_as_missing(tmp_path):
    link = tarfile.TarInfo("real/cat/train.jpg")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    files = small()
    del files["real/cat/train.jpg"]
    file = pack(tmp_path / "a.tar", files, link)
    refused(
        tmp_path, file, "1 of 6 .* more than 1%.*real/cat/train.jpg: not in the arch"
    )


def test_link_out_of_an_extracted_folder_is_refused(tmp_path):
    with tarfile.open(pack(tmp_path / "a.tar", small())) as tar:
        tar.extractall(tmp_path / "out", filter="data")
    (tmp_path / "out/real/cat/train.jpg").unlink()
    (tmp_path / "out/real/cat/train.jpg").symlink_to("/etc/passwd")
    refused(
        tmp_path, tmp_path / "out", "train.csv, line 2: .*train.jpg lies behind a link"
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"val.csv": b"path,label\nreal/cat/val.jpg,0\n"},
            "val.csv, line 1: no column",
        ),
        (
            {
                "train.csv": b"path,label,dlabel\nreal/cat/train.jpg,0,0\nagan/cat/train.jpg,1\n"
            },
            "train.csv, line 3: not 3 cells",
        ),
        (
            {
                "val.csv": b"path,label,dlabel\nreal/cat/val.jpg,1,0\nagan/cat/val.jpg,1,0\n"
            },
            "val.csv, line 2: label 1 is source 'real' here, but 'agan'",
        ),
        (
            {"val.csv": b"path,label,dlabel\n../val.jpg,0,0\n"},
            "line 2: path .* is outside",
        ),
        ({"val.csv": b"\xff\xfe\x00"}, "val.csv: cannot read"),
        (
            {"val.csv": b"path,label,dlabel\nreal/cat/test.jpg,0,0\n"},
            "val.csv, line 2: real/cat/test.jpg is in test.csv, line 2 as well|"
            "test.csv, line 2: real/cat/test.jpg is in val.csv, line 2 as well",
        ),
        (
            {"train.csv": b"path,label,dlabel\nagan/cat/train.jpg,1,0\n"}
            | {"val.csv": None, "test.csv": None},
            "a.tar.gz: no image has label 0",
        ),
        (
            {"val.csv": b"path,label,dlabel,group\nreal/cat/val.jpg,0,0,g\n"}
            | {"test.csv": b"path,label,dlabel,group\nreal/cat/test.jpg,0,0,g\n"},
            "test.csv, line 2: group 'g' is in split 'test' here, but in 'val'",
        ),
        (
            {"real/cat/val.jpg": None},
            "1 of 6 images cannot be used.*val.jpg: not in the",
        ),
        ({"real/cat/val.jpg": b""}, "1 of 6 .*val.jpg: the file is empty"),
        ({"real/cat/val.jpg": b"GIF89a"}, "1 of 6 .*val.jpg: "),
        ({"real/cat/val.jpg": jpeg()[:-30]}, "1 of 6 .*val.jpg: unreadable image"),
    ],
)
def test_bad_content_is_refused_with_its_place(tmp_path, changes, message):
    refused(tmp_path, pack(tmp_path / "a.tar.gz", small(**changes)), message)


def test_image_that_declares_a_huge_size_is_not_decoded(tmp_path):
    data = bytearray(jpeg())
    frame = data.index(b"\xff\xc0") + 5
    data[frame : frame + 4] = b"\xff\xff\xff\xff"  # height and width
    file = pack(tmp_path / "a.tar.gz", small(**{"real/cat/val.jpg": bytes(data)}))
    refused(tmp_path, file, "val.jpg: declares far more than the 100,000,000 pixels")


def test_few_bad_images_are_left_out_and_listed(archive, tmp_path):
    files = contents(archive)
    paths = sorted(name for name in files if name.endswith("jpg"))[:3]
    files[paths[0]] = b""
    files[paths[1]] = files[paths[1]][:-30]
    del files[paths[2]]
    file = pack(tmp_path / "a.tar", files)
    directory = prepare(Config(name="a"), tmp_path, path=file)
    lines = (directory / "left_out.txt").read_text().splitlines()
    assert [line.split("\t")[0] for line in lines[:2]] == paths[:2]
    # As it stands in the list: the archive has no other name for it.
    assert lines[2] == f"{paths[2].removeprefix('Attribution88/')}\tnot in the archive"
    assert len(read_all(directory)) == 877


def test_metadata_is_what_tfds_expects(tmp_path):
    builder = Builder(config="subset", data_dir=tmp_path)
    assert builder.name == "attribution88"
    assert set(Builder.builder_configs) == set(CONFIGS)
    metadata = builder.get_metadata()
    assert metadata.description.strip() and metadata.citation.strip()
    assert set(metadata.tags) <= set(tfds.core.dataset_metadata.valid_tags())
