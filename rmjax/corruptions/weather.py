"""Corruptions by weather. Images are `[H, W, 3]` in [0, 1], severities 1..5."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np

from rmjax.corruptions import primitives
from rmjax.corruptions.blur import blur_along
from rmjax.corruptions.linear import Sparse, apply_sparse, centre_zooms
from rmjax.corruptions.primitives import pick
from rmjax.inputs import LUMA
from rmjax.utils.platform import target_platform, targeting

SNOW_ZOOMS = (3.0, 2.0, 4.0, 4.5, 2.5)
SNOW_RADII = (10, 12, 12, 12, 12)
COARSE = 32  # side of the grid to which an accelerator takes all steps at once


def fog(key: jax.Array, image: jax.Array, severity: jax.Array) -> jax.Array:
    """Add a plasma fractal, scaled so that the brightest value stays what it was."""
    height, width = image.shape[:2]
    strength = pick((1.5, 2, 2.5, 2.5, 3), severity)
    decay = pick((2, 2, 1.7, 1.5, 1.4), severity)
    layer = plasma_over(key, height, width, decay)[..., None]
    brightest = jnp.max(image)
    return (image + strength * layer) * brightest / (brightest + strength)


def snow(key: jax.Array, image: jax.Array, severity: jax.Array) -> jax.Array:
    """Whiten the image and let it snow: streaks of thresholded noise, and their turn."""
    key_flakes, key_angle = jax.random.split(key)
    flakes = 0.3 * primitives.normal(key_flakes, (*image.shape[:2], 1))
    flakes += pick((0.1, 0.2, 0.55, 0.55, 0.55), severity)

    def zoom(size: int) -> Sparse:
        places, weights = centre_zooms(size, SNOW_ZOOMS)
        return jnp.asarray(places)[severity - 1], jnp.asarray(weights)[severity - 1]

    height, width = image.shape[:2]
    flakes = apply_sparse(zoom(height), zoom(width), flakes)
    threshold = pick((0.5, 0.5, 0.9, 0.85, 0.85), severity)
    flakes = jnp.where(flakes < threshold, 0, jnp.minimum(flakes, 1))
    angle = jax.random.uniform(
        key_angle, (), minval=-0.75 * jnp.pi, maxval=-0.25 * jnp.pi
    )
    radius, sigma = pick(SNOW_RADII, severity), pick((4, 4, 8, 8, 12), severity)
    flakes = blur_along(flakes, angle, radius, sigma, max(SNOW_RADII))
    keep = pick((0.8, 0.7, 0.7, 0.65, 0.55), severity)
    grey = (image @ jnp.array(LUMA))[..., None]
    white = jnp.maximum(image, 1.5 * grey + 0.5)
    return keep * image + (1 - keep) * white + flakes + flakes[::-1, ::-1]


def plasma(key: jax.Array, size: int, decay: jax.Array | float) -> jax.Array:
    """Draw a periodic plasma fractal `[size, size]` in [0, 1] by diamonds and squares.

    Args:
        key: of all its draws.
        size: a power of two.
        decay: the displacements are within 100**2 at first, and within this squared
            times less at every halving of the step.
    """
    noise = primitives.uniform(key, (size * size,), -1.0, 1.0)
    steps, bound = [], jnp.float32(100.0**2)
    for draws in _cut_steps(noise, size):
        steps.append(bound * draws)
        bound = bound / decay**2
    grid, coarse = jnp.zeros((1, 1)), min(size, COARSE)
    if target_platform() != "cpu":
        # An accelerator takes as long for a small grid as for a large one.
        matrix, done = jnp.asarray(_coarse_steps(coarse)), coarse.bit_length() - 1
        first = jnp.concatenate([step.reshape(-1) for step in steps[:done]])
        grid = jnp.matmul(matrix, first, precision="highest").reshape(coarse, coarse)
        steps = steps[done:]
    for displacements in steps:
        grid = _refine(grid, displacements)
    grid -= jnp.min(grid)
    return grid / jnp.max(grid)


def plasma_over(
    key: jax.Array, height: int, width: int, decay: jax.Array | float
) -> jax.Array:
    """Cut `[height, width]` from the corner of the next larger plasma fractal."""
    size = 1 << (max(height, width) - 1).bit_length()
    return plasma(key, size, decay)[:height, :width]


def _cut_steps(draws: jax.Array, size: int) -> list[jax.Array]:
    """Cut draws into those of each step to a grid of `size`: `[3, n, n]`, n = 1, 2, 4 ..."""
    sides = [1 << i for i in range(size.bit_length() - 1)]
    # The steps before have used 3 * (1 + 4 + 16 ...) of them.
    return [draws[n**2 - 1 : 4 * n**2 - 1].reshape(3, n, n) for n in sides]


@cache
def _coarse_steps(size: int) -> np.ndarray:
    """Return the steps from nothing to a grid of `size` as one matrix.

    It is `[size**2, size**2 - 1]`, from all their displacements to the grid: a step is
    linear.
    """

    def refine_all(displacements: jax.Array) -> jax.Array:
        grid = jnp.zeros((1, 1))
        for step in _cut_steps(displacements, size):
            grid = _refine(grid, step)
        return grid.reshape(-1)

    with jax.ensure_compile_time_eval(), targeting("cpu"):
        return np.asarray(jax.vmap(refine_all)(jnp.eye(size**2 - 1))).T


def _refine(grid: jax.Array, displacements: jax.Array) -> jax.Array:
    """Halve the step of a periodic grid `[n, n]`: the mean of four neighbours, displaced.

    First the centres of the squares, then the middles of their sides, `[3, n, n]`.
    """
    below, beside = jnp.roll(grid, -1, 0), jnp.roll(grid, -1, 1)
    centre = (grid + below + beside + jnp.roll(below, -1, 1)) / 4 + displacements[0]
    above, left = jnp.roll(centre, 1, 0), jnp.roll(centre, 1, 1)
    across = (centre + above + grid + beside) / 4 + displacements[1]
    down = (centre + left + grid + below) / 4 + displacements[2]
    return _interleave(grid, across, down, centre)


def _interleave(
    grid: jax.Array, across: jax.Array, down: jax.Array, centre: jax.Array
) -> jax.Array:
    """Put four grids `[n, n]` between each other: `[2 n, 2 n]`."""
    size = len(grid)
    if target_platform() == "cpu":
        even = jnp.stack([grid, across], -1).reshape(size, 2 * size)
        odd = jnp.stack([down, centre], -1).reshape(size, 2 * size)
        return jnp.stack([even, odd], 1).reshape(2 * size, 2 * size)
    # Products that move rows and columns: to do it by copies is slow on a TPU.
    blocks = jnp.block([[grid, across], [down, centre]])
    to = np.arange(2 * size)
    move = (to[:, None] // 2 + to[:, None] % 2 * size == to).astype(np.float32)
    return jnp.linalg.multi_dot([move, blocks, move.T], precision="highest")
