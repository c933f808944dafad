"""attribution_mini: the same bytes everywhere, balanced, and told apart by fingerprint."""

import hashlib
import io
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from numpy._core import _multiarray_umath as umath
from PIL import Image
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from rmjax.datasets.attribution_mini import (
    exact,
    hardness,
    images,
    png,
    preferences,
    scenes,
    tails,
)
from rmjax.datasets.attribution_mini.attribution_mini_dataset_builder import (
    prepare,
    split_bounds,
)
from rmjax.errors import InputError

# By entanglement. 0 gives the images of version 1.0.0.
DIGESTS = {
    0.0: "92beccd641ab8adfb8608d40e22dca75fc831d4e3e47c10a3f5deb21a25a9f2f",
    0.5: "b345103410278a6974dca53a12222b642661bc214fe94f567244b95202af68be",
}


def digest(entanglement: float = 0.5) -> str:
    """Hash the first blocks of eleven cells that cover all sources and semantics."""
    sha = hashlib.sha256()
    settings = images.Settings(entanglement=entanglement)
    for i, semantic in enumerate(images.SEMANTICS):
        for image in images.draw_block(images.SOURCES[i % 8], semantic, 0, settings):
            sha.update(png.encode_png(image))
    return sha.hexdigest()


def draw_grid(entanglement: float) -> np.ndarray:
    """Draw two blocks of every cell, uint8 `[source, semantic, 40, 64, 64, 3]`."""
    settings = images.Settings(entanglement=entanglement)

    def cell(source: str, semantic: str) -> np.ndarray:
        blocks = (images.draw_block(source, semantic, i, settings) for i in (0, 1))
        return np.concatenate([*blocks])

    return np.array([[cell(s, m) for m in images.SEMANTICS] for s in images.SOURCES])


@pytest.fixture(scope="module")
def grid() -> np.ndarray:
    """Images without preferences, see `draw_grid`."""
    return draw_grid(0.0)


@pytest.fixture(scope="module")
def leaning_grid() -> np.ndarray:
    """Images with the preferences of the default, see `draw_grid`."""
    return draw_grid(images.Settings().entanglement)


@pytest.mark.parametrize("entanglement", DIGESTS)
def test_bytes_are_those_of_this_version(entanglement):
    assert digest(entanglement) == DIGESTS[entanglement], (
        "the pixels changed: raise the builder's VERSION"
    )


def test_bytes_do_not_depend_on_the_instruction_set():
    features = [f for f in umath.__cpu_dispatch__ if umath.__cpu_features__[f]]
    if not features:
        pytest.skip("this processor has no feature to switch off")
    code = (
        "import importlib.util as u, sys;"
        f"s = u.spec_from_file_location('t', {__file__!r});"
        "t = u.module_from_spec(s); s.loader.exec_module(t); print(t.digest());"
        "f = t.umath.__cpu_features__; assert not any(f[x] for x in sys.argv[1:])"
    )
    env = dict(os.environ, NPY_DISABLE_CPU_FEATURES=" ".join(features))
    done = subprocess.run(
        [sys.executable, "-c", code, *features],
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split()[-1] == digest()


def test_blocks_stand_alone_and_differ():
    settings = images.Settings(seed=1, size=32, entanglement=0.0)
    first = images.draw_block("progan", "bus", 3, settings)
    task = images.Task("progan", "bus", 65, 70, settings)
    for image, data in zip(first[5:10], images.encode_range(task), strict=True):
        assert data == png.encode_png(image)
    for other in (
        images.draw_block("progan", "bus", 3, settings._replace(seed=2)),
        images.draw_block("progan", "bus", 4, settings),
        images.draw_block("biggan", "bus", 3, settings),
    ):
        # other scenes, not only other noise: no pair of images is close
        distance = np.abs(first.astype(float) - other).mean((1, 2, 3))
        assert distance.min() > 5


def test_tasks_cover_every_image_once():
    bounds = split_bounds(53)
    seen = [
        (task.source, task.semantic, index)
        for start, stop in bounds.values()
        for task in images.tasks_of(start, stop, images.Settings())
        for index in range(task.start, task.stop)
    ]
    assert len(seen) == len(set(seen)) == 88 * 53
    assert all(stop > start for start, stop in bounds.values())


@pytest.mark.parametrize("size", [1, 64, 176])  # 176: two stored blocks
def test_png_reads_back(size):
    pixels = np.random.default_rng(0).integers(0, 256, (size, size + 3, 3), np.uint8)
    image = Image.open(io.BytesIO(png.encode_png(pixels)))
    image.load()
    assert image.format == "PNG" and image.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(image), pixels)


def test_noise_and_sine_are_what_they_say():
    noise = exact.Draws((1, 2)).noise((200, 500))
    assert abs(noise.mean()) < 0.01 and abs(noise.std() - 1) < 0.01
    assert abs((noise[:, 1:] * noise[:, :-1]).mean()) < 0.01
    turns = np.linspace(-3, 3, 1001, dtype=np.float32)
    np.testing.assert_allclose(exact.sine(turns), np.sin(2 * np.pi * turns), atol=2e-3)


def test_convolve_matches_a_plain_sum():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 1, 6, 7)).astype(np.float32)
    kernels = rng.normal(size=(3, 2, 3, 3)).astype(np.float32)
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))
    expected = np.einsum("ibhwyx,oiyx->obhw", windows, kernels)
    np.testing.assert_allclose(exact.convolve(x, kernels), expected, atol=1e-5)


def test_tails_leave_thumbnails_alone():
    """The same scenes through every tail: thumbnails agree, fine detail does not."""
    draws = exact.Draws((5, 5), 20)
    nothing = preferences.Preferences(seed=5, cell=0, entanglement=0.0)
    scene = scenes.draw_scenes("church", draws, 64, nothing)
    for source in tails.SOURCES:
        image = tails.apply_tail(source, scene, exact.Draws((5, 6), 20))
        pair = np.stack([scene, image]).transpose(0, 2, 3, 4, 1)
        before, after = (hardness.thumbnails(255 * x) for x in pair)
        assert np.sqrt(np.mean((before - after) ** 2)) < 0.15 * before.std(), source
        assert np.sqrt(np.mean((image - scene) ** 2)) > 0.015, source


def score_thumbnails(grid: np.ndarray) -> tuple[float, float]:
    """Tell sources by the thumbnails of seen semantics; test on seen and unseen ones."""
    small = hardness.thumbnails(grid.reshape(-1, 64, 64, 3)).reshape(8, 11, 40, -1)
    seen, unseen = small[:, :6], small[:, 6:]
    model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.1)

    def flat(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        labels = np.repeat(np.arange(8), x.shape[1] * x.shape[2])
        return x.reshape(len(labels), -1), labels

    model.fit(*flat(seen[:, :, :20]))
    return model.score(*flat(seen[:, :, 20:])), model.score(*flat(unseen))


def test_thumbnails_do_not_tell_the_source(grid):
    assert max(score_thumbnails(grid)) < 0.2


def test_preferences_tell_the_source_of_seen_semantics_alone(leaning_grid):
    seen, unseen = score_thumbnails(leaning_grid)
    assert seen > 0.5 and unseen < 0.2


@pytest.mark.parametrize("kind", preferences.KINDS)
def test_a_cell_keeps_its_preferences_of_each_kind(kind):
    """They show in every block of a cell, and depend on source, semantic and seed."""
    settings = images.Settings(seed=3, size=32, entanglement=1.0, preferences=(kind,))

    def change(source: str, semantic: str, block: int, seed: int = 3) -> np.ndarray:
        own = settings._replace(seed=seed)
        drawn = images.draw_block(source, semantic, block, own)
        plain = images.draw_block(source, semantic, block, own._replace(entanglement=0))
        return (drawn.astype(float) - plain).ravel()

    first = change("progan", "bus", 0)
    assert np.abs(first).mean() > 0.5
    likeness = np.corrcoef(
        [
            first,
            change("progan", "bus", 1),
            change("biggan", "bus", 0),
            change("progan", "cat", 0),
            change("progan", "bus", 0, seed=4),
        ]
    )[0, 1:]
    if kind in ("palette", "light"):  # the others do not act on the same pixels
        assert likeness[0] > 0.5
    assert likeness[1:].max() < 0.9


def test_numbers_that_lean_stay_in_their_range_and_around_what_is_preferred():
    def leaning(block: int, strength: float) -> np.ndarray:
        draws = preferences.LeaningDraws(
            exact.Draws((1, block), 2000), exact.Draws((1, 9)), strength
        )
        return np.stack([draws.uniform(2, 6) for _ in range(3)])[..., 0, 0]

    for strength in (0.0, 0.8, 1.0):
        first, other = leaning(0, strength), leaning(1, strength)
        assert first.min() >= 2 and first.max() < 6
        width = 4 * (1 - strength) / np.sqrt(12)
        np.testing.assert_allclose(first.std(1), width, atol=0.05)
        np.testing.assert_allclose(first.mean(1), other.mean(1), atol=0.15)


def test_fingerprint_is_the_sources_and_not_the_semantics(leaning_grid):
    """The shape of the mean spectra, less the mean over sources, tells the source."""
    grid = leaning_grid
    spectra = hardness.log_spectra(grid.reshape(-1, 64, 64, 3))
    spectra = spectra.reshape(8, 11, 40, -1).mean(2)
    prints = spectra - spectra.mean(0)
    prints -= prints.mean(-1, keepdims=True)  # content sets the level
    known, new = prints[:, :6].mean(1), prints[:, 6:]
    known /= np.linalg.norm(known, axis=-1, keepdims=True)
    nearest = np.einsum("kf,smf->ksm", known, new).argmax(0)  # [source, semantic]
    assert np.mean(nearest == np.arange(8)[:, None]) >= 0.95


def test_every_source_has_weights_of_its_own():
    kernels = [
        tails.weights(source, stage).back
        for source in tails.SOURCES
        for stage in (0, 1)
    ]
    for i, one in enumerate(kernels):
        np.testing.assert_allclose(one.sum((-1, -2)), 0, atol=1e-5)
        assert all(np.abs(one - other).max() > 0.1 for other in kernels[:i])


def test_prepare_writes_a_balanced_grid_and_reads_it_back(tmp_path):
    folder = prepare(tmp_path, images_per_cell=10, seed=3, size=32, processes=2)
    assert folder == prepare(tmp_path, images_per_cell=10, seed=3, size=32)
    builder = tfds.builder_from_directory(str(folder))
    assert builder.info.features["source"].names[0] == "real"
    for split, count in {"train": 7, "val": 1, "test": 2}.items():
        source = builder.as_data_source(
            split, decoders={"image": tfds.decode.SkipDecoding()}
        )
        records = [source[i] for i in range(len(source))]
        cells = np.array([(r["source"], r["semantic"]) for r in records])
        assert np.all(np.unique(cells, axis=0, return_counts=True)[1] == count)
        assert len(records) == 88 * count
    record = records[0]
    name, semantic, file = record["path"].decode().split("/")
    drawn = images.draw_block(name, semantic, 0, images.Settings(seed=3, size=32))
    assert record["image"] == png.encode_png(drawn[int(file[:5])])
    assert images.SOURCES[record["source"]] == name
    assert images.SEMANTICS[record["semantic"]] == semantic


def test_prepare_refuses(tmp_path):
    for wrong in (
        {"size": 50},
        {"images_per_cell": 3},
        {"seed": -1},
        {"entanglement": 1.5},
        {"preferences": ("palette", "mood")},
    ):
        with pytest.raises(InputError, match=next(iter(wrong))):
            prepare(tmp_path, **wrong)
    assert not list(tmp_path.iterdir())
    folder = tmp_path / "attribution_mini" / "2.0.0"
    folder.mkdir(parents=True)
    (folder / "metadata.json").write_text('{"images_per_cell": 5}')
    (folder / "dataset_info.json").write_text("{}")
    with pytest.raises(InputError, match="images_per_cell=5.*images_per_cell=200"):
        prepare(tmp_path)
