"""Frost on a pane in front of the camera: drawn, or from photographs of your own."""

from functools import reduce
from operator import add

import jax
import jax.numpy as jnp
import numpy as np

from rmjax.corruptions import primitives
from rmjax.corruptions.blur import blur_along
from rmjax.corruptions.primitives import pick
from rmjax.corruptions.weather import plasma_over
from rmjax.errors import InputError

# Mean of red, green and blue over many places of the reference's photographs.
COLOUR = (0.545, 0.635, 0.685)
# Needles: share of the pixels that are seeds, half of their length in pixels.
SEEDS, REACH = 0.01, 8


def frost(
    key: jax.Array,
    image: jax.Array,
    severity: jax.Array,
    *,
    panes: jax.Array | np.ndarray | None = None,
) -> jax.Array:
    """Lay a pane with frost over the image.

    The reference takes a random part of one of five photographs. By default the
    texture is drawn: veins and needles of ice under a haze, slightly brighter or bluer
    from pane to pane. Mean brightness and contrast are the reference's, the crystals are
    not.

    Args:
        key: of all draws.
        image: `[H, W, 3]` in [0, 1].
        severity: 1..5.
        panes: photographs to cut from instead, see `load_panes`.
    """
    if panes is None:
        pane = _draw(key, *image.shape[:2])
    else:
        pane = _cut(key, jnp.asarray(panes), image.shape)
    keep = pick((1, 0.8, 0.7, 0.65, 0.6), severity)
    return keep * image + pick((0.4, 0.6, 0.7, 0.7, 0.75), severity) * pane


def _cut(key: jax.Array, panes: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Cut a random part of one of `[panes, h, w, 3]`."""
    room = panes.shape[1] - shape[0], panes.shape[2] - shape[1]
    if min(room) < 0:
        raise InputError(
            f"frost_panes are {panes.shape[1:3]} px, smaller than the images, {shape[:2]}"
        )
    limits = jnp.array([len(panes), room[0] + 1, room[1] + 1])
    which, top, left = jax.random.randint(key, (3,), 0, limits)
    return jax.lax.dynamic_slice(panes, (which, top, left, 0), (1, *shape))[0]


def _draw(key: jax.Array, height: int, width: int) -> jax.Array:
    """Draw frost, `[H, W, 3]` in [0, 1]."""
    keys = jax.random.split(key, 7)
    key_light, key_tint = keys[2:4]
    # Alike ones side by side: an accelerator starts half as many operations.
    draw_plasma = jax.vmap(lambda key, decay: plasma_over(key, height, width, decay))
    haze, veins = draw_plasma(keys[:2], jnp.array([1.9, 1.25]))
    veins = (1 - jnp.abs(2 * veins - 1)) ** 3
    needles = jax.vmap(lambda key: _needles(key, height, width))(keys[4:]).sum(0)
    layers = ((0.05, haze), (0.05, veins), (0.07, jnp.sqrt(needles)))
    texture = reduce(add, (share * _standardize(layer) for share, layer in layers))
    light = 0.02 * jax.random.normal(key_light)
    tint = 0.02 * jax.random.normal(key_tint) * jnp.array([1.0, -0.1, -0.1])
    pane = jnp.array(COLOUR) + light + tint + texture[..., None]
    return jnp.clip(pane, 0, 1)


def _needles(key: jax.Array, height: int, width: int) -> jax.Array:
    """Draw needles of ice that grow from random seeds to one side, `[H, W]`."""
    key_seeds, key_angle = jax.random.split(key)
    seeds = primitives.uniform(key_seeds, (height, width, 1)) < SEEDS
    angle = jax.random.uniform(key_angle, (), minval=0, maxval=2 * jnp.pi)
    grown = blur_along(seeds.astype(jnp.float32), angle, REACH, REACH, REACH)
    # Each tap is over 0.01: anything less is rounding, of which the root is taken.
    return jnp.where(grown[..., 0] < 1e-3, 0, grown[..., 0])


def _standardize(layer: jax.Array) -> jax.Array:
    return (layer - jnp.mean(layer)) / jnp.std(layer)
