"""Vision transformers: what their publishers' code computes, stages, mixing, training."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import SHARED
from mixed_levels import NAMES, check_mix_at_level

import rmjax
from rmjax.errors import InputError
from rmjax.experiment.config import default_config, load_config
from rmjax.mixing import make_mixing
from rmjax.mixing.registry import MIXINGS
from rmjax.models.backbones import VIT
from rmjax.models.repmix import RepMix
from rmjax.models.vit import (
    TRANSFORMERS,
    VisionTransformer,
    attend,
    resize_positions,
)
from rmjax.training.start import starting_backbone
from rmjax.utils.platform import targeting

REFERENCES = SHARED / "golden" / "vit"
FAMILIES = ("clip", "clip_gelu", "clip_full", "dinov2", "dinov2_registers")
FAMILIES += ("dinov2_swiglu", "dinov3", "siglip", "siglip_full")

SMALL_VIT = {
    **default_config().model.vit.to_dict(),
    **dict(width=32, depth=4, heads=2, mlp=64, patch=8, grid=3),
}


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    """A published model and what its publisher's code makes of images."""
    folder = REFERENCES / request.param
    if not folder.is_dir():
        pytest.skip(f"no reference outputs at {folder}")
    # A file with both towers computes what the vision tower alone does.
    alone = REFERENCES / request.param.removesuffix("_full")
    with np.load(alone / "reference.npz") as file:
        return rmjax.load_pretrained(folder), dict(file)


@pytest.mark.parametrize("size", ["", "other/"], ids=["own_size", "other_size"])
def test_every_array_is_the_publishers(family, size):
    loaded, reference = family
    pixels = reference[size + "pixels"].transpose(0, 2, 3, 1)
    out = jax.jit(loaded.model.apply)(loaded.variables, pixels)
    compared = 0
    for name, expected in reference.items():
        if name.startswith("other/") == bool(size) and not name.endswith("pixels"):
            found = np.asarray(out[name.removeprefix("other/").replace("/", "_")])
            assert found.shape == expected.shape
            assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max(), name
            compared += 1
    assert compared >= 2


@pytest.mark.parametrize("antialias", [False, True])
def test_positions_of_another_size_keep_a_constant_and_a_slope(antialias):
    """A cubic reproduces both, away from the edges, which are no slope."""
    rows, columns = np.mgrid[:8, :8]
    planes = np.stack([np.full((8, 8), 3.0), rows, columns], axis=-1)
    grown = resize_positions(planes.reshape(64, 3), (16, 24), antialias=antialias)
    constant, down, right = np.moveaxis(np.asarray(grown).reshape(16, 24, 3), -1, 0)
    np.testing.assert_allclose(constant, 3, rtol=1e-5)
    expected = (np.arange(16) + 0.5) / 2 - 0.5
    np.testing.assert_allclose(down[5:11, 12], expected[5:11], atol=0.05)
    expected = (np.arange(24) + 0.5) / 3 - 0.5
    np.testing.assert_allclose(right[8, 8:16], expected[8:16], atol=0.05)


def make_small(rotary=0.0, **options):
    structure = SMALL_VIT | {"rotary": rotary, "registers": 2}
    model = RepMix(VIT, 3, embedding_dim=12, structure=structure, **options)
    x = jax.random.normal(jax.random.key(1), (4, 24, 24, 3))
    return model, jax.jit(model.init)(jax.random.key(0), x), x


@pytest.fixture(scope="module", params=[0.0, 100.0], ids=["learned", "rotary"])
def small(request):
    model, variables, x = make_small(request.param)
    return model, variables, x, jax.jit(model.apply)(variables, x)


@pytest.mark.parametrize("level", range(7))
def test_mixing_sees_the_representation_of_its_level(small, level):
    model, variables, x, whole = small
    expected = (x, *(whole[name] for name in NAMES))[level]
    check_mix_at_level(model, variables, x, whole, level, expected, least=1e-4)


@pytest.mark.parametrize("small", [0.0], indirect=True, ids=["learned"])
@pytest.mark.parametrize("name", MIXINGS)
def test_every_mixing_mixes_tokens(small, name):
    """At each of its levels: finite, and weights that sum to one."""
    model, variables, x, _ = small
    mixing = make_mixing(name, block=4)
    keys = jax.random.split(jax.random.key(3), len(x))
    for level in mixing.levels:
        run = jax.jit(partial(model.apply, mix=mixing, level=level))
        out = run(variables, x, keys=keys)
        assert np.isfinite(out["attribution"]).all()
        np.testing.assert_allclose(out["mixed"].weights.sum(1), 1, rtol=1e-5)


def test_tokens_are_taken_whole_and_statistics_over_all_of_them():
    keys = jax.random.split(jax.random.key(0), 4)
    tokens = jnp.arange(4.0)[:, None, None] + jnp.zeros((4, 50, 6))
    mixed = make_mixing("tokens").mix_fn(keys, tokens)
    assert (np.ptp(mixed.h, axis=2) == 0).all()  # a token is of one image
    share = (np.asarray(mixed.h[..., 0]) == [[1], [3]]).mean(1)
    np.testing.assert_allclose(share, mixed.weights[:, 1], rtol=1e-6)
    h = jax.random.normal(jax.random.key(1), (4, 50, 6)) * jnp.arange(1.0, 7)
    styled = make_mixing("mixstyle", beta=0.1, block=4).mix_fn(keys, h).h
    whole = make_mixing("mixstyle", beta=0.1, block=4).mix_fn(keys, h[:, :, None]).h
    np.testing.assert_allclose(styled, whole[:, :, 0], rtol=1e-5, atol=1e-6)


def test_attention_is_the_librarys_on_any_processor():
    q, k, v = (
        jax.random.normal(key, (2, n, 4, 8))
        for key, n in zip(
            jax.random.split(jax.random.key(0), 3), (5, 9, 9), strict=True
        )
    )
    expected = jax.nn.dot_product_attention(q, k, v)
    np.testing.assert_allclose(attend(q, k, v), expected, rtol=1e-5, atol=1e-6)
    with targeting("tpu"):
        np.testing.assert_array_equal(attend(q, k, v), expected)


@pytest.mark.parametrize("rotary", [0.0, 100.0], ids=["learned", "rotary"])
def test_the_class_token_alone_goes_through_the_last_block(rotary):
    """Where it is pooled and nothing else asked for; it is what all of them would give."""
    structure = SMALL_VIT | dict(rotary=rotary, registers=2, pool="class")
    network = VisionTransformer(**structure)
    x = jax.random.normal(jax.random.key(1), (2, 48, 48, 3))
    run = partial(network.apply, network.init(jax.random.key(0), x, train=False))
    run = partial(run, train=False)
    tokens, _ = run(x, stop=5)
    alone = jax.jit(lambda x: run(x)[0])
    np.testing.assert_allclose(alone(x), run(tokens, start=5)[0], rtol=1e-4, atol=1e-5)

    def flops(f):
        return jax.jit(f).lower(x).compile().cost_analysis()["flops"]

    last_block = flops(lambda x: run(x, stop=5)[0]) / structure["depth"]
    assert flops(alone) < flops(run) - last_block / 2


def test_recomputing_blocks_changes_no_gradient():
    def gradients(model, variables, x):
        def loss(params):
            return model.apply({"params": params}, x)["attribution"].std()

        return jax.jit(jax.grad(loss))(variables["params"])

    model, variables, x = make_small()
    kept = gradients(model, variables, x)
    again = gradients(model.clone(remat=True), variables, x)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), again, kept)
    assert all(
        np.abs(leaf).max() > 0
        for leaf in jax.tree.leaves(kept["backbone"]["layer1_0"]["mlp"])
    )


def test_half_precision_is_near():
    model, variables, x = make_small()
    out = jax.jit(model.apply)(variables, x)
    half = jax.jit(model.clone(dtype=jnp.bfloat16).apply)(variables, x)
    assert half["layer4"].dtype == jnp.bfloat16
    assert half["embedding"].dtype == jnp.float32
    off = np.abs(half["embedding"] - out["embedding"]).max()
    assert 0 < off < 0.05 * np.abs(out["embedding"]).max()


def test_images_of_other_proportions_go_in(small):
    model, variables, *_ = small
    x = jax.random.normal(jax.random.key(5), (2, 45, 28, 3))
    out = jax.jit(model.apply)(variables, x)
    assert out["layer4"].shape == (2, 3 + 5 * 3, 32)
    # What is left over at the right and the bottom is not looked at.
    cut = jax.jit(model.apply)(variables, x[:, :40, :24])
    np.testing.assert_allclose(out["embedding"], cut["embedding"], atol=1e-6)


@pytest.mark.parametrize(
    ("arch", "millions"), [("vit_b32", 87.8), ("vit_b16", 86.2), ("vit_l14", 304.0)]
)
def test_named_ones_have_the_published_number_of_parameters(arch, millions):
    """CLIP's vision towers, https://arxiv.org/abs/2103.00020, with its projections."""
    dims = {"vit_b32": 512, "vit_b16": 512, "vit_l14": 768}
    model = RepMix(arch, 0, embedding_dim=dims[arch])
    x = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), x)
    count = sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))
    assert round(count / 1e6, 1) == millions
    assert arch in TRANSFORMERS


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"activation": "tanh"}, "model.vit.activation"),
        ({"pool": "max"}, "model.vit.pool"),
        ({"heads": 3}, "model.vit.width"),
        ({"heads": 16, "rotary": 100.0}, "model.vit.width"),
        ({"class_token": False}, "model.vit.class_token"),
        ({"patch": 300}, "300x300"),
    ],
)
def test_structures_that_do_not_fit_are_named(wrong, named):
    with pytest.raises(InputError, match=named):
        RepMix(VIT, 2, structure=SMALL_VIT | wrong)


@pytest.mark.slow
def test_one_trains_mixed_and_is_what_another_training_starts_from(
    small_config, tmp_path
):
    """By the run's own config; blocks and projection are taken, heads are new."""
    structure = {f"model.vit.{key}": value for key, value in SMALL_VIT.items()}
    changes = {"model.arch": VIT, "mix.level": 3, "num_epochs": 1}
    config = small_config(**structure, **changes)
    run = tmp_path / "run"
    trained = rmjax.train(config, run, show_progress=False).params
    results = rmjax.evaluate(run, draws=10, show_progress=False)
    assert results["cells"] and np.isfinite(results["cells"][0]["loss"])
    again = load_config(str(run), [f"--config.model.init={run}"])
    assert again.model.vit == config.model.vit
    taken = starting_backbone(again)["params"]["backbone"]
    jax.tree.map(np.testing.assert_array_equal, taken, trained["backbone"])
    again.model.vit.depth = 8
    with pytest.raises(InputError, match=r"model\.vit"):
        starting_backbone(again)
