"""Convolution by the cheapest lowering for its static shape and backend."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from rmjax.errors import InputError
from rmjax.models.norm import widen
from rmjax.models.winograd import convolve_tiles, convolve_winograd, transform_kernel
from rmjax.utils.choose import check_choice
from rmjax.utils.platform import target_platform

LOWERINGS = ("auto", "forward", "native", "patches", "winograd")
SMALL_MAP = 5  # output side up to which patches win
# The same of a strided convolution, where nobody asks for gradients.
STRIDED_MAP = 14
# Output side and channels from which Winograd's tiles pay, with and without gradients.
WINOGRAD_MAP, WINOGRAD_CHANNELS, FORWARD_CHANNELS = 7, 128, 64
PREPARED = "prepared"  # collection of transformed kernels

kaiming_normal = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


class Conv(nn.Module):
    """Square convolution `[batch, H, W, in] -> [batch, H', W', features]`.

    Parameter `kernel` `[size, size, in, features]`. Padding is torch's,
    `(size - 1) // 2` on every side: 'SAME' would pad strided convolutions on one side
    only.

    The lowering `winograd` takes its transformed kernel from the collection `prepared`
    where that is given, and leaves it there where that is mutable.

    Attributes:
        features: output channels.
        size: kernel size; an even one wants a stride, or maps shrink by a pixel.
        stride: step in both directions.
        lowering: how it is computed, see `convolve`.
        dtype: type of the computation; parameters are float32.
        kernel_init: initial values of the kernel, torchvision's by default.
    """

    features: int
    size: int
    stride: int = 1
    lowering: str = "auto"
    dtype: Any = jnp.float32
    kernel_init: nn.initializers.Initializer = kaiming_normal

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (self.size, self.size, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape).astype(self.dtype)
        x = x.astype(self.dtype)
        lowering = _resolve(self.lowering, x.shape, shape, self.stride)
        kept = self.is_mutable_collection(PREPARED) and not self.is_initializing()
        if lowering == "winograd" and (kept or self.has_variable(PREPARED, "kernel")):
            prepared = self.variable(PREPARED, "kernel", transform_kernel, kernel)
            return convolve_tiles(x, prepared.value)
        return convolve(x, kernel, stride=self.stride, lowering=lowering)


def convolve(
    x: jax.Array, kernel: jax.Array, *, stride: int = 1, lowering: str = "auto"
) -> jax.Array:
    """Convolve with symmetric zero padding of half the kernel's size, rounded down.

    Args:
        x: `[batch, H, W, in]`.
        kernel: `[size, size, in, out]`.
        stride: step in both directions.
        lowering: `native` (the backend's convolution), `patches` (one matrix product
            over gathered patches), `winograd` (3x3 with stride 1 alone), `auto` (the
            fastest of them with its gradients) or `forward` (the fastest without). They
            differ only in rounding.

    Raises:
        InputError: unknown lowering (the message lists the choices), or one that is
            not for this convolution.
    """
    lowering = _resolve(lowering, x.shape, kernel.shape, stride)
    if lowering == "winograd":
        return convolve_winograd(x, kernel)
    if lowering == "patches":
        patches = gather_patches(x, kernel.shape[0], stride)
        matrix = kernel.reshape(-1, kernel.shape[-1])
        # One axis of rows: over three, the gradient of the matrix is a product that
        # XLA first transposes the maps for.
        rows = patches.reshape(-1, len(matrix))
        out = jnp.matmul(rows, matrix, preferred_element_type=widen(x.dtype))
        return out.astype(x.dtype).reshape(*patches.shape[:-1], -1)
    return _native(x, kernel, stride)


def _resolve(
    lowering: str, x_shape: tuple[int, ...], kernel_shape: tuple[int, ...], stride: int
) -> str:
    """Return the lowering that a name stands for."""
    check_choice("convolution lowering", lowering, LOWERINGS)
    if lowering == "winograd" and (kernel_shape[0] != 3 or stride != 1):
        raise InputError(
            f"lowering 'winograd' is for 3x3 convolutions with stride 1, not "
            f"{kernel_shape[0]}x{kernel_shape[0]} with stride {stride}"
        )
    if lowering not in ("auto", "forward"):
        return lowering
    forward = lowering == "forward"
    return choose_lowering(
        x_shape, kernel_shape, stride, target_platform(), forward=forward
    )


def _native(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    pad = (kernel.shape[0] - 1) // 2
    if kernel.shape[0] == 1:
        # Otherwise the gradient is a convolution over maps that are mostly zeros.
        x, stride = x[:, ::stride, ::stride], 1
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(stride, stride),
        padding=((pad, pad), (pad, pad)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def choose_lowering(
    x_shape: tuple[int, ...],
    kernel_shape: tuple[int, ...],
    stride: int,
    backend: str,
    *,
    forward: bool = False,
) -> str:
    """Return the fastest lowering for static shapes on a backend.

    Args:
        x_shape: `[batch, H, W, in]`.
        kernel_shape: `[size, size, in, out]`.
        stride: step in both directions.
        backend: JAX's name of it.
        forward: without gradients.

    Thresholds were measured on CPU with jaxlib 0.10.2 as `rmjax.utils.cpu` sets it up: 1x1
    convolutions are matrix products; XLA's convolution is slow on maps of a few pixels;
    3x3 convolutions of 128 channels or more take a tenth to a third less time by
    Winograd's tiles. Forward alone, chunks of images stay in the caches, so that tiles
    pay from 64 channels on.
    """
    if backend != "cpu":
        return "native"
    side = max(x_shape[1:3]) // stride
    if kernel_shape[0] == 1 or side <= SMALL_MAP:
        return "patches"
    least = FORWARD_CHANNELS if forward else WINOGRAD_CHANNELS
    wide = side >= WINOGRAD_MAP and min(kernel_shape[2:]) >= least
    if wide and stride == 1 and kernel_shape[0] == 3:
        return "winograd"
    return "patches" if forward and stride > 1 and side <= STRIDED_MAP else "native"


def gather_patches(x: jax.Array, size: int, stride: int) -> jax.Array:
    """Gather the padded neighbourhood of each output pixel.

    Slices and one concatenation: `lax.conv_general_dilated_patches` is itself a
    convolution, and slow where this is needed.

    Args:
        x: `[batch, H, W, channels]`.
        size: side of the neighbourhood.
        stride: step in both directions.

    Returns:
        `[batch, H', W', size * size * channels]`, ordered as a flattened HWI kernel.
    """
    pad = (size - 1) // 2
    rows, cols = ((n + 2 * pad - size) // stride + 1 for n in x.shape[1:3])
    x = jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    taps = [
        x[
            :,
            i : i + (rows - 1) * stride + 1 : stride,
            j : j + (cols - 1) * stride + 1 : stride,
        ]
        for i in range(size)
        for j in range(size)
    ]
    return taps[0] if size == 1 else jnp.concatenate(taps, axis=-1)
