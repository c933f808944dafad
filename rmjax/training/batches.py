"""The batches that a training step reads, and a validation like it."""

from collections.abc import Iterator

import jax
from ml_collections import ConfigDict

from rmjax.data.pipeline import Batch, ImageCache, train_batches
from rmjax.experiment.build import build_resize, images_of_each
from rmjax.experiment.data import ExperimentData

# What a step reads of a batch.
_STEP_KEYS = ("image", "source", "semantic", "position")


def read_batches(
    config: ConfigDict,
    data: ExperimentData,
    *,
    split: str = "train",
    members: int = 1,
    partners: str = "any",
    start_step: int = 0,
) -> Iterator[Batch]:
    """Yield this process's part of training batches, for ever.

    Where simulated generators render the images, each is a source: they are numbered
    within the batch, from 1 on, and its first images stay real.

    Args:
        config: of the run.
        data: of the run.
        split: whose images.
        members: images of a group, which stand next to each other.
        partners: who they are, see `train_batches`.
        start_step: the step of the first batch.
    """
    batches = train_batches(
        data.seen,
        split=split,
        batch_size=config.batch_size,
        members=members,
        partners=partners,
        size=config.data.size,
        resizing=build_resize(config.data, config.data.resize),
        seed=config.seed,
        start_step=start_step,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        num_workers=config.data.workers,
        cache=ImageCache(config.data.cache_mib * 2**20),
    )
    for batch in batches:
        needed = {key: batch[key] for key in _STEP_KEYS}
        if config.simulate.generators:
            place = batch["position"] % config.batch_size
            needed["source"] = place // images_of_each(config)
        yield needed
