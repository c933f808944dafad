"""Which image of a batch goes through which function, and how many side by side.

A CPU takes one image after another: what one operation leaves is in its caches for the
next, and a branch costs nothing. On an accelerator every operation has to be started,
and on a GPU the host decides every branch: there, images go side by side in chunks, all
of a chunk through the same function.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from rmjax.utils.platform import target_platform

# Images in a chunk. In larger ones more images share the start of an operation, and more
# places stay empty: of 64 images of 15 kinds, half of them already.
CHUNK = 8

# (image [H, W, C], its own arguments) -> such an image.
ImageFunction = Callable[..., jax.Array]


def map_images(
    function: ImageFunction, images: jax.Array, *args: jax.Array
) -> jax.Array:
    """Replace each image by `function(image, ...)`.

    Args:
        function: of one image.
        images: `[batch, H, W, C]`.
        args: `[batch, ...]`, what else the function takes.
    """
    if target_platform() == "cpu":
        return _replace(function, images, None, *args)
    chunks = -(-len(images) // CHUNK)
    # The last chunk repeats the last image, which is then computed, alike, several times.
    places = jnp.minimum(jnp.arange(chunks * CHUNK), len(images) - 1)
    places = places.reshape(chunks, CHUNK)
    args = tuple(arg[places] for arg in args)
    return _replace(jax.vmap(function), images, places, *args)


def map_kinds(
    kinds: Sequence[ImageFunction],
    which: jax.Array,
    images: jax.Array,
    *args: jax.Array,
) -> jax.Array:
    """Replace each image by `kinds[which](image, ...)`.

    What becomes of an image does not depend on the others.

    Args:
        kinds: functions of one image.
        which: int `[batch]`; `len(kinds)` leaves an image as it is.
        images: `[batch, H, W, C]`.
        args: `[batch, ...]`, what else all of the functions take.
    """
    on_cpu = target_platform() == "cpu"
    branches = list(kinds) if on_cpu else [jax.vmap(kind) for kind in kinds]
    branches.append(lambda images, *args: images)

    def choose(images: jax.Array, which: jax.Array, *args: jax.Array) -> jax.Array:
        return jax.lax.switch(which, branches, images, *args)

    if on_cpu:
        return _replace(choose, images, None, which, *args)
    which, places = _deal(which, len(kinds))
    return _replace(choose, images, places, which, *(arg[places] for arg in args))


def _replace(
    function: Callable, images: jax.Array, places: jax.Array | None, *args: jax.Array
) -> jax.Array:
    """Replace images by `function(images there, ...)`, one place after another.

    Each element of `places` has the indices of a chunk; None is every image by itself.
    """
    turns = len(images) if places is None else len(places)

    def replace(turn: jax.Array, images: jax.Array) -> jax.Array:
        place = turn if places is None else places[turn]
        done = function(images[place], *(arg[turn] for arg in args))
        return images.at[place].set(done)  # in place: fresh memory costs time

    # The trace of a loop that is never run would still read a first image.
    return jax.lax.fori_loop(0, turns, replace, images) if turns else images


def _deal(which: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    """Deal the images of each kind out to chunks.

    Args:
        which: kinds `[batch]`, 0..count; the last one needs no chunk.
        count: kinds that need chunks.

    Returns:
        The kind of each chunk, and its images' places in the batch `[chunks, CHUNK]`. A
        chunk that is not full repeats its last image. There are as many chunks as any
        batch may need; those left over have the kind `count`.
    """
    batch = len(which)
    # At worst each kind has one image beyond full chunks.
    chunks = (batch + min(count, batch) * (CHUNK - 1)) // CHUNK
    images = jnp.sum(which == jnp.arange(count + 1)[:, None], axis=1)
    needed = (-(-images // CHUNK)).at[count].set(chunks)
    ends, first = jnp.cumsum(needed), jnp.cumsum(images) - images
    number = jnp.arange(chunks)
    kind = jnp.sum(number[:, None] >= ends, axis=1)
    within = CHUNK * (number - (ends - needed)[kind])[:, None] + jnp.arange(CHUNK)
    last = jnp.maximum(images[kind] - 1, 0)[:, None]
    place = first[kind][:, None] + jnp.minimum(within, last)
    return kind, jnp.argsort(which, stable=True)[jnp.minimum(place, batch - 1)]
