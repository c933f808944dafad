"""Corruptions by blur. Images are `[H, W, 3]` in [0, 1], severities 1..5."""

from collections.abc import Sequence
from functools import cache, partial
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from rmjax.corruptions import primitives
from rmjax.corruptions.linear import (
    Sparse,
    apply_chosen,
    apply_sparse,
    centre_zooms,
    gaussian,
)
from rmjax.corruptions.primitives import floor_through, pick
from rmjax.utils.platform import target_platform

Mode = Literal["edge", "reflect"]  # how an image goes on beyond its edges

GAUSSIAN_SIGMAS = (1.0, 2.0, 3.0, 4.0, 6.0)
# Sigma of the blur before and after, largest displacement, passes.
GLASS = ((0.7, 1, 2), (0.9, 2, 1), (1.0, 2, 3), (1.1, 3, 2), (1.5, 4, 2))
# Radius of the disk, sigma of the Gaussian that softens its rim.
DEFOCUS = ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))
MOTION_RADII, MOTION_SIGMAS = (10, 15, 15, 15, 20), (3, 5, 8, 12, 15)
# Number of enlargements, beginning with 1, and the step from one to the next.
ZOOMS = ((12, 0.01), (16, 0.01), (11, 0.02), (13, 0.02), (11, 0.03))


def gaussian_blur(key: jax.Array, image: jax.Array, severity: jax.Array) -> jax.Array:
    """Blur by a Gaussian, edges repeated; `key` is not used."""
    return apply_chosen(gaussian, GAUSSIAN_SIGMAS, severity, image)


def glass_blur(
    key: jax.Array, image: jax.Array, severity: jax.Array, *, swap: bool = False
) -> jax.Array:
    """Blur, displace every pixel by a few, blur again.

    A pixel takes the value of a random neighbour, in a scan from the bottom right to
    the top left. Meant was a swap of both, but the published code copies, because both
    sides of its assignment are views; `swap` does what was meant, pixel after pixel,
    and takes tenths of a second an image.
    """
    sigmas = [sigma for sigma, _, _ in GLASS]
    reach = jnp.asarray([reach for _, reach, _ in GLASS])[severity - 1]
    passes = jnp.asarray([passes for _, _, passes in GLASS])[severity - 1]
    blurred = apply_chosen(gaussian, sigmas, severity, image)
    # A thousandth of a level, lest float error turn a level into the one below.
    blurred = floor_through(blurred * 255 + 1e-3) / 255
    height, width = image.shape[:2]
    displace = _swap_pixels if swap else _copy_pixels

    def scan(index: jax.Array, sources: jax.Array) -> jax.Array:
        there = _neighbours(jax.random.fold_in(key, index), height, width, reach)
        return displace(sources, there)

    sources = jax.lax.fori_loop(0, passes, scan, jnp.arange(height * width))
    blurred = blurred.reshape(-1, 3)[sources].reshape(image.shape)
    return apply_chosen(gaussian, sigmas, severity, blurred)


def _neighbours(key: jax.Array, height: int, width: int, reach: jax.Array) -> jax.Array:
    """Draw for every pixel, in reading order, the neighbour that it meets.

    Pixels near the edges, which the scan leaves out, meet themselves.
    """
    row, column = jnp.mgrid[:height, :width]
    draw, span = primitives.bits(key, (height, width)), (2 * reach).astype(jnp.uint32)
    down, right = (
        (half * span >> 16).astype(jnp.int32) - reach
        for half in (draw >> 16, draw & 0xFFFF)
    )
    scanned = (row > reach) & (row <= height - reach)
    scanned &= (column > reach) & (column <= width - reach)
    there = row * width + column + jnp.where(scanned, down * width + right, 0)
    return there.reshape(-1)


def _copy_pixels(values: jax.Array, there: jax.Array) -> jax.Array:
    """Give each pixel its neighbour's value, in the order of the scan, all at once.

    Values travel: a neighbour that the scan has passed holds what it took before.
    Those chains are followed by pointer doubling.
    """
    here = jnp.arange(len(there))
    # A neighbour later in reading order has been scanned: go on to its source. (One
    # that meets itself is its own, whether scanned or not.)
    link = jnp.where(there > here, there, here)
    # Half of the links end a chain: of 2**5 steps none is left. A loop, not because
    # of its length, but lest the compiler compute the draws anew for each gather.
    link, there = jax.lax.fori_loop(
        0, 5, lambda _, pair: (pair[0][pair[0]], pair[1]), (link, there)
    )
    return values[there[link]]


def _swap_pixels(values: jax.Array, there: jax.Array) -> jax.Array:
    """Swap each pixel's value with its neighbour's, in the order of the scan."""

    def swap(step: jax.Array, values: jax.Array) -> jax.Array:
        here = len(there) - 1 - step
        pair = jnp.stack([here, there[here]])
        return values.at[pair].set(values[pair[::-1]])

    return jax.lax.fori_loop(0, len(there), swap, values)


def defocus_blur(key: jax.Array, image: jax.Array, severity: jax.Array) -> jax.Array:
    """Blur by a soft disk, edges mirrored; `key` is not used."""
    margin = DEFOCUS[-1][0]
    shape = _padded(image.shape, margin)
    spectra = np.stack([np.fft.rfft2(_wrapped(disk(*d), shape)) for d in DEFOCUS])
    spectrum = jnp.asarray(spectra.astype(np.complex64))[severity - 1]
    return _convolve(image, spectrum, shape, margin, mode="reflect")


def motion_blur(key: jax.Array, image: jax.Array, severity: jax.Array) -> jax.Array:
    """Blur along a line at up to 45 degrees from the horizontal, to one side."""
    angle = jax.random.uniform(key, (), minval=-jnp.pi / 4, maxval=jnp.pi / 4)
    return blur_along(
        image, angle, pick(MOTION_RADII, severity), pick(MOTION_SIGMAS, severity)
    )


def zoom_blur(key: jax.Array, image: jax.Array, severity: jax.Array) -> jax.Array:
    """Average the image and enlargements of its centre; `key` is not used."""
    height, width = image.shape[:2]
    if target_platform() == "cpu":
        branches = [
            partial(
                _mean_zooms, rows=_zooms(height, *zoom), columns=_zooms(width, *zoom)
            )
            for zoom in ZOOMS
        ]
        return jax.lax.switch(severity - 1, branches, image)

    def choose(size: int) -> Sparse:
        tables = zip(*(_zooms(size, *zoom) for zoom in ZOOMS), strict=True)
        places, weights = (_stack_filled(table)[severity - 1] for table in tables)
        return places, weights

    count = pick([count for count, _ in ZOOMS], severity)
    return _mean_zooms(image, choose(height), choose(width), count)


def _zooms(size: int, count: int, step: float) -> Sparse:
    """Return the enlargements of an axis, `[count, size, 2]` each."""
    # Rounded as in NumPy's arange(1, ..., step): where a cut-out's size is at stake
    # (224 / 1.12 = 200), the last bit of a factor decides it.
    return centre_zooms(size, [1 + i * ((1 + step) - 1) for i in range(count)])


def _stack_filled(arrays: Sequence[np.ndarray]) -> jax.Array:
    """Stack arrays of different lengths, zeros in the place of what the shorter lack."""
    most = max(map(len, arrays))
    fill = [(0, 0)] * (arrays[0].ndim - 1)
    return jnp.asarray(
        np.stack([np.pad(x, [(0, most - len(x)), *fill]) for x in arrays])
    )


def _mean_zooms(
    image: jax.Array, rows: Sparse, columns: Sparse, count: jax.Array | None = None
) -> jax.Array:
    """Average the image and its zooms, of which `count` or all are not zero."""

    def add(total: jax.Array, zoom: tuple[Sparse, Sparse]) -> tuple[jax.Array, None]:
        rows, columns = zoom
        return total + apply_sparse(rows, columns, image), None

    total, _ = jax.lax.scan(add, image, (rows, columns))
    return total / (1 + (len(rows[0]) if count is None else count))


def blur_along(
    image: jax.Array,
    angle: jax.Array,
    radius: jax.Array | int,
    sigma: jax.Array | int,
    max_radius: int = max(MOTION_RADII),
) -> jax.Array:
    """Average along a line that begins at each pixel, edges repeated.

    Args:
        image: `[H, W, C]`.
        angle: direction in radians, scalar; 0 is to the right, more is downwards.
        radius: the line has `2 * radius + 1` taps, a pixel apart, rounded.
        sigma: of the Gaussian whose one half weights them.
        max_radius: the largest `radius`.
    """
    taps = 2 * max_radius + 1
    at = jnp.arange(taps)
    weights = jnp.where(at <= 2 * radius, jnp.exp(-0.5 * (at / sigma) ** 2), 0)
    weights /= jnp.sum(weights)
    down = jnp.ceil(at * jnp.sin(angle) - 0.5).astype(jnp.int32)
    right = jnp.ceil(at * jnp.cos(angle) - 0.5).astype(jnp.int32)
    add_up = _add_waves if target_platform() == "tpu" else _add_shifted
    return add_up(image, weights, down, right)


def _add_shifted(
    image: jax.Array, weights: jax.Array, down: jax.Array, right: jax.Array
) -> jax.Array:
    """Sum the image moved up by `down`, left by `right` < taps, times `weights`."""
    height, width, channels = image.shape
    taps = len(weights)
    padded = jnp.pad(image, ((taps, taps), (taps, taps), (0, 0)), mode="edge")
    padded = padded.reshape(height + 2 * taps, -1)  # whole rows add up fastest

    def add(total: jax.Array, tap: tuple) -> tuple[jax.Array, None]:
        weight, down, right = tap
        start = taps + down, (taps + right) * channels
        shifted = jax.lax.dynamic_slice(padded, start, total.shape)
        return total + weight.astype(total.dtype) * shifted, None

    none = jnp.zeros((height, width * channels), image.dtype)
    # All taps in one kernel of a GPU.
    unroll = 2 if target_platform() == "cpu" else taps
    total, _ = jax.lax.scan(add, none, (weights, down, right), unroll=unroll)
    return total.reshape(image.shape)


def _add_waves(
    image: jax.Array, weights: jax.Array, down: jax.Array, right: jax.Array
) -> jax.Array:
    """Do the same by a spectrum: a TPU is slow to read at places that vary."""
    reach = len(weights) - 1
    shape = _padded(image.shape, reach)

    def waves(shift: jax.Array, size: int) -> tuple[jax.Array, jax.Array]:
        # Whole turns are taken off before the angle, a float, would lose what is left.
        turns = shift[:, None] * jnp.arange(size) % size
        angle = 2 * jnp.pi / size * turns
        return jnp.cos(angle), jnp.sin(angle)

    row_cos, row_sin = waves(down, shape[0])
    cos, sin = waves(right, shape[1])
    columns = jnp.concatenate([cos, sin])[:, : shape[1] // 2 + 1]
    columns *= jnp.tile(weights, 2)[:, None]
    spectrum = jax.lax.complex(
        *(
            jnp.einsum("tu,tv->uv", jnp.concatenate(rows), columns, precision="highest")
            for rows in ((row_cos, -row_sin), (row_sin, row_cos))
        )
    )
    return _convolve(image, spectrum, shape, reach, mode="edge")


@cache
def disk(radius: int, sigma: float) -> np.ndarray:
    """Return the defocus kernel: `[17, 17]`, or more for radius > 8."""
    half = max(8, radius)
    row, column = np.ogrid[-half : half + 1, -half : half + 1]
    kernel = (row**2 + column**2 <= radius**2).astype(float)
    kernel /= kernel.sum()
    reach = 2 if radius > 8 else 1
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    weights /= weights.sum()
    for axis in (0, 1):
        padded = np.pad(kernel, [(reach * (a == axis),) * 2 for a in (0, 1)], "reflect")
        windows = np.lib.stride_tricks.sliding_window_view(padded, len(weights), axis)
        kernel = windows @ weights
    return kernel


def _convolve(
    image: jax.Array,
    spectrum: jax.Array,
    shape: tuple[int, int],
    margin: int,
    mode: Mode,
) -> jax.Array:
    """Convolve `[H, W, C]`, extended by `margin`, with a kernel's `rfft2` of `shape`."""
    if target_platform() == "tpu":
        return _convolve_by_products(image, spectrum, shape, margin, mode)
    height, width = image.shape[:2]
    padded = jnp.pad(image, ((margin, margin), (margin, margin), (0, 0)), mode=mode)
    planes = jnp.fft.rfft2(padded.transpose(2, 0, 1), shape)
    blurred = jnp.fft.irfft2(planes * spectrum, shape)
    inside = blurred[:, margin : margin + height, margin : margin + width]
    return inside.transpose(1, 2, 0)


def _convolve_by_products(
    image: jax.Array,
    spectrum: jax.Array,
    shape: tuple[int, int],
    margin: int,
    mode: Mode,
) -> jax.Array:
    """Do the same by matrices that transform, and extend by the margins as well.

    Two thirds faster than a TPU's own Fourier transform. Products are of real numbers,
    with imaginary parts beside or below real ones: complex ones take four times as long
    to compile.
    """
    product = partial(jnp.einsum, precision="highest")
    height, half = len(image), shape[1] // 2 + 1
    into, back = _waves(image.shape[1], shape[1], margin, mode)
    # A real axis has a symmetric spectrum, of which all but the first and the middle
    # one stand for two.
    alone = (np.arange(half) == 0) | (2 * np.arange(half) == shape[1])
    into, back = into[:half], back[:, :half] * np.where(alone, 1, 2)
    planes = product("vW,HWc->cHv", np.concatenate([into.real, into.imag]), image)
    planes = jnp.concatenate([planes[..., :half], planes[..., half:]], axis=1)
    rows_into, rows_back = map(_as_real, _waves(height, shape[0], margin, mode))
    real, imaginary = jnp.split(product("uH,cHv->cuv", rows_into, planes), 2, axis=1)
    turned = (
        real * spectrum.real - imaginary * spectrum.imag,
        real * spectrum.imag + imaginary * spectrum.real,
    )
    planes = product("Hu,cuv->cHv", rows_back, jnp.concatenate(turned, axis=1))
    planes = jnp.concatenate([planes[:, :height], planes[:, height:]], axis=2)
    back = np.concatenate([back.real, -back.imag], axis=1)
    return product("Wv,cHv->HWc", back, planes)


@cache
def _waves(
    inputs: int, size: int, margin: int, mode: Mode
) -> tuple[np.ndarray, np.ndarray]:
    """Return the Fourier transform of an axis extended by `margin`, and the way back.

    They are complex, `[size, inputs]` and, to the inside, `[inputs, size]`.
    """
    turns = np.outer(np.arange(size), np.arange(size)) % size
    transform = np.exp(-2j * np.pi / size * turns)
    extend = np.pad(np.eye(inputs), ((margin, margin), (0, 0)), mode)
    back = transform.conj()[margin : margin + inputs] / size
    return transform[:, : len(extend)] @ extend, back


def _as_real(matrix: np.ndarray) -> np.ndarray:
    """Return the matrix for real parts followed by imaginary ones."""
    return np.block([[matrix.real, -matrix.imag], [matrix.imag, matrix.real]])


def _padded(shape: tuple[int, ...], margin: int) -> tuple[int, int]:
    """Return how large images extended by `margin` have to be to be transformed fast."""
    height, width = shape[:2]
    return _fast(height + 2 * margin), _fast(width + 2 * margin)


def _wrapped(kernel: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Put an odd square kernel around the origin of a periodic grid."""
    grid = np.zeros(shape)
    size = len(kernel)
    grid[:size, :size] = kernel
    return np.roll(grid, (-(size // 2), -(size // 2)), (0, 1))


def _fast(size: int) -> int:
    """Return the next size without a prime factor over 5: those transform fast."""
    rest = size
    for factor in (2, 3, 5):
        while rest % factor == 0:
            rest //= factor
    return size if rest == 1 else _fast(size + 1)
