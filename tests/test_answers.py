"""Answers on disk: what was finished is found again, by the same key alone."""

import numpy as np
import pytest

from rmjax.errors import InputError
from rmjax.evaluation.answers import Answers

SHAPES = {"a": (5, 2), "b": (3, 5, 4)}


def test_what_was_written_is_read_where_it_belongs(tmp_path):
    rng = np.random.default_rng(0)
    a, b = rng.random((5, 2)).astype("f4"), rng.random((3, 5, 4)).astype("f4")
    answers = Answers(tmp_path / "new", SHAPES, "key")
    for rows in (slice(0, 2), slice(2, 5)):
        answers.write("a", (rows.start,), a[rows])
        for k in range(3):
            answers.write("b", (k, rows.start), b[k, rows])
    found = answers.load()
    np.testing.assert_array_equal(found["a"], a)
    np.testing.assert_array_equal(found["b"], b)


def test_a_stopped_run_is_taken_up_and_another_is_not(tmp_path):
    first = Answers(tmp_path, SHAPES, "key")
    first.write("a", (0,), np.ones((2, 2)))
    first.finish(2)
    again = Answers(tmp_path, SHAPES, "key")
    assert again.done == 2 and np.all(again.load()["a"][:2] == 1)
    other = Answers(tmp_path, SHAPES, "other key")
    assert other.done == 0 and np.all(other.load()["a"] == 0)
    assert Answers(tmp_path, SHAPES, "key").done == 0


@pytest.mark.parametrize(
    ("file", "content"),
    [("a.f32", "{"), *(("progress.json", text) for text in ("{", "{}", "[]"))],
)
def test_damaged_files_are_started_anew(tmp_path, file, content):
    Answers(tmp_path, SHAPES, "key").finish(3)
    (tmp_path / file).write_text(content)
    assert Answers(tmp_path, SHAPES, "key").done == 0


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="can't write to .*file/answers: Not a dir"):
        Answers(tmp_path / "file" / "answers", SHAPES, "key")


def test_a_lack_of_room_is_said_before_the_work(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(InputError, match="can't write to .*: No space left"):
        Answers(tmp_path / "answers", SHAPES, "key")
