"""Working on an image tile by tile: for what can't take images of any size."""

from collections.abc import Callable

import jax
import jax.numpy as jnp


def cut(x: jax.Array, size: int) -> jax.Array:
    """Cut images into tiles that do not overlap.

    What is left over at the edges is dropped, as much on either side; a side shorter
    than a tile is first continued by its mirror image.

    Args:
        x: `[batch, H, W, channels]`.
        size: side of a tile.

    Returns:
        `[batch, rows, columns, size, size, channels]`.
    """
    batch, *sides, channels = x.shape
    missing = [max(size - side, 0) for side in sides]
    pads = [(0, 0), *((n // 2, n - n // 2) for n in missing), (0, 0)]
    x = jnp.pad(x, pads, mode="symmetric")
    rows, columns = (max(side // size, 1) for side in sides)
    top, left = ((n - n // size * size) // 2 for n in x.shape[1:3])
    x = x[:, top : top + rows * size, left : left + columns * size]
    x = x.reshape(batch, rows, size, columns, size, channels)
    return x.swapaxes(2, 3)


def join(tiles: jax.Array) -> jax.Array:
    """Put tiles next to each other again: the inverse of `cut`.

    Args:
        tiles: `[batch, rows, columns, size, size, channels]`.

    Returns:
        `[batch, rows * size, columns * size, channels]`.
    """
    batch, rows, columns, size, _, channels = tiles.shape
    return tiles.swapaxes(2, 3).reshape(batch, rows * size, columns * size, channels)


def map_tiles(
    x: jax.Array, *, function: Callable[[jax.Array], jax.Array], size: int
) -> jax.Array:
    """Apply a function to every tile of images, and join what it makes of them.

    Args:
        x: `[batch, H, W, channels]`.
        function: `[items, size, size, channels] -> [items, side, side, features]`.
        size: side of a tile, see `cut`.

    Returns:
        `[batch, rows * side, columns * side, features]`.
    """
    tiles = cut(x, size)
    made = function(tiles.reshape(-1, *tiles.shape[3:]))
    return join(made.reshape(*tiles.shape[:3], *made.shape[1:]))
