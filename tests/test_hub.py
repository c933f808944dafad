"""The Hugging Face Hub: addresses, downloads, pushed runs; with a stand-in for it."""

import json
import resource
import shutil
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import safetensors.numpy
from conftest import SHARED
from hub_stand_in import TOKEN, is_large, serve
from results_sample import sample_results, write_run

import rmjax
from rmjax.cli.main import main
from rmjax.errors import InputError
from rmjax.evaluation.results import SETS
from rmjax.experiment.config import load_config
from rmjax.experiment.run import load_facts
from rmjax.hub.push import push
from rmjax.inference.calibration import Calibration, save_calibration
from rmjax.models.convert import to_imagenet
from rmjax.models.repmix import RepMix
from rmjax.pretrained.addresses import parse_address
from rmjax.pretrained.hub import download
from rmjax.training.start import starting_backbone

IMAGES = [
    np.random.default_rng(i).integers(0, 256, (40, 32 + i, 3), np.uint8)
    for i in range(3)
]
WEIGHTS = safetensors.numpy.save({"a": np.arange(50_000, dtype=np.float32)})


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The stand-in, and a huggingface_hub that was imported to know no other Hub."""
    with serve() as hub, pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_ENDPOINT", hub.url)
        patch.setenv("HF_HOME", str(tmp_path_factory.mktemp("huggingface")))
        patch.setenv("HF_HUB_DISABLE_XET", "1")
        for name in [n for n in sys.modules if n.split(".")[0] == "huggingface_hub"]:
            patch.delitem(sys.modules, name)
        yield hub


@pytest.fixture
def hub(server, tmp_path, monkeypatch):
    """The stand-in with an empty cache, and without a token."""
    from huggingface_hub import constants

    server.repos.clear()
    server.requests.clear()
    shutil.rmtree(constants.HF_HUB_CACHE, ignore_errors=True)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    return server


@pytest.fixture
def token(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)


@pytest.fixture
def copied_run(small_run, tmp_path):
    """A run of one's own, calibrated and evaluated; `sample_results` are its figures."""
    run = Path(shutil.copytree(small_run, tmp_path / "private" / "run"))
    step = rmjax.load(run, num_devices=1).checkpoint
    save_calibration(run, step, Calibration(images=9, attribution=2.5, detection=0.5))
    results = sample_results()
    results["run"] |= {"checkpoint": step, "workdir": str(run)}
    results["run"]["config"]["data"]["dir"] = str(tmp_path / "private")
    results["evaluation"]["command"] = f"rmjax evaluate --workdir {run}"
    results["data"]["directory"] = str(tmp_path / "private" / "data" / "mini")
    write_run(run, results)
    (run / "metrics.jsonl").write_bytes((small_run / "metrics.jsonl").read_bytes())
    return run


def error_line(capsys, *arguments):
    """Run a command that must fail; return its one line."""
    capsys.readouterr()
    assert main([*map(str, arguments)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def uploaded(hub, repo="user/mine", branch="main"):
    """Return the files of a repository by name."""
    repository = hub.repos[repo]
    return repository.commits[repository.refs[branch]]


# Addresses.


@pytest.mark.parametrize(
    "text",
    ["hf:", "hf:name", "hf:a/b/c", "hf:us er/x", "hf:a/b@", "hf:a/b@x y", "hf:a/..",
     "hf:a/b@../../x", "hf:ü/x", "HF:a/b", "hf:a/b\n"],
)  # fmt: skip
def test_what_is_no_address(text):
    with pytest.raises(InputError, match="OWNER/NAME"):
        parse_address(text)


def test_an_address():
    address = parse_address("hf:open-ai/clip.v1_x@refs/pr/1")
    assert (address.repo, address.revision) == ("open-ai/clip.v1_x", "refs/pr/1")
    assert parse_address("hf:a/b").revision is None


# Downloads.


def index(*shards):
    return json.dumps(
        {"weight_map": {f"t{i}": n for i, n in enumerate(shards)}}
    ).encode()


@pytest.mark.parametrize(
    ("there", "needed"),
    [
        ("model.safetensors pytorch_model.bin tf_model.h5", "model.safetensors"),
        (
            "model.safetensors.index.json s1.safetensors s2.safetensors s3.safetensors "
            "pytorch_model.bin",
            "model.safetensors.index.json s1.safetensors s2.safetensors",
        ),
        ("pytorch_model.bin flax_model.msgpack", "pytorch_model.bin"),
        (
            "pytorch_model.bin.index.json s1.safetensors s2.safetensors s3.safetensors",
            "pytorch_model.bin.index.json s1.safetensors s2.safetensors",
        ),
    ],
)
def test_only_what_is_needed_is_fetched(hub, there, needed):
    beside = ["config.json", "preprocessor_config.json"]
    names = [*beside, *there.split(), "README.md", "tokenizer.json"]
    files = {name: name.encode() for name in names}
    files |= {
        name: index("s1.safetensors", "s2.safetensors", "s1.safetensors")
        for name in files
        if name.endswith("index.json")
    }
    commit = hub.add("a/b", files)
    snapshot = download("hf:a/b")
    assert snapshot.provenance == {"hub": "hf:a/b", "commit": commit}
    assert hub.fetched() == [*beside, *needed.split()]
    assert {path.name for path in snapshot.folder.iterdir()} == {*hub.fetched()}
    assert download("hf:a/b") == snapshot
    assert len(hub.fetched()) == len({*hub.fetched()})  # from the cache


def test_a_revision_stays_what_it_was(hub):
    first = hub.add("a/b", {"model.safetensors": b"1"})
    hub.repos["a/b"].refs["v1"] = first
    second = hub.repos["a/b"].commit({"model.safetensors": b"2"})
    for revision, commit, content in (
        (f"@{first}", first, b"1"),
        ("@v1", first, b"1"),
        ("", second, b"2"),
    ):
        snapshot = download(f"hf:a/b{revision}")
        assert snapshot.provenance["commit"] == commit
        assert (snapshot.folder / "model.safetensors").read_bytes() == content


@pytest.mark.parametrize(
    ("address", "files", "word"),
    [
        ("hf:a/none", {}, "hf:a/none"),
        ("hf:a/b@v9", {"model.safetensors": b""}, "v9"),
        ("hf:a/b@" + 40 * "0", {"model.safetensors": b""}, 40 * "0"),
        ("hf:a/b", {"config.json": b"{}"}, "model.safetensors"),
        ("hf:a/b", {"model.safetensors.index.json": index("s7")}, "s7"),
        ("hf:a/b", {"model.safetensors.index.json": b"[]"}, "index"),
        ("hf:a/b", {"model.safetensors.index.json": index(None, "s")}, "index"),
        ("hf:a/b", {"model.safetensors.index.json": index("../../s")}, "../../s"),
    ],
)
def test_what_is_not_there_is_one_line(hub, capsys, tmp_path, address, files, word):
    hub.add("a/b", files)
    line = error_line(capsys, "convert", address, "--out", tmp_path / "run")
    assert address in line and word in line and not [*tmp_path.iterdir()]


def test_a_download_that_broke_off_goes_on(hub, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 10_000)  # of 10 MiB
    hub.add("a/b", {"model.safetensors": WEIGHTS})
    hub.cuts = 1
    file = download("hf:a/b").folder / "model.safetensors"
    assert file.read_bytes() == WEIGHTS
    assert [r for *_, r in hub.requests if r] == ["bytes=100000-"]


def test_a_private_repository(hub, capsys, monkeypatch, tmp_path):
    hub.add("user/b", {"model.safetensors": WEIGHTS}, private=True)
    command = ["embed", "--workdir", "hf:user/b", "--images", "x"]
    line = error_line(capsys, *command, "--out", tmp_path / "f.npz")
    assert "hf:user/b" in line and "HF_TOKEN" in line
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert (download("hf:user/b").folder / "model.safetensors").exists()


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_file_that_is_not_what_was_stated(hub, name):
    files = {"config.json": b"{...}", "model.safetensors": WEIGHTS}
    hub.add("a/b", files)
    hub.sent_instead = {name: files[name][:-1] + b"?"}
    with pytest.raises(InputError, match=name):
        download("hf:a/b")
    hub.sent_instead = {}
    file = download("hf:a/b").folder / name
    assert file.read_bytes() == files[name]
    file.resolve().chmod(0o644)
    file.resolve().write_bytes(files[name][:-1] + b"!")  # in the cache
    with pytest.raises(InputError, match=name):
        download("hf:a/b")
    assert (download("hf:a/b").folder / name).read_bytes() == files[name]


def test_a_full_disk(hub, capsys, tmp_path):
    from huggingface_hub import constants

    hub.add("a/b", {"model.safetensors": WEIGHTS})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(InputError, match=r"hf:a/b.*File too large"):
            download("hf:a/b")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not [p for p in Path(constants.HF_HUB_CACHE).rglob("*") if is_large(p.name)]
    file = download("hf:a/b").folder / "model.safetensors"
    assert file.read_bytes() == WEIGHTS


@pytest.mark.parametrize("how", ["offline", "no network"])
def test_without_a_connection_the_cache_serves(hub, monkeypatch, how):
    from huggingface_hub import constants

    hub.add("a/b", {"model.safetensors": WEIGHTS, "config.json": b"{}", "x": b""})
    hub.add("a/other", {"model.safetensors": WEIGHTS})
    online = download("hf:a/b")
    if how == "offline":
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    else:
        monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    hub.requests.clear()
    assert download("hf:a/b") == online
    pinned = download(f"hf:a/b@{online.provenance['commit']}")
    assert pinned.folder == online.folder
    word = "HF_HUB_OFFLINE" if how == "offline" else "127.0.0.1:9"
    for address in ("hf:a/other", "hf:a/b@v2", "hf:a/b@" + 40 * "1"):
        with pytest.raises(InputError, match=f"{address}.*{word}"):
            download(address)
    assert not hub.requests
    file = online.folder / "model.safetensors"
    file.resolve().chmod(0o644)
    file.resolve().write_bytes(b"")
    with pytest.raises(InputError, match=r"model\.safetensors"):
        download("hf:a/b")


def test_without_the_library_one_line_says_what_to_install(
    hub, small_run, monkeypatch, capsys, tmp_path
):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    line = error_line(capsys, "convert", "hf:a/b", "--out", tmp_path / "run")
    assert "rmjax[hub]" in line
    assert "rmjax[hub]" in error_line(capsys, "push", small_run, "hf:a/b")
    file = tmp_path / "run.safetensors"
    assert main(["export", "--workdir", str(small_run), "--out", str(file)]) == 0
    assert rmjax.load_pretrained(file, num_devices=1).source_names


def test_weights_of_others(hub, tmp_path, capsys):
    model = RepMix("resnet18", 0, embedding_dim=10)
    x = jax.ShapeDtypeStruct((1, 32, 32, 3), np.float32)
    rng = np.random.default_rng(0)
    variables = jax.tree.map(
        lambda leaf: rng.uniform(0.5, 1, leaf.shape).astype(np.float32),
        jax.eval_shape(model.init, jax.random.key(0), x),
    )
    weights = safetensors.numpy.save(to_imagenet(variables))
    commit = hub.add("a/resnet", {"model.safetensors": weights, "config.json": b"{}"})
    origin = {"hub": "hf:a/resnet", "commit": commit}
    out = tmp_path / "run"
    assert main(["convert", "hf:a/resnet", "--out", str(out)]) == 0
    assert commit in capsys.readouterr().out
    provenance = load_facts(out)["provenance"]
    assert provenance["layout"] == "imagenet" and origin.items() <= provenance.items()
    loaded = rmjax.load_pretrained("hf:a/resnet", num_devices=1)
    assert loaded.name == "hf:a/resnet" and loaded.layer == "pool"
    assert loaded.provenance == provenance
    assert loaded.digest == rmjax.load(out, num_devices=1).digest
    changes = ["--config.model.arch=resnet18", "--config.model.init=hf:a/resnet"]
    start = starting_backbone(load_config("repmix", changes))
    jax.tree.map(
        np.testing.assert_array_equal,
        start["params"]["backbone"]["stem"],
        loaded.variables["params"]["backbone"]["stem"],
    )
    with pytest.raises(InputError, match="rmjax convert"):
        rmjax.load("hf:a/resnet")


def test_a_vision_transformer_in_several_files(hub):
    folder = SHARED / "golden" / "vit" / "dinov2"
    if not folder.is_dir():
        pytest.skip(f"no published model at {folder}")
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    shards = {name: f"s{i % 2}.safetensors" for i, name in enumerate(tensors)}
    files = {
        shard: safetensors.numpy.save(
            {n: tensors[n] for n in tensors if shards[n] == shard}
        )
        for shard in shards.values()
    }
    files["model.safetensors.index.json"] = json.dumps({"weight_map": shards}).encode()
    files["config.json"] = (folder / "config.json").read_bytes()
    commit = hub.add("a/dinov2", files | {"pytorch_model.bin": b"the same again"})
    model = rmjax.load_pretrained("hf:a/dinov2", num_devices=1)
    assert {*hub.fetched()} == {*files}
    assert model.digest == rmjax.load_pretrained(folder, num_devices=1).digest
    assert {"hub": "hf:a/dinov2", "commit": commit}.items() <= model.provenance.items()


# Runs.


def test_a_pushed_run_is_the_same_again(
    hub, token, small_run, tmp_path, capsys, caplog
):
    caplog.set_level("INFO")
    run = rmjax.load(small_run, num_devices=1)
    assert main(["push", str(small_run), "hf:user/mine", "--private"]) == 0
    assert hub.repos["user/mine"].private
    commit = hub.repos["user/mine"].refs["main"]
    out = capsys.readouterr().out
    assert "hf:user/mine" in out and commit in out
    assert {*uploaded(hub)} == {
        ".gitattributes",
        "README.md",
        "config.json",
        "model.safetensors",
    }
    hub.requests.clear()
    loaded = rmjax.load("hf:user/mine", num_devices=1)
    assert hub.fetched() == ["config.json", "model.safetensors"]
    assert loaded.provenance == {"hub": "hf:user/mine", "commit": commit}
    (tmp_path / "folder").mkdir()
    for name, data in uploaded(hub).items():
        (tmp_path / "folder" / name).write_bytes(data)
    made = tmp_path / "made"
    assert main(["convert", "hf:user/mine", "--out", str(made)]) == 0
    for other in (loaded, *(rmjax.load(f, num_devices=1) for f in tmp_path.iterdir())):
        assert other.source_names == run.source_names
        assert (other.digest, other.checkpoint) == (run.digest, run.checkpoint)
        np.testing.assert_array_equal(other.embed(IMAGES), run.embed(IMAGES))
    assert load_facts(made)["provenance"]["commit"] == commit
    assert load_facts(made)["training"] == run.training
    assert "HTTP" not in caplog.text  # the requests are nobody's business
    assert "step 7" in error_line(
        capsys, "export", "--workdir", "hf:user/mine", "--checkpoint", "step 7", "--out",
        tmp_path / "x.safetensors",
    )  # fmt: skip


def test_fingerprints_without_sources(hub, token, fingerprint_run):
    run = rmjax.load(fingerprint_run, num_devices=1)
    push(fingerprint_run, "hf:user/mine")
    loaded = rmjax.load_pretrained("hf:user/mine", num_devices=1)
    assert (loaded.layer, loaded.source_names) == ("embedding", ())
    np.testing.assert_array_equal(loaded.embed(IMAGES), run.embed(IMAGES))


def test_the_card_says_what_was_measured(hub, token, copied_run):
    from huggingface_hub import ModelCard

    push(copied_run, "hf:user/mine", license="cc-by-4.0", message="the first")
    files = uploaded(hub)
    results = json.loads(files["evaluation/full/results.json"])
    card = ModelCard(files["README.md"].decode())
    assert (card.data.license, card.data.library_name) == ("cc-by-4.0", "rmjax")
    assert card.data.pipeline_tag == "image-classification"
    figures = {
        (entry.dataset_config, entry.metric_name): entry
        for entry in card.data.eval_results
    }
    for subset in ("seen", "unseen"):
        for conditions in SETS:
            means = results["summary"][subset][conditions]
            value, low, high = (
                means[f"attribution_accuracy{end}"] for end in ("", "_low", "_high")
            )
            where = f"{subset} semantics, {conditions.replace('_', ' ')}"
            entry = figures[where, "attribution accuracy"]
            assert entry.metric_value == value and entry.dataset_split == "test"
            assert entry.metric_args == {"interval_95": [low, high]}
            line = next(row for row in card.text.splitlines() if where in row)
            assert all(f"{100 * share:.1f}" in line for share in (value, low, high))
    assert 'rmjax.load("hf:user/mine")' in card.text and "2.500" in card.text
    loaded = rmjax.load("hf:user/mine", num_devices=1)
    assert all(name in card.text for name in loaded.source_names)
    assert loaded.calibration.attribution == 2.5


def test_no_path_of_this_machine_is_uploaded(
    hub, token, copied_run, mini_dir, tmp_path
):
    push(copied_run, "hf:user/mine")
    assert json.loads(uploaded(hub)["config.json"])["data"]["dir"] == mini_dir.name
    for name, data in uploaded(hub).items():
        assert not any(str(p).encode() in data for p in (tmp_path, mini_dir.parent)), (
            name
        )
    results = json.loads(uploaded(hub)["evaluation/full/results.json"])
    assert results["mistakes"] == []  # these are images


def test_another_push_is_one_commit_and_leaves_nothing_old(hub, token, copied_run):
    push(copied_run, "hf:user/mine")
    shutil.rmtree(copied_run / "evaluation")
    (copied_run / "calibration.json").unlink()
    hub.repos["user/mine"].commit(uploaded(hub) | {"notes.txt": b"mine"})
    hub.requests.clear()
    done = push(copied_run, "hf:user/mine", revision="next")
    assert done.commit == hub.repos["user/mine"].refs["next"]
    assert [path for _, path, _ in hub.requests if "/commit/" in path] == [
        "/api/models/user/mine/commit/next"
    ]
    kept = {".gitattributes", "notes.txt", "README.md", "config.json"}
    assert {*uploaded(hub, branch="next")} == kept | {"model.safetensors"}
    assert "calibration.json" in uploaded(hub)  # the main branch is as it was
    assert rmjax.load("hf:user/mine@next").calibration.images == 0
    assert rmjax.load("hf:user/mine").calibration.images == 9


def test_what_is_not_pushed_is_one_line(hub, copied_run, capsys, monkeypatch, tmp_path):
    assert "HF_TOKEN" in error_line(capsys, "push", copied_run, "hf:user/mine")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.add("other/theirs", {"README.md": b""})
    hub.add("user/public", {"README.md": b""})
    for address, options, word in (
        ("hf:other/theirs", (), "403"),
        ("hf:other/new", (), "403"),
        ("hf:user/public", ["--private"], "public"),
        ("hf:user/mine@next", (), "--revision"),
        ("user/mine", (), "OWNER/NAME"),
    ):
        line = error_line(capsys, "push", copied_run, address, *options)
        assert word in line and address in line
    row = {"step": 9, "kind": "train", "epoch": 1.5}
    (copied_run / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    assert "1.5 of 3" in error_line(capsys, "push", copied_run, "hf:user/mine")
    line = error_line(capsys, "push", tmp_path / "none", "hf:user/mine")
    assert str(tmp_path / "none") in line
    assert not any("/commit/" in path for _, path, _ in hub.requests)
    for repo in ("other/theirs", "user/public"):
        assert uploaded(hub, repo) == {"README.md": b""}


def test_evaluate_works_on_a_copy(
    hub, token, small_run, mini_dir, tmp_path, monkeypatch, capsys
):
    push(small_run, "hf:user/mine")
    monkeypatch.chdir(tmp_path)
    copy = Path("runs", "user--mine")
    assert main(["report", "--workdir", "hf:user/mine"]) == 2
    assert f"no evaluation in {copy}" in capsys.readouterr().err
    command = ["evaluate", "--workdir", "hf:user/mine", "--data-dir", str(mini_dir)]
    assert main([*command, "--bootstrap", "10"]) == 0
    assert f"--workdir {copy}" in capsys.readouterr().out
    assert (copy / "evaluation" / "clean" / "results.json").exists()
    assert rmjax.load(copy).calibration.images > 0
    hub.repos["user/mine"].commit(uploaded(hub) | {"notes.txt": b""})
    line = error_line(capsys, *command)
    assert str(copy) in line and hub.repos["user/mine"].refs["main"] in line
    line = error_line(capsys, *command, "--distributed")
    assert "hf:user/mine" in line


def test_nothing_is_trained_on_the_hub(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--config", "repmix", "--workdir", "hf:user/mine"])
    assert "rmjax push" in capsys.readouterr().err
