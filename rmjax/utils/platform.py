"""For which kind of processor a program is traced: this one's, or one that is not here."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import jax

_target: ContextVar[str | None] = ContextVar("target", default=None)


def target_platform() -> str:
    """Return JAX's name, "cpu", "gpu" or "tpu", of what is traced for.

    Where the same values can be computed in several ways, the fastest of them depends
    on it. It is JAX's default backend, unless `targeting` says otherwise.
    """
    return _target.get() or jax.default_backend()


@contextmanager
def targeting(platform: str) -> Iterator[None]:
    """Trace for another platform within the block, to compile for it or to compare.

    A function that `jax.jit` has traced before, for the same shapes, keeps that trace.
    """
    token = _target.set(platform)
    try:
        yield
    finally:
        _target.reset(token)
