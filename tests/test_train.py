"""Training end to end: same results on any devices, after any interruption."""

import json
import math
from types import SimpleNamespace

import jax
import numpy as np
import pytest

import rmjax
from rmjax.errors import InputError, TrainingError
from rmjax.experiment import parallel
from rmjax.experiment.checkpoints import Checkpoints, saved_steps
from rmjax.experiment.log import read_log
from rmjax.experiment.parallel import choose_devices, place
from rmjax.experiment.step import create_state
from rmjax.training import meter
from rmjax.training import train as training
from rmjax.training.batches import read_batches
from rmjax.training.train import Progress, train


def run(config, workdir):
    return train(config, workdir, show_progress=False)


def losses(workdir):
    return [row["loss"] for row in read_log(workdir) if row["kind"] == "train"]


def assert_same_state(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_a_run_leaves_what_it_promises(small_run):
    files = {p.name for p in small_run.iterdir()}
    assert {"config.json", "run.json", "metrics.jsonl", "checkpoints"} <= files
    facts = json.loads((small_run / "run.json").read_text())
    assert facts["source_names"][0] == "real" and len(facts["source_names"]) == 8
    assert facts["versions"]["jax"] == jax.__version__
    rows = read_log(small_run)
    assert [r["step"] for r in rows if r["kind"] == "train"] == [2, 4, 6, 8, 10, 12]
    assert [r["step"] for r in rows if r["kind"] == "validation"] == [4, 8, 12]
    assert all(math.isfinite(r["loss"]) for r in rows)
    assert all(0 < r["data_wait"] < 1 for r in rows if r["kind"] == "train")
    assert list((small_run / "tensorboard").glob("events*"))
    assert {int(p.name) for p in (small_run / "checkpoints").iterdir()} == {4, 8, 12}


def test_it_learns(small_config, tmp_path):
    """Two sources that differ strongly are told apart within a minute, however lean."""
    config = small_config(
        **{
            "data.sources": ("real", "stylegan3"),
            "model.input": "highpass",
            "model.dtype": "bfloat16",
            "accumulate_steps": 2,
            "mix.name": "none",
            "optim.lr": 3e-3,
            "steps_per_epoch": 30,
            "num_epochs": 2,
            "log_every_steps": 20,
        }
    )
    run(config, tmp_path)
    rows = [r for r in read_log(tmp_path) if r["kind"] == "train"]
    assert rows[-1]["loss"] < 0.8 * rows[0]["loss"]
    assert rows[-1]["accuracy"] > 0.8


@pytest.mark.parametrize(("cells", "alike"), [((), True), ((2,), False)])
def test_an_adjusted_loss_knows_what_is_trained_on(
    small_config, tmp_path, cells, alike
):
    """In a complete grid it is the plain one; of fewer pairs each semantic says more."""
    changes = {"data.train_cells": cells, "mix.name": "pairs", "log_every_steps": 1}
    changes |= {"model.arch": "shallow", "steps_per_epoch": 1, "num_epochs": 1}
    for loss in ("attribution", "adjusted"):
        run(small_config(**changes, loss=loss), tmp_path / loss)
    first = [losses(tmp_path / loss)[0] for loss in ("attribution", "adjusted")]
    assert (abs(first[0] - first[1]) < 1e-4) == alike, first


@pytest.mark.slow
def test_a_bfloat16_run_follows_the_float32_one(small_config, small_run, tmp_path):
    """An activation is rounded by 2^-9, in some ten layers: a per cent or two."""
    config = small_config(**{"model.dtype": "bfloat16", "model.remat": True})
    state = run(config, tmp_path)
    kept = {leaf.dtype for leaf in jax.tree.leaves(state)}
    assert kept == {np.dtype("float32"), np.dtype("int32")}
    np.testing.assert_allclose(losses(tmp_path), losses(small_run), rtol=0.05)
    validations = [
        [row["loss"] for row in read_log(folder) if row["kind"] == "validation"]
        for folder in (tmp_path, small_run)
    ]
    np.testing.assert_allclose(*validations, rtol=0.05)
    model = rmjax.load(tmp_path)
    image = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), np.uint8)
    for layer in ("embedding", "layer2"):
        vector = model.embed(image, layer=layer)
        assert vector.dtype == np.float32 and np.isfinite(vector).all()
    # How often blocks are computed is no part of what a run is; its type is.
    assert_same_state(run(small_config(**{"model.dtype": "bfloat16"}), tmp_path), state)
    with pytest.raises(InputError, match=r"model\.dtype is 'bfloat16' there"):
        run(small_config(), tmp_path)


@pytest.mark.parametrize(
    ("mixing", "partners", "loss"),
    [
        ("none", "any", "ungated"),
        ("manifold", "same_semantic", "compound"),
        ("factorial", "any", "attribution"),
    ],
)
def test_mixings_and_losses_train(small_config, tmp_path, mixing, partners, loss):
    names = {"mix.name": mixing, "mix.partners": partners, "loss": loss}
    state = run(small_config(**names, num_epochs=1), tmp_path)
    assert int(state.step) == 4
    assert ("detection" in state.params) == (loss != "attribution")
    assert all(math.isfinite(loss) for loss in losses(tmp_path))


@pytest.mark.parametrize(("seconds", "low", "high"), [(0, 0.1, 0.5), (500, 0.98, 1)])
def test_waiting_for_a_slow_loader_shows(
    small_config, tmp_path, monkeypatch, seconds, low, high
):
    """By a clock that moves at every reading, and by `seconds` for every batch."""
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += 1
        return now

    def slow(*arguments, **options):
        nonlocal now
        for batch in read_batches(*arguments, **options):
            now += seconds
            yield batch

    monkeypatch.setattr(training, "read_batches", slow)
    monkeypatch.setattr(meter, "time", SimpleNamespace(perf_counter=clock))
    run(small_config(num_epochs=1), tmp_path)
    shares = [r["data_wait"] for r in read_log(tmp_path) if r["kind"] == "train"]
    assert len(shares) == 2 and all(low < share < high for share in shares)


def test_an_input_of_many_channels_trains_and_loads(small_config, tmp_path):
    changes = {"model.input": "dcthist", "model.arch": "shallow", "num_epochs": 1}
    run(small_config(**changes), tmp_path)
    assert all(math.isfinite(loss) for loss in losses(tmp_path))
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 48, 3), np.uint8)
    embedding = rmjax.load(tmp_path).embed(list(images))
    assert embedding.shape == (2, 256) and np.ptp(embedding, axis=0).max() > 0


@pytest.mark.parametrize(
    ("steps", "changes"),
    [
        pytest.param(20, {}, marks=pytest.mark.slow),
        (
            5,
            {
                "mix.name": "pairs",
                "mix.block": 4,
                "batch_size": 32,
                "model.arch": "shallow",
            },
        ),
    ],
)
def test_losses_do_not_depend_on_the_number_of_devices(
    small_config, tmp_path, steps, changes
):
    found = {}
    for count in (1, 8):
        config = small_config(
            **{
                "num_devices": count,
                "model.sync_batch_norm": True,
                "optim.lr": 1e-4,  # as published; Adam amplifies rounding with it
                "steps_per_epoch": steps,
                "num_epochs": 1,
                "log_every_steps": 1,
                "data.crop": 32,
                "corrupt.rate": 0.5,
                "corrupt.names": ("gaussian_noise", "contrast"),
                **changes,
            }
        )
        run(config, tmp_path / str(count))
        found[count] = losses(tmp_path / str(count))
    assert len(found[1]) == steps
    np.testing.assert_allclose(found[8], found[1], rtol=1e-4)


def test_arguments_of_every_step_are_in_place(small_config, tmp_path, monkeypatch):
    """`jax.pmap` would copy or deal them out anew in every call, without a word."""
    calls = []

    def guard(make):
        def made(function, devices, **options):
            mapped = make(function, devices, **options)

            def run(state, batch):
                calls.append(make.__name__)
                with jax.transfer_guard("disallow"):
                    out = mapped(state, batch)
                if make is map_step:
                    # The next step takes the state as this one leaves it, and scalars
                    # are fetched from one device: no replica is indexed.
                    leaves = jax.tree.leaves(out)
                    assert all(x.sharding.is_fully_replicated for x in leaves)
                return out

            return run

        return made

    map_step = parallel.map_step
    for make in (map_step, parallel.map_examples):
        monkeypatch.setattr(parallel, make.__name__, guard(make))
    run(small_config(num_devices=2, num_epochs=1), tmp_path)
    assert calls.count("map_step") == 4
    assert "map_examples" in calls


def test_stopping_between_two_commands_changes_nothing(small_config, tmp_path):
    changes = {"model.arch": "shallow", "num_devices": 2}
    whole = run(small_config(**changes), tmp_path / "whole")
    run(small_config(**changes, num_epochs=1), tmp_path / "parts")
    parts = run(small_config(**changes), tmp_path / "parts")
    assert_same_state(parts, whole)
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")


def test_stops_early_when_validation_no_longer_improves():
    progress = Progress()
    for loss in (2.0, 1.5, 1.6, 1.5):
        progress.update(loss)
    assert progress.best_loss == 1.5
    assert progress.stale == 2


def test_an_early_stop_ends_the_run_for_good(small_config, tmp_path):
    """With a learning rate of nothing the loss can hardly improve."""
    config = small_config(
        **{
            "model.arch": "shallow",
            "optim.lr": 1e-12,
            "patience": 1,
            "num_epochs": 40,
            "steps_per_epoch": 1,
        }
    )
    state = run(config, tmp_path)
    assert int(state.step) < 40
    assert int(run(config, tmp_path).step) == int(state.step)


def test_a_loss_that_is_not_finite_stops_the_run(small_config, tmp_path):
    run(small_config(num_epochs=1), tmp_path)
    config_file = tmp_path / "config.json"
    text = config_file.read_text()
    assert '"lr": 0.001' in text
    config_file.write_text(text.replace('"lr": 0.001', '"lr": 1e+30'))
    with pytest.raises(TrainingError, match=r"at step [5-8]: .* checkpoint stays"):
        run(small_config(**{"optim.lr": 1e30}), tmp_path)
    assert Checkpoints(tmp_path / "checkpoints", read_only=True).last_step() == 4


def test_a_workdir_of_another_config_is_refused(small_config, small_run):
    with pytest.raises(InputError, match=r"mix\.beta is 0\.4 there and 0\.5 here"):
        run(small_config(**{"mix.beta": 0.5}), small_run)


def test_a_workdir_that_nothing_was_saved_in_takes_a_corrected_config(
    small_config, tmp_path, monkeypatch
):
    """The images turn out to be damaged at the first step; another data set is not."""

    def none(*arguments, **options):
        raise InputError("an image is damaged")
        yield

    changes = {"model.arch": "shallow", "num_epochs": 1, "steps_per_epoch": 1}
    with monkeypatch.context() as patch, pytest.raises(InputError, match="is damaged"):
        patch.setattr(training, "read_batches", none)
        run(small_config(**changes, seed=1), tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["seed"] == 1
    run(small_config(**changes, seed=2), tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["seed"] == 2
    with pytest.raises(InputError, match="seed is 2 there and 3 here"):
        run(small_config(**changes, seed=3), tmp_path)


def test_how_many_are_kept_may_change_when_a_run_is_taken_up(small_config, tmp_path):
    changes = {"model.arch": "shallow", "steps_per_epoch": 1, "eval_every_epochs": 1}
    changes["patience"] = 9
    run(small_config(**changes, num_epochs=4), tmp_path)
    assert len(saved_steps(tmp_path / "checkpoints")) == 4
    run(small_config(**changes, num_epochs=5, keep_best=0), tmp_path)
    assert saved_steps(tmp_path / "checkpoints") == [4, 5]


@pytest.mark.parametrize("name", ["exp[1]", "a *b?", "{x},{y} [!z]"])
def test_any_name_of_a_workdir_will_do(small_config, tmp_path, name):
    """To glob patterns of one's own path, Orbax's checkpoints fell victim."""
    workdir = tmp_path / name / "run"
    state = run(small_config(**{"model.arch": "shallow", "num_epochs": 1}), workdir)
    loaded = rmjax.load(workdir)
    assert loaded.checkpoint == int(state.step) == 4
    assert_same_state(loaded.variables["params"], state.params)
    again = run(small_config(**{"model.arch": "shallow", "num_epochs": 1}), workdir)
    assert_same_state(again, state)


def test_a_workdir_that_is_no_folder_is_told(small_config, tmp_path):
    (tmp_path / "file").write_text("")
    for workdir in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(InputError, match=rf"{workdir}: Not a directory"):
            run(small_config(), workdir)
    (tmp_path / "run").mkdir()
    (tmp_path / "run/checkpoints").write_text("")
    with pytest.raises(InputError, match="can't write .*run/checkpoints"):
        run(small_config(), tmp_path / "run")
    (tmp_path / "other/run.json").mkdir(parents=True)
    with pytest.raises(InputError, match="can't write .*other/run.json"):
        run(small_config(), tmp_path / "other")


def test_a_workdir_of_other_classes_is_refused(small_config, small_run):
    with pytest.raises(InputError, match=r"data\.sources"):
        run(small_config(**{"data.sources": ("real", "dcgan")}), small_run)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 15}, "batch_size = 15 images is no multiple of 2"),
        ({"batch_size": 20, "num_devices": 8}, "8 devices x 1 processes x 2 images"),
        ({"mix.name": "pairs", "mix.block": 6}, "multiple of 6 = .* x 6 images that"),
        ({"accumulate_steps": 3}, "multiple of 6 = .* x 3 accumulate_steps"),
        ({"accumulate_steps": 0}, "accumulate_steps = 0: give at least 1"),
        ({"num_devices": 99}, "num_devices = 99, but this process has 8"),
        ({"mix.name": "stir"}, "unknown mixing 'stir'.*repmix"),
        ({"corrupt.rate": 0.5, "corrupt.recipe": "fry"}, "recipe 'fry'.*blur_jpeg"),
        ({"loss": "triplet"}, "unknown loss 'triplet'.*compound"),
        ({"mix.level": 9}, "mix.level = 9.*0 to 6"),
        ({"mix.partners": "twin"}, "mix.partners 'twin'.*any, same_source"),
        ({"model.arch": "vgg"}, "unknown architecture 'vgg'.*resnet50"),
        (
            {"model.arch": "patch_cnn", "model.input": "chroma"},
            "patch_cnn is for inputs of 16x16 or more; .*data.crop",
        ),
        ({"model.dtype": "float16"}, "model.dtype 'float16'.*float32, bfloat16"),
        ({"model.input": "sepia"}, "unknown input 'sepia'.*rgb"),
        ({"corrupt.rate": 95.0}, "corrupt.rate = 95.0: give a number from 0 to 1"),
        ({"corrupt.rate": 0.5}, "corrupt: images must be 32 px at least, not 24"),
        (
            {"corrupt.rate": 0.5, "corrupt.names": ("rain",)},
            "corrupt: name: unknown rain; choose from gaussian_noise",
        ),
        (
            {"corrupt.rate": 0.5, "data.crop": 32, "corrupt.frost_dir": "/none"},
            "no photographs of frost in /none",
        ),
        ({"data.crop": 40}, "data.crop = 40.*data.size = 32"),
        ({"data.resize": 24}, "data.size = 32.*data.resize = 24"),
        ({"data.eval_resize": 24}, "data.eval_size = 32.*data.eval_resize = 24"),
        (
            {"data.eval_resize": 0, "data.eval_size": 40},
            "32x32 pixels, smaller than data.eval_size = 40",
        ),
        ({"eval_batch_size": 0}, "eval_batch_size = 0: give at least 1"),
        ({"steps_per_epoch": -1}, "steps_per_epoch = -1: give at least 0"),
        ({"optim.lr": math.nan}, "optim.lr = nan: give more than 0"),
        ({"data.name": "image_folder/none"}, "rmjax prepare image_folder --name none"),
        ({"data.sources": ("real", "gpt")}, "unknown source 'gpt'.*dcgan"),
        ({"data.seen_semantics": ("moon",)}, "unknown semantic 'moon'"),
    ],
)
def test_bad_settings_are_named_before_anything_is_written(
    small_config, tmp_path, changes, message
):
    with pytest.raises(InputError, match=message):
        run(small_config(**changes), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_checkpoint_of_another_network_is_refused(small_run):
    import optax

    from rmjax.models.repmix import RepMix

    devices = choose_devices(1)
    other = create_state(RepMix("tiny", 5), optax.adam(1e-3), 0, (24, 24, 3))
    checkpoints = Checkpoints(small_run / "checkpoints", read_only=True)
    with pytest.raises(InputError, match=r"another network: .*attribution"):
        checkpoints.restore(12, place(other, devices))
