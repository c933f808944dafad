"""Mixes of the Fourier spectra of images, within a band of frequencies.

The label stays that of the image: what is mixed in is meant not to matter for it.
"""

import jax
import jax.numpy as jnp
import numpy as np

from rmjax.errors import InputError
from rmjax.mixing.samples import Mixed, draw_pairs, own_label


def mix_amplitudes(
    keys: jax.Array,
    h: jax.Array,
    *,
    beta: float,
    block: int,
    band: tuple[float, float],
) -> Mixed:
    """Mix the amplitudes of every image with another's; its phases stay.

    The means, where the band holds them, are mixed with their signs, as amplitudes of
    pixels from 0 on would be: an input that is scaled to [-1, 1] makes no difference.

    Args:
        keys: `[images]`.
        h: maps `[images, H, W, channels]`.
        beta: of the weights of the own and the other amplitudes.
        block: adjacent images that the others are chosen from.
        band: least and greatest frequency that is mixed, in cycles a pixel (0 is the
            mean, 0.5 the finest stripes, 0.71 the finest chequers).

    References:
        Xu et al., A Fourier-based Framework for Domain Generalization, CVPR 2021,
            https://arxiv.org/abs/2105.11120 (all frequencies)
        Yang and Soatto, Fourier Domain Adaptation, CVPR 2020,
            https://arxiv.org/abs/2004.05498 (low frequencies)
    """
    spectrum, other, weights = _spectra(keys, h, beta, block)
    own = jnp.abs(spectrum)
    mixed = weights[0] * own + weights[1] * jnp.abs(other)
    changed = mixed * _phases(spectrum)
    means = weights[0] * spectrum + weights[1] * other
    changed = jnp.where(_radius(h) == 0, means, changed)
    return _back(h, jnp.where(_within(band, h), changed, spectrum))


def mix_phases(
    keys: jax.Array,
    h: jax.Array,
    *,
    beta: float,
    block: int,
    band: tuple[float, float],
) -> Mixed:
    """Mix the phases of every image with another's; its amplitudes stay.

    The counterpart of `mix_amplitudes` for attribution. Where things are in an image,
    its content, is in the phases; how strong each frequency is, with the periodic
    traces of a generator's upsampling, is in the amplitudes. So this changes what an
    image shows and keeps what tells its source. Phases are mixed as unit phasors. The
    mean, which has no phase but a sign, stays. Our own. Arguments as for
    `mix_amplitudes`.

    Raises:
        InputError: the band holds no frequency of such maps but the mean.
    """
    spectrum, other, weights = _spectra(keys, h, beta, block)
    mixed = weights[0] * _phases(spectrum) + weights[1] * _phases(other)
    changed = jnp.abs(spectrum) * _phases(mixed)
    within = _within(band, h) & (_radius(h) > 0)
    if not within.any():
        raise InputError(
            f"mix.name = 'phase': mix.band = {tuple(band)} holds nothing but the mean of "
            f"maps of {h.shape[1]} x {h.shape[2]} places; give a wider band"
        )
    return _back(h, jnp.where(within, changed, spectrum))


def _spectra(
    keys: jax.Array, h: jax.Array, beta: float, block: int
) -> tuple[jax.Array, jax.Array, tuple[jax.Array, jax.Array]]:
    """Return each image's spectrum, its partner's, and the weights of both."""
    weights, places = draw_pairs(keys, 2, beta, block)
    spectrum = jnp.fft.rfft2(h.astype(jnp.float32), axes=(1, 2))
    own, other = weights.T[:, :, None, None, None]
    return spectrum, spectrum[places[:, 1]], (own, other)


def _phases(spectrum: jax.Array) -> jax.Array:
    """Return numbers of modulus 1; 1 where there is no phase."""
    size = jnp.abs(spectrum)
    return jnp.where(size > 0, spectrum / jnp.where(size > 0, size, 1), 1)


def _within(band: tuple[float, float], h: jax.Array) -> np.ndarray:
    """Return which frequencies of `rfft2` of `h` lie in the band, `[H, W // 2 + 1, 1]`."""
    radius = _radius(h)
    return (band[0] <= radius) & (radius <= band[1])


def _radius(h: jax.Array) -> np.ndarray:
    """Return the frequencies of `rfft2` of `h`, `[H, W // 2 + 1, 1]`."""
    rows = np.fft.fftfreq(h.shape[1])[:, None, None]
    columns = np.fft.rfftfreq(h.shape[2])[:, None]
    return np.sqrt(rows**2 + columns**2)


def _back(h: jax.Array, spectrum: jax.Array) -> Mixed:
    x = jnp.fft.irfft2(spectrum, h.shape[1:3], axes=(1, 2))
    return own_label(x.astype(h.dtype))
