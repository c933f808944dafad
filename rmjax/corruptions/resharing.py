"""What images go through when they are shared again, for evaluation.

Not part of ImageNet-C: compression, scaling, blur, cropping and mirroring with values
of the user's choice, as the field's robustness tests apply them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from rmjax.corruptions.dispatch import map_images
from rmjax.corruptions.jpeg import jpeg
from rmjax.corruptions.linear import (
    apply,
    apply_sparse,
    gaussian,
    nearest,
    sparse,
    triangle,
)
from rmjax.corruptions.primitives import round_through
from rmjax.corruptions.registry import check_images
from rmjax.errors import InputError
from rmjax.utils.choose import choose


@dataclass(frozen=True)
class Resharing:
    """One kind of resharing.

    Attributes:
        function: `(image [H, W, 3] in [0, 1], value) -> image`; the value is static.
        values: what an evaluation goes through by default.
        lowest: least allowed value.
        highest: greatest allowed value.
        meaning: what the value is.
        whole: whether it is a whole number.
    """

    function: Callable[[jax.Array, Any], jax.Array]
    values: tuple[float, ...]
    lowest: float
    highest: float
    meaning: str
    whole: bool = False


def _scale(image: jax.Array, scale: float, resampling: Callable) -> jax.Array:
    """Scale down and up again, as Pillow does, 8 bits between."""
    height, width = image.shape[:2]
    low = max(int(height * scale), 1), max(int(width * scale), 1)
    small = _resample(image, low, resampling)
    small = round_through(small * 255) / 255
    return _resample(small, (height, width), resampling)


def _resample(
    image: jax.Array, size: tuple[int, int], resampling: Callable
) -> jax.Array:
    """Bring `[H, W, C]` to `size`, by a function of (inputs, outputs) to a matrix."""
    rows, columns = (
        sparse(resampling(n, m)) for n, m in zip(image.shape[:2], size, strict=True)
    )
    return apply_sparse(rows, columns, image)


def _blur(image: jax.Array, sigma: float) -> jax.Array:
    height, width = image.shape[:2]
    return apply(gaussian(height, sigma), gaussian(width, sigma), image)


def _crop(image: jax.Array, share: float) -> jax.Array:
    """Keep the middle of both axes, enlarged to the old size (bilinear)."""
    height, width = image.shape[:2]
    inner = [max(int(n * share), 1) for n in (height, width)]
    top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
    middle = image[top : top + inner[0], left : left + inner[1]]
    return _resample(middle, (height, width), triangle)


RESHARING: dict[str, Resharing] = {
    "jpeg": Resharing(jpeg, (90, 75, 50, 30), 1, 100, "quality", whole=True),
    "nearest": Resharing(
        partial(_scale, resampling=nearest), (0.5, 0.25), 0.01, 1, "scale"
    ),
    "bilinear": Resharing(
        partial(_scale, resampling=triangle), (0.5, 0.25), 0.01, 1, "scale"
    ),
    "blur": Resharing(_blur, (0.5, 1, 2, 3), 0.1, 100, "sigma in pixels"),
    "crop": Resharing(_crop, (0.9, 0.7, 0.5), 0.1, 1, "share of each side"),
    "flip": Resharing(
        lambda image, value: image[:, ::-1], (1,), 1, 1, "always 1", whole=True
    ),
}


def reshare(images: jax.Array, name: str, value: float) -> jax.Array:
    """Reshare images of a batch, or one.

    Args:
        images: float `[H, W, 3]` or `[batch, H, W, 3]` in [0, 1].
        name: one of `RESHARING`.
        value: quality, scale, sigma or share: see there.

    Returns:
        float32 like `images`, rounded to multiples of 1/255, as a file would be.

    Raises:
        InputError: an unknown name, a value out of its range, or images that are not
            as said.
    """
    check_resharing(name, value)
    images = check_images(images)
    function = RESHARING[name].function
    if images.ndim == 3:
        shared = function(images, value)
    else:
        shared = map_images(lambda image: function(image, value), images)
    return round_through(jnp.clip(shared, 0, 1) * 255) / 255


def check_resharing(name: str, value: float) -> None:
    """Raise an InputError, which is a ValueError, for what `reshare` would refuse."""
    kind = choose("resharing", name, RESHARING)
    if not kind.lowest <= value <= kind.highest:
        raise InputError(
            f"value = {value:g} of {name} ({kind.meaning}) is not in "
            f"{kind.lowest:g}..{kind.highest:g}"
        )
    if kind.whole and value != int(value):
        raise InputError(
            f"value = {value:g} of {name} ({kind.meaning}) is not a whole number"
        )
