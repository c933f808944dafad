"""Which image of a batch goes through which function, and how many side by side.

A CPU takes one image after another: what one step leaves is in its caches for the next,
and a branch costs nothing. On an accelerator every operation has to be started, and on
a GPU the host decides every branch: there, images of one kind go side by side, in chunks.
"""

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp

from rmjax.utils.platform import target_platform

# Images in a chunk. In larger ones more images share the start of an operation, and more
# places stay empty: on average there are as many as images at 64 images of 15 kinds.
CHUNK = 8

# (key, image [H, W, 3], severity 1..5) -> image.
Kind = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


def apply_kind(
    kind: Kind, keys: jax.Array, images: jax.Array, severity: jax.Array | int
) -> jax.Array:
    """Replace each image of `[batch, H, W, 3]` by `kind(key, image, severity)`.

    Args:
        kind: function of one image.
        keys: `[batch]`.
        images: `[batch, H, W, 3]`.
        severity: of all images.
    """
    one = partial(kind, severity=severity)
    places = jnp.arange(len(images))
    if target_platform() == "cpu":
        return _replace(images, one, places, keys)
    chunks = -(-len(images) // CHUNK)
    places = jnp.minimum(jnp.arange(chunks * CHUNK), len(images) - 1)
    places = places.reshape(chunks, CHUNK)
    return _replace(images, jax.vmap(one), places, keys[places])


def apply_kinds(
    kinds: Sequence[Kind],
    which: jax.Array,
    keys: jax.Array,
    images: jax.Array,
    severities: jax.Array,
) -> jax.Array:
    """Replace each image by `kinds[which](key, image, severity)`, all of them its own.

    Args:
        kinds: functions of one image.
        which: int `[batch]`; `len(kinds)` leaves an image as it is.
        keys: `[batch]`.
        images: `[batch, H, W, 3]`.
        severities: int `[batch]`.
    """

    def choose(branches: Sequence[Callable]) -> Callable:
        branches = [*branches, lambda key, image, severity: image]
        return lambda key, image, severity, which: jax.lax.switch(
            which, branches, key, image, severity
        )

    if target_platform() == "cpu":
        places = jnp.arange(len(images))
        return _replace(images, choose(kinds), places, keys, severities, which)
    which, places = _deal(which, len(kinds))
    vmapped = choose([jax.vmap(kind) for kind in kinds])
    return _replace(images, vmapped, places, keys[places], severities[places], which)


def _replace(
    images: jax.Array, function: Callable, places: jax.Array, *args: jax.Array
) -> jax.Array:
    """Replace images by `function(key, images there, ...)`, one place after another.

    Each element of `places` is the index of an image, or those of a chunk.
    """

    def step(images: jax.Array, turn: tuple) -> tuple[jax.Array, None]:
        place, key, *rest = turn
        # In place: fresh memory costs time.
        return images.at[place].set(function(key, images[place], *rest)), None

    # The trace of a loop that is never run would still read a first image.
    return jax.lax.scan(step, images, (places, *args))[0] if len(images) else images


def _deal(which: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    """Deal the images of each kind out to chunks.

    Args:
        which: kinds `[batch]`, 0..count; the last one needs no chunk.
        count: kinds that need chunks.

    Returns:
        The kind of each chunk, and its images' places in the batch `[chunks, CHUNK]`. A
        chunk that is not full repeats its last image, which is then computed, alike,
        several times. There are as many chunks as any batch may need; those left over
        have the kind `count`.
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
