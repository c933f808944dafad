"""A map over a cluster, by Apache Beam (the extra `rmjax[beam]`)."""

import pickle
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rmjax.errors import InputError
from rmjax.utils.files import remove_tree, replace_bytes
from rmjax.utils.processes import OrderedMap

if TYPE_CHECKING:
    from apache_beam.options.pipeline_options import PipelineOptions


@contextmanager
def beam_map(
    function: Callable, folder: Path, options: "PipelineOptions"
) -> Iterator[OrderedMap]:
    """Give a map of `function` over items, which the workers of a Beam runner share.

    Items and results go through files: a graph has no room for many, and no order.
    They have a folder of their own, where no late worker of another map writes.

    Args:
        function: can be pickled, as can its arguments and results.
        folder: for these files, which workers see under the same path.
        options: of the runner.
    """
    own = folder / uuid.uuid4().hex
    try:
        yield lambda items: _map(function, list(items), own, options)
    finally:
        remove_tree(own)


def _map(
    function: Callable, items: list, folder: Path, options: "PipelineOptions"
) -> Iterator[tuple[Any, Any]]:
    import apache_beam as beam

    def work(number: int) -> None:
        item = pickle.loads(_file(folder, number, "item").read_bytes())
        try:
            result = function(item)
        except InputError as error:  # as it is: a runner would try again, and wrap it
            result = error
        replace_bytes(_file(folder, number, "result"), pickle.dumps(result))

    folder.mkdir(parents=True, exist_ok=True)
    for number, item in enumerate(items):
        replace_bytes(_file(folder, number, "item"), pickle.dumps(item))
    try:
        with beam.Pipeline(options=options) as pipeline:
            _ = (
                pipeline
                | "numbers" >> beam.Create(range(len(items)))
                | "spread" >> beam.Reshuffle()
                | "work" >> beam.Map(work)
            )
    except Exception as error:  # every runner has its own
        reason = (str(error).strip() or repr(error)).splitlines()[-1]
        raise InputError(f"Apache Beam: {type(error).__name__}: {reason}") from error
    for number, item in enumerate(items):
        result = pickle.loads(_file(folder, number, "result").read_bytes())
        if isinstance(result, InputError):
            raise result
        yield item, result


def _file(folder: Path, number: int, kind: str) -> Path:
    return folder / f"{number:05d}.{kind}"
