"""JPEG as a function of pixels: what a baseline encoder and its decoder leave.

References:
    ITU-T T.81 (quantisation tables of annex K); the scaling of the tables by quality,
    the alternating rounding of the chroma averages and the smooth chroma upsampling
    are those of the Independent JPEG Group's library, which Pillow uses.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from rmjax.corruptions.linear import Matrix, dense
from rmjax.corruptions.primitives import round_half_up, round_through
from rmjax.inputs import dct_matrix
from rmjax.utils.platform import target_platform

LUMINANCE = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ]
)
CHROMINANCE = np.full((8, 8), 99)
CHROMINANCE[:4, :4] = [
    [17, 18, 24, 47],
    [18, 21, 26, 66],
    [24, 26, 56, 99],
    [47, 66, 99, 99],
]

# ITU-R BT.601, full range: rows give Y, Cb and Cr.
TO_YCBCR = np.array(
    [
        [0.299, 0.587, 0.114],
        [-0.168735892, -0.331264108, 0.5],
        [0.5, -0.418687589, -0.081312411],
    ]
)
# What Cb and Cr add to red, green and blue.
FROM_CBCR = np.array([[0, 1.402], [-0.344136286, -0.714136286], [1.772, 0]])


def jpeg(image: jax.Array, quality: jax.Array) -> jax.Array:
    """Compress and decompress with chroma halved both ways (4:2:0).

    Gradients pass through all rounding as if it were not there.

    Args:
        image: `[H, W, 3]` in [0, 1], any size; rounded to 8 bits first.
        quality: 1..100, may be traced.

    Returns:
        `[H, W, 3]` in [0, 1], multiples of 1/255.
    """
    height, width = image.shape[:2]
    pixels = round_through(image * 255)
    edge = ((0, -height % 16), (0, -width % 16), (0, 0))
    pixels = jnp.pad(pixels, edge, mode="edge")
    planes = jnp.einsum("kc,hwc->khw", TO_YCBCR, pixels, precision="highest")
    planes = round_half_up(planes)
    # Luma is in 0..255, chroma around 0.
    luma = _code(planes[:1] - 128, LUMINANCE, quality) + 128
    chroma = _code(_halve(planes[1:]), CHROMINANCE, quality)
    # The decoder knows the image's size and repeats its last chroma row and column.
    chroma = chroma[:, : -(-height // 2), : -(-width // 2)]
    # To colours before it is doubled, not after: both are linear, this is less work.
    colour = jnp.einsum("ck,khw->chw", FROM_CBCR, chroma, precision="highest")
    colour = _double(colour)
    pixels = luma[:, :height, :width] + colour[:, :height, :width]
    return jnp.clip(round_half_up(pixels), 0, 255).transpose(1, 2, 0) / 255


def _code(planes: jax.Array, table: np.ndarray, quality: jax.Array) -> jax.Array:
    """Quantise the DCT of the 8x8 blocks of `[planes, 8 a, 8 b]` in -128..127."""
    scale = jnp.where(quality < 50, jnp.floor(5000 / quality), 200 - 2 * quality)
    steps = jnp.clip(jnp.floor((table.reshape(-1) * scale + 50) / 100), 1, 255)
    code = _code_blocks if target_platform() == "cpu" else _code_planes
    return code(planes, steps)


def _code_blocks(planes: jax.Array, steps: jax.Array) -> jax.Array:
    """Quantise block by block, each in one product with a matrix `[64, 64]`."""
    count, height, width = planes.shape
    blocks = planes.reshape(count, height // 8, 8, width // 8, 8).swapaxes(2, 3)
    dct = jnp.asarray(np.kron(dct_matrix(8), dct_matrix(8)).astype(np.float32))
    spectrum = jnp.matmul(blocks.reshape(-1, 64), dct.T, precision="highest")
    spectrum = _quantise(spectrum, steps)
    coded = _clip(jnp.matmul(spectrum, dct, precision="highest"))
    return coded.reshape(blocks.shape).swapaxes(2, 3).reshape(planes.shape)


def _code_planes(planes: jax.Array, steps: jax.Array) -> jax.Array:
    """Do the same to whole planes: cutting them costs an accelerator more than zeros."""
    rows, columns = (
        np.kron(np.eye(size // 8), dct_matrix(8)).astype(np.float32)
        for size in planes.shape[1:]
    )
    steps = jnp.tile(steps.reshape(8, 8), (len(rows) // 8, len(columns) // 8))
    spectrum = _apply_both(rows, planes, columns.T)
    return _clip(_apply_both(rows.T, _quantise(spectrum, steps), columns))


def _apply_both(rows: Matrix, planes: jax.Array, columns: Matrix) -> jax.Array:
    """Return rows @ plane @ columns of all planes `[planes, H, W]`."""
    planes = jnp.einsum("hH,pHW->phW", rows, planes, precision="highest")
    return jnp.einsum("phW,Ww->phw", planes, columns, precision="highest")


def _quantise(spectrum: jax.Array, steps: jax.Array) -> jax.Array:
    """Round to multiples of steps, halves away from 0."""
    size = round_half_up(jnp.abs(spectrum) / steps)
    return jnp.where(spectrum < 0, -size, size) * steps


def _clip(coded: jax.Array) -> jax.Array:
    return jnp.clip(round_half_up(coded), -128, 127)


def _halve(chroma: jax.Array) -> jax.Array:
    """Average 2x2 pixels; halves go down and up in alternate columns."""
    count, height, width = chroma.shape
    if target_platform() == "cpu":
        pairs = chroma.reshape(count, height // 2, 2 * width)
        total = pairs[..., :width] + pairs[..., width:]
        total = total[..., ::2] + total[..., 1::2]
    else:
        rows, columns = (np.kron(np.eye(n // 2), [[1], [1]]) for n in (height, width))
        total = _apply_both(rows.T, chroma, columns)
    return jnp.floor((total + 1 + jnp.arange(width // 2) % 2) / 4)


def _double(planes: jax.Array) -> jax.Array:
    """Double both axes: every sample three quarters of the nearer, one of the other."""
    if target_platform() != "cpu":
        rows, columns = map(_doubling, planes.shape[1:])
        return _apply_both(rows, planes, columns.T)
    # A loop over the planes, lest the compiler double columns anew for every row.
    return _double_axis(jax.lax.map(partial(_double_axis, axis=1), planes), axis=1)


def _doubling(size: int) -> jax.Array:
    places = np.stack(_neighbours(size), axis=1)
    return dense(places, np.broadcast_to([0.75, 0.25], places.shape), size)


def _double_axis(planes: jax.Array, axis: int) -> jax.Array:
    near, far = _neighbours(planes.shape[axis])
    nearer, other = (jnp.take(planes, i, axis, mode="clip") for i in (near, far))
    return 0.75 * nearer + 0.25 * other


def _neighbours(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the samples nearer to each of twice as many, and those on the other side."""
    at = np.arange(2 * size)
    near = at // 2
    return near, np.clip(near + np.where(at % 2, 1, -1), 0, size - 1)
