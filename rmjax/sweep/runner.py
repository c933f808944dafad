"""Runs as processes of their own, several at once, logged, stopped and taken up again."""

import os
import re
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from rmjax.errors import Preempted, harmless
from rmjax.utils.files import replace_text
from rmjax.utils.locks import Busy, lock

POLL = 0.1  # seconds between two looks at the processes
LONGEST = 300  # characters of a log's line in a message
DONE, FAILED, BUSY = "done", "failed", "busy"


@dataclass(frozen=True)
class Task:
    """Something to run in several steps.

    Attributes:
        name: what it is called.
        commands: function to the commands that are left, one after the other; none
            where it is done. It is called when nobody else can be working on it.
        log: file that they write to.
        lock: file that is locked meanwhile.
        failed: file that says why it failed, where it did.
    """

    name: str
    commands: Callable[[], list[list[str]]]
    log: Path
    lock: Path
    failed: Path


@dataclass
class _Job:
    """A task at work: its open files, what is left of it, where it runs, since when."""

    task: Task
    commands: list[list[str]]
    files: tuple[IO, IO]  # lock and log
    slot: int
    process: subprocess.Popen | None = None
    told: bool = False  # to stop
    began: float = field(default_factory=time.monotonic)


def run_tasks(
    tasks: Sequence[Task],
    slots: Sequence[Mapping[str, str]],
    on_end: Callable[[Task, str, str], None],
    idle: Callable[[], None] = lambda: None,
) -> None:
    """Run every task, as many at a time as there are slots.

    A task whose lock another process holds is left to it. SIGINT and SIGTERM are
    passed on to what runs as SIGTERM, and waited for.

    Args:
        tasks: what to run.
        slots: by job that runs at once, what to set in its environment.
        on_end: called with a task, `DONE`, `FAILED` or `BUSY`, and a few words on it.
        idle: called again and again meanwhile.

    Raises:
        KeyboardInterrupt: SIGINT came.
        Preempted: SIGTERM came.
    """
    waiting, free = deque(tasks), list(range(len(slots)))[::-1]
    active: list[_Job] = []
    with _signals() as asked:
        try:
            while active or (waiting and not asked):
                while waiting and free and not asked:
                    job = _begin(waiting.popleft(), free[-1], on_end)
                    if job:
                        active.append(job)
                        free.pop()
                        _next(job, slots)
                for job in list(active):
                    if _goes_on(job, slots, bool(asked)):
                        continue
                    active.remove(job)
                    free.append(job.slot)
                    _end(job, bool(asked), on_end)
                idle()
                time.sleep(POLL)
        finally:  # after an error of this process's own
            for job in active:
                _stop(job)
            for job in active:
                job.process.wait()
    if signal.SIGTERM in asked:
        raise Preempted("stopped by SIGTERM; run the same command again")
    if asked:
        raise KeyboardInterrupt


def _begin(
    task: Task, slot: int, on_end: Callable[[Task, str, str], None]
) -> _Job | None:
    """Lock a task; None where another process has it, or nothing is left to do."""
    task.lock.parent.mkdir(parents=True, exist_ok=True)
    held = task.lock.open("a")
    try:
        lock(held, "another command works on it")
    except Busy as error:
        held.close()
        on_end(task, BUSY, str(error))
        return None
    commands = task.commands()
    if not commands:
        held.close()
        on_end(task, DONE, "")
        return None
    task.failed.unlink(missing_ok=True)
    return _Job(task, commands, (held, task.log.open("ab")), slot)


def _next(job: _Job, slots: Sequence[Mapping[str, str]]) -> None:
    """Start the next command of a job."""
    held, log = job.files
    command = job.commands.pop(0)
    log.write(("\n$ " + " ".join(command) + "\n").encode())
    log.flush()
    job.process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        env=os.environ | slots[job.slot],
        # A Ctrl-C of the terminal is for this process, which lets the others save.
        start_new_session=True,
        # The lock stays while the command works, even if this process is killed.
        pass_fds=(held.fileno(),),
    )


def _goes_on(job: _Job, slots: Sequence[Mapping[str, str]], asked: bool) -> bool:
    """Tell whether a job is still at work, or has more to do, which is started."""
    if asked:
        _stop(job)
    if job.process.poll() is None:
        return True
    if job.process.returncode or not job.commands or asked:
        return False
    _next(job, slots)
    return True


def _end(job: _Job, asked: bool, on_end: Callable[[Task, str, str], None]) -> None:
    """Say how a job ended; one that was asked to stop has not failed."""
    status = job.process.returncode
    took = f"{(time.monotonic() - job.began) / 60:.1f} min"
    held, log = job.files
    log.close()
    if status == 0 and not job.commands:
        on_end(job.task, DONE, took)
    elif not asked:
        reason = f"{_in_words(status)}: {last_line(job.task.log)}"
        replace_text(job.task.failed, reason + "\n")
        on_end(job.task, FAILED, reason)
    held.close()


def _stop(job: _Job) -> None:
    """Ask a job to stop, once: training saves first, anything else just ends."""
    if not job.told:
        job.told = True
        job.process.terminate()


def _in_words(status: int) -> str:
    if status < 0:
        return f"killed by {signal.Signals(-status).name}"
    return f"status {status}"


def last_line(path: Path) -> str:
    """Return the last line of a log that is not empty, made harmless and not too long."""
    with path.open("rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(file.tell() - 8192, 0))
        text = file.read().decode(errors="replace")
    lines = [line.strip() for line in re.split(r"[\r\n]+", text) if line.strip()]
    return harmless(lines[-1])[-LONGEST:] if lines else "it said nothing"


@contextmanager
def _signals() -> Iterator[set[int]]:
    """Take SIGINT and SIGTERM until the end of the block; the set fills with them."""
    asked: set[int] = set()
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {n: signal.signal(n, lambda number, _: asked.add(number)) for n in numbers}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
