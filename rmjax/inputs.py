"""From pixels on the device to what the network sees: flip, crop, input transform.

Every random draw of an image comes from that image's own key, so the result
depends neither on the rest of the batch nor on the number of devices.
"""

from collections.abc import Callable, Sequence
from functools import cache, reduce
from operator import add

import jax
import jax.numpy as jnp
import numpy as np

from rmjax.errors import InputError
from rmjax.utils.choose import choose

# Mean and deviation of ImageNet's channels in [0, 1], as torchvision's and timm's
# weights expect them, https://docs.pytorch.org/vision/stable/models.html
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
WIENER_SIDE = 5  # of the windows of `wiener`, pixels
LUMA = (0.299, 0.587, 0.114)  # of red, green and blue, ITU-R BT.601


def random_flip_crop(
    keys: jax.Array, images: jax.Array, crop: int, *, flip: bool = True
) -> jax.Array:
    """Cut a random window from every image, mirrored left-right half of the time.

    Args:
        keys: `[batch]` random keys, one an image.
        images: `[batch, H, W, C]`.
        crop: side of the window in pixels, at most H and W.
        flip: whether to mirror at all.

    Returns:
        `[batch, crop, crop, C]`.
    """
    height, width, channels = images.shape[1:]
    if crop > min(height, width):
        raise InputError(
            f"crop = {crop} px is larger than the {height} x {width} image"
        )

    def one(key: jax.Array, image: jax.Array) -> jax.Array:
        key_flip, key_top, key_left = jax.random.split(key, 3)
        top = jax.random.randint(key_top, (), 0, height - crop + 1)
        left = jax.random.randint(key_left, (), 0, width - crop + 1)
        window = jax.lax.dynamic_slice(image, (top, left, 0), (crop, crop, channels))
        mirror = flip & jax.random.bernoulli(key_flip)
        return jnp.where(mirror, window[:, ::-1], window)

    return jax.vmap(one)(keys, images)


def to_unit(images: jax.Array) -> jax.Array:
    """Turn uint8 images into float32 in [0, 1]."""
    return images.astype(jnp.float32) / 255


def rgb(images: jax.Array) -> jax.Array:
    """Scale `[batch, H, W, C]` in [0, 1] to [-1, 1] (mean 0.5, deviation 0.5)."""
    return images * 2 - 1


def imagenet(images: jax.Array) -> jax.Array:
    """Scale `[batch, H, W, 3]` in [0, 1] to ImageNet's mean 0 and deviation 1."""
    return standardize(images, IMAGENET_MEAN, IMAGENET_STD)


def highpass(images: jax.Array) -> jax.Array:
    """Keep the fine residual: the scaled image less its 3x3 mean, times 6, in [-2, 2].

    Content lives in the low frequencies, most of a generator's fingerprint in
    the high ones. Edges are repeated.
    """
    x = rgb(images)
    return jnp.clip(6 * (x - _box_mean(x, 3)), -2, 2)


def wiener(images: jax.Array) -> jax.Array:
    """Keep what a local Wiener filter takes for noise, of the image in [-1, 1].

    Channel by channel, the image less its 5x5 mean, times noise / variance where the
    local 5x5 variance is more than the noise, which is the mean of all these variances:
    edges and texture are kept out, as a denoiser would leave them in the image. Edges
    are repeated.

    References:
        Lim, Two-Dimensional Signal and Image Processing, 1990, p. 548, as in
        https://docs.scipy.org/doc/scipy/reference/generated/scipy.signal.wiener.html
    """
    x = rgb(images)
    mean = _box_mean(x, WIENER_SIDE)
    variance = _box_mean(x**2, WIENER_SIDE) - mean**2
    noise = jnp.mean(variance, axis=(1, 2), keepdims=True)
    floor = jnp.maximum(noise, jnp.finfo(x.dtype).tiny)
    return (x - mean) * (noise / jnp.maximum(variance, floor))


def residual(images: jax.Array) -> jax.Array:
    """Take the published noise residual, in [-1, 1].

    The absolute difference between the image and itself scaled down and up
    again by 16 (bilinear, antialiased), stretched to the full range and
    truncated to 8 bits, image by image. Needs at least 16 x 16 pixels.
    """
    batch, height, width, channels = images.shape
    small = (batch, height // 16, width // 16, channels)
    coarse = jax.image.resize(images, small, "bilinear", antialias=True)
    coarse = jax.image.resize(coarse, images.shape, "bilinear", antialias=True)
    return rgb(_stretch(jnp.abs(images - coarse)))


def logdct(images: jax.Array) -> jax.Array:
    """Take the published log-DCT spectrum, in [-1, 1].

    Logarithm of the absolute orthonormal DCT-II of every channel (of values in
    0..255), stretched to the full range and truncated to 8 bits, image by image.
    """
    rows, columns = (jnp.asarray(dct_matrix(n)) for n in images.shape[1:3])
    spectrum = jnp.einsum(
        "ih,bhwc,jw->bijc", rows, images * 255, columns, precision="highest"
    )
    return rgb(_stretch(jnp.log(jnp.abs(spectrum) + 1e-12)))


def dcthist(images: jax.Array) -> jax.Array:
    """Take local histograms of block-DCT magnitudes of the luminance, in [0, 1].

    Every 8x8 window at an even row and column is transformed (63 coefficients; the
    mean is left out). Around each 4x4 such windows, 11 to 14 px wide, the magnitudes
    of each coefficient fill six bins an octave apart, with linear weights: 0, 1, 3,
    7, 15 and from 31 grey levels of 255 on. How often fine detail is weak or strong
    survives JPEG where its exact values do not, and where it lies in the image does
    not matter. In the spirit of the features of steganalysis: Holub and Fridrich,
    Low-Complexity Features for JPEG Steganalysis Using Undecimated DCT, 2015,
    https://doi.org/10.1109/TIFS.2014.2364918

    Returns:
        `[batch, (H - 6) // 8, (W - 6) // 8, 6 * 63]`: the first bin of every
        coefficient, then the second.

    Raises:
        InputError: H or W is under 14.
    """
    height, width = images.shape[1:3]
    if min(height, width) < 14:
        raise InputError(f"input 'dcthist' needs 14 x 14 px, not {height} x {width}")
    basis = dct_matrix(8)
    kernels = np.einsum("ki,lj->ijkl", basis, basis).reshape(8, 8, 1, 64)[..., 1:]
    coefficients = jax.lax.conv_general_dilated(
        255 * _luma(images),
        jnp.asarray(kernels),
        window_strides=(2, 2),
        padding="VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision="highest",
    )
    batch, rows, columns, channels = coefficients.shape
    rows, columns = rows // 4, columns // 4
    coefficients = coefficients[:, : 4 * rows, : 4 * columns]
    octaves = jnp.minimum(jnp.log2(jnp.abs(coefficients) + 1), 5)
    octaves = octaves.reshape(batch, rows, 4, columns, 4, channels)
    weights = (jnp.maximum(1 - jnp.abs(octaves - bin_), 0) for bin_ in range(6))
    return jnp.concatenate([jnp.mean(w, axis=(2, 4)) for w in weights], axis=-1)


def chroma(images: jax.Array) -> jax.Array:
    """Take local autocorrelations of what is fine in the colours, about -1 to 1.

    The differences of red and of blue to green, in grey levels of 255, less their 3x3
    mean: little of what an image shows is left there, as fine detail of a scene is
    mostly grey. Every window of 8x8 px, 4 px away from the border, gives the mean
    products of this residual with itself moved by each of 40 lags of up to 4 px (those
    that are no other's opposite), over its mean square (plus 1/4, the square of half a
    grey level): how neighbours depend on each other, which upsampling decides, not how
    strong the detail is.

    Returns:
        `[batch, (H - 8) // 8, (W - 8) // 8, 80]`: the lags of red, then of blue.

    Raises:
        InputError: H or W is under 16.

    References:
        Li et al., Identification of deep network generated images using disparities in
            color components, 2018, https://arxiv.org/abs/1808.07276 (chrominance)
        Popescu and Farid, Exposing digital forgeries by detecting traces of resampling,
            2005, https://doi.org/10.1109/TSP.2004.839932 (neighbours)
    """
    return _autocorrelations("chroma", _colours(images))


def luma_chroma(images: jax.Array) -> jax.Array:
    """Take the local autocorrelations of `chroma`, and those of the luminance.

    Many networks that enlarge an image change its luminance alone, and enlarge the
    colours by interpolation: in the colours they are all alike. More of what an image
    shows is left in the luminance, so take `chroma` where that tells sources apart.

    Returns:
        `[batch, (H - 8) // 8, (W - 8) // 8, 120]`: the lags of red, of blue, and of
        the luminance.

    Raises:
        InputError: H or W is under 16.
    """
    planes = jnp.concatenate([_colours(images), _luma(images)], axis=-1)
    return _autocorrelations("luma_chroma", planes)


def standardize(
    images: jax.Array,
    mean: Sequence[float] = (0.5,),
    std: Sequence[float] = (0.5,),
) -> jax.Array:
    """Subtract a mean from every channel of `[batch, H, W, C]`, divide by a deviation.

    Args:
        images: in [0, 1].
        mean: of each channel, or of all.
        std: as the mean.
    """
    return (images - jnp.array(mean)) / jnp.array(std)


STANDARD = "standard"  # the input whose mean and deviation a config gives
INPUTS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "rgb": rgb,
    "imagenet": imagenet,
    "highpass": highpass,
    "wiener": wiener,
    "residual": residual,
    "logdct": logdct,
    "dcthist": dcthist,
    "chroma": chroma,
    "luma_chroma": luma_chroma,
    STANDARD: standardize,
}


def get_input(name: str) -> Callable[[jax.Array], jax.Array]:
    """Return the input transform `name`: [0, 1] images to network input.

    Raises:
        InputError: there is none of that name.
    """
    return choose("input", name, INPUTS)


@cache
def dct_matrix(size: int) -> np.ndarray:
    """Return the orthonormal DCT-II as a matrix `[size, size]` (float32)."""
    k, n = np.ogrid[:size, :size]
    matrix = np.sqrt(2 / size) * np.cos(np.pi * (2 * n + 1) * k / (2 * size))
    matrix[0] /= np.sqrt(2)
    return matrix.astype(np.float32)


def _colours(images: jax.Array) -> jax.Array:
    """Return the differences of red and of blue to green, `[batch, H, W, 2]`."""
    return images[..., ::2] - images[..., 1:2]


def _luma(images: jax.Array) -> jax.Array:
    """Return the luminance, `[batch, H, W, 1]`."""
    # No matrix product: an accelerator would round the pixels for it, and with them
    # the fine detail that is looked for.
    return jnp.sum(images * jnp.array(LUMA), axis=-1, keepdims=True)


def _autocorrelations(name: str, planes: jax.Array) -> jax.Array:
    """Take local autocorrelations of the fine residual of every plane, as in `chroma`.

    Args:
        name: of the input, for the message.
        planes: `[batch, H, W, P]`, of a range of 1.

    Returns:
        `[batch, (H - 8) // 8, (W - 8) // 8, P * 40]`.
    """
    batch, height, width, _ = planes.shape
    if min(height, width) < 16:
        raise InputError(f"input '{name}' needs 16 x 16 px, not {height} x {width}")
    rows, columns = (height - 8) // 8, (width - 8) // 8
    x = 255 * planes
    # Rows of neighbours lie together then, which a CPU adds many at a time.
    x = jnp.moveaxis(x - _box_mean(x, 3), -1, 1)

    def every_8th(row: int, column: int) -> jax.Array:
        return x[:, :, row : row + 8 * rows - 7 : 8, column : column + 8 * columns]

    def sum_rows(down: int, right: int) -> jax.Array:
        products = (
            every_8th(i, 4) * every_8th(i + down, 4 + right) for i in range(4, 12)
        )
        return reduce(add, products)

    lags = [(i, j) for i in range(5) for j in range(-4, 5) if i > 0 or j >= 0]
    sums = jnp.stack([sum_rows(*lag) for lag in lags], axis=1)
    # Then over the columns of every window: [batch, 41, P, rows, columns].
    sums = reduce(add, (sums[..., i::8] for i in range(8))) / 64
    correlations = sums[:, 1:] / (sums[:, :1] + 0.25)
    return correlations.transpose(0, 3, 4, 2, 1).reshape(batch, rows, columns, -1)


def _box_mean(x: jax.Array, side: int) -> jax.Array:
    """Average `[batch, H, W, C]` over `side` x `side` windows; edges are repeated."""
    height, width = x.shape[1:3]
    pad = (side // 2, side // 2)
    rows = jnp.pad(x, ((0, 0), pad, pad, (0, 0)), mode="edge")
    rows = reduce(add, (rows[:, i : i + height] for i in range(side)))
    windows = reduce(add, (rows[:, :, i : i + width] for i in range(side)))
    return windows / side**2


def _stretch(x: jax.Array) -> jax.Array:
    """Map each image's range to [0, 1], truncated to 8 bits."""
    low = jnp.min(x, axis=(1, 2, 3), keepdims=True)
    high = jnp.max(x, axis=(1, 2, 3), keepdims=True)
    scaled = (x - low) / (high - low + jnp.finfo(jnp.float32).eps)
    return jnp.floor(scaled * 255) / 255
