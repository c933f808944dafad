"""Pictures of results: they show what the figures say."""

import numpy as np
from PIL import Image

from rmjax.report import draw_confusion, draw_curves, format_table

FIGURES = {
    "images": 20,
    "attribution_accuracy": 0.75,
    "detection_accuracy": 0.9,
    "detection_head_accuracy": 0.8,
    "nmi": 0.5,
    "loss": 1.25,
    "confusion": [[10, 0], [5, 5]],
}


def test_table_has_a_line_for_each_group():
    lines = format_table({"seen": FIGURES, "unseen": FIGURES}).splitlines()
    assert len(lines) == 3
    assert lines[1].split() == "seen 20 0.7500 0.9000 0.8000 0.5000 1.2500".split()


def test_confusion_shades_by_share_of_the_true_source(tmp_path):
    draw_confusion({"seen": FIGURES}, ["real", "gan"], tmp_path / "c.png")
    pixels = np.asarray(Image.open(tmp_path / "c.png").convert("RGB")).reshape(-1, 3)
    colours, counts = np.unique(pixels, axis=0, return_counts=True)
    large = {tuple(c) for c, n in zip(colours, counts, strict=True) if n > 1000}
    # White paper and empty cells, the darkest blue for 1, a middle blue for 1/2.
    assert (8, 48, 107) in large
    assert any(90 < r < 120 and 150 < b < 230 for r, _, b in large)


def test_curves_of_a_run_without_validation(tmp_path):
    rows = [{"step": s, "kind": "train", "loss": 1 / s, "accuracy": 0} for s in (1, 2)]
    draw_curves(rows, tmp_path / "curves.png")
    assert Image.open(tmp_path / "curves.png").size[0] > 400
