"""What a generator makes of pictures."""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from rmjax.corruptions import primitives
from rmjax.errors import InputError
from rmjax.simulate.generators import (
    ACTIVATIONS,
    MULTIPLE,
    NOISES,
    STAGES,
    TILE,
    Generator,
    draw_generator,
)
from rmjax.simulate.kernels import (
    BILINEAR,
    convolve,
    enlarge,
    filter_planes,
    fold,
    halve,
    unfold,
)
from rmjax.utils.platform import target_platform

_TINY = 1e-6  # keeps roots of sums of squares off zero, where they have no gradient
# What varies from image to image: the picture's detail, the generator's own, grain, and
# the full-size layer.
_STRENGTHS = 4


def simulate(
    generator_key: jax.Array,
    image_keys: jax.Array,
    images: jax.Array,
    without: Sequence[str] = (),
) -> jax.Array:
    """Turn pictures into images of a generator, which the key draws.

    The generator renders each picture anew from a smaller one, as the last layers of a
    network do: what is coarse in it stays, what is fine is the generator's. See
    `generators.Generator`.

    Args:
        generator_key: typed key of the generator; the same for all of its images.
        image_keys: typed keys `[batch]` of what varies from image to image.
        images: `[batch, H, W, 3]` in [0, 1], both sides multiples of `MULTIPLE`.
        without: parts that the generator does without, of `generators.PARTS`.

    Returns:
        Images of the same shape in [0, 1], of 256 levels.

    Raises:
        InputError: sides that cannot be halved three times, or no such part.
    """
    _check_sides(images)
    return _render(draw_generator(generator_key, without), image_keys, images)


def simulate_many(
    generator_keys: jax.Array,
    image_keys: jax.Array,
    images: jax.Array,
    without: Sequence[str] = (),
) -> jax.Array:
    """Let many generators, each by its key, turn pictures of their own into images.

    As `simulate`, with one more axis in front: `[generators]`, `[generators, batch]` and
    `[generators, batch, H, W, 3]`. A CPU takes them one after another, an accelerator
    side by side.
    """
    one = partial(simulate, without=without)
    if target_platform() == "cpu":
        return jax.lax.map(
            lambda args: one(*args), (generator_keys, image_keys, images)
        )
    return jax.vmap(one)(generator_keys, image_keys, images)


def _render(
    generator: Generator, image_keys: jax.Array, images: jax.Array
) -> jax.Array:
    """Turn pictures into images of a generator; as `simulate`."""
    pictures = [jnp.moveaxis(images, -1, 0)]
    for _ in range(STAGES):
        pictures.append(halve(pictures[-1]))
    keys = jax.vmap(lambda key: jax.random.split(key, STAGES + 2))(image_keys)
    strengths = jax.vmap(lambda key: primitives.normal(key, (_STRENGTHS,)))(keys[:, -1])
    strengths = jnp.exp(generator.variety * strengths).T[..., None, None]
    x = pictures[STAGES]
    for stage in reversed(range(STAGES)):
        # The picture itself is where the first stage starts from.
        x = jnp.where(generator.depth > stage + 1, x, pictures[stage + 1])
        x = _enlarge(
            generator, stage, keys[:, stage], strengths, x, *pictures[stage : stage + 2]
        )
    x = jnp.where(generator.depth > 0, x, pictures[0])
    x = filter_planes(x, generator.last)
    x = _finish(generator, keys[:, STAGES], strengths[3], x)
    return jnp.moveaxis(jnp.round(jnp.clip(x, 0, 1) * 255) / 255, 0, -1)


def _enlarge(
    generator: Generator,
    stage: int,
    keys: jax.Array,
    strengths: jax.Array,
    x: jax.Array,
    picture: jax.Array,
    smaller: jax.Array,
) -> jax.Array:
    """Double the size of what was made so far, and add detail.

    Args:
        generator: whose stage it is.
        stage: its number, 0 for the last.
        keys: `[batch]`.
        strengths: `[_STRENGTHS, batch, 1, 1]`.
        x: `[3, batch, h, w]`.
        picture: at the size to reach, `[3, batch, 2 h, 2 w]`.
        smaller: the picture at the size of x.
    """
    taps = generator.taps[stage]
    larger = enlarge(x, taps)
    lost = picture - enlarge(smaller, taps)
    _, _, height, width = x.shape
    keys = jax.vmap(jax.random.split, out_axes=1)(keys)
    noise = _draw_noise(keys[0], NOISES, height, width)
    grain = _draw_noise(keys[1], 3, 2 * height, 2 * width)

    folded = fold(lost)
    activity = _root_mean_square(folded, 0)
    scale = _root_mean_square(activity, (2, 3))
    noise = 0.5 * noise * (activity + 0.3 * scale)
    hidden = jnp.concatenate([x, folded, noise]) / scale
    hidden = _activate(generator, convolve(hidden, generator.hidden[stage]))
    deviation = _root_mean_square(hidden, (2, 3))
    hidden = jnp.where(generator.normalises == 1, hidden / deviation, hidden)
    made = unfold(activity * convolve(hidden, generator.made[stage]))

    kept = filter_planes(lost, generator.detail[stage]) * jnp.minimum(
        strengths[0], 1.25
    )
    brightness = 0.3 + 0.7 * jnp.sqrt(jnp.abs(larger) + _TINY)  # as of a sensor's noise
    return (
        larger
        + kept
        + strengths[1] * made
        + strengths[2] * generator.grain * brightness * grain
    )


def _draw_noise(keys: jax.Array, count: int, height: int, width: int) -> jax.Array:
    """Draw normal numbers `[count, batch, height, width]`, an image's from its key."""
    shape = (count, height, width)
    noise = jax.vmap(lambda key: primitives.normal(key, shape))(keys)
    return jnp.moveaxis(noise, 0, 1)


def _finish(
    generator: Generator, keys: jax.Array, strength: jax.Array, x: jax.Array
) -> jax.Array:
    """Add what is made at full size: a hidden layer, a tiled pattern, waves."""
    height, width = x.shape[-2:]
    fine = x - enlarge(halve(x), BILINEAR)
    scale = _root_mean_square(fine, (0, 2, 3))
    hidden = _activate(generator, convolve(fine / scale, generator.fine_hidden))
    x = x + strength * scale * convolve(hidden, generator.fine_made)
    tiles = (1, -(-height // TILE), -(-width // TILE))
    pattern = jnp.tile(jnp.moveaxis(generator.tile, -1, 0), tiles)
    x = x + pattern[:, None, :height, :width]
    right, down, phase = generator.waves.T[:, :, None, None]
    turns = right * np.arange(width) + down * np.arange(height)[:, None] + phase
    amplitudes = jax.vmap(lambda key: primitives.normal(key, turns.shape[:1]))(keys)
    waves = jnp.einsum(
        "bk,khw,kc->cbhw", amplitudes, jnp.sin(2 * np.pi * turns), generator.tint
    )
    return x + scale * waves


def _activate(generator: Generator, x: jax.Array) -> jax.Array:
    """Apply the activation; features have mean 0, lest they tint the whole image."""
    x = jax.lax.switch(generator.activation, ACTIVATIONS, x)
    return x - jnp.mean(x, (2, 3), keepdims=True)


def _root_mean_square(x: jax.Array, axis: int | tuple[int, ...]) -> jax.Array:
    return jnp.sqrt(jnp.mean(x**2, axis, keepdims=True) + _TINY)


def _check_sides(images: jax.Array) -> None:
    height, width = images.shape[1:3]
    if height % MULTIPLE or width % MULTIPLE:
        raise InputError(
            f"simulate: {height} x {width} px can't be halved {STAGES} times; give sides "
            f"that are multiples of {MULTIPLE}"
        )
