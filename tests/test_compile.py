"""`rmjax plan --compile`: machines, wheels, the largest batch; slow: real compilers."""

import json
import os
import subprocess
import sys

import pytest

from rmjax.bench import topology
from rmjax.bench.ahead import find_largest, needed_gb
from rmjax.bench.machines import LAYOUTS, MACHINES, find_machine
from rmjax.cli.main import main
from rmjax.errors import InputError
from rmjax.mixing import MIXINGS

SMALL = ["--config.model.arch=resnet18", "--config.data.crop=64"]
SMALL += ["--config.model.dtype=bfloat16"]


def reason_to_skip(platform):
    """Return why nothing can be compiled for a platform here, or nothing."""
    try:
        topology.check_compiler(platform)
    except InputError as error:
        return str(error)
    return ""


def needs(platform):
    reason = reason_to_skip(platform)
    return pytest.mark.skipif(bool(reason), reason=reason or "its compiler is here")


def test_machines_by_name():
    assert find_machine("v5e:2x4") == MACHINES["v5e-8"]
    assert find_machine("h100:8") == MACHINES["h100x8"]
    cube = find_machine("v5p:2x2x4")
    assert cube.chips == 16 and cube.cores == 16 * 52
    assert find_machine("v6e:1x1").latency_us == 0
    for chip, layouts in LAYOUTS.items():
        chips = [find_machine(f"{chip}:{layout}").chips for layout in layouts]
        assert chips == sorted(chips) and chips[0] in (1, 4)


@pytest.mark.parametrize("name, listed", [("v5e:3x3", "v5e:2x4"), ("abacus", "h100")])
def test_an_unknown_machine_is_answered_with_those_known(name, listed, capsys):
    assert main(["plan", "--compile", name]) == 2
    error = capsys.readouterr().err
    assert name in error and listed in error and error.count("\n") == 1


@pytest.mark.parametrize(
    "machine, package", [("v5e:2x2", "libtpu"), ("h100", "jax-cuda12-plugin")]
)
def test_a_missing_or_wrong_wheel_is_named(machine, package, monkeypatch, capsys):
    real = topology.version

    def missing(name):
        if name == package:
            raise topology.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(topology, "version", missing)
    assert main(["plan", "--compile", machine]) == 2
    error = capsys.readouterr().err
    assert package in error and real("jax") in error and error.count("\n") == 1

    wrong = {package: "0.0.1"}
    monkeypatch.setattr(topology, "version", lambda name: wrong.get(name) or real(name))
    assert main(["plan", "--compile", machine]) == 2
    error = capsys.readouterr().err
    assert f"{package} 0.0.1" in error and error.count("\n") == 1


def test_options_that_do_not_go_together(capsys):
    assert main(["plan", "--largest"]) == 2
    assert "--compile" in capsys.readouterr().err
    assert main(["plan", "--compile", "h100", "--machines", "h100"]) == 2
    assert "--machines" in capsys.readouterr().err


@pytest.mark.parametrize("most", [0, 1, 2, 7, 43, 44, 1000])
@pytest.mark.parametrize("start", [1, 8, 64])
def test_the_largest_batch_is_found(most, start):
    """A line with steps in it, as memory that is handed out in tiles makes."""
    tried = []

    def attempt(number):
        tried.append(number)
        gb = 0.4 + 0.04 * number + 0.03 * (number % 3)
        return gb, number <= most

    assert find_largest(attempt, start, limit=0.4 + 0.04 * most + 0.05) == most
    assert len(tried) == len(set(tried)) <= 10


def test_the_largest_batch_is_found_where_the_compiler_says_little():
    assert find_largest(lambda n: (None, n <= 37), 4, limit=16) == 37


@pytest.mark.parametrize(
    "message, gb",
    [
        (
            "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required "
            "for HLO temporaries (183.36G) exceeds available HBM (15.75G).",
            196.9,
        ),
        ("Used 18.05G of 15.75G hbm. Exceeded hbm capacity by 2.30G.", 19.38),
        ("no number", None),
    ],
)
def test_what_the_compiler_lacks_room_for(message, gb):
    assert needed_gb(message) == (gb and pytest.approx(gb, rel=1e-3))


def run(*arguments):
    """Run Python as users do: the tests' own XLA flags are not for its compilers."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        env={k: v for k, v in os.environ.items() if k != "XLA_FLAGS"},
        capture_output=True,
        text=True,
    )


def plan(folder, machine, *options):
    """Return what `rmjax plan --compile` writes of a small network, and prints."""
    path = folder / "plan.json"
    command = ["-m", "rmjax.cli", "plan", "--compile", machine, "--json", path]
    ran = run(*command, *SMALL, *options)
    assert ran.returncode == 0, ran.stderr
    return json.loads(path.read_text())["compiled"], ran.stdout


@needs("tpu")
def test_a_batch_that_cannot_be_dealt_out():
    ran = run("-m", "rmjax.cli", "plan", "--compile", "v5e:8x8")
    assert ran.returncode == 2
    assert "batch_size = 64" in ran.stderr and ran.stderr.count("\n") == 1


@pytest.mark.slow
@needs("tpu")
def test_a_step_compiled_for_tpus(tmp_path):
    """What may not grow unseen. Eight images a chip, corrupted as published."""
    folder = tmp_path / "text"
    compiled, text = plan(
        tmp_path, "v5e:2x2", "--config.batch_size=32", "--save", str(folder)
    )
    counts = compiled["counts"]
    # One at most for each of 20 batch norms and direction, and a few for the gradients.
    collectives = compiled["collectives"]
    assert 0 < sum(row["count"] for row in collectives.values()) <= 2 * 20 + 5
    params = 11.3e6
    assert collectives["all-reduce"]["mb"] == pytest.approx(4e-6 * params, rel=0.02)
    assert counts["transfers"] == 0
    assert counts["doubles"] == 0
    assert counts["branches"] <= 8  # the chunks that 8 images may need
    parts = compiled["parts"]
    for part in ("stem", "layer1", "layer4", "corruption", "mixing", "optimiser"):
        assert parts[part]["total"] > 0, part
    assert parts["other"]["total"] < 0.15 * counts["cycles"]
    assert compiled["fits"] and compiled["row"]["images_per_second"] > 0
    assert "layer4" in text
    (kept,) = folder.iterdir()
    assert kept.read_text().startswith("HloModule")


@pytest.mark.slow
@needs("gpu")
def test_a_step_compiled_for_a_gpu(tmp_path):
    compiled, _ = plan(tmp_path, "h100", "--config.batch_size=32")
    counts = compiled["counts"]
    assert not any(row["count"] for row in compiled["collectives"].values())
    assert counts["transfers"] == counts["doubles"] == 0
    assert counts["branches"] <= 64  # each waits for the GPU
    assert compiled["parts"]["layer1"]["norms"] > 0


@needs("tpu")
@pytest.mark.parametrize("layout, chips", [("2x4", 8), ("8x8", 64)])
def test_a_step_is_dealt_to_the_chips_of_all_hosts(layout, chips):
    code = f"""
from rmjax.bench.ahead import StepCompiler
from rmjax.bench.machines import find_machine
from rmjax.bench.topology import compile_only, describe_devices
from rmjax.experiment.config import load_config

compile_only()
machine = find_machine("v5e:{layout}")
devices = describe_devices(machine)
compiler = StepCompiler(load_config("repmix", {SMALL}), 8, machine, devices)
assert "num_partitions = {chips} " in compiler.lower(compiler.levels[0], 4).as_text()
"""
    ran = run("-c", code)
    assert ran.returncode == 0, ran.stderr


@pytest.mark.slow
@needs("tpu")
def test_every_mixing_is_lowered_for_tpus():
    options = [*SMALL, "--config.mix.level=4"]  # of maps, which some mixings take apart
    code = f"""
from rmjax.bench.ahead import StepCompiler
from rmjax.bench.machines import find_machine
from rmjax.bench.topology import compile_only, describe_devices
from rmjax.experiment.config import load_config

compile_only()
machine = find_machine("v5e:2x2")
devices = describe_devices(machine)
for name in {list(MIXINGS)}:
    config = load_config("repmix", {options} + ["--config.mix.name=" + name])
    compiler = StepCompiler(config, 8, machine, devices)
    for level in compiler.levels:
        assert "all_reduce" in compiler.lower(level, 16).as_text(), name
"""
    ran = run("-c", code)
    assert ran.returncode == 0, ran.stderr


@needs("tpu")
def test_the_compiler_knows_all_layouts_and_refuses_others_in_one_line():
    names = [f"{c}:{x}" for c in ("v5e", "v5p", "v6e") for x in LAYOUTS[c]]
    code = f"""
from dataclasses import replace
from rmjax.bench.machines import find_machine
from rmjax.bench.topology import compile_only, describe_devices
from rmjax.errors import InputError

compile_only()
for name in {names}:
    machine = find_machine(name)
    assert len(describe_devices(machine)) == machine.chips, name
try:
    describe_devices(replace(machine, torus=(3, 3)))
except InputError as error:
    assert "3x3" in str(error) and "\\n" not in str(error)
else:
    raise AssertionError("no machine of 3 x 3 is to be had")
"""
    ran = run("-c", code)
    assert ran.returncode == 0, ran.stderr
