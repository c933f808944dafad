# ruff: noqa: F811
"""Data sets, runs and images in an object store: moto's server, which speaks S3."""

import io
import shutil
from pathlib import Path

import jax
import numpy as np
import pyarrow.parquet as pq
import pytest
from matplotlib.figure import Figure
from object_store import bucket, knowing_nobody, refusing, store  # noqa: F401
from PIL import Image
from test_checkpoints import make_state
from test_sweep import GOOD, SHALLOW, options, swept  # noqa: F401
from test_sweep_runner import Made

from rmjax.cli.main import main
from rmjax.data.dataset import find_dataset, open_dataset
from rmjax.data.image_files import read_bytes, walk_images
from rmjax.data.listing import list_images
from rmjax.errors import InputError, TrainingError
from rmjax.evaluation.evaluate import evaluate
from rmjax.evaluation.results import find_evaluation, new_folder, read_results
from rmjax.experiment.checkpoints import Checkpoints, load_variables, saved_steps
from rmjax.experiment.log import read_log
from rmjax.hub.push import push
from rmjax.inference.attributor import load_pretrained
from rmjax.inference.exported import SHIPPED
from rmjax.prepare.lists import read_manifest
from rmjax.prepare.manifest import SPLITS, fingerprint, read_tree
from rmjax.prepare.manifest_parts import collection_of
from rmjax.prepare.split_lists import read_archive_lists, read_folder_lists
from rmjax.report import page
from rmjax.sweep.runner import run_all
from rmjax.training.train import train
from rmjax.utils.files import (
    move_folder,
    read_json,
    remove_tree,
    replace_bytes,
    replaced,
)
from rmjax.utils.locks import NoLocks, locked
from rmjax.utils.places import absolute, as_path, filesystem, open_bytes, walk


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A folder to work in, in which no address may end up as a folder `s3:`."""
    monkeypatch.chdir(tmp_path)
    yield
    assert not Path("s3:").exists() and not Path("/s3").exists()


def put(folder, place):
    """Copy a folder to a store; return its address."""
    for file in folder.rglob("*"):
        if file.is_file():
            target = as_path(place) / file.relative_to(folder).as_posix()
            target.write_bytes(file.read_bytes())
    return place


def names_in(place):
    system, name = filesystem(place)
    return sorted(f.removeprefix(f"{name}/") for f in system.find(name))


@pytest.mark.parametrize(
    ("place", "named"),
    [
        ("s3://there-is-no-such-bucket/x", "there-is-no-such-bucket"),
        ("s3://Bad_Name!/x", "Bad_Name!"),
        ("memory://x/y", "memory://"),
        ("az://x/y", "adlfs"),
    ],
)
def test_places_that_are_none_are_refused_in_a_line(store, capsys, place, named):
    for command in (
        ["evaluate", "--workdir", place],
        ["audit", "attribution_mini", "--data-dir", place],
    ):
        assert main(command) == 2
        line = capsys.readouterr().err.strip()
        assert "\n" not in line and place in line and named in line


@pytest.mark.parametrize(
    "command",
    [
        ["audit", "attribution_mini", "--out"],
        ["evaluate", "--workdir", "run", "--cache-dir"],
        ["export", "--out"],
    ],
    ids=" ".join,
)
def test_what_is_for_this_machine_refuses_addresses(bucket, capsys, command):
    with pytest.raises(SystemExit, match="2"):
        main([*command, f"{bucket}/x.safetensors"])
    line = capsys.readouterr().err.strip()
    assert "\n" not in line and f"{bucket}/x" in line
    assert names_in(bucket) == []


def test_a_store_that_does_not_answer_as_it_should(bucket, capsys, monkeypatch):
    def error_of(place):
        assert main(["report", "--workdir", place]) == 2
        line = capsys.readouterr().err.strip()
        assert "\n" not in line
        return line

    place = f"{bucket}/run"
    denied = knowing_nobody(error_of)(place)
    assert place in denied and "permission" in denied
    system, _ = filesystem("s3://")
    monkeypatch.setattr(type(system), "cachable", False)
    monkeypatch.setattr(type(system), "retries", 1)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with monkeypatch.context() as patch:
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.delenv(name)
        line = error_of(place)
        assert place in line and "credentials" in line
    with monkeypatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
        line = error_of(place)
        assert place in line and "127.0.0.1:1" in line


def test_a_store_that_is_lost_on_the_way_is_said_in_a_line(bucket, capsys, monkeypatch):
    system, _ = filesystem("s3://")
    real, calls = type(system)._call_s3, []

    async def call(self, *arguments, **options):
        calls.append(arguments)
        if len(calls) > 4:
            raise Exception("no answer from http://lost")
        return await real(self, *arguments, **options)

    monkeypatch.setattr(type(system), "_call_s3", call)
    assert main(["report", "--workdir", f"{bucket}/run"]) == 2
    assert len(calls) > 4
    line = capsys.readouterr().err.strip()
    assert "\n" not in line and "http://lost" in line


def test_files_appear_whole_or_not_at_all(bucket, refusing):
    place = as_path(bucket) / "folder [1]" / "a*b?.bin"
    replace_bytes(place, b"old")
    with pytest.raises(OSError, match="full") as caught, replaced(place) as scratch:
        scratch.write_bytes(b"ne")
        raise OSError(28, "disk full")
    assert caught.value.filename == str(place)
    refusing.append("a*b")
    with pytest.raises(OSError, match="Access Denied") as caught:
        replace_bytes(place, b"new")
    assert caught.value.filename == str(place)
    assert place.read_bytes() == b"old" and names_in(bucket) == ["folder [1]/a*b?.bin"]


def test_folders_are_moved_and_removed_whatever_their_names(bucket):
    files = {"[1]/a": b"1", "[1]/b/c?": b"2", "1/a": b"3", "*1": b"4"}
    for name, data in files.items():
        (as_path(bucket) / name).write_bytes(data)
    move_folder(as_path(bucket) / "[1]", as_path(bucket) / "*")
    assert names_in(bucket) == ["*/a", "*/b/c?", "*1", "1/a"]
    assert (as_path(bucket) / "*" / "b" / "c?").read_bytes() == b"2"
    remove_tree(as_path(bucket) / "*")
    remove_tree(as_path(bucket) / "none")
    assert names_in(bucket) == ["*1", "1/a"]


def test_a_place_has_no_locks_and_stays_where_it_is(bucket):
    with pytest.raises(NoLocks, match=bucket), locked(as_path(bucket) / ".lock", ""):
        pass
    assert str(absolute(as_path(f"{bucket}/x"))) == f"{bucket}/x"


def test_parts_of_a_file_are_read_here_and_there(bucket):
    data = np.random.default_rng(0).bytes(300_000)
    (as_path(bucket) / "x").write_bytes(data)
    with open_bytes(as_path(bucket) / "x") as file:
        assert file.peek(2)[:2] == data[:2]
        file.seek(-7, 2)
        assert file.read() == data[-7:]
        file.seek(100_000)
        assert file.read(50) == data[100_000:100_050]


def test_a_prepared_data_set_is_as_its_copy_here(mini_dir, bucket):
    ours = open_dataset(find_dataset(mini_dir, "attribution_mini"))
    theirs = open_dataset(find_dataset(put(mini_dir, bucket), "attribution_mini"))
    assert theirs.split_sizes == ours.split_sizes
    assert theirs.source_names == ours.source_names
    for split, size in ours.split_sizes.items():
        numbers = [size - 1, 0, 3, 3]
        assert theirs.files(split).read(numbers) == ours.files(split).read(numbers)
        assert theirs.records(split)[1] == ours.records(split)[1]
        for name, labels in ours.labels(split).items():
            np.testing.assert_array_equal(theirs.labels(split)[name], labels)
    assert f"{theirs.directory}/labels-val.npz".removeprefix(f"{bucket}/") in names_in(
        bucket
    )


def test_labels_of_a_bucket_that_may_not_be_written_to(mini_dir, bucket, refusing):
    folder = find_dataset(put(mini_dir, bucket), "attribution_mini")
    remove = names_in(bucket)
    refusing.append("labels-")
    assert len(open_dataset(folder).labels("val")["source"])
    assert names_in(bucket) == remove


def test_a_damaged_shard_is_named(mini_dir, bucket):
    folder = find_dataset(put(mini_dir, bucket), "attribution_mini")
    (shard,) = folder.glob("*-val.array_record*")
    shard.write_bytes(shard.read_bytes()[:70_000])
    with pytest.raises(InputError, match=str(shard)):
        open_dataset(folder).files("val").read([0])


def test_checkpoints_are_kept_and_come_back_and_what_is_cut_never_counts(
    bucket, refusing
):
    checkpoints = Checkpoints(as_path(bucket) / "run/checkpoints", keep_best=1)
    folder = checkpoints.folder
    for step, loss in enumerate([3.0, 1.0, 2.0, None], start=1):
        checkpoints.save(make_state(step), {"stale": step}, loss)
    checkpoints.wait()
    assert saved_steps(folder) == [2, 3, 4]
    assert {name.split("/")[0] for name in names_in(folder)} == {"2", "3", "4"}
    opened = Checkpoints(folder, read_only=True)
    assert opened.best_step() == 2
    state, progress = opened.restore(3, make_state(0))
    jax.tree.map(np.testing.assert_array_equal, state, make_state(3))
    assert progress == {"stale": 3}
    variables, step = load_variables(folder, {"params": make_state(0).params}, "last")
    assert step == 4
    np.testing.assert_array_equal(variables["params"]["w"], np.arange(3) + 4)

    for refused in ("5/default/checkpoint.npz", "5/commit_success"):
        refusing.append(refused)
        checkpoints.save(make_state(5), {"stale": 5}, 0.5)
        with pytest.raises(TrainingError, match=f"checkpoint 5.*{folder}"):
            checkpoints.wait()
        assert saved_steps(folder) == [2, 3, 4]
        refusing.clear()
    checkpoints.save(make_state(5), {"stale": 5}, 0.5)
    checkpoints.close()
    assert saved_steps(folder) == [4, 5]


def test_what_a_kill_leaves_of_a_checkpoint_never_counts(bucket):
    folder = as_path(bucket) / "run/checkpoints"
    checkpoints = Checkpoints(folder)
    for step in (1, 2):
        checkpoints.save(make_state(step), {"stale": step})
    checkpoints.close()
    (folder / "2" / "commit_success.txt").unlink()  # a process that ends before it
    (folder / "3" / "default" / "checkpoint.npz").write_bytes(b"cut")
    (folder / "4" / "commit_success.txt").write_bytes(b"")  # what is removed but for it
    assert saved_steps(folder) == [1, 4]
    checkpoints = Checkpoints(folder)
    assert checkpoints.restore_last(make_state(0))[1] == {"stale": 1}
    assert names_in(folder)[-1] == "4.damaged/commit_success.txt"
    assert {name.split("/")[0] for name in names_in(folder)} == {"1", "4.damaged"}
    checkpoints.save(make_state(2), {"stale": 2})
    checkpoints.close()
    assert saved_steps(folder) == [1, 2]


def test_an_evaluation_that_is_cut_does_not_pass_for_whole(bucket, refusing):
    run = as_path(bucket) / "run"
    place = run / "evaluation" / "clean"
    for number in (1, 2):
        with new_folder(place) as folder:
            (folder / "results.json").write_text(str(number))
            (folder / f"{number}.npz").write_bytes(b"x")
        assert find_evaluation(run) == place
        assert names_in(place) == [f"{number}.npz", "results.json"]
    refusing.append("predictions")
    with pytest.raises(InputError, match=str(place)), new_folder(place) as folder:
        (folder / "results.json").write_text("3")
        (folder / "predictions.npz").write_bytes(b"x")
    with pytest.raises(InputError, match="no run|no evaluation"):
        find_evaluation(run)


def test_a_run_in_a_store_is_as_one_here(
    swept, small_config, mini_dir, bucket, refusing, capsys, monkeypatch
):
    data, run = put(mini_dir, f"{bucket}/data"), f"{bucket}/runs/mine"
    config, twin = small_config(**SHALLOW, **{"data.dir": data}), swept / GOOD / "seed0"
    refusing.append("checkpoints/8/")
    with pytest.raises(TrainingError, match=f"{run}/checkpoints"):
        train(config, run, show_progress=False)
    assert saved_steps(as_path(run) / "checkpoints") == [4]
    refusing.clear()
    train(config, run, show_progress=False)
    ours, theirs = read_log(twin), read_log(as_path(run))
    for row in ours + theirs:
        for name in ("data_wait", "images_per_second"):
            row.pop(name, None)
    assert theirs == ours
    assert any(name.startswith("tensorboard/") for name in names_in(run))

    assert main(["evaluate", "--workdir", run]) == 0
    monkeypatch.setattr(page, "draw_figures", lambda *_: {"one": Figure((1, 1))})
    assert main(["report", "--workdir", run]) == 0
    folder = as_path(run) / "evaluation" / "clean"
    expected = read_results(twin / "evaluation" / "clean")
    for figures in ("cells", "summary", "confusion", "calibration", "open_set"):
        assert read_results(folder)[figures] == expected[figures]
    assert (folder / "report.html").exists()
    assert f"{folder}/results.json" in capsys.readouterr().out

    picture = as_path(bucket) / "images" / "real" / "a.png"
    Image.new("RGB", (40, 40), "red").save(file := io.BytesIO(), "PNG")
    picture.write_bytes(file.getvalue())
    Path("list.csv").write_text(f"path\n{picture}\n")
    command = ["embed", "--images", "list.csv", "--workdir", run]
    assert main([*command, "--out", f"{bucket}/table.parquet"]) == 0
    with open_bytes(as_path(f"{bucket}/table.parquet")) as table:
        assert pq.read_table(table)["path"].to_pylist() == [str(picture)]


def test_what_runs_print_and_fail_of_is_kept_as_here(bucket, tmp_path, refusing):
    def run(folder, code):
        one, ended = Made(folder, "one", (code,)), []
        run_all([one], [{}], lambda _, *how: ended.append(how[0]))
        log, failed = one.file("log"), one.file("failed")
        return ended, log.read_text(), failed.exists() and failed.read_text()

    for code in ("print(1)", "raise SystemExit('no')", "print(2)"):
        theirs = run(as_path(bucket), code)
        assert theirs == run(tmp_path, code)
    assert theirs[1].count("\n$ ") == 3
    refusing.append("one.log")
    with pytest.raises(OSError, match=f"Access Denied.*{bucket}/logs/one.log"):
        run(as_path(bucket), code)


def test_a_sweep_that_lies_in_a_store_is_known_and_collected(
    swept, options, bucket, capsys
):
    place = as_path(put(swept, f"{bucket}/sweep"))
    (place / "sweep.csv").unlink()
    command = [*options, "--workdir", str(place), "--seeds", "2", "--grid"]
    assert main([*command, "optim.lr=1e-3"]) == 0
    assert (place / "sweep.csv").read_text() == (swept / "sweep.csv").read_text()
    assert str(place / "sweep.html") in capsys.readouterr().out


def test_a_sweep_that_may_not_be_written_says_so_before_it_runs(
    options, bucket, refusing, capsys
):
    refusing.append("sweep.json")
    grid = ["--grid", "optim.lr=1e-3", "--workdir", f"{bucket}/sweep"]
    assert main([*options, *grid]) == 2
    assert f"{bucket}/sweep/sweep.json" in capsys.readouterr().err.splitlines()[-1]
    assert names_in(bucket) == []


@pytest.mark.slow
def test_a_sweep_in_a_store_runs_and_goes_on_as_one_here(
    small_config, options, bucket, tmp_path, refusing, capsys
):
    rates = {"optim.lr=0.001": 1e-3, "optim.lr=0.01": 1e-2}
    place, here = as_path(bucket) / "sweep", tmp_path / "sweep"
    command = [*options, "--grid", "optim.lr=1e-3,1e-2", "--workdir"]
    for label, rate in rates.items():
        config = small_config(**SHALLOW, **{"optim.lr": rate})
        train(config, here / label / "seed0", show_progress=False)
        evaluate(here / label / "seed0")
    refusing.append("checkpoints/8/")
    with pytest.raises(TrainingError):  # which ends it after the checkpoint 4
        train(config, place / label / "seed0", show_progress=False)
    refusing.clear()
    before = names_in(place)
    assert main([*command, str(place), "--dry-run"]) == 0
    assert "1 missing, 1 unfinished" in capsys.readouterr().out
    assert names_in(place) == before
    for folder in (here, place, place):  # the second time there, all is done
        assert main([*command, str(folder)]) == 0
    assert (place / "sweep.csv").read_text() == (here / "sweep.csv").read_text()
    for label in rates:
        log = (place / "logs" / f"{label},seed0.log").read_text()
        assert log.count("\n$ ") == 2 and f"trained: {place}/{label}/seed0" in log
    names = [{path.name for path in (at / "figures").iterdir()} for at in (place, here)]
    assert names[0] == names[1]


def test_a_run_in_a_store_is_pushed_as_one_here(swept, mini_dir, bucket, monkeypatch):
    def files(folder, *_):
        found = (file for file in folder.rglob("*") if file.is_file())
        return {file.relative_to(folder): file.read_bytes() for file in found}

    monkeypatch.setenv("HF_TOKEN", "x")
    monkeypatch.setattr("rmjax.hub.push._upload", files)
    run = swept / GOOD / "seed0"
    place = as_path(put(run, f"{bucket}/seed0"))
    for name in ("config.json", "evaluation/clean/results.json"):
        text = (place / name).read_text().replace(str(mini_dir), f"{bucket}/data")
        (place / name).write_text(text)
    pushed = push(place, "hf:user/mine")
    assert pushed == push(run, "hf:user/mine")
    assert not any(bucket.encode() in data for data in pushed.values())


def test_figures_of_a_gallery_lie_beside_the_run(swept, bucket, monkeypatch):
    monkeypatch.setattr("rmjax.gallery.benchmark.format_benchmark", str)
    monkeypatch.setattr("rmjax.gallery.evaluate.format_gallery_evaluation", str)
    for where in ("benchmark.benchmark_extractor", "evaluate.evaluate_gallery"):
        monkeypatch.setattr(f"rmjax.gallery.{where}", lambda *_, **__: {"k": 1})
    place = as_path(put(swept / GOOD / "seed0" / "evaluation", f"{bucket}/run"))
    assert main(["gallery", "evaluate", "--workdir", str(place)]) == 0
    assert main(["gallery", "benchmark", "--workdir", str(place), "--data", "x"]) == 0
    for name in ("gallery_benchmark.json", "gallery_evaluation.json"):
        assert read_json(place / name) == {"k": 1}


def test_a_file_of_weights_is_read_as_here(bucket):
    place = as_path(bucket) / "net.safetensors"
    place.write_bytes(SHIPPED.read_bytes())
    assert load_pretrained(place).digest == load_pretrained(SHIPPED).digest
    (as_path(bucket) / "others/model.safetensors").write_bytes(b"x")
    for name in ("none", "others"):
        with pytest.raises(InputError, match=f"{bucket}/{name}"):
            load_pretrained(f"{bucket}/{name}")


def test_images_are_listed_as_here(tree, bucket):
    place = put(tree, f"{bucket}/images")
    (as_path(place) / "list.csv").write_text("path\nreal/cat/0.png\n")
    Path("list.csv").write_text(f"path\n{place}/real/cat/0.png\n")
    ours, count = list_images(tree, known=("real",))
    theirs, found = list_images(place, known=("real",))
    assert found == count
    for a, b in zip(ours(), theirs(), strict=True):
        assert (a.path, a.source, a.read()) == (b.path, b.source, b.read())
    for listed in (f"{place}/list.csv", "list.csv"):
        (item,) = list_images(listed)[0]()
        assert item.read() == (tree / "real/cat/0.png").read_bytes()


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A folder of images with all that a tree may hold, and lists of it."""
    root = tmp_path_factory.mktemp("tree") / "images"
    rows = []
    for source in ("real", "gan"):
        for semantic in ("cat", "dog [1]"):
            folder = root / source / semantic
            folder.mkdir(parents=True)
            for number in range(3):
                file = folder / f"{number}.png"
                Image.new("RGB", (8 + number, 8)).save(file)
                labels = ["real", "gan"].index(source), len(semantic)
                rows.append((file.relative_to(root).as_posix(), *labels))
    shutil.copy(root / "real/cat/0.png", root / "real/cat/no suffix")
    (root / "real/cat/notes.txt").write_text("no image")
    (root / ".hidden").mkdir()
    (root / ".hidden/x.png").write_bytes(b"")
    for split, own in zip(SPLITS, (rows[::3], rows[1::3], rows[2::3]), strict=True):
        lines = ["path,label,dlabel", *(",".join(map(str, row)) for row in own)]
        (root / f"{split}.csv").write_text("\n".join(lines))
    return root


def sizes(manifest):
    return [(len(part.rows), part.size) for part in collection_of(manifest).parts]


def test_trees_and_lists_are_read_as_here(tree, bucket):
    place = put(tree, f"{bucket}/images")
    seen = []
    assert [*walk_images(as_path(place), seen.append)] == [*walk_images(tree)]
    assert [str(p) for p in seen] == ["test.csv", "train.csv", "val.csv"] + [
        "real/cat/notes.txt"
    ]
    lists = [f"{split}.csv" for split in SPLITS]
    of_lists = [[f"{root}/{name}" for name in lists] for root in (tree, place)]
    for ours, theirs in (
        (read_tree(tree), read_tree(place)),
        (read_manifest(of_lists[0]), read_manifest(of_lists[1])),
        (read_manifest(of_lists[0]), read_manifest(of_lists[0], root=place)),
        (read_folder_lists(tree), read_folder_lists(as_path(place))),
    ):
        assert [row.path for row in theirs.rows] == [row.path for row in ours.rows]
        assert [row.split for row in theirs.rows] == [row.split for row in ours.rows]
        assert fingerprint(theirs) == fingerprint(ours)
        assert sizes(theirs) == sizes(ours)
        row = theirs.rows[-1].path
        assert read_bytes(theirs.root / row) == read_bytes(ours.root / row)


def test_an_archive_is_read_as_here(tree, bucket):
    shutil.make_archive("a", "gztar", tree.parent, "images")
    place = as_path(bucket) / "a.tar.gz"
    place.write_bytes(Path("a.tar.gz").read_bytes())
    ours, theirs = read_archive_lists(Path("a.tar.gz")), read_archive_lists(place)
    assert theirs.rows == ours.rows
    assert sizes(theirs) == sizes(ours)
    place.write_bytes(Path("a.tar.gz").read_bytes()[:-100])
    with pytest.raises(InputError, match=str(place)):
        read_archive_lists(place)


@pytest.mark.parametrize("path", ["../x.png", "s3://other/x.png", "/etc/x.png", "."])
def test_paths_that_leave_the_bucket_are_refused(tree, bucket, path):
    place = put(tree, f"{bucket}/images")
    (as_path(place) / "train.csv").write_text(f"path,label,dlabel\n{path},0,0\n")
    with pytest.raises(InputError, match=r"train\.csv, line 2"):
        read_manifest(f"{place}/train.csv")


def test_what_is_wrong_with_a_single_image_is_said(bucket, refusing, monkeypatch):
    (as_path(bucket) / "folder" / "empty.png").write_bytes(b"")
    assert read_bytes(f"{bucket}/folder/empty.png") == b""
    for name in ("none.png", "folder"):
        with pytest.raises(InputError, match=f"{bucket}/{name}"):
            read_bytes(f"{bucket}/{name}")
    monkeypatch.setattr("rmjax.data.image_files.MAX_BYTES", 10)
    (as_path(bucket) / "large.png").write_bytes(bytes(11))
    with pytest.raises(InputError, match=r"large\.png.*10"):
        read_bytes(f"{bucket}/large.png")
    with pytest.raises(InputError, match=f"{bucket}/none"):
        list_images(f"{bucket}/none")


def test_folders_without_a_name_are_named(bucket):
    system, name = filesystem(bucket)
    system.pipe_file(f"{name}/tree//x.png", b"x")
    with pytest.raises(InputError, match=f"{bucket}/tree//"):
        [*walk(as_path(bucket) / "tree")]
