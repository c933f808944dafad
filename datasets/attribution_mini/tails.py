"""Seven simulated generator tails and a camera: what leaves the fingerprint.

Each source turns a scene into an image as the last layers of its architecture would:
content and noise are brought from a quarter of the resolution to a half and then to the
whole, by that architecture's way of enlarging, with small convolutions whose weights
are fixed for the source. The weights stand for one trained network; they do not depend
on the data set's seed. Each image varies the strength of the branches, as style
modulation does. All random kernels sum to zero, so that content at low frequencies, and
with it a thumbnail, passes every tail unchanged.

References:
  ProGAN: Karras et al., 2018. DCGAN: Radford et al., 2016. StyleGAN: Karras et al.,
  2019. StyleGAN3: Karras et al., 2021. Sub-pixel convolution: Shi et al., 2016. BigGAN:
  Brock et al., 2019. CIPS: Anokhin et al., 2021. Checkerboards: Odena et al., 2016.
  Demosaicing traces: Popescu and Farid, 2005.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from rmjax.datasets.attribution_mini import exact
from rmjax.datasets.attribution_mini.exact import Array, Draws

HIDDEN = 2  # features of the non-linear branch
NOISES = 2  # noise channels
WAVES = 24  # Fourier features of the coordinate network
_WEIGHT_KEY = 0x524D4A4158  # any constant: names the weights of this version

# Interpolator to a quarter of a pixel beside the centre: sinc in a Kaiser window (beta
# 5.65, reach 3.25), tabulated so that no transcendental function of the machine's is
# involved. The second is the linear one.
_KAISER = (-0.0014, 0.0247, -0.1216, 0.8866, 0.2614, -0.0579, 0.0083)
_LINEAR = (0.0, 0.75, 0.25)


@dataclass(frozen=True)
class Weights:
    """Fixed weights of one stage of one source; every 3x3 kernel sums to zero.

    Attributes:
        hidden: `[HIDDEN, 1, 3, 3]`, from luminance to hidden features.
        back: `[3, HIDDEN + NOISES, 3, 3]`, from hidden features and noise to colour.
        phase: `[4, 3, HIDDEN + NOISES, 3, 3]`, the same for each of the four pixels that
            a coarse pixel becomes.
        flicker: `[4, 3]`, relative brightness of the four pixels, mean 0.
        waves: `[WAVES, 3]`, frequencies in cycles a pixel (x, y) and phase in turns.
        tint: `[3, WAVES]`, colours of the waves.
    """

    hidden: Array
    back: Array
    phase: Array
    flicker: Array
    waves: Array
    tint: Array


@dataclass(frozen=True)
class Style:
    """How strongly one image shows each branch, `[batch, 1, 1]` each.

    `noise` is a map `[batch, height, width]` at the size that the stage starts from.
    """

    branch: Array
    noise: Array


@cache
def weights(source: str, stage: int) -> Weights:
    """Draw the fixed weights of a source's stage (0: to half size, 1: to full size)."""
    draws = Draws((_WEIGHT_KEY, 16 * SOURCES.index(source) + stage))
    flicker = draws.noise((4, 3))
    flicker -= np.float32(0.25) * (flicker[0] + flicker[1] + flicker[2] + flicker[3])
    mixed = HIDDEN + NOISES
    return Weights(
        hidden=_zero_sum(draws.noise((HIDDEN, 1, 3, 3))),
        back=_zero_sum(draws.noise((3, mixed, 3, 3))),
        phase=_zero_sum(draws.noise((4, 3, mixed, 3, 3))),
        flicker=flicker,
        waves=draws.uniform(-0.5, 0.5, (WAVES, 3)),
        tint=draws.noise((3, WAVES)),
    )


def _zero_sum(kernels: Array) -> Array:
    """Shift kernels `[..., 3, 3]` to sum zero and scale them to a noise gain near 1."""
    total = np.zeros(kernels.shape[:-2], np.float32)
    for dy in range(3):
        for dx in range(3):
            total = total + kernels[..., dy, dx]
    return (kernels - total[..., None, None] / np.float32(9.0)) / np.float32(3.0)


def _luma(x: Array) -> Array:
    return np.float32(0.25) * (x[0] + x[2]) + np.float32(0.5) * x[1]


def _nearest(x: Array) -> Array:
    return exact.interleave([x, x, x, x])


def _filtered(x: Array, taps: tuple[float, ...], axis: int) -> Array:
    """Correlate along axis -1 or -2, which was padded by half the taps."""
    length = x.shape[axis] - len(taps) + 1
    out: Array = np.zeros((), np.float32)
    for index, tap in enumerate(taps):
        if tap:
            window = slice(index, index + length)
            view = x[..., window] if axis == -1 else x[..., window, :]
            out = out + view * np.float32(tap)
    return out


def _enlarge(x: Array, taps: tuple[float, ...]) -> Array:
    """Double the size with a separable interpolator (`taps`: for the odd phase)."""
    padded = exact.pad(x, len(taps) // 2)
    parts = []
    for rows in (taps[::-1], taps):
        tall = _filtered(padded, rows, -2)
        parts += [_filtered(tall, columns, -1) for columns in (taps[::-1], taps)]
    return exact.interleave(parts)


def _features(x: Array, w: Weights, style: Style, draws: Draws) -> Array:
    """Stack hidden features (convolution, leaky ReLU) and noise at the size of x."""
    hidden = exact.convolve(_luma(x)[None], w.hidden)
    hidden = np.maximum(hidden, np.float32(0.2) * hidden) * style.branch
    return np.concatenate([hidden, draws.noise((NOISES, *x.shape[1:])) * style.noise])


def progan(x: Array, w: Weights, style: Style, draws: Draws) -> Array:
    """Nearest enlargement of everything, then 3x3 convolutions."""
    big = _nearest(_features(x, w, style, draws))
    return exact.blur(_nearest(x)) + exact.convolve(big, w.back)


def dcgan(x: Array, w: Weights, style: Style, draws: Draws) -> Array:
    """Transposed 4x4 convolution of stride 2: each phase has its own 2x2 taps."""
    features = _features(x, w, style, draws)
    parts = []
    for index in range(4):
        corner = np.zeros((3, 3), np.float32)
        corner[index // 2 : index // 2 + 2, index % 2 : index % 2 + 2] = 1
        parts.append(exact.convolve(features, w.phase[index] * corner))
        flicker = w.flicker[index][:, None, None, None] * style.branch
        parts[-1] += x * flicker * np.float32(0.04)
    return _enlarge(x, _LINEAR) + exact.interleave(parts)


def stylegan(x: Array, w: Weights, style: Style, draws: Draws) -> Array:
    """Bilinear enlargement (zeros, then 1-3-3-1), noise at full size, convolution."""
    big = _enlarge(x, _LINEAR)
    wide = Style(style.branch, _nearest(style.noise))
    return big + exact.convolve(_features(big, w, wide, draws), w.back)


def stylegan3(x: Array, w: Weights, style: Style, draws: Draws) -> Array:
    """Convolutions at the small size, then a long windowed-sinc interpolator."""
    features = _features(x, w, style, draws)
    return _enlarge(x + exact.convolve(features, w.back), _KAISER)


def pixelshuffle(x: Array, w: Weights, style: Style, draws: Draws) -> Array:
    """Sub-pixel convolution: four 3x3 kernel sets, one for each of the four pixels."""
    features = _features(x, w, style, draws)
    parts = [exact.convolve(features, w.phase[index]) for index in range(4)]
    return _enlarge(x, _LINEAR) + exact.interleave(parts)


def biggan(x: Array, w: Weights, style: Style, draws: Draws) -> Array:
    """Residual block: a nearest skip plus an enlarged convolution branch."""
    big = _nearest(_features(x, w, style, draws))
    skip = _nearest(x)
    skip = skip + np.float32(0.8) * (exact.blur(skip) - skip)  # the convolution to RGB
    return skip + exact.convolve(big, w.back)


Stage = Callable[[Array, Weights, Style, Draws], Array]
UPSAMPLERS: dict[str, Stage] = {
    "progan": progan,
    "dcgan": dcgan,
    "stylegan": stylegan,
    "stylegan3": stylegan3,
    "pixelshuffle": pixelshuffle,
    "biggan": biggan,
}
SOURCES = ("real", *UPSAMPLERS, "cips")

_NOISE = (0.007, 0.022)  # deviation of the sensor's noise, drawn for each image

_COARSE = 1.5  # strength of the noise of the first stage, relative to the second

# Strength of the noise of each source, so that the deviation of the high-pass residual
# is the same on average as that of `real` (measured: README.md).
_NOISE_GAIN = {
    "progan": 0.85,
    "dcgan": 0.7,
    "stylegan": 1.0,
    "stylegan3": 0.9,
    "pixelshuffle": 0.9,
    "biggan": 0.65,
    "cips": 1.15,
}


def _sensor(luma: Array, level: Array) -> Array:
    """Return the deviation of a sensor's noise: shot noise over a floor."""
    return level * np.sqrt(luma + np.float32(0.08))


def _upsampled(source: str, scene: Array, draws: Draws) -> Array:
    half = exact.halve(scene)
    quarter = exact.halve(half)
    level = draws.uniform(*_NOISE) * np.float32(_NOISE_GAIN[source])
    stage, branch = UPSAMPLERS[source], draws.uniform(0.12, 0.45)
    style = Style(branch, _sensor(_luma(quarter), np.float32(_COARSE) * level))
    coarse = stage(quarter, weights(source, 0), style, draws)
    x = half + coarse - _enlarge(quarter, _LINEAR)
    x = x + draws.uniform(0.2, 0.9) * (x - exact.blur(x))
    style = Style(branch, _sensor(_luma(half), level))
    return stage(x, weights(source, 1), style, draws)


@cache
def _wave_planes(size: int) -> Array:
    """Tabulate the coordinate network's Fourier features, `[WAVES, size, size]`."""
    fx, fy, phase = (c[:, None, None] for c in weights("cips", 1).waves.T)
    axis = np.arange(size, dtype=np.float32)
    return exact.sine(fx * axis[None, None, :] + fy * axis[None, :, None] + phase)


def _coordinates(scene: Array, draws: Draws) -> Array:
    """Render every pixel from its coordinates: no convolution, no enlargement."""
    w, size = weights("cips", 1), scene.shape[-1]
    smooth = exact.blur(scene)
    x = smooth + draws.uniform(-0.4, 0.4) * (scene - smooth)
    level = draws.uniform(*_NOISE) * np.float32(_NOISE_GAIN["cips"])
    gains = draws.noise((WAVES, draws.batch, 1, 1)) * np.float32(0.3)
    waves = np.zeros_like(x)
    for k, plane in enumerate(_wave_planes(size)):
        feature = plane * gains[k]
        for c in range(3):
            waves[c] += feature * w.tint[c, k]
    return x + waves * _sensor(_luma(smooth), level)


def _camera(scene: Array, draws: Draws) -> Array:
    """Photograph a scene: lens blur, sensor noise, colour filter array, sharpening."""
    smooth = exact.blur(scene)
    x = smooth + draws.uniform(-0.3, 0.9) * (scene - smooth)
    level = draws.uniform(*_NOISE)
    x = x + draws.noise(x.shape) * _sensor(_luma(smooth), level)
    x = x + draws.uniform(0.0, 1.0) * (_demosaiced(x, draws) - x)
    return x + draws.uniform(0.0, 0.5) * (x - exact.blur(x))


def _demosaiced(x: Array, draws: Draws) -> Array:
    """Sample through a Bayer pattern of random phase and interpolate linearly."""
    size = x.shape[-1]
    odd = np.arange(size) % 2
    shift_x, shift_y = draws.chance(0.5), draws.chance(0.5)
    column = np.abs(odd[None, None, :] - shift_x).astype(np.float32)
    row = np.abs(odd[None, :, None] - shift_y).astype(np.float32)
    red, blue = row * column, (1 - row) * (1 - column)
    green = 1 - red - blue
    seen = np.stack([red, green, blue])
    return exact.blur(x * seen) / exact.blur(seen)


def apply_tail(source: str, scene: Array, draws: Draws) -> Array:
    """Turn scenes into images of one source.

    Args:
        source: one of `SOURCES`.
        scene: `[3, batch, size, size]` in [0, 1]; size a multiple of 4.
        draws: random numbers of the same batch.

    Returns:
        Images `[3, batch, size, size]`, not yet clipped.
    """
    if source == "real":
        image = _camera(scene, draws)
    elif source == "cips":
        image = _coordinates(scene, draws)
    else:
        image = _upsampled(source, scene, draws)
    return _published(image, draws)


def _published(image: Array, draws: Draws) -> Array:
    """Soften or sharpen at random and add grain, whatever the source."""
    image = image + draws.uniform(-0.3, 0.3) * (image - exact.blur(image))
    return image + draws.noise(image.shape) * draws.uniform(0.0, 0.008)
