"""Test set-up: eight CPU devices, and the reference material where it is at hand."""

import fcntl
import os
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"
# Most of the time goes into compiling networks that run for a second, half of it into
# fused kernels.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "")
    + " --xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
)
# XLA ends a process at a flag that it does not know: these versions know it.
if version("jaxlib").startswith(("0.9.", "0.10.", "0.11.", "0.12.")):
    os.environ["XLA_FLAGS"] += " --xla_cpu_use_fusion_emitters=false"
# Many tests compile the same small network; pytest's workers and other subprocesses
# inherit the folder.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    _cache = tempfile.TemporaryDirectory(prefix="rmjax-test-cache-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _cache.name
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"
# scikit-learn's threads would spin for the cores that the other worker needs.
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"

import jax
import numpy as np
import optax
import pytest
from small_settings import SMALL

from rmjax.data.dataset import Dataset
from rmjax.data.labels import hash_name
from rmjax.datasets.attribution_mini import attribution_mini_dataset_builder as mini
from rmjax.experiment.build import build_model, network_input
from rmjax.experiment.checkpoints import Checkpoints
from rmjax.experiment.config import load_config
from rmjax.experiment.data import open_data
from rmjax.experiment.run import CHECKPOINTS, start_workdir
from rmjax.experiment.step import create_state
from rmjax.inference.domain import describe_training
from rmjax.training.train import train

SHARED = Path(__file__).resolve().parents[2] / "shared"
GOLDEN = {
    "shipped": Path(__file__).resolve().parent / "golden",
    "larger": SHARED / "golden",
}


def pytest_collection_modifyitems(items):
    """Skip the tests marked `slow` unless the environment asks for them."""
    if os.environ.get("RMJAX_SLOW") != "1":
        for item in items:
            if item.get_closest_marker("slow"):
                item.add_marker(pytest.mark.skip(reason="slow: set RMJAX_SLOW=1"))


@pytest.fixture
def optimised(monkeypatch):
    """Have `pmap` compile as for users, for tests of the last bits of a result."""
    pmap = jax.pmap

    def optimised_pmap(*arguments, **options):
        mapped, compiled = pmap(*arguments, **options), {}

        def call(*inputs):
            shapes = str(jax.tree.map(jax.typeof, inputs))
            if shapes not in compiled:
                level = {"xla_backend_optimization_level": 3}
                compiled[shapes] = mapped.lower(*inputs).compile(level)
            return compiled[shapes](*inputs)

        return call

    monkeypatch.setattr(jax, "pmap", optimised_pmap)


@pytest.fixture(scope="session", params=GOLDEN)
def golden(request) -> Path:
    """Each folder of what the published code computes; skips one not at hand."""
    folder = GOLDEN[request.param]
    if not folder.is_dir():
        pytest.skip(f"no reference outputs at {folder}")
    return folder


@pytest.fixture(scope="session")
def real_images() -> Path:
    """Folder of real generators' images; skips where it is not at hand."""
    folder = SHARED / "realimages"
    if not folder.is_dir():
        pytest.skip(f"no real images at {folder}")
    return folder


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A browser, for modules that need one; see `chromium`."""
    from chromium import open_browser  # most tests need no selenium

    with open_browser(tmp_path_factory.mktemp("browser")) as driver:
        yield driver


@pytest.fixture(scope="session")
def made_once(tmp_path_factory):
    """Function of a name and `make(folder)` to a folder that all workers share."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent

    def get(name: str, make: Callable[[Path], object]) -> Path:
        with (base / f"{name}.lock").open("a+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # until the file is closed
            folder, done = base / name, base / f"{name}.done"
            if not done.exists():
                make(folder)
                done.touch()
        return folder

    return get


@pytest.fixture(scope="session")
def mini_dir(made_once) -> Path:
    """Data directory with a small attribution_mini: 704 images of 32 px."""

    def make(folder: Path) -> None:
        mini.prepare(folder, images_per_cell=8, size=32, processes=1)

    return made_once("data", make)


class MemoryDataset(Dataset):
    """A data set whose records are a list, to be made in no time."""

    def records(self, split):
        self._check_split(split)

        class Records(list):
            def __getitems__(self, numbers):
                return [self[number] for number in numbers]

        return Records(self._labels["rows"][split])

    def labels(self, split):
        rows = self.records(split)
        labels = {
            name: np.array([row[name] for row in rows], np.int32)
            for name in ("source", "semantic")
        }
        return labels | {"group": np.array([hash_name(row["group"]) for row in rows])}


@pytest.fixture
def memory_dataset(tmp_path):
    """Function of rows (image, source, semantic, path, split, group) to a data set."""

    def make(rows):
        sources = sorted(
            {row["source"] for row in rows}, key=lambda n: (n != "real", n)
        )
        semantics = sorted({row["semantic"] for row in rows})
        by_split = {}
        for row in rows:
            record = {
                "image": row["image"],
                "source": sources.index(row["source"]),
                "semantic": semantics.index(row["semantic"]),
                "path": row["path"].encode(),
                "group": row.get("group", row["path"]).encode(),
            }
            by_split.setdefault(row["split"], []).append(record)
        sizes = {split: len(found) for split, found in by_split.items()}
        names = (tuple(sources), tuple(semantics))
        return MemoryDataset(tmp_path, *names, sizes, _labels={"rows": by_split})

    return make


@pytest.fixture(scope="session")
def small_config(mini_dir):
    """Function `(**changes by dotted key)` to the shipped config, shrunk to seconds."""

    def make(**changes):
        config = load_config("attribution_mini")
        small = SMALL | {"data.dir": str(mini_dir)}
        config.update_from_flattened_dict(small | changes)
        return config

    return make


@pytest.fixture(scope="session")
def small_run(small_config, made_once) -> Path:
    """Workdir of a finished small run; not to be changed: other workers read it."""

    def make(folder: Path) -> None:
        train(small_config(), folder, show_progress=False)

    return made_once("run", make)


@pytest.fixture(scope="session")
def fingerprint_run(mini_dir, made_once) -> Path:
    """Workdir of a small run without heads, stopped before its first step."""

    def make(folder: Path) -> None:
        config = load_config("fingerprint")
        small = SMALL | {"data.dir": str(mini_dir), "data.name": "attribution_mini"}
        config.update_from_flattened_dict(small | {"simulate.generators": 3})
        data = open_data(config)
        shape = network_input(config).shape[1:]
        model = build_model(config, len(data.sources))
        state = create_state(model, optax.identity(), config.seed, shape)
        checkpoints = Checkpoints(folder / CHECKPOINTS)
        checkpoints.save(state, {}, 1.0)
        checkpoints.close()
        training = describe_training(data.seen)
        start_workdir(folder, config, (), (), training=training)

    return made_once("fingerprint", make)
