"""Locks of files: one holder, whose name is told, until it is gone, however that is."""

import errno
import fcntl
import signal
import subprocess
import sys
import threading

import pytest

from rmjax.errors import InputError
from rmjax.experiment.run import hold_workdir
from rmjax.utils.locks import Busy, NoLocks, locked

HOLD = """
import sys, time
from pathlib import Path
from rmjax.utils.locks import locked
with locked(Path(sys.argv[1]), "busy"):
    print("held", flush=True)
    time.sleep(60)
"""


def hold(path):
    """A process that holds the lock."""
    command = [sys.executable, "-c", HOLD, path]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


def test_another_process_is_refused_by_the_holders_name_until_that_is_killed(tmp_path):
    path = tmp_path / "new" / "lock"
    process = hold(path)
    try:
        for _ in range(2):  # who is refused leaves the name where it is
            with (
                pytest.raises(Busy, match=rf"in use \(process {process.pid} on .+\)"),
                locked(path, "in use"),
            ):
                pass
    finally:
        process.kill()
        process.wait()
    with locked(path, "in use"):
        pass


def test_a_lock_that_its_holder_removes_is_still_one(tmp_path, monkeypatch):
    """Who opened the file before it was removed does not take the dead one for it."""
    path = tmp_path / "lock"
    others = []

    def flock(file, how, real=fcntl.flock):
        if not others:  # between opening and locking, the holder ends, another begins
            path.unlink()
            others.append(hold(path))
        real(file, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    try:
        with pytest.raises(Busy), locked(path, "in use"):
            pass
    finally:
        others[0].kill()
        others[0].wait()


def test_who_waits_comes_next(tmp_path):
    path = tmp_path / "lock"
    process = hold(path)
    threading.Timer(0.5, process.kill).start()
    with locked(path, "", wait=True):
        assert process.wait() == -signal.SIGKILL


def test_training_does_without_where_there_are_no_locks(tmp_path, monkeypatch, caplog):
    def flock(file, how):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(NoLocks, match="can't lock .*: Function not implemented"):
        with locked(tmp_path / "lock", ""):
            pass
    with hold_workdir(tmp_path):
        assert "Function not implemented; see to it" in caplog.text


def test_what_can_not_be_a_lock_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "lock", tmp_path / "file" / "folder" / "lock"):
        with (
            pytest.raises(InputError, match="can't write to .*: Not a directory"),
            locked(path, "in use"),
        ):
            pass
