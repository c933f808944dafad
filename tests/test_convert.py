import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden.model.recipe import read_shapes

from rmjax.errors import InputError
from rmjax.models.convert import from_torch, to_torch, torch_name
from rmjax.models.repmix import RepMix

KERNEL = ("params", "backbone", "layer1", "block0", "conv1", "kernel")
EMBEDDING = ("params", "backbone", "embedding", "kernel")
STEM = ("params", "backbone", "stem", "conv", "kernel")


@pytest.fixture(scope="module")
def variables():
    model = RepMix("tiny", 4, embedding_dim=10)
    return jax.jit(model.init)(jax.random.key(0), jnp.ones((1, 16, 16, 3)))


@pytest.fixture
def state_dict(variables):
    return to_torch(variables)


@pytest.mark.parametrize(
    ("level", "stem", "layer1", "embedding"),
    [(0, 1, 2, 6), (1, 0, 2, 6), (2, 0, 1, 6), (5, 0, 1, 6), (6, 0, 1, 5)],
)
def test_names_shift_with_the_mixing_layer(level, stem, layer1, embedding):
    assert torch_name(STEM, level) == f"backbone.model.{stem}.0.weight"
    assert torch_name(KERNEL, level) == f"backbone.model.{layer1}.0.conv1.weight"
    assert torch_name(EMBEDDING, level) == f"backbone.model.{embedding}.2.weight"


def test_names_and_shapes_are_the_published_ones():
    model = RepMix("resnet50", 8)
    x = jax.ShapeDtypeStruct((1, 32, 32, 3), np.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), x)
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    assert {k: list(v.shape) for k, v in to_torch(zeros).items()} == read_shapes()


@pytest.mark.parametrize("level", range(7))
def test_there_and_back(variables, level):
    state_dict = to_torch(variables, level)
    back = from_torch(state_dict, level, arch="tiny")
    jax.tree.map(np.testing.assert_array_equal, back, jax.device_get(variables))


def test_layouts(variables, state_dict):
    kernel = np.asarray(variables["params"]["backbone"]["stem"]["conv"]["kernel"])
    published = state_dict["backbone.model.0.0.weight"]
    assert published[5, 2, 1, 0] == kernel[1, 0, 2, 5]
    head = np.asarray(variables["params"]["attribution"]["kernel"])
    assert state_dict["attribution.weight"][3, 7] == head[7, 3]


def test_exceptions_are_written_and_may_be_absent(variables, state_dict):
    np.testing.assert_allclose(state_dict.pop("det_ce.weight"), [1, 1 / 3])
    counters = [k for k in state_dict if k.endswith("num_batches_tracked")]
    assert counters and all(state_dict.pop(k) == 0 for k in counters)
    back = from_torch(state_dict, arch="tiny")
    jax.tree.map(np.testing.assert_array_equal, back, jax.device_get(variables))


def test_one_error_lists_every_difference(state_dict):
    state_dict.pop("detection.bias")
    state_dict.pop("backbone.model.1.0.bn1.running_var")
    state_dict["fc.weight"] = np.zeros(3)
    state_dict["backbone.model.0.0.weight"] = np.zeros((32, 3, 7, 7))
    with pytest.raises(InputError) as error:
        from_torch(state_dict, arch="tiny")
    message = str(error.value)
    assert "\n" not in message
    assert "missing: backbone.model.1.0.bn1.running_var, detection.bias;" in message
    assert "unexpected: fc.weight;" in message
    assert "backbone.model.0.0.weight is [32, 3, 7, 7], not [" in message


def test_another_level_is_an_error(state_dict):
    with pytest.raises(InputError, match="unexpected: backbone.model.6.2.bias"):
        from_torch(state_dict, 6, arch="tiny")


@pytest.mark.parametrize("level", [-1, 7])
def test_level_out_of_range(state_dict, level):
    with pytest.raises(InputError, match="0..6"):
        from_torch(state_dict, level, arch="tiny")
