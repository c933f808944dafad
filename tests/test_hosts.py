"""Several real processes on this machine: the same numbers, clear errors, no hang."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

import rmjax as rmjax_package
from rmjax import load as rmjax_load
from rmjax.cli.main import main
from rmjax.evaluation.evaluate import evaluate
from rmjax.experiment.checkpoints import saved_steps
from rmjax.experiment.config import flatten, load_config
from rmjax.experiment.log import read_log
from rmjax.training.train import train

# The command, but a silent process counts as lost sooner.
COMMAND = """
import sys
from rmjax.cli.main import main
from rmjax.experiment import hosts
hosts.SILENCE_SECONDS = 10
sys.exit(main())
"""
SUITE = ("--suite", "clean,contrast:3")


def start(count, *arguments, devices=2, own=None):
    """Start Python with the arguments and those of `--distributed`, so many times.

    A process that has a list of its own in `own` is given it too.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:
        where = f"127.0.0.1:{server.getsockname()[1]}"
    flags = f" --xla_force_host_platform_device_count={devices}"
    environment = os.environ | {"XLA_FLAGS": os.environ["XLA_FLAGS"] + flags}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    started = []
    for process in range(count):
        command = [sys.executable, *map(str, arguments), "--distributed"]
        command += ["--coordinator", where, "--processes", str(count)]
        command += ["--process", str(process), *(own or {}).get(process, [])]
        started.append(subprocess.Popen(command, env=environment, text=True, **streams))
    return started


def finish(processes):
    """Return (status, output, errors) of each; whatever happens, none is left."""
    try:
        texts = [process.communicate(timeout=240) for process in processes]
        return [(p.returncode, *text) for p, text in zip(processes, texts, strict=True)]
    finally:
        for process in processes:
            process.kill()
            process.wait()


def job(count, *arguments, meanwhile=None, **options):
    """Run so many processes; `meanwhile(processes)` is called as they run."""
    processes = start(count, *arguments, **options)
    try:
        if meanwhile:
            meanwhile(processes)
    except BaseException:
        for process in processes:
            process.kill()
        raise
    return finish(processes)


def rmjax(name, workdir, config=None):
    """Return the arguments for Python of a command; those of a config's changes."""
    command = ["-c", COMMAND, name, "--workdir", workdir]
    if config is None:
        return command
    shipped = flatten(load_config("attribution_mini"))
    changed = {k: v for k, v in flatten(config).items() if v != shipped[k]}
    flags = [f"--config.{key}={value}" for key, value in changed.items()]
    return [*command, "--config", "attribution_mini", *flags]


def losses(workdir):
    return [row["loss"] for row in read_log(workdir) if row["kind"] == "train"]


@pytest.fixture(scope="module")
def config(small_config):
    """20 steps, in two epochs, of a network that is compiled soon."""
    return small_config(
        **{
            "model.arch": "shallow",
            "optim.lr": 1e-4,  # as published; Adam amplifies rounding with it
            "batch_size": 32,  # a group for each of 16 devices
            "steps_per_epoch": 10,
            "num_epochs": 2,
            "checkpoint_every_steps": 3,
            "keep_best": 3,
            "log_every_steps": 1,
            "eval_batch_size": 8,
            "num_devices": 0,
        }
    )


@pytest.fixture(scope="module")
def alone(config, tmp_path_factory):
    """Workdir of this process's run, on one device."""
    workdir = tmp_path_factory.mktemp("alone") / "run"
    own = config.copy_and_resolve_references()
    own.num_devices = 1
    train(own, workdir, show_progress=False)
    return workdir


@pytest.fixture(scope="module")
def evaluated(alone, tmp_path_factory):
    """What this process makes of that run, on one device."""
    workdir = shutil.copytree(alone, tmp_path_factory.mktemp("evaluated") / "run")
    options = {"draws": 20, "num_devices": 1, "show_progress": False}
    evaluate(workdir, suite=SUITE[1], **options)
    folder = workdir / "evaluation/clean-contrast-3"
    with np.load(folder / "predictions.npz") as predictions:
        return {
            "calibration": (workdir / "calibration.json").read_text(),
            "spectra": (workdir / "spectra.json").read_text(),
            "results": json.loads((folder / "results.json").read_text()),
            "predictions": dict(predictions),
        }


@pytest.fixture(scope="module")
def together(config, tmp_path_factory):
    """Workdir of the same by two processes with two devices each."""
    workdir = tmp_path_factory.mktemp("together") / "run"
    started = start(2, *rmjax("train", workdir, config))
    found = finish(started)
    assert [status for status, *_ in found] == [0, 0], found
    assert "trained" in found[0][1] and not found[1][2]
    return workdir


@pytest.mark.parametrize("count", [pytest.param(1, marks=pytest.mark.slow), 4])
def test_any_number_of_processes_trains_alike(config, alone, together, tmp_path, count):
    """Two processes do, and one or four that go on from their checkpoint."""
    np.testing.assert_allclose(losses(together), losses(alone), rtol=1e-4)
    workdir = shutil.copytree(together, tmp_path / "run")
    for step in saved_steps(workdir / "checkpoints"):
        if step > 10:
            shutil.rmtree(workdir / "checkpoints" / str(step))
    if count == 1:
        own = config.copy_and_resolve_references()
        own.num_devices = 1
        train(own, workdir, show_progress=False)
    else:
        found = job(count, *rmjax("train", workdir, config))
        assert [status for status, *_ in found] == [0] * count, found
        assert "resuming after step 10" in found[0][2]
    np.testing.assert_allclose(losses(workdir), losses(alone), rtol=1e-4)


@pytest.mark.parametrize(
    ("count", "devices"), [pytest.param(2, 2, marks=pytest.mark.slow), (4, 2)]
)
def test_any_number_of_processes_evaluates_to_the_same_bit(
    alone, evaluated, tmp_path, count, devices
):
    workdir = shutil.copytree(alone, tmp_path / "run")
    command = [*rmjax("evaluate", workdir), "--bootstrap", "20", *SUITE]
    found = job(count, *command, devices=devices)
    assert [status for status, *_ in found] == [0] * count, found
    assert "attribution" in found[0][1]
    assert not any("attribution" in output for _, output, _ in found[1:])
    same_evaluation(workdir, evaluated)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("devices", [1, 2, 8])
def test_the_same_on_every_topology(
    config, alone, evaluated, tmp_path, devices, count, workers
):
    """Losses of 20 steps to 1e-4, of the same batch; an evaluation to the bit."""
    config = config.copy_and_resolve_references()
    config.data.workers = workers
    found = job(count, *rmjax("train", tmp_path / "run", config), devices=devices)
    assert [status for status, *_ in found] == [0] * count, found
    greatest = np.max(np.abs(np.divide(losses(tmp_path / "run"), losses(alone)) - 1))
    print(f"{devices} devices, {count} processes, {workers} workers: {greatest:.1e}")
    assert greatest < 1e-4
    test_any_number_of_processes_evaluates_to_the_same_bit(
        alone, evaluated, tmp_path / "evaluation", count, devices
    )


def same_evaluation(workdir, evaluated):
    for name in ("calibration", "spectra"):
        assert (workdir / f"{name}.json").read_text() == evaluated[name]
    folder = workdir / "evaluation/clean-contrast-3"
    results = json.loads((folder / "results.json").read_text())
    for part, wanted in evaluated["results"].items():
        if part not in ("run", "evaluation"):  # the folder and the command
            assert results[part] == wanted, part
    with np.load(folder / "predictions.npz") as predictions:
        for name, values in evaluated["predictions"].items():
            np.testing.assert_array_equal(predictions[name], values, err_msg=name)


def test_processes_that_differ_are_told(config, tmp_path):
    differs = {1: ["--config.mix.beta=0.5"]}
    for status, _, errors in job(2, *rmjax("train", tmp_path, config), own=differs):
        assert status == 2
        assert "mix.beta is 0.4 in process 0 and 0.5 in process 1" in errors
        assert "Traceback" not in errors
    assert not list(tmp_path.iterdir())


def test_what_one_process_fails_of_ends_the_others(config, tmp_path):
    nowhere = {1: ["--data-dir", "/none"]}
    first, second = job(2, *rmjax("train", tmp_path, config), own=nowhere)
    assert (first[0], second[0]) == (2, 2)
    assert "no prepared data set" in second[2]
    assert "process 1 failed: error: no prepared data set" in first[2]


SCRIPT = """
import argparse, os, pathlib, signal, sys, time
from rmjax.experiment import hosts, parallel
from rmjax.errors import InputError

parser = argparse.ArgumentParser()
parser.add_argument("--distributed", action="store_true")
parser.add_argument("--coordinator")
parser.add_argument("--processes", type=int)
parser.add_argument("--process", type=int)
args = parser.parse_args()
me = args.process
hosts.SILENCE_SECONDS = 3
hosts.connect(args.coordinator, args.processes, me, seconds=20)
"""


def test_places_where_processes_meet(tmp_path):
    """They gather values, and find out devices and folders that differ."""
    script = """
assert hosts.gather([me]) == [[0], [1]]
hosts.check_alike({"seed": 1})
file = pathlib.Path(FOLDER) / f"mine{me}"
file.write_text("x")
for check in (
    lambda: hosts.check_alike({"devices": me + 1}),
    lambda: hosts.check_shared(file if me == 0 else pathlib.Path(FOLDER) / "absent"),
):
    try:
        check()
        print("alike")
    except InputError as error:
        print(error)
devices = parallel.everywhere(parallel.choose_devices())
try:
    parallel.check_batch(20, 2, devices)
except InputError as error:
    print(error)
devices = parallel.everywhere(parallel.choose_devices(1))
print([d.process_index for d in devices], len(parallel.local(devices)))
hosts.leave(0)
"""
    file = tmp_path / "script.py"
    file.write_text(SCRIPT + script.replace("FOLDER", repr(str(tmp_path))))
    for process, (status, output, errors) in enumerate(job(2, file)):
        assert status == 0, errors
        assert "devices is 1 in process 0 and 2 in process 1" in output
        assert "20 images is no multiple of 8 = 2 devices x 2 processes" in output
        assert "[0, 1] 1" in output
        shared = "alike" if process == 0 else "process 1 does not see"
        assert shared in output


def test_code_that_differs_is_told_wherever_it_lies(tmp_path):
    """One process runs a copy of the package with another line in one of its files."""
    ignore = shutil.ignore_patterns("__pycache__")
    copy = tmp_path / "other/rmjax"
    shutil.copytree(Path(rmjax_package.__file__).parent, copy, ignore=ignore)
    with (copy / "losses.py").open("a") as module:
        module.write("# another line\n")
    first = f"""
import sys
if sys.argv[-1] == "1":
    sys.path.insert(0, {str(copy.parent)!r})
"""
    last = """
try:
    hosts.check_alike({})
except InputError as error:
    print(error)
hosts.leave(0)
"""
    file = tmp_path / "script.py"
    file.write_text(first + SCRIPT + last)
    for status, output, errors in job(2, file):
        assert status == 0, errors
        assert re.search(
            r"code of rmjax is \w+ in process 0 and \w+ in process 1", output
        )


def test_a_process_that_leaves_is_told(tmp_path):
    file = tmp_path / "script.py"
    file.write_text(SCRIPT + "if me == 1:\n    os._exit(0)\ntime.sleep(60)\n")
    status, _, errors = job(2, file)[0]
    assert status == 70
    assert "process 1 was lost" in errors and "start the same command again" in errors


def test_a_coordinator_that_is_not_there_is_told(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    code = f"from rmjax.experiment.hosts import connect; connect('127.0.0.1:{port}', 2, 1, seconds=2)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    assert (
        f"not all processes met at the coordinator at 127.0.0.1:{port}" in done.stderr
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--coordinator", "host:1"], "are for --distributed: add it"),
        (["--distributed", "--processes", "2"], "go together: give all or none"),
        (
            ["--distributed", *"--coordinator x --processes 2 --process 0".split()],
            "--coordinator x: give HOST:PORT",
        ),
        (
            ["--distributed", *"--coordinator x:1 --processes 2 --process 2".split()],
            "--process 2 of --processes 2: give 0 to 1",
        ),
    ],
)
def test_options_that_do_not_fit_are_named(capsys, options, message):
    arguments = ["train", "--config", "attribution_mini", "--workdir", "none"]
    assert main([*arguments, *options]) == 2
    assert message in capsys.readouterr().err


def test_sigterm_to_one_process_stops_all_and_saves(config, tmp_path):
    """Whichever is asked; the same command again ends as if nothing had happened."""
    config = config.copy_and_resolve_references()
    config.num_epochs = 100
    workdir = tmp_path / "run"

    def ask(processes):
        wait_until(lambda: len(losses(workdir)) > 3, processes)
        processes[1].send_signal(signal.SIGTERM)

    found = job(2, *rmjax("train", workdir, config), devices=1, meanwhile=ask)
    assert [status for status, *_ in found] == [75, 75], found
    assert "stopped by SIGTERM after step" in found[0][2]
    saved = max(saved_steps(workdir / "checkpoints"))
    assert saved == len(losses(workdir))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("victim", "told"),
    [
        (1, "process 1 was lost"),
        # JAX itself ends a process whose coordinator is gone.
        (0, "another task died"),
    ],
)
def test_a_killed_process_ends_the_other_and_the_run_goes_on(
    config, together, tmp_path, victim, told
):
    """SIGKILL to one of two; then both again: the parameters of an undisturbed run."""
    workdir = tmp_path / "run"

    def kill(processes):
        wait_until(lambda: len(losses(workdir)) > 6, processes)
        processes[victim].kill()
        done.append(len(losses(workdir)))

    done = []
    command = rmjax("train", workdir, config)
    killed = job(2, *command, meanwhile=kill)
    assert killed[victim][0] == -signal.SIGKILL
    assert killed[1 - victim][0] in (70, -signal.SIGABRT)
    assert told in killed[1 - victim][2]
    found = job(2, *command)
    assert [status for status, *_ in found] == [0, 0], found
    resumed = int(re.search(r"resuming after step (\d+)", found[0][2])[1])
    print(f"process {victim} killed after {done[0]} steps, resumed after {resumed}")
    assert 3 <= resumed <= done[0]
    for one, other in zip(variables(workdir), variables(together), strict=True):
        np.testing.assert_array_equal(one, other)


def wait_until(condition, processes, seconds=120):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        assert all(process.poll() is None for process in processes)
        time.sleep(0.05)


def variables(workdir):
    return jax.tree.leaves(rmjax_load(workdir, checkpoint="last").variables)
