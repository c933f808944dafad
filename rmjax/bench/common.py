"""What benchmarks share: timed calls, medians of rounds, other people's packages.

Processes that fork import this file: nothing here starts threads, as jax does.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from importlib.util import find_spec
from multiprocessing import get_context
from typing import Any

import numpy as np
from tqdm import tqdm

logger = logging.getLogger(__name__)

SECONDS = 1.0  # of calls per figure
AHEAD = 10  # calls started on an accelerator before the last of them is waited for


def seconds_of(call: Callable[[], object]) -> float:
    """Return how long one call takes, which has to wait for its results."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def seconds_per_call(call: Callable[[], object], seconds: float | None = None) -> float:
    """Return the mean over `seconds` of calls, at least one; None is `SECONDS`.

    One call before them brings back into the caches what others have displaced.
    """
    call()
    least = SECONDS if seconds is None else seconds
    start, count, elapsed = time.perf_counter(), 0, 0.0
    while elapsed < least or not count:
        call()
        count += 1
        elapsed = time.perf_counter() - start
    return elapsed / count


def calls_ahead(devices: Sequence[Any]) -> int:
    """Return how many calls to start before one waits, as the training loop does.

    An accelerator would stand still between two calls that are each waited for; a CPU
    computes within the call.

    Args:
        devices: JAX's, where the calls run.
    """
    return 1 if devices[0].platform == "cpu" else AHEAD


def median_of_rounds(
    measure: Callable[[], Mapping[str, Any]], repeats: int, label: str
) -> dict[str, Any]:
    """Call what measures several things in turn, `repeats` times; take medians of each.

    Taking turns, everything gets its share of a machine's slow moments. A bar shows
    the rounds, with the label. `measure` gives figures by name, perhaps by two names.
    """
    return _medians([measure() for _ in tqdm(range(repeats), label)])


def _medians(rounds: list) -> Any:
    if not isinstance(rounds[0], Mapping):
        return float(np.median(rounds))
    return {name: _medians([figures[name] for figures in rounds]) for name in rounds[0]}


def installed(*packages: str) -> bool:
    """Tell whether all of these packages are there; none of them is imported."""
    return all(find_spec(name) is not None for name in packages)


@contextmanager
def processes_with(
    packages: tuple[str, ...], prepare: Callable[[], object], count: int
) -> Iterator[ProcessPoolExecutor | None]:
    """Give `count` processes for code that needs other people's packages.

    None where these are not installed, or where `prepare`, which imports them, fails:
    then a warning says why.
    """
    if not installed(*packages):
        yield None
        return
    with ProcessPoolExecutor(count, get_context("spawn")) as pool:
        try:
            pool.submit(prepare).result()
        except Exception as error:  # such as a missing CUDA library: OSError
            logger.warning(
                "%s: installed, but does not run: %s", ", ".join(packages), error
            )
            runs = False
        else:
            runs = True
        yield pool if runs else None
