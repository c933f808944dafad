"""A run that is fitted in closed form: the same folder as a training leaves."""

import logging
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.traverse_util import flatten_dict, unflatten_dict
from ml_collections import ConfigDict
from scipy.special import log_softmax
from tqdm import tqdm

from rmjax.baselines.methods import Method, get_method
from rmjax.baselines.networks import Fitted
from rmjax.baselines.solve import Params, Samples
from rmjax.data.dataset import check_every_source
from rmjax.errors import InputError
from rmjax.evaluation import metrics
from rmjax.evaluation.calibration import fit_temperature
from rmjax.evaluation.predict import Runner, make_runner
from rmjax.experiment import parallel
from rmjax.experiment.build import (
    build_augment,
    build_input,
    build_model,
    network_input,
    variable_shapes,
)
from rmjax.experiment.checkpoints import Checkpoints, saved_steps
from rmjax.experiment.data import (
    ExperimentData,
    check_validation,
    log_pairs,
    open_data,
)
from rmjax.experiment.log import RunLog
from rmjax.experiment.ranges import check_values
from rmjax.experiment.run import CHECKPOINTS, hold_workdir, start_workdir
from rmjax.experiment.step import PyTree, TrainState, create_state
from rmjax.inference.domain import describe_training
from rmjax.training.batches import read_batches
from rmjax.training.start import starting_variables

logger = logging.getLogger(__name__)

STEP = 1  # of the one checkpoint


def fit(config: ConfigDict, workdir: Path, show_progress: bool) -> TrainState:
    """Fit what `config.fit` says, unless `workdir` holds it already.

    `fit.images` training images are drawn and augmented as in training, pass after
    pass, and made into features. Of the method's grid the value is taken with the best
    accuracy on the validation images, of several the one with the least cross-entropy;
    without such images, that in the middle. Scores are scaled so that their softmax is
    likeliest there. A fit
    that is stopped starts again from the beginning.

    Returns:
        The state of the one checkpoint, with an optimiser that does nothing.

    Raises:
        InputError: the config, the data or the workdir can't be used as they are.
    """
    method = get_method(config.fit.name)
    devices = parallel.choose_devices(config.num_devices or None)
    data = open_data(config)
    check_fit(config, len(data.sources), data.seen.size("train"))
    check_every_source(data.seen, "train")
    check_validation(config, data)
    model = build_model(config, len(data.sources))
    assert isinstance(model, Fitted)  # as `config.fit.name` is none of the others
    shape = network_input(config).shape[1:]
    make_state = partial(create_state, model, optax.identity(), config.seed, shape)
    started = bool(saved_steps(workdir / CHECKPOINTS))
    state = make_state({} if started else _start(config, data, method))
    with hold_workdir(workdir):
        start_workdir(
            workdir,
            config,
            data.sources,
            data.dataset.semantic_names,
            training=describe_training(data.seen),
            features=data.network,
        )
        with closing(Checkpoints(workdir / CHECKPOINTS, config.keep_best)) as saved:
            restored, _ = saved.restore_last(like=parallel.place(state, devices))
            if restored is not None:
                return restored
            if started:  # it was damaged
                state = make_state(_start(config, data, method))
            log_pairs(config, data)
            samples = _draw(config, data, model, state, show_progress)
            runner = make_runner(config, len(data.sources), devices)
            with closing(RunLog(workdir, 0)) as log:
                best, about, loss = _choose(method, samples, state, runner, data, log)
            best = replace(best, step=jnp.int32(STEP))
            saved.save(best, about, loss)
            saved.wait()
            return parallel.place(best, devices)


def _start(config: ConfigDict, data: ExperimentData, method: Method) -> PyTree:
    """Return the weights that a frozen backbone has; empty where there is none."""
    return starting_variables(config, data) if method.frozen_backbone else {}


def check_fit(config: ConfigDict, num_sources: int, rows: int | None = None) -> None:
    """Check what takes no image.

    Args:
        config: of the run.
        num_sources: of its data.
        rows: training images there are, if that is known.

    Raises:
        InputError: an unknown method or input, or numbers that don't fit together.
    """
    check_values(config)
    method = get_method(config.fit.name)
    if jax.process_count() > 1:
        raise InputError(f"fit.name = '{config.fit.name}' runs in one process")
    if method.inputs and config.model.input not in method.inputs:
        raise InputError(
            f"fit.name = '{config.fit.name}' is not for model.input = "
            f"'{config.model.input}': choose one of {', '.join(method.inputs)}"
        )
    if config.data.features and rows is not None and config.fit.images > rows:
        raise InputError(
            f"fit.images = {config.fit.images}: {config.data.features} holds {rows} "
            "training images, and stored features are the same in every pass: give at "
            f"most {rows}"
        )
    count, size = config.fit.images, _size(config, num_sources)
    gib = 4 * count * size / 2**30
    if gib > config.fit.memory_gib and not method.streams:
        raise InputError(
            f"fit.images = {count}: {size:,} features of each are {gib:.1f} GiB in all, "
            f"more than fit.memory_gib = {config.fit.memory_gib:g}; give at most "
            f"{int(count * config.fit.memory_gib / gib):,} images, a smaller data.crop, "
            "or more memory"
        )


def _size(config: ConfigDict, num_sources: int) -> int:
    """Return how many features an image has; nothing is computed."""
    features = partial(build_model(config, num_sources).apply, method="features")
    variables = variable_shapes(config, num_sources)
    return jax.eval_shape(features, variables, network_input(config)).shape[-1]


def _draw(
    config: ConfigDict,
    data: ExperimentData,
    model: Fitted,
    state: TrainState,
    show_progress: bool,
) -> Samples:
    """Return the features of the images to fit to, which are read when asked for."""

    def features(inputs: jax.Array) -> jax.Array:
        computed: Any = model.apply(_variables(state), inputs, method="features")
        return computed

    return Samples(
        count=config.fit.images,
        size=_size(config, len(data.sources)),
        num_sources=len(data.sources),
        components=config.model.embedding_dim,
        batches=_read(config, data, features, show_progress),
        seed=config.seed,
    )


def _read(
    config: ConfigDict,
    data: ExperimentData,
    features: Callable[[jax.Array], jax.Array],
    show_progress: bool,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield features and sources of training images, as a training would see them.

    Raises:
        InputError: at their end, if a source has none.
    """
    augment, transform = build_augment(config), build_input(config)
    root = jax.random.key(config.seed)

    @jax.jit
    def compute(batch: dict[str, jax.Array]) -> jax.Array:
        keys = jax.vmap(partial(jax.random.fold_in, root))(batch["position"])
        images = augment(keys, batch["image"], batch["source"])
        return features(transform(images))[:, 0]  # a crop is one tile

    batches = read_batches(config, data)
    left, absent = config.fit.images, set(range(len(data.sources)))
    with tqdm(total=left, unit="img", disable=not show_progress) as bar:
        while left:
            batch = next(batches)
            computed = np.asarray(compute(batch))[:left]
            source = batch["source"][: len(computed)]
            yield computed, source
            absent -= set(source.tolist())
            left -= len(computed)
            bar.update(len(computed))
    if absent:
        raise InputError(
            f"fit.images = {config.fit.images}: none of the images drawn is of "
            f"{', '.join(data.sources[number] for number in sorted(absent))}; give more"
        )


def _choose(
    method: Method,
    samples: Samples,
    state: TrainState,
    runner: Runner,
    data: ExperimentData,
    log: RunLog,
) -> tuple[TrainState, dict, float | None]:
    """Fit with every value of the grid, and take the best on validation images.

    Returns:
        The state, what was tuned and how, and its validation loss.
    """
    validation = data.seen, ("val",)
    if not data.seen.size("val"):
        logger.warning("no validation images: nothing is tuned")
        value = method.grid[len(method.grid) // 2]
        (params,) = method.solve(samples, [value])
        return _filled(state, params), {method.tuned: value}, None
    ranked = []
    fitted = zip(method.grid, method.solve(samples, method.grid), strict=True)
    for value, params in fitted:
        candidate = _filled(state, params)
        predictions = runner.predict(_variables(candidate), validation)
        temperature = fit_temperature(predictions.attribution, predictions.source)
        accuracy = float(np.mean(predictions.guess == predictions.source))
        row = {"accuracy": accuracy, "loss": _loss(predictions, temperature)}
        candidate = _filled(candidate, {}, scale=1 / temperature)
        ranked.append((-accuracy, row["loss"], value, candidate))
        if method.tuned:
            log.write(STEP, "tuning", {method.tuned: value} | row)
            logger.info("%s = %g: validation %s", method.tuned, value, row)
    *_, value, chosen = min(ranked, key=lambda row: row[:2])
    predictions = runner.predict(_variables(chosen), validation)
    figures = metrics.summarize(predictions, data.sources)
    scalars = {k: v for k, v in figures.items() if isinstance(v, float)}
    log.write(STEP, "validation", scalars)
    return chosen, {method.tuned: value} if method.tuned else {}, figures["loss"]


def _loss(predictions: metrics.Predictions, temperature: float) -> float:
    """Return the mean cross-entropy of attribution at a temperature."""
    log_p = log_softmax(predictions.attribution / temperature, axis=-1)
    return -float(np.mean(log_p[np.arange(len(predictions)), predictions.source]))


def _filled(state: TrainState, head: Params, scale: float = 1.0) -> TrainState:
    """Return the state with these parameters of the head, of the types they had."""
    flat = flatten_dict(state.params)
    new = {("head", name): value for name, value in head.items()} | {("scale",): scale}
    cast = {path: np.asarray(value, flat[path].dtype) for path, value in new.items()}
    return replace(state, params=unflatten_dict(flat | cast))


def _variables(state: TrainState) -> PyTree:
    return {"params": state.params, "batch_stats": state.batch_stats}
