"""Runs as processes of their own, several at once, logged, stopped and taken up again."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue

from rmjax.errors import Preempted, harmless
from rmjax.sweep.runs import Run, State
from rmjax.utils.files import remove_file, replace_text, replaced
from rmjax.utils.locks import Busy, locked
from rmjax.utils.places import is_remote

POLL = 0.1  # seconds between two looks at the processes
LONGEST = 300  # characters of a log's line in a message

Slot = Mapping[str, str]  # what to set in the environment of one job at a time


def run_all(
    runs: Sequence[Run],
    slots: Sequence[Slot],
    on_end: Callable[[Run, State, str], None],
    idle: Callable[[], None] = lambda: None,
) -> None:
    """Do what is left of every run, as many at a time as there are slots.

    A run whose lock another process holds is left to it. SIGINT and SIGTERM are
    passed on to what runs as SIGTERM, and waited for.

    Args:
        runs: what to do.
        slots: by job that runs at once, what to set in its environment.
        on_end: called with a run, `DONE`, `FAILED` or `BUSY`, and a few words on it.
        idle: called again and again meanwhile.

    Raises:
        KeyboardInterrupt: SIGINT came.
        Preempted: SIGTERM came.
    """
    crew = _Crew(slots)
    with _signals() as asked, ThreadPoolExecutor(len(slots)) as threads:
        pending = {threads.submit(crew.work, run): run for run in runs}
        try:
            while pending:
                wait(pending, timeout=POLL, return_when=FIRST_COMPLETED)
                for future in [future for future in pending if future.done()]:
                    run, outcome = pending.pop(future), future.result()
                    if outcome:
                        on_end(run, *outcome)
                if asked:
                    crew.stop()
                idle()
        finally:  # after an error of this process's own
            crew.stop()
    if signal.SIGTERM in asked:
        raise Preempted("stopped by SIGTERM; run the same command again")
    if asked:
        raise KeyboardInterrupt


class _Crew:
    """The processes of runs at work, each of which has a slot of its own."""

    def __init__(self, slots: Sequence[Slot]):
        self.free: SimpleQueue[Slot] = SimpleQueue()
        for slot in slots:
            self.free.put(slot)
        self.at_work: set[subprocess.Popen] = set()
        self.stopping = False

    def work(self, run: Run) -> tuple[State, str] | None:
        """Do what is left of a run, and say how it ended; None if it was stopped."""
        if self.stopping:
            return None
        try:
            with holding(run.file("lock"), "another command works on it") as held:
                return self._attempt(run, held)
        except Busy as error:
            return State.BUSY, str(error)

    def _attempt(self, run: Run, held: Sequence[int]) -> tuple[State, str] | None:
        commands = run.commands()
        if not commands:
            return State.DONE, ""
        remove_file(run.file("failed"))
        slot, began = self.free.get(), time.monotonic()
        try:
            for command in commands:
                if self.stopping:
                    return None
                status = self._call(command, run.file("log"), held, slot)
                if status and self.stopping:  # as asked for: it has not failed
                    return None
                if status:
                    how = f"status {status}"
                    if status < 0:
                        how = f"killed by {signal.Signals(-status).name}"
                    reason = f"{how}: {last_line(run.file('log'))}"
                    replace_text(run.file("failed"), reason + "\n")
                    return State.FAILED, reason
        finally:
            self.free.put(slot)
        return State.DONE, f"{(time.monotonic() - began) / 60:.1f} min"

    def _call(
        self, command: list[str], log: Path, held: Sequence[int], slot: Slot
    ) -> int:
        """Run a command and return its exit status."""
        with _adding_to(log) as here, here.open("ab") as file:
            file.write(("\n$ " + " ".join(command) + "\n").encode())
            file.flush()
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=os.environ | slot,
                # A Ctrl-C of the terminal is for this process, which lets the others
                # save.
                start_new_session=True,
                # The lock stays while the command works, even if this process is
                # killed.
                pass_fds=held,
            )
            self.at_work.add(process)
            if self.stopping:  # since this command was begun
                process.terminate()
            status = process.wait()
            self.at_work.discard(process)
        return status

    def stop(self) -> None:
        """Ask what runs to stop, once: training saves first, anything else just ends."""
        if not self.stopping:
            self.stopping = True
            for process in tuple(self.at_work):
                process.terminate()


@contextmanager
def holding(path: Path, busy: str = "", *, wait: bool = False) -> Iterator[list[int]]:
    """Hold a lock as `locked` does, but none in a store, which knows no locks.

    Yields:
        The open files by which a process that inherits them holds the lock, too.
    """
    if is_remote(path):
        yield []
        return
    with locked(path, busy, wait=wait) as file:
        yield [file.fileno()]


@contextmanager
def _adding_to(log: Path) -> Iterator[Path]:
    """Give a file of this machine to add to; for a store a copy, sent at the end."""
    if not is_remote(log):
        yield log
        return
    with replaced(log) as copy:
        copy.write_bytes(log.read_bytes() if log.exists() else b"")
        yield copy


def last_line(path: Path) -> str:
    """Return the last line of a log that is not empty, made harmless and not too long."""
    text = path.read_bytes()[-8192:].decode(errors="replace")
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
