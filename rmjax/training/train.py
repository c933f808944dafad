"""Training: `train(config, workdir)` builds the parts and runs the loop."""

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import jax
from ml_collections import ConfigDict
from tqdm import tqdm

from rmjax.data.dataset import check_every_source
from rmjax.data.pairs import share_sources
from rmjax.data.partners import check_partners
from rmjax.errors import InputError, Preempted
from rmjax.experiment import hosts, parallel
from rmjax.experiment.build import (
    build_model,
    build_optimizer,
    build_simulation,
    images_of_each,
    make_train_steps,
    network_input,
)
from rmjax.experiment.checkpoints import Checkpoints, saved_steps
from rmjax.experiment.config import load_config
from rmjax.experiment.data import (
    ExperimentData,
    check_validation,
    log_pairs,
    open_data,
)
from rmjax.experiment.log import RunLog
from rmjax.experiment.ranges import check_values
from rmjax.experiment.run import (
    CHECKPOINTS,
    RUN_FILE,
    hold_workdir,
    run_facts,
    start_workdir,
)
from rmjax.experiment.step import TrainState, create_state, draw_level
from rmjax.inference.domain import describe_training
from rmjax.losses import get_loss
from rmjax.mixing import Mixing, make_mixing
from rmjax.models.repmix import RepMix
from rmjax.training.batches import read_batches
from rmjax.training.fit import fit
from rmjax.training.meter import Meter
from rmjax.training.preemption import stop_requests
from rmjax.training.start import starting_variables
from rmjax.training.validation import make_validation
from rmjax.utils.places import as_path

logger = logging.getLogger(__name__)


@dataclass
class Progress:
    """What the loop must remember beside the state to stop where it would have.

    Attributes:
        best_loss: least validation loss so far.
        stale: validations since then.
    """

    best_loss: float = math.inf
    stale: int = 0

    def update(self, loss: float) -> None:
        """Take in one more validation's loss."""
        self.stale = 0 if loss < self.best_loss else self.stale + 1
        self.best_loss = min(loss, self.best_loss)


def train(
    config: str | Path | ConfigDict,
    workdir: str | Path,
    *,
    show_progress: bool = True,
    **changes: object,
) -> TrainState:
    """Train as `config` says, from the last checkpoint in `workdir` if there is one.

    Where `config.fit` names a baseline, it is fitted instead, see `rmjax.training.fit`.

        rmjax.train("repmix", "runs/mine", data={"name": "image_folder/mine"}, seed=1)

    Args:
        config: a shipped config, such as "repmix" (`configs/repmix.py` explains every
            key), the path of a Python file that defines `get_config()`, the folder of a
            run, or a config.
        workdir: folder of the run: config, classes, logs, checkpoints.
        show_progress: whether to draw a bar.
        changes: values of the config's keys, such as `num_epochs=3` and
            `mix={"name": "none", "level": 3}`.

    Returns:
        The state after the last step, on this process's devices.

    Raises:
        InputError: the config, the data or the workdir can't be used as they are.
        TrainingError: the loss is no longer finite, or a checkpoint can't be written.
        Preempted: SIGTERM came; the state after the last step is saved.
    """
    config = load_config(config, changes)
    check_values(config)
    folder = as_path(workdir)
    if config.fit.name:
        return fit(config, folder, show_progress)
    with stop_requests() as stop_requested:
        return _train(config, folder, stop_requested, show_progress)


def _train(
    config: ConfigDict,
    workdir: Path,
    stop_requested: Callable[[int], bool],
    show_progress: bool,
) -> TrainState:
    devices = parallel.choose_devices(config.num_devices or None)
    hosts.check_alike(run_facts(config) | {"devices": len(devices)})
    devices = parallel.everywhere(devices)
    mixing = check_settings(config, devices)
    data = open_data(config)
    hosts.check_alike(data.facts())
    check_every_source(data.seen, "train")
    sources = data.sources if get_loss(config.loss).attributes else ()
    if sources:  # else validation images are cut as training images are
        check_validation(config, data)
    steps_per_epoch = count_steps(config, data, mixing)
    # On a lone device it would change nothing, and take a tenth of a small step's time.
    shared = config.model.sync_batch_norm and len(devices) > 1
    axis_name = parallel.AXIS if shared else None
    model = build_model(config, len(sources), axis_name)
    assert isinstance(model, RepMix)  # as `config.fit.name` is empty
    optimizer = build_optimizer(config, steps_per_epoch)
    shares = share_sources(data.seen)
    steps = make_train_steps(config, model, optimizer, mixing, devices, shares)
    shape = network_input(config).shape[1:]
    make_state = partial(create_state, model, optimizer, config.seed, shape)
    started = bool(saved_steps(workdir / CHECKPOINTS))
    state = make_state({} if started else starting_variables(config, data))

    with ExitStack() as stack:
        if hosts.is_first():
            stack.enter_context(hold_workdir(workdir))
            start_workdir(
                workdir,
                config,
                sources,
                data.dataset.semantic_names,
                training=describe_training(data.seen),
                features=data.network,
            )
        hosts.check_shared(workdir / RUN_FILE)
        checkpoints = stack.enter_context(
            closing(Checkpoints(workdir / CHECKPOINTS, config.keep_best))
        )
        state, progress = _restore(checkpoints, parallel.place(state, devices))
        if started and not progress:  # all of them were damaged
            state = parallel.place(
                make_state(starting_variables(config, data)), devices
            )
        start = int(state.step)
        pending = progress is not None and checkpoints.is_pending(start)
        _log_sizes(config, data, state, devices)
        log_pairs(config, data)
        silent = not hosts.is_first()
        log = RunLog(workdir, start, pending=pending, silent=silent)
        bar = tqdm(
            desc="compiling",
            total=config.num_epochs * steps_per_epoch * config.batch_size,
            initial=start * config.batch_size,
            unit="img",
            unit_scale=True,
            disable=silent or not show_progress,
        )
        return _loop(
            state,
            progress or Progress(),
            steps=steps,
            batches=parallel.prefetch(
                read_batches(
                    config,
                    data,
                    members=mixing.drawn,
                    partners=mixing.partners,
                    start_step=start,
                ),
                devices,
            ),
            validate=make_validation(config, data, model, devices),
            pending=pending,
            checkpoints=checkpoints,
            log=stack.enter_context(closing(log)),
            config=config,
            steps_per_epoch=steps_per_epoch,
            stop_requested=stop_requested,
            bar=stack.enter_context(closing(bar)),
        )


def _log_sizes(
    config: ConfigDict,
    data: ExperimentData,
    state: TrainState,
    devices: parallel.Devices,
) -> None:
    logger.info(
        "%s: %d parameters; %d training images of %d sources; batch %d on %d device(s) "
        "of %d process(es)",
        config.model.arch,
        sum(x.size for x in jax.tree.leaves(state.params)),
        data.seen.size("train"),
        len(data.sources),
        config.batch_size,
        len(devices),
        jax.process_count(),
    )


def check_settings(config: ConfigDict, devices: parallel.Devices) -> Mixing:
    """Check what takes neither data nor a network, and return the config's mixing.

    Raises:
        InputError: an unknown mixing, or a number out of range.
    """
    check_values(config)
    mixing = make_mixing(**config.mix, maps=not config.data.features)
    check_partners(mixing.partners)
    if config.data.features and not get_loss(config.loss).attributes:
        raise InputError(
            f"loss = '{config.loss}': it compares images of a batch, of which stored "
            "features show the same one twice as the same; give another loss"
        )
    unit = mixing.unit
    if build_simulation(config) is not None:
        unit = math.lcm(unit, images_of_each(config))
    parallel.check_batch(config.batch_size, unit, devices, config.accumulate_steps)
    return mixing


def count_steps(config: ConfigDict, data: ExperimentData, mixing: Mixing) -> int:
    """Return the steps of an epoch: the config's, or those of one pass."""
    one_pass = data.seen.size("train") * mixing.drawn // config.batch_size
    return config.steps_per_epoch or max(one_pass, 1)


def _restore(
    checkpoints: Checkpoints, state: TrainState
) -> tuple[TrainState, Progress | None]:
    """Return the last good checkpoint's state and progress, or `state` and None."""
    restored, progress = checkpoints.restore_last(like=state)
    if restored is None or progress is None:
        return state, None
    logger.info("resuming after step %d", int(restored.step))
    return restored, Progress(**progress)


def _loop(
    state: TrainState,
    progress: Progress,
    *,
    steps: dict[int, Callable],
    batches: Iterator,
    validate: Callable | None,
    pending: bool,
    checkpoints: Checkpoints,
    log: RunLog,
    config: ConfigDict,
    steps_per_epoch: int,
    stop_requested: Callable[[int], bool],
    bar: tqdm,
) -> TrainState:
    """Step, then in this order: log, save, validate, stop early or as asked.

    `pending` says that the state was saved to be validated and is not: that comes
    first.
    """
    done, total = int(state.step), config.num_epochs * steps_per_epoch
    saved, meter = done, Meter(config.batch_size)

    def take_in_validation() -> None:
        assert validate is not None
        figures = validate(state)
        progress.update(figures["loss"])
        log.write(done, "validation", _scalars(figures))
        checkpoints.rank(done, asdict(progress), figures["loss"])
        if not bar.disable:
            bar.write(
                f"step {done}: validation loss {figures['loss']:.4f}, accuracy "
                f"{figures['accuracy']:.4f}"
            )

    if pending and validate:
        take_in_validation()
        meter.clear()
    while done < total and progress.stale < config.patience:
        step = steps[draw_level(tuple(steps), config.seed, done)]
        with jax.profiler.StepTraceAnnotation("train", step_num=done):
            try:
                batch = meter.wait_for(batches)
            except InputError:  # a damaged image costs no step
                if done > saved:
                    checkpoints.save(state, asdict(progress))
                raise
            state, scalars = step(state, batch)
        if not meter.steps:
            bar.set_description("training")
        meter.steps.append(scalars)
        done += 1
        bar.update(config.batch_size)
        validates = validate is not None and _validation_due(
            done, total, steps_per_epoch, config
        )
        stops = stop_requested(done)
        due = done == total or done - saved >= config.checkpoint_every_steps
        saves = validates or due or stops
        if not (saves or done % config.log_every_steps == 0):
            continue
        row = meter.average(done) | {"epoch": done / steps_per_epoch}
        log.write(done, "train", row)
        shown = ("loss", "accuracy", "data_wait")
        checkpoints.check()
        bar.set_postfix({name: f"{row[name]:.3f}" for name in shown})
        if saves:
            checkpoints.save(state, asdict(progress), pending=validates)
            saved = done
        if validates:
            checkpoints.wait()  # a validation may be the death of this process
            take_in_validation()
        if stops and done < total:
            checkpoints.wait()
            raise Preempted(
                f"stopped by SIGTERM after step {done}: saved; run the same command "
                "again"
            )
        meter.clear()
    if done < total:
        logger.info("stopped: %d validations without a better loss", progress.stale)
    return state


def _validation_due(
    done: int, total: int, steps_per_epoch: int, config: ConfigDict
) -> bool:
    return done == total or done % (config.eval_every_epochs * steps_per_epoch) == 0


def _scalars(figures: dict) -> dict[str, float]:
    return {k: v for k, v in figures.items() if isinstance(v, float)}
