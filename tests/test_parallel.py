"""Placing and cutting over eight CPU devices."""

import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmjax.errors import InputError
from rmjax.experiment import parallel


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


@pytest.mark.parametrize("streams", [1, 2, 6])
def test_mapped_examples_keep_their_order(devices, streams):
    x = np.arange(32.0).reshape(16, 2)
    variables = parallel.place({"w": jnp.float32(2)}, devices)

    def step(variables, batch):
        return {"y": variables["w"] * batch["x"]}

    double = parallel.map_examples(step, devices, streams=streams)
    result = double(variables, parallel.shard({"x": x}, devices))
    np.testing.assert_array_equal(parallel.fetch(result)["y"], 2 * x)


def test_streams_share_a_batch():
    devices = parallel.choose_devices(1)
    sizes = []

    def step(_, batch):
        sizes.append(len(batch["x"]))
        return batch

    run = parallel.map_examples(step, devices, streams=4)
    for items in (8, 6, 1):
        x = np.arange(items)
        result = run({}, parallel.shard({"x": x}, devices))
        np.testing.assert_array_equal(parallel.fetch(result)["x"], x)
    assert sizes == [2, 3, 1]  # compiled once each


def test_streams_of_many_steps_share_their_threads():
    devices = parallel.choose_devices(1)
    batch = parallel.shard({"x": np.arange(8)}, devices)

    def run_anew():
        run = parallel.map_examples(lambda _, batch: batch, devices, streams=4)
        jax.block_until_ready(run({}, batch))
        return threading.active_count()

    first = run_anew()
    assert [run_anew() for _ in range(3)] == [first] * 3


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
