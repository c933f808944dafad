"""`rmjax prepare` of the published benchmarks, from the command line."""

import json

import pytest
from PIL import Image

from rmjax.cli import prepare
from rmjax.cli.main import main
from rmjax.datasets.attribution88.make_archive import make_archive
from rmjax.prepare.benchmarks import BENCHMARKS


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    file = tmp_path_factory.mktemp("archive") / "Attribution88.tar.gz"
    make_archive(file, 10, size=16, show_progress=False)
    return file


def error_line(capsys, *arguments):
    """Run a command that must fail; return its status and its last line."""
    status = main(["prepare", *map(str, arguments)])
    *_, line = capsys.readouterr().err.strip().splitlines()
    return status, line


def test_attribution88(archive, tmp_path, capsys):
    command = ["prepare", "attribution88", "--data-dir", str(tmp_path)]
    subset = "--name some --sources real,gan1 --images-per-cell 5".split()
    assert main([*command, "--from", str(archive), *subset, "--processes", "1"]) == 0
    out = capsys.readouterr().out
    assert f"data set:  {tmp_path}/attribution88/some/1.0.0" in out
    assert "images:    train 88, val 22, test 22" in out


def test_attribution88_errors(archive, tmp_path, capsys):
    command = ("attribution88", "--data-dir", tmp_path)
    status, line = error_line(capsys, *command)
    assert status == 2 and "no Attribution88.tar.gz in" in line and "--from" in line
    status, line = error_line(capsys, *command, "--config", "half")
    assert status == 2 and "choose from full, test_processed, subset" in line
    status, line = error_line(capsys, *command, "--images-per-cell", 5)
    assert status == 2 and "--name: give a subset of your own a name" in line
    with pytest.raises(SystemExit) as caught:
        main(["prepare", *map(str, command), "--processes", "0"])
    assert caught.value.code == 2 and "--processes" in capsys.readouterr().err
    assert not (tmp_path / "attribution88" / "full").exists()
    named = (*command, "--from", archive, "--name", "zero")
    status, line = error_line(capsys, *named, "--images-per-cell", 0)
    assert status == 2 and "images_per_cell = 0" in line
    with pytest.raises(SystemExit):
        main(["prepare", *map(str, named), "--sources", "real,,gan1"])
    assert "'real,,gan1' has an empty name" in capsys.readouterr().err


def test_image_attribution_bench(tmp_path, capsys):
    for source in ("real", "gan"):
        for group in ("AnimalFace/cat", "COCO"):
            folder = tmp_path / "tree" / source / group
            folder.mkdir(parents=True)
            for i in range(10):
                Image.new("RGB", (8, 8), f"#0000{i:02x}").save(folder / f"{i}.png")
    command = (
        f"prepare image_attribution_bench --tree {tmp_path}/tree --data-dir {tmp_path}"
    )
    assert main(command.split()) == 0
    assert "images:    train 32, val 4, test 4" in capsys.readouterr().out


def test_annotation_list(tmp_path, capsys):
    for source in ("real", "gan", "other"):
        (tmp_path / source).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / source / "0.png")
    (tmp_path / "train.txt").write_text("real/0.png\t0\ngan/0.png\t1\n")
    (tmp_path / "out.txt").write_text("other/0.png\t0\n")
    command = f"prepare annotation_list --name l --data-dir {tmp_path}/data"
    lists = f"--list train={tmp_path}/train.txt --unknown arch={tmp_path}/out.txt"
    assert main([*command.split(), *lists.split()]) == 0
    out = capsys.readouterr().out
    assert "sources:   real, gan, other\nunknown:   other\n" in out
    assert "images:    train 2, unknown_arch 1" in out
    again = [*lists.split()[:2]] * 2
    status, line = error_line(capsys, *command.split()[1:], *again)
    assert status == 2 and "--list: each name once" in line
    with pytest.raises(SystemExit):
        main([*command.split(), "--list", "train.txt"])
    assert "'train.txt' is not NAME=FILE" in capsys.readouterr().err


def test_verify_writes_a_data_sheet_and_fails_where_something_is_wrong(
    archive, tmp_path, capsys
):
    command = ["attribution88", "--from", str(archive), "--data-dir", str(tmp_path)]
    assert main(["prepare", *command, "--name", "all", "--verify"]) == 0
    folder = tmp_path / "attribution88" / "all" / "1.0.0"
    assert f"datasheet: {folder}/datasheet.md" in capsys.readouterr().out
    assert json.loads((folder / "datasheet.json").read_text())["images"] == 880
    # Not the published figures: 12,000 images in each of the 88 cells.
    status, line = error_line(capsys, *command, "--verify")
    assert status == 2 and "88 cells without 12000 images; see" in line


def test_verify_finds_duplicates_across_splits(tmp_path, capsys):
    for source in ("real", "gan"):
        folder = tmp_path / "tree" / source / "cat"
        folder.mkdir(parents=True)
        for i in range(20):
            Image.new("RGB", (8, 8), f"#{len(source):02x}00{i:02x}").save(
                folder / f"{i}.png"
            )
    for source in ("real", "gan"):  # in another group, so maybe in another split
        folder = tmp_path / "tree" / source / "cat"
        for i in range(10):
            (folder / f"again{i}.png").write_bytes((folder / f"{i}.png").read_bytes())
    command = ("image_folder", "--name", "twice", "--tree", tmp_path / "tree")
    status, line = error_line(capsys, *command, "--data-dir", tmp_path, "--verify")
    assert status == 2 and "20 contents that occur twice; see" in line
    sheet = (tmp_path / "image_folder/twice/1.0.0/datasheet.md").read_text()
    assert "again3.png" in sheet and "across splits" in sheet


def test_every_benchmark_has_its_command():
    assert prepare.BENCHMARKS.keys() == BENCHMARKS.keys()
