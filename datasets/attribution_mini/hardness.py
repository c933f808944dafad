"""Measure what tells the sources of attribution_mini apart, and what must not.

    python -m rmjax.datasets.attribution_mini.hardness --data-dir D [--sheet sheet.png]
    python -m rmjax.datasets.attribution_mini.hardness --data-dir D --run WORKDIR

print the two tables of the data set's README (a few minutes on 2 cores each): what
simple classifiers find, and what a network trained by `rmjax train` does.
"""

import argparse
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import mutual_info_score
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from rmjax.datasets.attribution_mini.attribution_mini_dataset_builder import Builder
from rmjax.errors import InputError
from rmjax.inference.attributor import load as load_run

SEEN = 6  # semantics that the spectral classifier is trained on


def load(folder: Path, split: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Read images uint8 `[n, size, size, 3]`, sources and semantics `[n]`."""
    source = tfds.builder_from_directory(str(folder)).as_data_source(
        split, decoders={"image": tfds.decode.SkipDecoding()}
    )
    records = [source[i] for i in range(len(source))]
    pixels = [np.asarray(Image.open(io.BytesIO(r["image"]))) for r in records]
    labels = np.array([(r["source"], r["semantic"]) for r in records])
    return np.stack(pixels), labels[:, 0], labels[:, 1]


def thumbnails(images: np.ndarray) -> np.ndarray:
    """Average down to 8x8 pixels: `[n, 192]` in [0, 1]."""
    count, size = images.shape[:2]
    block = size // 8
    blocks = images.reshape(count, 8, block, 8, block, 3)
    return blocks.mean((2, 4), dtype=np.float32).reshape(count, -1) / 255


def residuals(images: np.ndarray) -> np.ndarray:
    """Subtract the 3x3 mean: float32 `[n, size, size, 3]`, in units of 0..1."""
    x = images.astype(np.float32) / 255
    size = x.shape[1]
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    mean = np.zeros_like(x)
    for dy in range(3):
        for dx in range(3):
            mean += padded[:, dy : dy + size, dx : dx + size] / 9
    return x - mean


def log_spectra(images: np.ndarray) -> np.ndarray:
    """Return the log power spectra of the residuals, pooled: `[n, 32, 16]`.

    Rows are vertical frequencies -1/2..1/2 in FFT order, columns 0..1/2 cycles a pixel.
    """
    pool = images.shape[1] // 32
    size = 32 * pool  # what is left over at the right and the bottom is cut off
    images = images[:, :size, :size]
    window = np.hanning(size)[:, None] * np.hanning(size)
    spectra = []
    for start in range(0, len(images), 512):
        rest = residuals(images[start : start + 512]) * window[None, :, :, None]
        power = np.abs(np.fft.rfft2(rest, axes=(1, 2))) ** 2
        spectra.append(np.log(power.mean(-1) + 1e-6)[:, :, : size // 2])
    logs = np.concatenate(spectra).reshape(len(images), 32, pool, 16, pool)
    return logs.mean((2, 4))


def _jpeg(images: np.ndarray, quality: int = 20) -> np.ndarray:
    out = []
    for image in images:
        data = io.BytesIO()
        Image.fromarray(image).save(data, "JPEG", quality=quality)
        out.append(np.asarray(Image.open(data)))
    return np.stack(out)


def _noise(images: np.ndarray, deviation: float = 20) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, deviation, images.shape)
    return np.clip(images + noise, 0, 255).astype(np.uint8)


def _blur(images: np.ndarray) -> np.ndarray:
    """Blur with the taps 1-4-6-4-1, a Gaussian of sigma 1."""
    x = images.astype(np.float32)
    for axis in (1, 2):
        shape = [(0, 0)] * 4
        shape[axis] = (2, 2)
        padded = np.pad(x, shape, mode="edge")
        size = x.shape[axis]
        x = sum(
            tap / 16 * padded.take(range(i, i + size), axis)
            for i, tap in enumerate((1, 4, 6, 4, 1))
        )
    return x.astype(np.uint8)


CORRUPTIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "JPEG, quality 20": _jpeg,
    "noise, deviation 20": _noise,
    "blur, sigma 1": _blur,
}


def trivial_cues(train, test) -> dict[str, float]:
    """Classify by cues that are not the fingerprint; return test accuracies.

    Content, small images and colours, is learnt from the first `SEEN` semantics.
    """
    (x, y, m), (xt, yt, mt) = train, test
    small, small_t = thumbnails(x), thumbnails(xt)
    level = np.log(residuals(x).std((1, 2, 3)))[:, None]
    level_t = np.log(residuals(xt).std((1, 2, 3)))[:, None]
    forest = dict(n_estimators=200, n_jobs=-1, random_state=0)
    linear = make_pipeline(
        StandardScaler(), LogisticRegression(C=0.01, max_iter=500, tol=1e-3)
    )
    network = make_pipeline(
        StandardScaler(),
        MLPClassifier(
            (128,), alpha=1.0, early_stopping=True, n_iter_no_change=5, random_state=0
        ),
    )
    deep = RandomForestClassifier(min_samples_leaf=3, **forest)
    flat = RandomForestClassifier(min_samples_leaf=50, **forest)
    colours, colours_t = (t.reshape(-1, 64, 3).mean(1) for t in (small, small_t))
    rows = {}
    seen, seen_t = m < SEEN, mt < SEEN
    for name, model, own, own_t in (
        ("8x8 thumbnail, logistic regression", linear, small, small_t),
        ("8x8 thumbnail, random forest", deep, small, small_t),
        ("8x8 thumbnail, MLP", network, small, small_t),
        ("mean colour, random forest", flat, colours, colours_t),
    ):
        model.fit(own[seen], y[seen])
        for group, rows_t in {"seen": seen_t, "unseen": ~seen_t}.items():
            score = model.score(own_t[rows_t], yt[rows_t])
            rows[f"{name}, {group} semantics"] = score
    rows["deviation of the residual, random forest"] = flat.fit(level, y).score(
        level_t, yt
    )
    return rows


def fingerprints(train, test) -> dict[str, float]:
    """Classify by the residual's spectrum, trained on the first `SEEN` semantics.

    For corrupted images: trained on clean ones, and on all semantics corrupted alike.
    """
    (x, y, m), (xt, yt, mt) = train, test

    def model():
        return LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.1)

    def features(images):
        return log_spectra(images).reshape(len(images), -1)

    seen, seen_t, spectra = m < SEEN, mt < SEEN, features(xt)
    clean = model().fit(features(x)[seen], y[seen])
    rows = {
        "spectrum, seen semantics": clean.score(spectra[seen_t], yt[seen_t]),
        "spectrum, unseen semantics": clean.score(spectra[~seen_t], yt[~seen_t]),
    }
    for name, corrupt in CORRUPTIONS.items():
        spectra = features(corrupt(xt))
        own = model().fit(features(corrupt(x)), y)
        rows[f"spectrum, {name}, trained on clean"] = clean.score(spectra, yt)
        rows[f"spectrum, {name}, trained on the same"] = own.score(spectra, yt)
    return rows


def network(workdir: str, test) -> dict[str, float]:
    """Test a trained run on clean and on corrupted images, seen and unseen semantics."""
    images, sources, semantics = test
    run, rows = load_run(workdir), {}
    for name, corrupt in {"clean": lambda x: x, **CORRUPTIONS}.items():
        guess = run.predict(list(corrupt(images)))["attribution"].argmax(-1)
        for group, chosen in {
            "seen": semantics < SEEN,
            "unseen": semantics >= SEEN,
        }.items():
            rows[f"{name}, {group} semantics"] = np.mean((guess == sources)[chosen])
    return rows


def contact_sheet(folder: Path, out: Path) -> None:
    """Save one test image of each cell: semantics down, sources across."""
    images, sources, semantics = load(folder, "test")
    rows = [
        np.concatenate(
            [
                images[np.argmax((sources == s) & (semantics == m))]
                for s in np.unique(sources)
            ],
            axis=1,
        )
        for m in np.unique(semantics)
    ]
    Image.fromarray(np.concatenate(rows)).save(out)


def main(argv: list[str] | None = None) -> None:
    """Print the table of hardness figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", required=True, help="root of TFDS data sets")
    parser.add_argument("--run", help="test this run instead of simple classifiers")
    parser.add_argument("--sheet", help="also save a contact sheet (PNG) here")
    args = parser.parse_args(argv)
    folder = Path(args.data_dir).expanduser() / Builder.name / str(Builder.VERSION)
    if not folder.is_dir():
        raise InputError(
            f"{folder} does not exist; make it with "
            f"`rmjax prepare attribution_mini --data-dir {args.data_dir}`"
        )
    if args.sheet:
        contact_sheet(folder, Path(args.sheet))
    test = load(folder, "test")
    if args.run:
        rows = network(args.run, test)
    else:
        train = load(folder, "train")
        shared = mutual_info_score(test[1], test[2])
        rows = {"mutual information of source and semantic (nats)": shared}
        rows |= trivial_cues(train, test) | fingerprints(train, test)
    print("| cue | test accuracy |\n| --- | --: |")
    for name, value in rows.items():
        print(f"| {name} | {value:.3f} |")


if __name__ == "__main__":
    main()
