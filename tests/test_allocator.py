"""Memory that is freed stays with the process, where nothing else is asked for."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import resource
import numpy as np
from rmjax.allocator import keep_memory
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


def test_settings_of_the_environment_are_left_alone():
    kept, faults = run(GLIBC_TUNABLES="glibc.malloc.arena_max=4")
    assert not kept
    assert faults > 100
