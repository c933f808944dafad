"""Why an answer is given: maps on evidence that is known, spectra beside numpy's."""

import io
import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image
from scipy.ndimage import uniform_filter

from rmjax.errors import InputError
from rmjax.gallery.ask import Asker, choose_for, new_gallery
from rmjax.gallery.attribute import explain_by_gallery
from rmjax.gallery.store import enrol
from rmjax.inference.attributor import load, resize_and_cut, shown_box
from rmjax.inference.calibration import UNCALIBRATED
from rmjax.inference.explain import explain, explain_by
from rmjax.inference.spectra import (
    SPECTRA_FILE,
    describe_spectrum,
    image_power,
    load_spectra,
    mean_power,
    radial_profile,
    save_spectra,
)

CROP = 32


def encode(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def fine_detail(pixels):
    """What the network made by hand below goes by: how much neighbours differ."""
    grey = pixels.astype(float).mean(-1)
    return np.abs(grey[:, 1:] - grey[:, :-1]).mean()


@pytest.fixture
def by_hand():
    """A network that takes an image for `gan` the more, the more fine detail it has."""
    data = ConfigDict({"crop": CROP, "eval_resize": 0, "eval_size": 2 * CROP})

    def run(pixels, batch_size=64):
        detail = np.array([fine_detail(image) for image in pixels])
        logits = np.stack([np.full(len(pixels), 2.0), detail, 0 * detail], axis=-1)
        return {"attribution": logits, "detection": logits[:, :2]}

    return SimpleNamespace(
        source_names=("real", "gan", "vae"),
        image_config=data,
        calibration=UNCALIBRATED,
        spectra=None,
        read=lambda image: resize_and_cut(image, data),
        run=run,
    )


def half_marked(size, axis, rng):
    """A smooth picture whose first half, down or across, has a generator's grain."""
    slope = np.linspace(60, 180, size)
    picture = np.broadcast_to(slope[:, None] / 2 + slope / 2, (size, size)).copy()
    grain = rng.choice([-12, 12], (size, size))
    place = [slice(None), slice(None)]
    place[axis] = slice(0, size // 2)
    picture[tuple(place)] += grain[tuple(place)]
    return np.repeat(np.rint(picture).astype(np.uint8)[..., None], 3, axis=-1)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("size, method", [(48, "occlusion"), (5 * CROP, "tiles")])
def test_map_finds_the_half_with_the_evidence(by_hand, size, method, axis):
    image = half_marked(size, axis, np.random.default_rng(0))
    found = explain(by_hand, encode(image), "a.png")
    assert found["answer"] == found["map"]["of"] == "gan"
    assert found["map"]["method"] == method
    assert found["map"]["box"] == [0, 0, size, size]
    values = np.array(found["map"]["values"])
    assert values.shape == (found["map"]["rows"], found["map"]["columns"])
    marked, plain = np.array_split(values, 2, axis=axis)
    if method == "tiles":  # five: the one in the middle is half and half
        marked = np.delete(marked, -1, axis=axis)
    assert marked.min() > plain.max()


def test_of_a_flipped_image_the_map_is_flipped(by_hand):
    image = np.random.default_rng(0).integers(0, 256, (40, 56, 3)).astype(np.uint8)
    maps = [
        np.array(explain(by_hand, encode(view), "a.png")["map"]["values"])
        for view in (image, image[:, ::-1], image[::-1])
    ]
    np.testing.assert_allclose(maps[1], maps[0][:, ::-1], atol=2e-3)
    np.testing.assert_allclose(maps[2], maps[0][::-1], atol=2e-3)


@pytest.mark.parametrize("resizing", [0, 40])
@pytest.mark.parametrize("shape", [(60, 100), (100, 60), (20, 400)])
def test_box_is_what_the_network_is_shown(shape, resizing):
    data = ConfigDict(
        {
            "eval_resize": resizing,
            "eval_size": 32,
            "filter": "bilinear",
            "squash": False,
        }
    )
    places = np.mgrid[: shape[0], : shape[1]] * 255 / np.array(shape)[:, None, None]
    image = np.stack([*places, places[0]], axis=-1).astype(np.uint8)
    left, top, right, bottom = shown_box(shape, data)
    shown = resize_and_cut(image, data).astype(float) / 255
    # Where the middle of the first and of the last pixel that is shown lies.
    rows, columns = shown[:, 0, 0] * shape[0], shown[0, :, 1] * shape[1]
    half = (bottom - top) / len(rows) / 2
    tolerance = 2 + max(shape) / 255
    assert abs(rows[0] - (top + half)) < tolerance
    assert abs(rows[-1] - (bottom - half)) < tolerance
    assert abs(columns[0] - (left + half)) < tolerance
    assert abs(columns[-1] - (right - half)) < tolerance


def test_explanation_of_a_run_is_json(small_run):
    model = load(small_run, num_devices=1)
    image = np.random.default_rng(0).integers(0, 256, (70, 50, 3)).astype(np.uint8)
    found = json.loads(json.dumps(explain(model, encode(image), "<b>.png")))
    assert found["image"] == "<b>.png"
    assert found["map"]["of"] in model.source_names
    assert found["map"]["box"] == [9, 19, 41, 51]
    assert found["spectrum"]["sources"] == {}  # nothing was evaluated
    assert "rmjax evaluate" in found["spectrum"]["note"]
    # The tiny network has no sources stored; with some, they are on the same frequencies.
    stored = describe_spectrum(image_power(image, 32)) | {"images": 1}
    model = replace(model, spectra={"side": 32, "sources": {"real": stored}})
    spectrum = explain_by(model, encode(image), "a.png", None)["spectrum"]
    assert spectrum["note"] is None
    lengths = {len(spectrum[name]) for name in ("frequencies", "image")}
    assert lengths == {len(spectrum["sources"]["real"])}
    # Of another width of windows they could not be.
    small = explain_by(model, encode(image[:20, :20]), "a.png", None)["spectrum"]
    assert small["sources"] == {} and small["note"]


def test_map_of_a_network_without_sources_needs_a_gallery(fingerprint_run):
    model = load(fingerprint_run, num_devices=1)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, 40, 40, 3)).astype(np.uint8)
    assert explain(model, encode(images[0]), "a.png")["map"] is None
    gallery = new_gallery(model)
    for number in range(2):
        files = [(f"{number}.png", str(number))]
        gallery = enrol(gallery, f"g{number}", files, model.embed([images[number]]))
    asker = Asker(gallery, model, *choose_for(gallery, "neighbours"))
    found = explain_by_gallery(asker, encode(images[1]), "a.png")
    assert found["answer"] == found["map"]["of"] == "g1"
    assert np.isfinite(found["map"]["values"]).all()


@pytest.mark.parametrize("frequency", [(0, 8), (12, 0), (8, 8), (16, 16)])
def test_spectrum_of_a_wave_peaks_at_its_frequency(frequency):
    rows, columns = np.mgrid[:96, :80]
    phase = 2 * np.pi * (frequency[0] * rows + frequency[1] * columns) / 64
    wave = np.repeat((128 + 8 * np.cos(phase))[..., None], 3, axis=-1)
    power = image_power(np.rint(wave).astype(np.uint8), 64)
    found = np.unravel_index(power.argmax(), power.shape)
    assert tuple(min(n, 64 - n) for n in found) == frequency
    frequencies, profile = radial_profile(power)
    expected = np.hypot(*frequency) / 64
    assert abs(frequencies[profile.argmax()] - expected) < 1 / 64


def test_mean_power_is_that_of_numpy():
    images = np.random.default_rng(0).integers(100, 156, (3, 16, 16, 3))
    x = images / 255 * 2 - 1
    fine = np.clip(6 * (x - uniform_filter(x, (1, 3, 3, 1), mode="nearest")), -2, 2)
    window = np.hanning(16)
    spectra = np.fft.fft2(fine.mean(-1) * np.outer(window, window))
    expected = np.mean(np.abs(spectra) ** 2, axis=0)
    found = mean_power(images.astype(np.uint8))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "data, said",
    [(b"no image", "a.png"), (encode(np.zeros((8, 40, 3), np.uint8)), "too small")],
)
def test_what_is_no_image_is_named(by_hand, data, said):
    with pytest.raises(InputError, match=said):
        explain(by_hand, data, "a.png")


def test_stored_spectra_are_read_again(tmp_path):
    assert load_spectra(tmp_path) is None
    spectra = {"side": 32, "sources": {"real": {"levels": [1.5], "images": 3}}}
    save_spectra(tmp_path, spectra)
    assert load_spectra(tmp_path) == spectra
    (tmp_path / SPECTRA_FILE).write_text('{"schema_version": 7}')
    with pytest.raises(InputError, match=SPECTRA_FILE):
        load_spectra(tmp_path)
