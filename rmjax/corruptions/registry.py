"""All corruptions by name, applied to one image, to a batch, or at random."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import checkify

from rmjax.corruptions import blur, digital, noise, spatter, weather
from rmjax.corruptions.dispatch import map_images, map_kinds
from rmjax.corruptions.frost import frost
from rmjax.corruptions.primitives import SEVERITIES, floor_through
from rmjax.errors import InputError
from rmjax.utils.keys import check_key

# (key, image [H, W, 3] in [0, 1], severity 1..5) -> image, to be clipped.
Corruption = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]

CORRUPTIONS: dict[str, Corruption] = {
    "gaussian_noise": noise.gaussian_noise,
    "shot_noise": noise.shot_noise,
    "impulse_noise": noise.impulse_noise,
    "defocus_blur": blur.defocus_blur,
    "glass_blur": blur.glass_blur,
    "motion_blur": blur.motion_blur,
    "zoom_blur": blur.zoom_blur,
    "snow": weather.snow,
    "frost": frost,
    "fog": weather.fog,
    "brightness": digital.brightness,
    "contrast": digital.contrast,
    "elastic_transform": digital.elastic_transform,
    "pixelate": digital.pixelate,
    "jpeg_compression": digital.jpeg_compression,
    "speckle_noise": noise.speckle_noise,
    "gaussian_blur": blur.gaussian_blur,
    "spatter": spatter.spatter,
    "saturate": digital.saturate,
}
NAMES = tuple(CORRUPTIONS)
UNSEEN = ("glass_blur", "motion_blur", "zoom_blur", "snow")
SEEN = tuple(name for name in NAMES if name not in UNSEEN)

MIN_SIZE = 32  # px


def corrupt(
    key: jax.Array,
    images: jax.Array,
    name: str,
    severity: int | jax.Array,
    *,
    rounding: bool = False,
    glass_swap: bool = False,
    frost_panes: np.ndarray | None = None,
) -> jax.Array:
    """Corrupt one image, or each of a batch by its own draw.

    Lengths in pixels are the reference's at any size, but for `pixelate`, `zoom_blur`
    and `elastic_transform`, where they are in proportion to it, and for `fog` and drawn
    `frost`, whose clouds grow with the next power of two. Gradients pass through
    rounding as if it were not there; `shot_noise` and `impulse_noise` have none where
    they replace a value.

    Args:
        key: of all draws; image i of a batch gets `fold_in(key, i)`.
        images: float `[H, W, 3]` or `[batch, H, W, 3]` in [0, 1], 32 px at least.
        name: one of `NAMES`.
        severity: 1..5, may be traced.
        rounding: truncate to multiples of 1/255, as the published code does.
        glass_swap: let `glass_blur` swap pixels, as was meant, instead of copying, as
            published; slow.
        frost_panes: photographs of frost, see `load_panes`; None draws the texture.

    Returns:
        float32 like `images`, in [0, 1]. An image with a NaN comes out as NaN, and is
        an error under `jax.experimental.checkify`.

    Raises:
        InputError: (a ValueError) an unknown name, a severity out of range, images not
            RGB, too small, or (where they are not traced) not in [0, 1], or no key.
    """
    check_key(key)
    images = check_images(images)
    check_names((name,))
    if isinstance(severity, jax.core.Tracer):
        inside = (severity >= SEVERITIES[0]) & (severity <= SEVERITIES[-1])
        checkify.debug_check(inside, "severity is not in 1..5")
    else:
        _check_severities((severity,))
    corruption = _choose(name, glass_swap, frost_panes)

    def one(image: jax.Array, key: jax.Array) -> jax.Array:
        return _corrupt_one(corruption, rounding, image, key, severity)

    if images.ndim == 3:
        return one(images, key)
    keys = jax.vmap(partial(jax.random.fold_in, key))(jnp.arange(len(images)))
    return map_images(one, images, keys)


def random_corrupt(
    keys: jax.Array,
    images: jax.Array,
    names: Sequence[str] = SEEN,
    severities: Sequence[int] = SEVERITIES,
    rate: float = 0.95,
    *,
    rounding: bool = False,
    glass_swap: bool = False,
    frost_panes: np.ndarray | None = None,
) -> jax.Array:
    """Corrupt each image by a kind and a severity of its own draw.

    Each costs its own kind and not all of them, and none depends on the rest of the
    batch, see `rmjax.corruptions.dispatch`.

    Args:
        keys: `[batch]`, one an image.
        images: float `[batch, H, W, 3]` in [0, 1], 32 px at least.
        names: kinds to draw from, equally likely.
        severities: severities to draw from, equally likely.
        rate: probability that an image is corrupted at all.
        rounding: as in `corrupt`, and so are the others.

    Raises:
        InputError: as `corrupt`, or `rate` is not in [0, 1], or there is not a key for
            every image.
    """
    images = check_images(images)
    check_settings(names, severities, rate)
    if images.ndim != 4 or jnp.shape(keys)[:1] != (len(images),):
        raise InputError(
            f"keys must be one an image [batch, H, W, 3]; their shape is "
            f"{jnp.shape(keys)}, that of the images {images.shape}"
        )
    kinds = [
        partial(_corrupt_one, _choose(name, glass_swap, frost_panes), rounding)
        for name in names
    ]

    def draw(key: jax.Array) -> tuple[jax.Array, ...]:
        key_rate, key_kind, key_severity, key = jax.random.split(key, 4)
        kind = jax.random.randint(key_kind, (), 0, len(kinds))
        severity = jax.random.choice(key_severity, jnp.asarray(severities))
        spared = jax.random.uniform(key_rate) >= rate
        return jnp.where(spared, len(kinds), kind), key, severity

    which, keys, severity = jax.vmap(draw)(keys)
    return map_kinds(kinds, which, images, keys, severity)


def check_settings(
    names: Sequence[str],
    severities: Sequence[int],
    rate: float,
    size: int = MIN_SIZE,
) -> None:
    """Raise an InputError for what `random_corrupt` would refuse; `size` in pixels."""
    check_names(names)
    _check_severities(severities)
    if not 0 <= rate <= 1:
        raise InputError(f"rate = {rate} is not a probability")
    if size < MIN_SIZE:
        raise InputError(f"images must be {MIN_SIZE} px at least, not {size}")


def _choose(name: str, glass_swap: bool, frost_panes: np.ndarray | None) -> Corruption:
    if name == "glass_blur" and glass_swap:
        return partial(blur.glass_blur, swap=True)
    if name == "frost" and frost_panes is not None:
        return partial(frost, panes=frost_panes)
    return CORRUPTIONS[name]


def _corrupt_one(
    corruption: Corruption,
    rounding: bool,
    image: jax.Array,
    key: jax.Array,
    severity: jax.Array | int,
) -> jax.Array:
    corrupted = jnp.clip(corruption(key, image, jnp.asarray(severity)), 0, 1).astype(
        jnp.float32
    )
    if rounding:
        # A thousandth of a level, lest float error turn a level into the one below.
        corrupted = floor_through(corrupted * 255 + 1e-3) / 255
    # Counts, comparisons and integers would make something of a NaN: it stays one.
    return jnp.where(jnp.isnan(jnp.sum(image)), jnp.nan, corrupted)


def check_images(images: jax.Array) -> jax.Array:
    """Return images as float32, or raise an InputError for what is wrong with them.

    Values are checked where they are known; traced ones under
    `jax.experimental.checkify` alone.
    """
    shape = jnp.shape(images)
    if len(shape) not in (3, 4) or shape[-1] != 3:
        raise InputError(f"images must be [H, W, 3] or [batch, H, W, 3], not {shape}")
    if not jnp.issubdtype(jnp.result_type(images), jnp.floating):
        raise InputError(
            f"images must be float in [0, 1], not {jnp.result_type(images)}"
        )
    if min(shape[-3:-1]) < MIN_SIZE:
        raise InputError(f"images must be {MIN_SIZE} px at least, not {shape[-3:-1]}")
    images = jnp.asarray(images, jnp.float32)
    inside = jnp.all((images >= 0) & (images <= 1))  # false for NaN, unlike min, max
    if isinstance(inside, jax.core.Tracer):
        checkify.debug_check(inside, "images must be in [0, 1], not NaN")
    elif not inside:
        values = np.asarray(images)  # NumPy's min and max of NaN is NaN
        low, high = values.min(), values.max()
        raise InputError(f"images must be in [0, 1], not in [{low:g}, {high:g}]")
    return images


def check_names(names: Sequence[str]) -> None:
    """Raise an InputError, which is a ValueError, for names not in `NAMES`, or none."""
    unknown = [name for name in names if name not in CORRUPTIONS]
    if unknown or not names:
        raise InputError(
            f"name: unknown {', '.join(unknown) or '(none)'}; choose from {', '.join(NAMES)}"
        )


def _check_severities(severities: Sequence[Any]) -> None:
    wrong = [severity for severity in severities if not _is_severity(severity)]
    if wrong or not len(severities):
        raise InputError(f"severity = {wrong} is not in 1..5")


def _is_severity(severity: int | jax.Array) -> bool:
    whole = jnp.issubdtype(jnp.result_type(severity), jnp.integer)
    return jnp.shape(severity) == () and whole and int(severity) in SEVERITIES
