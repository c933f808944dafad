"""Reading weights of other projects, converting them and starting from them."""

import json
import zipfile

import jax
import numpy as np
import optax
import pytest
import safetensors.numpy
from torch_files import Call, save_old, save_zip

import rmjax
from rmjax.cli.main import main
from rmjax.errors import InputError
from rmjax.experiment.build import build_model, network_input
from rmjax.experiment.config import load_config
from rmjax.experiment.run import load_run_config, load_source_names
from rmjax.experiment.step import create_state
from rmjax.inputs import IMAGENET_MEAN, IMAGENET_STD
from rmjax.models.convert import to_imagenet, to_torch
from rmjax.models.repmix import RepMix
from rmjax.models.resnet import STAGES
from rmjax.pretrained import convert as conversion
from rmjax.pretrained import pickles
from rmjax.pretrained.convert import convert
from rmjax.pretrained.files import read_file
from rmjax.pretrained.weights import read_weights
from rmjax.training.start import starting_backbone


def random_variables(num_sources, embedding_dim=256):
    """Variables of a ResNet-18 with every number different; nothing is compiled."""
    model = RepMix("resnet18", num_sources, embedding_dim=embedding_dim)
    x = jax.ShapeDtypeStruct((1, 32, 32, 3), np.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), x)
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: rng.uniform(0.5, 1, leaf.shape).astype(np.float32), shapes
    )


@pytest.fixture(scope="module")
def repmix():
    return random_variables(4)


@pytest.fixture(scope="module")
def imagenet():
    return random_variables(0, 10)


@pytest.fixture(scope="module")
def lightning(repmix, tmp_path_factory):
    """A published checkpoint, mixed at level 3, as Lightning leaves one."""
    path = tmp_path_factory.mktemp("weights") / "last.ckpt"
    callbacks = "pytorch_lightning.callbacks.ModelCheckpoint"
    save_zip(
        path,
        {
            "epoch": 3,
            "pytorch-lightning_version": "1.5.0",
            "state_dict": to_torch(repmix, mix_level=3),
            "callbacks": Call(callbacks, "path"),
            "optimizer_states": [{"state": {0: {"step": 5}}, "lr": 1e-4}],
            "hyper_parameters": {
                "mixup_level": 3,
                "mixup_beta": 0.2,
                "img_mean": [0.5, 0.5, 0.5],
                "img_csize": 96,
                "residual": False,
            },
        },
    )
    return path


def assert_equal(variables, expected):
    jax.tree.map(np.testing.assert_array_equal, variables, expected)


@pytest.mark.parametrize("save", [save_zip, save_old])
def test_both_formats_of_torch_are_read(tmp_path, save):
    rng = np.random.default_rng(0)
    arrays = {
        "plain": rng.normal(size=(2, 3)).astype("f4"),
        "half": rng.normal(size=4).astype("f2"),
        "count": np.array(7),
        "turned": rng.normal(size=(3, 4)).astype("f4").T.copy().T,
    }
    content = {"a": arrays, "note": "x", "list": [1, 2.5, None, True]}
    save(tmp_path / "file.pth", content)
    read = read_file(tmp_path / "file.pth")
    assert {k: read[k] for k in ("note", "list")} == {
        "note": "x",
        "list": [1, 2.5, None, True],
    }
    for name, array in arrays.items():
        np.testing.assert_array_equal(read["a"][name], array)
        assert read["a"][name].dtype == array.dtype


@pytest.mark.parametrize("zipped", [True, False])
def test_files_of_torch_itself_are_read(tmp_path, zipped):
    torch = pytest.importorskip("torch")
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(2, 3, 8, 8)).sum().backward()
    optimizer.step()
    view = torch.arange(12.0).reshape(3, 4).t()[1:, ::2]
    content = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "view": view,
        "half": view.bfloat16(),
        "numpy": np.arange(3),
        "device": torch.device("cpu"),
    }
    path = tmp_path / "file.pth"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    read = read_file(path)
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(read["model"][name], value.numpy())
    np.testing.assert_array_equal(read["view"], view.numpy())
    np.testing.assert_array_equal(read["half"].astype("f4"), view.numpy())


@pytest.mark.parametrize("save", [save_zip, save_old])
def test_a_malicious_pickle_is_refused_and_not_run(tmp_path, capsys, save):
    victim = tmp_path / "victim"
    call = Call("os.system", f"touch {victim}")
    for number, content in enumerate(
        [{"state_dict": call}, {"a": Call("builtins.eval", "1")}]
    ):
        path = tmp_path / f"{number}.ckpt"
        save(path, content)
        out = tmp_path / "out"
        assert main(["convert", str(path), "--out", str(out)]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and "nothing in it was run" in error
        assert content.popitem()[1].function in error
        assert not victim.exists() and not out.exists()


def test_damaged_and_deceiving_files_end_in_one_line(tmp_path):
    good = tmp_path / "good.pth"
    save_zip(good, {"a": np.ones((4, 4), "f4")})
    data = good.read_bytes()
    for end in range(0, len(data), 97):
        (tmp_path / "cut.pth").write_bytes(data[:end])
        with pytest.raises(InputError, match="cut.pth: ") as error:
            read_file(tmp_path / "cut.pth")
        assert "\n" not in str(error.value)
    huge = np.lib.stride_tricks.as_strided(np.ones(1, "f4"), (1 << 20, 1 << 20), (0, 0))
    for name, save, content, reason in (
        ("wide", save_zip, {"a": Huge(huge)}, "more numbers than there are"),
        ("bomb", zipped, {"a": np.zeros(9, "f4")}, "compressed data"),
    ):
        save(tmp_path / name, content)
        with pytest.raises(InputError, match=reason):
            read_file(tmp_path / name)


def raw(path, body):
    """Write a pickle as the file of a `torch.save`, with one storage of 4 numbers."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", body)
        archive.writestr("a/data/0", np.ones(4, "f4").tobytes())


def nested(begin, step, depth):
    """Opcodes of what holds the one before it twice, so many times over."""
    levels = (
        step.replace(b"I", bytes([i])).replace(b"N", bytes([i + 1]))
        for i in range(depth)
    )
    return begin + b"q\0" + b"".join(levels)


REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"
TWICE = b"0](hIhIeqN"
HOSTILE = {  # what is between the brace of a dict and its end
    "deep tuple as name": (b")" + b"\x85" * 500_000 + b"K\1s", "tuples for names"),
    "tuples twice as name": (
        nested(b")", b"0hIhI\x86qN", 60) + b"K\1s",
        "tuples for names",
    ),
    "lists twice": (b"K\1" + nested(b"]", TWICE, 60) + b"s", "names that are no text"),
    "memo": (b"r\xff\xff\xff\xff", "neither a ResNet"),
    "list in itself": (b"K\1]q\0h\0as", "recursion"),
    "state of a function": (
        b"K\1" + REBUILD + b"N}X\x0c\0\0\0__defaults__K\1\x85s\x86bs",
        "names that are no text",
    ),
    "call of INST": (b"K\1(ios\nsystem\ns", "asks to run os.system"),
    "call of OBJ": (b"K\1(cos\nsystem\nU\2lsos", "asks to run os.system"),
    "extension": (b"K\1\x82\1s", "unregistered extension"),
    "storage by text": (b"K\1Pstorage\ns", "storage of an unknown sort"),
    "no tensor": (b"X\x0c\0\0\0conv1.weight](](K\1K\2e]es", "no tensors: conv1.weight"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pickles_neither_run_nor_exhaust(tmp_path, name):
    body, reason = HOSTILE[name]
    raw(tmp_path / "x.pth", b"\x80\2}" + body + b".")
    with pytest.raises(InputError, match=reason) as error:
        read_weights(tmp_path / "x.pth")
    assert "\n" not in str(error.value)
    assert pickles._rebuild.__defaults__ is None


def zipped(path, content):
    save_zip(path, content, zipfile.ZIP_DEFLATED)


class Huge(np.ndarray):
    """Says that it is huge, and has one number."""

    def __new__(cls, array):
        return array.view(cls)

    def tobytes(self, order):
        return b"\0" * 4


def test_the_published_checkpoint(lightning, repmix):
    weights = read_weights(lightning)
    assert_equal(weights.variables, repmix)
    config = weights.config
    assert (config.mix.level, config.mix.beta, config.model.gated_source) == (3, 0.2, 0)
    assert (config.data.crop, config.data.eval_size, config.optim.lr) == (96, 96, 1e-4)
    assert weights.source_names == ("real", "source1", "source2", "source3")
    provenance = weights.provenance
    assert provenance["layout"] == "repmix"
    assert "num_batches_tracked" in provenance["left_out"]
    assert "optimizer_states" in provenance["left_out"]
    named = read_weights(lightning, sources=("real", "a", "b", "c"))
    assert named.source_names == ("real", "a", "b", "c")


@pytest.mark.parametrize("level", [0, 3, 5, 6])
def test_the_level_is_read_from_the_names(tmp_path, repmix, level):
    path = tmp_path / "w.safetensors"
    safetensors.numpy.save_file(to_torch(repmix, level), path)
    weights = read_weights(path, layout="repmix")
    assert weights.config.mix.level == level
    assert_equal(weights.variables, repmix)


def test_the_bench_keeps_its_function_under_other_labels(tmp_path, repmix):
    """Its first class goes with the probability of real; its last one is `real`."""
    path = tmp_path / "ckpt_best.pth"
    state_dict = to_torch(repmix)
    save_zip(path, {"model_state_dict": state_dict, "epoch": 9})
    weights = read_weights(path)
    assert weights.provenance["layout"] == "image_attribution_bench"
    assert any("relabelled" in note for note in weights.provenance["notes"])
    assert weights.source_names == ("real", "source1", "source2", "source3")
    assert weights.config.model.gated_source == 1
    head = weights.variables["params"]["attribution"]
    assert (head["bias"] == state_dict["attribution.bias"][[3, 0, 1, 2]]).all()
    order = (3, 0, 1, 2)
    back = to_torch(weights.variables, class_order=order)
    for name, value in state_dict.items():
        np.testing.assert_array_equal(back[name], value)
    named = read_weights(path, sources=("a", "b", "c", "real"))
    assert named.source_names == ("real", "a", "b", "c")


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_imagenet_weights(tmp_path, imagenet, suffix):
    path = tmp_path / f"resnet18.{suffix}"
    state_dict = to_imagenet(imagenet)
    save = (
        save_zip if suffix == "pth" else lambda p, c: safetensors.numpy.save_file(c, p)
    )
    save(path, state_dict)
    weights = read_weights(path)
    assert_equal(weights.variables, imagenet)
    assert (weights.config.model.arch, weights.config.model.input) == (
        "resnet18",
        "imagenet",
    )
    assert weights.source_names == ()
    names = set(to_imagenet(imagenet))
    assert {"conv1.weight", "layer2.0.downsample.1.running_var", "fc.bias"} < names


@pytest.mark.parametrize("library", ["torchvision", "timm"])
def test_imagenet_logits_are_those_of_the_library(library, tmp_path):
    torch = pytest.importorskip("torch")
    pytest.importorskip(library)
    if library == "timm":
        import timm

        network = timm.create_model("resnet18").eval()
    else:
        import torchvision

        network = torchvision.models.resnet18().eval()
    for name, value in network.named_buffers():
        if name.endswith(("mean", "var")):
            value.uniform_(0.5, 1.5)
    path = tmp_path / "resnet18.pth"
    torch.save(network.state_dict(), path)
    model = rmjax.load_pretrained(path, num_devices=1)
    model.config.data.eval_resize = 0
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    inputs = (images / 255 - IMAGENET_MEAN) / IMAGENET_STD
    with torch.inference_mode():
        expected = network(torch.tensor(inputs.transpose(0, 3, 1, 2)).float()).numpy()
    logits = model.embed(list(images), layer="embedding")
    assert np.abs(logits - expected).max() < 1e-4 * np.abs(expected).max()
    back = to_imagenet(jax.device_get(model.variables))
    for name, value in network.state_dict().items():
        np.testing.assert_array_equal(back[name], value.numpy())


def test_wrapped_and_prefixed_names(tmp_path, imagenet):
    path = tmp_path / "checkpoint.pth"
    state_dict = to_imagenet(imagenet)
    named = {f"module._orig_mod.{k}": v for k, v in state_dict.items()}
    save_zip(path, {"model": named, "epoch": 3})
    weights = read_weights(path)
    assert_equal(weights.variables, imagenet)
    assert "epoch" in weights.provenance["left_out"]
    save_zip(path, {"net": state_dict})
    with pytest.raises(InputError, match="neither a ResNet .* but net"):
        read_weights(path)


def test_a_bare_state_dict_must_say_whose_it_is(tmp_path, repmix):
    path = tmp_path / "w.safetensors"
    safetensors.numpy.save_file(to_torch(repmix), path)
    with pytest.raises(InputError, match="give --layout repmix or image_attribution_b"):
        read_weights(path)


def changed(state_dict, **changes):
    return {k: v for k, v in {**state_dict, **changes}.items() if v is not None}


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"detection.bias": None}, {}, "missing: detection.bias"),
        ({"extra": np.ones(2, "f4")}, {}, "unexpected: extra"),
        ({"detection.bias": np.ones(3, "f4")}, {}, r"detection.bias is \[3\], not"),
        ({"detection.bias": np.ones(2, int)}, {}, "no finite floats: detection.bias"),
        ({"detection.bias": np.array([1, np.nan], "f4")}, {}, "no finite floats: det"),
        ({f"{i}": np.ones(1, "f4") for i in range(99)}, {}, "13, 14, 15, and 91 more"),
        ({}, {"sources": ("real", "a")}, "give 4 different ones in the file's order"),
        ({}, {"sources": ("a", "b", "c", "real")}, "'real' first"),
        ({}, {"layout": "torch"}, "choose auto, imagenet, repmix"),
        ({}, {"layout": "imagenet"}, "missing: bn1.bias, "),
    ],
)
def test_strictness(tmp_path, repmix, changes, options, message):
    path = tmp_path / "w.safetensors"
    state_dict = changed(to_torch(repmix), **changes)
    safetensors.numpy.save_file(state_dict, path)
    with pytest.raises(InputError, match=message) as error:
        read_weights(path, **{"layout": "repmix"} | options)
    assert "\n" not in str(error.value)


def test_hyperparameters_that_contradict_the_names(tmp_path, repmix):
    path = tmp_path / "last.ckpt"
    for hyper, message in (
        ({"mixup_level": 2}, "say mix level 2, the names 5"),
        ({"img_mean": [0.4, 0.5, 0.5]}, "its input .* is none of rgb"),
        ({"img_mean": 0.5}, "hyper_parameters of a wrong type"),
        ({"img_csize": None}, "hyper_parameters of a wrong type"),
        ("none", "hyper_parameters of a wrong type"),
    ):
        save_zip(path, {"state_dict": to_torch(repmix), "hyper_parameters": hyper})
        with pytest.raises(InputError, match=message):
            read_weights(path)


def test_converted_weights_are_a_run(tmp_path, lightning, repmix, capsys):
    out = tmp_path / "converted"
    arguments = ["convert", str(lightning), "--out", str(out)]
    change = "--config.data.name=attribution88/full"
    assert main([*arguments, "--sources", "real,a,b,c", change]) == 0
    printed = capsys.readouterr().out
    assert "sources:  real, a, b, c" in printed and "optimizer_states" in printed
    model = rmjax.load(out, num_devices=1)
    assert model.source_names == ("real", "a", "b", "c")
    assert model.config.data.name == "attribution88/full"
    assert_equal(jax.device_get(model.variables), repmix)
    assert model.provenance == json.loads((out / "run.json").read_text())["provenance"]
    assert len(model.provenance["sha256"]) == 64
    assert main(arguments) == 2
    assert "exists" in capsys.readouterr().err
    changed = [*arguments[:-1], str(tmp_path / "other"), "--config.model.arch=resnet50"]
    assert main(changed) == 2
    assert "another network than the file holds" in capsys.readouterr().err
    with pytest.raises(InputError, match="no readable .pth"):
        convert(out / "run.json", tmp_path / "second")
    assert [path.name for path in tmp_path.iterdir()] == ["converted"]


def test_weights_that_are_not_finite_are_refused(tmp_path, lightning, monkeypatch):
    weights = read_weights(lightning)
    head = weights.variables["params"]["detection"]
    head["bias"] = head["bias"] * np.nan
    monkeypatch.setattr(conversion, "read_weights", lambda *_, **__: weights)
    with pytest.raises(InputError, match="params/detection/bias is not finite"):
        convert(lightning, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_bare_backbone_embeds_and_says_that_it_knows_no_sources(tmp_path, imagenet):
    path = tmp_path / "resnet18.pth"
    save_old(path, to_imagenet(imagenet))
    model = rmjax.load_pretrained(path, num_devices=1)
    images = [np.zeros((32, 32, 3), np.uint8)] * 2
    with pytest.raises(InputError, match="resnet18.pth knows no sources"):
        model.predict(images)
    model.config.data.eval_resize = 0
    assert model.embed(images).shape == (2, 512)
    with pytest.raises(InputError, match="choose from .*layer1, layer2"):
        model.embed(images, layer="layer9")


def test_training_starts_from_a_run(small_run):
    config = load_run_config(small_run)
    config.model.init = str(small_run)
    taken = starting_backbone(config)
    model = build_model(config, len(load_source_names(small_run)))
    shape = network_input(config).shape[1:]
    state = create_state(model, optax.adam(1e-3), 1, shape, taken)
    trained = rmjax.load(small_run, num_devices=1).variables
    assert_equal(state.params["backbone"], trained["params"]["backbone"])
    assert_equal(state.batch_stats, trained["batch_stats"])
    for head in ("attribution", "detection"):
        old, new = (p[head]["kernel"] for p in (trained["params"], state.params))
        assert old.shape == new.shape and (old != new).mean() > 0.99
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(state.opt_state))


def test_the_embedding_of_another_size_is_new(small_run):
    config = load_run_config(small_run)
    config.model.init = str(small_run)
    config.model.embedding_dim = 32
    assert "embedding" not in starting_backbone(config)["params"]["backbone"]
    assert "layer4" in starting_backbone(config)["params"]["backbone"]


def test_a_start_from_imagenet_leaves_the_classifier(tmp_path, imagenet):
    path = tmp_path / "resnet18.pth"
    save_zip(path, to_imagenet(imagenet))
    config = load_config("repmix", [f"--config.model.init={path}"])
    config.model.embedding_dim = 10  # as many as the classifier has classes
    with pytest.raises(InputError, match="holds a resnet18, but model.arch = resnet50"):
        starting_backbone(config)
    config.model.arch = "resnet18"
    taken = starting_backbone(config)
    assert sorted(taken["params"]["backbone"]) == sorted(("stem", *STAGES[1:5]))
    config.model.input = "dcthist"
    with pytest.raises(InputError, match="not the channels of model.input = dcthist"):
        starting_backbone(config)
    config.model.init = str(tmp_path / "none.pth")
    with pytest.raises(InputError, match="model.init: .*none.pth: No such file"):
        starting_backbone(config)
