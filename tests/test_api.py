"""What a program gets from `import rmjax`."""

import inspect
import json
import shutil
import subprocess
import sys
import typing

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict
from sklearn import metrics as sk
from small_settings import SMALL

import rmjax
from rmjax import InputError
from rmjax.experiment.config import flatten
from rmjax.experiment.run import load_run_config
from rmjax.mixing import MIXINGS

KEY = jax.random.key(0)
LOGITS = {"attribution": np.zeros((4, 3)), "detection": np.zeros((4, 2))}
MAPS = np.random.default_rng(0).normal(size=(16, 8, 8, 3)).astype("float32")


def test_every_public_name_is_there_and_documented():
    assert dir(rmjax) == sorted(rmjax.__all__)
    for name in set(rmjax.__all__) - {"__version__"}:
        assert len(inspect.getdoc(getattr(rmjax, name))) > 40, name
        assert name in rmjax.__doc__ or name == "load_pretrained", name
    assert rmjax.__version__[0].isdigit()


def test_every_public_function_is_typed():
    for name in rmjax.__all__:
        value = getattr(rmjax, name)
        if inspect.isfunction(value):
            hints = typing.get_type_hints(value)
            assert set(inspect.signature(value).parameters) | {"return"} == set(hints)


def test_unknown_attributes_are_attribute_errors():
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        rmjax.lode  # noqa: B018


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import rmjax; rmjax.__version__; dir(rmjax)", "jax"),
        ("import rmjax.corruptions", "rmjax.data"),
        ("import rmjax.corruptions", "PIL"),
        ("import rmjax; rmjax.mix", "flax"),
    ],
)
def test_importing_loads_no_more_than_it_needs(statement, absent):
    code = f"import sys; {statement}; sys.exit({absent!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.slow
def test_type_checkers_know_what_is_imported_late(tmp_path):
    program = tmp_path / "program.py"
    program.write_text("import rmjax\nreveal_type(rmjax.mix)\nrmjax.train('repmix')\n")
    command = [sys.executable, "-m", "mypy", "--ignore-missing-imports", str(program)]
    said = subprocess.run(command, capture_output=True, text=True).stdout
    assert "-> rmjax.mixing.samples.Mixed" in said
    assert 'Missing positional argument "workdir"' in said


@pytest.mark.parametrize("name", list(MIXINGS))
def test_every_mixing_works_in_a_call_of_the_network(name):
    """With its defaults, as `mixed` says: the loss is that of the images by hand."""
    model, mixing = rmjax.RepMix("shallow", num_sources=3), rmjax.make_mixing(name)
    images = np.random.default_rng(0).uniform(-1, 1, (16, 32, 32, 3)).astype("float32")
    sources = np.arange(16) % 3

    def run(x):
        variables = model.init(jax.random.key(0), x)
        call = {"mix": mixing, "rngs": {"mix": jax.random.key(1)}}
        out = model.apply(variables, x, level=mixing.levels[0], **call)
        return out, rmjax.compound_loss(out, sources, out["mixed"])

    out, loss = jax.jit(run)(images)
    weights, places = out["mixed"].weights, out["mixed"].places
    assert len(out["attribution"]) == len(weights) == 16 // mixing.drawn
    np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-5)
    by_hand = [
        sum(
            w * -jax.nn.log_softmax(attribution)[sources[i]]
            - w
            * (0.5 if sources[i] else 1)
            * jax.nn.log_softmax(detection)[int(sources[i] > 0)]
            for w, i in zip(*row, strict=True)
        )
        for attribution, detection, *row in zip(
            out["attribution"], out["detection"], weights, places, strict=True
        )
    ]
    np.testing.assert_allclose(loss, np.mean(by_hand), rtol=1e-4)


@pytest.mark.parametrize("name", ["repmix", "pairs", "cutmix", "none"])
def test_mix_is_the_mixing_of_its_name_by_one_key(name):
    @jax.jit
    def both(key):
        mixing = rmjax.make_mixing(name, beta=1.0)
        by_hand = mixing(jax.random.split(key, 16), jnp.asarray(MAPS))
        return rmjax.mix(key, MAPS, name, beta=1.0), by_hand

    for ours, theirs in zip(*both(KEY), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_mixed_targets_are_what_optax_trains_on():
    """Its cross-entropy is the attribution term of the compound loss; under grad."""
    sources = jnp.arange(16) % 3
    head = jax.random.normal(KEY, (3, 3))

    @jax.jit
    def losses(head):
        mixed = rmjax.mix(KEY, MAPS, "repmix", members=4)
        logits = mixed.h.mean((1, 2)) @ head
        targets = mixed.targets(sources, 3)
        outputs = {"attribution": logits, "detection": logits[:, :2]}
        ours = rmjax.compound_loss(outputs, sources, mixed, detects=False)
        return optax.softmax_cross_entropy(logits, targets).mean(), ours, targets

    theirs, ours, targets = losses(head)
    np.testing.assert_allclose(targets.sum(1), 1, rtol=1e-5)
    np.testing.assert_allclose(theirs, ours, rtol=1e-5)
    gradients = [jax.grad(lambda h, i=i: losses(h)[i])(head) for i in (0, 1)]
    np.testing.assert_allclose(*gradients, atol=1e-6)


def test_a_mixing_of_several_levels_asks_for_one():
    model, mixing = (
        rmjax.RepMix("shallow", num_sources=3),
        rmjax.make_mixing("manifold"),
    )
    images = np.zeros((4, 32, 32, 3), np.float32)
    with pytest.raises(InputError, match="levels 0, 2, 3.*level"):
        model.init(
            {"params": jax.random.key(0), "mix": jax.random.key(1)}, images, mix=mixing
        )


@pytest.fixture(scope="module")
def classified():
    """True sources of 200 images, and probabilities that know something of them."""
    rng = np.random.default_rng(0)
    sources = rng.integers(0, 4, 200)
    logits = rng.normal(size=(200, 4)) + 1.5 * np.eye(4)[sources]
    return sources, np.exp(logits) / np.exp(logits).sum(1, keepdims=True)


def test_report_of_any_classifier_agrees_with_scikit_learn(classified):
    sources, p = classified
    names = ["real", "a", "b", "c"]
    figures = rmjax.attribution_report(sources, p, source_names=names)
    guess, synthetic = p.argmax(1), sources > 0
    expected = {
        "attribution_accuracy": sk.accuracy_score(sources, guess),
        "detection_accuracy": sk.accuracy_score(synthetic, guess > 0),
        "macro_f1": sk.f1_score(sources, guess, average="macro"),
        "nmi": sk.normalized_mutual_info_score(sources, guess),
        "nll": sk.log_loss(sources, p),
        "brier": ((p - np.eye(4)[sources]) ** 2).sum(1).mean(),
        "detection_brier": np.mean(
            [
                ((1 - p[own, 0] - kind) ** 2).mean()
                for kind, own in ((0, ~synthetic), (1, synthetic))
            ]
        ),
    }
    assert {k: figures[k] for k in expected} == pytest.approx(expected)
    assert figures["confusion"] == sk.confusion_matrix(sources, guess).tolist()
    for name in ("attribution_accuracy", "macro_f1"):
        assert figures[f"{name}_low"] < figures[name] < figures[f"{name}_high"]
    assert list(figures["recall"]) == names and figures["images"] == 200
    assert json.loads(json.dumps(figures)) == figures


def test_report_is_the_same_by_name_number_and_probability(classified):
    sources, p = classified
    names = np.array(["real", "a", "b", "c"])
    whole = rmjax.attribution_report(sources, p, source_names=names, draws=20)
    by_number = rmjax.attribution_report(
        sources, p.argmax(1), source_names=names, draws=20
    )
    by_name = rmjax.attribution_report(
        list(names[sources]), list(names[p.argmax(1)]), draws=20
    )
    assert by_number == by_name
    assert by_number.items() <= whole.items() and "ece" in whole


def test_images_that_belong_together_are_drawn_together(classified):
    """Three copies of each image say no more than one does."""
    sources, p = classified
    once = rmjax.attribution_report(sources, p, draws=50)
    group = np.repeat(np.arange(200), 3)
    copies = [np.repeat(x, 3, axis=0) for x in (sources, p)]
    thrice = rmjax.attribution_report(*copies, groups=group, draws=50)
    assert once["macro_f1_low"] == pytest.approx(thrice["macro_f1_low"])
    naive = rmjax.attribution_report(*copies, draws=50)
    assert naive["macro_f1_low"] > thrice["macro_f1_low"]


def test_a_run_by_plain_arguments(small_run, small_config, mini_dir, tmp_path):
    """It is the run of the same config; evaluated, the report finds the same figures."""
    workdir = shutil.copytree(small_run, tmp_path / "run")
    data = {"dir": mini_dir} | {
        key.removeprefix("data."): value
        for key, value in SMALL.items()
        if key.startswith("data.")
    }
    others = {k: v for k, v in SMALL.items() if not k.startswith("data.")}
    # A finished run is not trained any further, and refuses any other config.
    rmjax.train("attribution_mini", workdir, show_progress=False, data=data, **others)
    assert flatten(load_run_config(workdir)) == flatten(small_config())
    with pytest.raises(InputError, match="seed is 0 there and 1 here"):
        rmjax.train(small_config(), workdir, show_progress=False, seed=1)
    results = rmjax.evaluate(
        workdir, draws=30, changes={"eval_batch_size": 64}, show_progress=False
    )
    with np.load(f"{results['folder']}/predictions.npz") as stored:
        figures = rmjax.attribution_report(
            stored["source"],
            stored["guess"][0],
            source_names=results["sources"],
            groups=stored["group"],
            draws=30,
        )
    cell = next(c for c in results["cells"] if c["semantics"] == "combined")
    same = [k for k in figures if k in cell]
    assert {k: figures[k] for k in same} == {k: cell[k] for k in same}
    assert (
        len(same) >= 13
        and figures["confusion"] == results["clean"]["combined"]["confusion"]
    )


def test_a_config_that_is_given_stays_as_it_is(small_config, tmp_path):
    config = small_config()
    with pytest.raises(InputError, match="mix.name|mixing"):
        rmjax.train(config, tmp_path, mix={"name": "stir"})
    assert config == small_config() and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: rmjax.RepMix("vgg", 3), "vgg.*resnet50"),
        (lambda: rmjax.RepMix("tiny", 1), "1 source"),
        (lambda: rmjax.RepMix("tiny", "3"), "num_sources = '3'"),
        (lambda: rmjax.RepMix("tiny", 3, gated_source=5), "gated_source = 5"),
        (lambda: rmjax.RepMix("tiny", 3).init(KEY, MAPS[0]), "batch, H, W.*8, 8, 3"),
        (lambda: rmjax.make_mixing("stir"), "stir.*repmix"),
        (lambda: rmjax.make_mixing(members=2.5), "members = 2.5"),
        (lambda: rmjax.make_mixing(beta="0.4"), "beta = 0.4"),
        (lambda: rmjax.mix(KEY, MAPS, "stir"), "stir.*repmix"),
        (lambda: rmjax.mix(0, MAPS), "key.*jax.random.key"),
        (lambda: rmjax.mix(jax.random.split(KEY), MAPS), "key.*jax.random.key"),
        (lambda: rmjax.mix(KEY, MAPS, members=3), "16 images.*3 by 3"),
        (lambda: rmjax.mix(KEY, MAPS[:6], "pairs"), "6 images.*16 by 16"),
        (lambda: rmjax.mix(KEY, MAPS[:, 0, 0], "tokens"), "tokens.*places"),
        (lambda: rmjax.mix(KEY, MAPS[:, 0], "cutmix"), "cutmix.*H, W"),
        (lambda: rmjax.mix(KEY, np.zeros((4, 2), int)), "int.*floats"),
        (lambda: rmjax.compound_loss({}, np.arange(4)), "no 'attribution'"),
        (lambda: rmjax.compound_loss(LOGITS, np.arange(8)), "8 sources.*4 samples"),
        (lambda: rmjax.compound_loss(LOGITS, np.ones(4)), "int .images.*float"),
        (lambda: rmjax.corruptions.corrupt(7, MAPS, "fog", 1), "key.*jax.random.key"),
        (lambda: rmjax.corruptions.corrupt(KEY, MAPS, "fog", 1), "32 px"),
        (lambda: rmjax.attribution_report([0, 1], [0]), "2 sources, but 1"),
        (lambda: rmjax.attribution_report([0, 3], [[0.5, 0.5]] * 2), "0 to 1"),
        (lambda: rmjax.attribution_report([0, 1], [[2.0, 0.1]] * 2), "softmax"),
        (lambda: rmjax.attribution_report(["a", "b"], ["a", "a"]), "called 'real'"),
        (lambda: rmjax.attribution_report([], []), "sources are"),
        (lambda: rmjax.attribution_report(["real", "a"], [0, 1]), "not both"),
        (lambda: rmjax.attribution_report([0, 1], [0, 1], draws=0), "draws = 0"),
        (
            lambda: rmjax.attribution_report(
                ["real", "b"], ["real", "b"], source_names=["real", "a"]
            ),
            "'b' is none of",
        ),
        (lambda: rmjax.train("repmiks", "run"), "repmiks.*repmix"),
        (lambda: rmjax.train(None, "run"), "config None"),
        (lambda: rmjax.train("repmix", "run", num_epoch=3), "num_epoch.*num_epochs"),
        (lambda: rmjax.train("repmix", "run", seed="x"), "seed"),
        (lambda: rmjax.train(ConfigDict(), "run"), "no key"),
        (lambda: rmjax.evaluate("nowhere"), "no run in nowhere"),
        (lambda: rmjax.load("nowhere"), "no run in nowhere"),
        (lambda: rmjax.load(num_devices=99), "99"),
        (lambda: rmjax.load_pretrained("nowhere.pth"), "nowhere.pth"),
    ],
)
def test_wrong_arguments_are_told_in_one_line(call, named, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=named) as told:
        call()
    assert "\n" not in str(told.value) and not list(tmp_path.iterdir())
