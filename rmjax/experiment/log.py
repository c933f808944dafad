"""Where a run's figures go: a JSON-lines file and TensorBoard events."""

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import scalar

from rmjax.errors import TrainingError
from rmjax.utils.files import replace_text, send
from rmjax.utils.places import is_remote, reason

METRICS_FILE = "metrics.jsonl"
EVENTS = "tensorboard"


class RunLog:
    """Writes scalars of a run to `metrics.jsonl` and `tensorboard/` in its workdir.

    A resumed run repeats the steps after its last checkpoint: what was logged of
    them before is dropped, so that every step stands there once.

    A store's files can't be added to: there both files are written to a temporary folder
    here, and sent as they are with every `write`.
    """

    def __init__(
        self,
        workdir: Path,
        start_step: int,
        *,
        pending: bool = False,
        silent: bool = False,
    ):
        """Open the log of `workdir` for a run that goes on after `start_step`.

        Args:
            workdir: folder of the run.
            start_step: what was logged of later steps is dropped.
            pending: the validation of this step, too, is repeated.
            silent: write nothing: of several processes, one alone is to log.

        Raises:
            TrainingError: it can't be written, as in `write` and `close`.
        """
        self._silent = silent
        if silent:
            return
        self._workdir = self._folder = workdir
        self._scratch = ExitStack()
        if is_remote(workdir):
            scratch = TemporaryDirectory(prefix="rmjax-log-")
            self._folder = Path(self._scratch.enter_context(scratch))
        with self._writing(METRICS_FILE):
            kept = [
                row
                for row in read_log(workdir)
                if row["step"] < start_step
                or row["step"] == start_step
                and not (pending and row["kind"] == "validation")
            ]
            path = self._folder / METRICS_FILE
            replace_text(path, "".join(json.dumps(row) + "\n" for row in kept))
            self._file = path.open("a", encoding="utf-8", buffering=1)
        with self._writing(EVENTS):
            events = self._folder / EVENTS
            events.mkdir(exist_ok=True)
            # Not SummaryWriter: where its thread meets a full disk, training hangs.
            self._events = EventsWriter(str(events / "events"))
            purge = Event(step=start_step + 1, wall_time=time.time())
            purge.session_log.status = SessionLog.START
            self._events.write_event(purge)

    def write(self, step: int, kind: str, scalars: dict[str, float]) -> None:
        """Log `scalars` of `step`; `kind` is "train", "validation" or "tuning"."""
        if self._silent:
            return
        row = {"step": step, "kind": kind, **scalars}
        with self._writing(METRICS_FILE):
            self._file.write(json.dumps(row) + "\n")
        with self._writing(EVENTS):
            for name, value in scalars.items():
                summary = scalar(f"{kind}/{name}", value)
                event = Event(step=step, wall_time=time.time(), summary=summary)
                self._events.write_event(event)
            self._events.flush()
        self._send()

    def close(self) -> None:
        """Write out what is buffered."""
        if self._silent:
            return
        with self._writing(METRICS_FILE):
            self._file.close()
        with self._writing(EVENTS):
            self._events.close()
        with self._scratch:
            self._send()

    def _send(self) -> None:
        if self._folder == self._workdir:
            return
        for file in (self._folder / METRICS_FILE, *(self._folder / EVENTS).iterdir()):
            name = file.relative_to(self._folder).as_posix()
            with self._writing(name):
                send(file, self._workdir / name)

    @contextmanager
    def _writing(self, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise TrainingError(
                f"can't write the log {self._workdir / name}: {reason(error)}; what was "
                "saved stays: make room, then run the same command again"
            ) from error


def read_log(workdir: Path) -> list[dict]:
    """Return the rows of a run's `metrics.jsonl`; a line cut by a kill is left out."""
    path = workdir / METRICS_FILE
    rows = []
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                continue
    return rows
