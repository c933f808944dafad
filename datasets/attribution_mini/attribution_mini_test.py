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

from rmjax.datasets.attribution_mini import exact, hardness, images, png, scenes, tails
from rmjax.datasets.attribution_mini.attribution_mini_dataset_builder import (
    prepare,
    split_bounds,
)
from rmjax.errors import InputError

DIGEST = "92beccd641ab8adfb8608d40e22dca75fc831d4e3e47c10a3f5deb21a25a9f2f"


def digest() -> str:
    """Hash the first blocks of eleven cells that cover all sources and semantics."""
    sha = hashlib.sha256()
    for i, semantic in enumerate(images.SEMANTICS):
        for image in images.draw_block(images.SOURCES[i % 8], semantic, 0):
            sha.update(png.encode_png(image))
    return sha.hexdigest()


@pytest.fixture(scope="module")
def grid() -> np.ndarray:
    """Two blocks of every cell, uint8 `[source, semantic, 40, 64, 64, 3]`."""
    return np.array(
        [
            [
                np.concatenate([images.draw_block(s, m, block) for block in (0, 1)])
                for m in images.SEMANTICS
            ]
            for s in images.SOURCES
        ]
    )


def test_bytes_are_those_of_this_version():
    assert digest() == DIGEST, "the pixels changed: raise the builder's VERSION"


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
    first = images.draw_block("progan", "bus", 3, seed=1, size=32)
    task = images.Task("progan", "bus", 65, 70, seed=1, size=32)
    for image, data in zip(first[5:10], images.encode_range(task), strict=True):
        assert data == png.encode_png(image)
    for other in (
        images.draw_block("progan", "bus", 3, seed=2, size=32),
        images.draw_block("progan", "bus", 4, seed=1, size=32),
        images.draw_block("biggan", "bus", 3, seed=1, size=32),
    ):
        # other scenes, not only other noise: no pair of images is close
        distance = np.abs(first.astype(float) - other).mean((1, 2, 3))
        assert distance.min() > 5


def test_tasks_cover_every_image_once():
    bounds = split_bounds(53)
    seen = [
        (task.source, task.semantic, index)
        for start, stop in bounds.values()
        for task in images.tasks_of(start, stop, 0, 32)
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
    scene = scenes.draw_scenes("church", draws, 64)
    for source in tails.SOURCES:
        image = tails.apply_tail(source, scene, exact.Draws((5, 6), 20))
        pair = np.stack([scene, image]).transpose(0, 2, 3, 4, 1)
        before, after = (hardness.thumbnails(255 * x) for x in pair)
        assert np.sqrt(np.mean((before - after) ** 2)) < 0.15 * before.std(), source
        assert np.sqrt(np.mean((image - scene) ** 2)) > 0.015, source


def test_thumbnails_do_not_tell_the_source(grid):
    train, test = (
        hardness.thumbnails(half.reshape(-1, 64, 64, 3))
        for half in (grid[:, :, :20], grid[:, :, 20:])
    )
    labels = np.repeat(np.arange(8), 11 * 20)
    model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.1)
    assert model.fit(train, labels).score(test, labels) < 0.2


def test_fingerprint_is_the_sources_and_not_the_semantics(grid):
    """The shape of the mean spectra, less the mean over sources, tells the source."""
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
    drawn = images.draw_block(name, semantic, 0, seed=3, size=32)
    assert record["image"] == png.encode_png(drawn[int(file[:5])])
    assert images.SOURCES[record["source"]] == name
    assert images.SEMANTICS[record["semantic"]] == semantic


def test_prepare_refuses(tmp_path):
    for wrong in ({"size": 50}, {"images_per_cell": 3}, {"seed": -1}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            prepare(tmp_path, **wrong)
    assert not list(tmp_path.iterdir())
    folder = tmp_path / "attribution_mini" / "1.0.0"
    folder.mkdir(parents=True)
    (folder / "metadata.json").write_text('{"images_per_cell": 5}')
    with pytest.raises(InputError, match="images_per_cell=5.*images_per_cell=200"):
        prepare(tmp_path)
