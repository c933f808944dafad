"""Grids of a sweep: what a text expands to, and every text that is refused."""

from pathlib import Path

import pytest

from rmjax.cli.main import main
from rmjax.configs.attribution88.method import GRID
from rmjax.corruptions import SEEN
from rmjax.errors import InputError
from rmjax.experiment.config import load_config
from rmjax.sweep.grid import GRIDS, read_grid, split
from rmjax.sweep.plan import find_reference, plan_sweep
from rmjax.sweep.runs import Sweep
from rmjax.training.fit import check_fit

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def cells(mini_dir, tmp_path):
    """Function of a grid to its cells."""

    def make(grid, changes=()):
        folder = tmp_path / "sweep"
        changes = [*changes, "--config.data.eval_size=32"]  # as large as the images
        sweep = Sweep(
            folder, "attribution_mini", grid, changes=changes, data_dir=str(mini_dir)
        )
        found = plan_sweep(sweep).cells
        assert not folder.exists()
        return found

    return make


def labels(cells):
    return [cell.label for cell in cells]


def points(grid):
    return read_grid(grid, load_config("repmix"), "repmix")


def test_axes_multiply_and_the_last_goes_fastest(cells):
    found = cells("mix.name=none,repmix  mix.level=0,3,5")
    assert labels(found) == [
        f"mix.name={name},mix.level={level}"
        for name in ("none", "repmix")
        for level in (0, 3, 5)
    ]
    assert found[4].changes == {"mix.name": "repmix", "mix.level": 3}
    assert (found[4].config.mix.name, found[4].config.mix.level) == ("repmix", 3)
    assert found[4].config.data.size == 64
    # One pass over 288 single images, or over as many groups of two, by 64 images.
    epochs = [cell.steps / cell.config.num_epochs for cell in found]
    assert epochs == [4, 4, 4, 9, 9, 9]


def test_brackets_and_quotes_hold_values_together():
    grid = """data.sources=('a', 'b'),('a','c') mix.name="x y","""
    assert split(grid, None) == grid.rsplit(" ", 2)[:1] + ['mix.name="x y",']
    found = points("data.sources=('real', 'b'),('real','c'),() optim.lr=1e-3,.01")
    assert len(found) == 6
    changes = {"data.sources": ("real", "b"), "optim.lr": 0.001}
    assert found[0] == ("data.sources=real+b,optim.lr=0.001", changes)
    assert found[4][0] == "data.sources=empty,optim.lr=0.001"


def test_labels_are_names_of_folders_and_differ():
    odd = points("model.init=a/b.pth,a-b.pth,../../x,é" + f",{'y' * 300},{'y' * 299}")
    names = [label for label, _ in odd]
    assert len(set(names)) == 6
    assert all(name.isascii() and "/" not in name for name in names)
    assert max(map(len, names)) < 60
    long = points("data.name=" + "z" * 39 + " model.init=" + "y" * 40 + " mix.name="
                  + "x" * 40 + "," + "w" * 40)  # fmt: skip
    assert [len(label) for label, _ in long] == [100, 100]
    assert long[0][0] != long[1][0]


def test_an_empty_text_is_a_value_in_quotes():
    found = points("model.init='',weights.pth")
    assert found == [
        ("model.init=empty", {"model.init": ""}),
        ("model.init=weights.pth", {"model.init": "weights.pth"}),
    ]


def test_named_grids_can_be_run(cells):
    found = {name: labels(cells(name)) for name in GRIDS}
    assert all("=" in n and "/" not in n for own in found.values() for n in own)
    assert {name: len(own) for name, own in found.items()} == {
        "level": 7, "members": 4, "beta": 3, "loss": 3, "method": 11,
        "mixing": 14, "embedding": 4, "input": 3, "corruptions": 5,
    }  # fmt: skip


def test_some_of_a_named_grid_in_the_order_asked_for(cells):
    found = cells("method=frank_ridge,plain level=5,0")
    assert labels(found)[::3] == [
        "method=frank_ridge,mix.level=5",
        "method=plain,mix.level=0",
    ]
    assert [cell.config.fit.name for cell in found[::2]] == ["ridge", ""]
    # A key of the config goes before a grid of its name.
    assert labels(cells("loss=compound")) == ["loss=compound"]


def test_named_grids_are_explained(capsys):
    with pytest.raises(SystemExit):
        main(["sweep", "--help"])
    text = " ".join(capsys.readouterr().out.split())  # whatever the width of its lines
    table = (ROOT / "docs" / "sweeps.md").read_text()
    for name in GRIDS:
        assert f"{name} (" in text and f"| `{name}` | " in table


def test_named_grids_are_the_published_ablations(cells):
    assert [c.config.mix.level for c in cells("level")] == [0, 1, 2, 3, 4, 5, 6]
    corrupted = [c.config.corrupt for c in cells("corruptions")]
    assert [c.rate for c in corrupted] == [0, 0.95, 0.95, 0.95, 0.95]
    assert [len(c.names) for c in corrupted[1:]] == [1, 3, 7, 15]
    assert tuple(corrupted[2].names) == SEEN[:3]
    members = cells("members mix.name=repmix")
    assert {c.config.batch_size % c.config.mix.members for c in members} == {0}
    assert len({c.config.batch_size for c in members}) == 1


def test_methods_fit_at_the_size_of_attribution88():
    config = load_config("attribution88/method")
    found = dict(read_grid(GRID, config, "method"))
    for changes in found.values():
        own = config.copy_and_resolve_references()
        own.update_from_flattened_dict(changes)
        if own.fit.name:
            check_fit(own, num_sources=88)
    # Residuals are averaged at the places that they are looked for.
    changes = found["method=prnu"]
    sizes = [changes[f"data.{key}"] for key in ("resize", "size", "crop")]
    tested = config.data
    assert sizes == [tested.eval_resize, tested.eval_size, tested.eval_size]


KEYS = r"the keys are .*mix\.level.*optim\.lr"


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ("", "it is empty; give KEY=VALUE.*level, members"),
        ("  ", "it is empty"),
        ("mix.level=", "'mix.level=' has no values"),
        ("mix.level=1,,2", "has an empty value"),
        ("mix.level=1,", "has an empty value"),
        ("mix.levle=1", f"unknown key 'mix.levle'; {KEYS}"),
        ("mix=1", f"unknown key 'mix'; {KEYS}"),
        ("=1", "unknown key ''"),
        ("levels", "unknown grid 'levels'; .* level, members, beta"),
        ("method=plain,vgg", "'method=plain,vgg': method has no vgg; it has repmix, "),
        ("method=plain,", "'method=plain,' has an empty value"),
        ("method=", "'method=' has no values"),
        ("method=plain,plain", "would be the same run"),
        ("mix.level=x", "can't apply --config.mix.level=x"),
        ("mix.beta=nan", "mix.beta=nan is not a finite number"),
        ("seed=0,1", "seed is set by --seeds"),
        ("mix.level=1 mix.level=2", "both change mix.level; give each key once"),
        ("level mix.level=2", "'level' and 'mix.level=2' both change mix.level"),
        ("mix.beta=0.4,0.40", "would be the same run: mix.beta=0.4 and mix.beta=0.4"),
        ("data.workers=0,2", "would be the same run"),
        ("fit.images=64,128", "would be the same run"),
        ("data.sources=('a+b',),('a','b')", "would share a folder"),
        ("mix.name=a,A", "would share a folder"),
        ("data.sources=('a','b'", r"no \) at the end of"),
        ("data.sources='a", "no ' at the end"),
        ("data.sources=a)", r"'\)' closes nothing"),
        ("mix.name=foo,none", "cell mix.name=foo: unknown mixing 'foo'; .*repmix"),
        ("mix.level=5,9", "cell mix.level=9: .*0 to 6"),
        ("mix.members=2,5", "cell mix.members=5: batch_size = 64"),
        ("model.arch=tiny,vgg", "cell model.arch=vgg: unknown architecture"),
        ("model.dtype=float16", "float32, bfloat16"),
        ("model.input=sepia", "unknown .*input 'sepia'"),
        ("corrupt.rate=0.5 corrupt.names=('rain',)", "unknown rain; choose from"),
        ("data.crop=65", "data.crop = 65 px is larger"),
        ("data.sources=('real','gpt')", "unknown source 'gpt'"),
        ("data.name=image_folder/none", "rmjax prepare image_folder --name none"),
        ("patience=0", "patience = 0: give at least 1"),
    ],
)
def test_what_is_wrong_with_a_grid_is_said_before_anything_runs(cells, grid, message):
    with pytest.raises(InputError, match=message) as caught:
        cells(grid)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("seed=3", "seeds are set by --seeds"),
        ("mix.level=3", "the grid changes mix.level too"),
        ("mix.levle=3", "can't apply"),
    ],
)
def test_changes_of_all_cells_are_not_those_of_the_grid(cells, change, message):
    with pytest.raises(InputError, match=message):
        cells("mix.level=1,2", [f"--config.{change}"])


def test_a_reference_is_one_cell(cells):
    found = cells("mix.name=none,repmix mix.level=0,5")

    def reference(text):
        return find_reference(found, text, "attribution_mini").label

    assert reference("") == "mix.name=none,mix.level=0"
    assert reference("mix.name=none,mix.level=5") == "mix.name=none,mix.level=5"
    assert reference("mix.level=05,mix.name=none") == "mix.name=none,mix.level=5"
    named = cells("members mix.level=3")
    label = find_reference(named, "members=3,mix.level=3", "x").label
    assert label == "members=3,mix.level=3"
    for text, count in (("mix.level=5", "2"), ("mix.level=4", "none"), ("x", "none")):
        with pytest.raises(InputError, match=f"is {count} of the cells; give one of "):
            reference(text)
