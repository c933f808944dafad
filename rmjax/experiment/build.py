"""The network of an experiment and what goes with it, built from its config."""

from collections.abc import Callable
from functools import cache, partial
from typing import NamedTuple

import jax
import numpy as np
import optax
from ml_collections import ConfigDict

from rmjax.baselines.methods import make_fitted, works_in_tiles
from rmjax.baselines.networks import Fitted
from rmjax.corruptions import check_settings, random_blur_jpeg, random_corrupt
from rmjax.data.features import feature_size
from rmjax.data.images import Resize
from rmjax.data.panes import load_panes
from rmjax.errors import InputError
from rmjax.experiment import parallel
from rmjax.experiment.optim import make_optimizer, make_schedule
from rmjax.experiment.step import (
    AugmentFn,
    CorruptFn,
    PyTree,
    SimulateFn,
    augment,
    embed_step,
    eval_step,
    train_step,
)
from rmjax.inputs import STANDARD, get_input, standardize, to_unit
from rmjax.losses import get_loss
from rmjax.mixing import Mixing
from rmjax.models.backbones import VIT, check_backbone, make_backbone
from rmjax.models.forward import prepare
from rmjax.models.repmix import DTYPES, RepMix
from rmjax.models.tiles import map_tiles
from rmjax.simulate import MULTIPLE, PARTS, simulate_groups
from rmjax.utils.choose import check_choice, choose
from rmjax.utils.processes import cores


def build_model(
    config: ConfigDict,
    num_sources: int,
    axis_name: str | None = None,
    lowering: str = "auto",
) -> RepMix | Fitted:
    """Build the config's network; without heads, where its loss asks nothing of them.

    `axis_name` synchronises its batch norms over it; `lowering` is how convolutions
    are computed, "auto" where there will be gradients.

    Raises:
        InputError: unknown architecture, type or loss, or numbers that don't fit
            together.
    """
    loss = get_loss(config.loss)
    common = {
        "embedding_dim": config.model.embedding_dim,
        "axis_name": axis_name,
        "dtype": choose("model.dtype", config.model.dtype, DTYPES),
        "remat": config.model.remat and lowering == "auto",
        "crop": None if config.data.features else network_input(config).shape[1],
        "structure": config.model.vit.to_dict() if config.model.arch == VIT else None,
    }
    if not config.fit.name:
        return RepMix(
            config.model.arch,
            num_sources if loss.attributes else 0,
            gated_source=config.model.gated_source if loss.gated else None,
            detects=loss.detects,
            compares=not loss.attributes,
            lowering=lowering,
            **common,
        )
    check_backbone(config.model.arch, common["crop"], common["structure"])
    return make_fitted(
        config.fit.name,
        num_sources,
        tile=common["crop"],
        components=config.model.embedding_dim,
        images=config.fit.images,
        backbone=make_backbone(config.model.arch, lowering=lowering, **common),
    )


def build_optimizer(
    config: ConfigDict, steps_per_epoch: int
) -> optax.GradientTransformation:
    """Build the config's optimiser and its schedule."""
    return make_optimizer(
        make_schedule(config.optim.lr, config.optim.lr_decay, steps_per_epoch),
        b1=config.optim.b1,
        b2=config.optim.b2,
        eps=config.optim.eps,
        weight_decay=config.optim.weight_decay,
    )


def build_step(
    config: ConfigDict,
    model: RepMix,
    optimizer: optax.GradientTransformation,
    mixing: Mixing,
    shares: np.ndarray | None = None,
) -> Callable:
    """Return `step(state, batch, level=...)` of one replica, the config filled in.

    `shares` are those of the sources in each semantic, see `rmjax.losses.adjust`; None:
    even ones, of a single semantic.
    """
    if shares is None:
        count = max(model.num_sources, 1)
        shares = np.full((1, count), 1 / count)
    generators = config.simulate.generators
    return partial(
        train_step,
        model=model,
        loss=get_loss(config.loss),
        num_sources=generators + 1 if generators else shares.shape[1],
        shares=shares,
        optimizer=optimizer,
        mixing=mixing,
        augment=build_augment(config),
        transform=build_input(config),
        pieces=config.accumulate_steps,
        seed=config.seed,
    )


def make_train_steps(
    config: ConfigDict,
    model: RepMix,
    optimizer: optax.GradientTransformation,
    mixing: Mixing,
    devices: parallel.Devices,
    shares: np.ndarray | None = None,
) -> dict[int, Callable]:
    """Return, for each of the mixing's levels, `step(state, batch)` over the devices.

    Each is compiled when it is first called; `shares` as for `build_step`.
    """
    step = build_step(config, model, optimizer, mixing, shares)
    return {
        level: parallel.map_step(partial(step, level=level), devices)
        for level in mixing.levels
    }


def make_embed_step(
    config: ConfigDict, model: RepMix, devices: parallel.Devices
) -> Callable:
    """Compile the config's `embed_step(variables, batch)` over the devices."""
    step = partial(
        embed_step,
        model=model,
        augment=build_augment(config),
        transform=build_input(config),
        seed=config.seed,
    )
    return parallel.map_examples(step, devices)


def build_augment(config: ConfigDict) -> AugmentFn:
    """Return what training images go through; errors as below."""
    if config.data.features:
        return lambda keys, features, sources: features
    return partial(
        augment,
        crop=config.data.crop,
        flip=config.data.flip,
        simulate=build_simulation(config),
        corrupt=build_corruption(config),
    )


def build_input(config: ConfigDict) -> Callable[[jax.Array], jax.Array]:
    """Return what makes the config's network input of images in [0, 1].

    A network that works in tiles of the size that it was trained on gets each tile
    transformed by itself. Stored features are the input as they are.

    Raises:
        InputError: there is no such input.
    """
    if config.data.features:
        return lambda features: features
    transform = get_input(config.model.input)
    if config.model.input == STANDARD:
        mean, std = config.model.mean, config.model.std
        transform = partial(standardize, mean=mean, std=std)
    if not works_in_tiles(config.fit.name, config.model.arch):
        return transform
    return partial(map_tiles, function=transform, size=config.data.crop)


def build_reading(config: ConfigDict) -> Callable[[jax.Array], jax.Array]:
    """Return what makes the config's network input of uint8 images, or of features."""
    transform = build_input(config)
    if config.data.features:
        return transform
    return lambda images: transform(to_unit(images))


def build_resize(data: ConfigDict, side: int) -> Resize | None:
    """Return how a config's `data` resamples images to `side` px; None where that is 0."""
    return Resize(side, data.filter, data.squash) if side else None


def build_simulation(config: ConfigDict) -> SimulateFn | None:
    """Return what simulated generators do to training images; None without any.

    Raises:
        InputError: the loss asks for sources that are known, or numbers don't fit
            together.
    """
    generators = config.simulate.generators
    if not generators:
        return None
    if get_loss(config.loss).attributes:
        raise InputError(
            f"simulate.generators = {generators}: no two steps have the same, so there "
            f"is nothing to attribute, and loss = '{config.loss}' does that; give "
            "loss = 'fingerprint'"
        )
    if config.data.crop % MULTIPLE:
        raise InputError(
            f"data.crop = {config.data.crop} px: simulated generators halve it three "
            f"times; give a multiple of {MULTIPLE}"
        )
    without = config.simulate.without
    for name in without:
        check_choice("simulate.without", name, PARTS)
    return partial(simulate_groups, each=images_of_each(config), without=without)


def images_of_each(config: ConfigDict) -> int:
    """Return how many images of a batch are real, and of each simulated generator.

    Raises:
        InputError: they can't be as many of each, or would be alone.
    """
    groups = config.simulate.generators + 1
    each, left = divmod(config.batch_size, groups)
    if left or each < 2:
        raise InputError(
            f"batch_size = {config.batch_size}: {groups - 1} simulated generators and "
            f"real photographs take as many images each, at least 2; give a multiple of "
            f"{groups}, from {2 * groups} on"
        )
    return each


def build_corruption(config: ConfigDict) -> CorruptFn | None:
    """Return what corrupts the config's training images; None when nothing does.

    Raises:
        InputError: an unknown recipe or name, or a number out of range.
    """
    settings = config.corrupt
    make = choose("corrupt.recipe", settings.recipe, CORRUPTION_RECIPES)
    if not 0 <= settings.rate <= 1:
        raise InputError(f"corrupt: rate = {settings.rate} is not a probability")
    return make(config) if settings.rate else None


def _imagenet_c(config: ConfigDict) -> CorruptFn:
    settings = config.corrupt
    names, severities = tuple(settings.names), tuple(settings.severities)
    try:
        check_settings(names, severities, settings.rate, config.data.crop)
    except InputError as error:
        raise InputError(f"corrupt: {error}") from error
    return partial(
        random_corrupt,
        names=names,
        severities=severities,
        rate=settings.rate,
        **corruption_options(config, config.data.crop),
    )


def _blur_jpeg(config: ConfigDict) -> CorruptFn:
    return partial(random_blur_jpeg, rate=config.corrupt.rate)


# What `corrupt.recipe` may be.
CORRUPTION_RECIPES: dict[str, Callable[[ConfigDict], CorruptFn]] = {
    "imagenet_c": _imagenet_c,
    "blur_jpeg": _blur_jpeg,
}


def corruption_options(config: ConfigDict, size: int) -> dict:
    """Return the config's options of `corrupt`, for images of `size` px.

    Raises:
        InputError: no photographs of frost where the config says.
    """
    settings = config.corrupt
    panes = load_panes(settings.frost_dir, size) if settings.frost_dir else None
    return {
        "rounding": settings.rounding,
        "glass_swap": settings.glass_swap,
        "frost_panes": panes,
    }


def network_input(config: ConfigDict, size: int | None = None) -> jax.ShapeDtypeStruct:
    """Return shape and type of what the network is trained on.

    `[1, H, W, channels]`, or `[1, size]` of stored features; their table is asked for a
    size that is not given.
    """
    if config.data.features:
        size = size or feature_size(config.data.features)
        return jax.ShapeDtypeStruct((1, size), "float32")
    images = jax.ShapeDtypeStruct((1, config.data.crop, config.data.crop, 3), "float32")
    return jax.eval_shape(build_input(config), images)


def variable_shapes(
    config: ConfigDict, num_sources: int, size: int | None = None
) -> PyTree:
    """Return shapes and types of the config's variables; nothing is computed.

    `size` as for `network_input`.
    """
    model = build_model(config, num_sources)
    return jax.eval_shape(model.init, jax.random.key(0), network_input(config, size))


def embedding_size(config: ConfigDict, num_sources: int) -> int:
    """Return the size of the config's fingerprints; nothing is computed.

    It is `model.embedding_dim` unless `fit.name` has its own, see docs/baselines.md.
    """
    model = build_model(config, num_sources)
    variables = variable_shapes(config, num_sources)
    outputs = jax.eval_shape(model.apply, variables, network_input(config))
    return outputs["embedding"].shape[-1]


def make_eval_step(
    config: ConfigDict,
    num_sources: int,
    devices: parallel.Devices,
    layers: tuple[str, ...] = ("embedding",),
) -> Callable:
    """Compile the config's `eval_step(variables, batch)` over the devices.

    What it prepares of the variables is kept until it is called with others, or with
    images of another size. A device works on its part in pieces of one size, whatever
    else shares the batch: sums in another order would round differently.
    """
    model = build_model(config, num_sources, lowering="forward")
    transform = build_reading(config)
    on_cpu = devices[0].platform == "cpu"

    @cache
    def compiled(at_once: int | None) -> Callable:
        step = partial(eval_step, model=model, transform=transform, layers=layers)
        step = partial(step, at_once=at_once)
        return parallel.map_examples(step, devices, streams=cores())

    last: _Prepared | None = None

    def run(variables: PyTree, batch: PyTree) -> PyTree:
        nonlocal last
        image = batch["image"]
        _, items, *shape = image.shape
        if last is None or last.of is not variables or last.shape != shape:
            one = jax.ShapeDtypeStruct((1, *shape), image.dtype)
            prepared, at_once = prepare(
                model.apply, variables, jax.eval_shape(transform, one)
            )
            placed = parallel.place(prepared, devices)
            last = _Prepared(variables, shape, placed, at_once)
        most = _power_of_two(min(last.at_once, items // cores()))
        return compiled(most if on_cpu else None)(last.variables, batch)

    return run


class _Prepared(NamedTuple):
    """Variables prepared for images of a shape, and how many to run at once."""

    of: PyTree
    shape: list[int]
    variables: PyTree
    at_once: int


def _power_of_two(number: int) -> int:
    """Return the largest one up to `number`; 1 for less."""
    return 1 << max(number, 1).bit_length() - 1
