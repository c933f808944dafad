"""The published implementation's numbers, from its own weights and inputs.

`reference.npz` was computed in float64. `infer` and the losses are compared in float32,
the type that trains; what float32 rounding can blur is compared in float64 as well, by
tests that are slow.
"""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import safetensors.numpy
from flax.traverse_util import flatten_dict
from golden.model.recipe import FOLDER, make_batch, make_state_dict
from torch_files import save_zip

from rmjax.experiment.optim import make_optimizer
from rmjax.losses import compound_loss, loss_terms, soft_accuracy
from rmjax.mixing import Mixed, combine
from rmjax.models.convert import from_torch, torch_name
from rmjax.models.repmix import RepMix
from rmjax.pretrained.weights import read_weights

GROUPS = 3


@pytest.fixture(scope="module")
def reference():
    return dict(np.load(FOLDER / "reference.npz"))


@pytest.fixture(scope="module")
def state_dict():
    return make_state_dict()


@pytest.fixture(scope="module")
def variables(state_dict):
    return from_torch(state_dict)


def forward(params, batch_stats, batch, *, level, dtype):
    """Return the total loss and everything the reference records but gradients."""
    x, sources, weights = batch
    places = jnp.arange(len(x)).reshape(weights.shape)
    model = RepMix("resnet50", 8, dtype=dtype)
    outputs, updated = model.apply(
        {"params": params, "batch_stats": batch_stats},
        x,
        train=True,
        mix=lambda keys, h: Mixed(combine(h, weights), weights, places),
        level=level,
        keys=jax.random.split(jax.random.key(0), len(x)),  # nothing is drawn
        mutable=["batch_stats"],
    )
    attribution, detection = outputs["attribution"], outputs["detection"]
    terms = loss_terms(attribution, detection, sources, weights)
    total = compound_loss(outputs, sources.ravel(), outputs["mixed"])
    recorded = {
        "embedding": outputs["embedding"],
        "attribution": attribution,
        "detection": detection,
        "acc": soft_accuracy(attribution, sources, weights),
        "total_loss": total,
        "attribution_loss": terms["attribution"],
        "detection_loss": terms["detection"],
    }
    return total, (recorded, updated["batch_stats"])


def step_outputs(variables, batch, *, level, dtype):
    """Return what one training step computes, under the reference's names."""
    cast = partial(jax.tree.map, lambda x: jnp.asarray(x, dtype))
    x, sources, weights = batch
    grad_fn = jax.value_and_grad(
        partial(forward, level=level, dtype=dtype), has_aux=True
    )
    variables = cast(variables)
    (_, (recorded, batch_stats)), grads = jax.jit(grad_fn)(
        variables["params"],
        variables["batch_stats"],
        (cast(x), jnp.asarray(sources), cast(weights)),
    )
    for path, grad in flatten_dict({"params": grads}).items():
        recorded[f"gradnorm/{torch_name(path)}"] = jnp.linalg.norm(grad.ravel())
    for path, value in flatten_dict({"batch_stats": batch_stats}).items():
        recorded[f"bn/{torch_name(path)}"] = value
    return {name: np.asarray(value) for name, value in recorded.items()}


def relative_errors(outputs, reference, prefix):
    """Return, for each recorded array, its largest error over its largest value."""
    expected = {
        k.removeprefix(prefix): v for k, v in reference.items() if k.startswith(prefix)
    }
    assert expected, f"the reference has nothing under {prefix}"
    return {
        name: np.max(np.abs(outputs[name] - value)) / np.max(np.abs(value))
        for name, value in expected.items()
    }


def torchvision_names(state_dict):
    """The published backbone under the names that it came with."""
    names = {"0.0": "conv1", "0.1": "bn1", "6.2": "fc"}
    renamed = {}
    for name, value in state_dict.items():
        if name.startswith("backbone."):
            name = name.removeprefix("backbone.model.")
            stage, _, rest = name.partition(".")
            first, _, leaf = rest.partition(".")
            start = names.get(f"{stage}.{first}", f"layer{stage}.{first}")
            renamed[f"{start}.{leaf}"] = value
    return renamed


@pytest.mark.parametrize("layout", ["imagenet", "repmix", "image_attribution_bench"])
def test_each_layout_of_a_file_gives_the_published_outputs(
    layout, reference, state_dict, variables, tmp_path
):
    path = tmp_path / "weights"
    if layout == "imagenet":
        safetensors.numpy.save_file(torchvision_names(state_dict), path)
    else:
        key = {"repmix": "state_dict"}.get(layout, "model_state_dict")
        save_zip(path, {key: state_dict})
    weights = read_weights(path)
    assert weights.provenance["layout"] == layout
    params = dict(weights.variables["params"])
    order = list(range(8))
    if layout == "imagenet":  # it has no heads
        params = variables["params"] | params
    if layout == "image_attribution_bench":
        order = [7, *range(7)]
    model = RepMix("resnet50", 8, gated_source=weights.config.model.gated_source)
    model = model.clone(lowering="forward")  # as `make_eval_step` runs it
    x, _, _ = make_batch(4, 1)
    outputs = jax.jit(model.apply)(weights.variables | {"params": params}, x)
    expected = {k: reference[f"infer/{k}"] for k in ("embedding", "detection")}
    expected["attribution"] = reference["infer/attribution"][:, order]
    for name, value in expected.items():
        error = np.max(np.abs(outputs[name] - value)) / np.max(np.abs(value))
        assert error < 1e-3, (name, error)


def test_inference_matches_the_published_model(reference, variables):
    x, _, _ = make_batch(4, 1)
    model = RepMix("resnet50", 8)
    outputs = jax.jit(model.apply)(variables, x)
    recorded = {k: outputs[k] for k in ("embedding", "attribution", "detection")}
    # The reference numbers its modules from the stem on.
    names = ("stem", "layer1", "layer2", "layer3", "layer4", "embedding")
    for i, name in enumerate(names):
        h = outputs[name]
        recorded[f"stage{i}_stats"] = np.array([h.mean(), h.std(), abs(h).max()])
    errors = relative_errors(recorded, reference, "infer/")
    assert len(errors) == 9
    assert max(errors.values()) < 1e-3, errors


@pytest.fixture(scope="module")
def run(variables):
    """Return a float32 training step at a level, computed once for all tests."""

    @cache
    def step(level, members):
        batch = make_batch(GROUPS, members)
        return step_outputs(variables, batch, level=level, dtype=jnp.float32)

    return step


# Pixels, a middle layer, the pooled map and the embedding; the rest take as long again.
RUNS = [(0, 2), (3, 2), (5, 2), (6, 2), (5, 1)]
RUNS += [pytest.param(level, 2, marks=pytest.mark.slow) for level in (1, 2, 4)]


@pytest.mark.parametrize(("level", "members"), RUNS)
def test_training_step_matches_the_published_model(reference, run, level, members):
    outputs = run(level, members)
    errors = relative_errors(outputs, reference, f"train/level{level}_nmix{members}/")
    assert len(errors) == 16
    assert max(errors.values()) < 1e-3, errors


@pytest.mark.slow
def test_training_step_is_exact_in_float64(reference, variables):
    batch = make_batch(GROUPS, 2)
    with jax.enable_x64(True):
        outputs = step_outputs(variables, batch, level=5, dtype=jnp.float64)
    errors = relative_errors(outputs, reference, "train/level5_nmix2/")
    # What is left is the reference's own: its class weights are float32.
    assert max(errors.values()) < 1e-6, errors


def run_trajectory(variables, batch, *, dtype):
    """Return the total losses of five optimiser steps and the final parameters."""
    cast = partial(jax.tree.map, lambda x: jnp.asarray(x, dtype))
    x, sources, weights = batch
    batch = (cast(x), jnp.asarray(sources), cast(weights))
    tx = make_optimizer(1e-4, b1=0.9, b2=0.999, eps=1e-8, weight_decay=5e-4)
    grad_fn = jax.value_and_grad(partial(forward, level=5, dtype=dtype), has_aux=True)

    # Five steps in float64 that are not optimised take longer than the compilation.
    optimization = 3 if dtype == "float64" else 0

    @partial(jax.jit, compiler_options={"xla_backend_optimization_level": optimization})
    def step(params, batch_stats, opt_state):
        (loss, (_, batch_stats)), grads = grad_fn(params, batch_stats, batch)
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), batch_stats, opt_state, loss

    params, batch_stats = cast(variables["params"]), cast(variables["batch_stats"])
    opt_state, losses = tx.init(params), []
    for _ in range(5):
        params, batch_stats, opt_state, loss = step(params, batch_stats, opt_state)
        losses.append(float(loss))
    return np.array(losses), params


@pytest.mark.parametrize(
    "dtype", ["float32", pytest.param("float64", marks=pytest.mark.slow)]
)
def test_trajectory_matches_the_published_model(reference, variables, dtype):
    batch = make_batch(GROUPS, 2)
    with jax.enable_x64(dtype == "float64"):
        losses, params = run_trajectory(variables, batch, dtype=dtype)
    errors = np.abs(losses / reference["trajectory/total_loss"] - 1)
    kernel = np.asarray(params["attribution"]["kernel"]).T
    expected = reference["trajectory/attribution.weight"]
    kernel_error = np.max(np.abs(kernel - expected)) / np.max(np.abs(expected))
    # Adam divides by the gradient's size: where that is rounding noise, the noise is
    # amplified step by step. In float64 the same code follows the reference closely.
    first, rest = (1e-4, 1e-2) if dtype == "float32" else (1e-8, 1e-5)
    assert errors[0] < first and errors.max() < rest, errors
    assert kernel_error < rest, kernel_error


def test_levels_5_and_6_agree(run):
    at_5, at_6 = run(5, 2), run(6, 2)
    for name in ("embedding", "attribution", "detection", "total_loss"):
        np.testing.assert_allclose(at_5[name], at_6[name], rtol=1e-4, atol=1e-5)
