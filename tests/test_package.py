"""The installed package: complete, importable anywhere, and a good neighbour."""

import ast
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# Of files to be installed.
KINDS = set(".py .md .bib .txt .jinja .html .css .js .safetensors .typed".split())


def run(code, cwd, python=sys.executable):
    command = [python, "-c", code]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel of a copy of the sources, as `pip install .` builds it."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--quiet"]
    built = subprocess.run(
        [*command, "--wheel-dir", str(folder), str(ROOT)],
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr
    return next(folder.glob("rmjax-*.whl"))


def test_wheel_holds_all_modules_builders_configs_and_weights(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder, inside in (
        ("rmjax", ""),
        ("datasets", "rmjax/"),
        ("configs", "rmjax/"),
    ):
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and path.suffix in KINDS:
                assert inside + path.relative_to(ROOT).as_posix() in names
    outside = [n for n in names if not n.startswith(("rmjax/", "rmjax-"))]
    assert not outside, "nothing may be installed under another name"


def test_installed_wheel_works_from_another_directory(wheel, tmp_path):
    """A bare environment that borrows this one's dependencies."""
    venv.create(tmp_path / "env", with_pip=True)
    python = str(tmp_path / "env" / "bin" / "python")
    command = [python, "-m", "pip", "install", "--no-deps", "--quiet", str(wheel)]
    subprocess.run(command, check=True)
    borrowed = [p for p in sys.path if p.endswith("site-packages")]
    code = f"""
import sys
sys.path += {borrowed}
import rmjax.cli.main, rmjax.experiment.config, rmjax.evaluation.evaluate, rmjax.training.train
from rmjax.datasets.attribution_mini import attribution_mini_dataset_builder
from rmjax.datasets.image_folder import image_folder_dataset_builder
assert "env" in rmjax.__file__, rmjax.__file__
rmjax.experiment.config.load_config("attribution_mini")
from rmjax.evaluation.predict import ANSWER_CODE, ANSWER_LIBRARIES, revision
assert len(revision(ANSWER_CODE, ANSWER_LIBRARIES)) == 64
assert rmjax.load().name == "fingerprint"
try:
    rmjax.cli.main.main(["--help"])
except SystemExit as end:
    assert end.code == 0
"""
    result = run(code, tmp_path, python)
    assert result.returncode == 0, result.stderr
    assert "usage: rmjax" in result.stdout


def test_builders_and_configs_keep_to_their_floor():
    """By the contract of import-linter, which does not follow their links itself."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    layers = settings["tool"]["importlinter"]["contracts"][0]["layers"]
    floors = {
        name.strip(" ()"): -number
        for number, row in enumerate(layers)
        for name in row.split("|")
    }
    modules = [
        p
        for top in ("rmjax", "datasets", "configs")
        for p in (ROOT / top).rglob("*.py")
    ]
    crossings = 0
    for path in modules:
        place = path.relative_to(
            ROOT / "rmjax" if path.is_relative_to(ROOT / "rmjax") else ROOT
        )
        own = place.parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            target = isinstance(node, ast.ImportFrom) and (node.module or "").split(".")
            if not target or target[0] != "rmjax" or len(target) < 2:
                continue
            if own != target[1] and {own, target[1]} & {"datasets", "configs"}:
                assert floors[own] > floors[target[1]], f"{place}: {node.module}"
                crossings += 1
    assert crossings > 20


@pytest.mark.parametrize("inside", [True, False], ids=["repository", "elsewhere"])
def test_hugging_face_datasets_stays_importable(tmp_path, inside):
    """Its package is found, not our folder, even from the repository."""
    theirs = tmp_path / "site" / "datasets"
    theirs.mkdir(parents=True)
    (theirs / "__init__.py").write_text("marker = 'theirs'\n")
    code = f"""
import sys
sys.path.append({str(tmp_path / "site")!r})
import rmjax.datasets.image_folder
import datasets
assert datasets.marker == "theirs"
"""
    result = run(code, ROOT if inside else tmp_path)
    assert result.returncode == 0, result.stderr


def test_tensorflow_is_never_imported(small_run, tmp_path):
    """With a TensorFlow that fails on import, a run still loads and evaluates."""
    trap = tmp_path / "tensorflow"
    trap.mkdir()
    (trap / "__init__.py").write_text("raise SystemExit('tensorflow was imported')\n")
    workdir = shutil.copytree(small_run, tmp_path / "run")
    code = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
import rmjax.training.train
from rmjax.datasets.image_folder import image_folder_dataset_builder
from rmjax.evaluation.evaluate import evaluate
evaluate({str(workdir)!r}, show_progress=False)
assert "tensorflow" not in sys.modules
"""
    result = run(code, tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
