"""What a training would need elsewhere, and the curves of a step's time."""

import json
from dataclasses import replace

import pytest

from rmjax.bench import plan as scaling
from rmjax.bench.plan import MACHINES, allreduce_seconds, measure_size, plan_training
from rmjax.bench.scaling import bench_scaling
from rmjax.cli.main import main
from rmjax.errors import InputError
from rmjax.experiment.config import load_config


@pytest.fixture(scope="module")
def published():
    return load_config("repmix", [])


@pytest.fixture(scope="module")
def size(published):
    return measure_size(published, 8)


def test_counts_are_those_of_resnet50(size):
    """torchvision's backbone has 23,508,032 parameters and 4.09 GMAC an image.

    11.1 M values put out by convolutions: Radosavovic et al., Designing Network Design
    Spaces, CVPR 2020, table of ResNets.
    """
    heads = 2048 * 256 + 256 + 256 * (8 + 2) + 8 + 2
    assert size.params == 23_508_032 + heads
    assert size.norms == 53
    assert size.stats == 2 * 26_560
    assert size.maps == pytest.approx(11.1e6, rel=0.005)
    assert size.gflop == pytest.approx(2 * 4.09, rel=0.04)


def test_the_model_gives_the_measured_steps_back(size):
    """An H100: 256 images in bfloat16 in 50.9 ms, 64 in float32 in 25.7 ms."""
    h100 = MACHINES["h100"]
    half = scaling.step_seconds(size, h100, 256, "bfloat16")["step"]
    full = scaling.step_seconds(size, h100, 64, "float32")["step"]
    assert half == pytest.approx(0.0509, rel=0.03)
    assert full == pytest.approx(0.0257, rel=0.03)


def test_all_reduce_by_rings():
    eight = replace(MACHINES["h100x8"], link_speed=1, latency_us=0)
    assert allreduce_seconds(1e9, eight) == pytest.approx(2 * 7 / 8)
    torus = replace(eight, torus=(2, 4))
    assert allreduce_seconds(1e9, torus) == pytest.approx(2 * 7 / 8)  # as much in all
    slow = replace(torus, latency_us=10)
    assert allreduce_seconds(0, slow) == pytest.approx(10e-6)
    assert allreduce_seconds(1e9, replace(eight, torus=(1,))) == 0


def test_hours_follow_from_the_steps(published):
    plan = plan_training(published, num_sources=8, images=6400, epochs=10, price=2.0)
    assert plan["read"] == 2 * 64_000  # groups of two
    assert plan["steps"] == 2000
    row = plan["machines"]["h100"]
    assert row["hours"] == pytest.approx(2000 * row["step_ms"] / 3.6e6)
    assert row["dollars"] == pytest.approx(2 * row["hours"])
    assert row["efficiency"] == 1 and row["fits"]
    assert plan["machines"]["v5e-64"] == {"batch_multiple": 128}


def test_pairs_read_half_of_what_groups_read(published):
    pairs = load_config("repmix", ["--config.mix.name=pairs"])
    plans = [
        plan_training(c, num_sources=8, images=6400, epochs=1, machines=("h100",))
        for c in (published, pairs)
    ]
    assert plans[0]["read"] == 2 * plans[1]["read"]


def test_plan_command(tmp_path, capsys):
    command = ["plan", "--images", "640", "--machines", "h100,v5e-64"]
    command += ["--config.model.dtype=bfloat16", "--json", str(tmp_path / "p.json")]
    assert main(command) == 0
    text = capsys.readouterr().out
    assert "24.0 M parameters" in text
    assert "v5e-64 needs a multiple of 128 images" in text
    assert json.loads((tmp_path / "p.json").read_text())["dtype"] == "bfloat16"
    assert main(["plan", "--machines", "abacus"]) == 2
    assert "choose from h100, h100x8, v5e-8, v5e-64" in capsys.readouterr().err
    assert main(["plan", "--epochs", "0"]) == 2
    assert "epochs = 0: give at least 1" in capsys.readouterr().err


@pytest.mark.slow
def test_curves(tmp_path, capsys):
    """Two processes, and one: the same command that draws the documentation's."""
    command = ["bench", "scaling", "--arch", "shallow", "--size", "8", "--batch", "4"]
    command += ["--batches", "4", "--sizes", "8", "--classes", "8", "--processes"]
    plot = tmp_path / "curves.svg"
    assert main([*command, "2", "--plot", str(plot)]) == 0
    assert "processes on the same cores" in capsys.readouterr().out
    assert plot.read_text().startswith("<?xml")
    assert main([*command, "3"]) == 2
    assert "4 images per step are no multiple of 6" in capsys.readouterr().err
    assert main([*command, "1", "--plot", "curves.jpg"]) == 2
    assert "give FILE.svg or FILE.png" in capsys.readouterr().err


def test_a_process_that_fails_is_explained():
    with pytest.raises(InputError, match="unknown .*'nothing'"):
        bench_scaling(arch="nothing", batches=(), sizes=(), classes=(), processes=(1,))
