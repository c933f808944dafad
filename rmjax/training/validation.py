"""What a training is validated by, as a function of its state."""

import logging
from collections.abc import Callable
from functools import partial
from itertools import islice

import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from rmjax.evaluation import metrics
from rmjax.evaluation.predict import make_runner
from rmjax.experiment import hosts, parallel
from rmjax.experiment.build import make_embed_step
from rmjax.experiment.data import ExperimentData
from rmjax.experiment.step import TrainState
from rmjax.losses import contrastive_loss, get_loss, nearest_accuracy
from rmjax.models.repmix import RepMix
from rmjax.training.batches import read_batches

logger = logging.getLogger(__name__)

IMAGES = 512  # at least, by which a network without heads is validated


def make_validation(
    config: ConfigDict,
    data: ExperimentData,
    model: RepMix,
    devices: parallel.Devices,
) -> Callable[[TrainState], dict] | None:
    """Return a function of the state: figures on the validation split, unmixed."""
    if not data.seen.size("val"):
        logger.warning("no validation images: no early stop, no best checkpoint")
        return None
    asked = get_loss(config.loss)
    if not asked.attributes:
        return _make_comparison(config, data, model, devices)
    runner = make_runner(config, len(data.sources), devices)

    def validate(state: TrainState) -> dict:
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        predictions = runner.predict(variables, (data.seen, ("val",)))
        figures = metrics.summarize(predictions, data.sources)
        # The checkpoint to keep is the best by what was trained.
        loss = figures["loss"] if asked.detects else figures["attribution_loss"]
        accuracy = figures["attribution_accuracy"]
        return figures | {"loss": loss, "accuracy": accuracy}

    return validate


def _make_comparison(
    config: ConfigDict,
    data: ExperimentData,
    model: RepMix,
    devices: parallel.Devices,
) -> Callable[[TrainState], dict]:
    """Return a function of the state: how the fingerprints of a few batches compare.

    The same batches each time, of validation images, which go through what training
    images do; each with generators of its own.
    """
    embed = make_embed_step(config, model, devices)
    drawn = read_batches(config, data, split="val")
    batches = list(islice(drawn, -(-IMAGES // config.batch_size)))
    contrast = partial(contrastive_loss, temperature=get_loss(config.loss).temperature)
    sources = [batch["source"].tolist() for batch in batches]
    own = np.concatenate([np.array(part) for part in hosts.gather(sources)], axis=1)
    if config.simulate.generators:  # no two batches have a generator in common
        shift = config.simulate.generators * np.arange(len(own))[:, None]
        own = np.where(own > 0, own + shift, 0)
    labels, count = jnp.asarray(own.reshape(-1, 1)), int(own.max()) + 1
    weights = jnp.ones(labels.shape)

    def validate(state: TrainState) -> dict:
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        outputs = [
            parallel.fetch(embed(variables, parallel.shard(batch, devices)))
            for batch in batches
        ]
        embedding = jnp.concatenate([output["embedding"] for output in outputs])
        return {
            "loss": float(contrast(embedding, labels, weights, count)),
            "accuracy": float(nearest_accuracy(embedding, labels, weights, count)),
        }

    return validate
