"""Data parallelism over the devices of all processes: the one file that says `pmap`.

A step is written for one replica, with collectives over `AXIS`. The state has
no device axis: it goes in and comes out whole, the same on every device, and
its buffers are donated. A batch is cut along its first axis; each process holds
the part of its own devices.
"""

import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from rmjax.errors import InputError

AXIS = "batch"

PyTree = Any
Devices = Sequence[jax.Device]


# The process that first asked for devices here. A fork of it has JAX's memory and not its
# threads.
_owner: int | None = None


def check_process() -> None:
    """Check that computations of this process will not wait for threads it has not.

    Raises:
        InputError: it was forked from one that had computed here.
    """
    global _owner
    _owner = _owner or os.getpid()
    if _owner != os.getpid():
        raise InputError(
            "this process was forked from one in which JAX was running, and would hang: "
            "start it anew (joblib's backend loky, or multiprocessing's 'spawn'), or use "
            "threads"
        )


def choose_devices(count: int | None = None) -> list[jax.Device]:
    """Return the first `count` local devices (all of them for None).

    Raises:
        InputError: there are fewer than `count` devices, or as for `check_process`.
    """
    check_process()
    devices = jax.local_devices()
    if count is None:
        return devices
    if not 1 <= count <= len(devices):
        raise InputError(
            f"num_devices = {count}, but this process has {len(devices)} device(s)"
        )
    return devices[:count]


def everywhere(devices: Devices) -> list[jax.Device]:
    """Return, process by process, the devices that all processes give here.

    Every process has to give as many, the first of its own.
    """
    count = len(devices)
    by_process = [
        [d for d in jax.devices() if d.process_index == process]
        for process in range(jax.process_count())
    ]
    # In this order a mesh over them gives each process the part of a batch that it holds.
    return [device for own in by_process for device in own[:count]]


def local(devices: Devices) -> list[jax.Device]:
    """Return those of the devices that are this process's own."""
    return [d for d in devices if d.process_index == jax.process_index()]


def check_batch(batch_size: int, unit: int, devices: Devices, pieces: int = 1) -> None:
    """Check that whole units of `unit` images fill every device's pieces alike.

    Raises:
        InputError: `batch_size` images can't be dealt out so.
    """
    multiple = len(devices) * unit * pieces
    if batch_size < 1 or batch_size % multiple:
        processes = len({device.process_index for device in devices})
        accumulated = f" x {pieces} accumulate_steps" if pieces > 1 else ""
        raise InputError(
            f"batch_size = {batch_size} images is no multiple of {multiple} = "
            f"{len(devices) // processes} devices x {processes} processes x "
            f"{unit} images that are mixed among each other{accumulated}"
        )


def place(tree: PyTree, devices: Devices) -> PyTree:
    """Copy every leaf of `tree` whole to each device of this process."""
    return jax.device_put(tree, NamedSharding(_mesh(devices), PartitionSpec()))


def place_shapes(tree: PyTree, devices: Devices) -> PyTree:
    """Describe `tree` as `place` would lay it out, without its contents."""
    sharding = NamedSharding(_mesh(devices), PartitionSpec())
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree
    )


def shard(batch: PyTree, devices: Devices) -> PyTree:
    """Cut this process's `[items, ...]` into `[own devices, items / own devices, ...]`."""
    sharding = NamedSharding(_mesh(devices), PartitionSpec(AXIS))
    own = len(local(devices))
    cut = jax.tree.map(lambda x: np.reshape(x, (own, -1, *np.shape(x)[1:])), batch)
    return jax.device_put(cut, sharding)


def prefetch(batches: Iterable[PyTree], devices: Devices) -> Iterator[PyTree]:
    """Yield sharded batches, the next one being copied while this one is used."""
    waiting = None
    for batch in batches:
        # `shard` only starts the copy. One batch ahead is enough to hide it behind a step,
        # and each further one would take its room on the device.
        ready, waiting = waiting, shard(batch, devices)
        if ready is not None:
            yield ready
    if waiting is not None:
        yield waiting


def map_step(step: Callable, devices: Devices) -> Callable:
    """Compile `step(state, batch) -> (state, metrics)` over the devices.

    The state is donated. Whatever the step returns must be equal on all
    replicas (reduced over `AXIS`); it comes back without a device axis.
    """
    # in_axes None and out_axes None: pmap keeps one copy of the state on each device and
    # never adds a device axis to it, so that the same state is saved, restored and donated
    # with any number of devices.
    return _in_step(
        jax.pmap(
            step,
            axis_name=AXIS,
            in_axes=(None, 0),
            out_axes=None,
            donate_argnums=(0,),
            devices=devices,
        ),
        devices,
    )


def map_examples(function: Callable, devices: Devices, *, streams: int = 1) -> Callable:
    """Compile `function(state, batch) -> [items, ...]` leaves over the devices.

    What it returns stays there until `fetch`, cut as `shard` cuts a batch; with devices
    of several processes, every process has all of it.

    Args:
        function: of one device's part of the batch, each item by itself.
        devices: where.
        streams: parts of a batch that a lone CPU device may work on at once, where
            the items can be dealt out evenly. One thread's wait is another's work:
            ResNet-50 ran 1.2 times as fast in two streams on two cores.
    """
    if len(local(devices)) < len(devices):
        return _map_gathered(function, devices)
    mapped = jax.pmap(function, AXIS, in_axes=(None, 0), devices=devices)
    if devices[0].platform != "cpu" or len(devices) > 1 or streams == 1:
        return mapped
    return _in_streams(mapped, streams)


def _map_gathered(function: Callable, devices: Devices) -> Callable:
    """Map as `map_examples`; every device ends up with the results of all."""

    def gathered(state: PyTree, batch: PyTree) -> PyTree:
        # A process can only fetch what lies on its own devices.
        return jax.lax.all_gather(function(state, batch), AXIS)

    mapped = jax.pmap(gathered, AXIS, in_axes=(None, 0), out_axes=None, devices=devices)
    return _in_step(mapped, devices)


def _in_step(mapped: Callable, devices: Devices) -> Callable:
    """Let CPU devices end one call before the next begins.

    They share one thread pool: replicas of a later call can take the threads that an
    earlier one's collective still waits for, and hang it.
    """
    if devices[0].platform != "cpu":
        return mapped
    return lambda state, batch: jax.block_until_ready(mapped(state, batch))


def _in_streams(mapped: Callable, streams: int) -> Callable:
    """Let a lone device work on parts of a batch at once."""
    # What one thread starts runs in order, so each stream has a thread.
    threads = [_thread(number) for number in range(streams - 1)]

    def run(state: PyTree, batch: PyTree) -> PyTree:
        count = math.gcd(jax.tree.leaves(batch)[0].shape[1], streams)
        if count == 1:
            return mapped(state, batch)
        leaves, tree = jax.tree.flatten(batch)
        cut = zip(*[jnp.split(leaf, count, axis=1) for leaf in leaves], strict=True)
        first, *rest = (jax.tree.unflatten(tree, part) for part in cut)
        done = [mapped(state, first)]  # compiles: the others find it compiled
        started = [
            thread.submit(mapped, state, part)
            for thread, part in zip(threads, rest, strict=False)
        ]
        done += [future.result() for future in started]
        return jax.tree.map(lambda *parts: jnp.concatenate(parts, axis=1), *done)

    return run


@cache
def _thread(number: int) -> ThreadPoolExecutor:
    """Return a thread that all steps share, however many a process compiles."""
    return ThreadPoolExecutor(1, f"stream-{number + 1}")


def fetch(result: PyTree) -> PyTree:
    """Wait for what `map_examples` makes: NumPy arrays `[items of the batch, ...]`."""
    result = jax.device_get(result)
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), result)


def _mesh(devices: Devices) -> Mesh:
    return Mesh(np.array(local(devices)), (AXIS,))
