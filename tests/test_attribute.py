"""Answers about single images, from Python and from the command line."""

import io
import json
import os
import shutil
import zlib
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

import rmjax
from rmjax.cli.main import main
from rmjax.data import images
from rmjax.errors import InputError
from rmjax.experiment.data import open_data
from rmjax.gallery import ask
from rmjax.gallery.attribute import attribute_by_gallery
from rmjax.gallery.search import UNKNOWN
from rmjax.gallery.store import load_gallery, save_gallery
from rmjax.inference.attribute import VIEWS, attribute, describe_model
from rmjax.inference.calibration import Calibration, save_calibration
from rmjax.inference.domain import describe_training, warn_about


@pytest.fixture(scope="module")
def model(small_run):
    return rmjax.load(small_run, num_devices=1)


@pytest.fixture(scope="module")
def encoded(model):
    data = open_data(model.config)
    return [data.dataset.records("test")[i]["image"] for i in range(3)]


@pytest.fixture
def paths(encoded, tmp_path):
    found = []
    for number, image in enumerate(encoded):
        found.append(tmp_path / f"{number}.png")
        found[-1].write_bytes(image)
    return found


def calibrated(model, low, high, reject=0.0):
    """The model with operating points, and temperatures that are not 1."""
    points = tuple({"fpr": f, "threshold": t} for f, t in ((0.05, low), (0.01, high)))
    calibration = Calibration(
        images=9,
        attribution=2.0,
        detection=0.5,
        reject={"threshold": reject},
        operating_points=points,
    )
    return replace(model, calibration=calibration)


def test_an_answer_is_what_the_network_predicts(model, paths):
    network = calibrated(model, 0.5, 0.5)
    said = list(attribute(network, paths))
    expected = network.predict(paths)
    assert [s["image"] for s in said] == [str(path) for path in paths]
    for number, answer in enumerate(said):
        chance = expected["detection"][number, 1]
        assert answer["synthetic"] == pytest.approx(chance, abs=1e-4)
        names, chances = zip(*answer["sources"], strict=True)
        assert names[0] == expected["source"][number]
        assert list(chances) == sorted(chances, reverse=True)
        assert sum(chances) == pytest.approx(1) and set(names) == set(
            model.source_names
        )
        is_synthetic, is_real = chance >= 0.5, names[0] == "real"
        if is_synthetic == is_real:
            assert answer["answer"] == "inconclusive"
            assert "detection says" in answer["reason"]
        else:
            assert answer["answer"] == names[0]
        assert answer["provenance"]["c2pa"]["found"] is False
    json.dumps(said, allow_nan=False)


def test_operating_points_decide(model, paths):
    """Between them nothing is concluded; below the rejection nothing is known."""
    for network, expected in (
        (calibrated(model, 0.0, 1.1), "inconclusive"),
        (calibrated(model, -1.0, -0.5, reject=1.1), "unknown"),
        (calibrated(model, 1.1, 1.2, reject=1.1), "unknown"),
    ):
        for said in attribute(network, paths):
            assert said["answer"] == expected
            assert said["stability"] == 1.0


def test_views_are_of_the_image_shared_once_more(model, paths):
    said = next(attribute(model, paths[:1]))
    assert [view["view"] for view in said["views"]] == list(VIEWS)
    pixels = np.asarray(Image.open(paths[0]))
    coded = io.BytesIO()
    Image.fromarray(pixels).save(coded, "JPEG", quality=75, subsampling="4:2:0")
    for name, view in (("flip", pixels[:, ::-1]), ("jpeg:75", coded.getvalue())):
        chance = model.predict([view])["detection"][0, 1]
        found = next(v for v in said["views"] if v["view"] == name)
        assert found["synthetic"] == pytest.approx(chance, abs=1e-3)
    agreeing = [view["answer"] == said["answer"] for view in said["views"]]
    assert said["stability"] == np.mean(agreeing)


def test_one_image_or_many_get_the_same_answers(model, paths):
    together = list(attribute(model, paths * 5))
    for number, path in enumerate(paths):
        alone = next(attribute(model, [path]))
        assert together[number]["answer"] == alone["answer"]
        assert together[number]["synthetic"] == pytest.approx(
            alone["synthetic"], abs=1e-4
        )


def test_a_training_remembers_what_its_images_were_like(model, small_run, mini_dir):
    assert model.training == describe_training(open_data(model.config).seen)
    assert model.training["formats"] == {"PNG": model.training["images"]}
    assert model.training["shorter_side"] == [32, 32]
    assert model.training["jpeg_quality"] is None


def test_training_image_without_a_codec_is_named(model, monkeypatch):
    """As an AVIF file is, where Pillow was built without that."""
    monkeypatch.setattr(images, "FORMATS", ("JPEG",))
    selection = open_data(model.config).seen
    with pytest.raises(InputError, match="png: not an image of a known format"):
        describe_training(selection)


def encode(size, kind, **options):
    pixels = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def test_warnings_name_what_lies_outside_of_training(model):
    def warned(data):
        return warn_about(data, model.read(data).shape[:2], model)

    assert warned(encode((32, 32), "PNG")) == []
    large = warned(encode((200, 100), "PNG"))
    assert large == [
        "its shorter side is 100 px; trained on 32 px",
        "only its middle is looked at, 5.1% of its area",
    ]
    assert warned(encode((32, 32), "JPEG", quality=20)) == [
        "a JPEG file; trained on PNG",
        "heavily compressed: JPEG quality 20",
    ]
    assert warned(encode((32, 32), "JPEG", quality=90)) == [
        "a JPEG file; trained on PNG"
    ]
    frame = Image.fromarray(np.zeros((32, 32, 3), np.uint8))
    other = Image.fromarray(np.full((32, 32, 3), 255, np.uint8))
    file = io.BytesIO()
    frame.save(file, "GIF", save_all=True, append_images=[other])
    assert "several pictures or frames: only the first is looked at" in warned(
        file.getvalue()
    )
    unknown = replace(model, training=None)
    data = encode((32, 32), "PNG")
    assert warn_about(data, (32, 32), unknown) == [
        "what the network was trained on is not known"
    ]


def test_provenance_is_reported_before_pixels(model, tmp_path):
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", "a cat\nSteps: 20, Sampler: Euler, CFG scale: 7")
    path = tmp_path / "a.png"
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(path, pnginfo=info)
    said = next(attribute(model, [path]))
    (finding,) = said["provenance"]["metadata"]
    assert finding["kind"] == "generator" and "parameters" in finding["where"]
    assert list(said).index("provenance") < list(said).index("answer")
    assert not any("evidence" in line for line in said["file"])
    assert "evidence of nothing" in said["provenance"]["caveat"]


@pytest.fixture
def bad_files(tmp_path):
    """Files that can't be answered, with a word of the reason."""
    good = encode((64, 64), "PNG")
    header = bytearray(encode((8, 8), "PNG"))
    header[16:24] = (30_000).to_bytes(4, "big") * 2
    header[29:33] = zlib.crc32(header[12:29]).to_bytes(4, "big")
    contents = {
        "text.png": (b"no image at all", "not an image"),
        "empty.png": (b"", "not an image"),
        "cut.png": (good[: len(good) // 2], "unreadable image"),
        "dot.png": (encode((1, 1), "PNG"), "too small"),
        "huge.png": (bytes(header), "more than the 100,000,000 pixels"),
        "red\x1b[31m\nline.png": (b"", "not an image"),
    }
    found = {}
    for name, (data, reason) in contents.items():
        (tmp_path / name).write_bytes(data)
        found[tmp_path / name] = reason
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "dangling.png").symlink_to(tmp_path / "gone.png")
    found |= {
        tmp_path / "folder.png": "Is a directory",
        tmp_path / "dangling.png": "No such file",
    }
    if os.geteuid():  # root may read anything
        (tmp_path / "secret.png").write_bytes(good)
        (tmp_path / "secret.png").chmod(0)
        found[tmp_path / "secret.png"] = "Permission denied"
    return found


def test_bad_files_get_a_line_each_and_the_others_go_on(
    small_run, paths, bad_files, tmp_path, capsys
):
    cmyk = tmp_path / "cmyk.jpg"
    Image.new("CMYK", (40, 40), (10, 200, 30, 0)).save(cmyk)
    named = tmp_path / "fine\x1b[31m.png"
    named.write_bytes(encode((32, 32), "PNG"))
    given = [*bad_files, paths[0], cmyk, named]
    arguments = ["attribute", "--workdir", str(small_run), *map(str, given)]
    assert main(arguments) == 1
    printed = capsys.readouterr()
    lines = printed.err.strip().splitlines()
    assert len(lines) == len(bad_files)
    for line, (path, reason) in zip(lines, bad_files.items(), strict=True):
        name = str(path).replace("\x1b", "\ufffd").replace("\n", "\ufffd")
        assert line.startswith(f"rmjax attribute: {name}: ") and reason in line
    for path in (paths[0], cmyk):
        assert f"{path}\n" in printed.out
    assert printed.out.count("  answer ") == 3 and "\x1b" not in printed.out
    for word in ("not calibrated", "views agree", "C2PA manifest: not found"):
        assert word in printed.out


def test_json_is_for_scripts(small_run, model, paths, capsys):
    arguments = ["attribute", "--workdir", str(small_run), "--json"]
    assert main([*arguments, *map(str, paths)]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["model"] == describe_model(model)
    assert document["model"]["sha256"] == model.digest
    assert [image["image"] for image in document["images"]] == list(map(str, paths))
    assert main([*arguments, str(paths[0]), "gone.png"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["images"][1] == {
        "image": "gone.png",
        "error": "gone.png: No such file or directory",
    }


def test_calibration_of_the_run_counts(small_run, paths, tmp_path, capsys):
    workdir = shutil.copytree(small_run, tmp_path / "run")
    network = calibrated(rmjax.load(workdir, num_devices=1), 0.0, 1.1)
    save_calibration(workdir, network.checkpoint, network.calibration)
    assert main(["attribute", "--workdir", str(workdir), str(paths[0])]) == 0
    printed = capsys.readouterr().out
    assert "between the operating points 0.000 and 1.100" in printed
    assert "(calibrated)" in printed


def test_a_very_long_image_is_not_blown_up(model):
    strip = np.zeros((16, 40_000, 3), np.uint8)
    model.config.data.eval_resize, before = 64, model.config.data.eval_resize
    try:
        assert model.read(strip).shape == (32, 32, 3)
    finally:
        model.config.data.eval_resize = before


def test_a_long_image_is_answered_and_a_large_one_is_not_kept(model, tmp_path):
    """JPEG, one of the views, holds no side of 70,000 pixels."""
    path = tmp_path / "long.png"
    Image.new("RGB", (70_000, 16)).save(path)
    assert next(attribute(model, [path]))["answer"]
    seen = model.read(np.zeros((500, 400, 3), np.uint8))
    assert seen.shape == (32, 32, 3) and seen.base is None


def test_without_sources_there_is_no_answer_but_by_a_gallery(model):
    bare = replace(model, source_names=())
    with pytest.raises(InputError, match="knows no sources"):
        next(attribute(bare, ["a.png"]))


@pytest.fixture(scope="module")
def asker(fingerprint_run, encoded, tmp_path_factory):
    """A gallery of a network without sources: each image's twin, a little brighter."""
    network = rmjax.load(fingerprint_run, num_devices=1)
    folder = tmp_path_factory.mktemp("twins")
    made = ask.new_gallery(network)
    for number, image in enumerate(encoded):
        pixels = Image.open(io.BytesIO(image)).convert("RGB")
        files = [folder / f"{number}-{i}.png" for i in range(2)]
        for i, file in enumerate(files):
            pixels.point(lambda value, i=i: min(value + i + 1, 255)).save(file)
        name = "real" if number == 0 else f"gen{number}"
        made = ask.enrol_files(made, network, name, files)
    save_gallery(folder / "gallery", made)
    return ask.load_asker(folder / "gallery", network)


def test_a_gallery_answers_for_a_network_without_sources(asker, paths):
    """As the gallery does, with what `attribute` says of the file and of views."""
    # Images that lie on the threshold itself fall to either side in batches of other sizes.
    lower = replace(asker.threshold, value=asker.threshold.value - 1e-3)
    asker = replace(asker, threshold=lower)
    said = list(attribute_by_gallery(asker, [*paths, "gone.png"], top=2))
    asked = asker.ask(ask.read_images(asker.model, paths).pixels, top=2)
    for answer, expected, path in zip(said, asked, paths, strict=False):
        assert answer["image"] == str(path) and answer["answer"] == expected["answer"]
        for row, other in zip(answer["ranked"], expected["ranked"], strict=True):
            assert row["generator"] == other["generator"]
            assert row["similarity"] == pytest.approx(other["similarity"], abs=1e-4)
        assert len(answer["ranked"]) == 2 and answer["warnings"] == []
        assert answer["provenance"]["c2pa"]["found"] is False
        assert [view["view"] for view in answer["views"]] == list(VIEWS)
        agreeing = [view["answer"] == answer["answer"] for view in answer["views"]]
        assert answer["stability"] == np.mean(agreeing)
        assert not {"synthetic", "sources"} & set(answer)
    assert said[-1] == {
        "image": "gone.png",
        "error": "gone.png: No such file or directory",
    }
    flipped = np.asarray(Image.open(paths[0]))[:, ::-1]
    (alone,) = asker.ask([asker.model.read(flipped)])
    similarity = said[0]["views"][0]["similarity"]
    assert similarity == pytest.approx(alone["ranked"][0]["similarity"], abs=1e-4)
    json.dumps(said, allow_nan=False)


def test_what_is_near_is_the_threshold_s_to_say(asker, paths):
    for value, answers, words in (
        (None, ["real", "gen1", "gen2"], "nothing was measured by which to reject"),
        (2.0, [UNKNOWN] * 3, "under 2.000"),
        (-1.0, ["real", "gen1", "gen2"], "from -1.000 on"),
    ):
        strict = replace(asker, threshold=replace(asker.threshold, value=value))
        said = list(attribute_by_gallery(strict, paths))
        assert [answer["answer"] for answer in said] == answers
        assert all(words in answer["reason"] for answer in said)
        if value == 2.0:
            assert all(answer["stability"] == 1 for answer in said)


def test_without_a_workdir_a_gallery_is_asked(paths, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.png").write_bytes(b"no image")

    def fails(arguments, *words):
        assert main(["attribute", *arguments]) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert line.startswith("rmjax attribute: error: ")
        assert all(word in line for word in words)

    first = str(paths[0])
    fails([first], "no gallery in gallery", "rmjax gallery add NAME IMAGE...")
    assert main(["gallery", "add", "camera", first]) == 0
    capsys.readouterr()
    assert main(["attribute", first, "bad.png"]) == 1
    printed = capsys.readouterr()
    assert printed.err.splitlines() == [
        "rmjax attribute: bad.png: not an image of a known format"
    ]
    for words in ("answer     camera (", "nothing was measured", "camera 1.000"):
        assert words in printed.out
    for words in ("no threshold", "Network: fingerprint", "C2PA manifest: not found"):
        assert words in printed.out
    for word in ("real", "synthetic"):
        assert word not in printed.out.replace(str(tmp_path), "")

    assert main(["attribute", "--json", "--gallery", "gallery", first]) == 0
    document = json.loads(capsys.readouterr().out)
    assert set(document) == {"model", "gallery", "images"}
    assert document["model"] == describe_model(rmjax.load())
    assert set(document["model"]) == set(
        "name checkpoint sha256 rmjax provenance".split()
    )
    assert document["gallery"]["generators"] == document["gallery"]["images"] == 1
    assert document["gallery"]["threshold"]["value"] is None
    fails(["--gallery", "elsewhere", first], "no gallery in elsewhere")
    made = load_gallery(tmp_path / "gallery")
    save_gallery(tmp_path / "gallery", replace(made, network="another"))
    fails([first], "of another network")


def test_a_gallery_is_not_for_a_network_with_sources(small_run, paths, capsys):
    given = ["--workdir", str(small_run), "--gallery", "gallery", str(paths[0])]
    assert main(["attribute", *given]) == 2
    assert "rmjax gallery query" in capsys.readouterr().err
