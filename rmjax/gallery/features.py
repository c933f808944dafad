"""Features that `rmjax gallery benchmark` compares, and how they are made comparable.

An extractor's fingerprint stands beside what the same network makes without training,
and beside features that need no network at all.

References:
    Bartlett, Periodogram Analysis and Continuous Spectra, Biometrika 1950 (a spectrum
    of one image is noisy at any size; its mean over tiles is not, `logdct`)
    Marra et al., Do GANs Leave Artificial Fingerprints?, MIPR 2019,
    https://arxiv.org/abs/1812.11842 (correlation of residuals, `prnu`)
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.preprocessing import normalize

from rmjax import inputs
from rmjax.data.images import centre
from rmjax.errors import InputError
from rmjax.experiment.build import build_input
from rmjax.gallery.evaluate import draw_variables
from rmjax.inference.attributor import Attributor, equal_shapes
from rmjax.models.tiles import cut

TILE = 32  # px, of a spectrum
BATCH = 32  # images transformed at once; bounds the memory

# Function of images, uint8 `[H, W, 3]` each, of any shapes, to features `[N, D]`.
Extract = Callable[[Sequence[np.ndarray]], np.ndarray]


def cosine(features: np.ndarray) -> np.ndarray:
    """Return features `[N, D]` at length one, float32; zeros stay zeros.

    Raises:
        InputError: a number is not finite.
    """
    features = np.asarray(features, np.float32)
    if not np.isfinite(features).all():
        raise InputError("a feature of an image is not finite: is the network damaged?")
    return normalize(features)


def standardised(features: np.ndarray) -> np.ndarray:
    """Return features with mean 0 and deviation 1 over these images, at length one.

    Coordinate by coordinate, over all images that went through one condition, without
    their labels. No single image could be treated so: it favours features that never
    saw a training image, and cancels what a condition does to all images alike.
    """
    features = np.asarray(features, np.float64)
    deviation = features.std(0)
    steady = deviation <= 1e-6 * np.abs(features).max(0, initial=0)  # rounding alone
    scaled = (features - features.mean(0)) / np.where(steady, np.inf, deviation)
    return cosine(scaled)


def correlation(features: np.ndarray) -> np.ndarray:
    """Return features less their own mean, at length one: products are correlations."""
    return cosine(features - features.mean(1, keepdims=True))


SPACES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "cosine": cosine,
    "standardised": standardised,
    "correlation": correlation,
}


def _network(model: Attributor, side: int, seed: int) -> Extract:
    return model.embed


def _untrained(model: Attributor, side: int, seed: int) -> Extract:
    return replace(model, variables=draw_variables(model, seed), _steps={}).embed


def _input(model: Attributor, side: int, seed: int) -> Extract:
    """Take mean and deviation over places of each channel of the network's input."""
    transform = build_input(model.config)

    def pool(images: jax.Array) -> jax.Array:
        x = transform(inputs.to_unit(images))
        return jnp.concatenate([jnp.mean(x, (1, 2)), jnp.std(x, (1, 2))], axis=-1)

    step = jax.jit(pool)
    return lambda pixels: _in_batches(step, [model.read(image) for image in pixels])


def _logdct(model: Attributor, side: int, seed: int) -> Extract:
    """Average `inputs.logdct` over tiles of the image's middle, `3 TILE^2` numbers."""

    def spectrum(images: jax.Array) -> jax.Array:
        tiles = cut(inputs.to_unit(images), TILE)
        spectra = inputs.logdct(tiles.reshape(-1, TILE, TILE, 3))
        return jnp.mean(spectra.reshape(len(images), -1, 3 * TILE**2), axis=1)

    step = jax.jit(spectrum)
    return lambda pixels: _in_batches(step, [centre(image, side) for image in pixels])


def _prnu(model: Attributor, side: int, seed: int) -> Extract:
    """Take `inputs.wiener` of the image's middle, `3 side^2` numbers."""

    def noise(images: jax.Array) -> jax.Array:
        return inputs.wiener(inputs.to_unit(images)).reshape(len(images), -1)

    step = jax.jit(noise)
    return lambda pixels: _in_batches(step, [centre(image, side) for image in pixels])


@dataclass(frozen=True)
class Feature:
    """A feature of images.

    Attributes:
        make: `(model, side, seed) -> Extract`, where `side` is that of a square in px
            that every image holds, and `seed` of random parameters.
        spaces: keys of `SPACES` in which it is compared.
    """

    make: Callable[[Attributor, int, int], Extract]
    spaces: tuple[str, ...] = ("standardised",)


FEATURES = {
    "network": Feature(_network, ("cosine", "standardised")),
    "untrained": Feature(_untrained),
    "input": Feature(_input),
    "logdct": Feature(_logdct),
    "prnu": Feature(_prnu, ("correlation",)),
}


def _in_batches(
    step: Callable[[np.ndarray], jax.Array], pixels: Sequence[np.ndarray]
) -> np.ndarray:
    """Return `[N, D]` of images `[B, H, W, 3] -> [B, D]`, compiled once a shape."""
    features: list[np.ndarray] = [np.empty(0)] * len(pixels)
    for rows in equal_shapes(pixels, BATCH):
        # Rows that come again fill up the last batch, and are not looked at.
        made = step(np.stack([pixels[row] for row in np.resize(rows, BATCH)]))
        for row, values in zip(rows, np.asarray(made), strict=False):
            features[row] = values
    return np.stack(features)
