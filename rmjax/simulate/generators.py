"""The space of generators: what a key draws, fixed for all images of a generator.

A generator here is the last layers of one, as far as they show in pixels: up to three
times it enlarges what it has, adds detail of its own making, and filters the result. No
two keys give the same. What is drawn are numbers alone, never the shape of a program, so
that generators of all kinds run side by side.

References:
    Enlarging: transposed convolutions and their checkerboards, Odena et al., 2016,
        https://doi.org/10.23915/distill.00003; sub-pixel convolution, Shi et al., 2016,
        https://arxiv.org/abs/1609.05158; nearest and filtered, Karras et al., 2018 and
        2019, https://arxiv.org/abs/1710.10196, https://arxiv.org/abs/1812.04948;
        windowed sinc, Karras et al., 2021, https://arxiv.org/abs/2106.12423
    Coordinates: Anokhin et al., 2021, https://arxiv.org/abs/2011.13775
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rmjax.corruptions import primitives
from rmjax.simulate.kernels import INTERPOLATORS, REACH
from rmjax.utils.choose import choose

STAGES = 3  # enlargements at most
MULTIPLE = 2**STAGES  # that the sides of an image must be of
FEATURES = 12  # of the hidden layers, made of:
NOISES = 2  # channels of noise,
INPUTS = 3 + 4 * 3 + NOISES  # beside colours and the detail of 2x2 pixels
FINE_FEATURES = 8  # of the last, full-size layer
TILE = 16  # side of the pattern that is tied to the pixel grid
WAVES = 8  # of a network of coordinates

# Parts that generators can do without, each by the field of `Generator` that is then zero.
PARTS = {
    "skip": "detail",
    "synthesis": "made",
    "grain": "grain",
    "fine": "fine_made",
    "tile": "tile",
    "waves": "tint",
}

ACTIVATIONS: tuple[Callable[[jax.Array], jax.Array], ...] = (
    jax.nn.relu,
    lambda x: jnp.maximum(x, 0.2 * x),
    jnp.tanh,
    jax.nn.silu,
    lambda x: jnp.sin(2 * x),
    jnp.abs,
)


class Generator(NamedTuple):
    """One generator. Stage 0 is the last enlargement, to full size.

    Attributes:
        depth: how many stages there are, 0 to `STAGES`.
        taps: interpolators, `[STAGES, 2, 7]`, see `kernels.enlarge`.
        detail: `[STAGES, 3, 3, 3]`, a filter of each colour through which the detail of
            the picture comes back that enlarging lost; an autoencoder has it, a synthesis has not.
        hidden: `[STAGES, 3, 3, INPUTS, FEATURES]`, to features at the smaller size; every
            kernel sums to zero.
        made: `[STAGES, 3, 3, FEATURES, 4 * 3]`, from features to detail of its own
            making, for each of the 2x2 pixels that a coarse one becomes.
        activation: which of `ACTIVATIONS`.
        normalises: 1 where features are normalised image by image, else 0.
        grain: deviation of the noise that every stage adds, of a range of 1.
        variety: how much the strengths of all this vary from image to image: deviation
            of their logarithm.
        last: `[5, 5, 3]`, the filter of each colour at full size.
        fine_hidden: `[3, 3, 3, FINE_FEATURES]`, and
        fine_made: `[3, 3, FINE_FEATURES, 3]`, a hidden layer at full size.
        tile: `[TILE, TILE, 3]`, what is added to every image at the same places.
        waves: `[WAVES, 3]`, features of coordinates: cycles per pixel to the right and
            down, phase in turns.
        tint: `[WAVES, 3]`, their colours.
    """

    depth: jax.Array
    taps: jax.Array
    detail: jax.Array
    hidden: jax.Array
    made: jax.Array
    activation: jax.Array
    normalises: jax.Array
    grain: jax.Array
    variety: jax.Array
    last: jax.Array
    fine_hidden: jax.Array
    fine_made: jax.Array
    tile: jax.Array
    waves: jax.Array
    tint: jax.Array


def draw_generator(key: jax.Array, without: Sequence[str] = ()) -> Generator:
    """Draw a generator from a typed key, but for some `PARTS`; the others are the same.

    Raises:
        InputError: there is no such part.
    """
    left_out = [choose("part of generators", name, PARTS) for name in without]
    generator = _draw_whole(key)
    zeros = {field: jnp.zeros_like(getattr(generator, field)) for field in left_out}
    return generator._replace(**zeros)


def _draw_whole(key: jax.Array) -> Generator:
    draws = _Draws(key)
    fine_hidden = _zero_sum(draws.normal(3, 3, 3, FINE_FEATURES) / 3)
    fine_made = draws.normal(3, 3, FINE_FEATURES, 3) / np.sqrt(9 * FINE_FEATURES)
    return Generator(
        depth=draws.choose(0, 1, 1, 1, 1, 1, 2, 2, 3, 3),
        taps=_draw_taps(draws),
        detail=_draw_detail(draws),
        hidden=_draw_hidden(draws),
        made=_draw_made(draws),
        activation=draws.choose(*range(len(ACTIVATIONS))),
        normalises=draws.chance(0.35),
        grain=draws.chance(0.6) * draws.between(1e-3, 0.03),
        variety=draws.uniform(0.05, 0.5),
        last=_draw_last(draws),
        fine_hidden=fine_hidden,
        fine_made=draws.chance(0.6) * draws.between(0.01, 0.3) * fine_made,
        tile=_draw_tile(draws),
        waves=draws.uniform(-0.5, 0.5, WAVES, 3),
        tint=draws.chance(0.15) * draws.between(0.02, 0.3) * draws.normal(WAVES, 3),
    )


def _draw_taps(draws: "_Draws") -> jax.Array:
    """Draw ways to enlarge: a known one, as a learned one may deviate from it."""
    count = len(INTERPOLATORS)
    each = [draws.choose(*range(count)) for _ in range(STAGES)]
    alike = draws.chance(0.7) == 1
    taps = jnp.stack(
        [jnp.asarray(INTERPOLATORS)[jnp.where(alike, each[0], way)] for way in each]
    )
    near = np.exp(-0.5 * (np.arange(-REACH, REACH + 1) / 1.2) ** 2)
    learned = draws.chance(0.6) * draws.between(0.003, 0.25)
    taps += learned * near * draws.normal(STAGES, 2, 2 * REACH + 1)
    # Where the two phases pass on different sums there is a checkerboard.
    checkers = draws.chance(0.4) * draws.between(0.001, 0.05)
    sums = checkers * draws.normal(STAGES, 1, 1) * np.array([[1.0], [-1.0]])
    return taps / jnp.maximum(taps.sum(-1, keepdims=True), 0.4) * (1 + sums)


def _draw_detail(draws: "_Draws") -> jax.Array:
    faithful = draws.chance(0.5) == 1
    share = draws.uniform(0.0, 1.0, STAGES)
    share = jnp.where(faithful, 0.3 + 0.7 * share, 0.3 * share)
    grey, colour = draws.between(0.01, 0.25), draws.between(0.003, 0.1)
    kernels = grey * draws.normal(STAGES, 3, 3, 1) + colour * draws.normal(
        STAGES, 3, 3, 3
    )
    return kernels.at[:, 1, 1].add(1.0) * share[:, None, None, None]


def _draw_hidden(draws: "_Draws") -> jax.Array:
    kernels = draws.normal(STAGES, 3, 3, INPUTS, FEATURES)
    heed = jnp.exp(0.5 * draws.normal(STAGES, 1, 1, INPUTS, 1))  # of each input
    return _zero_sum(kernels * heed / 6)


def _draw_made(draws: "_Draws") -> jax.Array:
    """Draw output kernels: more or less alike for the 2x2 pixels, more or less grey."""
    phases = draws.normal(STAGES, 3, 3, FEATURES, 4, 1)
    shared = draws.normal(STAGES, 3, 3, FEATURES, 1, 1)
    apart = jnp.where(draws.chance(0.5) == 1, 1.0, draws.between(0.02, 0.4))
    kernels = (apart * phases + (1 - apart) * shared) / jnp.hypot(apart, 1 - apart)
    colour = draws.between(0.05, 0.6)
    kernels += colour * draws.normal(STAGES, 3, 3, FEATURES, 4, 3)
    strength = draws.between(0.05, 0.7) * draws.uniform(0.6, 1.4, STAGES)
    kernels *= strength[:, None, None, None, None, None] / np.sqrt(9 * FEATURES)
    return kernels.reshape(STAGES, 3, 3, FEATURES, 4 * 3)


def _draw_last(draws: "_Draws") -> jax.Array:
    """Draw a filter near the identity: it sharpens or blurs, and what else it does."""
    radius = np.hypot(*np.mgrid[-2:3, -2:3])[..., None]
    kernels = draws.normal(5, 5, 1) + 0.3 * draws.normal(5, 5, 3)
    kernels = kernels * np.exp(-0.5 * radius**2)
    kernels = draws.between(0.005, 0.15) * (kernels - kernels.mean((0, 1)))
    smooth = np.outer([0, 1, 2, 1, 0], [0, 1, 2, 1, 0]) / 16
    identity = np.zeros((5, 5))
    identity[2, 2] = 1
    sharpen = draws.chance(0.5) * draws.uniform(-0.5, 0.8)
    filters = identity + sharpen * (identity - smooth)
    return kernels + filters[..., None]


def _draw_tile(draws: "_Draws") -> jax.Array:
    period = draws.choose(2, 4, 8, TILE)
    at = jnp.arange(TILE) % period
    tile = draws.normal(TILE, TILE, 3)[at][:, at]
    tile -= tile.mean((0, 1))
    return draws.chance(0.3) * draws.between(3e-4, 0.01) * tile


def _zero_sum(kernels: jax.Array) -> jax.Array:
    """Shift kernels `[..., k, k, in, out]` so that nothing constant passes."""
    return kernels - kernels.mean((-4, -3), keepdims=True)


class _Draws:
    """Numbers of one key, handed out one after another: all are hashed at once."""

    _COUNT = 2**14

    def __init__(self, key: jax.Array):
        self._numbers = primitives.uniform(key, (self._COUNT,))
        self._taken = 0

    def uniform(self, low: float, high: float, *shape: int) -> jax.Array:
        """Draw between two numbers."""
        count = int(np.prod(shape))
        start, self._taken = self._taken, self._taken + count
        if self._taken > self._COUNT:
            raise AssertionError(f"a generator takes over {self._COUNT} numbers")
        return low + (high - low) * self._numbers[start : self._taken].reshape(shape)

    def between(self, low: float, high: float) -> jax.Array:
        """Draw between two numbers, every ratio as likely."""
        return jnp.exp(self.uniform(np.log(low), np.log(high)))

    def normal(self, *shape: int) -> jax.Array:
        """Draw from the standard normal distribution."""
        return primitives.to_normal(self.uniform(-1.0, 1.0, *shape))

    def chance(self, probability: float) -> jax.Array:
        """Draw 1.0 with this probability, else 0.0."""
        return (self.uniform(0.0, 1.0) < probability).astype(jnp.float32)

    def choose(self, *values: int) -> jax.Array:
        """Draw one of the values."""
        place = (self.uniform(0.0, 1.0) * len(values)).astype(jnp.int32)
        return jnp.asarray(values)[jnp.minimum(place, len(values) - 1)]
