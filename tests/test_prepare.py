# ruff: noqa: F811
"""Preparing collections part by part: splits, checks, kills, Beam, equal records."""

import contextlib
import errno
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hub_stand_in import serve
from object_store import bucket, store  # noqa: F401

from rmjax.data.columns import Columns
from rmjax.data.dataset import Dataset, find_dataset, open_dataset
from rmjax.data.direct import FORMATS
from rmjax.data.parts import Collection, Entry, Unusable
from rmjax.datasets import attribution_mini
from rmjax.datasets.image_folder import prepare as prepare_folder
from rmjax.datasets.shards import prepare
from rmjax.datasets.shards.make_shards import (
    SEMANTICS,
    SOURCES,
    draw_samples,
    make_shards,
    write_parquet,
)
from rmjax.errors import InputError
from rmjax.prepare import records, survey, write
from rmjax.prepare.resume import MADE_FROM
from rmjax.prepare.survey import SplitByHash, make_units, name_classes
from rmjax.utils.places import filesystem
from rmjax.utils.processes import ordered_map

COLUMNS = Columns(source="model", semantic="class")
IMAGES, PER_FILE = 480, 40
LAUNCH = Path(__file__).parents[1] / "launch"


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("files")
    for format in [*FORMATS]:
        folder = root / format
        make_shards(
            format, folder, IMAGES, per_file=PER_FILE, size=16, show_progress=False
        )
    return root


@pytest.fixture
def small_units(monkeypatch):
    """A unit for each file."""
    monkeypatch.setattr(survey, "_SMALLEST_UNIT", 1)
    monkeypatch.setattr(survey, "_FEWEST_UNITS", IMAGES)


def make(files: Path, format: str, data_dir: Path, **options) -> Path:
    return prepare(
        format, "a", data_dir, place=files / format, columns=COLUMNS, **options
    )


def by_image(dataset: Dataset) -> dict[bytes, tuple]:
    return {
        record["image"]: (
            split,
            dataset.source_names[record["source"]],
            dataset.semantic_names[record["semantic"]],
        )
        for split in dataset.split_sizes
        for record in dataset.records(split)
    }


def written(directory: Path) -> dict[str, bytes]:
    """Return all but what tells the place that the images came from."""
    return files_of(directory) | {MADE_FROM: b""}


def files_of(directory: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in directory.iterdir()}


@pytest.mark.parametrize("format", [*FORMATS])
def test_images_are_written_as_they_were_with_their_labels(files, tmp_path, format):
    dataset = open_dataset(make(files, format, tmp_path))
    found = by_image(dataset)
    assert {image: labels[1:] for image, labels in found.items()} == {
        sample.data: (SOURCES[sample.source], SEMANTICS[sample.semantic])
        for sample in draw_samples(IMAGES, 16)
    }
    assert dataset.source_names == SOURCES
    train = dataset.split_sizes["train"]
    assert abs(train - 0.8 * IMAGES) < 4 * (IMAGES * 0.8 * 0.2) ** 0.5
    for split in dataset.split_sizes:
        labels = dataset.labels(split)
        stored = [(r["source"], r["semantic"]) for r in dataset.records(split)]
        assert stored == list(zip(labels["source"], labels["semantic"], strict=True))


def test_number_of_processes_does_not_matter(files, tmp_path, small_units):
    one, two = (make(files, "parquet", tmp_path / str(n), processes=n) for n in (1, 2))
    assert len(list(one.glob("*-train.array_record*"))) == IMAGES // PER_FILE
    assert files_of(one) == files_of(two)


@pytest.mark.parametrize("format", [*FORMATS])
def test_beam_writes_the_same_files(files, tmp_path, small_units, format):
    options = pytest.importorskip("apache_beam.options.pipeline_options")
    runner = options.PipelineOptions(["--runner=DirectRunner"])
    beam = make(files, format, tmp_path / "beam", beam_options=runner)
    assert files_of(beam) == files_of(make(files, format, tmp_path / "local"))


class Killed(BaseException):
    """Ends a preparation as Ctrl-C does: what is whole stays."""


@pytest.mark.parametrize("format", [*FORMATS])
def test_killed_at_ten_moments_it_goes_on_and_ends_the_same(
    files, tmp_path, small_units, monkeypatch, format
):
    whole = files_of(make(files, format, tmp_path / "whole"))
    count = 0

    def write_or_die(self, *record):
        nonlocal count
        count += 1
        if count in moments:
            raise Killed
        write_record(self, *record)

    moments = set(np.random.default_rng(0).integers(1, IMAGES, 10).tolist())
    write_record = records.SplitWriter.write
    monkeypatch.setattr(records.SplitWriter, "write", write_or_die)
    for _ in moments:
        with pytest.raises(Killed):
            make(files, format, tmp_path, resume=True)
        with pytest.raises(InputError, match="no prepared data set"):
            find_dataset(tmp_path, f"{format}/a")
    assert files_of(make(files, format, tmp_path, resume=True)) == whole
    assert count < IMAGES + 11 * PER_FILE  # whole units are not written again


@pytest.mark.slow
@pytest.mark.parametrize("format", [*FORMATS])
def test_ten_sigkills_of_a_preparation(files, tmp_path, small_units, format):
    whole = files_of(make(files, format, tmp_path / "whole"))
    command = (
        "from rmjax.prepare import survey, write\n"
        "from rmjax.datasets.shards import prepare\n"
        "from rmjax.data.columns import Columns\n"
        "import time\n"
        f"survey._SMALLEST_UNIT, survey._FEWEST_UNITS = 1, {IMAGES}\n"
        "images = write._images\n"
        "def slow(unit, bad):\n"
        "    for image in images(unit, bad):\n"
        "        time.sleep(0.002)\n"
        "        yield image\n"
        "write._images = slow\n"
        f"prepare({format!r}, 'a', {str(tmp_path)!r}, place={str(files / format)!r},\n"
        f"    columns={COLUMNS!r}, resume=True, processes=1)"
    )
    folder = tmp_path / format / "a" / "1.0.0"
    rng = np.random.default_rng(1)
    for _ in range(10):
        process = subprocess.Popen([sys.executable, "-c", command])
        before = len(list(folder.glob("units/*.npz")))
        while (
            len(list(folder.glob("units/*.npz"))) <= before
            and folder.exists()
            or (not folder.exists())
        ):
            assert process.poll() is None
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.08))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        with pytest.raises(InputError, match="no prepared data set"):
            find_dataset(tmp_path, f"{format}/a")
    assert files_of(make(files, format, tmp_path, resume=True)) == whole


@pytest.mark.parametrize("format", [*FORMATS])
def test_files_of_a_store_are_prepared_into_it(files, tmp_path, bucket, format):
    system, name = filesystem(bucket)
    system.put(str(files / format), f"{name}/{format}", recursive=True)
    local = make(files, format, tmp_path)
    remote = prepare(
        format, "a", f"{bucket}/data", place=f"{bucket}/{format}", columns=COLUMNS
    )
    assert written(remote) == written(local)
    found = open_dataset(remote)
    numbers = range(found.split_sizes["val"])
    wanted = open_dataset(local).files("val").read(numbers)
    assert found.files("val").read(numbers) == wanted


def test_tree_of_a_store_is_prepared_into_it(tmp_path, bucket):
    for source in ("real", "agan"):
        (tmp_path / "tree" / source / "cat").mkdir(parents=True)
        for sample in draw_samples(30, 16):
            file = tmp_path / "tree" / source / "cat" / f"{source}{sample.name}.jpg"
            file.write_bytes(sample.data)
    system, name = filesystem(bucket)
    system.put(str(tmp_path / "tree"), f"{name}/tree", recursive=True)
    local = prepare_folder("a", tmp_path, tree=tmp_path / "tree")
    remote = prepare_folder("a", f"{bucket}/data", tree=f"{bucket}/tree")
    assert files_of(remote) == files_of(local)


def test_drawn_data_set_goes_to_a_store(bucket):
    directory = attribution_mini.prepare(bucket, 5, size=32, processes=1)
    assert find_dataset(bucket, "attribution_mini") == directory
    assert sum(open_dataset(directory).split_sizes.values()) == 5 * 88


@pytest.mark.parametrize("moment", [3, 475])
def test_preparation_that_fails_in_a_store_leaves_nothing_that_counts(
    files, bucket, small_units, monkeypatch, moment
):
    def fail(self, *record):
        nonlocal moment
        moment -= 1
        if not moment:
            raise OSError(errno.ENETUNREACH, "Network is unreachable")
        write_record(self, *record)

    write_record = records.SplitWriter.write
    system, name = filesystem(bucket)
    with monkeypatch.context() as patched:
        patched.setattr(records.SplitWriter, "write", fail)
        with pytest.raises(InputError, match="Network is unreachable"):
            make(files, "parquet", bucket)
    assert not system.find(name)
    with monkeypatch.context() as patched:
        moment = 200
        patched.setattr(records.SplitWriter, "write", fail)
        with pytest.raises(InputError, match="Network is unreachable"):
            make(files, "parquet", bucket, resume=True)
    with pytest.raises(InputError, match="no prepared data set"):
        find_dataset(bucket, "parquet/a")
    dataset = open_dataset(make(files, "parquet", bucket, resume=True))
    assert sum(dataset.split_sizes.values()) == IMAGES


@pytest.mark.parametrize("revision", ["", "@refs/convert/parquet"])
def test_data_set_of_the_hub_is_read_there(files, tmp_path, revision):
    """One that is in parquet files, and one of which the Hub has made some."""
    content = {f"data/{f.name}": f.read_bytes() for f in (files / "parquet").iterdir()}
    with serve() as hub:
        name = "datasets/user/faces"
        hub.add(name, {"README.md": b""} if revision else content)
        if revision:
            hub.repos[name].commit(content, "refs/convert/parquet")
        command = ["prepare", "parquet", "--from", "hf:user/faces", "--data-dir"]
        command += [tmp_path, "--source", "model", "--semantic", "class"]
        subprocess.run(
            [sys.executable, "-m", "rmjax.cli", *command],
            env=os.environ | {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf")},
            check=True,
        )
        asked = [part for _, path, part in hub.requests if "/resolve/" in path]
    dataset = open_dataset(find_dataset(tmp_path, "parquet/faces"))
    local = open_dataset(make(files, "parquet", tmp_path))
    assert {*by_image(dataset)} == {*by_image(local)}
    assert all(part for part in asked)  # ranges alone: no file was downloaded


def free_port() -> int:
    with socket.create_server(("localhost", 0)) as server:
        return server.getsockname()[1]


def wait_for(port: int) -> None:
    """Wait until a server answers, for a minute at most."""
    for _ in range(600):
        with contextlib.suppress(OSError):
            socket.create_connection(("localhost", port)).close()
            return
        time.sleep(0.1)


@pytest.mark.slow
def test_workers_of_a_portable_runner_write_the_same(files, tmp_path, small_units):
    """By launch/beam.sh: Beam's own job server, or one of Flink or Spark if it is given."""
    job_service = "apache_beam.runners.portability.local_job_service_main"
    pytest.importorskip(job_service)
    with contextlib.ExitStack() as stack:
        endpoint = os.environ.get("BEAM_JOB_ENDPOINT")
        ports = free_port(), free_port()
        if endpoint is None:
            endpoint = f"localhost:{ports[0]}"
            command = [sys.executable, "-m", job_service, f"--job_port={ports[0]}"]
            stack.callback(subprocess.Popen(command).kill)
            wait_for(ports[0])
        started = subprocess.run(
            [LAUNCH / "beam.sh", "parquet", "--from", files / "parquet"]
            + ["--name", "a", "--source", "model", "--semantic", "class"]
            + ["--data-dir", tmp_path / "beam"],
            env=os.environ
            | {
                "BEAM_JOB_ENDPOINT": endpoint,
                "BEAM_WORKERS_PORT": str(ports[1]),
                "RMJAX": str(Path(sys.executable).with_name("rmjax")),
            },
            timeout=300,
        )
    assert started.returncode == 0
    beam = find_dataset(tmp_path / "beam", "parquet/a")
    local = make(files, "parquet", tmp_path / "local")
    assert by_image(open_dataset(beam)) == by_image(open_dataset(local))


def test_files_that_were_written_anew_are_others(files, tmp_path):
    """Of the same names and sizes, with other labels."""
    shutil.copytree(files / "parquet", tmp_path / "parquet")
    make(tmp_path, "parquet", tmp_path)
    first, *_ = sorted((tmp_path / "parquet").glob("*.parquet"))
    size = first.stat().st_size
    samples = [s._replace(source=s.source // 2) for s in draw_samples(PER_FILE, 16)]
    write_parquet(first, samples)
    assert abs(first.stat().st_size - size) < 100
    with pytest.raises(InputError, match="parquet/a"):
        make(tmp_path, "parquet", tmp_path)


def test_resume_refuses_what_was_begun_from_other_images(
    files, tmp_path, small_units, monkeypatch
):
    def die(*arguments):
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(write, "unfinished", die)
        patched.setattr("rmjax.prepare.builder.unfinished", die)
        with pytest.raises(Killed):
            make(files, "parquet", tmp_path)
    with pytest.raises(InputError, match="begun from other"):
        make(files, "parquet", tmp_path, resume=True, seed=1)
    directory = make(files, "parquet", tmp_path, seed=1)  # anew
    assert open_dataset(directory).split_sizes


@dataclass(frozen=True)
class Listed:
    """A part of images that are listed, all with the same bytes."""

    rows: tuple[Entry | Unusable, ...]
    name: str = "listed"
    size: int = 1

    def entries(self):
        yield from self.rows

    def images(self):
        for row in self.rows:
            yield row if isinstance(row, Unusable) else (row, b"x")


def row(path: str, source: str = "real", group: str = "", split: str = "") -> Entry:
    return Entry(path, source, "cat", group or path, split)


def survey_of(*parts: Listed) -> list[survey.Survey]:
    here = partial(ordered_map, processes=1)
    return survey.survey(make_units(parts), SplitByHash(), here)


def test_path_that_is_there_twice_is_refused_with_both_places():
    with pytest.raises(InputError, match="second: a is in first as well"):
        survey_of(Listed((row("b"), row("a")), "first"), Listed((row("a"),), "second"))


def test_group_in_two_splits_is_refused_with_both_places():
    first, second = (
        row("a", group="g", split="train"),
        row("b", group="g", split="test"),
    )
    with pytest.raises(InputError, match="B: b: group 'g' .*'test'.*'train'.* A: a"):
        survey_of(Listed((first,), "A"), Listed((second,), "B"))


def test_a_group_is_looked_for_in_all_units():
    """Also where one has only images that are their own group."""
    originals = Listed((row("a", split="train"), row("b", split="train")), "A")
    edits = Listed((row("c", group="a", split="test"),), "B")
    here = partial(ordered_map, processes=1)
    with pytest.raises(InputError, match="B: c: group 'a' .*'test'.*'train'.* A: a"):
        survey.survey([(originals,), (edits,)], SplitByHash(), here)


@dataclass(frozen=True)
class Changing(Listed):
    """A part that holds other images when it is read than when it was surveyed."""

    later: tuple[Entry | Unusable, ...] = ()

    def images(self):
        return Listed(self.later).images()


@pytest.mark.parametrize(
    "later", [(row("a", split="train"),), (row("a", split="train"), row("b", "x"))]
)
def test_a_part_that_changes_while_it_is_read_is_told(tmp_path, later):
    rows = row("a", split="train"), row("b", split="train")
    unit = (Changing(rows, "part", later=later),)
    (found,) = survey.survey([unit], SplitByHash(), partial(ordered_map, processes=1))
    (task,), shards = write.plan_tasks([unit], [found])
    encoder = records.Encoder(["real"], ["cat"], lambda data, name: None)
    total = 100  # one of which may be left out
    writer = write.Writer(tmp_path, "a", "set", shards, total, SplitByHash(), encoder)
    with pytest.raises(InputError, match="part: "):
        writer(task)
    assert not [*tmp_path.iterdir()]


def test_two_preparations_into_one_folder_of_a_store_do_not_mix(
    files, bucket, monkeypatch
):
    def another_comes_first(*arguments):
        monkeypatch.setattr("rmjax.prepare.builder.finish", write.finish)
        make(files, "parquet", bucket, seed=1)
        return write.finish(*arguments)

    monkeypatch.setattr("rmjax.prepare.builder.finish", another_comes_first)
    with pytest.raises(InputError, match="parquet/a"):
        make(files, "parquet", bucket)


def test_names_of_real_photographs_are_looked_for():
    part = Listed((Entry("a", "real", "cat", "a", "", stated="photo"), row("b", "x")))
    found = Collection("place", (part,), stated=("photo",))
    assert name_classes(found, survey_of(part))[0] == ("real", "x")
    with pytest.raises(InputError, match="place: .*'foto'.*real, x$"):
        name_classes(replace(found, stated=("photo", "foto")), survey_of(part))


def test_hash_that_leaves_no_group_to_train_on_is_told():
    part = Listed(tuple(row(f"{i}", group="g") for i in range(60)))
    here = partial(ordered_map, processes=1)
    in_test = next(s for s in map(SplitByHash, range(99)) if s(part.rows[0]) == "test")
    with pytest.raises(InputError, match="train"):
        survey.survey([(part,)], in_test, here)


def test_groups_stay_together_and_shares_are_met():
    splitter = SplitByHash(0, (0.5, 0.25, 0.25))
    rows = [row(f"{i}", group=f"{i // 2}") for i in range(4000)]
    splits = [splitter(entry) for entry in rows]
    assert splits[::2] == splits[1::2]
    shares = [splits.count(name) / len(splits) for name in ("train", "val", "test")]
    np.testing.assert_allclose(shares, splitter.fractions, atol=0.03)
    other = SplitByHash(1, splitter.fractions)
    assert [other(entry) for entry in rows] != splits
    assert splitter(row("a", split="test")) == "test"


@pytest.mark.parametrize("fractions", [(0.5, 0.5), (0, 0.5, 0.5), (0.8, 0.1, 0.2)])
def test_wrong_fractions_are_refused(fractions):
    with pytest.raises(InputError, match="sum to 1"):
        SplitByHash(0, fractions)


def test_names_keep_their_order_and_those_without_images_are_told(caplog):
    part = Listed((row("a", "b"), row("b", "c"), row("c"), row("d", "x")))
    order = ("c", "none", "b")
    named = Collection("place", (part,), order, ("dog", "cat"))
    sources, semantics = name_classes(named, survey_of(part))
    assert sources == ("real", "c", "b", "x")
    assert semantics == ("dog", "cat")
    assert "none" in caplog.text


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ((row("a", "x"), row("b", "y")), "'real', only x, y.*--real"),
        ((row("a"), row("b", "Unknown")), "'Unknown': rename it"),
        ((row("a"), row("b", "x\ny")), "rename it"),
        ((Unusable("a", "broken"),), "place: no images that could be used"),
    ],
)
def test_sources_that_cannot_be_are_refused(rows, message):
    part = Listed(rows)
    with pytest.raises(InputError, match=message):
        name_classes(Collection("place", (part,)), survey_of(part))


@pytest.mark.parametrize("parts", [99, 100])
def test_shards_that_end_early_may_be_one_in_a_hundred(parts):
    whole = [Listed((row(f"{i}"),), f"{i}.tar") for i in range(parts - 1)]
    damaged = Listed((row("x"), Unusable("x.tar", "ends early", rest=True)), "x.tar")
    if parts == 100:
        (found,) = survey_of(*whole, damaged)
        assert found.unusable == 1
        return
    with pytest.raises(InputError, match="1 of 99 files .*x.tar: ends early"):
        survey_of(*whole, damaged)


@pytest.mark.parametrize("names", [("1", "2", "10"), ("1", "10", "2", "a")])
def test_numbers_are_ordered_as_numbers(names):
    part = Listed(tuple(row(name, name) for name in {*names, "real"}))
    found, _ = name_classes(Collection("place", (part,)), survey_of(part))
    assert found == ("real", *names)


def test_parts_are_put_together_to_units_and_never_cut(monkeypatch):
    monkeypatch.setattr(survey, "_SMALLEST_UNIT", 10)
    parts = [Listed((), str(i), size) for i, size in enumerate((4, 4, 4, 90, 3, 3))]
    units = [[part.name for part in unit] for unit in make_units(parts)]
    assert units == [["0", "1", "2"], ["3"], ["4", "5"]]
