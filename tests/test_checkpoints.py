"""Checkpoints: the best ones and the last two are kept, and come back unchanged."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmjax.checkpoints import Checkpoints, load_variables
from rmjax.errors import InputError
from rmjax.train_step import TrainState


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


def test_a_run_without_checkpoints_says_so(tmp_path):
    with pytest.raises(InputError, match="train there first"):
        load_variables(tmp_path / "checkpoints", {}, "best")
