"""One training step by itself, on a network of one layer."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rmjax.experiment.parallel import AXIS
from rmjax.experiment.step import augment, create_state, draw_level, train_step
from rmjax.inputs import rgb
from rmjax.losses import LOSSES
from rmjax.mixing import Mixed, Mixing, make_mixing, mix_nothing
from rmjax.models.repmix import RepMix

IMAGES, SIZE, CROP = 16, 36, 32
GROUPS, PAIRS = (
    make_mixing(
        name,
        level=5,
        members=2,
        beta=0.4,
        block=4,
        partners="any",
        band=(0.0, 0.1),
    )
    for name in ("repmix", "pairs")
)


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    return {
        "image": rng.integers(0, 256, (IMAGES, SIZE, SIZE, 3), np.uint8),
        "source": rng.integers(0, 3, IMAGES, np.int32),
        "semantic": rng.integers(0, 2, IMAGES, np.int32),
        "position": np.arange(IMAGES, dtype=np.int32) + 100,
    }


@pytest.fixture(scope="module")
def compiled(batch):
    """Function of pieces, images and mixing to a compiled step of one replica."""
    model, optimizer = RepMix("shallow", 3), optax.sgd(1.0)
    state = create_state(model, optimizer, 0, (CROP, CROP, 3))

    @cache
    def make(pieces, images=IMAGES, mixing=GROUPS, loss="compound"):
        step = partial(
            train_step,
            level=mixing.levels[0],
            model=model,
            loss=LOSSES[loss],
            num_sources=3,
            shares=np.array([[1.0, 0.0, 0.0], [0.0, 0.5, 0.5]]),
            optimizer=optimizer,
            mixing=mixing,
            augment=partial(augment, crop=CROP, flip=True, corrupt=None),
            transform=rgb,
            pieces=pieces,
            seed=0,
        )
        replica = jax.vmap(step, in_axes=(None, 0), out_axes=None, axis_name=AXIS)
        step = jax.jit(replica).lower(state, cut(batch, 0, images))
        # Otherwise the CPU's compiler may do all pieces at once.
        return step.compile({"xla_disable_hlo_passes": "cse_barrier_expander"})

    return state, make


def cut(batch, start, stop):
    """Return images `start` to `stop` as the share of a lone replica."""
    return {name: values[None, start:stop] for name, values in batch.items()}


@pytest.mark.parametrize("mixing", [GROUPS, PAIRS], ids=["groups", "pairs"])
def test_accumulation_is_the_mean_of_its_pieces(batch, compiled, mixing):
    """By hand: each piece from the same parameters and the last one's statistics."""
    state, make = compiled
    whole, metrics = make(2, mixing=mixing)(state, cut(batch, 0, IMAGES))
    step, half = make(1, IMAGES // 2, mixing), IMAGES // 2
    first, first_metrics = step(state, cut(batch, 0, half))
    second, second_metrics = step(
        state.replace(batch_stats=first.batch_stats), cut(batch, half, IMAGES)
    )
    close = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)
    # SGD with rate 1: parameters move by the gradient.
    jax.tree.map(
        lambda new, a, b: close(new, (a + b) / 2),
        whole.params,
        first.params,
        second.params,
    )
    jax.tree.map(close, whole.batch_stats, second.batch_stats)
    for name in ("loss", "accuracy", "soft_accuracy"):
        close(metrics[name], (first_metrics[name] + second_metrics[name]) / 2)
    assert int(whole.step) == int(state.step) + 1


def test_accumulation_takes_less_memory(compiled):
    _, make = compiled
    memory = [make(n).memory_analysis().temp_size_in_bytes for n in (1, 2)]
    assert memory[1] < 0.7 * memory[0], memory


def test_a_step_takes_the_sources_of_the_images_that_were_mixed(batch, compiled):
    """Samples in another order, each with its own source, have the same loss."""

    def turn(keys, h):
        places = jnp.arange(len(h))[::-1, None]
        return Mixed(h[::-1], jnp.ones((len(h), 1)), places)

    state, make = compiled
    found = [
        make(1, mixing=Mixing(mix_fn, (5,), drawn=1, unit=1))(
            state, cut(batch, 0, IMAGES)
        )[1]["loss"]
        for mix_fn in (mix_nothing, turn)
    ]
    np.testing.assert_allclose(*found, rtol=1e-5)


def test_a_contrasting_loss_adds_its_term(batch, compiled):
    state, make = compiled
    found = make(1, loss="contrastive")(state, cut(batch, 0, IMAGES))[1]
    # About log(samples - 1) at first, and more where the source has few others.
    assert 1 < found["loss"] - found["attribution_loss"] < 10


def test_an_adjusting_loss_expects_of_a_semantic_its_sources(batch, compiled):
    """At first, an image of another source costs more, and one of its own less."""
    state, make = compiled
    expected = batch | {"source": batch["semantic"]}  # semantic 1 shows 1 and 2
    other = batch | {"source": 1 - batch["semantic"]}

    def losses(loss):
        step = make(1, mixing=PAIRS, loss=loss)
        return [
            float(step(state, cut(b, 0, IMAGES))[1]["loss"]) for b in (expected, other)
        ]

    plain, adjusted = losses("attribution"), losses("adjusted")
    assert adjusted[0] < plain[0] and adjusted[1] > plain[1] + 1


def test_levels_are_drawn_alike_by_everybody_and_evenly():
    levels = (0, 2, 3)
    drawn = [draw_level(levels, 7, step) for step in range(3000)]
    assert drawn[:50] == [draw_level(levels, 7, step) for step in range(50)]
    assert drawn[:50] != [draw_level(levels, 8, step) for step in range(50)]
    # Four standard errors.
    counts = [drawn.count(level) for level in levels]
    np.testing.assert_allclose(counts, 1000, atol=4 * (3000 * 2 / 9) ** 0.5)
    assert draw_level((5,), 0, 0) == 5
