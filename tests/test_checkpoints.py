"""Checkpoints: the best ones and the last two are kept, and come back unchanged."""

import logging
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmjax.errors import InputError, TrainingError
from rmjax.experiment import checkpoints as checkpoints_module
from rmjax.experiment.checkpoints import Checkpoints, load_variables, saved_steps
from rmjax.experiment.step import TrainState


def make_state(step, size=3):
    x = jnp.arange(size, dtype=jnp.float32)
    return TrainState(
        step=jnp.int32(step),
        params={"w": x + step},
        batch_stats={"mean": x},
        opt_state=({"m": x}, jnp.int32(step)),
    )


@pytest.fixture
def folder(tmp_path):
    """Steps 1..6; the best two by loss are 2 and 4, step 6 was not validated."""
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep_best=2)
    for step, loss in enumerate([3.0, 1.0, None, 2.0, 5.0, None], start=1):
        checkpoints.save(make_state(step), {"stale": step}, loss)
    checkpoints.close()
    return tmp_path / "checkpoints"


def test_keeps_the_best_and_the_last_two(folder):
    checkpoints = Checkpoints(folder, read_only=True)
    assert {int(p.name) for p in folder.iterdir()} == {2, 4, 5, 6}
    assert checkpoints.best_step() == 2
    assert checkpoints.last_step() == 6


def test_comes_back_unchanged(folder):
    state, progress = Checkpoints(folder, read_only=True).restore(4, make_state(0))
    jax.tree.map(np.testing.assert_array_equal, state, make_state(4))
    assert progress == {"stale": 4}


def test_a_path_may_lead_up(folder):
    path = folder / ".." / folder.name
    state, _ = Checkpoints(path, read_only=True).restore(4, make_state(0))
    jax.tree.map(np.testing.assert_array_equal, state, make_state(4))


@pytest.mark.parametrize(("which", "step"), [("best", 2), ("last", 6), ("4", 4)])
def test_variables_alone(folder, which, step):
    state = make_state(0)
    like = {"params": state.params, "batch_stats": state.batch_stats}
    variables, found = load_variables(folder, like, which)
    assert found == step
    np.testing.assert_array_equal(variables["params"]["w"], np.arange(3) + step)


def test_other_shapes_are_refused_by_name(folder):
    checkpoints = Checkpoints(folder, read_only=True)
    with pytest.raises(InputError, match=r"params/w is \[3\] there and \[4\] here"):
        checkpoints.restore(6, make_state(0, size=4))


def test_missing_entries_are_refused_by_name(folder):
    state = make_state(0).replace(params={"v": jnp.zeros(3)})
    with pytest.raises(InputError, match=r"params/v is missing there"):
        Checkpoints(folder, read_only=True).restore(6, state)


def test_an_unknown_step_lists_those_there_are(folder):
    with pytest.raises(InputError, match="no checkpoint 3 in .*: there are 2, 4, 5, 6"):
        Checkpoints(folder, read_only=True).restore(3, make_state(0))


@pytest.mark.parametrize(
    "name",
    ["a run #1, 50%20 größer?", "exp[1]", "[!a]*", "{x},{y}", "lr={1e-3}?*", "[", "**"],
)
def test_any_name_of_a_folder_will_do(tmp_path, name):
    folder = tmp_path / name / "checkpoints"
    checkpoints = Checkpoints(folder)
    checkpoints.save(make_state(1), {})
    checkpoints.close()
    state, _ = Checkpoints(folder).restore_last(make_state(0))
    jax.tree.map(np.testing.assert_array_equal, state, make_state(1))


def test_checkpoints_of_the_first_version_are_told_and_left_alone(folder):
    (folder / "7" / "state").mkdir(parents=True)
    like = {"params": make_state(0).params, "batch_stats": make_state(0).batch_stats}
    for read in (Checkpoints, lambda folder: load_variables(folder, like)):
        with pytest.raises(InputError, match="saved by rmjax 0.1.0"):
            read(folder)
    assert (folder / "7").is_dir()


def test_a_run_without_checkpoints_says_so(tmp_path):
    with pytest.raises(InputError, match="train there first"):
        load_variables(tmp_path / "checkpoints", {}, "best")


def delete(path):
    path.unlink()


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_a_bit(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def files_of(folder, step):
    return [p for p in sorted((folder / str(step)).rglob("*")) if p.is_file()]


def content_of(folder, step):
    """The file that holds the numbers."""
    return max(files_of(folder, step), key=lambda path: path.stat().st_size)


@pytest.mark.parametrize("damage", [delete, truncate, flip_a_bit])
def test_whatever_is_damaged_nothing_wrong_is_restored(folder, tmp_path, damage):
    """Of every file of the newest: it comes back the same, or the one before does."""
    found = set()
    for path in files_of(folder, 6):
        copy = tmp_path / "copy"
        shutil.copytree(folder, copy)
        damage(copy / path.relative_to(folder))
        checkpoints = Checkpoints(copy, keep_best=2)
        state, progress = checkpoints.restore_last(make_state(0))
        step = int(state.step)
        jax.tree.map(np.testing.assert_array_equal, state, make_state(step))
        assert step in (5, 6) and progress == {"stale": step}
        assert (copy / "6.damaged").exists() == (step == 5)
        assert checkpoints.best_step() == 2
        found.add(step)
        shutil.rmtree(copy)
    assert found == {5, 6}


def test_wherever_a_bit_flips_nothing_wrong_is_restored(folder):
    """In a twentieth of the bytes, spread over names, numbers and the file's index."""
    path = content_of(folder, 6)
    good, detected = path.read_bytes(), 0
    for place in range(0, len(good), 19):
        data = bytearray(good)
        data[place] ^= 1 << place % 8
        path.write_bytes(data)
        checkpoints = Checkpoints(folder, read_only=True)
        try:
            state, progress = checkpoints.restore(6, make_state(0))
        except InputError:
            detected += 1
            continue
        jax.tree.map(np.testing.assert_array_equal, state, make_state(6))
        assert progress == {"stale": 6}
    assert detected > 20


def test_a_damaged_checkpoint_is_named_and_set_aside(folder, caplog):
    delete(content_of(folder, 6))
    truncate(content_of(folder, 5))
    with caplog.at_level(logging.WARNING, logger="rmjax"):
        checkpoints = Checkpoints(folder, keep_best=2)
        state, _ = checkpoints.restore_last(make_state(0))
    assert int(state.step) == 4
    second, first = sorted(record.getMessage() for record in caplog.records)
    assert f"{folder}/6 is damaged: " in first and "set aside as 6.damaged" in first
    assert f"{folder}/5 is damaged: " in second and "\n" not in first + second
    # The same steps again, damaged again: nothing is deleted.
    checkpoints.save(make_state(5), {})
    checkpoints.save(make_state(6), {})
    checkpoints.close()
    delete(content_of(folder, 6))
    Checkpoints(folder, keep_best=2)
    names = {p.name for p in folder.iterdir()}
    assert names == {"2", "4", "5", "5.damaged", "6.damaged", "6.damaged-2"}


def test_without_a_good_one_nothing_is_restored(folder):
    for step in (2, 4, 5, 6):
        delete(content_of(folder, step))
    assert Checkpoints(folder).restore_last(make_state(0)) == (None, None)
    assert not saved_steps(folder)


@pytest.mark.parametrize(("which", "step"), [("best", 2), ("last", 6), ("4", 4)])
def test_a_damaged_one_is_not_exchanged_silently(folder, which, step):
    flip_a_bit(content_of(folder, step))
    state = make_state(0)
    like = {"params": state.params, "batch_stats": state.batch_stats}
    good = 5 if step == 6 else 6
    message = rf"checkpoint .*/{step} is damaged: .*; {good} is whole: name that step"
    with pytest.raises(InputError, match=message):
        load_variables(folder, like, which)
    assert {p.name for p in folder.iterdir()} == {"2", "4", "5", "6"}


@pytest.mark.parametrize("damage", [delete, truncate, flip_a_bit])
def test_what_does_not_read_back_never_counts(folder, monkeypatch, damage):
    """A disk that loses or changes what was written to it."""

    def write(path, *arguments, real=checkpoints_module._write_archive):
        real(path, *arguments)
        damage(Path(path))

    monkeypatch.setattr(checkpoints_module, "_write_archive", write)
    checkpoints = Checkpoints(folder, keep_best=2)
    checkpoints.save(make_state(7), {"stale": 7}, 0.5)
    with pytest.raises(TrainingError, match="checkpoint 7 does not read back"):
        checkpoints.close()
    assert {p.name for p in folder.iterdir()} == {"2", "4", "5", "6"}


def test_numbers_that_are_not_finite_are_not_saved(folder):
    checkpoints = Checkpoints(folder, keep_best=2)
    state = make_state(7)
    checkpoints.save(state.replace(params={"w": state.params["w"] / 0}), {})
    with pytest.raises(TrainingError, match=r"params/w is not finite after step 7"):
        checkpoints.save(make_state(8), {})
    with pytest.raises(TrainingError, match="validation loss is nan after step 8"):
        checkpoints.save(make_state(8), {}, float("nan"))
    checkpoints.close()
    assert checkpoints.last_step() == 6


def test_what_a_kill_left_behind_is_removed(folder):
    (folder / "7.orbax-checkpoint-tmp").mkdir()
    checkpoints = Checkpoints(folder, keep_best=2)
    assert checkpoints.steps() == [2, 4, 5, 6]
    assert {p.name for p in folder.iterdir()} == {"2", "4", "5", "6"}
