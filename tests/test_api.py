"""What a program gets from `import rmjax`."""

import inspect
import runpy
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import rmjax
from rmjax.errors import InputError
from rmjax.mixing import MIXINGS

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def test_every_public_name_is_there_and_documented():
    assert dir(rmjax) == sorted(rmjax.__all__)
    for name in set(rmjax.__all__) - {"__version__"}:
        assert len(inspect.getdoc(getattr(rmjax, name))) > 40, name
    assert rmjax.__version__[0].isdigit()


def test_unknown_attributes_are_attribute_errors():
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        rmjax.lode  # noqa: B018


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import rmjax; rmjax.__version__; dir(rmjax)", "jax"),
        ("import rmjax.corruptions", "rmjax.data"),
        ("import rmjax.corruptions", "PIL"),
        ("import rmjax; rmjax.make_mixing", "flax"),
    ],
)
def test_importing_loads_no_more_than_it_needs(statement, absent):
    code = f"import sys; {statement}; sys.exit({absent!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_own_loop_of_the_examples_learns():
    accuracy = runpy.run_path(str(EXAMPLES / "own_loop.py"))["main"]()
    assert accuracy > 0.9


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
