"""Loading a run in five lines of Python and asking it about images."""

import io
import shutil

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy.special import softmax

import rmjax
from rmjax.errors import InputError
from rmjax.evaluation.predict import make_runner
from rmjax.experiment.data import open_data
from rmjax.inference.attributor import decode
from rmjax.inference.calibration import Calibration, save_calibration


@pytest.fixture(scope="module")
def model(small_run):
    return rmjax.load(small_run)


@pytest.fixture(scope="module")
def records(model):
    """Encoded bytes of the seen test images, and what evaluation says of them."""
    data = open_data(model.config)
    runner = make_runner(model.config, len(data.sources), model.devices)
    predictions = runner.predict(model.variables, (data.seen, ("test",)))
    source = data.dataset.records("test")
    return [source[int(i)]["image"] for i in predictions.index], predictions


def test_embeds_what_evaluation_saw(model, records):
    encoded, predictions = records
    fingerprints = model.embed(encoded)
    assert fingerprints.shape == (len(encoded), 256)
    np.testing.assert_allclose(fingerprints, predictions.embedding, atol=1e-4)


def test_names_the_most_probable_source(model, records):
    encoded, predictions = records
    answer = model.predict(encoded[:10])
    expected = predictions.attribution[:10].argmax(1)
    assert list(answer["source"]) == [model.source_names[i] for i in expected]
    np.testing.assert_allclose(answer["attribution"].sum(1), 1, rtol=1e-5)
    np.testing.assert_allclose(answer["detection"].sum(1), 1, rtol=1e-5)


def test_probabilities_are_calibrated_once_the_run_is(
    model, records, small_run, tmp_path
):
    encoded, predictions = records
    workdir = shutil.copytree(small_run, tmp_path / "run")
    calibration = Calibration(images=5, attribution=2.0, detection=0.5)
    save_calibration(workdir, model.checkpoint, calibration)
    plain = rmjax.load(small_run).predict(encoded[:4])
    answer = rmjax.load(workdir).predict(encoded[:4])
    assert answer["calibrated"] and not plain["calibrated"]
    for name, temperature in (("attribution", 2.0), ("detection", 0.5)):
        logits = getattr(predictions, name)[:4]
        expected = softmax(logits / temperature, axis=-1)
        np.testing.assert_allclose(answer[name], expected, atol=1e-5)
        np.testing.assert_allclose(plain[name], softmax(logits, -1), atol=1e-5)


def test_paths_bytes_and_arrays_are_the_same_images(model, records, tmp_path):
    encoded = records[0][0]
    path = tmp_path / "image.png"
    path.write_bytes(encoded)
    pixels = np.asarray(Image.open(io.BytesIO(encoded)))
    embeddings = model.embed([encoded, path, str(path), pixels])
    np.testing.assert_array_equal(embeddings, embeddings[:1].repeat(4, 0))


def test_other_holders_of_the_same_image(model, records, tmp_path):
    encoded = records[0][0]
    pixels = np.asarray(Image.open(io.BytesIO(encoded)))
    holders = [encoded, bytearray(encoded), memoryview(encoded), io.BytesIO(encoded)]
    holders += [jnp.asarray(pixels), Image.fromarray(pixels)]
    (tmp_path / "image.png").write_bytes(encoded)
    with open(tmp_path / "image.png", "rb") as file:
        embeddings = model.embed([*holders, Image.open(io.BytesIO(encoded)), file])
    np.testing.assert_array_equal(embeddings, embeddings[:1].repeat(8, 0))
    np.testing.assert_array_equal(model.embed(iter(holders[4:])), embeddings[:2])


def _pictures():
    """Yield modes and what Pillow saves an image in that mode with."""
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (24, 40, 4), np.uint8))
    for mode in ("RGB", "L", "1", "LA", "P", "RGBA"):
        yield image.convert(mode), "PNG", {}
    yield image.convert("P"), "PNG", {"transparency": 7}
    yield image.convert("RGB"), "PNG", {"transparency": (1, 2, 3)}
    yield Image.fromarray(rng.integers(0, 65536, (24, 40), np.uint16)), "PNG", {}
    yield Image.fromarray(rng.random((24, 40), np.float32)), "TIFF", {}
    yield image.convert("CMYK"), "JPEG", {}
    yield image.convert("YCbCr"), "JPEG", {}
    exif = Image.Exif()
    exif[0x0112] = 6
    for fmt in ("PNG", "JPEG", "TIFF", "WEBP"):
        yield image.convert("RGB"), fmt, {"exif": exif}


@pytest.mark.parametrize(("image", "fmt", "options"), list(_pictures()))
def test_an_image_of_pillow_is_read_as_its_file(image, fmt, options):
    stream = io.BytesIO()
    image.save(stream, fmt, **options)
    opened = Image.open(stream)
    exif = opened.info.get("exif")
    expected = decode(stream.getvalue())
    np.testing.assert_array_equal(decode(opened), expected)
    np.testing.assert_array_equal(decode(opened), expected)
    assert opened.info.get("exif") == exif
    if fmt != "JPEG" and not options:
        np.testing.assert_array_equal(decode(image), expected)


def test_a_closed_image_of_pillow_is_refused(records, tmp_path):
    (tmp_path / "image.png").write_bytes(records[0][0])
    with Image.open(tmp_path / "image.png") as image:
        pass
    with pytest.raises(InputError, match="image: unreadable image"):
        decode(image)


@pytest.mark.parametrize(
    ("image", "what"),
    [
        (None, "NoneType"),
        (3, "int"),
        ([[0]], "list"),
        (io.StringIO("text"), "str"),
        (np.zeros((20, 20), np.uint8), r"uint8 \[20, 20\] \(ndarray\)"),
        (np.zeros((20, 20, 4), np.uint8), r"uint8 \[20, 20, 4\]"),
        (np.zeros((20, 20, 3)), r"float64 \[20, 20, 3\]"),
        (jnp.zeros((20, 20, 3)), r"float32 \[20, 20, 3\] \(ArrayImpl\)"),
    ],
)
def test_what_is_no_image_is_named_with_its_type(model, image, what):
    with pytest.raises(InputError, match=what) as error:
        model.embed([image])
    assert "image 0: " in str(error.value) and "uint8" in str(error.value)


@pytest.mark.parametrize(
    "images",
    [None, Image.new("RGB", (32, 32)), b"", np.zeros((32, 32, 3), np.uint8), {}],
)
def test_one_image_is_no_list(model, images):
    with pytest.raises(InputError, match="list of images"):
        model.embed(images)


def test_sizes_may_differ_within_one_call(model, records):
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (20, 28, 3), np.uint8)
    large = rng.integers(0, 256, (70, 50, 3), np.uint8)
    together = model.embed([large, small, large])
    alone = model.embed([small])
    np.testing.assert_allclose(together[1:2], alone, atol=1e-5)
    np.testing.assert_allclose(together[0], together[2], atol=1e-6)
    # Of a large image the middle counts, as in evaluation.
    centre = model.embed([large[19:51, 9:41]])
    np.testing.assert_allclose(together[:1], centre, atol=1e-5)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([], "no images given"),
        ("a.png", "give a list of images"),
        (["missing.png"], "missing.png: No such file"),
        ([b"not an image"], "image"),
        ([np.zeros((8, 8), np.uint8)], r"uint8 \[H, W, 3\], not uint8 \[8, 8\]"),
        ([np.zeros((8, 8, 3))], "not float64"),
    ],
)
def test_what_cannot_be_read_is_named(model, images, message):
    with pytest.raises(InputError, match=message):
        model.embed(images)
