"""Tables of fingerprints: of folders, lists and data sets; resumed, in shards."""

import csv
import fcntl
import io
import json
import multiprocessing
import os
import pickle
import socket

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline

import rmjax
from rmjax.cli.main import main
from rmjax.data.listing import list_images
from rmjax.errors import InputError
from rmjax.experiment import parallel
from rmjax.inference.embed import embed_images
from rmjax.inference.transformer import FingerprintTransformer

COUNT = 10


@pytest.fixture(scope="module")
def model(small_run):
    return rmjax.load(small_run, num_devices=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Ten images of real and elsewhere, one of them no image."""
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for i in range(COUNT):
        path = root / ("real" if i < 4 else "elsewhere") / "x" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (32, 32, 3), np.uint8)
        Image.fromarray(pixels).save(path)
    (root / "real" / "x" / "2.png").write_bytes(b"no image")
    (root / "notes.txt").write_text("not asked about")
    return root


def embed(model, folder, out, **options):
    images, count = list_images(folder, known=model.source_names)
    options = {"batch_size": 4, "show_progress": False} | options
    return embed_images(model, images, count, out, **options)


def test_a_row_an_image(model, folder, tmp_path):
    out, rows, failed = embed(model, folder, tmp_path / "t.parquet", rows_per_part=4)
    assert rows == COUNT and failed == ["real/x/2.png: not an image of a known format"]
    table = pq.read_table(out).to_pylist()
    paths = [row["path"] for row in table]
    assert paths == sorted(p for p in paths) and "elsewhere/x/4.png" in paths
    assert [r["source"] for r in table] == [None] * 6 + ["real"] * 4
    bad = table.pop(paths.index("real/x/2.png"))
    assert bad["error"] == failed[0] and bad["embedding"] is bad["attribution"] is None
    answer = model.predict([folder / row["path"] for row in table])
    for name in ("embedding", "attribution", "detection"):
        found = np.array([row[name] for row in table])
        np.testing.assert_allclose(found, answer[name], atol=1e-4)
    assert [row["predicted"] for row in table] == list(answer["source"])
    assert not any(row["error"] for row in table)
    assert [path.name for path in tmp_path.iterdir()] == ["t.parquet"]


def test_npz_holds_the_same(model, folder, tmp_path):
    embed(model, folder, tmp_path / "t.parquet")
    embed(model, folder, tmp_path / "t.npz", rows_per_part=3)
    table = pq.read_table(tmp_path / "t.parquet")
    with np.load(tmp_path / "t.npz") as arrays:
        for name in ("path", "source", "predicted", "error"):
            assert [text or None for text in arrays[name]] == table[name].to_pylist()
        empty = arrays["error"] != ""
        assert np.isnan(arrays["embedding"]).all(1).tolist() == empty.tolist()
        embedding = [r for r in table["embedding"].to_pylist() if r is not None]
        np.testing.assert_allclose(arrays["embedding"][~empty], embedding, atol=1e-5)


def test_goes_on_where_it_stopped(model, folder, tmp_path):
    images, count = list_images(folder)
    out = tmp_path / "t.parquet"
    options = {"rows_per_part": 4, "batch_size": 4, "show_progress": False}

    def stopped():
        for number, item in enumerate(images()):
            if number == 6:
                raise KeyboardInterrupt
            yield item

    with pytest.raises(KeyboardInterrupt):
        embed_images(model, stopped, count, out, **options)
    assert not out.exists()
    parts = tmp_path / ".t.parquet.partial"
    (first,) = parts.glob("*.parquet")
    table = pq.read_table(first)
    marked = pa.array(["kept"] * len(table))
    table = table.set_column(
        table.schema.get_field_index("predicted"), "predicted", marked
    )
    pq.write_table(table, first)
    embed_images(model, images, count, out, **options)
    predicted = pq.read_table(out)["predicted"].to_pylist()
    assert predicted[:4] == ["kept"] * 4 and "kept" not in predicted[4:]
    assert len(predicted) == count and not parts.exists()


def test_shards_are_the_whole(model, folder, tmp_path):
    embed(model, folder, tmp_path / "t.parquet", rows_per_part=2)
    found = {}
    for number in range(3):
        out, _, _ = embed(
            model, folder, tmp_path / "s.parquet", shard=(number, 3), rows_per_part=2
        )
        assert out.name == f"s-0000{number}-of-00003.parquet"
        found |= {row["path"]: row for row in pq.read_table(out).to_pylist()}
    whole = pq.read_table(tmp_path / "t.parquet").to_pylist()
    assert sorted(found) == sorted(row["path"] for row in whole)
    for row in whole:
        assert found[row["path"]]["predicted"] == row["predicted"]


def test_only_one_process_writes_a_table_and_a_cut_part_is_made_anew(
    model, folder, tmp_path
):
    out = tmp_path / "t.parquet"
    parts = tmp_path / ".t.parquet.partial"
    parts.mkdir()
    (parts / "00000000.parquet").touch()
    with (parts / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="being written by another command"):
            embed(model, folder, out)
    assert embed(model, folder, out)[1] == COUNT and not parts.exists()


def test_odd_names(model, tmp_path):
    names = [b"bad\xff.png", b"new\nline.png", "日本.png".encode()]
    good = io.BytesIO()
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(good, "PNG")
    for name in names:
        (tmp_path / os.fsdecode(name)).write_bytes(good.getvalue())
    (tmp_path / os.fsdecode(b"gone\xff.png")).symlink_to("nowhere")
    images = tmp_path / "list.csv"
    images.write_text("path\nno\0name.png\n")
    out, rows, failed = embed(model, tmp_path, tmp_path / "t.parquet")
    assert rows == 4 and failed[0].endswith("gone\\xff.png: No such file or directory")
    paths = pq.read_table(out)["path"].to_pylist()
    assert paths == ["bad\\xff.png", "gone\\xff.png", "new\nline.png", "日本.png"]
    assert "no file name" in embed(model, images, tmp_path / "l.npz")[2][0]


def test_any_activation(model, folder, tmp_path):
    out, _, _ = embed(model, folder, tmp_path / "t.parquet", layer="layer2")
    row = pq.read_table(out).to_pylist()[0]
    expected = model.embed([folder / row["path"]], layer="layer2")[0]
    np.testing.assert_allclose(row["layer2"], expected, atol=1e-4)
    assert "embedding" not in row and len(row["layer2"]) == model.channels("layer2")


def test_lists_and_data_sets(model, folder, mini_dir, tmp_path):
    path = folder / "list.csv"
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerows(
            [("path", "source"), ("real/x/0.png", "camera"), ("gone.png", "")]
        )
    images, count = list_images(path)
    items = list(images())
    assert count == 2 and [item.source for item in items] == ["camera", None]
    assert items[0].read() == (folder / "real/x/0.png").read_bytes()
    with pytest.raises(InputError, match="gone.png: No such file"):
        items[1].read()
    path.unlink()
    images, count = list_images("attribution_mini", data_dir=mini_dir, splits=("val",))
    items = list(images())
    assert count == len(items) > 0
    assert items[0].path == "val/0" and items[0].source in model.source_names
    assert model.read(items[0].read()).shape == (32, 32, 3)


@pytest.mark.parametrize(
    "text",
    ["path, source\n1.png , real\n", '"path","source"\r\n"1.png","real"\r\n,\r\n'],
)
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_list_is_read_as_prepare_reads_it(tmp_path, text, encoding):
    (tmp_path / "1.png").write_bytes(b"the file")
    (tmp_path / "list.csv").write_bytes(text.encode(encoding))
    images, count = list_images(tmp_path / "list.csv")
    assert [(i.path, i.source, i.read()) for i in images()] == [
        ("1.png", "real", b"the file")
    ]
    assert count == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path;source\n1.png;real\n", "line 1: no column path.*semicolons"),
        ("path\tsource\n1.png\treal\n", "line 1: no column path.*tabs"),
        ("path,source\na.png\n", "line 2: not 2 cells"),
        ("path\na,b.png\n", "line 2: not 1 cells"),
        ('path\n"a.png\nb.png\n', "line 3: a quote is not closed"),
        ("path,source\n,real\n", "line 2: no path"),
    ],
)
def test_a_list_that_is_wrong_is_refused(tmp_path, text, message):
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        list_images(tmp_path / "list.csv")
    (tmp_path / "list.csv").write_bytes("path\né.png\n".encode("latin-1"))
    with pytest.raises(InputError, match="save it as UTF-8"):
        list_images(tmp_path / "list.csv")


@pytest.mark.parametrize("make", ["pipe", "socket", "device", "folder"])
def test_what_is_no_regular_file_is_named(model, folder, tmp_path, make):
    odd = tmp_path / "odd.png"
    if make == "pipe":
        os.mkfifo(odd)
    elif make == "socket":
        socket.socket(socket.AF_UNIX).bind(str(odd))
    elif make == "device":
        odd.symlink_to("/dev/zero")
    else:
        odd.mkdir()
    Image.new("RGB", (32, 32)).save(tmp_path / "1", "PNG")
    (tmp_path / "list.csv").write_text("path\n1\nodd.png\n")
    message = "odd.png: Is a dir" if make == "folder" else "odd.png: not a regular file"
    for images in (tmp_path / "list.csv", tmp_path):
        if make == "folder" and images == tmp_path:
            continue
        _, rows, failed = embed(model, images, tmp_path / f"{images.name}.npz")
        assert rows == 2 and [message in line for line in failed] == [True]
    with pytest.raises(InputError, match=message):
        model.embed([odd])


@pytest.mark.parametrize(
    ("images", "options", "message"),
    [
        ("nowhere", {}, "no folder, no CSV file and no data set"),
        (None, {"out": "t.csv"}, "ending in .parquet or .npz"),
        (None, {"shard": (3, 3)}, "shard 3/3: give 0/3 to 2/3"),
        (None, {"layer": "top"}, "'top'.* stem"),
        (None, {"batch_size": 0}, "batch size and rows per part: give at least 1"),
        (None, {"out": "taken.npz"}, "taken.npz exists"),
    ],
)
def test_what_is_wrong_is_named(model, folder, tmp_path, images, options, message):
    (tmp_path / "taken.npz").touch()
    out = tmp_path / options.pop("out", "t.parquet")
    with pytest.raises(InputError, match=message):
        embed(model, images or folder, out, **options)


def test_parts_of_another_network_are_not_mixed_in(model, folder, tmp_path):
    out = tmp_path / "t.parquet"
    parts = tmp_path / ".t.parquet.partial"
    parts.mkdir()
    other, _, _ = embed(model, folder, tmp_path / "other.parquet", layer="pool")
    other.rename(parts / "00000000.parquet")
    with pytest.raises(
        InputError, match="parts of a table by another network or layer"
    ):
        embed(model, folder, out)


def test_the_command_says_what_failed(small_run, folder, tmp_path, capsys):
    out = tmp_path / "t.parquet"
    arguments = ["embed", "--workdir", str(small_run), "--images", str(folder)]
    assert main([*arguments, "--out", str(out)]) == 1
    printed = capsys.readouterr()
    assert f"embedded: 9 of 10 images: {out}" in printed.out
    assert "rmjax embed: real/x/2.png: not an image" in printed.err
    assert main([*arguments, "--out", str(out)]) == 2
    assert "t.parquet exists" in capsys.readouterr().err


def test_without_a_workdir_the_network_that_ships_embeds(folder, tmp_path, capsys):
    out = tmp_path / "t.parquet"
    images = str(folder / "elsewhere")
    assert main(["embed", "--images", images, "--out", str(out)]) == 0
    table = pq.read_table(out)
    made_by = json.loads(table.schema.metadata[b"rmjax"])
    assert made_by["model"] == "fingerprint" and made_by["source_names"] == []
    assert made_by["model_sha256"] == rmjax.load().digest
    assert table.column_names == ["path", "source", "embedding", "error"]
    assert len(table["embedding"][0]) == made_by["sizes"]["embedding"]


@pytest.mark.parametrize(
    ("content", "message"), [(None, "run.json is missing"), ("{", "run.json: damaged")]
)
def test_a_run_without_its_facts(small_run, tmp_path, content, message):
    (tmp_path / "config.json").write_bytes((small_run / "config.json").read_bytes())
    if content:
        (tmp_path / "run.json").write_text(content)
    with pytest.raises(InputError, match=message):
        rmjax.load(tmp_path)


def test_the_transformer_in_a_pipeline(small_run, model, folder):
    paths = [p for p in sorted(folder.rglob("*.png")) if p.name != "2.png"]
    labels = [path.parts[-3] for path in paths]
    step = FingerprintTransformer(str(small_run))
    pipeline = make_pipeline(step, KNeighborsClassifier(1))
    pipeline.fit(paths, labels)
    assert pipeline.score(paths, labels) == 1.0
    again = pickle.loads(pickle.dumps(pipeline))
    assert list(again.predict(paths)) == list(pipeline.predict(paths))
    column = np.array([[str(path)] for path in paths])
    assert (step.transform(column) == step.transform(paths)).all()
    with pytest.raises(InputError, match="nowhere"):
        clone(step).set_params(path="nowhere").transform(paths)
    pooled = clone(step).set_params(layer="pool").fit(paths)
    names = pooled.get_feature_names_out()
    assert names[0] == "pool0" and len(names) == model.channels("pool")
    assert pooled.transform(paths[:2]).shape == (2, len(names))


def _transform(step, paths, queue):
    try:
        queue.put(step.transform(paths).shape)
    except InputError as error:
        queue.put(str(error))


@pytest.mark.parametrize("loaded", [True, False])
@pytest.mark.filterwarnings("ignore:.*fork:")
def test_a_fork_of_a_process_that_runs_jax_does_not_hang(small_run, folder, loaded):
    step = FingerprintTransformer(str(small_run))
    paths = [folder / "real/x/0.png"]
    if loaded:
        step.transform(paths)
    parallel.choose_devices()  # what runs JAX here, with or without a network
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    child = context.Process(target=_transform, args=(step, paths, queue))
    child.start()
    child.join(60)
    hangs = child.is_alive()
    child.kill()
    assert not hangs and "forked" in queue.get()
