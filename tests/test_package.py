"""The installed package: complete, importable anywhere, and a good neighbour."""

import ast
import email
import re
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
# Of files to be installed.
KINDS = set(".py .md .bib .txt .jinja .html .css .js .safetensors .typed".split())


def run(code, cwd, python=sys.executable):
    command = [python, "-c", code]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True)


@pytest.fixture(scope="module")
def distributions(tmp_path_factory):
    """Folder of a source distribution, and of the wheel that is built from it."""
    folder = tmp_path_factory.mktemp("distributions")
    command = [sys.executable, "-m", "build", "--outdir", str(folder), str(ROOT)]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


@pytest.fixture(scope="module")
def wheel(distributions):
    return next(distributions.glob("rmjax-*.whl"))


@pytest.fixture(scope="module")
def metadata(wheel):
    with zipfile.ZipFile(wheel) as archive:
        name = next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        return email.message_from_bytes(archive.read(name))


def test_distributions_are_what_pypi_takes(distributions):
    files = [str(path) for path in distributions.iterdir()]
    assert sorted(Path(f).suffix for f in files) == [".gz", ".whl"]
    command = [sys.executable, "-m", "twine", "check", "--strict", *files]
    checked = subprocess.run(command, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout


def test_metadata_say_what_it_is(metadata):
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["License-File"] == "LICENSE"
    for field in ("Author", "Keywords", "Summary", "Requires-Python", "Project-URL"):
        assert metadata[field], field
    text = metadata.get_payload()
    links = re.findall(r"\]\(([^)]*)\)", text)
    assert links, "the description has lost its links"
    relative = [link for link in links if not link.startswith(("https://", "#"))]
    assert not relative, "links that lead nowhere on PyPI"


def test_changelog_keeps_to_its_form(metadata):
    """Sections of Keep a Changelog 1.1.0, newest first; the version is among them."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    first, *releases = re.findall(r"^## (.*)", text, re.MULTILINE)
    assert first == "[Unreleased]"
    parts = [re.fullmatch(r"\[(.+)\] - (\d{4}-\d\d-\d\d)", line) for line in releases]
    versions = [part[1] for part in parts]
    assert versions == sorted(versions, key=Version, reverse=True)
    assert metadata["Version"] == versions[0]
    for section in re.split(r"^## .*", text, flags=re.MULTILINE)[1:]:
        kinds = re.findall(r"^### (.*)", section, re.MULTILINE)
        known = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"]
        assert kinds and kinds == [kind for kind in known if kind in kinds]


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
    command = [python, "-I", "-m", "pip", "install", "--no-deps", "--quiet", str(wheel)]
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
