"""Galleries: search against brute force and scikit-learn, files, the whole command."""

import json
import shutil
import sys
from dataclasses import replace

import jax
import numpy as np
import optax
import pytest
from PIL import Image
from sklearn.metrics import average_precision_score
from sklearn.metrics.pairwise import cosine_similarity

import rmjax
from rmjax.bench.gallery import bench_gallery, format_gallery_bench
from rmjax.cli.main import main
from rmjax.data.dataset import REAL
from rmjax.errors import InputError
from rmjax.experiment.build import build_model, network_input
from rmjax.experiment.checkpoints import Checkpoints
from rmjax.experiment.data import open_data
from rmjax.experiment.run import CHECKPOINTS, CONFIG_FILE, start_workdir
from rmjax.experiment.step import create_state
from rmjax.gallery import ask
from rmjax.gallery.evaluate import average_precision, chance, measure_draw
from rmjax.gallery.search import (
    BY,
    UNKNOWN,
    answer,
    approximate,
    build_index,
    choose_threshold,
    neighbours,
    prototypes,
)
from rmjax.gallery.store import (
    FILE,
    cosine,
    empty_gallery,
    enrol,
    load_gallery,
    locked,
    remove,
    save_gallery,
    stored_index,
    whitened,
)


def draw(counts, dim=6, spread=0.3, seed=0):
    """Fingerprints around a centre each, and whose each is."""
    rng = np.random.default_rng(seed)
    source = np.repeat(np.arange(len(counts)), counts)
    centres = rng.standard_normal((len(counts), dim))
    noise = spread * rng.standard_normal((len(source), dim))
    return (centres[source] + noise).astype(np.float32), source


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


COUNTS = [4, 1, 3]
STARTS = np.array([0, 4, 5])


@pytest.fixture
def gallery():
    """Three generators of `COUNTS` images, the first one trained on."""
    embedding, source = draw(COUNTS)
    made = empty_gallery("net", cosine(embedding, source))
    for i, name in enumerate(("real", "b", "c")):
        files = [(f"{name}{j}.png", f"sha-{name}{j}") for j in range(COUNTS[i])]
        made = enrol(made, name, files, embedding[source == i], trained=i == 0)
    return made


def test_scores_are_cosines_with_the_nearest_image_and_with_the_mean():
    embedding, source = draw(COUNTS)
    asked = draw([5], seed=1)[0]
    cosines = cosine_similarity(asked, embedding)
    near = np.stack([cosines[:, source == i].max(1) for i in range(3)], 1)
    means = np.stack([unit(embedding)[source == i].mean(0) for i in range(3)])
    made = unit(embedding), STARTS
    np.testing.assert_allclose(neighbours(*made)(unit(asked)), near, atol=1e-6)
    np.testing.assert_allclose(
        prototypes(*made)(unit(asked)), cosine_similarity(asked, means), atol=1e-6
    )


@pytest.mark.parametrize("by", BY)
def test_leaving_out_a_row_is_a_gallery_without_it(by):
    embedding, source = draw(COUNTS)
    directions = unit(embedding)
    rows = np.arange(len(source))
    scores = BY[by](directions, STARTS)(directions, rows)
    for row in rows:
        if source[row] == 1:  # its generator's only image
            assert scores[row, 1] == -np.inf
            continue
        starts = STARTS - (row < STARTS)
        rest = BY[by](np.delete(directions, row, 0), starts)
        expected = rest(directions[row : row + 1])[0]
        np.testing.assert_allclose(scores[row], expected, atol=1e-6)


def test_the_threshold_rejects_at_most_the_share():
    embedding, source = draw([40, 40, 1], spread=1.0)
    directions, starts = unit(embedding), np.array([0, 40, 80])
    score = neighbours(directions, starts)
    threshold = choose_threshold(score, directions, starts, 0.1)
    assert threshold.images == 80  # the generator with one image vouches for nothing
    assert threshold.rejected == 0.1
    cosines = cosine_similarity(embedding)
    np.fill_diagonal(cosines, -1)
    assert np.mean(cosines.max(1)[:80] < threshold.value - 1e-6) == 0.1
    strange = np.where(source[:, None] == source, -1, cosines).max(1)
    assert threshold.strangers == 81
    assert threshold.accepted == pytest.approx(
        np.mean(strange >= threshold.value), abs=1e-6
    )
    some = choose_threshold(
        score, directions, starts, 0.1, new=np.array([False, True, False])
    )
    assert (some.value, some.strangers) == (threshold.value, 40)
    few = choose_threshold(score, directions, starts, 0.1, max_images=20)
    assert few.strangers == 20 and few.images <= 20


def test_single_images_leave_no_threshold_and_nothing_unknown():
    directions = unit(draw([1, 1])[0])
    starts = np.array([0, 1])
    threshold = choose_threshold(neighbours(directions, starts), directions, starts)
    assert threshold.value is None and threshold.images == 0
    (only,) = answer(np.array([[-0.9, -0.8]]), ("a", "b"), threshold.value, top=2)
    assert only["answer"] == "b"


def test_answers_are_ranked_and_rejected_below_the_threshold():
    scores = np.array([[0.2, 0.9, -np.inf], [0.1, 0.2, 0.3], [-np.inf] * 3])
    first, second, third = answer(scores, ("a", "b", "c"), 0.5, top=2)
    assert first["answer"] == "b"
    assert first["ranked"] == [
        {"generator": "b", "similarity": 0.9},
        {"generator": "a", "similarity": 0.2},
    ]
    assert second["answer"] == UNKNOWN
    assert [row["generator"] for row in second["ranked"]] == ["c", "b"]
    assert third == {"answer": UNKNOWN, "ranked": []}


def test_whitening_makes_sources_vary_alike_whatever_the_scale():
    embedding, source = draw([3000] * 3, dim=4)
    stretch = np.diag([1.0, 4.0, 0.5, 2.0]).astype(np.float32)
    plain, stretched = (whitened(e, source) for e in (embedding, embedding @ stretch))
    white = (embedding - plain.centre) @ plain.matrix
    means = np.stack([white[source == i].mean(0) for i in range(3)])
    np.testing.assert_allclose(np.cov((white - means[source]).T), np.eye(4), atol=0.05)
    some = embedding[::100]
    a, b = plain.directions(some), stretched.directions(some @ stretch)
    np.testing.assert_allclose(a @ a.T, b @ b.T, atol=0.05)
    np.testing.assert_allclose(np.linalg.norm(a, axis=1), 1, atol=1e-5)


def test_a_gallery_comes_back_from_its_folder(gallery, tmp_path):
    save_gallery(tmp_path, gallery)
    loaded = load_gallery(tmp_path)
    assert loaded.generators == gallery.generators
    assert (loaded.network, loaded.space.name) == ("net", "cosine")
    np.testing.assert_array_equal(loaded.directions, gallery.directions)
    np.testing.assert_array_equal(loaded.starts, STARTS)
    save_gallery(tmp_path, remove(loaded, ["b"]))
    assert len(list(tmp_path.glob("fingerprints-*"))) == 1
    fewer = load_gallery(tmp_path)
    assert fewer.names == ["real", "c"]
    np.testing.assert_array_equal(
        fewer.directions, np.delete(gallery.directions, 4, axis=0)
    )
    save_gallery(tmp_path, remove(fewer, fewer.names))
    assert load_gallery(tmp_path).directions.shape == (0, 6)


def test_later_images_join_their_generator(gallery):
    more = draw([2], seed=5)[0]
    enrolled = enrol(gallery, "b", [("x.png", "x"), ("y.png", "y")], more)
    assert [len(generator.images) for generator in enrolled.generators] == [4, 3, 3]
    np.testing.assert_allclose(enrolled.directions[5:7], unit(more), atol=1e-6)
    np.testing.assert_array_equal(enrolled.directions[7:], gallery.directions[5:])


@pytest.mark.parametrize(
    ("name", "files", "message"),
    [
        ("new", [("twin.png", "sha-c1")], "same file as c1.png, enrolled as c"),
        ("new", [("p.png", "p"), ("q.png", "p")], "q.png is the same file as p.png"),
        ("new", [], "no images of new"),
        ("unknown", [("p.png", "p")], "can't be the name"),
        (" ", [("p.png", "p")], "can't be the name"),
        ("real", [("p.png", "p")], "enrolled already, as a trained generator"),
    ],
)
def test_what_cannot_be_enrolled_is_named(gallery, name, files, message):
    with pytest.raises(InputError, match=message):
        enrol(gallery, name, files, draw([len(files)])[0])


def test_fingerprints_without_direction_are_refused(gallery):
    for row in (np.zeros((1, 6)), np.full((1, 6), np.nan), np.ones((1, 5))):
        with pytest.raises(InputError):
            enrol(gallery, "new", [("p.png", "p")], row)


def damage_json(folder):
    (folder / FILE).write_text("{")


def damage_version(folder):
    (folder / FILE).write_text('{"version": 99}')


def damage_fingerprints(folder):
    path = next(folder.glob("fingerprints-*"))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def damage_by_loss(folder):
    next(folder.glob("space-*")).unlink()


def damage_list(folder):
    data = json.loads((folder / FILE).read_text())
    data["generators"].pop()
    (folder / FILE).write_text(json.dumps(data))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_json, "damaged"),
        (damage_version, "not a gallery of version 1"),
        (damage_fingerprints, "not what was written"),
        (damage_by_loss, "damaged"),
        (damage_list, "another number of fingerprints"),
    ],
)
def test_damage_is_one_line(gallery, tmp_path, damage, message):
    save_gallery(tmp_path, gallery)
    damage(tmp_path)
    with pytest.raises(InputError, match=message) as error:
        load_gallery(tmp_path)
    assert "\n" not in str(error.value)


def test_a_folder_is_changed_by_one_at_a_time(tmp_path):
    with locked(tmp_path), pytest.raises(InputError, match="another command"):
        with locked(tmp_path):
            pass
    (tmp_path / "letters.txt").write_text("mine")
    with pytest.raises(InputError, match="something else"), locked(tmp_path):
        pass


def test_average_precision_is_scikit_learns():
    rng = np.random.default_rng(0)
    similarity = rng.standard_normal((30, 12))
    relevant = rng.random((30, 12)) < 0.3
    relevant[:, 0] = True
    expected = [
        average_precision_score(r, s) for r, s in zip(relevant, similarity, strict=True)
    ]
    np.testing.assert_allclose(average_precision(similarity, relevant), expected)


def test_chance_is_what_random_rankings_give():
    rng = np.random.default_rng(0)
    relevant = np.tile(np.repeat(np.arange(4), 3) == 0, (20_000, 1))
    similarity = rng.random(relevant.shape)
    expected = average_precision(similarity, relevant).mean()
    assert chance(4, 3)["map"] == pytest.approx(expected, abs=0.005)
    assert chance(4, 3)["rank1"] == 0.25


def test_a_draw_is_measured_as_by_hand():
    embedding, source = draw([6, 9, 5], spread=1.5)
    directions = unit(embedding)
    enrolled = np.array([7, 0, 15, 1, 16, 6])  # two of each, in any order
    figures = measure_draw(directions, source, np.array([0, 1]), enrolled)
    similarity = cosine_similarity(embedding, embedding[enrolled])
    right, precise = ({0: [], 1: [], 2: []} for _ in range(2))
    for row in np.setdiff1d(np.arange(20), enrolled):
        mine = source[enrolled] == source[row]
        right[source[row]].append(mine[similarity[row].argmax()])
        precise[source[row]].append(average_precision_score(mine, similarity[row]))
    both = [[np.mean(values[s]) for s in (0, 1)] for values in (right, precise)]
    assert figures["rank1_neighbours"] == pytest.approx(np.mean(both[0]))
    assert figures["map"] == pytest.approx(np.mean(both[1]))
    assert figures["trained_rank1"] == pytest.approx(np.mean(right[2]))


def test_the_approximate_search_finds_what_the_exact_one_does(tmp_path):
    pytest.importorskip("faiss")
    embedding, source = draw([20] * 30, dim=16)
    directions, starts = unit(embedding), np.arange(0, 600, 20)
    asked = unit(draw([20] * 30, dim=16)[0] + 0.05)
    exact = neighbours(directions, starts)(asked)
    scores = approximate(build_index(directions, probed=10**6), starts)(asked)
    listed = np.isfinite(scores)
    np.testing.assert_allclose(scores[listed], exact[listed], atol=1e-5)
    np.testing.assert_array_equal(scores.argmax(1), exact.argmax(1))
    for _ in range(2):  # made, then read
        kept = stored_index(tmp_path, directions)
        assert kept.ntotal == 600
    assert len(list(tmp_path.iterdir())) == 1


def test_without_faiss_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(InputError, match=r"pip install rmjax\[ann\]"):
        build_index(np.eye(3, dtype=np.float32))


def test_the_benchmark_measures_the_exact_search():
    results = bench_gallery(images=200, dim=8, queries=3, repeats=1, probed=(1,))
    text = format_gallery_bench(results)
    assert "200 images x 8 floats" in text and "neighbours, exact" in text


@pytest.fixture(scope="module")
def run(small_config, tmp_path_factory):
    """Workdir of a run that held two sources out, stopped before its first step."""
    workdir = tmp_path_factory.mktemp("held")
    config = small_config(
        **{
            "data.held_out_sources": ("stylegan3", "cips"),
            "model.arch": "shallow",  # compiles faster
            "model.input": "dcthist",
        }
    )
    data = open_data(config)
    model = build_model(config, len(data.sources))
    shape = network_input(config).shape[1:]
    state = create_state(model, optax.identity(), config.seed, shape)
    checkpoints = Checkpoints(workdir / CHECKPOINTS)
    checkpoints.save(state, {}, 1.0)
    checkpoints.close()
    start_workdir(workdir, config, data.sources, data.dataset.semantic_names)
    return workdir


@pytest.fixture(scope="module")
def files(run, tmp_path_factory):
    """Test images of the two, as files."""
    folder = tmp_path_factory.mktemp("images")
    paths = {}
    model = rmjax.load(run)
    held = open_data(model.config).held_out
    records = held.dataset.records("test")
    for i, name in enumerate(held.source_names):
        rows = held.records["test"][held.labels["test"]["source"] == i]
        for j, row in enumerate(rows[:4]):
            path = folder / f"{name}{j}.png"
            path.write_bytes(records[int(row)]["image"])
            paths.setdefault(name, []).append(str(path))
    return paths


def test_enrol_and_ask_by_the_command(run, files, tmp_path, capsys):
    folder = tmp_path / "gallery"
    where = ["--workdir", str(run), "--gallery", str(folder)]
    assert main(["gallery", "add", *where, "cips", *files["cips"][:3]]) == 0
    assert main(["gallery", "add", *where, "--trained", "--k", "2"]) == 0
    capsys.readouterr()
    assert main(["gallery", "list", "--gallery", str(folder), "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    names = {g["name"]: (len(g["images"]), g["trained"]) for g in listed["generators"]}
    assert names["cips"] == (3, False) and names[REAL] == (2, True)
    assert len(names) == 7 and listed["space"] == "whitened"

    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    asked = [files["cips"][1], str(broken), files["stylegan3"][0]]
    assert main(["gallery", "query", *where, "--json", "--top", "9", *asked]) == 1
    out, err = capsys.readouterr()
    assert f"{broken}: not an image of a known format" in err
    enrolled, other = map(json.loads, out.splitlines())
    assert enrolled["ranked"][0]["generator"] == "cips"
    assert enrolled["ranked"][0]["similarity"] == pytest.approx(1, abs=1e-3)
    assert enrolled["network"]["source"] in names and enrolled["answer"] == "cips"
    assert other["image"] == files["stylegan3"][0] and len(other["ranked"]) == 7
    assert main(["gallery", "query", *where, "--by", "prototypes", asked[0]]) == 0
    assert "the network itself" in capsys.readouterr().out

    assert main(["gallery", "remove", "--gallery", str(folder), "cips"]) == 0
    assert "cips" not in load_gallery(folder).names


def test_what_a_gallery_refuses_leaves_it_as_it_was(run, files, tmp_path, capsys):
    folder = tmp_path / "gallery"
    where = ["--gallery", str(folder), "--workdir"]
    mine = [*where, str(run)]
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    image, other = files["cips"][:2]
    refused = [
        (["query", *mine, image], "no gallery in"),
        (["add", *mine, "cips", image, str(broken)], "nothing was enrolled"),
        (["add", *mine, "--space", "flat", "cips", image], "unknown space 'flat'"),
        (["add", *mine], "give NAME and IMAGEs, or --trained"),
    ]

    def fails(arguments, message):
        assert main(["gallery", *arguments]) == 2
        *_, line = capsys.readouterr().err.strip().splitlines()
        assert line.startswith("rmjax gallery: error: ") and message in line

    for arguments, message in refused:
        fails(arguments, message)
        assert not (folder / FILE).exists()
    assert main(["gallery", "add", *mine, "--space", "cosine", "cips", image]) == 0
    before = (folder / FILE).read_bytes()
    for arguments, message in [
        (["add", *mine, "cips", image], "enrol an image once"),
        (["add", *mine, "progan", other], "--trained"),
        (["add", *mine, "--trained", "--k", "999"], "in split val: give a smaller"),
        (["add", *mine, "--space", "whitened", "x", other], "this gallery's is cosine"),
        (["query", *mine, str(broken)], "none of the images could be read"),
        (["query", *mine, "--reject", "2", other], "between 0 and 1"),
        (["remove", "--gallery", str(folder), "nobody"], "nobody: not enrolled"),
    ]:
        fails(arguments, message)
        assert (folder / FILE).read_bytes() == before
    assert main(["gallery", "remove", "--gallery", str(folder), "cips"]) == 0
    fails(["query", *mine, other], "the gallery is empty")
    save_gallery(folder, replace(load_gallery(folder), network="another"))
    fails(["add", *mine, "x", other], "of another network")
    fails(["query", *mine, other], "of another network")


def test_another_parameter_checkpoint_or_crop_is_another_network(run):
    model = rmjax.load(run)
    names = {ask.identify(model), ask.identify(rmjax.load(run))}
    assert len(names) == 1
    changed = jax.tree.map(lambda leaf: leaf * 1.001, model.variables)
    names.add(ask.identify(replace(model, variables=changed)))
    names.add(ask.identify(replace(model, checkpoint=99)))
    config = model.config.copy_and_resolve_references()
    config.data.eval_size = 24
    names.add(ask.identify(replace(model, config=config)))
    assert len(names) == 4


def test_evaluation_measures_both_settings_beside_random_features(
    run, tmp_path, capsys
):
    out = tmp_path / "figures.json"
    arguments = ["gallery", "evaluate", "--workdir", str(run), "--draws", "2"]
    assert main([*arguments, "--k", "1,2", "--out", str(out)]) == 0
    assert "held-out sources beside the trained ones" in capsys.readouterr().out
    results = json.loads(out.read_text())
    rows = {
        tuple(row[n] for n in ("setting", "k", "features", "space")): row
        for row in results["rows"]
    }
    assert len(rows) == len(results["rows"]) == 2 * 2 * 2 * 2
    alone = rows["alone", 1, "trained", "cosine"]
    assert alone["chance"] == {"rank1": 0.5, "map": 0.75}
    assert alone["mean"]["rejected"] is None and alone["mean"]["trained_rank1"] is None
    beside = rows["beside", 2, "random", "whitened"]
    assert beside["chance"]["rank1"] == 1 / 8
    assert set(results["held_out"]) == {"stylegan3", "cips"}
    for row in rows.values():
        assert all(0 <= v <= 1 for v in row["mean"].values() if v is not None)

    assert main([*arguments, "--k", "99", "--out", str(out)]) == 2
    assert "leaves no test image" in capsys.readouterr().err


def test_a_run_without_held_out_sources_is_not_evaluated(run, tmp_path, capsys):
    workdir = shutil.copytree(run, tmp_path / "run")
    config = json.loads((workdir / CONFIG_FILE).read_text())
    config["data"]["held_out_sources"] = []
    (workdir / CONFIG_FILE).write_text(json.dumps(config))
    assert main(["gallery", "evaluate", "--workdir", str(workdir)]) == 2
    assert "held fewer than two sources out" in capsys.readouterr().err


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Folder with a folder of five images for each of two ways of enlarging noise."""
    root = tmp_path_factory.mktemp("pictures")
    ways = {"near": Image.Resampling.NEAREST, "smooth": Image.Resampling.BICUBIC}
    rng = np.random.default_rng(0)
    for name, way in ways.items():
        (root / name).mkdir()
        for i in range(5):
            small = rng.integers(0, 256, (16, 16, 3), np.uint8)
            image = Image.fromarray(small).resize((32, 32), way)
            image.save(root / name / f"{i}.png")
    (root / "near" / "notes.txt").write_text("passed over")
    return root


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The current folder, an empty one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_network_without_sources_needs_no_options(pictures, here, capsys):
    """The one that ships, in the folder `gallery`, by folders of images."""
    near, smooth = (str(pictures / name) for name in ("near", "smooth"))
    assert main(["gallery", "add", "near", near]) == 0
    assert main(["gallery", "add", "smooth", f"{smooth}/0.png", f"{smooth}/1.png"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("gallery: gallery, 2 ")
    made = load_gallery(here / "gallery")
    assert made.space.name == "cosine" and made.network == ask.identify(rmjax.load())
    assert [len(g.images) for g in made.generators] == [5, 2]
    assert made.generators[0].images[0][0] == f"{near}/0.png"
    assert main(["gallery", "list"]) == 0
    assert "near" in capsys.readouterr().out

    assert main(["gallery", "query", f"{near}/3.png"]) == 0
    printed = capsys.readouterr()
    assert "trained" not in printed.err and "network" not in printed.out
    assert main(["gallery", "query", "--json", f"{near}/3.png", f"{smooth}/4.png"]) == 0
    first, other = map(json.loads, capsys.readouterr().out.splitlines())
    assert set(first) == {"image", "answer", "ranked", "threshold"}
    assert first["answer"] == "near"
    assert set(first["ranked"][0]) == {"generator", "similarity"}
    assert first["ranked"][0]["similarity"] == pytest.approx(1, abs=1e-5)
    assert {row["generator"] for row in other["ranked"]} == {"near", "smooth"}
    assert main(["gallery", "remove", "smooth"]) == 0
    assert load_gallery(here / "gallery").names == ["near"]


def test_a_run_without_sources_and_its_file_are_one_network(
    fingerprint_run, pictures, here
):
    run = ["--workdir", str(fingerprint_run)]
    file = ["--workdir", "run.safetensors"]
    near = str(pictures / "near" / "0.png")
    assert main(["export", *run, "--out", "run.safetensors"]) == 0
    assert main(["gallery", "add", *run, "--space", "cosine", "near", near]) == 0
    assert main(["gallery", "query", *file, near]) == 0
    assert main(["gallery", "add", *file, "all", str(pictures / "smooth")]) == 0
    assert main(["gallery", "query", *run, near]) == 0


def test_what_a_network_without_sources_cannot_do_is_one_line(pictures, here, capsys):
    (here / "empty").mkdir()
    (here / "text").mkdir()
    (here / "text" / "notes.txt").write_text("no image")
    (here / "broken").mkdir()
    (here / "broken" / "a.png").write_bytes(b"no image")
    near = str(pictures / "near")

    def fails(arguments, message):
        assert main(["gallery", *arguments]) == 2
        *_, line = capsys.readouterr().err.strip().splitlines()
        assert line.startswith("rmjax gallery: error: ") and message in line

    for arguments, message in [
        (["add", "--space", "whitened", "near", near], "fingerprint knows none"),
        (["add", "--trained"], "knows no sources that could be enrolled"),
        (["add"], "give NAME and IMAGEs, or --trained"),
        (["add", "near", "empty"], "empty: no images in it"),
        (["add", "near", near, "text"], "text: no images in it"),
        (["add", "near", "broken"], "not an image of a known format"),
        (["add", "near", ""], "No such file"),
        (["add", "near"], "no images of near"),
        (["query", near], "no gallery in gallery"),
        (["list"], "rmjax gallery add NAME IMAGE..."),
    ]:
        fails(arguments, message)
        assert not (here / "gallery").exists()


def test_a_bare_backbone_has_no_gallery(fingerprint_run):
    model = replace(rmjax.load(fingerprint_run), provenance={"layout": "imagenet"})
    for refused in (ask.new_gallery, lambda model: ask.load_asker("gallery", model)):
        with pytest.raises(InputError, match="makes no fingerprints"):
            refused(model)
