"""Training on simulated generators, and what it refuses."""

import jax
import numpy as np
import pytest
from small_settings import SMALL

import rmjax
from rmjax.errors import InputError
from rmjax.experiment.config import load_config
from rmjax.experiment.log import read_log
from rmjax.training.start import starting_backbone
from rmjax.training.train import train


def run(config, workdir):
    return train(config, workdir, show_progress=False)


def losses(workdir):
    return [row["loss"] for row in read_log(workdir) if row["kind"] == "train"]


@pytest.fixture
def fingerprints(mini_dir):
    """Function `(**changes)` to the shipped config of that name, shrunk to seconds."""

    def make(**changes):
        config = load_config("fingerprint")
        small = SMALL | {"data.dir": str(mini_dir), "data.name": "attribution_mini"}
        small |= {"simulate.generators": 3}
        config.update_from_flattened_dict(small | {"log_every_steps": 1} | changes)
        return config

    return make


@pytest.mark.slow
def test_a_network_learns_the_fingerprints_of_simulated_generators(
    fingerprints, tmp_path
):
    """It knows no sources; the losses are those of two devices, and of a run resumed."""
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    run(fingerprints(), whole)
    run(fingerprints(num_epochs=1), resumed)
    run(fingerprints(num_devices=2), resumed)
    rows = losses(whole)
    np.testing.assert_allclose(losses(resumed), rows, rtol=1e-3)
    assert np.mean(rows[-4:]) < np.mean(rows[:4])
    model = rmjax.load(whole)
    image = np.random.default_rng(0).integers(0, 255, (40, 32, 3), np.uint8)
    assert model.source_names == () and model.embed([image]).shape == (1, 256)
    start = starting_backbone(fingerprints(**{"model.init": str(whole)}))
    jax.tree.map(
        np.testing.assert_array_equal,
        start["params"]["backbone"],
        model.variables["params"]["backbone"],
    )
    for refused in (lambda: model.predict([image]), lambda: rmjax.evaluate(whole)):
        with pytest.raises(InputError, match="knows no sources"):
            refused()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 18}, "a multiple of 4, from 8 on"),
        ({"simulate.generators": 15}, "a multiple of 16, from 32 on"),
        ({"loss": "attribution", "data.eval_size": 32}, "loss = 'fingerprint'"),
        ({"data.crop": 20}, "a multiple of 8"),
        ({"simulate.without": ("hum",)}, "simulate.without 'hum'; choose from skip"),
        ({"simulate.generators": -1}, "simulate.generators = -1"),
        ({"num_devices": 8}, "no multiple of 32"),
    ],
)
def test_what_simulated_generators_cannot_do_is_named(
    fingerprints, tmp_path, changes, message
):
    with pytest.raises(InputError, match=message):
        run(fingerprints(**changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()
