"""The `rmjax` command: help, one-line errors, exit codes, a whole small run."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import rmjax
from rmjax.bench import common as bench_common
from rmjax.bench import data as bench_data
from rmjax.bench import network as bench_network
from rmjax.cli.main import main
from rmjax.evaluation.results import read_results
from rmjax.report import preview


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A user's own folder: two sources x two semantics x 12 images, one broken."""
    root = tmp_path_factory.mktemp("tree")
    rng = np.random.default_rng(0)
    for source in ("real", "gan"):
        for semantic in ("cat", "dog"):
            folder = root / source / semantic
            folder.mkdir(parents=True)
            for i in range(12):
                pixels = rng.integers(0, 256, (40, 36, 3), np.uint8)
                if source == "gan":
                    pixels = pixels[::2, ::2].repeat(2, 0).repeat(2, 1)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    return root


def error_line(capsys, arguments):
    """Run a command that must fail; return its status and its last line."""
    status = main(arguments)
    *_, line = capsys.readouterr().err.strip().splitlines()
    return status, line


def test_own_folder_from_tree_to_results(tree, tmp_path, capsys):
    data, run = str(tmp_path / "data"), str(tmp_path / "run")
    assert (
        main(
            ["prepare", "image_folder", "--name", "mine", "--tree", str(tree)]
            + ["--data-dir", data]
        )
        == 0
    )
    assert "sources:   real, gan" in capsys.readouterr().out
    flags = {
        "data.name": "image_folder/mine",
        "data.unseen_semantics": "()",
        "data.size": 32,
        "data.crop": 24,
        "data.eval_size": 32,
        "batch_size": 16,
        "num_epochs": 2,
        "num_devices": 1,
    }
    changes = [f"--config.{key}={value}" for key, value in flags.items()]
    command = ["train", "--config", "attribution_mini", "--workdir", run]
    assert main([*command, "--data-dir", data, *changes]) == 0
    assert main(["evaluate", "--workdir", run]) == 0
    out = capsys.readouterr().out
    assert "attribution" in out and "clean/results.json" in out
    results = read_results(tmp_path / "run" / "evaluation" / "clean")
    assert results["sources"] == ["real", "gan"]
    assert main(["report", "--workdir", run]) == 0
    assert "clean/report.html" in capsys.readouterr().out
    compare = ["report", "--workdir", run, run, "--out", str(tmp_path / "two")]
    assert main(compare) == 0
    assert (tmp_path / "two" / "comparison.html").is_file()


@pytest.mark.parametrize(
    "command",
    [
        [],
        ["prepare"],
        ["train"],
        ["evaluate"],
        ["report"],
        ["sweep"],
        ["audit"],
        ["bench"],
        ["preview"],
    ],
)
def test_help_is_there(capsys, command):
    with pytest.raises(SystemExit) as caught:
        main([*command, "--help"])
    assert caught.value.code == 0
    assert "usage: rmjax" in capsys.readouterr().out


def test_help_does_not_wait_for_jax():
    code = "import sys; import rmjax.cli.main; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "--config", "nothing"], "no config 'nothing'"),
        (["train", "--config", "attribution_mini"], "rmjax prepare attribution_mini"),
        (
            ["train", "--config", "repmix", "--config.mix.nam=x"],
            "mix.name",
        ),
        (["evaluate"], "no run in"),
        (["report"], "no run in"),
    ],
)
def test_errors_are_one_line_and_status_2(tmp_path, capsys, arguments, words):
    workdir = tmp_path / "run"
    arguments = [*arguments, "--workdir", str(workdir)]
    if arguments[0] == "train":
        arguments += ["--data-dir", str(tmp_path)]
    status, line = error_line(capsys, arguments)
    assert status == 2
    assert line.startswith(f"rmjax {arguments[0]}: error: ") and words in line
    assert not workdir.exists()


def test_a_full_disk_is_one_line(tmp_path, capsys, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device", "some/file")

    monkeypatch.setattr(preview, "preview_corruptions", full)
    status, line = error_line(capsys, ["preview", "corruptions", "a.png"])
    assert status == 2
    assert "can't write some/file: no room left on the disk; make room" in line


def test_preview_draws_a_sheet(tree, tmp_path, capsys):
    image, sheet = str(tree / "real" / "cat" / "0.png"), tmp_path / "sheet.png"
    command = ["preview", "corruptions", image, "--out", str(sheet), "--size", "32"]
    assert main([*command, "--names", "contrast,saturate"]) == 0
    assert "sheet.png" in capsys.readouterr().out
    pixels = np.asarray(Image.open(sheet).convert("RGB"))
    assert pixels.shape[1] > 2 * pixels.shape[0] and pixels.std() > 20
    status, line = error_line(capsys, [*command, "--names", "rain"])
    assert status == 2 and "unknown rain; choose from gaussian_noise" in line
    status, line = error_line(capsys, ["preview", "corruptions", str(tmp_path / "no")])
    assert status == 2 and "No such file" in line


@pytest.mark.slow
def test_preview_draws_generators(mini_dir, tmp_path, capsys):
    sheet = tmp_path / "generators.png"
    command = ["preview", "generators", "--out", str(sheet), "--size", "32"]
    command += ["--count", "1", "--data-dir", str(mini_dir)]
    assert main([*command, "--datasets", "attribution_mini"]) == 0
    assert "generators.png" in capsys.readouterr().out
    assert np.asarray(Image.open(sheet).convert("L")).std() > 20
    for wrong in (["--size", "40"], ["--count", "-1"]):
        assert error_line(capsys, [*command, *wrong])[0] == 2
    command += ["--datasets", "attribution_mini", "--size", "128"]
    status, line = error_line(capsys, command)
    assert status == 2 and "'real'" in line and "128 x 128" in line


def test_bench_prints_a_table(tmp_path, capsys):
    command = ["bench", "corruptions", "--size", "32", "--batch-size", "2"]
    command += ["--repeats", "1", "--json", str(tmp_path / "bench.json")]
    assert main([*command, "--names", "contrast,saturate,zoom_blur"]) == 0
    out = capsys.readouterr().out
    assert "mean of 2 seen" in out and "mean of 1 unseen" in out
    figures = json.loads((tmp_path / "bench.json").read_text())
    assert set(figures["kinds"]) == {"contrast", "saturate", "zoom_blur"}
    assert all(kind["ms"] > 0 for kind in figures["kinds"].values())
    status, line = error_line(capsys, [*command, "--names", "rain"])
    assert status == 2 and "unknown rain" in line


def test_data_bench_prints_a_table(tmp_path, mini_dir, capsys, monkeypatch):
    # PyTorch, where it is there at all, would take half of this test's time to start.
    monkeypatch.setattr(bench_common, "installed", lambda *packages: False)
    command = ["bench", "data", "--batch-size", "4", "--repeats", "1"]
    command += ["--seconds", "0.01", "--json", str(tmp_path / "bench.json")]
    monkeypatch.setattr(bench_data, "DRAWN", 20)
    assert main([*command, "--workers", "0,1"]) == 0
    out = capsys.readouterr().out
    assert "jpeg, 1 workers" in out and "png, best" in out and "torchvision" in out
    figures = json.loads((tmp_path / "bench.json").read_text())
    assert (
        10 < figures["jpeg"]["kilobytes"] < 20 < 80 < figures["png"]["kilobytes"] < 160
    )
    command += ["--dataset", "attribution_mini", "--data-dir", str(mini_dir)]
    assert main([*command, "--workers=0", "--size=24", "--resize=0"]) == 0
    figures = json.loads((tmp_path / "bench.json").read_text())
    found = figures["attribution_mini"]["workers"]["0"]["rmjax"]
    assert found["images_per_second"] > 0 and found["first_batch_seconds"] > 0
    status, line = error_line(capsys, [*command, "--seconds", "0"])
    assert status == 2 and "seconds = 0" in line


def test_data_bench_shows_both_loaders():
    def row(ours: float, theirs: float) -> dict:
        return {
            "rmjax": {"images_per_second": ours, "first_batch_seconds": 0.5},
            "DataLoader": {"images_per_second": theirs, "first_batch_seconds": 0.25},
        }

    rows = {"0": row(300, 100), "2": row(200, 150)}
    results = {"png": {"images": 9, "kilobytes": 1.0, "workers": rows}}
    head, first, second, best, _ = bench_data.format_data_bench(results).splitlines()
    assert head.split() == (
        "images per second rmjax DataLoader ratio "
        "first batch, s: rmjax first batch, s: DataLoader".split()
    )
    assert first.split()[3:] == ["300", "100", "3.0", "0.50", "0.25"]
    assert second.split()[3:] == ["200", "150", "1.3", "0.50", "0.25"]
    assert best.split() == ["png,", "best", "300", "150", "2.0"]


def test_missing_tree_is_one_line(tmp_path, capsys):
    command = ["prepare", "image_folder", "--name", "x", "--data-dir", str(tmp_path)]
    status, line = error_line(capsys, [*command, "--tree", str(tmp_path / "none")])
    assert status == 2 and str(tmp_path / "none") in line
    assert not (tmp_path / "image_folder").exists()


@pytest.mark.parametrize(
    ("arguments", "stray"),
    [
        ("report --workdir x --config.seed=1", "--config.seed=1"),
        ("train --config a --workdir x --config.seed 1", "1"),
        ("attribute a.png --workdir x --topp 3", "--topp"),
        ("evaluate --workdir x --bootstrap many", "many"),
        ("gallery query a.png --workdir x --gallery g --by guess", "guess"),
        ("bench step --batch-sizes 1,x", "1,x"),
        ("embed --workdir x --images y --out z.npz --shard 2/2", "2/2"),
        ("export --workdir x", "--out"),
    ],
)
def test_wrong_arguments_are_one_line_and_status_2(capsys, arguments, stray):
    with pytest.raises(SystemExit) as caught:
        main(arguments.split())
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"rmjax {arguments.split()[0]}") and stray in line


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        ("trian --config x", "did you mean train?"),
        ("bench corruption --size 3", "did you mean corruptions?"),
        ("train --confg=x --workdir w", "did you mean --config?"),
        ("report --workdir w --evaluations full", "did you mean --evaluation?"),
        ("gallery query a.png --by neighbors", "did you mean neighbours?"),
    ],
)
def test_what_is_mistyped_is_named_with_what_was_meant(capsys, arguments, meant):
    with pytest.raises(SystemExit) as caught:
        main(arguments.split())
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert meant in line


def test_a_file_called_like_an_option_is_none(capsys):
    with pytest.raises(SystemExit):
        main(["embed", "--", "--images.png"])
    error = capsys.readouterr().err
    assert "--images" in error and "--images.png" not in error


@pytest.mark.slow
def test_an_evaluation_can_be_changed_where_no_figure_depends_on_it(
    small_run, tmp_path, capsys
):
    tables = []
    for name, changes in {
        "as_trained": [],
        "changed": ["--config.data.workers=1", "--config.eval_batch_size=24"],
    }.items():
        run = tmp_path / name
        shutil.copytree(small_run, run)
        assert main(["evaluate", "--workdir", str(run), *changes]) == 0
        tables.append(capsys.readouterr().out.split("calibrated on")[0])
    assert tables[0] == tables[1]
    results = read_results(run / "evaluation" / "clean")
    assert results["run"]["config"]["eval_batch_size"] == 24
    before = (run / "evaluation" / "clean" / "results.json").read_bytes()
    for change, words in {
        "data.crop=8": "--config.data.crop: figures depend on it",
        "data.workers=-1": "data.workers",
        "data.worker=1": "data.workers",
    }.items():
        command = ["evaluate", "--workdir", str(run), f"--config.{change}"]
        status, line = error_line(capsys, command)
        assert status == 2 and words in line
    assert (run / "evaluation" / "clean" / "results.json").read_bytes() == before


def test_a_data_set_that_is_elsewhere_is_told_with_the_place_looked_in(
    small_run, tmp_path, capsys, monkeypatch
):
    run = shutil.copytree(small_run, tmp_path / "run")
    config = json.loads((run / "config.json").read_text())
    config["data"]["dir"] = "data"
    (run / "config.json").write_text(json.dumps(config))
    monkeypatch.chdir(tmp_path)
    status, line = error_line(capsys, ["evaluate", "--workdir", "run"])
    assert status == 2 and str(tmp_path / "data") in line and "--data-dir" in line


FILE, FOLDER = "file.png", "folder"
WRITTEN = {  # commands that write to a folder, or to a file, of the given name
    "prepare attribution_mini --data-dir": FOLDER,
    "prepare image_folder --name a --tree folder --data-dir": FOLDER,
    "train --config repmix --workdir": FOLDER,
    "evaluate --workdir run --cache-dir": FOLDER,
    "report --workdir run --out": FOLDER,
    "sweep --config repmix --workdir": FOLDER,
    "sweep --config repmix --workdir s --cache-dir": FOLDER,
    "audit a --out": FOLDER,
    "preview corruptions file.png --out": FILE,
    "preview generators --out": FILE,
    "convert file.png --out": FOLDER,
    "export --workdir run --out": FILE,
    "gallery add --workdir run new file.png --gallery": FOLDER,
    "gallery evaluate --workdir run --out": FILE,
    "gallery benchmark --workdir run --data a --out": FILE,
    "bench corruptions --json": FILE,
    "bench scaling --plot": FILE,
    "plan --json": FILE,
}


def last_words(arguments):
    """Run a command that must fail, one way or the other; return its status."""
    try:
        return main(arguments)
    except SystemExit as end:
        return end.code


@pytest.fixture
def places(tree, tmp_path, monkeypatch):
    """The working folder, with a file and a folder in it."""
    shutil.copy(tree / "real" / "cat" / "0.png", tmp_path / FILE)
    (tmp_path / FOLDER).mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("command", WRITTEN)
def test_a_file_for_a_folder_is_one_line_and_the_reverse(places, capsys, command):
    wrong = FILE if WRITTEN[command] == FOLDER else FOLDER
    for path in (wrong, f"{FILE}/new.png"):
        assert last_words([*command.split(), path]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert FILE in line or FOLDER in line
    assert sorted(entry.name for entry in places.iterdir()) == [FILE, FOLDER]


@pytest.mark.parametrize(
    "command",
    [
        "prepare image_folder --name a --data-dir folder --tree file.png",
        "prepare image_folder --name a --data-dir folder --manifest folder",
        "prepare annotation_list --name a --data-dir folder --list train=folder",
        "prepare attribution88 --data-dir folder --from file.png",
        "train --workdir run --config folder",
        "train --workdir run --config file.png",
        "evaluate --workdir file.png",
        "report --workdir file.png",
        "audit a --data-dir file.png",
        "preview corruptions folder",
        "preview generators --datasets a --data-dir file.png",
        "convert --out run folder",
        "export --workdir folder --out a.safetensors",
        "export --workdir file.png --out a.safetensors",
        "embed --workdir folder --images folder --out a.npz",
        "attribute --workdir file.png file.png",
        "attribute file.png",
        "attribute --gallery file.png file.png",
        "gallery add new folder",
        "gallery query file.png",
        "gallery list",
        "gallery list --gallery file.png",
        "gallery remove --gallery folder new",
        "gallery query --workdir file.png --gallery folder file.png",
        "gallery benchmark --workdir file.png --data a --data-dir folder",
        "bench data --dataset a --data-dir file.png",
        "plan --config file.png",
    ],
)
def test_what_cannot_be_read_is_one_line(places, capsys, command):
    assert last_words(command.split()) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"rmjax {command.split()[0]}")
    assert sorted(entry.name for entry in places.iterdir()) == [FILE, FOLDER]


def test_an_unwritable_place_that_is_found_late_is_one_line(capsys, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied", "some/file")

    monkeypatch.setattr(preview, "preview_corruptions", refuse)
    status, line = error_line(capsys, ["preview", "corruptions", "a.png"])
    assert status == 2 and "some/file: Permission denied" in line


STRANGER = 54321  # a user id that no password file knows


def run_as_stranger(folder, arguments, **environ):
    """Run the command as a user who may read all files and write none of others'."""
    capability = "+dac_read_search"  # the interpreter may lie in another's home
    identity = [f"--reuid={STRANGER}", f"--regid={STRANGER}", "--clear-groups"]
    rights = [f"--inh-caps={capability}", f"--ambient-caps={capability}"]
    prefix = ["setpriv", *identity, *rights]
    if os.geteuid() or not shutil.which("setpriv"):
        pytest.skip("only root, with setpriv, can become a user without a home")
    if subprocess.run([*prefix, "true"], capture_output=True).returncode:
        pytest.skip("setpriv may not hand on rights here")
    kept = ("HOME", "XDG_CACHE_HOME", "MPLCONFIGDIR", "JAX_COMPILATION_CACHE_DIR")
    environ = {k: v for k, v in os.environ.items() if k not in kept} | environ
    environ["PYTHONPATH"] = str(Path(rmjax.__file__).parents[1])
    return subprocess.run(
        [*prefix, sys.executable, "-B", "-m", "rmjax.cli", *arguments],
        cwd=folder,
        env=environ,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    "home", [None, pytest.param("/", marks=pytest.mark.slow), "/nowhere"]
)
def test_a_user_needs_no_home(tree, small_run, tmp_path_factory, home):
    folder, scratch = (tmp_path_factory.mktemp(name) for name in ("own", "scratch"))
    for own in (folder, scratch):
        os.chown(own, STRANGER, STRANGER)
    environ = {"TMPDIR": str(scratch)} | ({"HOME": home} if home else {})
    image = str(tree / "real" / "cat" / "0.png")
    sheet = ["preview", "corruptions", image, "--names", "contrast", "--size", "32"]
    for command in (sheet, ["attribute", image, "--workdir", str(small_run)]):
        done = run_as_stranger(folder, command, **environ)
        assert (done.returncode, done.stderr) == (0, "")
    assert [entry.name for entry in folder.iterdir()] == ["corruptions.png"]
    assert not list(scratch.iterdir())  # caches are gone


def test_a_folder_of_another_user_is_one_line(places):
    os.chmod(places / FOLDER, 0o755)
    for command, kind in WRITTEN.items():
        path = FOLDER if kind == FOLDER else f"{FOLDER}/new.png"
        done = run_as_stranger(places, [*command.split(), path])
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1 and FOLDER in done.stderr


def test_a_checkout_need_not_be_installed(tree, small_run):
    code = """
import importlib.metadata as metadata, sys
known = metadata.version
def version(name):
    if name == "rmjax":
        raise metadata.PackageNotFoundError(name)
    return known(name)
metadata.version = version
from rmjax.cli.main import main
sys.exit(main(sys.argv[1:]))
"""
    image = str(tree / "real" / "cat" / "0.png")
    asked = ["attribute", image, "--workdir", str(small_run), "--json"]
    for command in (["--version"], asked):
        done = subprocess.run(
            [sys.executable, "-c", code, *command], capture_output=True, text=True
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert "0+unknown" in done.stdout


def test_evaluation_bench_prints_a_table(small_run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(bench_common, "SECONDS", 0.01)
    command = ["bench", "evaluate", "--workdir", str(small_run), "--suite", "flip"]
    command += ["--images", "8", "--repeats", "1", "--json", str(tmp_path / "b.json")]
    assert main(command) == 0
    assert "bare forward pass" in capsys.readouterr().out
    figures = json.loads((tmp_path / "b.json").read_text())
    assert (figures["images"], figures["conditions"]) == (8, 2)
    assert all(figures[name] > 0 for name in ("forward", "clean", "grid"))


def test_inference_bench_prints_a_table(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(bench_common, "SECONDS", 0.01)
    monkeypatch.setattr(bench_network, "PRODUCT", 64)
    command = ["bench", "inference", "--arch", "shallow", "--size", "16"]
    command += ["--batch-sizes", "3", "--repeats", "1"]
    assert main([*command, "--json", str(tmp_path / "b.json")]) == 0
    text = capsys.readouterr().out
    assert (
        "shallow at 16 px, float32: one image takes" in text and "batches of 3" in text
    )
    figures = json.loads((tmp_path / "b.json").read_text())
    assert list(figures["batches"]) == ["1", "3"]
    assert main(["bench", "inference", "--arch", "nothing"]) == 2
    assert "unknown architecture 'nothing'" in capsys.readouterr().err


@pytest.mark.slow
def test_step_bench_prints_a_table(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(bench_common, "SECONDS", 0.01)
    monkeypatch.setattr(bench_network, "PRODUCT", 64)
    command = ["bench", "step", "--arch", "shallow", "--size", "16", "--repeats", "1"]
    command += ["--batch-sizes", "2", "--json", str(tmp_path / "b.json")]
    assert main(command) == 0
    text = capsys.readouterr().out
    assert "training shallow at 16 px, float32, groups of 2 images mixed" in text
    figures = json.loads((tmp_path / "b.json").read_text())
    assert figures["batches"]["2"]["images_per_second"] > 0
    assert list(figures["inference"]["batches"]) == ["1", "2"]
    assert main(["bench", "step", "--batch-sizes", "3"]) == 2
    assert "batch_size = 3 images is no multiple of 2" in capsys.readouterr().err
    command += ["--mix", "pairs", "--batch-sizes", "16", "--dtype", "bfloat16"]
    assert main([*command, "--no-inference"]) == 0
    text = capsys.readouterr().out
    assert "bfloat16, pairs of 2 images" in text and "one image" not in text
    assert main([*command, "--no-inference", "--mix", "mixstyle"]) == 0
    assert "images mixed by mixstyle at level 2 or 3" in capsys.readouterr().out
    assert main([*command, "--corrupt", "0.5"]) == 2
    assert "corrupt: images must be 32 px at least" in capsys.readouterr().err
    assert main([*command, "--dtype", "int8"]) == 2
    assert "unknown model.dtype 'int8'" in capsys.readouterr().err


def test_inference_bench_compares_with_the_better_of_pytorch():
    rounds = iter([(6.0, 2.0, 4.0), (9.0, 3.0, 1.0), (6.0, 2.0, 3.0)])
    names = ("rmjax", "contiguous", "channels_last")
    row = bench_common.median_of_rounds(
        lambda: bench_network.compare(dict(zip(names, next(rounds), strict=True))),
        repeats=3,
        label="rounds",
    )
    assert row == {"images_per_second": 6, "torch_images_per_second": 3, "ratio": 2}
    row |= {"ms": 1.0, "peak_share": 0.6}
    results = {"arch": "resnet50", "size": 8, "peak_gflops": 90.0, "gflop": 9.0}
    results["dtype"] = "float32"
    text = bench_network.format_inference_bench(
        results | {"batches": {"1": row, "2": row}}
    )
    assert "PyTorch" in text and "2.00" in text and "pip install" not in text
