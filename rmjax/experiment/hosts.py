"""Several processes as one job: the one file that says `jax.distributed`.

A collective operation whose partner is gone waits for ever. So every process leaves
signs of life in the coordinator's store and looks for the others' there, and ends, with
the reason on its last line, when one of them has failed or is silent.
"""

import atexit
import hashlib
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import jax
from jax.experimental import multihost_utils

from rmjax.errors import InputError, harmless
from rmjax.utils.revision import revision
from rmjax.utils.versions import package_versions

CONNECT_SECONDS = 45  # until all processes have met
BEAT_SECONDS = 1.0  # between two signs of life
SILENCE_SECONDS = 30  # after which a process counts as lost
GATHER_SECONDS = 300  # until all have come to the same place
LOST = 70  # exit status: another process was lost; the same command again goes on

_BEATS, _FAILED, _LEFT = "rmjax/beat/", "rmjax/failed/", "rmjax/left/"
_places = count()
_watch: "_Watch | None" = None


def connect(
    coordinator: str | None = None,
    processes: int | None = None,
    process: int | None = None,
    *,
    preemptible: bool = False,
    seconds: float = CONNECT_SECONDS,
) -> None:
    """Join the other processes of the job; to be called before JAX sees a device.

    Without arguments, on Cloud TPU, Slurm and Kubernetes, JAX finds out itself.

    Args:
        coordinator: `HOST:PORT` of process 0.
        processes: how many there are.
        process: which one this is, from 0.
        preemptible: leave SIGTERM to `jax.experimental.multihost_utils
            .reached_preemption_sync_point`, which the caller asks at every step.
        seconds: to wait for the others; then this process ends with status 2.

    Raises:
        InputError: some of the three are missing or wrong, or JAX finds no cluster.
    """
    _check_options(coordinator, processes, process)
    where = f"the coordinator at {coordinator}" if coordinator else "the coordinator"
    late = threading.Timer(
        seconds,
        _end,
        (
            f"not all processes met at {where} within {seconds:g} s: start the same "
            "command on every host, and check that this address can be reached from "
            "there",
            2,
        ),
    )
    late.daemon = True
    jax.config.update("jax_enable_preemption_service", preemptible)
    late.start()  # JAX's own timeout aborts the process with a stack trace
    try:
        jax.distributed.initialize(
            coordinator,
            processes,
            process,
            # Where everything is given, asking the surroundings for a cluster could
            # only contradict it, and takes seconds of waiting for a metadata server.
            cluster_detection_method="deactivate" if coordinator else None,
            initialization_timeout=int(10 * seconds),
            # `leave` waits for the others itself, and `_Watch` knows sooner who is
            # gone; JAX would end a process that waits for a slow one.
            shutdown_timeout_seconds=24 * 3600,
        )
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"--distributed: {reason}; outside of Cloud TPU, Slurm and Kubernetes give "
            "--coordinator HOST:PORT --processes N --process I"
        ) from error
    finally:
        late.cancel()
    global _watch
    _watch = _Watch()
    _watch.start()
    if not is_first():
        logging.getLogger().setLevel(logging.ERROR)


def is_first() -> bool:
    """Tell whether this is process 0, which alone logs, prints and writes files."""
    return jax.process_index() == 0


def gather(value: Any) -> list:
    """Return what every process gives here, in their order; JSON values.

    All processes have to come to the same calls in the same order.

    Raises:
        InputError: one of them does not come.
    """
    if jax.process_count() == 1:
        return [value]
    place = f"rmjax/place{next(_places)}/"
    _store().key_value_set(f"{place}{jax.process_index()}", json.dumps(value))
    values = []
    for process in range(jax.process_count()):
        try:
            text = _store().blocking_key_value_get(
                f"{place}{process}", int(1000 * GATHER_SECONDS)
            )
        except jax.errors.JaxRuntimeError as error:
            raise InputError(
                f"process {process} did not come along within {GATHER_SECONDS} s"
            ) from error
        values.append(json.loads(text))
    return values


def check_alike(facts: Mapping[str, Any]) -> None:
    """Check that every process runs the same code, with the same facts.

    Raises:
        InputError: two processes differ; the message names the fact and both values.
    """
    if jax.process_count() == 1:
        return
    versions = {f"version of {k}": v for k, v in package_versions().items()}
    mine = versions | {"code of rmjax": revision(("rmjax",), ())[:12], **facts}
    first, *others = gather({name: str(value) for name, value in mine.items()})
    for process, facts_there in enumerate(others, 1):
        for name in {**first, **facts_there}:
            one = first.get(name, "nothing")
            other = facts_there.get(name, "nothing")
            if one != other:
                raise InputError(
                    f"{name} is {one} in process 0 and {other} in process {process}: "
                    "start the same command, with the same code, on every host"
                )


def check_shared(file: Path) -> None:
    """Check that all processes see the `file` that process 0 has just written.

    Raises:
        InputError: one of them sees no such file, or another.
    """
    wanted = gather(_digest_file(file))[0]
    if wanted != _digest_file(file):
        raise InputError(
            f"process {jax.process_index()} does not see in {file.parent} what process "
            "0 wrote there: give a folder that all hosts share"
        )


def leave(status: int, message: str = "") -> int:
    """End the job: in good order when all have done their part, else at once.

    Args:
        status: exit status of this process.
        message: what went wrong here, for the other processes to print; they and this
            one end with the same status, at once.

    Returns:
        The status, when all processes are done.
    """
    global _watch
    if _watch is None:
        return status
    # A job that was asked to stop leaves in good order: all have come to the same step.
    if message and status != os.EX_TEMPFAIL:
        # Before the others are told: they end, and are then silent on purpose.
        _watch.stop()
        _post(f"{_FAILED}{jax.process_index()}", json.dumps([message, status]))
        if is_first():  # the store ends with this process
            time.sleep(3 * BEAT_SECONDS)
        _exit(status)
    _post(f"{_LEFT}{jax.process_index()}", str(status))
    while len(_store().key_value_dir_get(_LEFT)) < jax.process_count():
        time.sleep(BEAT_SECONDS / 4)
    _watch.stop()
    _watch = None
    jax.distributed.shutdown()
    return status


def wait_for_reason(error: Exception) -> None:
    """Let the watch say who was lost, where an operation failed for want of a process."""
    if _watch is not None and isinstance(error, jax.errors.JaxRuntimeError):
        time.sleep(SILENCE_SECONDS + 5 * BEAT_SECONDS)


def _post(key: str, text: str) -> None:
    with suppress(jax.errors.JaxRuntimeError):  # process 0 is gone already
        _store().key_value_set(key, text, True)


class _Watch(threading.Thread):
    """Shows that this process lives, and ends it when another one does not."""

    def __init__(self) -> None:
        super().__init__(daemon=True)  # so that an interpreter that ends is not kept
        self._stopped = threading.Event()
        self._seen: dict[str, tuple[str, float]] = {}
        # JAX's own thread pools are gone by the time its cleanup would run.
        atexit.register(self.stop)

    def stop(self) -> None:
        self._stopped.set()

    def run(self) -> None:
        me = f"{_BEATS}{jax.process_index()}"
        for beat in count():
            if self._stopped.wait(BEAT_SECONDS):
                return
            try:
                _store().key_value_set(me, str(beat), True)
                failed = dict(_store().key_value_dir_get(_FAILED))
                beats = dict(_store().key_value_dir_get(_BEATS))
            except jax.errors.JaxRuntimeError:  # the store is gone, and process 0
                if not self._stopped.is_set():
                    _end(_lost("0, the coordinator,"), LOST)
                return
            for key, text in failed.items():
                message, status = json.loads(text)
                _end(f"process {_number(key)} failed: {message}", status)
            self._look_for_silence(beats)

    def _look_for_silence(self, beats: dict[str, str]) -> None:
        # By this host's clock alone: those of two hosts may differ by minutes.
        now = time.monotonic()
        for process in range(jax.process_count()):
            key = f"{_BEATS}{process}"
            beat = beats.get(key, "")
            last, since = self._seen.setdefault(key, (beat, now))
            if beat != last:
                self._seen[key] = beat, now
            elif now - since > SILENCE_SECONDS:
                _end(_lost(str(process)), LOST)


def _lost(process: str) -> str:
    return (
        f"process {process} was lost (no sign of life for {SILENCE_SECONDS} s); start "
        "the same command again on every host: it goes on from the last checkpoint"
    )


def _number(key: str) -> str:
    return key.rsplit("/", 1)[-1]


def _end(message: str, status: int) -> None:
    """End this process from any thread, whatever the others are waiting for."""
    print(f"rmjax: error: {harmless(message)}", file=sys.stderr)
    _exit(status)


def _exit(status: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # JAX would wait for the other processes


def _store() -> Any:
    """Return the coordinator's key-value store, which outlives any one process but it.

    JAX (0.10) documents no way to it, and no operation that does without devices and
    gives up after a while; this public module of its own holds it. Orbax's function for
    it (0.12.8) is not exported.
    """
    return multihost_utils.distributed.global_state.client


def _digest_file(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def _check_options(
    coordinator: str | None, processes: int | None, process: int | None
) -> None:
    if coordinator is None and processes is None and process is None:
        return
    if coordinator is None or processes is None or process is None:
        raise InputError(
            "--coordinator, --processes and --process go together: give all or none"
        )
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdecimal():
        raise InputError(f"--coordinator {coordinator}: give HOST:PORT")
    if not 0 <= process < processes:
        raise InputError(
            f"--process {process} of --processes {processes}: give 0 to {processes - 1}"
        )
