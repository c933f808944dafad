"""Runs as processes: several at once, logged, locked, stopped; commands are made up."""

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from rmjax.cli.sweep import slurm_shard
from rmjax.errors import InputError, Preempted
from rmjax.sweep.devices import shares, threads
from rmjax.sweep.runner import last_line, run_all
from rmjax.sweep.runs import State
from rmjax.utils.locks import locked


def python(code):
    return [sys.executable, "-c", code]


@dataclass(frozen=True)
class Made:
    """A run of made-up code."""

    folder: Path
    name: str
    codes: tuple[str, ...]

    def commands(self):
        return [python(code) for code in self.codes]

    def file(self, kind):
        return self.folder / "logs" / f"{self.name}.{kind}"


@pytest.fixture
def task(tmp_path):
    """Function of a name and the commands' code to a task."""
    return lambda name, *codes: Made(tmp_path, name, codes)


@pytest.fixture
def ended():
    """What ended how, in that order, and the function that is told."""

    class Ended(list):
        def __call__(self, task, outcome, words):
            self.append((task.name, outcome, words))

    return Ended()


def wait_for(*paths):
    for _ in range(600):
        if all(path.exists() for path in paths):
            return
        time.sleep(0.05)
    raise AssertionError(f"{paths} did not appear")


def nap(on):
    """Code that writes its process's number to the file `on`, and sleeps."""
    return (
        "import os, time; from pathlib import Path\n"
        f"Path({str(on) + '.part'!r}).write_text(str(os.getpid()))\n"
        f"os.replace({str(on) + '.part'!r}, {str(on)!r}); time.sleep(60)"
    )


def test_commands_follow_each_other_and_a_failure_stops_its_own_task(task, ended):
    tasks = [
        task("good", "print('one')", "import sys; print('two', file=sys.stderr)"),
        task(
            "bad",
            "print('first'); raise SystemExit('what\\x1b went wrong')",
            "print(2)",
        ),
        task("gone", "import os; os.kill(os.getpid(), 9)"),
        task("nothing"),
    ]
    run_all(tasks, [{}], ended)
    outcomes = {name: outcome for name, outcome, _ in ended}
    assert outcomes == {
        "good": State.DONE,
        "bad": State.FAILED,
        "gone": State.FAILED,
        "nothing": State.DONE,
    }
    log = tasks[0].file("log").read_text()
    assert log.index("\none\n") < log.index("\ntwo\n") and log.count("\n$ ") == 2
    reason = "status 1: what\ufffd went wrong"
    assert tasks[1].file("failed").read_text() == reason + "\n"
    assert ("bad", State.FAILED, reason) in ended
    assert "print(2)" not in tasks[1].file("log").read_text()
    assert tasks[2].file("failed").read_text().startswith("killed by SIGKILL: ")
    assert not tasks[3].file("log").exists() and not tasks[0].file("failed").exists()


def test_a_failure_is_forgotten_when_it_is_run_again(task, ended):
    run_all([task("one", "raise SystemExit(1)")], [{}], ended)
    again = task("one", "print('well')")
    assert again.file("failed").exists()
    run_all([again], [{}], ended)
    assert ended[-1][:2] == ("one", State.DONE) and not again.file("failed").exists()


def test_as_many_run_at_once_as_there_are_slots(task, ended, tmp_path):
    """Each waits for the other, and says what it sees."""
    code = (
        "import os, time; from pathlib import Path\n"
        f"folder, me = Path({str(tmp_path)!r}), os.environ['SLOT']\n"
        "(folder / f'on-{me}').touch()\n"
        "for _ in range(600):\n"
        "    if len(list(folder.glob('on-*'))) == 2: break\n"
        "    time.sleep(0.05)\n"
        "else: raise SystemExit('alone')\n"
    )
    slots = [{"SLOT": "a"}, {"SLOT": "b"}]
    run_all([task(f"t{i}", code) for i in range(3)], slots, ended)
    assert [outcome for _, outcome, _ in ended] == [State.DONE] * 3
    assert {path.name for path in tmp_path.glob("on-*")} == {"on-a", "on-b"}


def test_what_another_command_works_on_is_left_to_it(task, ended):
    one, two = task("one", "print(1)"), task("two", "print(2)")
    with locked(one.file("lock"), ""):
        run_all([one, two], [{}], ended)
    assert [(name, outcome) for name, outcome, _ in ended] == [
        ("one", State.BUSY),
        ("two", State.DONE),
    ]
    assert not one.file("log").exists()
    run_all([one], [{}], ended)
    assert ended[-1][:2] == ("one", State.DONE)


def test_a_command_that_outlives_its_sweep_keeps_the_lock(tmp_path, task, ended):
    on = tmp_path / "on"
    code = (
        "from pathlib import Path; from test_sweep_runner import *\n"
        f"one = Made(Path({str(tmp_path)!r}), 'one', [{nap(on)!r}])\n"
        "run_all([one], [{}], print)\n"
    )
    process = subprocess.Popen(python(code), env=os.environ | {"PYTHONPATH": here()})
    wait_for(on)
    process.kill()
    process.wait()
    run_all([task("one", "print(1)")], [{}], ended)
    assert ended[0][:2] == ("one", State.BUSY)
    os.kill(int(on.read_text()), signal.SIGKILL)


def here():
    tests = Path(__file__).resolve().parent
    return os.pathsep.join((str(tests.parent), str(tests)))


@pytest.mark.parametrize(
    ("number", "error"),
    [(signal.SIGTERM, Preempted), (signal.SIGINT, KeyboardInterrupt)],
)
def test_a_signal_is_passed_on_and_waited_for(task, ended, tmp_path, number, error):
    """What was told to stop has not failed, and nothing new is begun."""
    code = (
        "import signal, sys, time; from pathlib import Path\n"
        f"folder = Path({str(tmp_path)!r})\n"
        "def stop(*_):\n"
        "    time.sleep(0.3); (folder / 'saved').touch(); sys.exit(75)\n"
        "signal.signal(signal.SIGTERM, stop)\n"
        "(folder / 'on').touch(); time.sleep(60)\n"
    )

    def ask():
        wait_for(tmp_path / "on")
        os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    thread = threading.Thread(target=ask)
    thread.start()
    tasks = [task("one", code, "print('more')"), task("two", "print(2)")]
    with pytest.raises(error):
        run_all(tasks, [{}], ended)
    thread.join()
    assert (tmp_path / "saved").exists()
    assert (
        not ended
        and not tasks[0].file("failed").exists()
        and not tasks[1].file("log").exists()
    )
    assert signal.getsignal(number) is before


def test_processes_end_when_the_sweep_itself_fails(task, tmp_path):
    on = tmp_path / "on"

    def idle():
        if on.exists():
            raise RuntimeError("no room for a line")

    with pytest.raises(RuntimeError, match="no room"):
        run_all([task("one", nap(on))], [{}], print, idle)
    with pytest.raises(ProcessLookupError):
        os.kill(int(on.read_text()), 0)


def test_last_line_of_a_log(tmp_path):
    log = tmp_path / "log"
    log.write_bytes(b"\n \n")
    assert last_line(log) == "it said nothing"
    log.write_bytes(b"start\n 10%|#  |\r 90%|## |\r\n\xff end  \n\n")
    assert last_line(log) == "\ufffd end"
    log.write_bytes(b"x" * 20_000)
    assert last_line(log) == "x" * 300


def test_a_file_system_without_locks_is_told(task, ended, monkeypatch):
    def refuse(*arguments):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("rmjax.utils.locks.fcntl.flock", refuse)
    with pytest.raises(InputError, match=r"can't lock .*a\.lock: Function not impl"):
        run_all([task("a", "")], [{}], ended)
    assert ended == []


# ------------------------------------------------------------------- parts of machines


def machine(folder, *devices):
    for name in devices:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    return folder


def test_gpus_are_shared_out(tmp_path):
    dev = machine(tmp_path, *(f"nvidia{i}" for i in range(4)), "nvidiactl", "null")
    name = "CUDA_VISIBLE_DEVICES"
    assert shares(1, {}, dev) == [{}]
    assert shares(2, {}, dev) == [{name: "0,1"}, {name: "2,3"}]
    assert [s[name] for s in shares(3, {}, dev)] == ["0", "1", "2"]
    # In a container that sees the last two, CUDA calls them 0 and 1.
    some = machine(tmp_path / "some", "nvidia2", "nvidia3")
    assert shares(2, {}, some) == [{name: "0"}, {name: "1"}]
    assert shares(2, {name: "GPU-a,GPU-b"}, dev) == [{name: "GPU-a"}, {name: "GPU-b"}]
    assert shares(2, {name: ""}, dev) == [{}, {}]
    crowd = shares(6, {}, dev)
    assert [s[name] for s in crowd] == ["0", "1", "2", "3", "0", "1"]
    assert {s["XLA_PYTHON_CLIENT_MEM_FRACTION"] for s in crowd} == {"0.45"}
    own = {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.1"}
    assert shares(6, own, dev)[0] == {name: "0"} | own


def test_a_chip_of_a_tpu_for_each_job(tmp_path, monkeypatch):
    monkeypatch.setattr("rmjax.sweep.devices.find_spec", lambda name: name == "libtpu")
    found = shares(2, {}, machine(tmp_path, "vfio/0", "vfio/1", "vfio/vfio"))
    assert [slot["TPU_VISIBLE_CHIPS"] for slot in found] == ["0", "1"]
    assert len({slot["TPU_PROCESS_PORT"] for slot in found}) == 2
    assert {slot["TPU_PROCESS_BOUNDS"] for slot in found} == {"1,1,1"}
    with pytest.raises(InputError, match="--jobs 3: there are 2 TPU chips"):
        shares(3, {}, tmp_path)
    monkeypatch.setattr("rmjax.sweep.devices.find_spec", lambda name: None)
    assert shares(3, {}, tmp_path) == [{}, {}, {}]


def test_a_processor_is_shared_by_all(tmp_path):
    assert shares(3, {}, tmp_path / "none") == [{}, {}, {}]


def test_jobs_have_their_own_threads():
    assert threads(1, 8, {}) == {}
    assert threads(3, 8, {}) == {"OMP_NUM_THREADS": "2"}
    assert threads(3, 2, {}) == {"OMP_NUM_THREADS": "1"}
    assert threads(3, 8, {"OMP_NUM_THREADS": "4"}) == {}


def test_an_array_job_does_its_part():
    def array(number, least, count, step=1):
        values = {"ID": number, "MIN": least, "COUNT": count, "STEP": step}
        return {f"SLURM_ARRAY_TASK_{key}": str(v) for key, v in values.items()}

    assert slurm_shard({}) == (0, 1)
    assert slurm_shard(array(3, 1, 8)) == (2, 8)
    assert slurm_shard(array(4, 0, 3, 2)) == (2, 3)
    with pytest.raises(InputError, match="none of 2 numbers from 1 on.*--array=0-N"):
        slurm_shard(array(7, 1, 2))
