"""Figures: they show what they are given, whatever it lacks, the same every time."""

import io
import re

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.text import Text
from PIL import Image
from results_sample import SOURCES, UNSEEN, sample_results

from rmjax.report import figures_accuracy as accuracy
from rmjax.report import figures_trust as trust
from rmjax.report import view
from rmjax.report.figures import SETS, SUBSETS, ink, render, short, write_figures
from rmjax.report.figures_sweep import seen_against
from rmjax.report.page import draw_figures

LONG = "a-generator-with-a-name-of-sixty-characters-and-$x^$ in it-01"
ROWS = [
    {"step": 1, "kind": "train", "loss": 2.0, "accuracy": 0.1},
    {"step": 2, "kind": "train", "loss": 1.0, "accuracy": 0.4},
    {"step": 2, "kind": "validation", "loss": 1.5, "attribution_accuracy": 0.3},
]


@pytest.fixture(scope="module")
def results():
    return sample_results()


def cells(results, group="seen"):
    return [cell for cell in results["cells"] if cell["semantics"] == group]


def texts(figure):
    """All words of a figure, without drawing it."""
    axes = figure.axes
    found = [text.get_text() for axis in axes for text in axis.texts]
    for axis in axes:
        for ticks in (axis.get_xticklabels(), axis.get_yticklabels()):
            found += [tick.get_text() for tick in ticks]
    return found


def test_every_figure_of_an_evaluation_is_drawn_and_as_wide_as_a_phone(results):
    figures = draw_figures(results, ROWS)
    assert set(figures) == {
        *(f"robustness_{g}" for g in ("seen", "unseen")),
        *(f"confusion_{g}" for g in ("seen", "unseen", "unseen_corruptions")),
        *("semantics_attribution", "semantics_detection"),
        *("recall", "recall_by_semantic", "map_source", "map_semantic"),
        *(
            f"reliability_{what}_{part}"
            for what in ("attribution", "detection")
            for part in ("clean", "unseen_corruptions")
        ),
        *("operating_point_0.05", "operating_point_0.01"),
        *(f"open_set_{c}_{k}" for c in ("roc", "oscr") for k in ("near", "far")),
        *("training_loss", "training_accuracy"),
    }
    for name, figure in figures.items():
        assert figure.get_figwidth() == 5, name
        assert min(text.get_size() for text in figure.findobj(Text)) >= 7, name


def test_only_what_there_is_gets_a_figure():
    bare = sample_results(unseen=[], full=False, calibrated=False, open_set=False)
    assert set(draw_figures(bare, [])) == {
        *("confusion_seen", "recall", "recall_by_semantic"),
        *("map_source", "map_semantic"),
        *("reliability_attribution_clean", "reliability_detection_clean"),
    }


def test_new_pairs_are_drawn_beside_seen_and_unseen():
    results = sample_results(new_pairs=True, full=False, open_set=False)
    figures = draw_figures(results, [])
    assert "confusion_new_pairs" in figures
    drawn = markers(figures["recall"])
    recall = results["clean"]["new_pairs"]["recall"]
    assert drawn[SUBSETS["new_pairs"]["marker"]][0] == list(recall.values())
    legend = [t.get_text() for t in figures["map_semantic"].legends[0].get_texts()]
    assert len(legend) == len(set(legend))


def markers(figure):
    """Places of dots by their marker, without those that are none: x, y."""
    found = {}
    for line in figure.axes[0].lines:
        if line.get_marker() not in ("None", None, ""):
            x, y = found.setdefault(line.get_marker(), ([], []))
            x += list(line.get_xdata())
            y += list(line.get_ydata())
    return found


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("more", [{}, {"new_pairs": True}, {"unseen": []}])
def test_shares_of_subsets_are_drawn_and_their_gaps_written(more, full):
    summary = sample_results(full=full, **more)["summary"]
    subsets = [subset for subset in SUBSETS if subset in summary]
    sets = [name for name in SETS if name in summary["seen"]]
    figure = accuracy.seen_unseen(summary, "attribution_accuracy", 0.125)
    drawn = markers(figure)
    assert len(drawn) == len(subsets)
    rows = []
    for subset in subsets:
        x, y = drawn[SUBSETS[subset]["marker"]]
        assert x == [summary[subset][s]["attribution_accuracy"] for s in sets]
        rows += y
    assert len(set(rows)) == len(sets) * len(subsets)
    written = texts(figure)
    for subset in set(subsets) - {"seen"}:
        for name in sets:
            less = view.gap(summary, subset, conditions=name)
            assert f"{100 * less:.1f}".replace("-", "−") in written
    assert ("gap" in written) == (len(subsets) > 1)
    figure.draw_without_rendering()
    box = figure.get_tightbbox()
    assert box.x1 <= figure.get_figwidth() and box.x0 >= 0


def test_a_gap_is_seen_minus_the_other():
    of = {"seen": 0.9, "unseen": 0.7, "new_pairs": None}
    summary = {g: {"clean": {"attribution_accuracy": v}} for g, v in of.items()}
    assert view.gap(summary, "unseen") == pytest.approx(0.2)
    for subset in ("seen", "new_pairs", "chosen"):
        assert view.gap(summary, subset) is None
    figure = accuracy.seen_unseen(summary, "attribution_accuracy", 0.1)
    assert "20.0" in texts(figure) and "–" in texts(figure)


def sweep_rows(count, reach=0.02):
    """Rows of so many cells, and their names; the first has no intervals."""
    rng = np.random.default_rng(0)
    names = {f"{i}": f"mix.name=mixing-of-kind-{i}" for i in range(count)}
    rows = []
    for label in names:
        seen = rng.uniform(0.93, 0.97)
        shares = {"seen": seen, "unseen": seen - rng.uniform(0, 0.04)}
        for subset, mean in shares.items():
            ends = (None, None) if label == "0" else (mean - reach, mean + reach)
            keys = ("cell", "semantics", "mean", "mean_low", "mean_high")
            rows.append(dict(zip(keys, (label, subset, mean, *ends), strict=True)))
    return rows, names


@pytest.mark.parametrize("count", [1, 3, 24])
def test_cells_are_where_their_shares_are_and_no_name_hides_another(count):
    rows, names = sweep_rows(count)
    figure = seen_against(rows, names, "unseen", reference="0")
    axes = figure.axes[0]
    of = {(row["cell"], row["semantics"]): row["mean"] for row in rows}
    labels = [text for text in axes.texts if hasattr(text, "xy")]
    # Each name has a line to the dot of its own cell.
    for text in labels:
        number = re.search(r"kind-(\d+)", text.get_text())[1]
        assert text.xy == (of[number, "seen"], of[number, "unseen"])
    drawn = markers(figure)
    assert drawn["*"] == ([of["0", "seen"]], [of["0", "unseen"]])
    places = {dot for of_kind in drawn.values() for dot in zip(*of_kind, strict=True)}
    assert places == {(of[n, "seen"], of[n, "unseen"]) for n in names}
    # Equal shares, which have no gap, are in sight from end to end.
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    assert bottom <= left and right <= top
    figure.draw_without_rendering()
    boxes = [Text.get_window_extent(text) for text in labels]
    assert len(boxes) == count
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    dots = axes.get_window_extent()
    assert all(box.x0 >= dots.x1 and box.x1 <= figure.bbox.x1 for box in boxes)
    figure.savefig(stream := io.BytesIO(), format="svg")
    assert len(stream.getvalue()) < 100_000


def test_cells_without_other_semantics_have_no_gap_to_draw():
    rows, names = sweep_rows(2)
    assert seen_against(rows, names, "new_pairs") is None
    rows += [row | {"semantics": "new_pairs"} for row in rows if row["cell"] == "1"]
    figure = seen_against(rows, names, "new_pairs")
    assert len(markers(figure)["o"][0]) == 1


def test_files_are_pictures_and_the_same_every_time(results, tmp_path):
    first, second = (render(accuracy.robustness(cells(results))) for _ in range(2))
    assert first == second
    assert b"<dc:date>" not in first["svg"]
    write_figures({"a": first}, tmp_path / "figures")
    assert sorted(p.name for p in (tmp_path / "figures").iterdir()) == [
        "a.png",
        "a.svg",
    ]
    width, height = Image.open(io.BytesIO(first["png"])).size
    assert width == 1000 and height > width  # portrait


def test_robustness_writes_each_share_and_frames_the_least(results):
    own = [c | {"attribution_accuracy": 0.8} for c in cells(results)]
    own[7]["attribution_accuracy"] = 0.03
    own[8]["attribution_accuracy"] = None
    figure = accuracy.robustness(own)
    assert {"80", "3", "–", "90", "0.25", "unseen corruptions"} <= set(texts(figure))
    frames = [p for p in figure.axes[0].patches if not p.get_fill()]
    assert len(frames) == 1
    kind = own[7]["kind"].replace("_", " ")
    row = [tick.get_text() for tick in figure.axes[0].get_yticklabels()].index(kind)
    place = figure.axes[0].get_yticks()[row]
    assert frames[0].get_y() < place < frames[0].get_y() + frames[0].get_height()
    assert frames[0].get_x() == own[7]["value"] - 1


def test_kinds_stand_by_their_sets_whatever_the_order_of_the_suite(results):
    own = cells(results)
    mixed = [own[0], own[-1], own[80], own[1], own[-2]]
    heads = [t for t in texts(accuracy.robustness(mixed)) if t in SETS.values()]
    assert heads[:3] == ["seen corruptions", "unseen corruptions", "resharing"]


def test_differences_are_signed_and_white_at_zero(results):
    own = [c | {"difference": 0.0} for c in cells(results)[:4]]
    own[1]["difference"] = -0.12
    own[2]["difference"] = -0.001
    figure = accuracy.robustness_difference(own)
    assert {"−12", "0"} <= set(texts(figure)) and not {"+0", "−0"} & set(texts(figure))
    white = [p.get_facecolor()[:3] for p in figure.axes[0].patches]
    assert any(min(colour) > 0.95 for colour in white)


def test_confusion_shades_by_share_of_the_true_source():
    counts = [[10, 0], [5, 5]]
    files = render(accuracy.confusion(counts, ["real", "gan"]))
    picture = Image.open(io.BytesIO(files["png"])).convert("RGB")
    pixels = np.asarray(picture).reshape(-1, 3)
    colours, times = np.unique(pixels, axis=0, return_counts=True)
    large = {tuple(c) for c, n in zip(colours, times, strict=True) if n > 10_000}
    # The darkest blue for 1, a middle blue for 1/2, nearly white for 0.
    assert (8, 48, 107) in large
    assert any(90 < r < 120 and 150 < b < 230 for r, _, b in large)
    assert (247, 251, 255) in large


@pytest.mark.parametrize(
    ("count", "numbers", "names"), [(8, 1, 1), (20, 0, 1), (88, 0, 0)]
)
def test_large_matrices_are_no_mess(count, numbers, names):
    sources = [f"source {i}" for i in range(count)]
    figure = accuracy.confusion((np.eye(count) * 7).tolist(), sources)
    words = texts(figure)
    assert ("100" in words) == numbers
    assert len(figure.axes) == 2 - numbers  # the other is a colour bar
    assert ("source 7" in words) == names
    assert figure.get_figheight() < 8


def test_sources_without_images_are_named(results):
    recalls = {
        "seen": {"real": 0.5, "cips": None},
        "unseen": {"real": 0.25, "cips": None},
    }
    assert "no images" in texts(accuracy.recall(recalls))
    counts = [[0, 0], [1, 3]]
    assert "75" in texts(accuracy.confusion(counts, ["real", "gan"]))


def test_hostile_names_are_text(results):
    names = [LONG, LONG[:-1] + "2", "<script>", "a\nb", "日本"]
    figure = accuracy.confusion(np.eye(5).tolist(), names)
    render(figure)
    shown = texts(figure)
    assert "<script>" in shown and "a b" in shown
    ends = [name for name in shown if name.startswith("a-gen")]
    assert len(set(ends)) == 2 and max(map(len, ends)) <= 18
    outside = trust.fingerprint_map(
        [0, 1], [0, 1], [LONG, "cat"], [LONG, "cat"], {LONG}
    )
    assert b"<svg" in render(outside)["svg"]


def test_shortened_names_keep_both_ends():
    assert short("real") == "real"
    assert short(LONG) == "a-generat…in it-01"
    assert short(" a \n b ") == "a b"


def test_map_names_the_most_frequent_and_greys_the_rest():
    for count, rest in ((20, 0), (23, 1)):
        names = [f"n{i}" for i in range(count)] + ["n22"] * rest
        numbers = range(len(names))
        figure = trust.fingerprint_map(numbers, numbers, names, sorted(set(names)))
        shown = [text.get_text() for text in figure.legends[0].get_texts()]
        assert len(shown) == 20 + rest and ("3 others" in shown) == rest
        assert ("n22" in shown) == rest
        looks = {
            (*points.get_facecolor()[0], points.get_paths()[0].vertices.tobytes())
            for points in figure.axes[0].collections
        }
        assert len(looks) == 20 + rest


def test_hollow_points_are_of_names_not_trained_with():
    hollow = trust.fingerprint_map([0, 1], [0, 1], ["a", "b"], ["a", "b"], {"b"})
    a, b = hollow.axes[0].collections
    assert len(a.get_facecolor()) and not len(b.get_facecolor())


def test_reliability_without_calibration_has_one_curve(results):
    bins = results["reliability"]["seen"]["clean"]["attribution"]
    both = trust.reliability(bins["uncalibrated"], bins["calibrated"])
    one = trust.reliability(bins["uncalibrated"], None)
    assert [len(f.axes[0].get_legend().get_texts()) for f in (both, one)] == [2, 1]
    points = one.axes[0].lines[1]
    assert points.get_ydata().tolist() == [b["accuracy"] for b in bins["uncalibrated"]]
    counts = [b["images"] for b in bins["uncalibrated"]]
    assert f"n = {min(counts)} to {max(counts)} a point" in texts(one)


def test_letters_can_be_read_on_every_shade():
    def luminance(colour):
        parts = np.array(to_rgb(colour))
        low = parts <= 0.04045
        return np.where(low, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4) @ (
            (0.2126, 0.7152, 0.0722)
        )

    for name in ("Blues", "RdBu"):
        for share in np.linspace(0, 1, 41):
            colour = matplotlib.colormaps[name](share)
            ends = sorted((luminance(colour[:3]), luminance(ink(colour))))
            assert (ends[1] + 0.05) / (ends[0] + 0.05) >= 4.5


def test_operating_points_are_means_over_severities(results):
    own = cells(results)
    figure = trust.operating_points(own, "0.05")
    fog = np.mean([c["tpr_at_0.05"] for c in own if c["kind"] == "fog"])
    lines = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    drawn = np.concatenate([line.get_xdata() for line in lines])
    assert np.isclose(drawn, fog).any()


def test_curves_name_their_areas(results):
    measures = {s: m["near"] for s, m in results["open_set"]["scores"].items()}
    legend = trust.roc(measures).axes[0].get_legend().get_texts()
    assert re.fullmatch(r"max probability: AUROC 0\.\d{3}", legend[0].get_text())
    assert len(legend) == 4
    measures["energy"] = measures["energy"] | {"oscr": None}
    legend = trust.oscr(measures).axes[0].get_legend().get_texts()
    assert legend[1].get_text() == "energy: OSCR –"


def test_training_of_a_run_without_validation():
    figure = accuracy.training(ROWS[:2], {"train": "loss", "validation": "loss"}, False)
    assert [len(line.get_xdata()) for line in figure.axes[0].lines] == [2]
    assert accuracy.training([], {"train": "loss"}, False) is None


def test_recall_by_semantic_marks_the_unseen_ones(results):
    shares = results["clean"]["combined"]["recall_by_semantic"]
    shown = texts(accuracy.recall_by_semantic(shares, UNSEEN))
    assert "cow *" in shown and "cat" in shown and "cat *" not in shown
    assert set(SOURCES) <= set(shown)


def test_recall_by_semantic_frames_new_pairs(results):
    shares = results["clean"]["combined"]["recall_by_semantic"]
    seen = [name for name in shares if name not in UNSEEN]
    trained = dict.fromkeys(SOURCES, seen) | {SOURCES[1]: seen[1:]}
    figure = accuracy.recall_by_semantic(shares, UNSEEN, trained)
    (frame,) = figure.axes[0].patches
    # Second row, first column: where the left-out pair is.
    middle = np.add(frame.get_xy(), (frame.get_width() / 2, frame.get_height() / 2))
    assert middle == pytest.approx([0.5, 1.5])
    assert not accuracy.recall_by_semantic(shares, UNSEEN).axes[0].patches
