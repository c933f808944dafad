"""The run's log: each step once, also after an interruption."""

import errno
import os

import pytest

from rmjax.errors import TrainingError
from rmjax.experiment.log import EVENTS, METRICS_FILE, RunLog, read_log
from rmjax.utils.files import write_json


def test_a_resumed_log_repeats_no_step(tmp_path):
    log = RunLog(tmp_path, 0)
    for step in (2, 4, 6):
        log.write(step, "train", {"loss": float(step)})
    log.close()
    log = RunLog(tmp_path, 4)  # the checkpoint was of step 4
    log.write(6, "train", {"loss": -6.0})
    log.close()
    rows = read_log(tmp_path)
    assert [row["step"] for row in rows] == [2, 4, 6]
    assert rows[-1] == {"step": 6, "kind": "train", "loss": -6.0}


def test_a_line_cut_by_a_kill_is_left_out(tmp_path):
    path = tmp_path / METRICS_FILE
    path.write_text('{"step": 2, "kind": "train"}\n{"step": 4, "ki')
    assert [row["step"] for row in read_log(tmp_path)] == [2]


def test_tensorboard_reads_the_events(tmp_path):
    """The file is parsed with TensorBoard's own message definitions."""
    from tensorboardX.proto import event_pb2

    log = RunLog(tmp_path, 0)
    log.write(3, "validation", {"loss": 0.5})
    log.close()
    (file,) = (tmp_path / "tensorboard").iterdir()
    data, values, at = file.read_bytes(), {}, 0
    while at < len(data):
        length = int.from_bytes(data[at : at + 8], "little")
        event = event_pb2.Event.FromString(data[at + 12 : at + 12 + length])
        values |= {v.tag: (event.step, v.simple_value) for v in event.summary.value}
        at += 16 + length
    assert values["validation/loss"] == (3, 0.5)


@pytest.mark.parametrize("attribute", ["_file", "_events"])
def test_a_log_that_cannot_be_written_is_named(tmp_path, monkeypatch, attribute):
    log = RunLog(tmp_path, 0)
    log.write(2, "train", {"loss": 1.0})
    if attribute == "_file":
        log._file = open("/dev/full", "a", buffering=1)
        name = METRICS_FILE
    else:
        log._events._py_recordio_writer._writer = open("/dev/full", "wb")
        name = EVENTS
    message = f"can't write the log {tmp_path / name}: No space left on device; what"
    with pytest.raises(TrainingError, match=message):
        log.write(4, "train", {"loss": 1.0})
    assert read_log(tmp_path)[0] == {"step": 2, "kind": "train", "loss": 1.0}


def test_a_file_that_cannot_be_written_is_named_and_the_old_one_stays(
    tmp_path, monkeypatch
):
    path = tmp_path / "run.json"
    write_json(path, {"a": 1})

    def replace(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(OSError, match="No space left on device") as error:
        write_json(path, {"a": 2})
    assert error.value.filename == str(path)
    assert [p.read_text() for p in tmp_path.iterdir()] == ['{\n  "a": 1\n}\n']
