"""What the scripts in examples/ do, but for the training loop (test_api.py)."""

import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from rmjax.experiment.build import build_model, build_simulation, network_input
from rmjax.experiment.config import load_config
from rmjax.experiment.ranges import check_values
from rmjax.utils.files import write_json

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def run_example(monkeypatch, name, *arguments):
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    return runpy.run_path(str(EXAMPLES / name), run_name="__main__")


@pytest.fixture(scope="module")
def free_pictures():
    return runpy.run_path(str(EXAMPLES / "free_pictures.py"))


def photograph():
    noise = np.random.default_rng(0).random((240, 320, 3))
    smooth = ndimage.gaussian_filter(noise, (5, 5, 0))
    return np.rint(255 * (smooth - smooth.min()) / np.ptp(smooth)).astype(np.uint8)


def test_tiles_are_of_the_photograph_and_not_flat(free_pictures):
    pixels, rng = photograph(), np.random.default_rng(0)
    tiles = free_pictures["cut_tiles"](Image.fromarray(pixels), rng)
    side = free_pictures["SIDE"]
    assert {tile.shape for tile in tiles} == {(side, side, 3)}
    corners = [(top, left) for top in (0, 80) for left in (0, 80, 160)]
    for top, left in corners:
        part = pixels[top : top + side, left : left + side]
        assert any(np.array_equal(part, tile) for tile in tiles)
    assert len(tiles) > len(corners)  # other scales too
    flat = Image.new("RGB", (320, 240), "gray")
    assert free_pictures["cut_tiles"](flat, rng) == []


def test_each_tile_wears_in_its_own_way(free_pictures):
    tile = photograph()[:160, :160]
    rng = np.random.default_rng(1)
    worn = np.stack([free_pictures["wear"](tile, rng) for _ in range(60)])
    assert worn.dtype == np.uint8 and worn.shape == (60, *tile.shape)
    changed = np.abs(worn.astype(int) - tile).mean((1, 2, 3))
    assert 0.2 < np.mean(changed == 0) < 0.6  # some pictures are as they were
    assert len(np.unique(changed)) > 30
    # It shows what it showed.
    blurred = ndimage.gaussian_filter(worn.astype(float), (0, 4, 4, 0))
    truth = ndimage.gaussian_filter(tile.astype(float), (4, 4, 0))
    assert np.abs(blurred - truth).max() < 12


@pytest.mark.parametrize("files", [[], ["small.png"], ["broken.png"]])
def test_a_folder_without_usable_pictures_leaves_nothing(
    tmp_path, monkeypatch, capsys, files
):
    folder, out = tmp_path / "photographs", tmp_path / "pictures"
    folder.mkdir()
    for name in files:
        Image.new("RGB", (50, 50)).save(folder / name)
        if name == "broken.png":
            (folder / name).write_bytes((folder / name).read_bytes()[:40])
    with pytest.raises(SystemExit) as stopped:
        run_example(monkeypatch, "free_pictures.py", folder, out)
    said = capsys.readouterr().err.splitlines()[-1]
    assert stopped.value.code == 2 and not out.exists()
    assert "error: " in said and (str(folder) in said or files[0] in said)


def test_choices_are_configs_that_can_be_built():
    example = runpy.run_path(str(EXAMPLES / "fingerprint_choices.py"))
    for choice in example["CHOICES"].values():
        changes = example["SETTING"] | choice.config
        config = load_config(
            "fingerprint", [f"--config.{k}={v}" for k, v in changes.items()]
        )
        check_values(config)
        assert build_simulation(config) is not None
        build_model(config, 0)
        network_input(config)


def test_table_of_choices_compares_each_with_what_ships(tmp_path, monkeypatch, capsys):
    """By what was measured before: nothing is trained."""
    names = list(runpy.run_path(str(EXAMPLES / "fingerprint_choices.py"))["CHOICES"])
    for name in names:
        for seed in (0, 1):
            gain = 0.1 if name == "without skip" else 0
            path = tmp_path / re.sub(r"\W+", "_", name) / str(seed) / "figures.json"
            path.parent.mkdir(parents=True)
            write_json(path, {"a:b,c": {"AUC": 0.6 + 0.2 * seed + gain}})
    arguments = ("--workdir", tmp_path, "--test", "a:b,c", "--seeds", "0,1")
    run_example(monkeypatch, "fingerprint_choices.py", *arguments)
    table = capsys.readouterr().out
    assert "| as shipped | 0.700 ±0.141 (+0.000) |" in table
    assert "| without skip | 0.800 ±0.141 (+0.100) |" in table
    lines = (tmp_path / "choices.csv").read_text().splitlines()
    assert lines[0] == "choice,seed,a: AUC" and len(lines) == 1 + 2 * len(names)
