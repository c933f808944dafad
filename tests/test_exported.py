"""Runs as one file of weights, and the one that ships."""

import json
from dataclasses import replace

import jax
import numpy as np
import pytest
import safetensors.numpy
from torch_files import save_zip

import rmjax
from rmjax.cli.main import main
from rmjax.errors import InputError
from rmjax.experiment.config import load_config
from rmjax.gallery.ask import identify
from rmjax.inference.calibration import Calibration
from rmjax.inference.exported import SHIPPED, export, read_exported
from rmjax.inference.transformer import FingerprintTransformer
from rmjax.pretrained.files import EXPORTED, read_metadata
from rmjax.pretrained.weights import read_weights
from rmjax.training.start import starting_backbone

IMAGES = [
    np.random.default_rng(i).integers(0, 256, (40, 32 + i, 3), np.uint8)
    for i in range(3)
]


@pytest.fixture(scope="module")
def fingerprint(fingerprint_run):
    return rmjax.load(fingerprint_run, num_devices=1)


@pytest.fixture(scope="module")
def exported(fingerprint, tmp_path_factory):
    return export(fingerprint, tmp_path_factory.mktemp("exported") / "f.safetensors")


def test_a_run_with_sources_answers_the_same_from_its_file(small_run, tmp_path):
    points = ({"fpr": 0.05, "threshold": 0.4},)
    calibration = Calibration(
        images=9,
        attribution=2.1,
        detection=0.3,
        reject={"threshold": 0.2},
        operating_points=points,
        digest="d",
    )
    run = rmjax.load(small_run, num_devices=1)
    run = replace(run, calibration=calibration, provenance={"notes": ["a"]})
    file = export(run, tmp_path / "run.safetensors")
    loaded = rmjax.load_pretrained(file, num_devices=1)
    assert loaded.name == "run.safetensors" and loaded.digest == run.digest
    assert identify(loaded) == identify(run)
    for field in ("config", "source_names", "checkpoint", "calibration", "training"):
        assert getattr(loaded, field) == getattr(run, field)
    assert loaded.provenance == run.provenance
    expected, said = run.predict(IMAGES), loaded.predict(IMAGES)
    for name, values in expected.items():
        np.testing.assert_array_equal(said[name], values)


def test_a_network_without_heads_comes_back(fingerprint, exported):
    loaded = rmjax.load_pretrained(exported, num_devices=1)
    assert (loaded.source_names, loaded.layer) == ((), "embedding")
    assert identify(loaded) == identify(fingerprint)
    np.testing.assert_array_equal(loaded.embed(IMAGES), fingerprint.embed(IMAGES))
    start = starting_backbone(
        load_config("fingerprint", [f"--config.model.init={exported}"])
    )
    jax.tree.map(
        np.testing.assert_array_equal,
        start["params"]["backbone"],
        fingerprint.variables["params"]["backbone"],
    )


def test_the_command_writes_the_same_bytes_and_never_over_a_file(
    fingerprint_run, exported, tmp_path, capsys
):
    file = tmp_path / "f.safetensors"
    command = ["export", "--workdir", str(fingerprint_run), "--out"]
    assert main([*command, str(file)]) == 0
    assert str(file) in capsys.readouterr().out
    assert file.read_bytes() == exported.read_bytes()
    for out, message in ((file, "exists"), (tmp_path / "f.pth", "ending in")):
        assert main([*command, str(out)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("rmjax export: error: ") and message in line
    elsewhere = [*command, str(tmp_path / "g.safetensors"), "--checkpoint", "99"]
    assert main(elsewhere) == 2 and "no checkpoint 99" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["f.safetensors"]


def rewritten(exported, path, arrays=None, **changes):
    """A file like the exported one, with other arrays or facts."""
    facts = json.loads(read_metadata(exported)[EXPORTED]) | changes
    facts = {name: value for name, value in facts.items() if value is not ...}
    arrays = safetensors.numpy.load_file(exported) | (arrays or {})
    safetensors.numpy.save_file(arrays, path, {EXPORTED: json.dumps(facts)})
    return path


def test_damaged_and_foreign_files_are_one_line(exported, tmp_path, capsys):
    data = exported.read_bytes()
    flipped = bytearray(data)
    flipped[-9] ^= 1
    config = json.loads(read_metadata(exported)[EXPORTED])["config"]
    written = {
        "cut": (data[: len(data) // 2], "no readable"),
        "short": (data[:20], "no readable"),
        "flipped": (bytes(flipped), "damaged (other numbers than were written)"),
        "text": (b"no weights", "no readable"),
    }
    cases = {}
    for name, (content, message) in written.items():
        cases[tmp_path / name] = message
        (tmp_path / name).write_bytes(content)
    for name, message, changes in (
        ("more", "other entries", {"arrays": {"params/x": np.ones(3, "f4")}}),
        ("calibration", "damaged", {"calibration": {"images": "x"}}),
        ("lacking", "damaged ('checkpoint')", {"checkpoint": ...}),
        ("no config", "damaged", {"config": []}),
        ("older", "no key model.arch", {"config": config | {"model": {}}}),
    ):
        cases[rewritten(exported, tmp_path / name, **changes)] = message
    safetensors.numpy.save_file({"a": np.ones(3, "f4")}, tmp_path / "bare")
    cases[tmp_path / "bare"] = "neither a ResNet"
    save_zip(tmp_path / "torch", {"rmjax": {}})
    cases[tmp_path / "torch"] = "neither a ResNet"
    cases[tmp_path / "gone"] = "No such file"
    for path, message in cases.items():
        out = str(tmp_path / "table.npz")
        command = ["embed", "--workdir", str(path), "--images", "x", "--out", out]
        assert main(command) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert str(path) in line and message in line


def test_an_exported_run_is_not_converted(exported, tmp_path):
    with pytest.raises(InputError, match="--workdir"):
        read_weights(exported)
    with pytest.raises(InputError, match="its own sources"):
        rmjax.load_pretrained(exported, sources=("real", "a"))


def test_the_network_that_ships():
    model = rmjax.load(num_devices=1)
    assert (model.name, model.source_names) == ("fingerprint", ())
    assert model.layer == "embedding" and model.training["images"] > 0
    assert SHIPPED.stat().st_size < 8 * 2**20
    embedding = model.embed(IMAGES)
    assert np.isfinite(embedding).all() and embedding.any(1).all()
    same = FingerprintTransformer().transform(IMAGES)
    np.testing.assert_allclose(same, embedding, atol=1e-5)
    assert read_exported(SHIPPED)["checkpoint"] == model.checkpoint
    with pytest.raises(InputError, match="one alone"):
        rmjax.load(checkpoint="last")
