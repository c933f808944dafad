"""Stored features in place of images: tables, heads trained and fitted on them, sweeps."""

import json
import shutil

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

import rmjax
from rmjax.cli.main import main
from rmjax.data.dataset import find_dataset, open_dataset
from rmjax.data.features import feature_size, open_features
from rmjax.data.pipeline import train_batches
from rmjax.errors import InputError
from rmjax.evaluation.evaluate import evaluate
from rmjax.evaluation.predict import digest_answers, digest_images, make_runner
from rmjax.experiment.config import load_config
from rmjax.experiment.data import open_data
from rmjax.experiment.log import read_log
from rmjax.gallery.ask import identify
from rmjax.hub.push import write_repository
from rmjax.inference.attributor import load_pretrained, load_run
from rmjax.inference.exported import export
from rmjax.inference.local import make_run
from rmjax.mixing import MIXINGS
from rmjax.sweep.grid import read_grid
from rmjax.sweep.plan import plan_sweep
from rmjax.sweep.runs import Sweep
from rmjax.training.start import measure_features
from rmjax.training.train import check_settings, train

UNSEEN = ("classroom", "cow", "kitchen", "sheep", "tower")


@pytest.fixture(scope="module")
def table(made_once, small_run, mini_dir):
    """Features of all images of attribution_mini, by the small run's pool."""

    def make(folder):
        folder.mkdir()
        command = ["embed", "--workdir", str(small_run), "--layer", "pool"]
        command += ["--images", "attribution_mini", "--data-dir", str(mini_dir)]
        assert main([*command, "--out", str(folder / "pool.parquet")]) == 0

    return str(made_once("features", make) / "pool.parquet")


@pytest.fixture(scope="module")
def probe(table):
    """Function `(**changes by dotted key)` to the shipped config, shrunk to seconds."""

    def make(**changes):
        config = load_config("probe")
        small = {"data.features": table, "data.unseen_semantics": UNSEEN}
        small |= {"batch_size": 64, "num_epochs": 4, "num_devices": 1}
        config.update_from_flattened_dict(small | changes)
        return config

    return make


@pytest.fixture(scope="module")
def probe_run(made_once, probe):
    """Config and workdir of a head that is trained."""
    config = probe(num_epochs=20)
    return config, made_once("probe", lambda f: train(config, f, show_progress=False))


def rows(config, split):
    """Features and sources of what a config trains or is tested on."""
    seen = open_data(config).seen
    numbers = seen.records[split]
    return seen.dataset.files(split).features[numbers], seen.labels[split]["source"]


# ---------------------------------------------------------------------------- the table


def test_a_table_knows_its_data_set(table, small_run, mini_dir):
    ours = open_features(table)
    dataset = open_dataset(find_dataset(mini_dir, "attribution_mini"))
    for name in ("directory", "source_names", "semantic_names", "split_sizes"):
        assert getattr(ours, name) == getattr(dataset, name), name
    for split in dataset.split_sizes:
        for name, values in dataset.labels(split).items():
            np.testing.assert_array_equal(ours.labels(split)[name], values)
    model = rmjax.load(small_run, num_devices=1)
    files = dataset.files("val").read([0, 7])
    pooled = model.embed([data for _, data in files], layer="pool")
    np.testing.assert_allclose(ours.files("val").features[[0, 7]], pooled, atol=1e-4)
    assert ours.network["model_sha256"] == model.digest
    assert ours.network["size"] == feature_size(table) == pooled.shape[1]


def test_the_same_as_arrays_of_one_split(table, small_run, mini_dir, tmp_path):
    out = tmp_path / "val.npz"
    command = [
        "embed",
        "--workdir",
        str(small_run),
        "--layer",
        "pool",
        "--splits",
        "val",
    ]
    command += ["--images", "attribution_mini", "--data-dir", str(mini_dir)]
    assert main([*command, "--out", str(out)]) == 0
    ours = open_features(table)
    with np.load(out) as arrays:
        np.testing.assert_array_equal(arrays["index"], np.arange(len(arrays["path"])))
        np.testing.assert_array_equal(arrays["group"], ours.labels("val")["group"])
        names = np.array(ours.semantic_names)[ours.labels("val")["semantic"]]
        np.testing.assert_array_equal(arrays["semantic"], names)
        sizes = json.loads(str(arrays["metadata"]))["dataset"]["split_sizes"]
    assert sizes == {"val": ours.split_sizes["val"]}


def test_shards_are_the_table_and_one_alone_is_none(table, tmp_path):
    whole = pq.read_table(table)
    for number in range(2):
        part = whole.take(np.arange(len(whole))[number::2])
        pq.write_table(part, tmp_path / f"pool-{number}-of-2.parquet")
    ours = open_features(str(tmp_path / "pool-*-of-2.parquet"))
    for split in ours.split_sizes:
        expected = open_features(table).files(split)
        np.testing.assert_array_equal(ours.files(split).features, expected.features)
        assert ours.files(split).paths == expected.paths
    with pytest.raises(InputError, match="of several shards name all"):
        open_features(str(tmp_path / "pool-0-of-2.parquet"))


def test_a_table_that_can_not_be_trained_on_is_refused(table, small_run, tmp_path):
    whole = pq.read_table(table)
    texts = ["no image", *[None] * (len(whole) - 1)]
    place = whole.schema.get_field_index("error")
    failed = whole.set_column(place, "error", pa.array(texts))
    pq.write_table(failed, tmp_path / "failed.parquet")
    pq.write_table(whole.replace_schema_metadata({}), tmp_path / "folder.parquet")
    (tmp_path / "text.parquet").write_text("no table")
    for name, message in (
        ("failed", "1 of 704 images could not be read when it was made, such as no im"),
        ("folder", "no table that rmjax embed made of a prepared data set"),
        ("text", "no Parquet file"),
        ("nowhere", "no such file; make it with: rmjax embed"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            open_features(str(tmp_path / f"{name}.parquet"))
        assert "\n" not in str(caught.value)


def test_batches_hold_the_rows_of_their_images(probe):
    selection = open_data(probe()).seen
    features = selection.dataset.files("train").features
    options = {"batch_size": 64, "members": 2, "size": 256, "seed": 3}
    first, second = (
        next(train_batches(selection, **options, start_step=n)) for n in (0, 1)
    )
    assert set(first["index"]) != set(second["index"])
    for batch in (first, second):
        np.testing.assert_array_equal(batch["image"], features[batch["index"]])


# ------------------------------------------------------------------- trained by gradient


def test_features_are_standardised_as_scikit_learn_does(probe):
    x, _ = rows(probe(), "train")
    ours, theirs = measure_features(open_data(probe()).seen), StandardScaler().fit(x)
    np.testing.assert_allclose(ours["mean"], theirs.mean_, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(ours["deviation"], theirs.scale_, rtol=1e-3)


def test_a_head_is_trained_evaluated_and_reported(probe_run, capsys):
    _, workdir = probe_run
    assert main(["evaluate", "--workdir", str(workdir), "--bootstrap", "10"]) == 0
    results = json.loads((workdir / "evaluation/clean/results.json").read_text())
    assert results["summary"]["seen"]["clean"]["attribution_accuracy"] > 0.25
    assert results["semantics"]["unseen"] == list(UNSEEN)
    assert results["data"]["name"] == "attribution_mini"
    assert {m["file"] for m in results["mistakes"]} == {""}
    assert main(["report", "--workdir", str(workdir)]) == 0
    page = (workdir / "evaluation/clean/report.html").read_text()
    assert results["data"]["features"]["model_sha256"][:12] in page


def leaves(state):
    return jax.tree.leaves((state.params, state.batch_stats))


def test_resumed_and_on_two_devices_it_is_the_same_head(probe, tmp_path):
    straight = train(probe(), tmp_path / "straight", show_progress=False)
    train(probe(num_epochs=2), tmp_path / "resumed", show_progress=False)
    resumed = train(probe(), tmp_path / "resumed", show_progress=False)
    for ours, theirs in zip(leaves(resumed), leaves(straight), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    two = train(probe(num_devices=2), tmp_path / "two", show_progress=False)
    for ours, theirs in zip(leaves(two), leaves(straight), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "changes",
    [
        {"loss": "contrastive", "mix.name": "pairs", "model.arch": "hidden"},
        {"loss": "adjusted", "mix.name": "factorial", "mix.level": 6},
        {"loss": "ungated", "mix.name": "manifold", "model.arch": "hidden"},
        {"loss": "attribution", "mix.name": "channels", "mix.level": 1},
    ],
)
def test_losses_and_mixings_train_as_they_do_on_images(probe, tmp_path, changes):
    train(probe(**changes, num_epochs=8), tmp_path, show_progress=False)
    losses = [r["loss"] for r in read_log(tmp_path) if r["kind"] == "validation"]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("name", MIXINGS)
def test_a_mixing_that_takes_places_of_maps_is_refused(probe, name):
    level = 4 if name == "tokens" else 5
    config = probe(**{"mix.name": name, "mix.level": level, "batch_size": 48})
    if name in ("cutmix", "tokens", "mixstyle", "amplitude", "phase"):
        with pytest.raises(InputError, match=f"mix.name = '{name}': .*are vectors"):
            check_settings(config, jax.local_devices()[:1])
    else:
        check_settings(config, jax.local_devices()[:1])


def test_the_grid_of_mixings_leaves_out_what_can_not_be(probe, caplog):
    found = [label for label, _ in read_grid("mixing", probe(), "probe")]
    assert "mixing=manifold" in found and "mixing=tokens" not in found
    assert "mixing=tokens is left out: " in caplog.text
    with pytest.raises(InputError, match="mixing=phase: .*are vectors"):
        read_grid("mixing=none,phase", probe(), "probe")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"corrupt.rate": 0.5, "data.crop": 64}, "data.crop=224, corrupt.rate=0.0"),
        ({"simulate.generators": 3}, "set simulate.generators=0"),
        ({"data.name": "attribution_mini"}, "set data.name=''"),
        ({"model.arch": "resnet50"}, "is for images; .* choose linear or hidden"),
        ({"data.features": "gone.parquet"}, "gone.parquet': no such file"),
        ({"data.sources": ("real", "dalle")}, "unknown source 'dalle'"),
        ({"fit.name": "probe", "fit.images": 10**4}, "holds 288 training images"),
        ({"loss": "fingerprint"}, "loss = 'fingerprint': it compares images"),
        ({"fit.name": "prnu"}, "prnu' is not for model.input = ''"),
    ],
)
def test_what_features_have_no_use_for_is_refused(probe, tmp_path, changes, message):
    with pytest.raises(InputError, match=message) as caught:
        train(probe(**changes), tmp_path / "new", show_progress=False)
    assert "\n" not in str(caught.value) and not (tmp_path / "new").exists()


def test_images_are_not_for_a_network_of_features(small_config, tmp_path):
    with pytest.raises(InputError, match="linear' is for stored features"):
        train(small_config(**{"model.arch": "linear"}), tmp_path, show_progress=False)


def test_features_can_not_be_corrupted(probe_run, table):
    with pytest.raises(InputError, match="stored features are no images"):
        evaluate(probe_run[1], suite="fog:1")
    changes = [f"--config.data.features={table}"]
    sweep = Sweep(probe_run[1], "probe", "loss", suite="seen", changes=changes)
    with pytest.raises(InputError, match="stored features are no images"):
        plan_sweep(sweep)


def test_features_of_another_network_are_told_from_those_trained_on(
    probe, table, tmp_path
):
    whole = pq.read_table(table)
    mine = str(tmp_path / "mine.parquet")
    pq.write_table(whole, mine)
    config = probe(**{"data.features": mine, "num_epochs": 1})
    train(config, tmp_path / "run", show_progress=False)
    facts = json.loads(whole.schema.metadata[b"rmjax"]) | {"model_sha256": "other"}
    other = whole.replace_schema_metadata({"rmjax": json.dumps(facts)})
    pq.write_table(other, mine)
    config.num_epochs = 2
    for go_on in (
        evaluate,
        lambda workdir: train(config, workdir, show_progress=False),
    ):
        with pytest.raises(InputError, match="model_sha256 is .* now other"):
            go_on(tmp_path / "run")


def test_of_the_same_images_features_of_two_networks_can_be_compared(
    probe, probe_run, table, tmp_path
):
    path = tmp_path / "mine.parquet"
    config, whole = probe(**{"data.features": str(path)}), pq.read_table(table)
    negated = pa.array([-row for row in whole["pool"].to_numpy()], whole["pool"].type)
    place = whole.schema.get_field_index("pool")
    images, answers = [], []
    for version in (whole, whole.set_column(place, "pool", negated)):
        pq.write_table(version.replace_schema_metadata(whole.schema.metadata), path)
        data, run = open_data(config), load_run(probe_run[1], num_devices=1)
        parts = {"seen": (data.seen, ("test",))}
        runner = make_runner(config, len(data.sources), run.devices)
        images.append(digest_images(parts))
        answers.append(digest_answers(runner, run.variables, parts))
    assert images[0] == images[1] and answers[0] != answers[1]


# ------------------------------------------------------------------ fitted in closed form


@pytest.mark.parametrize("name", ["probe", "knn"])
def test_a_fit_to_features_is_that_of_scikit_learn(probe, tmp_path, name):
    x, source = rows(probe(), "train")
    config = probe(**{"fit.name": name, "fit.images": len(x)})
    train(config, tmp_path, show_progress=False)
    evaluate(tmp_path, draws=10, show_progress=False)
    with np.load(tmp_path / "evaluation/clean/predictions.npz") as saved:
        guess = saved["guess"][0][~saved["unseen"]]
    ranked = [r for r in read_log(tmp_path) if r["kind"] == "tuning"]
    best = min(ranked, key=lambda row: (-row["accuracy"], row["loss"]))
    scale = StandardScaler().fit(x)
    if name == "probe":
        model = LogisticRegression(C=best["C"], max_iter=1000)
    else:
        model = KNeighborsClassifier(int(best["k"]), metric="cosine")
    model.fit(scale.transform(x), source)
    expected = model.predict(scale.transform(rows(config, "test")[0]))
    assert np.mean(guess == expected) > 0.98  # of floats that differ in the last place


# ------------------------------------------------------------------------ asked of images


def test_with_its_network_at_hand_a_head_answers_about_images(
    probe_run, mini_dir, tmp_path
):
    config, workdir = probe_run
    data, model = open_data(config), rmjax.load(workdir, num_devices=1)
    numbers = data.seen.records["test"][:20]
    dataset = open_dataset(find_dataset(mini_dir, "attribution_mini"))
    images = [image for _, image in dataset.files("test").read(numbers)]
    outputs = model.run([model.read(image) for image in images])
    vectors = data.dataset.files("test").features[numbers]
    alone = load_run(workdir, num_devices=1).run([*vectors])
    for name in ("embedding", "attribution", "detection"):
        np.testing.assert_allclose(outputs[name], alone[name], rtol=1e-3, atol=1e-3)
    path = tmp_path / "image.png"
    path.write_bytes(images[0])
    assert main(["attribute", "--workdir", str(workdir), str(path)]) == 0
    out = str(tmp_path / "t.npz")
    command = ["embed", "--workdir", str(workdir), "--images", str(tmp_path)]
    assert main([*command, "--out", out]) == 0
    with np.load(out) as arrays:
        np.testing.assert_allclose(
            arrays["embedding"], outputs["embedding"][:1], rtol=1e-3, atol=1e-3
        )
    assert identify(model) != identify(load_run(workdir))


@pytest.mark.parametrize("change", [{"weights": "gone"}, {"model_sha256": "f" * 64}])
def test_without_its_network_a_head_says_which_it_needs(
    probe_run, tmp_path, change, capsys
):
    workdir = tmp_path / "run"
    shutil.copytree(probe_run[1], workdir)
    facts = json.loads((workdir / "run.json").read_text())
    facts["features"] |= change
    (workdir / "run.json").write_text(json.dumps(facts))
    needed = f"layer pool of the network .* {facts['features']['model_sha256'][:12]}"
    with pytest.raises(InputError, match=needed) as caught:
        rmjax.load(workdir)
    assert "\n" not in str(caught.value)
    command = ["attribute", "--workdir", str(workdir), "image.png"]
    assert main(command) == 2 and "needs" in capsys.readouterr().err
    with pytest.raises(InputError, match="head on features"):
        export(load_run(workdir), tmp_path / "head.safetensors")


def test_a_head_is_handed_on_with_its_network(probe_run, tmp_path):
    """As a file, as what lies on the Hub, and as a folder made of either."""
    model = rmjax.load(probe_run[1], num_devices=1)
    image = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    expected = model.predict([image])
    file = export(model, tmp_path / "head.safetensors")
    pushed = tmp_path / "pushed"
    pushed.mkdir()
    write_repository(pushed, model, [], "owner/head")
    make_run(file, tmp_path / "folder")
    make_run(pushed, tmp_path / "copy")
    for place in (file, pushed, tmp_path / "folder", tmp_path / "copy"):
        again = load_pretrained(place, num_devices=1)
        assert again.digest == model.digest
        found = again.predict([image])
        for name in ("embedding", "attribution", "detection"):
            np.testing.assert_allclose(found[name], expected[name], rtol=1e-5)
    assert str(probe_run[1].parent) not in (pushed / "README.md").read_text()
    facts = json.loads((tmp_path / "copy" / "run.json").read_text())
    assert facts["features"]["weights"] == str(tmp_path / "copy" / "extractor")


# ----------------------------------------------------------------------------- in sweeps


def test_methods_on_frozen_networks_take_the_run_that_is_there(
    small_config, small_run, tmp_path, monkeypatch, caplog
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "clip").symlink_to(small_run)
    base = small_config(**{"model.arch": "resnet18", "data.crop": 32})
    found = dict(read_grid("method", base, "mine"))
    assert "method=clip_lr" in found and "method=dinov2_lr" not in found
    assert "method=dinov2_knn is left out: " in caplog.text
    changes = found["method=clip_knn"]
    assert (changes["fit.name"], changes["model.init"]) == ("knn", "runs/clip")
    assert (changes["model.arch"], changes["data.crop"]) == ("tiny", 24)
    with pytest.raises(InputError, match="method=dinov2_lr: .*rmjax convert"):
        read_grid("method=dinov2_lr", base, "mine")
