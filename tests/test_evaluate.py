"""Evaluation of a run: what is written adds up, and can be had again."""

import csv
import json
import shlex
import shutil
from pathlib import Path

import numpy as np
import optax
import pytest
from PIL import Image
from sklearn import metrics as sk

from rmjax.cli import main as cli
from rmjax.corruptions import NAMES
from rmjax.data.dataset import take
from rmjax.data.images import decode_rgb
from rmjax.data.pipeline import eval_batches
from rmjax.errors import InputError
from rmjax.evaluation.calibration import calibrate
from rmjax.evaluation.description import DEFAULTS, name_evaluation, write_command
from rmjax.evaluation.differences import differences, read_run
from rmjax.evaluation.evaluate import _choose_parts, evaluate
from rmjax.evaluation.results import format_results, read_results
from rmjax.experiment.build import build_model, network_input
from rmjax.experiment.checkpoints import Checkpoints
from rmjax.experiment.data import open_data
from rmjax.experiment.run import CHECKPOINTS, start_workdir
from rmjax.experiment.step import create_state
from rmjax.inference.spectra import (
    SPECTRA_FILE,
    describe_spectrum,
    load_spectra,
    mean_power,
)

SUITE = "contrast:1,contrast:5,zoom_blur:5,flip"


@pytest.fixture(scope="module")
def workdir(small_run, tmp_path_factory):
    return shutil.copytree(small_run, tmp_path_factory.mktemp("evaluated") / "run")


@pytest.fixture(scope="module")
def results(workdir):
    return evaluate(workdir, suite=SUITE, draws=50, show_progress=False)


@pytest.fixture(scope="module")
def open_run(small_config, tmp_path_factory):
    """An evaluated network that does not know two of the sources (nor anything).

    Of the others it is to know three of six semantics each.
    """
    workdir = tmp_path_factory.mktemp("open")
    config = small_config(
        **{
            "data.held_out_sources": ("cips", "stylegan3"),
            "data.near_sources": ("stylegan3",),
            "data.train_cells": (3,),
        }
    )
    data = open_data(config)
    model = build_model(config, len(data.sources))
    shape = network_input(config).shape[1:]
    start_workdir(workdir, config, data.sources, data.dataset.semantic_names)
    checkpoints = Checkpoints(workdir / CHECKPOINTS)
    checkpoints.save(create_state(model, optax.sgd(0.1), 0, shape), {})
    checkpoints.close()
    return evaluate(workdir, draws=10, show_progress=False)


def cell_of(results, condition, semantics):
    (cell,) = (
        cell
        for cell in results["cells"]
        if (cell["condition"], cell["semantics"]) == (condition, semantics)
    )
    return cell


def test_files_hold_the_results(results, workdir):
    folder = workdir / "evaluation" / "contrast-1-contrast-5-zoom_blur-5-flip"
    assert results["folder"] == str(folder)
    stored = read_results(folder)
    assert stored == {k: v for k, v in results.items() if k != "folder"}
    with (folder / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    # Clean and four conditions, on seen, unseen and both.
    assert len(rows) == len(results["cells"]) == 5 * 3
    for row, cell in zip(rows, results["cells"], strict=True):
        assert row == {k: "" if v is None else str(v) for k, v in cell.items()}
    for mistake in results["mistakes"]:
        assert max(Image.open(folder / mistake["file"]).size) == 32
        assert mistake["source"] != mistake["attributed"]
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_figures_are_those_of_the_predictions(results, workdir):
    with np.load(next(workdir.glob("evaluation/contrast*/predictions.npz"))) as stored:
        source, unseen = stored["source"], stored["unseen"]
        guesses = dict(zip(stored["conditions"], stored["guess"], strict=True))
    assert list(guesses) == ["clean", *SUITE.replace("flip", "flip:1").split(",")]
    groups = {"seen": ~unseen, "unseen": unseen, "combined": np.ones(88, bool)}
    for condition, guess in guesses.items():
        for group, rows in groups.items():
            cell = cell_of(results, condition, group)
            truth, said = source[rows], guess[rows]
            assert cell["images"] == rows.sum()
            assert cell["attribution_accuracy"] == sk.accuracy_score(truth, said)
            expected = sk.accuracy_score(truth > 0, said > 0)
            assert cell["detection_accuracy"] == pytest.approx(expected)
            expected = sk.f1_score(truth, said, average="macro", labels=range(8))
            assert cell["macro_f1"] == pytest.approx(expected)
            expected = sk.normalized_mutual_info_score(truth, said)
            assert cell["nmi"] == pytest.approx(expected, abs=1e-9)
            low, high = (cell[f"attribution_accuracy_{end}"] for end in ("low", "high"))
            assert low <= cell["attribution_accuracy"] <= high and low < high


def test_means_and_the_worst_cell(results):
    seen = results["summary"]["seen"]
    contrast = [
        cell_of(results, f"contrast:{severity}", "seen")["macro_f1"]
        for severity in (1, 5)
    ]
    assert seen["seen_corruptions"]["macro_f1"] == pytest.approx(np.mean(contrast))
    zoom = cell_of(results, "zoom_blur:5", "seen")["nmi"]
    assert seen["unseen_corruptions"]["nmi"] == pytest.approx(zoom)
    worst = min(
        cell["attribution_accuracy"]
        for cell in results["cells"]
        if cell["semantics"] == "seen"
    )
    assert seen["worst"]["attribution_accuracy"] == worst
    total = np.add(
        results["confusion"]["seen"]["seen_corruptions"],
        results["confusion"]["unseen"]["seen_corruptions"],
    )
    both = results["confusion"]["combined"]["seen_corruptions"]
    np.testing.assert_array_equal(total, both)
    assert np.sum(both) == 2 * 88


def test_clean_images_by_source_and_semantic(results, small_config):
    clean = results["clean"]
    assert len(clean["seen"]["by_semantic"]) == 11 - len(
        small_config().data.unseen_semantics
    )
    for name, recall in clean["seen"]["recall"].items():
        shares = [r[name] for r in clean["seen"]["recall_by_semantic"].values()]
        assert np.mean(shares) == pytest.approx(recall)  # one image each
    assert 0 <= clean["seen"]["frechet_ratio"] and 0 < clean["seen"]["purity"] <= 1


def test_the_run_is_calibrated_on_its_validation_images(results, workdir):
    stored = json.loads((workdir / "calibration.json").read_text())
    (only,) = stored["checkpoints"].values()
    found = results["calibration"]
    assert only["attribution"] == found["temperature"]["attribution"] != 1
    assert found["images"] == 48  # validation images of six seen semantics
    cell = cell_of(results, "clean", "seen")
    assert cell["ece"] != cell["ece_uncalibrated"]
    assert cell["nll_uncalibrated"] == pytest.approx(cell["attribution_loss"], rel=1e-5)
    assert {"tpr_at_0.05", "fpr_at_0.05", "tpr_at_0.01", "rejected"} <= set(cell)


def test_again_gives_the_same_to_the_last_digit(results, workdir):
    spectra = (workdir / SPECTRA_FILE).read_bytes()
    again = evaluate(workdir, suite=SUITE, draws=50, show_progress=False)
    assert again == results
    assert (workdir / SPECTRA_FILE).read_bytes() == spectra


def test_spectra_of_sources_are_of_their_own_images(results, workdir, small_config):
    stored = load_spectra(workdir)["sources"]
    assert list(stored) == results["sources"]
    seen = open_data(small_config()).seen
    files = seen.dataset.files("test")
    for label in (0, 3):
        rows = seen.records["test"][seen.labels["test"]["source"] == label]
        images = [decode_rgb(data) for _, data in files.read(rows.tolist())]
        found = stored[results["sources"][label]]
        assert found["images"] == len(images) == 6
        expected = describe_spectrum(np.asarray(mean_power(np.stack(images))))
        np.testing.assert_allclose(found["levels"], expected["levels"], atol=0.02)


def test_clean_alone_agrees_with_the_suite(results, workdir):
    clean = evaluate(workdir, draws=50, fprs=(0.1,), show_progress=False)
    assert clean["folder"].endswith("evaluation/clean")
    cell = cell_of(clean, "clean", "unseen")
    old = cell_of(results, "clean", "unseen")
    shared = set(cell) & set(old)
    assert {name: cell[name] for name in shared} == {name: old[name] for name in shared}
    assert "tpr_at_0.1" in cell and "tpr_at_0.05" not in cell


def test_the_text_has_the_main_figures(results):
    text = format_results(results)
    for part in ("seen corruptions", "zoom_blur", "worst, unseen", "calibrated on 48"):
        assert part in text
    assert "nan" not in text.lower()


def test_unknown_sources_are_scored_apart(open_run):
    found = open_run["open_set"]
    assert open_run["sources"] == [
        "real", "progan", "dcgan", "stylegan", "pixelshuffle", "biggan",
    ]  # fmt: skip
    assert found["held_out"] == {
        "cips": {"images": 6, "kin": "far"},
        "stylegan3": {"images": 6, "kin": "near"},
    }
    for by_kin in found["scores"].values():
        assert [by_kin[kin]["images"] for kin in ("near", "far", "all")] == [6, 6, 12]
        mean = (by_kin["near"]["auroc"] + by_kin["far"]["auroc"]) / 2
        assert by_kin["all"]["auroc"] == pytest.approx(mean)
    assert set(found["scores"]) == {"max_probability", "energy", "knn", "mahalanobis"}
    for shares in found["attributed_to"].values():
        assert sum(shares.values()) == pytest.approx(1)
    assert {"known", "near", "far", "all"} <= set(found["rejected"])
    assert "unknown" in open_run["map"]["semantics"]
    assert "AUROC of unknown by knn: near" in format_results(open_run)


def test_new_pairs_are_a_subset_of_their_own(open_run):
    assert list(open_run["summary"]) == ["seen", "new_pairs", "unseen", "combined"]
    images = {c["semantics"]: c["images"] for c in open_run["cells"]}
    assert images == {"seen": 18, "new_pairs": 18, "unseen": 30, "combined": 66}
    assert open_run["open_set"]["known_images"] == 18
    trained = open_run["data"]["trained_pairs"]
    assert [len(trained[source]) for source in open_run["sources"]] == [3] * 6
    recalls = {g: own["recall_by_semantic"] for g, own in open_run["clean"].items()}
    for semantic in open_run["semantics"]["seen"]:
        for source in open_run["sources"]:
            known = semantic in trained[source]
            assert (recalls["seen"][semantic][source] is not None) == known
            assert (recalls["new_pairs"][semantic][source] is None) == known
    assert {"seen", "new_pairs", "unseen", "unknown"} == {*open_run["map"]["semantics"]}
    assert "new pairs" in format_results(open_run)
    # What the file of predictions says of each image gives the same figures.
    run = read_run(Path(open_run["folder"]).parents[1])
    for row in differences(run, run, draws=5):
        cell = cell_of(open_run, "clean", row["semantics"])
        assert row["first"] == pytest.approx(cell[f"{row['metric']}_accuracy"])


def test_too_few_images_for_a_figure_are_said_to_be(workdir):
    results = evaluate(
        workdir, split="val", semantics=("bus",), draws=10, show_progress=False
    )
    assert results["evaluation"]["name"] == "clean_split-val_semantics-bus"
    assert results["clean"]["chosen"]["frechet_ratio"] is None
    assert "images" in results["clean"]["chosen"]["frechet_note"]


def test_a_source_without_test_images_is_named(workdir, monkeypatch, caplog):
    from rmjax.evaluation import evaluate as module

    def without_cips(data, split, semantics):
        labels = data.seen.labels["test"]["source"]
        rows = np.flatnonzero(labels != data.sources.index("cips"))
        return {"seen": (take(data.seen, "test", rows), ("test",))}

    monkeypatch.setattr(module, "_choose_parts", without_cips)
    results = evaluate(workdir, suite="clean,clean", draws=10, show_progress=False)
    assert results["without_images"] == {"seen": ["cips"]}
    assert results["clean"]["seen"]["recall"]["cips"] is None
    assert "no test images of cips among seen semantics" in caplog.text
    assert 0 <= cell_of(results, "clean", "seen")["macro_f1"] <= 1


def test_without_validation_images_nothing_is_calibrated(
    small_run, tmp_path, monkeypatch
):
    from rmjax.evaluation import evaluate as module

    workdir = shutil.copytree(small_run, tmp_path / "run")
    monkeypatch.setattr(module, "_validation", lambda _: None)
    results = evaluate(workdir, draws=10, show_progress=False)
    assert results["calibration"] is None
    assert not any(mistake["calibrated"] for mistake in results["mistakes"])
    cell = cell_of(results, "clean", "seen")
    assert cell["ece"] == cell["ece_uncalibrated"] and "rejected" not in cell
    assert "not calibrated" in format_results(results)
    assert not (workdir / "calibration.json").exists()


@pytest.mark.parametrize("real", [True, False])
def test_a_checkpoint_is_calibrated_once(small_run, tmp_path, monkeypatch, real):
    from rmjax.evaluation import evaluate as module

    workdir = shutil.copytree(small_run, tmp_path / "run")
    times = []

    def count(*arguments, **options):
        times.append(options)
        return calibrate(*arguments, **options)

    def validation(data):
        rows = np.flatnonzero((data.seen.labels["val"]["source"] > 0) | real)
        return take(data.seen, "val", rows), ("val",)

    monkeypatch.setattr(module, "calibrate", count)
    monkeypatch.setattr(module, "_validation", validation)
    first, again, other = (
        evaluate(workdir, draws=10, show_progress=False, **rates)["calibration"]
        for rates in ({}, {}, {"fprs": (0.2,)})
    )
    assert first == again and bool(first["operating_points"]) is real
    assert len(times) == 2 and times[1]["fprs"] == (0.2,)
    assert [p["fpr"] for p in other["operating_points"]] == [0.2] * real


@pytest.mark.slow
def test_worker_processes_change_no_figure(small_run, workdir, tmp_path, monkeypatch):
    from rmjax.evaluation import predict as module

    used = set()

    def batches(*arguments, **options):
        used.add(options["num_workers"])
        return eval_batches(*arguments, **options)

    monkeypatch.setattr(module, "eval_batches", batches)
    without = evaluate(workdir, draws=10, show_progress=False)
    copy = shutil.copytree(small_run, tmp_path / "run")
    config = json.loads((copy / "config.json").read_text())
    config["data"]["workers"] = 2
    (copy / "config.json").write_text(json.dumps(config))
    found = evaluate(copy, draws=10, show_progress=False)
    for name in ("cells", "calibration", "summary", "clean", "map"):
        assert found[name] == without[name]
    assert used == {0, 2}


def test_unseen_images_of_all_splits_by_config(small_config):
    config = small_config(**{"data.unseen_split": "all"})
    parts = _choose_parts(open_data(config), "test", ())
    unseen = len(config.data.unseen_semantics)
    assert parts["unseen"][0].size(*parts["unseen"][1]) == unseen * 8 * 8
    assert parts["seen"][1] == ("test",)


def test_names_of_evaluations_stay_short_and_apart():
    changes = [
        {"suite": ",".join(f"{name}:5" for name in NAMES)},
        {"suite": ",".join(NAMES)},
        {"split": "val"},
        {"semantics": ("val",)},
        {"checkpoint": "100"},
        {},
    ]
    names = {name_evaluation(DEFAULTS | change) for change in changes}
    assert len(names) == len(changes) and all(len(name) < 100 for name in names)


def test_the_recorded_command_gives_the_same_options(monkeypatch):
    from rmjax.evaluation import evaluate as module

    given = {
        "suite": "fog:3,flip",
        "split": "val",
        "semantics": ("a b", "c"),
        "checkpoint": "7",
        "data_dir": "my data",
        "fpr": (0.1, 0.02),
        "reject_fpr": 0.2,
        "bootstrap": 50,
    }
    asked = {}

    def note(workdir, **options):
        return asked.update(options, workdir=workdir)

    monkeypatch.setattr(module, "evaluate", note)
    _, *words = shlex.split(write_command(Path("my runs/a"), given))
    assert cli.main(words) == 0
    assert Path(asked["workdir"]) == Path("my runs/a")
    renamed = {"fpr": "fprs", "bootstrap": "draws"}
    assert {name: asked[renamed.get(name, name)] for name in given} == given
    assert write_command(Path("r"), DEFAULTS) == "rmjax evaluate --workdir r"


def test_a_failure_leaves_the_former_evaluation_whole(workdir, monkeypatch):
    from rmjax.evaluation import evaluate as module

    folder = Path(evaluate(workdir, draws=10, show_progress=False)["folder"])
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "write_results", full)
    with pytest.raises(InputError, match="can't write to .*clean: No space left"):
        evaluate(workdir, draws=10, fprs=(0.2,), show_progress=False)
    assert before == {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "dev"}, "unknown split 'dev': choose one of train, val, test, all"),
        ({"checkpoint": "7"}, "no checkpoint 7 in .*: there are 4, 8, 12"),
        ({"checkpoint": "newest"}, "'newest': give best, last or a step"),
        ({"semantics": ("moon",)}, "unknown semantic 'moon'"),
        ({"data_dir": "nowhere"}, "rmjax prepare attribution_mini"),
        ({"draws": 0}, "bootstrap = 0"),
    ],
)
def test_bad_requests_say_what_would_be_right(small_run, arguments, message):
    with pytest.raises(InputError, match=message):
        evaluate(small_run, show_progress=False, **arguments)


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(InputError, match="no run in .*config.json is missing"):
        evaluate(tmp_path, show_progress=False)
