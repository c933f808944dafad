"""A sweep end to end, and what it leaves: runs, a table, a page that says what lacks."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from results_sample import sample_results
from small_settings import SMALL
from sweep_sample import REFERENCE, sample_findings

from rmjax.cli.main import main
from rmjax.errors import InputError
from rmjax.sweep.plan import plan_sweep, read_cells
from rmjax.sweep.report import format_findings, write_sweep
from rmjax.sweep.runs import Sweep
from rmjax.sweep.sweep import describe_plan, run_sweep
from rmjax.training.train import train

# Compiled in no time, of which each process takes its own.
SHALLOW = SMALL | {"model.arch": "shallow"}
CHANGES = [f"--config.{key}={value}" for key, value in SHALLOW.items()]
GOOD, BAD = "optim.lr=0.001", "optim.lr=1e+30"


@pytest.fixture(scope="module")
def options(mini_dir):
    """Arguments of `rmjax sweep` for a config that trains in seconds."""
    return [
        "sweep",
        "--config",
        "attribution_mini",
        "--data-dir",
        str(mini_dir),
        *CHANGES,
    ]


@pytest.fixture(scope="module")
def swept(small_config, options, made_once):
    """Folder of a sweep of two cells by two seeds; of one cell, every training fails.

    Its first run was trained before, so that it only has to be evaluated.
    """

    def make(folder: Path) -> None:
        train(small_config(**SHALLOW), folder / GOOD / "seed0", show_progress=False)
        grid = ["--grid", "optim.lr=1e-3,1e30", "--seeds", "2", "--jobs", "2"]
        status = main([*options, *grid, "--workdir", str(folder)])
        (folder / "status").write_text(str(status))

    return made_once("sweep", make)


@pytest.fixture
def plan(mini_dir):
    """Function of a folder and a grid to a planned sweep."""

    def make(folder, grid="optim.lr=1e-3,1e30", **more):
        more = {"seeds": 2, "changes": CHANGES, "data_dir": str(mini_dir)} | more
        return plan_sweep(Sweep(folder, "attribution_mini", grid, **more))

    return make


def test_every_cell_is_run_and_a_failing_one_stops_no_other(swept):
    assert (swept / "status").read_text() == "1"
    for seed in (0, 1):
        run = swept / GOOD / f"seed{seed}"
        assert json.loads((run / "config.json").read_text())["seed"] == seed
        assert (run / "evaluation" / "clean" / "results.json").exists()
        log = (swept / "logs" / f"{GOOD},seed{seed}.log").read_text()
        assert (" train --config attribution_mini " in log) == (seed == 1)
        failed = (swept / "logs" / f"{BAD},seed{seed}.failed").read_text()
        assert failed.startswith("status 3: rmjax train: error: ")
        assert "nan at step" in failed and failed.count("\n") == 1
    rows = list(csv.DictReader((swept / "sweep.csv").open()))
    assert {row["cell"] for row in rows} == {GOOD}
    assert {row["seeds"] for row in rows} == {"2"}
    assert {row["semantics"] for row in rows} == {"seen", "unseen", "combined"}
    clean = json.loads(
        (swept / GOOD / "seed1" / "evaluation" / "clean" / "results.json").read_text()
    )["summary"]["seen"]["clean"]["attribution_accuracy"]
    other = json.loads(
        (swept / GOOD / "seed0" / "evaluation" / "clean" / "results.json").read_text()
    )["summary"]["seen"]["clean"]["attribution_accuracy"]
    (row,) = [
        r for r in rows if (r["semantics"], r["metric"]) == ("seen", "attribution")
    ]
    assert float(row["mean"]) == pytest.approx((clean + other) / 2)
    page = (swept / "sweep.html").read_text()
    assert "2 runs have no figures yet" in page and "attribution_loss is nan" in page


def test_the_same_command_runs_what_is_not_done(swept, plan, options, capsys):
    sweep = plan(swept)
    left = {str(run): run.commands() for run in sweep.runs}
    assert left[f"{GOOD}, seed 0"] == left[f"{GOOD}, seed 1"] == []
    train, evaluate = left[f"{BAD}, seed 1"]
    assert train[3:5] == ["train", "--config"] and "--config.seed=1" in train
    assert evaluate[3:6] == ["evaluate", "--suite", "clean"]
    assert main([*options, "--dry-run", "--workdir", str(swept), "--grid",
                 "optim.lr=1e-3,1e30,1", "--seeds", "2"]) == 0  # fmt: skip
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == [GOOD, "done:", "seed0,", "seed1"]
    assert lines[1].split() == [BAD, "failed:", "seed0,", "seed1"]
    assert lines[2].split() == ["optim.lr=1.0", "missing:", "seed0,", "seed1"]
    assert lines[3] == "6 runs: 2 done, 2 failed, 2 missing"
    assert not (swept / "optim.lr=1.0").exists()


def test_a_longer_training_or_another_suite_is_not_done_yet(swept, plan):
    for changes, count in (({"changes": [*CHANGES, "--config.num_epochs=4"]}, 2),
                           ({"suite": "flip"}, 1)):  # fmt: skip
        sweep = plan(swept, "optim.lr=1e-3", **changes)
        assert len(sweep.runs[0].commands()) == count


def test_a_training_longer_than_asked_for_is_refused(swept, plan):
    message = rf"cell {GOOD}, seed 0: .* trained for 12 steps, and is to be for 4;"
    with pytest.raises(InputError, match=message):
        plan(swept, "optim.lr=1e-3", changes=[*CHANGES, "--config.num_epochs=1"])


def test_evaluations_may_share_corrupted_images(swept, plan):
    sweep = plan(swept, "optim.lr=1", suite="fog:1", cache_dir="images")
    train, evaluate = sweep.runs[0].commands()
    assert evaluate[-2:] == ["--cache-dir", "images"] and "images" not in train


def test_a_run_with_a_damaged_evaluation_is_evaluated_again(swept, plan, tmp_path):
    folder = shutil.copytree(swept, tmp_path / "sweep")
    (folder / GOOD / "seed0" / "evaluation" / "clean" / "results.json").write_text("{")
    sweep = plan(folder, "optim.lr=1e-3")
    (left,) = sweep.runs[0].commands()
    assert "evaluate" in left and "train" not in left


def test_cells_of_an_earlier_grid_are_kept_and_marked(swept, plan, tmp_path):
    folder = shutil.copytree(swept, tmp_path / "sweep")
    shutil.copytree(folder / GOOD, folder / "seed=0")  # a cell of the grid before
    record = json.loads((folder / "sweep.json").read_text())
    record["cells"].append(record["cells"][0] | {"label": "seed=0"})
    (folder / "sweep.json").write_text(json.dumps(record))
    said = []
    assert run_sweep(plan(folder, "optim.lr=1e-3"), say=said.append) == 0
    assert said[0] == f"kept, though not in the present grid: {BAD}, seed=0"
    assert f"{'seed=0 *':<20}" in "\n".join(said)
    cells = {cell.label: cell.present for cell in read_cells(folder)}
    assert cells == {GOOD: True, BAD: False, "seed=0": False}
    rows = list(csv.DictReader((folder / "sweep.csv").open()))
    kept = [row for row in rows if row["cell"] == "seed=0"]
    assert {row["present"] for row in kept} == {"False"}
    assert {row["difference"] for row in kept} == {"0.0"}
    # One of another command that began after this one was planned is kept as well.
    early = plan(folder, "optim.lr=1e-3")
    record["cells"].append(record["cells"][0] | {"label": "seed=2", "present": True})
    (folder / "sweep.json").write_text(json.dumps(record))
    assert run_sweep(early, say=said.append) == 0
    assert "seed=2" in {cell.label for cell in read_cells(folder)}
    # One of other settings can't be compared.
    path = folder / "seed=0" / "seed1" / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"patience": 7}))
    assert run_sweep(plan(folder, "optim.lr=1e-3"), say=said.append) == 0
    path.write_text(json.dumps(config))
    words = "left out: seed=0, not in the present grid: its patience is 7, that of the"
    assert any(line.startswith(words) for line in said)
    assert "seed=0" not in (folder / "sweep.csv").read_text()
    # One that can no longer be read is left out, and no reason not to show the others.
    (folder / "seed=0" / "seed1" / "evaluation" / "clean" / "results.json").write_text(
        ""
    )
    assert run_sweep(plan(folder, "optim.lr=1e-3"), say=said.append) == 0
    assert any(line.startswith("left out: seed=0, not in the") for line in said)
    assert "seed=0" not in (folder / "sweep.csv").read_text()
    assert "not in the present grid: kept" in describe_plan(
        plan(folder, "optim.lr=1e-3")
    )


def test_a_cell_of_another_method_is_kept(swept, plan, tmp_path):
    """Of a fit and a training, each has settings that the other has no use for."""
    folder = shutil.copytree(swept, tmp_path / "sweep")
    shutil.copytree(folder / GOOD, folder / "fit")
    for path in (folder / "fit").glob("seed*/config.json"):
        config = json.loads(path.read_text())
        config["fit"]["name"] = "ridge"
        path.write_text(json.dumps(config))
    record = json.loads((folder / "sweep.json").read_text())
    record["cells"].append(
        {"label": "fit", "changes": {"fit.name": "ridge"}, "seeds": 2, "present": True}
    )
    (folder / "sweep.json").write_text(json.dumps(record))
    assert run_sweep(plan(folder, "optim.lr=1e-3"), say=[].append) == 0
    assert "\nfit,False," in (folder / "sweep.csv").read_text()


def test_an_edited_grid_keeps_what_is_finished_where_it_lies(swept, plan):
    """A cell is known by its config, whatever it would be called in the new grid."""
    level = plan(swept, "optim.lr=1e-3").cells[0].config.mix.level
    sweep = plan(swept, f"mix.level={level - 1},{level} optim.lr=1e-3", seeds=1)
    new, kept = sweep.runs
    assert new.cell.label == f"mix.level={level - 1},{GOOD}" and new.commands()
    assert kept.cell.label == GOOD and not kept.commands()
    assert kept.cell.changes == {"mix.level": level, "optim.lr": 0.001}
    assert [cell.label for cell in sweep.cells if not cell.present] == [BAD]


def test_a_folder_of_another_config_is_named_before_anything_runs(swept, plan):
    changed = [*CHANGES, "--config.mix.beta=0.7"]
    message = rf"cell {GOOD}, seed 0: .*mix\.beta is 0\.4 there and 0\.7 here"
    with pytest.raises(InputError, match=message):
        plan(swept, changes=changed)


def test_a_damaged_record_is_refused(plan, tmp_path):
    (tmp_path / "sweep.json").write_text('{"cells": []}')
    with pytest.raises(InputError, match=r"sweep\.json is no record of a sweep"):
        plan(tmp_path)


def test_a_config_may_bring_its_grid(options, tmp_path, capsys):
    text = "from rmjax.configs.attribution_mini import get_config\n"
    config = tmp_path / "mine.py"
    config.write_text(text)
    at = options.index("attribution_mini")
    mine = [*options[:at], str(config), *options[at + 1 :], "--dry-run"]
    mine += ["--workdir", str(tmp_path / "sweep")]
    assert main(mine) == 2
    assert "define GRID in" in capsys.readouterr().err
    config.write_text(text + "GRID = 3\n")
    assert main(mine) == 2
    assert "GRID is 3; give a text" in capsys.readouterr().err
    config.write_text(text + "GRID = 'mix.level=2,4'\n")
    assert main(mine) == 0
    assert capsys.readouterr().out.startswith("mix.level=2 ")
    assert main([*mine, "--grid", "mix.level=3"]) == 0
    assert capsys.readouterr().out.startswith("mix.level=3 ")
    assert not (tmp_path / "sweep").exists()


# ----------------------------------------------------------------------------- report


@pytest.fixture(scope="module")
def findings(tmp_path_factory):
    return sample_findings(tmp_path_factory.mktemp("sample"))


def test_page_says_what_was_found_and_what_was_not(findings, tmp_path):
    paths = write_sweep(tmp_path, findings)
    page = paths["report"].read_text()
    assert "mix.name=old *" in page and "kept from an earlier one" in page
    assert "1 run has no figures yet" in page
    assert "status 3: &lt;b&gt;nan" in page and "<b>nan" not in page
    assert "One seed alone: the intervals of mix.name=old *" in page
    assert "rmjax sweep --grid mix.name=none,repmix" in page
    assert "None" not in page and "nan<" not in page
    assert page.count("<img") == 9 and "http" not in page.split("<body>")[1]
    names = {path.name for path in paths["figures"].iterdir()}
    sets = ("clean", "seen_corruptions", "unseen_corruptions", "resharing")
    figures = [f"{what}_{part}" for what in ("means", "differences") for part in sets]
    assert names == {
        f"{figure}.{kind}"
        for figure in ("seen_unseen", *figures)
        for kind in ("svg", "png")
    }


def test_new_pairs_have_their_own_figure_and_columns(findings, tmp_path, monkeypatch):
    files = {"svg": b"<svg/>", "png": b""}
    monkeypatch.setattr("rmjax.sweep.report.render", lambda figure: files)
    seen = [row for row in findings.rows if row["semantics"] == "seen"]
    rows = findings.rows + [row | {"semantics": "new_pairs"} for row in seen]
    paths = write_sweep(tmp_path, replace(findings, rows=rows))
    assert (paths["figures"] / "seen_new_pairs.svg").exists()
    page = paths["report"].read_text()
    assert "new pairs, %" in page and "new_pairs, %" not in page


def test_text_has_a_row_for_each_cell_in_each_set(findings):
    text = format_findings(findings)
    lines = text.splitlines()
    assert sum(line.startswith("attribution, ") for line in lines) == 4
    better = [line for line in lines if line.startswith("mix.name=repmix")]
    assert len(better) == 4 and all("+" in line for line in better)
    assert better[0].split()[-1] == "2"
    for line in lines:
        if line.startswith(f"{REFERENCE} "):
            assert line.count("reference") == 2


def test_a_page_without_a_reference_says_so(tmp_path):
    found = sample_findings(tmp_path, sample_results(full=False, unseen=[]))
    for row in found.rows:
        row |= dict.fromkeys(
            ("difference", "difference_low", "difference_high", "detectable")
        )
    page = write_sweep(tmp_path / "out", found)["report"].read_text()
    assert "No cell could be compared with the reference" in page
    assert not (tmp_path / "out" / "figures" / "differences_clean.png").exists()


def test_a_loss_without_attribution_is_refused(plan, tmp_path):
    with pytest.raises(InputError, match="cell loss=fingerprint: .* attributions"):
        plan(tmp_path, "loss=attribution,fingerprint")
