"""The benchmark of extractors: planted features, scikit-learn's figures, the command."""

import json
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score, roc_curve

import rmjax
from rmjax.cli.main import main
from rmjax.data.dataset import find_dataset, open_dataset, select
from rmjax.errors import InputError
from rmjax.evaluation.bootstrap import draw_resamples
from rmjax.experiment.run import CHECKPOINTS, start_workdir
from rmjax.gallery.benchmark import format_benchmark, make_plan, measure_feature
from rmjax.gallery.evaluate import measure_draw
from rmjax.gallery.features import FEATURES, SPACES, cosine, standardised
from rmjax.gallery.identification import (
    CONTENT,
    FIGURES,
    Labels,
    draw_contents,
    enrol_first,
    identify,
)
from rmjax.gallery.verification import (
    BINS,
    choose_pairs,
    roc_rates,
    sort_into_bins,
    verify,
)

SOURCES, SEMANTICS, PHOTOGRAPHS = 4, 4, 6


@pytest.fixture(scope="module")
def labels():
    """Every source renders every photograph; six photographs of each semantic."""
    shape = (SOURCES, SEMANTICS, PHOTOGRAPHS)
    source, semantic, number = (i.ravel() for i in np.indices(shape))
    return Labels(source, semantic, semantic * PHOTOGRAPHS + number)


@pytest.fixture(scope="module")
def plan(labels):
    return make_plan(labels, (2, 5), draws=6, bootstrap=30, seed=0)


def random_directions(code, dim=24, seed=0):
    """Random directions, equal for images of equal code."""
    rng = np.random.default_rng(seed)
    return cosine(rng.standard_normal((code.max() + 1, dim)))[code]


def measured(plan, directions):
    figures = measure_feature(plan, directions, directions)
    cells = {(c["k"], c["content"]): c for c in figures["identification"]}
    return figures["verification"], cells, figures["rejection"]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("distinct", [50, 10**9])
def test_area_and_equal_error_rate_are_scikit_learns(distinct, weighted):
    rng = np.random.default_rng(1)
    positive = rng.random(30_000) < 0.2
    scores = rng.standard_normal(30_000) + positive
    if distinct < 100:  # ties
        scores = np.round(scores * 5)
    weights = rng.integers(0, 4, 30_000).astype(float) if weighted else None
    area, eer = roc_rates(sort_into_bins(scores), positive, weights)
    tolerance = 1e-12 if distinct < 100 else 1 / BINS
    expected = roc_auc_score(positive, scores, sample_weight=weights)
    assert area == pytest.approx(expected, abs=tolerance)
    fpr, tpr, _ = roc_curve(
        positive, scores, sample_weight=weights, drop_intermediate=False
    )
    crossing = np.interp(0, fpr + tpr - 1, fpr)
    assert eer == pytest.approx(crossing, abs=tolerance)


def test_bins_hold_alike_many_and_keep_order():
    values = np.random.default_rng(0).standard_normal(50_000) ** 5
    bins = sort_into_bins(values, 100)
    assert np.all(np.diff(bins[np.argsort(values)]) >= 0)
    assert np.ptp(np.bincount(bins)) <= 1 and bins.max() == 99


def test_pairs_differ_in_content_and_photograph(labels):
    pairs = choose_pairs(labels.source, labels.semantic, labels.group)
    first, second = pairs.first, pairs.second
    assert np.all(labels.semantic[first] != labels.semantic[second])
    assert np.all(labels.group[first] != labels.group[second])
    each = PHOTOGRAPHS**2 * SEMANTICS * (SEMANTICS - 1) // 2
    assert pairs.same.sum() == SOURCES * each
    assert len(pairs.same) == SOURCES**2 * each


def test_an_interval_counts_a_pair_as_often_as_both_its_groups(labels):
    directions = random_directions(labels.source) + random_directions(labels.group)
    similarity = directions @ directions.T
    pairs = choose_pairs(labels.source, labels.semantic, labels.group)
    resamples = draw_resamples(labels.group, 1, seed=3)
    one = replace(resamples, counts=np.repeat(resamples.counts, 2, axis=0))
    drawn = one.counts[0][one.code]
    # Written out: each image as often as it is drawn.
    rows = np.repeat(np.arange(len(drawn)), drawn)
    i, j = np.triu_indices(len(rows), 1)
    i, j = rows[i], rows[j]
    kept = (labels.semantic[i] != labels.semantic[j]) & (
        labels.group[i] != labels.group[j]
    )
    i, j = i[kept], j[kept]
    same = labels.source[i] == labels.source[j]
    weights = drawn[pairs.first] * drawn[pairs.second]
    area, _ = roc_rates(
        sort_into_bins(similarity[pairs.first, pairs.second]), pairs.same, weights
    )
    assert area == pytest.approx(roc_auc_score(same, similarity[i, j]), abs=1 / BINS)
    assert verify(similarity, pairs, one)["auc"]["interval"] == (None, None)


def test_a_feature_that_is_the_source_makes_no_error(labels, plan):
    pairs, cells, rejection = measured(plan, random_directions(labels.source))
    assert pairs["auc"]["mean"] == 1 and pairs["eer"]["mean"] == 0
    for cell in cells.values():
        assert [cell[name]["mean"] for name in FIGURES] == pytest.approx([1, 1, 1])
        low, high = cell["rank1_neighbours"]["interval"]
        assert low < 1 and high == 1  # as few groups leave open
        assert cell["sources"] == [SOURCES, SOURCES]
    assert rejection["auroc"]["mean"] == rejection["oscr"]["mean"] == 1
    assert rejection["fpr95"]["mean"] == 0 and rejection["k"] == 5
    assert set(rejection["left_out"].values()) == {1.0}


@pytest.mark.parametrize("code", ["semantic", "group"])
def test_content_alone_tells_nothing(labels, plan, code):
    directions = random_directions(getattr(labels, code))
    pairs, cells, rejection = measured(plan, directions)
    assert pairs["auc"]["mean"] == pytest.approx(0.5, abs=1e-3)
    for cell in cells.values():
        assert cell["rank1_neighbours"]["mean"] == pytest.approx(1 / SOURCES, abs=0.08)
        assert cell["chance"]["rank1"] == 1 / SOURCES
    assert rejection["auroc"]["mean"] == pytest.approx(0.5, abs=0.05)


def test_permuted_sources_are_not_told(labels):
    directions = random_directions(labels.source)
    rng = np.random.default_rng(0)
    mixed = replace(labels, source=rng.permutation(labels.source))
    plan = make_plan(mixed, (2,), draws=10, bootstrap=50, seed=0)
    pairs, cells, _ = measured(plan, directions)
    assert pairs["auc"]["mean"] == pytest.approx(0.5, abs=0.05)
    low, high = cells[2, "other"]["rank1_neighbours"]["interval"]
    assert low - 0.05 < 1 / SOURCES < high + 0.05


def test_no_photograph_is_both_enrolled_and_asked_about(labels):
    for draw in draw_contents(labels, 8, seed=1):
        for k in (1, 5, 11):
            gallery = enrol_first(labels, draw, k)
            enrolled, asked = (
                labels.group[rows] for rows in (gallery.rows, gallery.asked)
            )
            assert not np.intersect1d(enrolled, asked).size
            assert draw.enrollable[gallery.rows].all()
            # Sources share photographs here, and so enrol the same.
            assert len(np.unique(enrolled)) == k
            counts = np.bincount(labels.source[gallery.rows])
            np.testing.assert_array_equal(counts, np.full(SOURCES, k))
        assert len(np.unique(labels.semantic[draw.enrollable])) == SEMANTICS // 2


def test_a_draw_is_measured_as_a_gallery_evaluation_does(labels):
    """With photographs of their own, so that all that is not enrolled is asked."""
    own = replace(labels, group=np.arange(len(labels.group)))
    directions = cosine(
        random_directions(labels.source, seed=1) + random_directions(own.group, seed=2)
    )
    (draw,) = draw_contents(own, 1, seed=0)
    everything = replace(draw, enrollable=np.ones_like(draw.enrollable))
    resamples = draw_resamples(own.group, 5)
    similarity = directions @ directions.T
    cells = identify(similarity, similarity, own, [everything], 3, resamples)
    figures = {c["content"]: c for c in cells}["enrolled"]
    gallery = enrol_first(own, everything, 3)
    expected = measure_draw(directions, own.source, np.arange(SOURCES), gallery.rows)
    for name in FIGURES:
        assert figures[name]["mean"] == pytest.approx(expected[name])
    assert "reason" in {c["content"]: c for c in cells}["other"]


def test_sources_with_too_few_images_are_left_out(labels):
    few = (labels.source > 0) | (labels.semantic == 0)  # of the first, one semantic
    some = Labels(*(v[few] for v in (labels.source, labels.semantic, labels.group)))
    plan = make_plan(some, (5, 12, 99), draws=6, bootstrap=5, seed=0)
    _, cells, rejection = measured(plan, random_directions(some.source))
    # Where its semantic is enrolled, it has images of that content alone to ask about.
    assert cells[5, "enrolled"]["sources"] == [SOURCES - 1, SOURCES]
    assert cells[5, "other"]["sources"] == [SOURCES - 1, SOURCES - 1]
    assert cells[12, "other"]["sources"] == [SOURCES - 1, SOURCES - 1]
    assert "of an enrolled group" in cells[12, "enrolled"]["reason"]
    for content in CONTENT:
        assert "99 images" in cells[99, content]["reason"]
    assert rejection["k"] == 5


def test_other_content_is_needed():
    labels = Labels(*(np.array(v) for v in ([0, 0, 1, 1], [0] * 4, [0, 1, 2, 3])))
    with pytest.raises(InputError, match="give more semantics"):
        make_plan(labels, (1,), 1, 1, 0)
    confounded = replace(labels, semantic=labels.source)  # each source its own
    with pytest.raises(InputError, match="no two images of one source"):
        make_plan(confounded, (1,), 1, 1, 0)


def test_standardising_undoes_shifts_and_scales():
    features = np.random.default_rng(0).standard_normal((40, 5))
    features[:, 4] = 7  # says nothing
    moved = 3 + features * [1, 10, 0.1, 5, 2]
    np.testing.assert_allclose(standardised(moved), standardised(features), atol=1e-5)
    np.testing.assert_array_equal(standardised(features)[:, 4], 0)
    for space in SPACES.values():
        np.testing.assert_allclose(np.linalg.norm(space(features), axis=1), 1, 1e-5)


@pytest.fixture(scope="module")
def run(small_config, made_once):
    """Workdir of a fingerprint extractor, stopped before its first step."""
    import optax

    from rmjax.experiment.build import build_model, network_input
    from rmjax.experiment.checkpoints import Checkpoints
    from rmjax.experiment.step import create_state

    config = small_config(
        **{
            "model.arch": "shallow",  # compiles faster
            "model.input": "luma_chroma",
            "loss": "fingerprint",
            "simulate.generators": 3,
            "data.sources": ("real",),
            "mix.name": "none",
        }
    )

    def make(folder):
        state = create_state(
            build_model(config, 0),
            optax.identity(),
            config.seed,
            network_input(config).shape[1:],
        )
        checkpoints = Checkpoints(folder / CHECKPOINTS)
        checkpoints.save(state, {}, 1.0)
        checkpoints.close()
        start_workdir(folder, config, (), ("scene",))

    return made_once("extractor", make)


def test_features_are_of_the_right_images_whatever_their_shapes(run, mini_dir):
    model = rmjax.load(run)
    rng = np.random.default_rng(0)
    shapes = [(32, 40, 3), (33, 32, 3), (32, 40, 3)]
    pixels = [rng.integers(0, 256, shape, np.uint8) for shape in shapes]
    for feature in FEATURES.values():
        extract = feature.make(model, 32, 0)
        together = extract(pixels)
        alone = np.concatenate([extract([image]) for image in pixels])
        np.testing.assert_allclose(together, alone, rtol=1e-3, atol=1e-3)
        assert len(np.unique(together, axis=0)) == 3


def test_the_command_measures_features_under_conditions(
    run, mini_dir, tmp_path, capsys
):
    out = tmp_path / "figures.json"
    arguments = ["gallery", "benchmark", "--workdir", str(run)]
    arguments += ["--data", "attribution_mini", "--data-dir", str(mini_dir)]
    command = [*arguments, "--sources", "progan,real,cips", "--k", "1,500"]
    command += ["--draws", "2", "--bootstrap", "5", "--suite", "jpeg:75"]
    command += ["--features", "network,prnu"]  # all of them: see above
    assert main([*command, "--out", str(out)]) == 0
    text = capsys.readouterr().out
    assert "K = 500" in text and "jpeg:75" in text and "results:" in text
    results = json.loads(out.read_text())
    assert [*results["images"]] == ["real", "progan", "cips"]
    selection = select(
        open_dataset(find_dataset(mini_dir, "attribution_mini")), [*results["images"]]
    )
    counts = sum(
        np.bincount(labels["source"], minlength=3)
        for labels in selection.labels.values()
    )
    assert [*results["available"].values()] == counts.tolist()
    assert results["suite"] == ["clean", "jpeg:75"] and results["rejection_k"] == 1
    rows = {(r["condition"], r["features"], r["space"]): r for r in results["rows"]}
    expected = {
        (condition, name, space)
        for condition in results["suite"]
        for name in ("network", "prnu")
        for space in FEATURES[name].spaces
    }
    assert set(rows) == expected and len(results["rows"]) == len(expected)
    for row in rows.values():
        assert 0 <= row["verification"]["auc"]["mean"] <= 1
        assert set(row["rejection"]["left_out"]) == set(results["images"])
    clean, jpeg = (
        rows[c, "network", "cosine"]["verification"] for c in results["suite"]
    )
    assert clean != jpeg
    assert format_benchmark(results) in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "nothing"], "no prepared data set 'nothing'"),
        (["--sources", "real,nobody"], "unknown source 'nobody'"),
        (["--sources", "real"], "give two or more"),
        (["--features", "network,magic"], "unknown feature 'magic'"),
        (["--suite", "jpeg:200"], "jpeg"),
        (["--workdir", "nowhere"], "nowhere"),
    ],
)
def test_wrong_arguments_are_one_line(
    run, mini_dir, tmp_path, capsys, arguments, message
):
    out = tmp_path / "figures.json"
    usual = ["--workdir", str(run), "--data", "attribution_mini", "--data-dir"]
    command = ["gallery", "benchmark", *usual, str(mini_dir), "--out", str(out)]
    assert main([*command, *arguments]) == 2
    *_, line = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("rmjax gallery: error: ") and message in line
    assert not out.exists()
