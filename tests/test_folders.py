"""Folders of vision transformers as the Hub has them: formats, preprocessing, bad input."""

import json
import shutil

import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from conftest import SHARED
from PIL import Image
from torch_files import Call, save_zip

import rmjax
from rmjax.cli.main import main
from rmjax.errors import InputError
from rmjax.inference.attributor import resize_and_cut
from rmjax.pretrained.families import FAMILIES, structure_of
from rmjax.pretrained.weights import read_weights

REFERENCES = SHARED / "golden" / "vit"
WEIGHTS = "model.safetensors"


@pytest.fixture
def copy(tmp_path):
    """Function from a published model's name to a copy of its folder, to be changed."""
    if not REFERENCES.is_dir():
        pytest.skip(f"no published models at {REFERENCES}")

    def make(name):
        folder = tmp_path / name
        folder.mkdir()
        for file in ("config.json", WEIGHTS):
            shutil.copyfile(REFERENCES / name / file, folder / file)
        return folder

    return make


def tensors_of(folder):
    return safetensors.numpy.load_file(folder / WEIGHTS)


def save(folder, tensors, name=WEIGHTS):
    safetensors.numpy.save_file(tensors, folder / name)


def change(folder, file="config.json", **values):
    path = folder / file
    given = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(given | values))


def leaves(folder):
    return jax.tree.leaves(read_weights(folder).variables)


def assert_same(found, expected, rtol=0.0):
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == np.float32
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol)


def test_shards_and_pickles_hold_the_same(copy):
    folder = copy("dinov2")
    whole, tensors = leaves(folder), tensors_of(folder)
    (folder / WEIGHTS).unlink()
    names = sorted(tensors)
    weight_map = {name: f"model-{i % 3}.safetensors" for i, name in enumerate(names)}
    for shard in set(weight_map.values()):
        save(folder, {n: tensors[n] for n in names if weight_map[n] == shard}, shard)
    index = folder / f"{WEIGHTS}.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    assert_same(leaves(folder), whole)
    for file in folder.glob("model*"):
        file.unlink()
    save_zip(folder / "pytorch_model.bin", tensors)
    assert_same(leaves(folder), whole)


@pytest.mark.parametrize(
    ("dtype", "rtol"), [(np.float16, 1e-3), (ml_dtypes.bfloat16, 1e-2)]
)
def test_half_precision_is_widened(copy, dtype, rtol):
    folder = copy("siglip")
    whole, tensors = leaves(folder), tensors_of(folder)
    save(folder, {name: value.astype(dtype) for name, value in tensors.items()})
    assert_same(leaves(folder), whole, rtol)


def test_a_whole_two_tower_file_gives_the_vision_tower_and_says_what_is_left(copy):
    alone, both = read_weights(copy("clip")), read_weights(copy("clip_full"))
    assert_same(*(jax.tree.leaves(w.variables) for w in (both, alone)))
    assert {"text_model", "logit_scale"} <= set(both.provenance["left_out"])
    assert alone.provenance["left_out"] == []


@pytest.mark.parametrize(
    ("model_type", "sizes"),
    [
        ("clip", (768, 12, 12, 3072, 32, 7)),
        ("siglip", (768, 12, 12, 3072, 16, 14)),
        ("dinov2", (768, 12, 12, 3072, 14, 16)),
        ("dinov3_vit", (384, 12, 6, 1536, 16, 14)),
    ],
)
def test_keys_that_a_config_leaves_out_are_the_publishers_defaults(model_type, sizes):
    """Google's SigLIP files say no more of the vision tower than its type."""
    found = structure_of(FAMILIES[model_type], {})
    keys = ("width", "depth", "heads", "mlp", "patch", "grid")
    assert tuple(found[key] for key in keys) == sizes


def test_a_converted_folder_says_the_same_and_keeps_its_preprocessing(copy, tmp_path):
    folder = copy("clip")
    seen = {"size": {"shortest_edge": 72}, "crop_size": {"height": 64, "width": 64}}
    seen |= {"do_center_crop": True, "resample": 3, "rescale_factor": 1 / 255}
    means = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.25]}
    change(folder, "preprocessor_config.json", **seen, **means)
    out = tmp_path / "run"
    assert main(["convert", str(folder), "--out", str(out)]) == 0
    model, direct = rmjax.load(out), rmjax.load_pretrained(folder)
    image = np.random.default_rng(0).integers(0, 256, (100, 140, 3), np.uint8)
    fingerprint = model.embed([image])
    assert fingerprint.shape == (1, 48)
    np.testing.assert_array_equal(fingerprint, direct.embed([image]))
    # By hand, with Pillow: what the file says, then the network.
    pixels = Image.fromarray(image).resize((100, 72), Image.Resampling.BICUBIC)
    pixels = np.asarray(pixels)[4:68, 18:82] / 255
    pixels = (pixels - means["image_mean"]) / means["image_std"]
    expected = model.model.apply(model.variables, pixels[None].astype(np.float32))
    np.testing.assert_allclose(
        fingerprint, expected["image_embeds"], rtol=1e-4, atol=1e-5
    )
    tokens = model.embed([image], layer="hidden_2")
    np.testing.assert_allclose(
        tokens, expected["hidden_2"].mean(1), rtol=1e-4, atol=1e-4
    )


def test_both_sides_are_resized_where_the_file_says_so(copy):
    folder = copy("siglip")
    size = {"height": 64, "width": 64}
    change(folder, "preprocessor_config.json", size=size, resample=2)
    image = np.random.default_rng(0).integers(0, 256, (100, 140, 3), np.uint8)
    found = resize_and_cut(image, read_weights(folder).config.data)
    expected = Image.fromarray(image).resize((64, 64), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(found, expected)


def without(name):
    def spoil(folder):
        save(folder, {k: v for k, v in tensors_of(folder).items() if k != name})

    return spoil


def with_(name, value):
    def spoil(folder):
        save(folder, tensors_of(folder) | {name: value})

    return spoil


def configured(**values):
    return lambda folder: change(folder, **values)


def prepared(**values):
    return lambda folder: change(folder, "preprocessor_config.json", **values)


def text_alone(folder):
    kept = {k: v for k, v in tensors_of(folder).items() if k.startswith("text")}
    save(folder, kept)


def no_weights(folder):
    (folder / WEIGHTS).unlink()


def cut_short(folder):
    path = folder / WEIGHTS
    path.write_bytes(path.read_bytes()[:5000])


def malicious(folder):
    no_weights(folder)
    save_zip(folder / "pytorch_model.bin", {"x": Call("os.system", "true")})


def shard_elsewhere(folder):
    index = {"weight_map": {"x": f"../{folder.name}/{WEIGHTS}"}}
    shutil.move(folder / WEIGHTS, folder / "other.safetensors")
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps(index))


LAYER = "vision_model.encoder.layers.1.mlp.fc1"


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (configured(model_type="vit_mae"), "dinov3_vit"),  # the known are listed
        (configured(model_type="clip_text_model"), "text"),
        (configured(model_type=None), "model_type"),
        (configured(vision_config=3), "vision_config"),
        (configured(vision_config={"hidden_size": "64"}), "hidden_size"),
        (configured(vision_config={"hidden_act": "mish"}), "hidden_act"),
        (configured(vision_config={"num_channels": 4}), "num_channels"),
        (configured(vision_config={"hidden_size": 65}), "12 heads"),
        (without(f"{LAYER}.bias"), "mlp.fc1.bias"),
        (with_(f"{LAYER}.extra", np.zeros(3, np.float32)), "mlp.fc1.extra"),
        (with_(f"{LAYER}.bias", np.zeros(3, np.float32)), r"\[3\], not \[256\]"),
        (with_(f"{LAYER}.bias", np.full(256, np.nan, np.float32)), "no finite"),
        (with_(f"{LAYER}.bias", np.zeros(256, np.int64)), "no finite"),
        (without("vision_model.embeddings.class_embedding"), "class_embedding"),
        (text_alone, "text"),
        (no_weights, "no weights"),
        (cut_short, WEIGHTS),
        (malicious, "refused"),
        (shard_elsewhere, "not there"),
        (prepared(resample=5), "resample"),
        (prepared(size={"height": 64, "width": 32}), "size"),
        (prepared(size={"shortest_edge": "64"}), "size"),
        (prepared(do_rescale=False), "do_rescale"),
        (prepared(image_mean=[0.5]), "image_mean"),
        (prepared(image_std=[0.5, 0.5, 0]), "std"),
    ],
)
def test_bad_folders_are_named_in_one_line_and_leave_nothing(
    copy, tmp_path, capsys, spoil, said
):
    folder = copy("clip_full")
    spoil(folder)
    out = tmp_path / "out" / "run"
    assert main(["convert", str(folder), "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and folder.name in error
    with pytest.raises(InputError, match=said):
        rmjax.load_pretrained(folder)
    assert not out.exists() and not [*tmp_path.glob("out/.*")]


def test_an_unreadable_config_is_named(copy, capsys, tmp_path):
    folder = copy("clip")
    (folder / "config.json").write_text('{"model_type": ')
    assert main(["convert", str(folder), "--out", str(tmp_path / "run")]) == 2
    assert "config.json" in capsys.readouterr().err
