import re
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from mixed_levels import NAMES, check_mix_at_level

from rmjax.errors import InputError
from rmjax.models.conv import Conv, choose_lowering, convolve
from rmjax.models.forward import map_chunks, prepare
from rmjax.models.norm import BatchNorm
from rmjax.models.pool import max_pool
from rmjax.models.repmix import RepMix
from rmjax.models.resnet import ARCHITECTURES, ResNet, linear
from rmjax.utils.platform import targeting


@pytest.fixture(params=["cpu", "tpu"])
def platform(request):
    """Trace as for a CPU, and as for an accelerator."""
    with targeting(request.param):
        yield request.param


def naive_convolution(x, kernel, stride):
    """Sum over the padded window of each output pixel, in float64."""
    size = kernel.shape[0]
    pad = (size - 1) // 2
    x = np.pad(np.asarray(x, np.float64), ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    rows, cols = ((n - size) // stride + 1 for n in x.shape[1:3])
    out = np.zeros((len(x), rows, cols, kernel.shape[-1]))
    for i in range(rows):
        for j in range(cols):
            window = x[:, i * stride :, j * stride :][:, :size, :size]
            out[:, i, j] = np.tensordot(window, kernel, axes=3)
    return out


@pytest.mark.parametrize(("size", "stride"), [(1, 2), (3, 1), (3, 2), (4, 2), (7, 2)])
@pytest.mark.parametrize(("height", "width"), [(2, 2), (9, 8)])
def test_lowerings_agree(size, stride, height, width):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((5, height, width, 3)).astype(np.float32)
    kernel = rng.standard_normal((size, size, 3, 4)).astype(np.float32)
    expected = naive_convolution(x, kernel, stride)

    @partial(jax.jit, static_argnames="lowering")
    def run(x, kernel, lowering):
        def product(x, kernel):
            y = convolve(x, kernel, stride=stride, lowering=lowering)
            return (y * expected).sum(), y

        return jax.grad(product, argnums=(0, 1), has_aux=True)(x, kernel)

    grads, out = run(x, kernel, "native")
    np.testing.assert_allclose(out, expected, atol=1e-4)
    grads_patches, out_patches = run(x, kernel, "patches")
    np.testing.assert_allclose(out_patches, expected, atol=1e-4)
    for ours, theirs in zip(grads_patches, grads, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    ("x", "size", "stride", "on_cpu"),
    [
        ((2, 56, 56, 8), 1, 1, "patches"),
        ((2, 4, 4, 8), 3, 1, "patches"),
        ((2, 8, 8, 8), 3, 2, "patches"),
        ((2, 8, 8, 8), 3, 1, "native"),
        ((2, 8, 8, 64), 3, 1, "native"),
        ((2, 8, 8, 128), 3, 1, "winograd"),
        ((2, 8, 8, 128), 3, 2, "patches"),
        ((2, 56, 56, 128), 3, 2, "native"),
    ],
)
def test_choice_of_lowering(x, size, stride, on_cpu):
    kernel = (size, size, x[-1], x[-1])
    assert choose_lowering(x, kernel, stride, "cpu") == on_cpu
    assert choose_lowering(x, kernel, stride, "tpu") == "native"
    assert choose_lowering(x, kernel, stride, "gpu") == "native"


@pytest.mark.parametrize(
    ("side", "channels", "size", "stride", "on_cpu"),
    [
        (56, 64, 3, 1, "winograd"),
        (14, 64, 3, 1, "winograd"),
        (5, 64, 3, 1, "patches"),
        (56, 32, 3, 1, "native"),
        (14, 64, 1, 1, "patches"),
        (112, 64, 3, 2, "native"),
        (28, 64, 3, 2, "patches"),
        (224, 64, 7, 2, "native"),
    ],
)
def test_choice_of_lowering_without_gradients(side, channels, size, stride, on_cpu):
    x, kernel = (64, side, side, channels), (size, size, channels, 64)
    assert choose_lowering(x, kernel, stride, "cpu", forward=True) == on_cpu
    assert choose_lowering(x, kernel, stride, "gpu", forward=True) == "native"


@pytest.mark.parametrize(("height", "width"), [(1, 2), (8, 8), (9, 7)])
def test_tiles_are_the_convolution(height, width):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, height, width, 5)).astype(np.float32)
    kernel = rng.standard_normal((3, 3, 5, 4)).astype(np.float32)
    out = jax.jit(partial(convolve, lowering="winograd"))(x, kernel)
    np.testing.assert_allclose(out, naive_convolution(x, kernel, 1), atol=1e-4)


@pytest.mark.parametrize(("height", "width"), [(1, 2), (8, 8), (9, 7)])
def test_gradients_on_tiles_are_the_convolutions(height, width):
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (3, height, width, 5))
    kernel = jax.random.normal(keys[1], (3, 3, 5, 4))
    out = jax.random.normal(keys[2], (3, height, width, 4))

    @partial(jax.jit, static_argnums=0)
    def gradients(lowering):
        return jax.vjp(partial(convolve, lowering=lowering), x, kernel)[1](out)

    for tiles, plain in zip(gradients("winograd"), gradients("native"), strict=True):
        np.testing.assert_allclose(tiles, plain, atol=1e-5 * np.abs(plain).max())


@pytest.mark.parametrize(("height", "width"), [(1, 1), (8, 6), (7, 9)])
@pytest.mark.parametrize("levels", [3, 1000])
def test_max_pool_is_the_windows_maximum(height, width, levels):
    """Few levels make ties, of which the first takes the gradient."""
    rng = np.random.default_rng(0)
    x = rng.integers(-levels, levels, (2, height, width, 3)).astype(np.float32)
    windows = nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
    out, gradient = jax.vjp(max_pool, x)
    np.testing.assert_array_equal(out, windows)
    given = rng.standard_normal(windows.shape).astype(np.float32)
    expected = np.zeros_like(x)
    for n, i, j, c in np.ndindex(windows.shape):
        rows, cols = (
            [k for k in range(2 * at - 1, 2 * at + 2) if 0 <= k < size]
            for at, size in ((i, height), (j, width))
        )
        first = next(
            (a, b) for a in rows for b in cols if x[n, a, b, c] == windows[n, i, j, c]
        )
        expected[n, *first, c] += given[n, i, j, c]
    np.testing.assert_allclose(gradient(given)[0], expected, rtol=1e-6, atol=1e-6)


def test_tiles_are_for_one_kind_of_convolution():
    x = jnp.ones((1, 8, 8, 1))
    with pytest.raises(InputError, match="winograd.*3x3.*stride 1"):
        convolve(x, jnp.ones((3, 3, 1, 1)), stride=2, lowering="winograd")
    with pytest.raises(InputError, match="winograd.*3x3.*stride 1"):
        convolve(x, jnp.ones((1, 1, 1, 1)), lowering="winograd")


def test_a_conv_uses_its_prepared_kernel():
    x = jax.random.normal(jax.random.key(1), (2, 8, 8, 3))
    conv = Conv(4, 3, lowering="winograd")
    variables = Conv(4, 3).init(jax.random.key(0), x)
    prepared, _ = prepare(conv.apply, variables, x)
    assert prepared["params"] is variables["params"]
    kernel = jax.tree.leaves(prepared["prepared"])
    assert [place.shape for place in kernel] == 16 * [(3, 4)]
    apply = jax.jit(conv.apply)
    expected = apply(variables, x)
    np.testing.assert_allclose(apply(prepared, x), expected, rtol=1e-5, atol=1e-5)
    doubled = jax.tree.map(lambda k: 2 * k, prepared)
    doubled["params"] = variables["params"]
    np.testing.assert_allclose(apply(doubled, x), 2 * expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("batch", [1, 3, 7])
def test_chunks_are_the_whole_batch(batch):
    seen = []

    def double(x):
        seen.append(len(x))
        return {"twice": 2 * x, "sum": x.sum(1)}

    x = np.random.default_rng(0).standard_normal((batch, 5)).astype(np.float32)
    out = map_chunks(double, x, 3)
    np.testing.assert_array_equal(out["twice"], 2 * x)
    np.testing.assert_allclose(out["sum"], x.sum(1), rtol=1e-6)
    assert max(seen) <= 3


def test_chunks_fit_the_caches_of_a_cpu():
    """Of the largest activation of an image, 4 MiB hold so many."""

    def apply(variables, x, mutable):
        maps = {"small": x.mean((1, 2)), "large": jnp.repeat(x, 5, axis=1)}
        return maps, {}

    inputs = jax.ShapeDtypeStruct((1, 64, 1024, 1), "float32")
    assert prepare(apply, {"params": {}}, inputs) == ({"params": {}}, 3)


def test_inference_is_the_plain_network():
    """At sizes and widths where Winograd's tiles are chosen."""
    settings = dict(depths=(1, 1, 0, 0), widths=(64,) * 4, stem_pool=False)
    x = jax.random.normal(jax.random.key(1), (2, 33, 32, 3))
    plain = ResNet(**settings, lowering="native")
    fast = plain.clone(lowering="forward")
    variables = jax.jit(partial(plain.init, train=False))(jax.random.key(0), x)
    prepared, _ = prepare(partial(fast.apply, train=False), variables, x)
    expected, _ = jax.jit(partial(plain.apply, train=False))(variables, x)
    out, _ = jax.jit(partial(fast.apply, train=False))(prepared, x)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(out, expected, atol=1e-5 * scale)


def test_conv_parameters_do_not_depend_on_the_lowering():
    x = jnp.ones((1, 4, 4, 3))
    trees = [
        Conv(8, 3, lowering=lowering).init(jax.random.key(0), x)
        for lowering in ("auto", "native", "patches")
    ]
    kernel = trees[0]["params"]["kernel"]
    assert kernel.shape == (3, 3, 3, 8)
    for tree in trees[1:]:
        np.testing.assert_array_equal(tree["params"]["kernel"], kernel)


def test_unknown_lowering_lists_the_choices():
    with pytest.raises(
        InputError, match="fft.*auto, forward, native, patches, winograd"
    ):
        convolve(jnp.ones((1, 4, 4, 1)), jnp.ones((3, 3, 1, 1)), lowering="fft")


def batch_norm_variables(channels):
    return {
        "params": {"scale": jnp.ones(channels), "bias": jnp.zeros(channels)},
        "batch_stats": {"mean": jnp.zeros(channels), "var": jnp.ones(channels)},
    }


def test_batch_norm_of_hand_computed_numbers(platform):
    # Values 0, 2, 4, 6: mean 3, biased variance 5, unbiased 20 / 3.
    x = jnp.array([0.0, 2.0, 4.0, 6.0]).reshape(2, 2, 1, 1)
    variables = batch_norm_variables(1)
    variables["params"] = {"scale": jnp.array([2.0]), "bias": jnp.array([1.0])}
    y, updated = BatchNorm().apply(variables, x, train=True, mutable=["batch_stats"])
    expected = 1 + 2 * np.array([-3.0, -1.0, 1.0, 3.0]) / np.sqrt(5 + 1e-5)
    np.testing.assert_allclose(y.ravel(), expected, rtol=1e-6)
    np.testing.assert_allclose(updated["batch_stats"]["mean"], [0.3], rtol=1e-6)
    np.testing.assert_allclose(
        updated["batch_stats"]["var"], [0.9 + 0.1 * 20 / 3], rtol=1e-6
    )
    variables["batch_stats"] = {"mean": jnp.array([1.0]), "var": jnp.array([4.0])}
    y = BatchNorm().apply(variables, x, train=False)
    expected = 1 + 2 * np.array([-1.0, 1.0, 3.0, 5.0]) / np.sqrt(4 + 1e-5)
    np.testing.assert_allclose(y.ravel(), expected, rtol=1e-6, atol=1e-6)


def test_batch_norm_gradients_are_those_of_its_definition(platform):
    keys = jax.random.split(jax.random.key(0), 4)
    x = 3 * jax.random.normal(keys[0], (4, 5, 6, 7)) + 2
    scale, bias = jax.random.normal(keys[1], (2, 7))
    given = jax.random.normal(keys[2], x.shape)
    statistics = {"mean": jnp.zeros(7), "var": jnp.ones(7)}

    def layer(x, scale, bias):
        variables = {
            "params": {"scale": scale, "bias": bias},
            "batch_stats": statistics,
        }
        return BatchNorm().apply(variables, x, train=True, mutable=["batch_stats"])[0]

    def definition(x, scale, bias):
        axes = (0, 1, 2)
        return (x - x.mean(axes)) / jnp.sqrt(x.var(axes) + 1e-5) * scale + bias

    expected = jax.vjp(definition, x, scale, bias)[1](given)
    gradients = jax.vjp(layer, x, scale, bias)[1](given)
    for gradient, plain in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(gradient, plain, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("mean", "deviation"), [(1e4, 1.0), (100.0, 0.01)])
@pytest.mark.parametrize("replicas", [1, 8])
def test_batch_norm_is_sound_far_from_zero(platform, mean, deviation, replicas):
    """E[x^2] - E[x]^2 in float32 would have nothing left of this variance.

    It is the first step, whose running mean is 0; replicas differ in their own means.
    """
    x = jax.random.normal(jax.random.key(0), (replicas, 512, 4))
    x += jnp.arange(float(replicas))[:, None, None]
    x = mean + deviation * x
    variables = batch_norm_variables(4)
    layer = partial(BatchNorm(axis_name="batch").apply, train=True)

    def replica(x):
        return layer(variables, x, mutable=["batch_stats"])

    y, updated = jax.vmap(replica, out_axes=(0, None), axis_name="batch")(x)
    # As far as float32 can tell the numbers of x from each other, and its mean.
    spacing = np.spacing(np.float32(mean)) / deviation
    exact = np.asarray(x, np.float64)
    variance = exact.var(axis=(0, 1))
    expected = (exact - exact.mean(axis=(0, 1))) / np.sqrt(variance + 1e-5)
    np.testing.assert_allclose(y, expected, atol=2 * spacing)
    count = replicas * 512
    running = 0.9 + 0.1 * variance * count / (count - 1)
    tolerance = 1e-6 + 0.1 * spacing
    np.testing.assert_allclose(updated["batch_stats"]["var"], running, rtol=tolerance)
    y = y.reshape(-1, 4)
    scale = np.sqrt(variance / (variance + 1e-5))
    np.testing.assert_allclose(y.std(axis=0), scale, rtol=2e-3)


@pytest.mark.parametrize("train", [True, False])
def test_batch_norm_before_its_pool_is_the_pool_after_it(platform, train):
    keys = jax.random.split(jax.random.key(0), 3)
    x = 3 * jax.random.normal(keys[0], (4, 9, 8, 6)) + 2
    given = jax.random.normal(keys[1], (4, 5, 4, 6))
    variables = batch_norm_variables(6)
    variables["params"]["scale"] = jnp.array([1.0, -1.0, 0.5, -2.0, 0.0, 3.0])
    variables["params"]["bias"] = jnp.arange(6.0)
    variables["batch_stats"]["mean"] = jnp.arange(6.0)

    def layer(x, params, pool):
        whole = variables | {"params": params}
        layer = partial(BatchNorm().apply, whole, x, train=train)
        y, updated = layer(pool=pool, mutable=["batch_stats"])
        return (y if pool else max_pool(y)), updated

    def differentiate(pool):
        function = partial(layer, pool=pool)
        y, back, updated = jax.vjp(function, x, variables["params"], has_aux=True)
        return y, back(given), updated

    expected, found = differentiate(None), differentiate(max_pool)
    # Where the scale is zero all places are equal, and any may have the gradient.
    for result in (expected, found):
        result[1][1]["scale"] = result[1][1]["scale"].at[4].set(0)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        found,
        expected,
    )


def test_batch_norm_of_narrow_maps_is_sound(platform):
    """Near the running mean, and as far from it as bfloat16 tells numbers apart."""
    for mean in (0.0, 3.0, 100.0):
        x = (mean + jax.random.normal(jax.random.key(0), (2048, 4))).astype("bfloat16")
        layer = BatchNorm(dtype=jnp.bfloat16)
        y, _ = layer.apply(
            batch_norm_variables(4), x, train=True, mutable=["batch_stats"]
        )
        exact = np.asarray(x, np.float64)
        expected = (exact - exact.mean(axis=0)) / exact.std(axis=0)
        assert y.dtype == jnp.bfloat16
        np.testing.assert_allclose(y.astype("float32"), expected, rtol=0.01, atol=0.01)


def test_accelerators_exchange_once_a_norm_and_direction():
    x = jnp.zeros((4, 3))
    scale = jnp.ones(3)

    def replica(x, scale):
        variables = batch_norm_variables(3)
        variables["params"]["scale"] = scale
        layer = BatchNorm(axis_name="batch")
        y, _ = layer.apply(variables, x, train=True, mutable=["batch_stats"])
        return (y**2).sum()

    def exchanges(function):
        traced = jax.make_jaxpr(function, axis_env=[("batch", 8)])(x, scale)
        return re.findall(r"\b(psum|all_gather)\w*\[", str(traced))

    with targeting("tpu"):
        assert len(exchanges(replica)) == 1
        assert len(exchanges(jax.grad(replica, (0, 1)))) == 2


def test_initial_statistics_are_not_of_the_first_batch():
    x = 5 + jax.random.normal(jax.random.key(0), (8, 3))
    variables = BatchNorm().init(jax.random.key(0), x, train=True)
    np.testing.assert_array_equal(variables["batch_stats"]["mean"], np.zeros(3))
    np.testing.assert_array_equal(variables["batch_stats"]["var"], np.ones(3))


def train_gradients(model, variables, x, sources):
    """Return the loss, its gradients and the new statistics of one replica."""

    def loss_fn(params):
        outputs, updated = model.apply(
            {"params": params, "batch_stats": variables["batch_stats"]},
            x,
            train=True,
            mutable=["batch_stats"],
        )
        log_p = jax.nn.log_softmax(outputs["attribution"])
        loss = -jnp.take_along_axis(log_p, sources, axis=1).mean()
        return loss, updated["batch_stats"]

    (loss, batch_stats), grads = jax.value_and_grad(loss_fn, has_aux=True)(
        variables["params"]
    )
    return loss, grads, batch_stats


def test_synchronised_statistics_make_eight_replicas_one(platform):
    x = jax.random.normal(jax.random.key(0), (16, 16, 16, 3))
    sources = jax.random.randint(jax.random.key(1), (16, 1), 0, 3)
    alone = RepMix("tiny", 3)
    variables = jax.jit(alone.init)(jax.random.key(2), x)
    expected = jax.jit(lambda *a: train_gradients(alone, *a))(variables, x, sources)

    model = RepMix("tiny", 3, axis_name="batch")

    def replica(variables, x, sources):
        out = train_gradients(model, variables, x, sources)
        return jax.lax.pmean(out, "batch")

    step = jax.pmap(replica, axis_name="batch", in_axes=(None, 0, 0), out_axes=None)
    mesh = Mesh(np.array(jax.local_devices()), ("batch",))
    replicated = NamedSharding(mesh, PartitionSpec())
    assert jax.local_device_count() == 8
    out = step(
        jax.device_put(variables, replicated),
        x.reshape(8, 2, *x.shape[1:]),
        sources.reshape(8, 2, 1),
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-5),
        jax.device_get(out),
        jax.device_get(expected),
    )


@pytest.mark.slow
def test_accelerators_compute_the_same_network():
    """In float64: in float32, rounding decides on which side of zero some ReLU's input is."""
    with jax.enable_x64(True):
        network = ResNet(
            depths=(2, 1, 1, 1),
            widths=(8, 16, 24, 32),
            bottleneck=True,
            dtype=jnp.float64,
        )
        x = jax.random.normal(jax.random.key(0), (8, 64, 64, 3))
        weights = jax.random.normal(jax.random.key(1), (8, 256))
        variables = jax.jit(partial(network.init, train=False))(jax.random.key(2), x)

        def loss_fn(params):
            (y, _), updated = network.apply(
                variables | {"params": params}, x, train=True, mutable=["batch_stats"]
            )
            return (y * weights).sum(), updated

        found = {}
        for platform in ("cpu", "tpu"):
            differentiate = jax.value_and_grad(loss_fn, has_aux=True)
            with targeting(platform):
                compiled = jax.jit(differentiate).lower(variables["params"]).compile()
            found[platform] = compiled(variables["params"])
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5),
        found["tpu"],
        found["cpu"],
    )


def test_rematerialised_blocks_take_less_memory_and_give_the_same():
    x = jax.random.normal(jax.random.key(0), (8, 32, 32, 3))
    settings = dict(depths=(3, 0, 0, 0), widths=(16,) * 4, stem_pool=False)
    init = partial(ResNet(**settings).init, train=False)
    variables = jax.jit(init)(jax.random.key(1), x)
    found, memory = [], []
    for remat in (False, True):
        network = ResNet(**settings, remat=remat)
        shapes = jax.eval_shape(
            partial(network.init, train=False), jax.random.key(1), x
        )
        assert jax.tree.structure(shapes) == jax.tree.structure(variables)

        def loss_fn(params, batch_stats, network=network):
            (h, _), updated = network.apply(
                {"params": params, "batch_stats": batch_stats},
                x,
                train=True,
                mutable=["batch_stats"],
            )
            return (h**2).mean(), updated

        step = jax.jit(jax.value_and_grad(loss_fn, has_aux=True))
        step = step.lower(variables["params"], variables["batch_stats"])
        # Otherwise the CPU's compiler merges what is to be computed twice.
        step = step.compile({"xla_disable_hlo_passes": "cse_barrier_expander"})
        out = step(variables["params"], variables["batch_stats"])
        found.append(jax.device_get(out))
        memory.append(step.memory_analysis().temp_size_in_bytes)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), *found)
    assert memory[1] < 0.8 * memory[0], memory


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


# torchvision's counts less its classifier (25,557,032 - 2,049,000 and
# 11,689,512 - 513,000), plus a 256-d embedding and heads of 8 and 2.
PARAMETERS = {
    "resnet50": 23_508_032 + 2049 * 256 + 257 * 10,
    "resnet18": 11_176_512 + 513 * 256 + 257 * 10,
}


@pytest.mark.parametrize("arch", PARAMETERS)
def test_parameter_counts_are_torchvisions(arch):
    shapes = jax.eval_shape(
        RepMix(arch, 8).init, jax.random.key(0), jnp.ones((1, 32, 32, 3))
    )
    assert count(shapes["params"]) == PARAMETERS[arch]


def test_tiny_is_tiny():
    model = RepMix("tiny", 8)
    x = jnp.ones((2, 64, 64, 3))
    shapes = jax.eval_shape(model.init, jax.random.key(0), x)
    assert 200_000 < count(shapes["params"]) < 700_000


@pytest.fixture(scope="module")
def tiny():
    model = RepMix("tiny", 5, embedding_dim=12)
    x = jax.random.normal(jax.random.key(0), (4, 32, 32, 3))
    variables = jax.jit(model.init)(jax.random.key(1), x)
    return model, variables, x, jax.jit(model.apply)(variables, x)


def test_named_activations(tiny):
    *_, outputs = tiny
    layers = {"stem", "layer1", "layer2", "layer3", "layer4"}
    assert set(outputs) == layers | {"pool", "embedding", "attribution", "detection"}
    np.testing.assert_allclose(
        outputs["pool"], outputs["layer4"].mean((1, 2)), rtol=1e-5, atol=1e-6
    )
    assert outputs["embedding"].shape == (4, 12)
    assert outputs["attribution"].shape == (4, 5)
    assert outputs["detection"].shape == (4, 2)
    for name in layers:
        assert outputs[name].ndim == 4 and len(outputs[name]) == 4


def test_heads_without_gate_and_without_detection(tiny):
    model, variables, x, gated = tiny
    free = model.clone(gated_source=None)
    outputs = jax.jit(free.apply)(variables, x)
    p = jax.nn.softmax(outputs["detection"])
    p = jnp.concatenate([p[:, :1], *[p[:, 1:]] * 4], axis=1)
    np.testing.assert_allclose(outputs["attribution"] * p, gated["attribution"], 1e-5)
    params = {k: v for k, v in variables["params"].items() if k != "detection"}
    alone = free.clone(detects=False)
    answer = jax.jit(alone.apply)({**variables, "params": params}, x)
    np.testing.assert_allclose(answer["attribution"], outputs["attribution"], 1e-5)
    p = jax.nn.softmax(answer["attribution"])
    real, synthetic = jax.nn.softmax(answer["detection"]).T
    np.testing.assert_allclose(real, p[:, 0], rtol=1e-5)
    np.testing.assert_allclose(synthetic, p[:, 1:].sum(1), rtol=1e-5)


@pytest.mark.parametrize("level", range(7))
def test_mixing_sees_the_representation_of_its_level(tiny, level):
    model, variables, x, whole = tiny
    expected = (x, *(whole[name] for name in NAMES))[level]
    if level == 5:  # after the pool: vectors, not maps
        expected = expected.mean(axis=(1, 2))
    check_mix_at_level(model, variables, x, whole, level, expected, least=1e-3)


def test_any_size_goes_in(tiny):
    model, variables, *_ = tiny
    x = jax.ShapeDtypeStruct((1, 50, 71, 3), jnp.float32)
    outputs = jax.eval_shape(model.apply, variables, x)
    assert outputs["embedding"].shape == (1, 12)


@pytest.mark.parametrize("lowering", ["native", "patches", "winograd"])
def test_half_precision_sums_in_float32(lowering):
    """9 * 1,024 ones: added one by one in bfloat16, they would stay at 256."""
    x, kernel = jnp.ones((4, 3, 3, 1024)), jnp.ones((3, 3, 1024, 2))
    half = partial(jax.tree.map, lambda x: x.astype(jnp.bfloat16))
    out = jax.jit(partial(convolve, lowering=lowering))(half(x), half(kernel))
    assert out.dtype == jnp.bfloat16
    assert float(out[0, 1, 1, 0]) == 9 * 1024


def test_half_precision_on_prepared_tiles():
    """Tiles are computed in float32 and round the output alone: by 2^-9 of it."""
    x = jax.random.normal(jax.random.key(1), (2, 8, 8, 16), jnp.bfloat16)
    conv = Conv(8, 3, lowering="winograd", dtype=jnp.bfloat16)
    variables = Conv(8, 3).init(jax.random.key(0), x)
    prepared, _ = prepare(conv.apply, variables, x)
    assert jax.tree.leaves(prepared["prepared"])[0].dtype == jnp.float32
    kernel = variables["params"]["kernel"].astype(jnp.bfloat16)
    expected = naive_convolution(x, np.asarray(kernel, np.float64), 1)
    out = jax.jit(conv.apply)(prepared, x)
    assert out.dtype == jnp.bfloat16
    np.testing.assert_allclose(out.astype(jnp.float32), expected, rtol=2**-8, atol=1e-5)


def test_half_precision_keeps_float32_parameters_and_logits(tiny):
    _, variables, x, exact = tiny
    model = RepMix("tiny", 5, embedding_dim=12, dtype=jnp.bfloat16)
    fresh = jax.eval_shape(model.init, jax.random.key(0), x)
    assert {leaf.dtype for leaf in jax.tree.leaves(fresh)} == {jnp.dtype("float32")}
    outputs = jax.jit(model.apply)(variables, x)
    assert outputs["layer4"].dtype == jnp.bfloat16
    for name in ("pool", "embedding", "attribution", "detection"):
        assert outputs[name].dtype == jnp.float32
    np.testing.assert_allclose(
        outputs["attribution"], exact["attribution"], rtol=0.1, atol=0.05
    )


def test_initial_values_have_torchs_spread():
    conv = Conv(128, 3).init(jax.random.key(0), jnp.ones((1, 4, 4, 64)))
    fan_out = 3 * 3 * 128
    kernel = conv["params"]["kernel"]
    np.testing.assert_allclose(kernel.std(), np.sqrt(2 / fan_out), rtol=0.02)
    dense = linear(512, 256, jnp.float32).init(jax.random.key(0), jnp.ones((1, 512)))
    for leaf in dense["params"].values():
        assert 0.95 * 512**-0.5 < abs(leaf).max() <= 512**-0.5


def test_unknown_architecture_lists_the_choices():
    with pytest.raises(InputError, match="vgg.*resnet50, resnet18, tiny"):
        RepMix("vgg", 8)


def test_one_source_is_not_enough():
    with pytest.raises(InputError, match="1 source"):
        RepMix("tiny", 1)


@pytest.mark.parametrize(("start", "stop"), [(-1, 3), (4, 2), (0, 7)])
def test_levels_out_of_range(start, stop):
    model = ResNet(**ARCHITECTURES["tiny"])
    with pytest.raises(ValueError, match="0..6"):
        model.init(
            jax.random.key(0),
            jnp.ones((1, 8, 8, 3)),
            train=False,
            start=start,
            stop=stop,
        )


def test_embeddings_to_be_compared_have_nothing_in_common():
    model = RepMix("shallow", 0, embedding_dim=8, compares=True)
    plain = RepMix("shallow", 0, embedding_dim=8)
    x = 3 + jax.random.normal(jax.random.key(0), (32, 6, 6, 5))
    variables = model.init(jax.random.key(1), x)
    out, updates = model.apply(variables, x, train=True, mutable=["batch_stats"])
    backbone = {
        "params": variables["params"],
        "batch_stats": {"backbone": variables["batch_stats"]["backbone"]},
    }
    h, _ = plain.apply(backbone, x, train=True, mutable=["batch_stats"])
    h = np.asarray(h["embedding"])
    expected = (h - h.mean(0)) / np.sqrt(h.var(0) + 1e-5)
    np.testing.assert_allclose(out["embedding"], expected, rtol=1e-4, atol=1e-4)
    assert "norm" not in variables["params"]  # nothing learned brings it back
    # In use, by what training images have in common.
    stats = updates["batch_stats"]["norm"]
    np.testing.assert_allclose(stats["mean"], 0.1 * h.mean(0), rtol=1e-3, atol=1e-5)
    used = {**variables, "batch_stats": updates["batch_stats"]}
    one = model.apply(used, x[:1])["embedding"]
    np.testing.assert_allclose(model.apply(used, x)["embedding"][:1], one, rtol=1e-4)
