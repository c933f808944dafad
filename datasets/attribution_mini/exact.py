"""Random numbers and filters that give the same bits on every machine.

Pixels must not depend on the processor, so everything here is made of operations
that IEEE 754 defines to the last bit (elementwise float32 add, subtract, multiply,
divide, square root, comparison), of integer arithmetic, and of the raw bits of a
counter-based generator. What is left out on purpose: matrix products and reductions
(their order of summation depends on the vector width) and NumPy's exp, log, sin and
power (their last bit depends on the instruction set).

Images are stacks of planes, `[channels, batch, height, width]` float32, so that one
operation covers a whole batch and the innermost loop stays contiguous.
"""

import numpy as np

Array = np.ndarray

# 1/sqrt of the variance of a sum of four independent uniform bytes, 4 * (256^2-1)/12
_BYTE_SUM_SCALE = np.float32(1.0 / 147.79)


class Draws:
    """Draw random arrays from the stream that a 128-bit key names.

    NumPy promises the raw output of `Philox` for all time; its distributions carry no
    such promise, so the bits are turned into numbers here.
    """

    def __init__(self, key: tuple[int, int], batch: int = 1):
        self._bits = np.random.Philox(key=np.array(key, np.uint64))
        self.batch = batch

    def uniform(self, low: float = 0.0, high: float = 1.0, shape=None) -> Array:
        """Draw float32 in [low, high), by default one number an image, `[batch, 1, 1]`."""
        shape = (self.batch, 1, 1) if shape is None else shape
        raw = self._bits.random_raw(int(np.prod(shape))) >> np.uint64(40)
        unit = raw.astype(np.float32) * np.float32(2.0**-24)
        return (np.float32(low) + np.float32(high - low) * unit).reshape(shape)

    def chance(self, probability: float) -> Array:
        """Draw 1.0 with this probability and 0.0 otherwise, `[batch, 1, 1]`."""
        return (self.uniform() < np.float32(probability)).astype(np.float32)

    def noise(self, shape: tuple[int, ...]) -> Array:
        """Draw nearly normal float32 (four bytes summed): mean 0, deviation 1."""
        count = int(np.prod(shape))
        raw = self._bits.random_raw(2 * (-(-count // 4)))
        pairs = (raw & np.uint64(0x00FF00FF00FF00FF)) + (
            (raw >> np.uint64(8)) & np.uint64(0x00FF00FF00FF00FF)
        )
        half = len(pairs) // 2
        # every 16-bit lane stays below 2^16, so lanes do not carry into each other
        sums = (pairs[:half] + pairs[half:]).astype("<u8").view("<u2")[:count]
        return (
            (sums.astype(np.float32) - np.float32(510.0)) * _BYTE_SUM_SCALE
        ).reshape(shape)


def sine(turns: Array) -> Array:
    """Return sin(2 pi turns) to about 1e-3, by a fixed polynomial of the phase."""
    phase = turns - np.rint(turns)
    parabola = phase * (np.float32(8.0) - np.float32(16.0) * np.abs(phase))
    return parabola * (np.float32(0.775) + np.float32(0.225) * np.abs(parabola))


def wave(turns: Array) -> Array:
    """Return a triangle wave of period 1 in [0, 1], 0 at whole turns."""
    return np.float32(2.0) * np.abs(turns - np.rint(turns))


def clip01(x: Array) -> Array:
    """Clip to [0, 1]."""
    return np.minimum(np.maximum(x, np.float32(0.0)), np.float32(1.0))


def pad(x: Array, radius: int, wrap: bool = False) -> Array:
    """Extend the last two axes by `radius`: edge pixels repeated, or wrapped round."""
    height, width = x.shape[-2:]
    out = np.empty((*x.shape[:-2], height + 2 * radius, width + 2 * radius), np.float32)
    inner = slice(radius, -radius)
    out[..., inner, inner] = x
    last = slice(-radius, None)
    if wrap:
        out[..., inner, :radius] = x[..., :, last]
        out[..., inner, last] = x[..., :, :radius]
        out[..., :radius, :] = out[..., height : height + radius, :]
        out[..., last, :] = out[..., radius : 2 * radius, :]
    else:
        out[..., inner, :radius] = x[..., :, :1]
        out[..., inner, last] = x[..., :, -1:]
        out[..., :radius, :] = out[..., radius : radius + 1, :]
        out[..., last, :] = out[..., -radius - 1 : -radius, :]
    return out


def blur(x: Array, step: int = 1, wrap: bool = False) -> Array:
    """Smooth with the taps 1-2-1, `step` pixels apart, along both axes."""
    padded = pad(x, step, wrap)
    rows = padded[..., step:-step, :] * np.float32(0.5)
    rows += np.float32(0.25) * (
        padded[..., : -2 * step, :] + padded[..., 2 * step :, :]
    )
    out = rows[..., step:-step] * np.float32(0.5)
    out += np.float32(0.25) * (rows[..., : -2 * step] + rows[..., 2 * step :])
    return out


def halve(x: Array) -> Array:
    """Average blocks of 2x2 pixels."""
    rows = x[..., 0::2, :] + x[..., 1::2, :]
    return np.float32(0.25) * (rows[..., 0::2] + rows[..., 1::2])


def convolve(x: Array, kernels: Array) -> Array:
    """Correlate planes with small kernels, edges repeated.

    Args:
        x: `[in, batch, height, width]`.
        kernels: `[out, in, k, k]`, k odd. Taps of weight zero cost nothing.

    Returns:
        `[out, batch, height, width]`.
    """
    outputs, inputs, size, _ = kernels.shape
    height, width = x.shape[-2:]
    padded = pad(x, size // 2)
    out = np.zeros((outputs, *x.shape[1:]), np.float32)
    part = np.empty(x.shape[1:], np.float32)
    for i in range(inputs):
        for dy in range(size):
            for dx in range(size):
                window = padded[i, :, dy : dy + height, dx : dx + width]
                for o in range(outputs):
                    if kernels[o, i, dy, dx]:
                        np.multiply(window, kernels[o, i, dy, dx], out=part)
                        out[o] += part
    return out


def interleave(parts: list[Array]) -> Array:
    """Weave four half-size stacks into one: pixel (2i+p, 2j+q) from `parts[2p+q]`."""
    *lead, height, width = parts[0].shape
    out = np.empty((*lead, 2 * height, 2 * width), np.float32)
    for index, part in enumerate(parts):
        out[..., index // 2 :: 2, index % 2 :: 2] = part
    return out


def texture(
    draws: Draws, planes: int, size: int, decay: Array, levels: int = 5
) -> Array:
    """Draw stationary noise with a spectrum like 1/f, or as steep as `decay` says.

    White noise is split into octaves by repeated smoothing; each octave is amplified to
    equal deviation and then by `decay`^octave (`[batch, 1, 1]`; 1 is like 1/f, less is
    finer, more is coarser).

    Returns:
        `[planes, batch, size, size]`, mean 0, deviation near 1.
    """
    field = draws.noise((planes, draws.batch, size, size))
    out = np.zeros_like(field)
    gain = np.full_like(decay, 0.55)
    for level in range(levels):
        smooth = blur(field, 1 << level, wrap=True)
        out += gain * (field - smooth)
        field = smooth
        gain = gain * (np.float32(2.0) * decay)
    return out + gain * field
