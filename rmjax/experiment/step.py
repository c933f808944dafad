"""One training step and one evaluation step, as pure functions of one replica."""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.traverse_util import flatten_dict, unflatten_dict

from rmjax import losses
from rmjax.baselines.networks import Fitted
from rmjax.experiment.parallel import AXIS
from rmjax.inputs import random_flip_crop, to_unit
from rmjax.mixing import Mixing, fold_keys
from rmjax.models.forward import map_chunks
from rmjax.models.norm import widen
from rmjax.models.repmix import RepMix
from rmjax.utils.platform import target_platform

# What a random key is folded with, for each consumer of randomness.
KEY_AUGMENT, KEY_MIX, KEY_LEVEL, KEY_CORRUPT, KEY_SIMULATE, KEY_VALIDATE = range(6)

HEADS = ("attribution", "detection")

PyTree = Any
Batch = dict[str, jax.Array]
InputTransform = Callable[[jax.Array], jax.Array]
# (keys `[batch]`, images `[batch, H, W, 3]` in [0, 1]) -> such images.
CorruptFn = Callable[[jax.Array, jax.Array], jax.Array]
# (keys `[batch]`, such images, sources `[batch]`) -> such images.
SimulateFn = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
# (keys `[batch]`, uint8 `[batch, H, W, 3]`, sources `[batch]`) -> images
# `[batch, h, w, 3]` in [0, 1]. Stored features `[batch, size]` stay as they are.
AugmentFn = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


@flax.struct.dataclass
class TrainState:
    """Everything that a step changes.

    Attributes:
        step: number of steps done, int32 scalar.
        params: the network's parameters.
        batch_stats: running means and variances of its batch normalisations.
        opt_state: the optimiser's state.
    """

    step: jax.Array
    params: PyTree
    batch_stats: PyTree
    opt_state: PyTree


def create_state(
    model: RepMix | Fitted,
    optimizer: optax.GradientTransformation,
    seed: int,
    input_shape: tuple[int, ...],
    pretrained: PyTree | None = None,
) -> TrainState:
    """Initialise the parameters (from `seed`), then the optimiser for them.

    Args:
        model: the network.
        optimizer: the optimiser whose state to make.
        seed: of the random initialisation.
        input_shape: `(H, W, C)` of what the network sees, or `(size,)` of features.
        pretrained: variables, or some of them, to take the place of random ones.
    """

    def init(key: jax.Array, pretrained: PyTree) -> TrainState:
        fresh = model.init(key, jnp.zeros((1, *input_shape)))
        taken = flatten_dict(pretrained)
        variables = unflatten_dict(flatten_dict(fresh) | taken)
        params = variables["params"]
        return TrainState(
            step=jnp.int32(0),
            params=params,
            batch_stats=variables.get("batch_stats", {}),
            opt_state=optimizer.init(params),
        )

    return jax.jit(init)(jax.random.key(seed), pretrained or {})


def draw_level(levels: tuple[int, ...], seed: int, step: int) -> int:
    """Return where step number `step` mixes: one of a mixing's levels, all as likely.

    Drawn here and not in the step, so that each level has a program of its own: XLA's CPU
    compiler makes gradients of convolutions 20 times as slow in a branch.
    """
    random = np.random.default_rng((seed, step, KEY_LEVEL))
    return levels[random.integers(len(levels))]


def train_step(
    state: TrainState,
    batch: Batch,
    *,
    level: int,
    model: RepMix,
    loss: losses.Loss,
    num_sources: int,
    shares: np.ndarray,
    optimizer: optax.GradientTransformation,
    mixing: Mixing,
    augment: AugmentFn,
    transform: InputTransform,
    pieces: int,
    seed: int,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """Take one optimiser step on one replica's share of a batch.

    All randomness is a function of `seed` and the place of an image in the stream of
    training images, so it depends neither on the replicas nor on the pieces.

    Args:
        state: the state before.
        batch: `image` uint8 `[images, H, W, 3]`, or stored features `[images, size]`,
            and int32 `[images]` each: `source`, `semantic`, `position` (in the stream).
        level: where representations are mixed, see `draw_level`.
        model: the network.
        loss: what is asked of it.
        num_sources: of the batch.
        shares: of the sources in each semantic, see `rmjax.losses.adjust`.
        optimizer: turns gradients into updates.
        mixing: how representations are mixed.
        augment: what images go through before.
        transform: makes the network's input of them.
        pieces: equal parts of the share that go through the network one after the
            other; each is normalised with its own statistics, and contrasts its own
            samples.
        seed: of all random draws.

    Returns:
        The state after, and scalars averaged over all replicas: `loss`, `accuracy`
        (without heads, `nearest_accuracy`); with heads `attribution_loss`,
        `detection_loss`, `soft_accuracy`; and `grad_norm`, of the averaged gradient.
    """
    root = jax.random.key(seed)

    def gradients(stats: PyTree, piece: Batch) -> tuple[PyTree, PyTree]:
        keys = jax.vmap(partial(jax.random.fold_in, root))(piece["position"])
        forward = partial(
            _forward_loss,
            batch_stats=stats,
            images=augment(keys, piece["image"], piece["source"]),
            measure=partial(
                _measure,
                sources=piece["source"],
                semantics=piece["semantic"],
                loss=loss,
                num_sources=num_sources,
                shares=shares,
            ),
            level=level,
            model=model,
            mixing=mixing,
            transform=transform,
            keys=fold_keys(keys, KEY_MIX),
        )
        grads, (stats, metrics) = jax.grad(forward, has_aux=True)(state.params)
        return stats, (grads, metrics)

    stats, means = _average_pieces(gradients, state.batch_stats, batch, pieces)
    grads, metrics = jax.lax.pmean(means, AXIS)
    if model.axis_name is None:  # else they are those of all replicas already
        stats = jax.lax.pmean(stats, AXIS)
    with jax.named_scope("optimizer"):
        metrics["grad_norm"] = optax.tree.norm(grads)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
    new_state = TrainState(
        step=state.step + 1, params=params, batch_stats=stats, opt_state=opt_state
    )
    return new_state, metrics


def _average_pieces(
    function: Callable[[PyTree, Batch], tuple[PyTree, PyTree]],
    carried: PyTree,
    batch: Batch,
    pieces: int,
) -> tuple[PyTree, PyTree]:
    """Apply `(carried, piece) -> (carried, result)` to the pieces of a batch in turn.

    Returns:
        What the last piece carries, and the mean of the results.
    """
    if pieces == 1:
        return function(carried, batch)

    def add(carry: tuple[PyTree, PyTree], piece: Batch) -> tuple[tuple, None]:
        # Otherwise an unrolled loop may do all pieces at once. (XLA's CPU compiler
        # drops the barrier unless its pass `cse_barrier_expander` is disabled.)
        (carried, total), piece = jax.lax.optimization_barrier((carry, piece))
        carried, result = function(carried, piece)
        return (carried, jax.tree.map(jnp.add, total, result)), None

    cut = jax.tree.map(lambda x: x.reshape(pieces, -1, *x.shape[1:]), batch)
    piece = jax.tree.map(lambda x: x[0], cut)
    _, shapes = jax.eval_shape(function, carried, piece)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    # XLA's CPU compiler makes gradients of convolutions 20 times as slow in a loop.
    unroll = target_platform() == "cpu"
    (carried, total), _ = jax.lax.scan(add, (carried, zeros), cut, unroll=unroll)
    return carried, jax.tree.map(lambda x: x / pieces, total)


def augment(
    keys: jax.Array,
    images: jax.Array,
    sources: jax.Array,
    *,
    crop: int,
    flip: bool,
    simulate: SimulateFn | None = None,
    corrupt: CorruptFn | None,
) -> jax.Array:
    """Cut windows out of training images, have generators render them, corrupt them.

    Args:
        keys: typed random keys `[images]`.
        images: uint8 `[images, H, W, 3]`.
        sources: int `[images]`.
        crop: side of the random window in pixels.
        flip: whether to mirror at random.
        simulate: what simulated generators make of the images; None: nothing.
        corrupt: what images suffer after that, each by its own key; None: nothing.

    Returns:
        `[images, crop, crop, 3]`, float32 in [0, 1].
    """
    # These scopes, as those of the network's modules, stay in the compiled program:
    # `rmjax plan --compile` says by them where its time goes.
    with jax.named_scope("augment"):
        images = random_flip_crop(fold_keys(keys, KEY_AUGMENT), images, crop, flip=flip)
        images = to_unit(images)
    if simulate is not None:
        with jax.named_scope("simulate"):
            images = simulate(fold_keys(keys, KEY_SIMULATE), images, sources)
    if corrupt is None:
        return images
    with jax.named_scope("corrupt"):
        return corrupt(fold_keys(keys, KEY_CORRUPT), images)


def _forward_loss(
    params: PyTree,
    *,
    batch_stats: PyTree,
    images: jax.Array,
    measure: Callable[[dict[str, Any]], dict[str, jax.Array]],
    level: int,
    model: RepMix,
    mixing: Mixing,
    transform: InputTransform,
    keys: jax.Array,
) -> tuple[jax.Array, tuple[PyTree, dict[str, jax.Array]]]:
    """Return the loss of images mixed at `level`, the new statistics and metrics."""
    mixed = None
    if level == 0:  # pixels: of two images' spectra or statistics no image has the sum
        with jax.named_scope("mix"):
            mixed = mixing(keys, images)
        images = mixed.h
    with jax.named_scope("augment"):
        inputs = transform(images)
    outputs, updated = model.apply(
        {"params": params, "batch_stats": batch_stats},
        inputs,
        train=True,
        mix=mixing if mixed is None else None,
        level=level,
        keys=keys,
        mutable=["batch_stats"],
    )
    if mixed is not None:
        outputs |= {"mixed": mixed}
    with jax.named_scope("loss"):
        metrics = measure(outputs)
    return metrics["loss"], (updated.get("batch_stats", {}), metrics)


def _measure(
    outputs: dict[str, Any],
    *,
    sources: jax.Array,
    semantics: jax.Array,
    loss: losses.Loss,
    num_sources: int,
    shares: np.ndarray,
) -> dict[str, jax.Array]:
    """Return the loss, its terms and the accuracies, see `rmjax.losses`."""
    members = losses.label_members(sources, outputs["mixed"])
    compared = outputs["embedding"], *members, num_sources, AXIS
    contrast = partial(losses.contrastive_loss, temperature=loss.temperature)
    if not loss.attributes:
        return {
            "loss": contrast(*compared),
            "accuracy": losses.nearest_accuracy(*compared),
        }
    attribution = trained = outputs["attribution"]
    if loss.adjusts:
        shown = losses.label_members(semantics, outputs["mixed"])
        trained = losses.adjust(attribution, *shown, shares)
    terms = losses.loss_terms(trained, outputs["detection"], *members)
    total = losses.total_loss(terms, loss.detects)
    if loss.contrasts:
        total += contrast(*compared)
    return {
        "loss": total,
        "attribution_loss": terms["attribution"],
        "detection_loss": terms["detection"],
        "soft_accuracy": losses.soft_accuracy(attribution, *members),
        "accuracy": losses.hard_accuracy(attribution, *members),
    }


def embed_step(
    variables: PyTree,
    batch: Batch,
    *,
    model: RepMix,
    augment: AugmentFn,
    transform: InputTransform,
    seed: int,
) -> dict[str, jax.Array]:
    """Return the `embedding` `[images, dimensions]` of images that went through `augment`.

    For validation: no image meets the random draws that one in training does.

    Args:
        variables: `params` and `batch_stats`.
        batch: as for `train_step`.
        model: the network.
        augment: what images go through before.
        transform: makes the network's input of them.
        seed: of all random draws.
    """
    root = jax.random.fold_in(jax.random.key(seed), KEY_VALIDATE)
    keys = jax.vmap(partial(jax.random.fold_in, root))(batch["position"])
    images = augment(keys, batch["image"], batch["source"])
    outputs: Any = model.apply(variables, transform(images))
    return {"embedding": outputs["embedding"]}


def eval_step(
    variables: PyTree,
    batch: Batch,
    *,
    model: nn.Module,
    transform: InputTransform,
    layers: tuple[str, ...] = ("embedding",),
    at_once: int | None = None,
) -> dict[str, jax.Array]:
    """Return what the network says of each image.

    Args:
        variables: `params` and `batch_stats`.
        batch: `image`, as for `train_step`.
        model: the network.
        transform: from these to the network's input.
        layers: the activations wanted, see `RepMix`.
        at_once: images that run together; None for all.

    Returns:
        The `layers`, maps and tokens averaged over their places, `[items, channels]` each; gated
        `attribution` and `detection` logits, where the network has heads.
    """

    def answer(images: jax.Array) -> dict[str, jax.Array]:
        outputs: Any = model.apply(variables, transform(images))
        names = [*layers, *(head for head in HEADS if head in outputs)]
        return {name: _mean_places(outputs[name]) for name in names}

    images = batch["image"]
    return map_chunks(answer, images, at_once or len(images))


def _mean_places(x: jax.Array) -> jax.Array:
    """Average maps and tokens `[items, ..., channels]` over places; leave vectors."""
    places = tuple(range(1, x.ndim - 1))
    return x.mean(places, dtype=widen(x.dtype)) if places else x
