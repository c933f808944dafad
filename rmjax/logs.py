"""Where a run's figures go: a JSON-lines file and TensorBoard events."""

import json
import os
from pathlib import Path

from tensorboardX import SummaryWriter

METRICS_FILE = "metrics.jsonl"


class RunLog:
    """Writes scalars of a run to `metrics.jsonl` and `tensorboard/` in its workdir.

    A resumed run repeats the steps after its last checkpoint: what was logged of
    them before is dropped, so that every step stands there once.
    """

    def __init__(self, workdir: Path, start_step: int, silent: bool = False):
        """Open the log of `workdir` for a run that goes on after `start_step`.

        `silent` writes nothing: of several processes, one alone is to log.
        """
        self._silent = silent
        if silent:
            return
        path = workdir / METRICS_FILE
        kept = [r for r in read_log(workdir) if r["step"] <= start_step]
        _write_lines(path, kept)
        self._file = path.open("a", encoding="utf-8", buffering=1)
        self._events = SummaryWriter(
            str(workdir / "tensorboard"), purge_step=start_step + 1
        )

    def write(self, step: int, kind: str, scalars: dict[str, float]) -> None:
        """Log `scalars` of `step`; `kind` is "train" or "validation"."""
        if self._silent:
            return
        row = {"step": step, "kind": kind, **scalars}
        self._file.write(json.dumps(row) + "\n")
        for name, value in scalars.items():
            self._events.add_scalar(f"{kind}/{name}", value, step)

    def close(self) -> None:
        """Write out what is buffered."""
        if self._silent:
            return
        self._file.close()
        self._events.close()


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


def write_json(path: Path, data: dict) -> None:
    """Write `data` as indented JSON, whole or not at all.

    Raises:
        ValueError: a number is not finite, which JSON has no word for.
    """
    replace_text(path, json.dumps(data, indent=2, allow_nan=False) + "\n")


def _write_lines(path: Path, rows: list[dict]) -> None:
    replace_text(path, "".join(json.dumps(row) + "\n" for row in rows))


def replace_text(path: Path, text: str) -> None:
    """Write a file, whole or not at all."""
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
