"""The notebooks run from nothing, and their stored outputs are small and of no machine.

With RMJAX_WRITE_NOTEBOOKS=1 what they put out is written into them (launch/notebooks.sh).
"""

import os
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "notebooks"
NOTEBOOKS = sorted(path.stem for path in FOLDER.glob("*.ipynb"))
QUICK = ("own_loop",)
WRITES = os.environ.get("RMJAX_WRITE_NOTEBOOKS") == "1"
EIGHT_DEVICES = "--xla_force_host_platform_device_count=8"  # of tests/conftest.py


def read(name):
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
        for name in NOTEBOOKS
    ],
)
def test_notebook_runs_from_nothing(name, tmp_path):
    notebook = read(name)
    client = NotebookClient(
        notebook,
        timeout=900,
        record_timing=False,
        resources={"metadata": {"path": str(tmp_path)}},
    )
    # As users run it when it is written, else compiled in a hurry as all tests are.
    flags = "" if WRITES else os.environ["XLA_FLAGS"].replace(EIGHT_DEVICES, "")
    client.execute(env=os.environ | {"XLA_FLAGS": flags})
    if WRITES:
        notebook.metadata.language_info = {"name": "python"}  # not of which version
        nbformat.write(notebook, FOLDER / f"{name}.ipynb")


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_stored_outputs_are_whole_small_and_of_no_machine(name):
    notebook = read(name)
    nbformat.validate(notebook)
    assert (FOLDER / f"{name}.ipynb").stat().st_size < 300_000
    code = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    for cell in code:
        for output in cell.outputs:
            assert output.output_type != "error" and output.get("name") != "stderr"
            text = output.get("text") or output.data.get("text/plain", "")
            assert not re.search(r"(?<![\w.])/\w+/\w+", text), "a path of a machine"


def test_links_of_notebooks_lead_somewhere():
    links = [
        link
        for name in NOTEBOOKS
        for cell in read(name).cells
        if cell.cell_type == "markdown"
        for link in re.findall(r"\]\(([^)#]+)\)", cell.source)
        if "://" not in link
    ]
    assert links
    for link in links:
        assert (FOLDER / link).exists(), link
