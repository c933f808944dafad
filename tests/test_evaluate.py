"""Evaluation of a run: exact whatever the batches and devices, and readable."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from rmjax import report
from rmjax.corruptions import NAMES
from rmjax.errors import InputError
from rmjax.evaluate import _result_files, evaluate, make_predictor
from rmjax.experiment import open_data
from rmjax.inference import load


def test_results_are_written_and_add_up(small_run, small_config):
    results = evaluate(small_run, show_progress=False)
    assert json.loads((small_run / "results.json").read_text()) == results
    groups = results["groups"]
    assert set(groups) == {"seen", "unseen", "combined"}
    seen, unseen, combined = (groups[k] for k in ("seen", "unseen", "combined"))
    # One test image in each of 8 x 11 cells.
    assert combined["images"] == 88 == seen["images"] + unseen["images"]
    total = np.add(seen["confusion"], unseen["confusion"])
    np.testing.assert_array_equal(combined["confusion"], total)
    assert len(seen["by_semantic"]) == 11 - len(small_config().data.unseen_semantics)
    assert len(combined["by_semantic"]) == 11
    for name in ("confusion.png", "mistakes.png", "curves.png"):
        assert min(Image.open(small_run / name).size) > 200


def test_predictions_do_not_depend_on_batches_or_devices(small_run):
    found = []
    for devices, batch_size in ((1, 64), (1, 7), (2, 10), (8, 24)):
        run = load(small_run, num_devices=devices)
        run.config.eval_batch_size = batch_size
        data = open_data(run.config)
        predict = make_predictor(run.config, len(data.sources), run.devices)
        found.append(predict(run.variables, data.seen, ("test", "val")))
    first, *others = found
    assert len(first) == data.seen.size("test") + data.seen.size("val")
    for other in others:
        for name in ("source", "semantic", "split", "index"):
            np.testing.assert_array_equal(getattr(other, name), getattr(first, name))
        np.testing.assert_allclose(other.attribution, first.attribution, atol=1e-5)
        np.testing.assert_allclose(other.embedding, first.embedding, atol=1e-4)


def test_single_semantics_and_other_splits_get_files_of_their_own(small_run):
    results = evaluate(
        small_run, split="all", semantics=("bus", "cat"), show_progress=False
    )
    assert results["groups"]["chosen"]["images"] == 2 * 8 * 8
    assert set(results["groups"]["chosen"]["by_semantic"]) == {"bus", "cat"}
    assert (small_run / "results_all_bus_cat.json").exists()


def test_corruptions_are_measured_beside_clean_images(small_run, tmp_path):
    workdir = shutil.copytree(small_run, tmp_path / "run")
    suite = "contrast:1,contrast:5,zoom_blur:5,flip"
    results = evaluate(workdir, suite=suite, show_progress=False)
    assert list(results["conditions"]) == [
        "clean",
        *suite.replace("flip", "flip:1").split(","),
    ]
    clean = evaluate(workdir, show_progress=False)
    assert results["groups"] == clean["groups"]
    conditions = results["conditions"]
    losses = {name: figures["seen"]["loss"] for name, figures in conditions.items()}
    assert losses["clean"] == clean["groups"]["seen"]["loss"]
    assert len(set(losses.values())) == 5
    summary = results["summary"]["unseen"]
    assert summary["unseen_corruptions"]["attribution_accuracy"] == pytest.approx(
        conditions["zoom_blur:5"]["unseen"]["attribution_accuracy"]
    )
    assert Image.open(results["files"]["robustness"]).size[0] > 200
    table = report.format_summary(results["summary"])
    assert "unseen corruptions" in table and "contrast" in table


def test_names_of_results_stay_short_and_apart(tmp_path):
    suites = ",".join(f"{name}:5" for name in NAMES), ",".join(NAMES)
    files = [_result_files(tmp_path, suite, "test", ())["results"] for suite in suites]
    assert files[0] != files[1]
    for file in files:
        file.write_text("")  # as long as a file system allows
        assert len(file.name) < 120


def test_unseen_images_of_all_splits_by_config(small_config, small_run, tmp_path):
    shutil.copytree(small_run, tmp_path / "run")
    path = tmp_path / "run" / "config.json"
    config = json.loads(path.read_text())
    config["data"]["unseen_split"] = "all"
    path.write_text(json.dumps(config))
    groups = evaluate(tmp_path / "run", show_progress=False)["groups"]
    unseen = len(small_config().data.unseen_semantics)
    assert groups["unseen"]["images"] == unseen * 8 * 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "dev"}, "unknown split 'dev': choose one of train, val, test, all"),
        ({"checkpoint": "7"}, "no checkpoint 7 in .*: there are 4, 8, 12"),
        ({"checkpoint": "newest"}, "'newest': give best, last or a step"),
        ({"semantics": ("moon",)}, "unknown semantic 'moon'"),
        ({"data_dir": "nowhere"}, "rmjax prepare attribution_mini"),
    ],
)
def test_bad_requests_say_what_would_be_right(small_run, arguments, message):
    with pytest.raises(InputError, match=message):
        evaluate(small_run, show_progress=False, **arguments)


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(InputError, match="no run in .*config.json is missing"):
        evaluate(tmp_path, show_progress=False)
