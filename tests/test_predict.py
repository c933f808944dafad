"""Predictions: exact whatever the batches and devices; a grid that can be stopped."""

import numpy as np
import pytest
from tqdm import tqdm

from rmjax.evaluation.predict import digest_images, make_runner, predict_grid
from rmjax.evaluation.robustness import parse_suite
from rmjax.experiment.data import open_data
from rmjax.inference.attributor import load

SUITE = parse_suite("contrast:3,flip")


def start(workdir, devices=1, batch_size=32):
    run = load(workdir, num_devices=devices)
    run.config.eval_batch_size = batch_size
    data = open_data(run.config)
    return run, data, make_runner(run.config, len(data.sources), run.devices)


def parts_of(data):
    return {"seen": (data.seen, ("test", "val")), "unseen": (data.unseen, ("test",))}


def test_predictions_do_not_depend_on_batches_or_devices(small_run):
    found = []
    for devices, batch_size in ((1, 64), (1, 7), (2, 10), (8, 24)):
        run, data, runner = start(small_run, devices, batch_size)
        found.append(runner.predict(run.variables, parts_of(data)["seen"]))
    first, *others = found
    assert len(first) == data.seen.size("test") + data.seen.size("val")
    for other in others:
        for name in ("source", "semantic", "group", "split", "index"):
            np.testing.assert_array_equal(getattr(other, name), getattr(first, name))
        np.testing.assert_allclose(other.attribution, first.attribution, atol=1e-5)
        np.testing.assert_allclose(other.embedding, first.embedding, atol=1e-4)


def test_a_grid_holds_what_each_condition_gives_alone(small_run, tmp_path):
    run, data, runner = start(small_run)
    parts = parts_of(data)
    grid = predict_grid(
        runner, run.variables, parts, SUITE, tmp_path, tqdm(disable=True)
    )
    for part in parts:
        clean = runner.predict(run.variables, parts[part])
        found = grid.predictions(0, part)
        for name in ("source", "semantic", "group", "split", "index", "attribution"):
            np.testing.assert_array_equal(getattr(found, name), getattr(clean, name))
        np.testing.assert_array_equal(found.embedding, clean.embedding)
    flipped = grid.predictions(2, "seen")
    assert flipped.embedding.shape == (len(flipped), 0)
    assert not np.allclose(flipped.attribution, grid.predictions(0, "seen").attribution)


def test_a_grid_that_was_stopped_goes_on(small_run, tmp_path):
    run, data, runner = start(small_run)
    parts = parts_of(data)

    class Stop(Exception):
        pass

    class Bar:
        """Counts images, and stops at a number of them."""

        def __init__(self, limit):
            self.count, self.limit = 0, limit

        def update(self, images):
            self.count += images
            if self.count > self.limit:
                raise Stop

        def set_description(self, text):
            pass

    total = 3 * sum(selection.size(*splits) for selection, splits in parts.values())
    # In the first part, and in the second.
    for limit in (200, total - 60):
        with pytest.raises(Stop):
            predict_grid(
                runner, run.variables, parts, SUITE, tmp_path / "a", Bar(limit)
            )
    bar = Bar(np.inf)
    stopped = predict_grid(runner, run.variables, parts, SUITE, tmp_path / "a", bar)
    assert bar.count == total  # what was done before counts too
    whole = predict_grid(
        runner, run.variables, parts, SUITE, tmp_path / "b", Bar(np.inf)
    )
    for name in ("embedding", "attribution", "detection"):
        np.testing.assert_array_equal(getattr(stopped, name), getattr(whole, name))


def test_each_image_is_decoded_once(small_run, tmp_path, monkeypatch):
    run, data, runner = start(small_run)
    part = (data.seen, ("test",))
    seen = []

    def count(data, name, *args):
        seen.append(name)
        return decode(data, name, *args)

    from rmjax.data import pipeline

    decode = pipeline.decode_rgb
    monkeypatch.setattr(pipeline, "decode_rgb", count)
    parts = {"seen": part}
    predict_grid(runner, run.variables, parts, SUITE, tmp_path, tqdm(disable=True))
    assert len(seen) == len(set(seen)) == data.seen.size("test")


def test_other_images_have_another_digest(small_config):
    data = open_data(small_config())
    parts = parts_of(data)
    first = digest_images(parts)
    assert first == digest_images(parts_of(open_data(small_config())))
    assert first != digest_images({"seen": parts["seen"]})
