"""What is kept is known by the code that computed it, and by the libraries."""

import inspect

import pytest

from rmjax import inputs
from rmjax.corruptions import CORRUPTIONS, corrupt, reshare
from rmjax.data.images import centre, decode_rgb, resize_shorter
from rmjax.data.panes import load_panes
from rmjax.evaluation import calibration, evaluate, predict, robustness
from rmjax.experiment.build import make_eval_step
from rmjax.inference.calibration import Calibration
from rmjax.models.forward import prepare
from rmjax.utils.revision import _sources, revision

LIBRARIES = ("numpy",)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package with a module beside and a package inside."""
    folder = tmp_path / "computes" / "inner"
    folder.mkdir(parents=True)
    for path in (folder.parent / "__init__.py", folder / "__init__.py"):
        path.touch()
    (folder.parent / "one.py").write_text("x = 1")
    (folder / "two.py").write_text("x = 2")
    (tmp_path / "computes_too.py").write_text("x = 3")
    monkeypatch.syspath_prepend(tmp_path)
    return folder.parent


@pytest.mark.parametrize("file", ["one.py", "inner/two.py", "new.py", "inner/new.py"])
def test_a_changed_source_file_is_another_revision(package, file):
    def digest():
        revision.cache_clear()
        return revision(("computes",), LIBRARIES)

    first = digest()
    assert digest() == first
    (package / file).write_text("x = 4")
    assert digest() != first


def test_modules_and_libraries_count(package):
    names = [("computes",), ("computes.inner",), ("computes", "computes_too")]
    found = {revision(modules, LIBRARIES) for modules in names}
    found.add(revision(("computes",), ("numpy", "jax")))
    assert len(found) == 4
    with pytest.raises(ModuleNotFoundError, match="computes.nothing"):
        revision(("computes.nothing",), LIBRARIES)


def test_it_is_read_once(package):
    first = revision(("computes",), LIBRARIES)
    (package / "one.py").write_text("x = 4")
    assert revision(("computes",), LIBRARIES) == first


@pytest.mark.parametrize(
    ("modules", "functions"),
    [
        (
            robustness.IMAGE_CODE,
            [corrupt, reshare, *CORRUPTIONS.values(), load_panes, inputs.to_unit,
             decode_rgb, resize_shorter, centre, robustness.Corrupter],
        ),
        (
            predict.ANSWER_CODE,
            [corrupt, decode_rgb, make_eval_step, prepare, predict.Runner],
        ),
        (evaluate.CALIBRATION_CODE, [calibration.calibrate, Calibration]),
    ],
)  # fmt: skip
def test_what_is_kept_is_known_by_what_computes_it(modules, functions):
    files = {str(path) for name in modules for path in _sources(name)}
    assert {inspect.getsourcefile(function) for function in functions} <= files
