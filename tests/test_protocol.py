"""The protocol's figures from answers that are known: cells, means, decisions."""

import numpy as np
import pytest

from rmjax.evaluation.metrics import SCORES
from rmjax.evaluation.openset import fit_reference, measure_open_set
from rmjax.evaluation.predict import Grid
from rmjax.evaluation.protocol import measure_decisions, measure_grid
from rmjax.evaluation.robustness import parse_suite
from rmjax.inference.calibration import UNCALIBRATED, Calibration

SOURCES = ("real", "a", "b")


def make_grid(guesses, truth, group=None):
    """A grid of one part, whose network names `guesses` `[conditions, N]` surely."""
    guesses, truth = np.array(guesses), np.array(truth)
    attribution = 9 * np.eye(3, dtype="f4")[guesses]
    synthetic = (guesses > 0).astype(int)
    return Grid(
        conditions=parse_suite("fog:1,fog:5,snow:2"),
        rows={"seen": slice(0, len(truth))},
        truth={
            "source": truth,
            "semantic": np.zeros_like(truth),
            "group": np.arange(len(truth)) if group is None else np.array(group),
            "split": np.zeros_like(truth),
            "index": np.arange(len(truth)),
        },
        embedding=np.random.default_rng(0).normal(size=(len(truth), 4)),
        attribution=attribution,
        detection=9 * np.eye(2, dtype="f4")[synthetic],
    )


TRUTH = [0, 0, 1, 1]
GUESSES = [[0, 0, 1, 1], [0, 0, 1, 0], [0, 0, 0, 0], [1, 1, 2, 2]]


def test_cells_and_their_means():
    found = measure_grid(make_grid(GUESSES, TRUTH), SOURCES, UNCALIBRATED, draws=20)
    shares = [cell["attribution_accuracy"] for cell in found["cells"]]
    assert shares == [1, 0.75, 0.5, 0]
    detected = [cell["detection_accuracy"] for cell in found["cells"]]
    assert detected == [1, 0.75, 0.5, 0.5]
    summary = found["summary"]["seen"]
    assert summary["seen_corruptions"]["attribution_accuracy"] == (0.75 + 0.5) / 2
    assert summary["kinds"]["fog"]["detection_accuracy"] == (0.75 + 0.5) / 2
    assert summary["unseen_corruptions"]["attribution_accuracy"] == 0
    assert summary["worst"] == {"condition": "snow:2", "attribution_accuracy": 0}
    # Source b has no images: the mean F1 is of the other two.
    assert found["cells"][1]["macro_f1"] == pytest.approx((4 / 5 + 2 / 3) / 2)
    assert found["confusion"]["seen"]["seen_corruptions"] == [
        [4, 0, 0], [3, 1, 0], [0, 0, 0],
    ]  # fmt: skip


def test_each_kind_counts_alike_however_many_values_it_has():
    grid = make_grid(GUESSES, TRUTH)
    grid = Grid(**vars(grid) | {"conditions": parse_suite("fog:1,fog:5,contrast:2")})
    found = measure_grid(grid, SOURCES, UNCALIBRATED, draws=20)
    mean = found["summary"]["seen"]["seen_corruptions"]["attribution_accuracy"]
    assert mean == pytest.approx(((0.75 + 0.5) / 2 + 0) / 2)


def test_one_group_of_images_has_no_interval():
    grid = make_grid(GUESSES, TRUTH, group=[3, 3, 3, 3])
    found = measure_grid(grid, SOURCES, UNCALIBRATED, draws=20)
    for values in (*found["cells"], found["summary"]["seen"]["clean"]):
        for name in SCORES:
            assert values[name] is not None
            assert values[f"{name}_low"] is None and values[f"{name}_high"] is None


def test_intervals_of_means_are_paired():
    rng = np.random.default_rng(0)
    truth = np.arange(300) % 2
    wrong = rng.random(300) < 0.3
    # The same images are wrong everywhere: averaging narrows nothing.
    guess = np.where(wrong, 1 - truth, truth)
    found = measure_grid(
        make_grid([guess] * 4, truth), SOURCES, UNCALIBRATED, draws=200
    )
    cell, mean = found["cells"][1], found["summary"]["seen"]["seen_corruptions"]
    for end in ("low", "high"):
        name = f"attribution_accuracy_{end}"
        assert mean[name] == pytest.approx(cell[name])


def test_decisions_follow_the_stored_thresholds():
    grid = make_grid(GUESSES, TRUTH)
    sure = grid.predictions(0, "seen").attribution
    best = UNCALIBRATED.attribute(sure).max()
    calibration = Calibration(
        images=1,
        reject={"threshold": best + 1e-9, "fpr": 0.05},
        operating_points=({"fpr": 0.05, "threshold": 0.5},),
    )
    found = measure_decisions(grid.predictions(1, "seen"), calibration)
    assert found == {"tpr_at_0.05": 0.5, "fpr_at_0.05": 0.0, "rejected": 1.0}
    # Of real images alone there is no true-positive rate.
    real = grid.predictions(3, "seen").where(np.array(TRUTH) == 0)
    found = measure_decisions(real, calibration)
    assert found["tpr_at_0.05"] is None and found["fpr_at_0.05"] == 1
    assert measure_decisions(real, UNCALIBRATED) == {}


def test_without_near_sources_there_are_no_figures_of_them():
    rng = np.random.default_rng(0)
    known = make_grid([TRUTH * 10] * 4, TRUTH * 10).predictions(0, "seen")
    unknown = known.where(known.source == 0)
    found = measure_open_set(
        known,
        unknown,
        fit_reference(rng.normal(size=(40, 4)), np.arange(40) % 2),
        UNCALIBRATED,
        sources=SOURCES,
        held_out=("x", "y"),
        near=(),
    )
    assert found["held_out"] == {"x": {"images": 20, "kin": "far"}}
    assert found["without_images"] == ["y"]
    assert found["rejected"] is None and found["called_synthetic"] is None
    for by_kin in found["scores"].values():
        assert by_kin["near"] is None
        assert by_kin["far"] == by_kin["all"] == by_kin["by_source"]["x"]
    assert found["attributed_to"] == {"x": {"real": 1.0, "a": 0.0, "b": 0.0}}
    # Answers on unknown images that are as sure as those on known ones: guessing.
    assert found["scores"]["max_probability"]["all"]["auroc"] == pytest.approx(0.5)
