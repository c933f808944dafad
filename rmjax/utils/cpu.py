"""Settings of a process that make XLA faster on a CPU, made before anything else.

Memory: XLA takes the scratch memory of a program anew at every call, gigabytes for a
training step. By default the C library gives such blocks back to the system at once, so
that every step touches its pages for the first time again: half a million faults for
two gigabytes, a quarter of the step's time.

Kernels: XLA gives convolutions, products and sums to YNNPACK where it can. Eigen's
convolutions, its other choice, are faster: at 224 px and 16 images, ResNet-50's took
0.2 to 1.0 of the time, gradients of the kernel the least. Its products and sums are not.
"""

import ctypes
import functools
import os
import sys
from importlib.metadata import version

from rmjax.utils.processes import cores

# Parameters of mallopt and advice of madvise: https://man7.org/linux/man-pages/man3/mallopt.3.html
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8
_HUGE_PAGES = 14
_FEW_CORES = 8
_HUGE = 2**21  # bytes in a huge page
# XLA ends a process at a flag that it does not know: these versions of jaxlib know it.
_JAXLIB = ("0.10.", "0.11.")
_YNNPACK = "--xla_cpu_experimental_ynn_fusion_type"
_KINDS = ("LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT", "LIBRARY_FUSION_TYPE_REDUCE")
_VARIABLES = ("GLIBC_TUNABLES", "MALLOC_ARENA_MAX", "MALLOC_MMAP_MAX_", "LD_PRELOAD")


@functools.cache
def keep_memory() -> bool:
    """Let this process keep the memory that it frees, and back it by huge pages.

    A heap that never shrinks and of which no block is mapped by itself; an address range
    as large as half of the machine's memory is set aside for it, of which only what is
    used is taken. Done once. On a few cores all threads share that heap; on more they
    would wait for each other, and keep heaps of their own for small blocks.

    Returns:
        Whether it was done: not where the environment sets up the allocator (or
        preloads another), or where the C library is not glibc.
    """
    if not sys.platform.startswith("linux") or any(map(os.environ.get, _VARIABLES)):
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return False
    settings = {_MMAP_MAX: 0, _TRIM_THRESHOLD: -1}
    if cores() <= _FEW_CORES:
        settings[_ARENA_MAX] = 1
    if not all(library.mallopt(*setting) for setting in settings.items()):
        return False
    library.malloc.restype = ctypes.c_void_p
    library.malloc.argtypes = [ctypes.c_size_t]
    library.free.argtypes = [ctypes.c_void_p]
    library.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    block = library.malloc(size)
    if block:  # None where the system does not lend so much
        skipped = -block % _HUGE
        library.madvise(block + skipped, size - skipped, _HUGE_PAGES)
        library.free(block)
    return True


def choose_kernels() -> None:
    """Leave convolutions to Eigen, unless `XLA_FLAGS` says something of YNNPACK itself.

    In the environment, so that processes of this one do the same; XLA reads it when it
    is first used.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if _YNNPACK not in flags and version("jaxlib").startswith(_JAXLIB):
        os.environ["XLA_FLAGS"] = f"{flags} {_YNNPACK}={','.join(_KINDS)}".strip()
