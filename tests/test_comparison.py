"""Comparison of runs: paired, by the same draws, and no winner without an interval."""

import json

import numpy as np
import pytest
from results_sample import sample_results, write_answers, write_run

from rmjax.cli.main import main
from rmjax.errors import InputError
from rmjax.evaluation.differences import (
    Evaluated,
    cell_differences,
    differences,
    read_runs,
)
from rmjax.report.comparison import letters, points, verdicts, write_comparison


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Figures of no bytes, which take no time."""
    files = {"svg": b"<svg/>", "png": b""}
    monkeypatch.setattr("rmjax.report.comparison.render", lambda figure: files)


@pytest.fixture
def make_run(tmp_path):
    """Function of a name and results to the folder of such a run."""

    def make(name, results, right=0.6, seed=0):
        folder = write_run(tmp_path / name, results)
        write_answers(folder, results, right, seed)
        return tmp_path / name

    return make


def evaluated(guess, source, group, unseen=None):
    """A run that was evaluated clean and under three conditions of two kinds."""
    conditions = {
        "clean": ("clean", "clean"),
        "fog:1": ("seen_corruptions", "fog"),
        "fog:2": ("seen_corruptions", "fog"),
        "frost:1": ("seen_corruptions", "frost"),
    }
    cells = [
        {"condition": name, "set": part, "kind": kind, "semantics": "seen"}
        for name, (part, kind) in conditions.items()
    ]
    unseen = np.zeros(len(source), bool) if unseen is None else np.array(unseen)
    groups = {"seen": {}} | ({"unseen": {}, "combined": {}} if unseen.any() else {})
    answers = {
        "source": np.array(source),
        "group": np.array(group),
        "unseen": unseen,
        "new_pairs": np.zeros(len(source), bool),
        "conditions": np.array(list(conditions)),
        "guess": np.array(guess),
    }
    return Evaluated("run", {"cells": cells, "summary": groups}, answers)


SOURCE = [0, 1, 1, 2]
RIGHT = [SOURCE] * 4
WRONG = [[0, 1, 2, 2]] * 4  # one of four


def test_shares_are_means_over_values_then_kinds():
    # Right: all; none under fog:1; half under fog:2; three of four under frost.
    guess = [SOURCE, [1, 2, 0, 0], [0, 1, 2, 1], [0, 1, 1, 1]]
    rows = differences(
        evaluated(RIGHT, SOURCE, range(4)), evaluated(guess, SOURCE, range(4))
    )
    found = {(row["set"], row["metric"]): row for row in rows}
    assert len(rows) == 4 and found["clean", "attribution"]["difference"] == 0
    corrupted = found["seen_corruptions", "attribution"]
    assert corrupted["first"] == 1
    assert corrupted["other"] == pytest.approx(((0 + 0.5) / 2 + 0.75) / 2)
    # Taken for another generator it is still detected.
    detected = found["seen_corruptions", "detection"]["other"]
    assert detected == pytest.approx(((0.25 + 1) / 2 + 1) / 2)


def test_equal_runs_differ_by_exactly_nothing():
    run = evaluated(RIGHT, SOURCE, range(4))
    for row in differences(run, run):
        assert row["difference"] == 0 and row["low"] is row["high"] is None
    text = verdicts(differences(run, run), "B")[0]
    assert text.endswith(
        "clean, seen semantics: every image was answered alike, rightly or wrongly."
    )


def test_intervals_cover_the_difference_of_pairs():
    rng = np.random.default_rng(0)
    source = rng.integers(0, 3, 400)
    hard = rng.random(400) < 0.5  # for both runs: no part of what differs
    better = np.where(hard, (source + 1) % 3, source)
    worse = np.where(rng.random(400) < 0.1, (source + 1) % 3, better)
    first, other = (
        evaluated([guess] * 4, source, range(400)) for guess in (worse, better)
    )
    row = differences(first, other)[0]
    assert 0 < row["low"] < row["difference"] < row["high"]
    # Unpaired, two shares of 400 images near 1/2 would be known to 7 points.
    assert row["high"] - row["low"] < 0.05


def test_images_of_one_group_have_no_interval():
    first, other = evaluated(RIGHT, SOURCE, [7] * 4), evaluated(WRONG, SOURCE, [7] * 4)
    assert {row["low"] for row in differences(first, other)} == {None}
    assert "no interval" in verdicts(differences(first, other), "B")[0]


def test_groups_of_images_are_drawn_together():
    rng = np.random.default_rng(0)
    wrong = np.repeat(rng.random(50) < 0.5, 8)
    source = np.ones(400, int)
    guess = [np.where(wrong, 2, 1)] * 4
    spreads = []
    for group in (np.arange(400), np.repeat(np.arange(50), 8)):
        first, other = (evaluated(g, source, group) for g in ([source] * 4, guess))
        row = differences(first, other)[0]
        spreads.append(row["high"] - row["low"])
    assert spreads[1] > 2 * spreads[0]


def test_semantics_are_told_apart():
    unseen = [False, False, True, True]
    first = evaluated(RIGHT, SOURCE, range(4), unseen)
    other = evaluated([[0, 1, 2, 2]] * 4, SOURCE, range(4), unseen)
    found = {
        row["semantics"]: row["difference"]
        for row in differences(first, other)
        if (row["set"], row["metric"]) == ("clean", "attribution")
    }
    assert found == {"seen": 0, "unseen": -0.5, "combined": -0.25}


def test_page_names_differences_that_exclude_nothing(make_run, tmp_path, capsys):
    folders = [
        make_run("a", sample_results()),
        make_run("b", sample_results(strength=0.9), 0.75, 1),
        make_run("c<b>", sample_results(calibrated=False, open_set=False), 0.6, 2),
    ]
    out = tmp_path / "out"
    status = main(["report", "--workdir", *map(str, folders), "--out", str(out)])
    assert status == 0 and "comparison.html" in capsys.readouterr().out
    page = (out / "comparison.html").read_text()
    assert "B against A, clean, unseen semantics: +1" in page
    assert "C against A, clean, unseen semantics: there could be no difference" in page
    assert "C was never calibrated." in page and "C: none." in page
    assert "c&lt;b&gt;" in page and "c<b>" not in page
    assert "None" not in page and "nan" not in page
    names = {path.stem for path in (out / "figures").iterdir()}
    assert names == {f"difference_{r}_{g}" for r in "BC" for g in ("seen", "unseen")}


def test_configs_are_compared(make_run, tmp_path):
    other = sample_results(full=False)
    other["run"]["config"] |= {"seed": 1, "mix": {"name": "none"}}
    folders = [make_run("a", sample_results(full=False)), make_run("b", other)]
    page = write_comparison(folders, out=tmp_path / "out")["comparison"].read_text()
    assert "mix.name" in page and "&#34;none&#34;" in page
    assert "data.name" not in page
    assert "Only clean images were evaluated." in page


def test_cells_are_paired_by_condition():
    first, other = sample_results(), sample_results(strength=0.5)
    for cell in cell_differences(first, other, "unseen"):
        assert cell["semantics"] == "unseen"
        assert cell["difference"] == pytest.approx(-cell["attribution_accuracy"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"sources": ["real", "gan"]},
            "first alone knows progan, .*second alone knows gan$",
        ),
        ({"full": False}, "by the suites full and clean; evaluate both by the same"),
        ({"seen": ["cat"], "unseen": []}, "on different images of data/mini"),
    ],
)
def test_what_is_not_comparable_is_refused(make_run, changes, message):
    folders = [
        make_run("a", sample_results()),
        make_run("b", sample_results(**changes)),
    ]
    with pytest.raises(InputError, match=message):
        read_runs(folders)


def test_another_digest_is_refused(make_run):
    other = sample_results()
    other["data"]["digest"] = "0" * 64
    folders = [make_run("a", sample_results()), make_run("b", other)]
    with pytest.raises(InputError, match="different images"):
        read_runs(folders)
    # Of other pairs of source and semantic that is no mistake to be put right.
    for run, semantics in zip(folders, (["cat"], ["dog"]), strict=True):
        path = run / "evaluation" / "full" / "results.json"
        results = json.loads(path.read_text())
        results["data"]["trained_pairs"] = {"real": semantics}
        path.write_text(json.dumps(results))
    with pytest.raises(InputError, match="data.train_cells"):
        read_runs(folders)


def test_answers_that_are_missing_or_broken_are_refused(make_run):
    folder = make_run("a", sample_results(full=False))
    file = folder / "evaluation" / "full" / "predictions.npz"
    for data in (b"PK\x03\x04", b"", b"text"):
        file.write_bytes(data)
        with pytest.raises(InputError, match="predictions.npz can't be read"):
            read_runs([folder])
    file.unlink()
    with pytest.raises(InputError, match="predictions.npz is missing"):
        read_runs([folder])


def test_answers_of_another_evaluation_are_refused(make_run):
    folder = make_run("a", sample_results(full=False))
    results = sample_results(full=False)
    write_answers(folder / "evaluation" / "full", sample_results(), 0.6)
    with pytest.raises(InputError, match="not of the same evaluation"):
        read_runs([folder])
    results["data"]["images"] += 8
    write_answers(folder / "evaluation" / "full", results, 0.6)
    with pytest.raises(InputError, match="not of the same evaluation"):
        read_runs([folder])


def test_cells_without_a_share_have_no_difference():
    first, other = sample_results(), sample_results()
    other["cells"][0]["attribution_accuracy"] = None
    assert cell_differences(first, other, "seen")[0]["difference"] is None
    assert cell_differences(other, first, "seen")[0]["difference"] is None


def test_a_comparison_needs_a_folder(make_run, capsys):
    folder = str(make_run("a", sample_results(full=False)))
    assert main(["report", "--workdir", folder, folder]) == 2
    assert "give --out DIR" in capsys.readouterr().err


def test_small_differences_do_not_look_like_none():
    shown = [points(v) for v in (0.0312, -0.0312, 0.0, -0.0004, None)]
    assert shown == ["+3.1", "−3.1", "0", "−0.04", "–"]
    assert letters(28)[-3:] == ["Z", "AA", "AB"]
