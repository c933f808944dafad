"""Residual spectra: what a source leaves in the fine detail of its images.

Zhang, Karaman, Chang, Detecting and Simulating Artifacts in GAN Fake Images, WIFS 2019,
https://arxiv.org/abs/1907.06515. `rmjax evaluate` stores the mean spectrum of each source
with the run.
"""

import base64
import io
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from rmjax.errors import InputError
from rmjax.inputs import highpass, to_unit
from rmjax.utils.files import write_json
from rmjax.utils.places import reason

SPECTRA_FILE = "spectra.json"
# Images of a source whose spectra are averaged: more change what is seen little.
IMAGES = 44
_VERSION = 1
_MOST = 64  # pixels a side of the windows
_STEP = 16  # their side is a multiple of it: few programs, whatever the images' sizes
_PLACES = 4  # windows of an image down, and across
# What is black and what is white in a picture, in decibels.
_BLACK, _WHITE = -10.0, 20.0


@jax.jit
def mean_power(images: jax.Array) -> jax.Array:
    """Return the mean power spectrum of the fine residuals of images.

    Of the grey mean of `rmjax.inputs.highpass`, under a Hann window.

    Args:
        images: uint8 `[N, side, side, 3]`.

    Returns:
        float32 `[side, side]`, the frequencies in the order of `numpy.fft.fftfreq`.
    """
    residual = highpass(to_unit(images)).mean(-1)
    window = np.hanning(residual.shape[1])
    spectrum = jnp.fft.fft2(residual * np.outer(window, window))
    return jnp.mean(jnp.abs(spectrum) ** 2, axis=0)


def levels(power: np.ndarray) -> np.ndarray:
    """Return powers in decibels, less their median: content decides the median."""
    # Without the least of it, an image of one colour would have no logarithm.
    decibels = 10 * np.log10(np.asarray(power, np.float64) + 1e-9)
    return decibels - np.median(decibels)


def radial_profile(power: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Average a power spectrum over rings of the same frequency, whatever the direction.

    Args:
        power: `[side, side]`, as of `mean_power`.

    Returns:
        Frequencies in cycles per pixel, 1 / side apart, from 1 / side to that of the
        diagonal, 0.7; and the mean power of each.
    """
    side = len(power)
    frequency = np.fft.fftfreq(side)
    ring = np.rint(side * np.hypot(frequency[:, None], frequency)).astype(int).ravel()
    mean = np.bincount(ring, np.ravel(power)) / np.bincount(ring)
    return np.arange(1, len(mean)) / side, mean[1:]


def window_side(side: int) -> int:
    """Return the side of the windows for images whose shorter side is `side` pixels."""
    return min(max(side // _STEP * _STEP, _STEP), _MOST)


def image_power(image: np.ndarray, side: int) -> np.ndarray:
    """Return the mean power spectrum of windows spread evenly over an image.

    Args:
        image: uint8 `[H, W, 3]`; windows of a small one overlap.
        side: of the windows, in pixels, at most H and W.

    Returns:
        float32 `[side, side]`.
    """
    tops, lefts = (
        np.linspace(0, n - side, _PLACES).astype(int) for n in image.shape[:2]
    )
    windows = [image[i : i + side, j : j + side] for i in tops for j in lefts]
    return np.asarray(mean_power(np.stack(windows)))


def describe_spectrum(power: np.ndarray) -> dict[str, Any]:
    """Return a power spectrum as JSON holds it.

    Returns:
        `frequencies`; `levels`, the radial profile in decibels less its median; and
        `picture`, the spectrum as a PNG in a `data:` address, the lowest frequency in
        its middle.
    """
    frequencies, profile = radial_profile(power)
    grey = (np.fft.fftshift(levels(power)) - _BLACK) / (_WHITE - _BLACK)
    file = io.BytesIO()
    pixels = np.rint(255 * np.clip(grey, 0, 1)).astype(np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    encoded = base64.b64encode(file.getvalue()).decode()
    return {
        "frequencies": [round(float(f), 6) for f in frequencies],
        "levels": [round(float(level), 2) for level in levels(profile)],
        "picture": f"data:image/png;base64,{encoded}",
    }


def save_spectra(workdir: Path, spectra: dict[str, Any]) -> None:
    """Store the mean spectra of sources with a run.

    Args:
        workdir: of the run.
        spectra: `side` of the windows; `sources`, by name what `describe_spectrum`
            says, and the number of `images`.

    Raises:
        InputError: the file can't be written.
    """
    path = workdir / SPECTRA_FILE
    try:
        write_json(path, {"schema_version": _VERSION, **spectra})
    except OSError as error:
        raise InputError(f"can't write {path}: {reason(error)}") from error


def load_spectra(workdir: Path) -> dict[str, Any] | None:
    """Return what `save_spectra` stored, None where nothing was.

    Raises:
        InputError: the file can't be read.
    """
    path = workdir / SPECTRA_FILE
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.pop("schema_version") == _VERSION:
            return content
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    raise InputError(
        f"{path}: damaged, or of another version of rmjax; remove it and run `rmjax "
        "evaluate` again"
    )
