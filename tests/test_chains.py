"""The networks of earlier work: their layers, and that they can be cut as a ResNet."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rmjax
from rmjax.errors import InputError
from rmjax.models.backbones import make_backbone
from rmjax.models.repmix import RepMix
from rmjax.training.train import train

# Kernel size, input and output channels of every convolution, as published.
LAYERS = {
    "frank_cnn": [(3, 3, 3), (3, 3, 8), (3, 8, 16), (3, 16, 32)],
    "yu_net": [
        *[(3, 3, 16), (3, 16, 32), (3, 32, 32), (3, 32, 64), (3, 64, 64)],
        *[(3, 64, 128), (3, 128, 128), (3, 128, 256), (3, 256, 256)],
        *[(3, 256, 512), (3, 512, 512)],
    ],
    "patch_cnn": [
        *[(4, 3, 64), (3, 64, 64), (4, 64, 128), (3, 128, 128)],
        *[(4, 128, 256), (3, 256, 256), (4, 256, 512), (3, 512, 512)],
    ],
}
# What follows a convolution: a bias, or scale and bias of a batch norm.
AFTER = {"frank_cnn": 1, "yu_net": 1, "patch_cnn": 2}
POOLED = {"frank_cnn": 16 * 16 * 32, "yu_net": 512, "patch_cnn": 512}


def init(arch, size=64, **options):
    """A backbone and its variables, all random."""
    model = make_backbone(arch, crop=64, embedding_dim=12, **options)
    images = jnp.zeros((1, size, size, 3))
    variables = jax.jit(partial(model.init, train=False))(jax.random.key(0), images)
    leaves, tree = jax.tree.flatten(variables)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    drawn = [
        leaf + 0.05 * jnp.abs(jax.random.normal(key, leaf.shape))
        for key, leaf in zip(keys, leaves, strict=True)
    ]
    return model, tree.unflatten(drawn)


@pytest.mark.parametrize("arch", LAYERS)
def test_parameters_are_those_of_the_published_layers(arch):
    model = RepMix(arch, 5, embedding_dim=256, crop=64)
    images = jnp.zeros((1, 64, 64, 3))
    params = jax.eval_shape(model.init, jax.random.key(0), images)["params"]
    embedding = params["backbone"].pop("embedding")
    assert embedding["kernel"].shape == (POOLED[arch], 256)
    count = sum(leaf.size for leaf in jax.tree.leaves(params["backbone"]))
    expected = sum(k * k * i * o + AFTER[arch] * o for k, i, o in LAYERS[arch])
    assert count == expected
    assert count == {"frank_cnn": 6116, "yu_net": 4716416, "patch_cnn": 5892864}[arch]


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["frank_cnn", "yu_net"])
def test_a_chain_cut_at_a_level_is_the_same_on_any_image(arch):
    model, variables = init(arch)
    apply = jax.jit(
        partial(model.apply, train=False), static_argnames=("start", "stop")
    )
    apply = partial(apply, variables)
    x = jax.random.uniform(jax.random.key(2), (2, 16, 37, 3))
    whole, activations = apply(x)
    assert whole.shape == (2, 12) and float(jnp.std(whole[0] - whole[1])) > 0
    assert set(activations) == {
        *("stem", "layer1", "layer2", "layer3", "layer4", "pool", "embedding")
    }

    h, before = apply(x, stop=3)
    after, rest = apply(h, start=3)
    np.testing.assert_allclose(after, whole, rtol=1e-4, atol=1e-5)
    assert {**before, **rest}.keys() == activations.keys()
    with pytest.raises(ValueError, match="not within"):
        apply(x, start=4, stop=3)


def test_frank_cnn_is_its_layers_in_order():
    model, variables = init("frank_cnn")
    params = variables["params"]
    x = h = jax.random.uniform(jax.random.key(2), (2, 64, 64, 3))
    for name, pool in (
        ("stem_0", False),
        ("layer1_0", True),
        ("layer2_0", True),
        ("layer3_0", False),
    ):
        h = jax.lax.conv_general_dilated(
            h,
            params[name]["conv"]["kernel"],
            (1, 1),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        h = jnp.maximum(h + params[name]["bias"], 0)
        if pool:
            batch, rows, columns, channels = h.shape
            h = h.reshape(batch, rows // 2, 2, columns // 2, 2, channels).mean((2, 4))
    dense = params["embedding"]
    expected = h.reshape(2, -1) @ dense["kernel"] + dense["bias"]
    found, _ = model.apply(variables, x, train=False)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_frank_cnn_averages_tiles_of_larger_images():
    model, variables = init("frank_cnn")
    x = jax.random.uniform(jax.random.key(2), (1, 150, 128, 3))
    apply = jax.jit(partial(model.apply, train=False))
    found, activations = apply(variables, x)
    tiles = [x[:, 11 + i : 75 + i, j : j + 64] for i in (0, 64) for j in (0, 64)]
    each, _ = apply(variables, jnp.concatenate(tiles))
    np.testing.assert_allclose(found[0], each.mean(0), rtol=1e-4)
    assert activations["layer4"].shape == (1, 32, 32, 32)


def test_pointwise_embeds_means_and_deviations_over_places():
    model, variables = init("pointwise")
    x = jax.random.uniform(jax.random.key(2), (2, 9, 7, 3))
    found, activations = model.apply(variables, x, train=False)
    maps, pooled = activations["layer1"], activations["pool"]
    np.testing.assert_allclose(pooled[:, :256], maps.mean((1, 2)), rtol=1e-5)
    np.testing.assert_allclose(pooled[:, 256:], maps.std((1, 2)), rtol=1e-3, atol=4e-3)
    # Places by themselves: in another order they are the same image.
    other, _ = model.apply(variables, x[:, ::-1, [3, 0, 6, 1, 5, 2, 4]], train=False)
    np.testing.assert_allclose(other, found, rtol=1e-4, atol=1e-5)
    flat = jnp.full((1, 4, 4, 3), 0.5)
    gradient = jax.grad(lambda x: model.apply(variables, x, train=False)[0].sum())(flat)
    assert np.isfinite(gradient).all()


def test_a_chain_trains_without_batch_statistics(small_config, tmp_path):
    """And each tile of an image has its own spectrum."""
    changes = {"model.arch": "frank_cnn", "model.input": "logdct", "mix.name": "none"}
    state = train(small_config(**changes, num_epochs=1), tmp_path, show_progress=False)
    assert int(state.step) == 4 and not jax.tree.leaves(state.batch_stats)
    model = rmjax.load(tmp_path)
    image = np.random.default_rng(0).integers(0, 256, (31, 32, 3), np.uint8)
    assert model.embed([image]).shape == (1, 256)
    model.config.data.eval_size = 48
    image = np.random.default_rng(0).integers(0, 256, (48, 48, 3), np.uint8)
    tiles = [image[i : i + 24, j : j + 24] for i in (0, 24) for j in (0, 24)]
    found = model.embed([image, *tiles])
    np.testing.assert_allclose(found[0], found[1:].mean(0), atol=1e-5)


def test_an_unknown_network_is_named_with_the_choices():
    with pytest.raises(InputError, match="'vgg'; choose from resnet50.*yu_net"):
        RepMix("vgg", 5)
