"""Kills, damage, full disks, lost files: after each, the run ends the same, to the bit.

`RMJAX_SLOW=1 pytest -s tests/test_faults.py` adds the sweep of twenty kills and prints
the table of docs/faults.md.
"""

import contextlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import defaultdict

import jax
import numpy as np
import pytest

from rmjax.data.dataset import find_dataset, open_dataset
from rmjax.errors import InputError, TrainingError
from rmjax.experiment.checkpoints import saved_steps
from rmjax.experiment.config import flatten, load_config
from rmjax.experiment.log import read_log
from rmjax.training import train as training

TOTAL, EPOCH = 24, 8


@pytest.fixture(scope="module")
def config(small_config):
    """24 steps, a checkpoint every 5, a validation every 8."""
    return small_config(
        **{
            "model.arch": "shallow",  # compiled soon
            "steps_per_epoch": EPOCH,
            "num_epochs": TOTAL // EPOCH,
            "checkpoint_every_steps": 5,
            "log_every_steps": 1,
        }
    )


def train(config, workdir, **changes):
    config = config.copy_and_resolve_references()
    config.update_from_flattened_dict(changes)
    return training.train(config, workdir, show_progress=False)


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory):
    """The workdir and the last state of a run that nothing happened to."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    return workdir, train(config, workdir)


@pytest.fixture(scope="module")
def half(config, tmp_path_factory):
    """The workdir of a run after 16 steps, with the checkpoints 8, 13 and 16."""
    workdir = tmp_path_factory.mktemp("half") / "run"
    train(config, workdir, num_epochs=2)
    assert saved_steps(workdir / "checkpoints") == [8, 13, 16]
    return workdir


@pytest.fixture
def workdir(half, tmp_path):
    """A copy of it, to be spoilt."""
    return shutil.copytree(half, tmp_path / "run")


@pytest.fixture(scope="module")
def table():
    """Map a fault to (step it came at, step after which the run went on), or None."""
    found = defaultdict(list)
    yield found
    print("\n\n| fault | times | resumed after step | steps lost | ends the same |")
    print("| --- | --- | --- | --- | --- |")
    for fault, cases in found.items():
        known = [case for case in cases if case is not None]
        after = ", ".join(str(resumed) for _, resumed in known)
        lost = ", ".join(str(at - resumed) for at, resumed in known)
        print(f"| {fault} | {len(cases)} | {after} | {lost} | {len(cases)} |")


@pytest.fixture
def ends_the_same(config, whole, table, caplog):
    """Function: run the command again and compare the last state, to the bit."""

    def check(fault, workdir, at, resumed):
        caplog.clear()
        with caplog.at_level("INFO", logger="rmjax"):
            state = train(config, workdir)
        jax.tree.map(np.testing.assert_array_equal, state, whole[1])
        assert (f"resuming after step {resumed}" in caplog.messages) == (resumed > 0)
        rows = [row["step"] for row in read_log(workdir) if row["kind"] == "train"]
        assert rows == [*range(1, TOTAL + 1)]
        table[fault].append((at, resumed))

    return check


# Damaged checkpoints.


def largest(folder):
    return max((p for p in folder.rglob("*") if p.is_file()), key=os.path.getsize)


def delete(folder):
    largest(folder).unlink()


def truncate(folder):
    os.truncate(largest(folder), 1000)


def flip_a_bit(folder):
    data = bytearray(largest(folder).read_bytes())
    data[len(data) // 2] ^= 1
    largest(folder).write_bytes(data)


DAMAGES = {
    "a file deleted": delete,
    "a file cut": truncate,
    "a bit flipped": flip_a_bit,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_last_checkpoint(workdir, ends_the_same, damage, caplog):
    DAMAGES[damage](workdir / "checkpoints" / "16")
    ends_the_same(f"last checkpoint: {damage}", workdir, 16, 13)
    assert "16.damaged" in os.listdir(workdir / "checkpoints")
    assert any(m.endswith("set aside as 16.damaged") for m in caplog.messages)


def test_all_checkpoints_damaged(workdir, ends_the_same):
    for step in (8, 13, 16):
        truncate(workdir / "checkpoints" / str(step))
    ends_the_same("all checkpoints: a file cut", workdir, 16, 0)


# A disk without room.


@contextlib.contextmanager
def quota(folder):
    """No file may be larger than 100 KB: what a quota looks like to a program."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextlib.contextmanager
def full_disk(folder):
    """`folder` on a file system of its own, with 100 KB to spare."""
    used = sum(p.stat().st_blocks * 512 for p in folder.rglob("*"))
    away = folder.rename(folder.with_name("away"))
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={used + 100_000}", "tmpfs"]
    if subprocess.run([*mount, folder], capture_output=True).returncode:
        pytest.skip("no right to mount a file system")
    try:
        shutil.copytree(away, folder, dirs_exist_ok=True)
        shutil.rmtree(away)
        yield
        shutil.copytree(folder, away)
    finally:
        subprocess.run(["umount", folder], check=True)
    folder.rmdir()
    away.rename(folder)


LIMITS = {"a quota": quota, "a full disk": full_disk}


@pytest.mark.parametrize("limit", LIMITS)
def test_no_room_for_a_checkpoint(config, workdir, ends_the_same, limit):
    message = r"can't write checkpoint 21 to .*checkpoints: no room left on the disk"
    with LIMITS[limit](workdir), pytest.raises(TrainingError, match=message):
        train(config, workdir)
    assert sorted(os.listdir(workdir / "checkpoints")) == ["13", "16", "8"]
    at = max(row["step"] for row in read_log(workdir))
    ends_the_same(f"no room: {limit}", workdir, at, 16)


def test_no_room_is_told_in_one_line(config, tmp_path):
    """By the command, too, whatever the threads that write meet."""
    command = "import resource, sys; from rmjax.cli.main import main; "
    command += f"resource.setrlimit(resource.RLIMIT_FSIZE, ({100_000}, -1)); "
    command += "sys.exit(main())"
    process = start_training(
        config, tmp_path, stderr=subprocess.PIPE, text=True, python=("-c", command)
    )
    errors = process.communicate(timeout=240)[1]
    assert process.returncode == 3 and "Traceback" not in errors
    assert "no room left on the disk" in errors.splitlines()[-1]
    assert not any((tmp_path / "checkpoints").iterdir())


# A file of the data set.


def test_a_data_file_is_cut_while_training(
    config, workdir, mini_dir, tmp_path, ends_the_same, monkeypatch
):
    copy = shutil.copytree(mini_dir, tmp_path / "data")
    (shard,) = copy.rglob("*-train.array_record-00000-of-00001")
    good = shard.read_bytes()

    def batches(*arguments, real=training.read_batches, **options):
        for batch in real(*arguments, **options):
            os.truncate(shard, len(good) // 2)
            yield batch

    monkeypatch.setattr(training, "read_batches", batches)
    message = rf"{shard.name}: can't be read \(.*\); put the file back"
    with pytest.raises(InputError, match=message):
        train(config, workdir, **{"data.dir": str(copy), "data.cache_mib": 0})
    with pytest.raises(InputError, match=message):
        train(config, workdir, **{"data.dir": str(copy)})
    shard.unlink()
    with pytest.raises(InputError, match=rf"{shard.name}: missing; put it back"):
        train(config, workdir, **{"data.dir": str(copy)})
    monkeypatch.undo()
    at = max(row["step"] for row in read_log(workdir))
    ends_the_same(
        "a data file cut while training, then gone", workdir, at, steps_before(workdir)
    )


def steps_before(workdir):
    return max(saved_steps(workdir / "checkpoints"), default=0)


# A validation that does not come to its end.


class Killed(BaseException):
    """Ends a training wherever it is, as a kill does."""


@pytest.mark.parametrize("when", ["before it", "before its result is noted"])
def test_a_validation_that_is_cut_short(
    config, tmp_path, ends_the_same, monkeypatch, when
):
    """What was trained is saved before; the validation is made up for, once."""

    def killed(*arguments):
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        if when == "before it":
            patch.setattr("rmjax.evaluation.predict.Runner.predict", killed)
        else:
            patch.setattr("rmjax.experiment.checkpoints.Checkpoints.rank", killed)
        train(config, tmp_path / "run")
    assert steps_before(tmp_path / "run") == EPOCH
    ends_the_same(f"a validation is cut short, {when}", tmp_path / "run", EPOCH, EPOCH)
    rows = [r["step"] for r in read_log(tmp_path / "run") if r["kind"] == "validation"]
    assert rows == [EPOCH, 2 * EPOCH, 3 * EPOCH]


# The same command twice.


def test_a_second_training_is_refused_while_the_first_lives(
    config, tmp_path, ends_the_same
):
    first = start_training(config, tmp_path)
    try:
        wait_for_steps(first, tmp_path, 4)
        os.killpg(first.pid, signal.SIGSTOP)
        before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
        with pytest.raises(InputError, match=rf"at work there.*process {first.pid} on"):
            train(config, tmp_path)
        after = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
        assert after == before
    finally:
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
    at = max(row["step"] for row in read_log(tmp_path))
    ends_the_same("SIGKILL while a second waits", tmp_path, at, steps_before(tmp_path))


# Signals.


def start(command, config=None, python=("-m", "rmjax.cli"), **options):
    flags = []
    if config is not None:
        shipped = flatten(load_config("attribution_mini"))
        changed = {k: v for k, v in flatten(config).items() if v != shipped[k]}
        flags = [f"--config.{key}={value}" for key, value in changed.items()]
    return subprocess.Popen(
        [sys.executable, *python, *map(str, command), *flags],
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        **{"stderr": subprocess.DEVNULL} | options,
    )


def start_training(config, workdir, **options):
    command = ["train", "--config", "attribution_mini", "--workdir", workdir]
    return start(command, config, **options)


def wait_for_steps(process, workdir, step):
    while not any(row["step"] >= step for row in read_log(workdir)):
        assert process.poll() is None
        time.sleep(0.01)


def phase(workdir):
    """What a training is doing, by what it left."""
    if any(workdir.glob("checkpoints/*.orbax-checkpoint-tmp*")):
        return "save"
    rows = read_log(workdir)
    if not rows:
        return "start"
    last = rows[-1]
    if last["kind"] != "train" or last["step"] % EPOCH:
        return "step"
    saved = last["step"] in saved_steps(workdir / "checkpoints")
    return "validation" if saved else "save"


def kill_when(process, begun, during, delay=0.0):
    """SIGKILL `delay` seconds after `begun()`, as soon as `during()` then holds.

    The process is stopped and looked at again, so that it is killed nowhere else.
    """
    since, deadline = None, time.time() + 240
    while time.time() < deadline:
        assert process.poll() is None, "it ended before it could be killed"
        if since is None and begun():
            since = time.time()
        if since is not None and time.time() >= since + delay and during():
            os.killpg(process.pid, signal.SIGSTOP)
            if during():
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                return
            os.killpg(process.pid, signal.SIGCONT)
        time.sleep(0.001)
    raise AssertionError("the moment did not come")


def kill_training(config, workdir, name, step, delay):
    """Kill a training in the phase `name`; return the last step that it logged."""
    kill_when(
        start_training(config, workdir),
        begun=lambda: any(row["step"] >= step for row in read_log(workdir)),
        during=lambda: phase(workdir) == name,
        delay=delay,
    )
    return max(row["step"] for row in read_log(workdir))


def test_a_kill_in_a_save(config, tmp_path, ends_the_same):
    at = kill_training(config, tmp_path, "save", 4, 0.0)
    ends_the_same("SIGKILL in a save", tmp_path, at, steps_before(tmp_path))


def test_sigterm_saves_and_asks_to_be_started_again(config, tmp_path, ends_the_same):
    process = start_training(config, tmp_path, stderr=subprocess.PIPE, text=True)
    wait_for_steps(process, tmp_path, 4)
    process.terminate()
    time.sleep(0.01)
    process.terminate()
    last_line = process.communicate(timeout=240)[1].splitlines()[-1]
    at = max(row["step"] for row in read_log(tmp_path))
    assert process.returncode == 75
    assert last_line == (
        f"rmjax train: stopped by SIGTERM after step {at}: saved; run the same command "
        "again"
    )
    ends_the_same("SIGTERM, twice", tmp_path, at, at)


# The sweep: twenty kills.

RNG = np.random.default_rng(0)
KILLS = [
    (name, int(RNG.integers(low, high)), float(RNG.uniform(0, 0.1)))
    for name, low, high, count in (
        ("step", 1, 22, 6),
        ("save", 1, 20, 5),
        ("validation", 1, 15, 3),
    )
    for _ in range(count)
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "step", "delay"), KILLS)
def test_kills_of_a_training(config, tmp_path, ends_the_same, name, step, delay):
    at = kill_training(config, tmp_path, name, step, delay)
    ends_the_same(f"SIGKILL in a {name}", tmp_path, at, steps_before(tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("delay", RNG.uniform(0, 1.5, 3).round(3))
def test_kills_of_a_preparation(mini_dir, tmp_path, table, delay):
    command = ["prepare", "attribution_mini", "--images-per-cell", "8", "--size", "32"]
    command += ["--data-dir", tmp_path]
    kill_when(
        start(command),
        begun=lambda: any(tmp_path.glob("attribution_mini/incomplete*")),
        during=lambda: not any(tmp_path.glob("attribution_mini/2.0.0")),
        delay=delay,
    )
    assert start(command).wait() == 0
    found, wanted = (
        open_dataset(find_dataset(folder, "attribution_mini"))
        for folder in (tmp_path, mini_dir)
    )
    assert found.split_sizes == wanted.split_sizes
    for split, size in wanted.split_sizes.items():
        numbers = range(size)
        assert found.files(split).read(numbers) == wanted.files(split).read(numbers)
    assert os.listdir(tmp_path / "attribution_mini") == ["2.0.0"]
    table["SIGKILL in a preparation"].append(None)


@pytest.mark.slow
def test_kills_of_an_evaluation(whole, tmp_path, table):
    """While it starts, while the network answers, while results are written."""
    workdir = shutil.copytree(whole[0], tmp_path / "run")
    command = ["evaluate", "--workdir", workdir, "--suite", "jpeg:75,flip"]
    command += ["--bootstrap", "20"]
    assert start(command).wait() == 0
    evaluation = workdir / "evaluation"
    (file,) = evaluation.glob("*/results.json")
    wanted = json.loads(file.read_text())
    for begun, delay in (
        ("config.json", RNG.uniform(0, 2)),
        ("evaluation/.*.partial", RNG.uniform(0, 0.5)),
        ("evaluation/.*.new", 0),
    ):
        shutil.rmtree(evaluation, ignore_errors=True)
        (workdir / "calibration.json").unlink(missing_ok=True)
        kill_when(
            start(command),
            begun=lambda begun=begun: any(workdir.glob(begun)),
            during=lambda: not file.exists(),
            delay=delay,
        )
        assert start(command).wait() == 0
        assert json.loads(file.read_text()) == wanted
        table["SIGKILL in an evaluation"].append(None)
