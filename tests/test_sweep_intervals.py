"""Intervals over seeds and images: known cases, and how often they hold what is true."""

import numpy as np
import pytest
from results_sample import sample_results, write_answers, write_run
from scipy import stats
from sweep_sample import REFERENCE, sample_findings

from rmjax.evaluation.bootstrap import Resamples, draw_resamples
from rmjax.evaluation.differences import read_runs
from rmjax.sweep.collect import collect
from rmjax.sweep.intervals import (
    POWER,
    ImageSpread,
    estimate,
    image_spread,
    smallest_detectable,
)
from rmjax.sweep.runs import Cell


def test_without_a_spread_of_images_it_is_students_interval():
    scores = np.array([0.81, 0.84, 0.79, 0.9, 0.86])
    found = estimate(scores, ImageSpread(0.0, 100))
    ends = stats.t.interval(0.95, 4, scores.mean(), stats.sem(scores))
    assert (found.low, found.high) == pytest.approx(ends)
    assert found.mean == pytest.approx(scores.mean())


@pytest.mark.parametrize("scores", [[0.8], [0.8, 0.8, 0.8]])
def test_without_a_spread_of_seeds_it_is_the_images_interval(scores):
    found = estimate(np.array(scores), ImageSpread(0.01**2, 8))
    ends = stats.t.interval(0.95, 7, 0.8, 0.01)
    assert (found.low, found.high) == pytest.approx(ends)


def test_both_parts_add_up_each_with_its_quantile():
    """Seeds' part 0.0004 with 2 degrees of freedom, images' 0.0002 with 9."""
    scores = 0.5 + np.array([-1, 0, 1]) * np.sqrt(3 * 0.0004)
    found = estimate(scores, ImageSpread(0.0002, 10))
    square = stats.t.ppf(0.975, 2) ** 2 * 0.0004 + stats.t.ppf(0.975, 9) ** 2 * 0.0002
    assert found.high - found.mean == pytest.approx(np.sqrt(square))


@pytest.mark.parametrize("spread", [ImageSpread(0.0, 10), None])
def test_where_nothing_varies_or_is_known_there_is_no_interval(spread):
    found = estimate(np.array([1.0, 1.0]), spread)
    assert found == (1.0, None, None)


def test_variance_of_images_is_that_of_a_mean():
    rng = np.random.default_rng(0)
    scores = rng.random(400)
    drawn = draw_resamples(np.arange(400), 4000)
    found = image_spread(scores, drawn)
    assert found == pytest.approx((scores.var() / 400, 400), rel=0.1)
    # Four copies of each image say no more than one.
    drawn = draw_resamples(np.repeat(np.arange(400), 4), 4000)
    found = image_spread(np.repeat(scores, 4), drawn)
    assert found == pytest.approx((scores.var() / 400, 400), rel=0.1)
    # Images of some of the groups only; of few; and of one.
    part = drawn.code < 100
    some = image_spread(
        np.repeat(scores, 4)[part], Resamples(drawn.code[part], drawn.counts)
    )
    assert some == pytest.approx((scores[:100].var() / 100, 100), rel=0.15)
    drawn = draw_resamples(np.arange(4), 4000)
    few = image_spread(scores[:4], drawn)
    assert few == pytest.approx((scores[:4].var(ddof=1) / 4, 4), rel=0.1)
    assert image_spread(scores[:4], Resamples(np.zeros(4, int), drawn.counts)) is None


@pytest.mark.parametrize(
    ("seeds", "images", "by_seed", "by_image", "rest"),
    [
        (2, 60, 1.0, 3.0, 0.0),
        (2, 60, 1.0, 0.0, 0.0),
        (3, 60, 1.0, 3.0, 0.0),
        (3, 60, 1.0, 6.0, 2.0),
        (5, 60, 1.0, 10.0, 2.0),
        (5, 60, 0.2, 8.0, 2.0),
        (5, 6, 0.5, 2.0, 0.0),
        (8, 60, 2.0, 2.0, 2.0),
    ],
)
def test_intervals_hold_the_truth_as_often_as_they_say(
    seeds, images, by_seed, by_image, rest
):
    """Of seeds and images that both are drawn anew, with their own share of each."""
    rng = np.random.default_rng(0)
    rounds, held = 400, 0
    drawn = draw_resamples(np.arange(images), 300)
    for _ in range(rounds):
        scores = by_seed * rng.normal(size=(seeds, 1))
        scores = scores + by_image * rng.normal(size=images)
        scores += rest * rng.normal(size=scores.shape)
        spread = image_spread(scores.mean(0), drawn)
        found = estimate(scores.mean(1), spread)
        held += found.low <= 0 <= found.high
    print(f"{held / rounds:.4f} of {rounds} intervals hold the truth")
    # 0.95 with 400 rounds: +-0.022. Two parts, each at its level, hold it more often.
    assert 0.928 <= held / rounds <= 0.995


def test_one_part_alone_would_hold_it_too_rarely():
    rng = np.random.default_rng(0)
    by_seed = by_image = 0
    for _ in range(400):
        mean = rng.normal() + rng.normal(size=5)  # of the images, and of five seeds
        found = (
            estimate(mean, ImageSpread(0.0, 60)),
            estimate(mean[:1], ImageSpread(1.0, 60)),
        )
        by_seed += found[0].low <= 0 <= found[0].high
        by_image += found[1].low <= 0 <= found[1].high
    assert by_seed < 0.9 * 400 and by_image < 0.9 * 400


@pytest.mark.parametrize(
    ("seeds", "images", "by_seed", "by_image"),
    [
        (2, 60, 1.0, 0.0),
        (3, 60, 1.0, 0.0),
        (5, 60, 1.0, 0.0),
        (5, 60, 1.0, 3.0),
        (5, 60, 0.0, 1.0),
    ],
)
def test_a_detectable_difference_is_found_as_often_as_it_says(
    seeds, images, by_seed, by_image
):
    """Of the true size that the spread allows; an estimate of it varies as that does."""
    rng = np.random.default_rng(0)
    spread = ImageSpread(by_image**2 / images, images)
    # A sample with the true variance of the seeds.
    typical = np.linspace(-1, 1, seeds)
    typical *= by_seed / (np.std(typical, ddof=1) or 1)
    true = smallest_detectable(typical, spread)
    rounds, found = 1000, 0
    for _ in range(rounds):
        scores = true + by_seed * rng.normal(size=seeds)
        scores += rng.normal() * spread.variance**0.5
        found += estimate(scores, spread).low > 0
    print(f"{found / rounds:.3f} of {rounds} rounds find a difference of {true:.2f}")
    # 0.8 with 1,000 rounds: +-0.025. Where both parts count, it is found more often.
    assert POWER - 0.035 <= found / rounds <= 0.97


@pytest.mark.parametrize("spread", [ImageSpread(0.0, 10), None])
def test_where_there_is_no_interval_nothing_is_detectable(spread):
    assert smallest_detectable(np.array([1.0, 1.0]), spread) is None


# --------------------------------------------------------------------------- collected


@pytest.fixture(scope="module")
def findings(tmp_path_factory):
    return sample_findings(tmp_path_factory.mktemp("sample"))


def test_rows_are_means_over_seeds_and_differences_by_pairs(findings):
    rows = {
        (r["cell"], r["semantics"], r["set"], r["metric"]): r for r in findings.rows
    }
    assert len(rows) == len(findings.rows) == 3 * 3 * 4 * 2
    row = rows["mix.name=repmix", "unseen", "seen_corruptions", "attribution"]
    assert (row["seeds"], row["paired_seeds"]) == (2, 2)
    assert row["mean_low"] < row["mean"] < row["mean_high"]
    # 0.85 and 0.6 of the images, less the tenth that is lost to every seed anew.
    assert row["difference"] == pytest.approx(0.9 * 0.25, abs=0.03)
    assert 0 < row["difference_low"] < row["difference"] < row["difference_high"]
    half = row["difference_high"] - row["difference"]
    assert row["detectable"] > half
    own = rows[REFERENCE, "unseen", "seen_corruptions", "attribution"]
    assert own["paired_seeds"] == 0 and own["difference"] is own["detectable"] is None
    assert findings.reasons == {}


def test_pairs_cancel_what_is_hard_for_both(findings):
    """The same draw decides which images both cells miss."""
    (row,) = [
        r
        for r in findings.rows
        if (r["cell"], r["semantics"]) == ("mix.name=old", "combined")
        and (r["set"], r["metric"]) == ("seen_corruptions", "attribution")
    ]
    assert row["seeds"] == row["paired_seeds"] == 1
    width = row["difference_high"] - row["difference_low"]
    assert 0 < width < 0.9 * 2**0.5 * (row["mean_high"] - row["mean_low"])


def cell(label):
    return Cell(label, {}, 1, present=True)


def test_shares_end_at_0_and_1(tmp_path):
    results = sample_results(full=False)
    folders = [tmp_path / "0", tmp_path / "1"]
    for seed, right in enumerate((0.99, 0.6)):
        write_answers(write_run(folders[seed], results), results, right, seed)
    runs = dict(enumerate(read_runs(folders, "full")))
    rows, _ = collect({cell("a"): runs}, "a", draws=100)
    assert {row["seeds"] for row in rows} == {2}
    assert all(0 <= row["mean_low"] < row["mean_high"] <= 1 for row in rows)
    assert any(row["mean_high"] == 1 for row in rows)


def test_cells_of_other_images_have_no_difference_and_a_reason(tmp_path):
    found = {}
    for name, more in (("a", {}), ("b", {"seen": ["cat"], "unseen": []})):
        results = sample_results(full=False, **more)
        write_answers(write_run(tmp_path / name, results), results, 0.6)
        found[cell(name)] = {0: read_runs([tmp_path / name], "full")[0]}
    a, b = found
    rows, reasons = collect(found, "a", draws=100)
    assert list(reasons) == ["b"] and "different images" in reasons["b"]
    assert {row["difference"] for row in rows if row["cell"] == "b"} == {None}
    rows, reasons = collect({b: found[b]}, "a", draws=100)
    assert reasons == {"b": "the reference has no finished run"}
    of_other_seed = {a: found[a], cell("c"): {1: found[a][0]}}
    _, reasons = collect(of_other_seed, "a", draws=100)
    assert reasons == {"c": "it has no finished seed that the reference has"}
