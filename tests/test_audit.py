"""The leakage audit: what it finds, what it leaves alone, what it refuses."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from rmjax.audit import audit as audits
from rmjax.audit.audit import CUES, audit, audit_cue
from rmjax.audit.report import audit_sentences, draw_audit, format_audit
from rmjax.cli.main import main
from rmjax.errors import InputError


def encode(pixels: np.ndarray, fmt: str, **options) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, fmt, **options)
    return stream.getvalue()


def make_rows(encoders: dict, count: int = 60, semantics=("cat", "dog")) -> list[dict]:
    """Rows of noise of the same statistics, each source with an encoder of its own.

    An encoder is a function of pixels and an image's number.
    """
    rng = np.random.default_rng(0)
    return [
        {
            "image": encoder(rng.integers(0, 256, (16, 16, 3), np.uint8), i),
            "source": source,
            "semantic": semantics[i % len(semantics)],
            "path": f"{source}/{i}",
            "split": "train" if i % 3 else "test",
        }
        for source, encoder in encoders.items()
        for i in range(count)
    ]


def bmp(pixels, i):
    return encode(pixels, "BMP")  # every file as long as every other


def leaking(results: dict) -> set[str]:
    return {name for name, found in results["cues"].items() if found["leaks"]}


def quiet(dataset, **options) -> dict:
    return audit(dataset, show_progress=False, **options)


@pytest.fixture
def only(monkeypatch):
    """Function of names: lets an audit look at these cues alone, to save time."""

    def restrict(*names):
        monkeypatch.setattr(audits, "CUES", {name: CUES[name] for name in names})

    return restrict


@pytest.fixture(scope="module")
def jpeg_rows():
    """One source of quality 75, another of 95, alike in all else."""
    return make_rows(
        {
            "real": lambda pixels, i: encode(pixels, "JPEG", quality=95),
            "gan": lambda pixels, i: encode(pixels, "JPEG", quality=75),
        }
    )


def test_another_jpeg_quality_is_found_out(memory_dataset, jpeg_rows):
    results = quiet(memory_dataset(jpeg_rows), folds=4)
    cues = results["cues"]
    assert leaking(results) == {"JPEG", "file size", "all"}
    assert cues["JPEG"]["balanced_accuracy"] == 1
    assert cues["JPEG"]["recall"] == {"real": 1, "gan": 1}
    assert cues["container"]["constant"] and cues["size"]["constant"]
    assert results["sources"] == {"real": 60, "gan": 60} and results["chance"] == 0.5
    text = format_audit(results)
    assert "WARNING: JPEG tells the source: 1.00 where chance is 0.50" in text
    assert "one and the same JPEG encoder" in text and "WARNING: size" not in text


def test_equal_everything_is_at_chance(memory_dataset):
    results = quiet(memory_dataset(make_rows({"real": bmp, "gan": bmp})), folds=4)
    cues = results["cues"]
    assert not leaking(results)
    for name in ("container", "size", "JPEG", "file size"):
        assert cues[name]["constant"] and cues[name]["balanced_accuracy"] == 0.5
    for name in ("semantic", "thumbnail", "all"):
        assert 0.3 < cues[name]["balanced_accuracy"] < 0.7
        assert 0.3 < cues[name]["measured_chance"] < 0.7
    assert audit_sentences(results) == ["No cue tells the sources far above chance."]


@pytest.mark.parametrize(
    ("cue", "encoder"),
    [
        ("file size", lambda pixels, i: encode(pixels, "PNG", compress_level=9)),
        ("container", lambda pixels, i: encode(pixels[..., 0], "BMP")),
        ("size", lambda pixels, i: encode(pixels[:, :15], "BMP")),
        ("thumbnail", lambda pixels, i: encode(pixels // 2, "BMP")),
    ],
)
def test_each_other_cue_is_found_out(memory_dataset, only, cue, encoder):
    only(cue, "semantic", "JPEG")
    results = quiet(memory_dataset(make_rows({"real": bmp, "gan": encoder})))
    assert leaking(results) == {cue}
    assert results["cues"][cue]["balanced_accuracy"] > 0.95


def test_semantics_that_differ_are_found_out_and_can_be_left_out(memory_dataset, only):
    only("semantic")
    rows = make_rows({"real": bmp}, 200)
    rows += make_rows({"gan": bmp}, 200, semantics=("cat", "eye"))
    dataset = memory_dataset(rows)
    found = quiet(dataset)["cues"]["semantic"]
    assert 0.7 < found["balanced_accuracy"] < 0.8 and found["leaks"]  # halves are cats
    results = quiet(dataset, semantics=["cat"])
    assert results["cues"]["semantic"]["constant"] and results["images"] == 200


def test_groups_stay_in_one_fold(memory_dataset, monkeypatch):
    rows = make_rows({"real": bmp, "gan": bmp})
    for i, row in enumerate(rows):
        row["group"] = f"scene {i % 12}"  # each with images of both sources
    seen = []

    def look(features, labels, parts, *args):
        seen.extend(parts)
        return {"constant": True, "leaks": False}

    monkeypatch.setattr(audits, "audit_cue", look)
    quiet(memory_dataset(rows))
    # Records come split by split: numbers below are of that order.
    order = [r for split in ("test", "train") for r in rows if r["split"] == split]
    groups = np.array([r["group"] for r in order])
    tested = np.sort(np.concatenate([test for _, test in seen[:5]]))
    np.testing.assert_array_equal(tested, np.arange(120))
    for train, test in seen:
        assert not set(groups[train]) & set(groups[test])


def test_scenes_learnt_by_heart_do_not_count():
    """Twins of one label: told apart only when a twin is in the training part."""
    rng = np.random.default_rng(0)
    scenes = np.repeat(rng.normal(size=(60, 20)), 4, axis=0).astype(np.float32)
    labels = np.repeat(rng.integers(0, 2, 60), 4)
    number = np.arange(240)
    apart = [(number[number % 4 != k], number[number % 4 == k]) for k in range(4)]
    whole = [(number[number // 60 != k], number[number // 60 == k]) for k in range(4)]
    assert audit_cue(scenes, labels, apart)["leaks"]
    assert not audit_cue(scenes, labels, whole)["leaks"]


def test_balanced_accuracy_is_the_mean_recall():
    """Nine in ten are of one label: accuracy is high, balanced accuracy is chance."""
    rng = np.random.default_rng(0)
    labels = (np.arange(400) % 10 == 0).astype(int)
    number = rng.permutation(400)
    parts = [(np.setdiff1d(number, part), part) for part in np.split(number, 4)]
    found = audit_cue(np.ones((400, 1), np.float32), labels, parts)
    assert found["constant"] and found["accuracy"] == 0.9
    assert found["balanced_accuracy"] == 0.5
    found = audit_cue(labels[:, None].astype(np.float32), labels, parts)
    assert found["balanced_accuracy"] == 1 and found["folds"] == [1, 1, 1, 1]
    assert 0.3 < found["measured_chance"] < 0.7


def test_unreadable_images_are_left_out_and_counted(memory_dataset, only, jpeg_rows):
    only("size")
    broken = jpeg_rows[0] | {"image": b"broken"}
    results = quiet(memory_dataset([broken, *jpeg_rows[1:]]), max_images=1000)
    assert (results["images"], results["unreadable"]) == (119, 1)
    assert audit_sentences(results)[-1] == "1 unreadable images were left out."


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sources": ["real"]}, "two sources or more"),
        ({"sources": ["real", "nan"]}, "unknown source 'nan'"),
        ({"semantics": ["cow"]}, "unknown semantic 'cow'"),
        ({"splits": ["dev"]}, "no split 'dev'"),
        ({"splits": []}, "no splits given"),
        ({"folds": 61}, r"fewer images than 61 folds: real \(60\), gan \(60\)"),
        ({"max_images": 8}, r"fewer images than 5 folds: real \(4\), gan \(4\)"),
        ({"folds": 1}, "at least 2 folds"),
        ({"seed": -1}, "a seed from 0"),
    ],
)
def test_bad_input_is_named(memory_dataset, jpeg_rows, options, words):
    with pytest.raises(InputError, match=words):
        quiet(memory_dataset(jpeg_rows), **options)


def test_too_few_groups_are_named(memory_dataset, jpeg_rows):
    rows = [
        row | {"group": row["path"][-1] if row["source"] == "real" else "one"}
        for row in jpeg_rows
    ]
    with pytest.raises(InputError, match=r"groups of readable .* 5 folds: gan \(1\)"):
        quiet(memory_dataset(rows))


def test_picture_shows_leaks_in_red(tmp_path):
    found = {
        "constant": False,
        "balanced_accuracy": 0.9,
        "folds": [0.8, 1.0],
        "permuted": [0.5, 0.5],
    }
    shares = []
    for leaks in (True, False):
        results = {
            "cues": {"size": found | {"leaks": leaks}},
            "chance": 0.5,
            "images": 9,
            "sources": {"real": 5, "gan": 4},
        }
        draw_audit(results, tmp_path / "audit.png")
        pixels = np.asarray(Image.open(tmp_path / "audit.png").convert("RGB"), int)
        shares.append(np.mean((pixels == (192, 57, 43)).all(-1)))
    assert shares[0] > 0.1 and shares[1] == 0


def test_command_prints_and_writes(mini_dir, tmp_path, capsys):
    out = tmp_path / "deep" / "audit"
    command = ["audit", "attribution_mini", "--data-dir", str(mini_dir)]
    options = ["--sources", "real,dcgan,cips", "--semantics", "cat,cow", "--folds", "3"]
    assert main([*command, *options, "--splits", "train,val", "--out", str(out)]) == 0
    text = capsys.readouterr().out
    assert "of 3 sources, 3 folds; chance 0.333" in text
    results = json.loads((out / "audit.json").read_text())
    assert results["splits"] == ["train", "val"]
    assert results["semantics"] == ["cat", "cow"]
    assert results["cues"]["file size"]["constant"]
    assert len(results["cues"]["thumbnail"]["folds"]) == 3
    assert Image.open(out / "audit.png").size[0] > 600
    assert {p.name for p in out.iterdir()} == {"audit.json", "audit.png"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["nothing"], "no prepared data set 'nothing'"),
        (["attribution_mini", "--sources", "cips"], "two sources or more"),
        (["attribution_mini", "--sources", "cips,real"], "'real' must be the first"),
        (["attribution_mini", "--folds", "1000"], "fewer images than 1000 folds"),
    ],
)
def test_command_refuses_bad_input_in_one_line(
    mini_dir, tmp_path, capsys, options, words
):
    out = tmp_path / "out"
    status = main(["audit", *options, "--data-dir", str(mini_dir), "--out", str(out)])
    *_, line = capsys.readouterr().err.strip().splitlines()
    assert status == 2 and words in line and line.startswith("rmjax audit: error: ")
    assert not out.exists()


def test_command_refuses_a_place_it_cannot_write_to(mini_dir, tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    command = ["audit", "attribution_mini", "--data-dir", str(mini_dir)]
    with pytest.raises(SystemExit) as end:
        main([*command, "--out", str(tmp_path / "file" / "out")])
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert "file is not a folder" in error and "fitting" not in error
    assert (tmp_path / "file").read_text() == "mine"
