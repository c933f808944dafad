"""Settings for XLA on a CPU, where nothing else is asked for."""

import os
import subprocess
import sys
from importlib.metadata import version

import pytest

from rmjax.utils import cpu

PROGRAM = """
import resource
import numpy as np
from rmjax.utils.cpu import keep_memory
kept = keep_memory()
np.ones(1 << 25)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
np.ones(1 << 25)
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def run(**environment) -> tuple[bool, int]:
    """Return whether memory was kept, and the page faults of the same 256 MiB again."""
    variables = {**os.environ, **environment}
    kept, faults = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=variables,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    return kept == "True", int(faults)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="for glibc alone")
def test_freed_memory_is_used_again():
    kept, faults = run()
    assert kept
    assert faults < 100


HEAPS = """
import ctypes, threading
from rmjax.utils import cpu
cpu.cores = lambda: {cores}
assert cpu.keep_memory()
barrier = threading.Barrier(4)

def allocate():
    barrier.wait()
    bytearray(10_000)
    barrier.wait()

threads = [threading.Thread(target=allocate) for _ in range(4)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
libc = ctypes.CDLL(None)
libc.fopen.restype = ctypes.c_void_p
stream = libc.fopen(b"/dev/stdout", b"w")
libc.malloc_info(0, ctypes.c_void_p(stream))
libc.fclose(ctypes.c_void_p(stream))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="for glibc alone")
@pytest.mark.parametrize(("cores", "shared"), [(2, True), (100, False)])
def test_threads_of_many_cores_have_heaps_of_their_own(cores, shared):
    program = [sys.executable, "-c", HEAPS.format(cores=cores)]
    told = subprocess.run(program, check=True, capture_output=True, text=True).stdout
    assert (told.count("<heap nr=") == 1) == shared


def test_settings_of_the_environment_are_left_alone():
    kept, faults = run(GLIBC_TUNABLES="glibc.malloc.arena_max=4")
    assert not kept
    assert faults > 100


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("--xla_force_host_platform_device_count=2", "{0} {1}=a,b"),
        ("", "{1}=a,b"),
        ("--xla_cpu_experimental_ynn_fusion_type=", "{0}"),
    ],
)
def test_flags_of_the_environment_are_kept(monkeypatch, before, after):
    monkeypatch.setenv("XLA_FLAGS", before)
    monkeypatch.setattr(cpu, "_KINDS", ("a", "b"))
    monkeypatch.setattr(cpu, "version", lambda name: "0.10.9")
    cpu.choose_kernels()
    assert os.environ["XLA_FLAGS"] == after.format(before, cpu._YNNPACK)


def test_another_xla_is_not_given_a_flag_that_it_may_not_know(monkeypatch):
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    monkeypatch.setattr(cpu, "version", lambda name: "0.12.0")
    cpu.choose_kernels()
    assert "XLA_FLAGS" not in os.environ


@pytest.mark.skipif(
    not version("jaxlib").startswith(cpu._JAXLIB), reason="for a jaxlib that is known"
)
def test_convolutions_are_left_to_eigen():
    program = """
from rmjax.utils.cpu import choose_kernels
choose_kernels()
import jax, jax.numpy as jnp
from rmjax.models.conv import convolve
x, kernel = jnp.ones((2, 16, 16, 8)), jnp.ones((3, 3, 8, 8))
print(jax.jit(convolve).lower(x, kernel).compile().as_text())
"""
    flags = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    compiled = subprocess.run(
        [sys.executable, "-c", program],
        env=flags,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert "convolution(" in compiled
    assert "ynn" not in compiled
