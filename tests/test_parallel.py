"""Placing and cutting over eight CPU devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmjax import parallel
from rmjax.errors import InputError


@pytest.fixture(params=[1, 2, 8])
def devices(request):
    return parallel.choose_devices(request.param)


def test_a_mapped_step_sees_its_share_and_returns_the_whole(devices):
    def step(state, batch):
        total = jax.lax.psum(batch["x"].sum(), parallel.AXIS)
        return {"w": state["w"] + total}, {"share": jnp.float32(len(batch["x"]))}

    state = parallel.place({"w": jnp.zeros(3)}, devices)
    batch = parallel.shard({"x": np.arange(16.0)}, devices)
    new, metrics = parallel.map_step(step, devices)(state, batch)
    np.testing.assert_array_equal(new["w"], np.full(3, 120.0))
    assert metrics["share"] == 16 / len(devices)
    assert state["w"].is_deleted()  # donated


def test_mapped_examples_keep_their_order(devices):
    x = np.arange(32.0).reshape(16, 2)
    variables = parallel.place({"w": jnp.float32(2)}, devices)
    double = parallel.map_examples(lambda v, b: {"y": v["w"] * b["x"]}, devices)
    result = double(variables, parallel.shard({"x": x}, devices))
    np.testing.assert_array_equal(parallel.fetch(result)["y"], 2 * x)


def test_prefetch_loses_nothing(devices):
    batches = [{"x": np.full(8, i)} for i in range(5)]
    seen = [int(b["x"].ravel()[0]) for b in parallel.prefetch(batches, devices)]
    assert seen == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("size", [0, 8, 24])
def test_uneven_batches_are_refused(size):
    with pytest.raises(InputError, match=f"batch_size = {size} .* multiple of 16"):
        parallel.check_batch(size, 2, parallel.choose_devices(8))


def test_groups_that_fit_pass():
    parallel.check_batch(48, 3, parallel.choose_devices(8))
