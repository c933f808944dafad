"""Baselines in closed form: against scikit-learn and NumPy, and as runs."""

import json

import jax
import numpy as np
import pytest
from scipy.special import softmax
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

import rmjax
from rmjax import inputs as preprocess
from rmjax.baselines.methods import METHODS, make_fitted
from rmjax.baselines.solve import Samples
from rmjax.data.pipeline import eval_batches
from rmjax.errors import InputError
from rmjax.evaluation.evaluate import evaluate
from rmjax.experiment.build import embedding_size
from rmjax.experiment.data import open_data
from rmjax.experiment.log import read_log
from rmjax.gallery.ask import new_gallery
from rmjax.training.train import train


def draw(count, size, sources, seed=0):
    """Features that tell their sources not quite, and the sources."""
    rng = np.random.default_rng(seed)
    source = np.arange(count) % sources
    centres = np.random.default_rng(9).normal(size=(sources, size))
    x = centres[source] + 2 * rng.normal(size=(count, size)) * rng.random(size) + 3
    return x.astype(np.float32), source


def fit_head(name, x, source, grid, components=4):
    """Fit a method's head; return what it makes of features, for each grid value."""
    count, size = x.shape
    sources = source.max() + 1
    halves = [(x[:7], source[:7]), (x[7:], source[7:])]
    samples = Samples(count, size, sources, components, iter(halves))
    head = METHODS[name].head(sources, components, count)
    shapes = jax.eval_shape(head.init, jax.random.key(0), x)["params"]
    for params in METHODS[name].solve(samples, grid):
        assert {k: v.shape for k, v in params.items()} == {
            k: v.shape for k, v in shapes.items()
        }
        cast = {k: np.asarray(v, shapes[k].dtype) for k, v in params.items()}
        yield lambda x, cast=cast: map(np.asarray, head.apply({"params": cast}, x))


def decisions(model, x):
    """Scores of a binary or multi-class model of scikit-learn, `[N, sources]`."""
    scores = model.decision_function(x)
    return np.stack([-scores, scores], 1) if scores.ndim == 1 else scores


@pytest.mark.parametrize("sources", [2, 4])
@pytest.mark.parametrize(("count", "size"), [(60, 20), (20, 60)])
def test_ridge_is_the_ridge_classifier(count, size, sources):
    x, source = draw(count, size, sources)
    new, _ = draw(30, size, sources, seed=1)
    grid = (0.5, 50.0)
    for penalty, head in zip(grid, fit_head("ridge", x, source, grid), strict=True):
        embedding, scores = head(new)
        expected = decisions(RidgeClassifier(alpha=penalty).fit(x, source), new)
        np.testing.assert_allclose(scores, expected, rtol=1e-3, atol=1e-4)
        np.testing.assert_array_equal(embedding, scores)


@pytest.mark.parametrize("sources", [2, 4])
def test_eigenfaces_are_components_and_a_linear_machine(sources):
    x, source = draw(80, 20, sources)
    new, _ = draw(30, 20, sources, seed=1)
    grid = (0.01, 1.0)
    for cost, head in zip(grid, fit_head("eigenfaces", x, source, grid), strict=True):
        pipeline = make_pipeline(
            PCA(4, svd_solver="full"), LinearSVC(C=cost, dual=False)
        ).fit(x, source)
        embedding, scores = head(new)
        np.testing.assert_allclose(
            scores, decisions(pipeline, new), rtol=1e-3, atol=1e-3
        )
        expected = pipeline[0].transform(new)
        np.testing.assert_allclose(np.abs(embedding), np.abs(expected), atol=1e-3)


def test_fewer_images_than_components_leave_the_rest_at_zero():
    x, source = draw(8, 20, 2)
    (head,) = fit_head("eigenfaces", x, source, [1.0], components=12)
    embedding, _ = head(x)
    assert np.ptp(embedding[:, :7], axis=0).min() > 0.1
    np.testing.assert_array_equal(embedding[:, 8:], 0)


@pytest.mark.parametrize("sources", [2, 4])
def test_prnu_is_the_correlation_with_mean_residuals(sources):
    x, source = draw(60, 20, sources)
    new, _ = draw(30, 20, sources, seed=1)
    (head,) = fit_head("prnu", x, source, [0.0])
    _, scores = head(new)
    means = [x[source == s].mean(0) for s in range(sources)]
    expected = np.corrcoef(new, means)[: len(new), len(new) :]
    np.testing.assert_allclose(scores, expected, atol=1e-5)


@pytest.mark.parametrize("sources", [2, 4])
def test_probe_is_the_logistic_regression(sources):
    x, source = draw(80, 20, sources)
    x[:, 3] = 5  # a feature that says nothing
    new, _ = draw(30, 20, sources, seed=1)
    new[:, 3] = 5
    grid = (0.01, 1.0)
    for cost, head in zip(grid, fit_head("probe", x, source, grid), strict=True):
        model = make_pipeline(
            StandardScaler(), LogisticRegression(C=cost, max_iter=1000)
        ).fit(x.astype(np.float64), source)
        embedding, scores = head(new)
        expected = model.predict_proba(new.astype(np.float64))
        np.testing.assert_allclose(softmax(scores, axis=1), expected, atol=1e-3)
        np.testing.assert_array_equal(embedding, new)


def test_knn_is_the_vote_of_the_nearest_by_angle():
    x, source = draw(80, 20, 4)
    new, _ = draw(50, 20, 4, seed=1)
    grid = (1, 3, 11)
    for count, head in zip(grid, fit_head("knn", x, source, grid), strict=True):
        model = KNeighborsClassifier(count, metric="cosine").fit(x, source)
        _, scores = head(new)
        np.testing.assert_array_equal(scores.argmax(1), model.predict(new))
        expected = (count * model.predict_proba(new) + 1 / 4) / (count + 1)
        np.testing.assert_allclose(softmax(scores, axis=1), expected, atol=1e-5)


def test_scores_of_larger_images_are_the_mean_over_their_tiles():
    model = make_fitted("ridge", 3, tile=8, components=0, images=0, backbone=None)
    x = np.random.default_rng(0).random((2, 17, 24, 3)).astype(np.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), x[:, :8, :8])
    variables = jax.tree.map(
        lambda leaf: np.random.default_rng(1).random(leaf.shape), shapes
    )
    whole = model.apply(variables, x)
    cut = [x[:, i : i + 8, j : j + 8] for i in (0, 8) for j in (0, 8, 16)]
    tiles = [model.apply(variables, tile) for tile in cut]
    for name in ("embedding", "attribution"):
        expected = np.mean([tile[name] for tile in tiles], axis=0)
        np.testing.assert_allclose(whole[name], expected, rtol=1e-4)
    p = softmax(whole["attribution"], axis=1)
    detection = softmax(whole["detection"], axis=1)
    np.testing.assert_allclose(detection[:, 1], p[:, 1:].sum(1), rtol=1e-4)


PLAIN = {"data.flip": False, "data.crop": 32, "data.eval_size": 32}


@pytest.fixture(scope="module")
def ridge_run(small_config, made_once):
    """Config and workdir of a ridge regression on one pass over all images."""
    changes = {"fit.name": "ridge", "model.input": "logdct", **PLAIN}
    config = small_config(**changes)
    config.fit.images = open_data(config).seen.size("train")

    def make(folder):
        train(config, folder, show_progress=False)

    return config, made_once("ridge", make)


def test_a_fitted_run_answers_as_scikit_learn_does(ridge_run):
    """From the image files to the answers, with the penalty that was best."""
    config, workdir = ridge_run
    data = open_data(config)

    def load(split):
        batches = eval_batches(data.seen, (split,), batch_size=64, size=32)
        for batch in batches:
            real = batch["mask"] > 0
            x = preprocess.logdct(preprocess.to_unit(batch["image"][real]))
            yield np.asarray(x).reshape(real.sum(), -1), batch["source"][real]

    x, source = map(np.concatenate, zip(*load("train"), strict=True))
    new, truth = map(np.concatenate, zip(*load("val"), strict=True))
    grid = METHODS["ridge"].grid
    models = [RidgeClassifier(alpha=penalty).fit(x, source) for penalty in grid]
    accuracies = [model.score(new, truth) for model in models]
    rows = read_log(workdir)
    tuning = [(r["penalty"], r["accuracy"]) for r in rows if r["kind"] == "tuning"]
    np.testing.assert_allclose(tuning, list(zip(grid, accuracies, strict=True)))
    images = np.stack(
        [i for b in eval_batches(data.seen, ("val",), batch_size=96, size=32)
         for i in b["image"][b["mask"] > 0]]
    )  # fmt: skip
    answer = rmjax.load(workdir).predict(list(images))
    ranks = [(-r["accuracy"], r["loss"]) for r in rows if r["kind"] == "tuning"]
    expected = models[ranks.index(min(ranks))].predict(new)
    names = np.array(data.sources)
    np.testing.assert_array_equal(answer["source"], names[expected])
    assert accuracies[0] > 0.3  # by chance it were an eighth


def test_a_fitted_run_is_a_run(ridge_run):
    config, workdir = ridge_run
    assert {int(p.name) for p in (workdir / "checkpoints").iterdir()} == {1}
    log = (workdir / "metrics.jsonl").read_text()
    again = train(config, workdir, show_progress=False)
    assert int(again.step) == 1 and (workdir / "metrics.jsonl").read_text() == log
    results = evaluate(workdir, draws=10, show_progress=False)
    assert results["summary"]["seen"]["clean"]["attribution_accuracy"] > 0.25
    saved = json.loads((workdir / "run.json").read_text())
    assert saved["source_names"][0] == "real"
    model = rmjax.load(workdir)
    assert embedding_size(config, 8) == 8
    assert model.channels("embedding") == 8
    image = np.random.default_rng(0).integers(0, 256, (40, 70, 3), np.uint8)
    assert model.embed([image]).shape == (1, 8)
    with pytest.raises(InputError, match="layer 'pool'; choose from embedding"):
        model.embed([image], layer="pool")
    assert new_gallery(model, "cosine").directions.shape == (0, 8)


@pytest.mark.slow
def test_features_of_a_trained_backbone(
    small_config, small_run, ridge_run, tmp_path, optimised
):
    changes = {"model.init": str(small_run), "fit.name": "knn", "fit.images": 100}
    state = train(small_config(**changes), tmp_path, show_progress=False)
    assert state.params["head"]["features"].shape == (100, 160)
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    ours = rmjax.load(tmp_path).embed([image])
    pooled = rmjax.load(small_run).embed([image], layer="pool")
    np.testing.assert_allclose(ours, pooled, rtol=1e-5)
    wrong = small_config(**{**changes, "model.init": str(ridge_run[1])})
    with pytest.raises(InputError, match="holds a ridge, which has no backbone"):
        train(wrong, tmp_path / "new", show_progress=False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fit.name": "svm"}, "unknown fit.name 'svm'; choose from ridge, prnu"),
        ({"fit.name": "prnu"}, "prnu' is not for model.input = 'rgb': .* wiener"),
        ({"fit.name": "ridge", "fit.images": 0}, "fit.images = 0: give at least 1"),
        (
            {"fit.name": "ridge", "fit.images": 10**6},
            "6.4 GiB in all, more than fit.memory_gib = 1; give at most 155,344 images",
        ),
        ({"fit.name": "knn", "model.arch": "vgg"}, "unknown architecture 'vgg'"),
        ({"fit.name": "ridge", "data.crop": 40}, "data.crop = 40 px is larger"),
    ],
)
def test_bad_settings_are_named_before_anything_is_written(
    small_config, tmp_path, changes, message
):
    with pytest.raises(InputError, match=message):
        train(small_config(**changes), tmp_path / "new", show_progress=False)
    assert not (tmp_path / "new").exists()


def test_a_source_that_no_image_shows_is_named(small_config, tmp_path):
    config = small_config(**{"fit.name": "ridge", "fit.images": 1})
    message = "fit.images = 1: none of the images drawn is of real, progan, .*; give"
    with pytest.raises(InputError, match=message):
        train(config, tmp_path / "new", show_progress=False)
