"""The page of an evaluation: complete, safe whatever the names, plain about gaps."""

import json
from html.parser import HTMLParser

import pytest
from results_sample import sample_results, write_run

from rmjax.cli.main import main
from rmjax.errors import InputError
from rmjax.report.page import write_report

SCRIPT = "<script>alert(1)</script>"
LONG = "generator-" * 6


class Page(HTMLParser):
    """Tags, their attributes, and the words of a page."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.words = [], []
        self.feed(path.read_text(encoding="utf-8"))
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.words.append(data)

    def all(self, tag):
        return [found for name, found in self.tags if name == tag]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Figures of no bytes, which take no time."""
    files = {"svg": b"<svg/>", "png": b""}
    monkeypatch.setattr("rmjax.report.page.render", lambda figure: files)


@pytest.fixture
def report(tmp_path, monkeypatch):
    """Function of results to the page that is written of them."""
    monkeypatch.chdir(tmp_path)

    def make(results, **options):
        write_run(tmp_path / "run", results)
        return Page(write_report(tmp_path / "run", **options)["report"])

    return make


def test_page_is_whole_and_needs_nothing_else(report, tmp_path):
    page = report(sample_results())
    assert page.all("html") == [{"lang": "en"}]
    assert not page.all("script") and not page.all("link")
    pictures = page.all("img")
    assert len(pictures) == 23 + 12
    assert all(p["src"].startswith("data:image/") and p["alt"] for p in pictures)
    sections = [s["id"] for s in page.all("section")]
    targets = [a["href"] for a in page.all("a")]
    assert [f"#{name}" for name in sections] == targets[: len(sections)]
    levels = [int(tag[1]) for tag, _ in page.tags if tag in ("h1", "h2", "h3")]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(b - a <= 1 for a, b in zip(levels, levels[1:], strict=False))
    folder = tmp_path / "run" / "evaluation" / "full"
    assert len(list((folder / "figures").iterdir())) == 2 * 23
    assert not list(folder.rglob("*.part"))


def test_page_says_what_matters(report):
    results = sample_results()
    page = report(results)
    for text in (
        "names the right one of 8 sources in 91.0 % of the cases (guessing: 12.5 %)",
        "it attributes 12.5 % to “real”; it calls 50.0 % unknown",
        "clean: 0.058 → 0.024 by calibration; under unseen corruptions",
        "always answering “synthetic” is right about real or synthetic in 87.5 %",
        "5 of 120 (4.2 %)",
        "it means no more than that 1 of 120 is called synthetic",
        "Clean images of seen semantics: 1,920 of known sources and 480 of held-out",
        "temperature 1.700",
        "Somebody can arrange it",
        results["evaluation"]["command"],
        results["data"]["digest"],
        "max probability",
    ):
        assert text in page.text, text
    assert "None" not in page.text and "NaN" not in page.text


def test_names_are_text_and_never_markup(report):
    sources = ["real", SCRIPT, LONG, 'a" onerror="x', "$x^$"]
    results = sample_results(sources=sources, seen=[SCRIPT, LONG], unseen=["a&b"])
    results["run"]["workdir"] = results["data"]["name"] = SCRIPT
    results["mistakes"][0]["path"] = SCRIPT
    results["run"]["config"] |= {"x": "</pre>" + SCRIPT}
    page = report(results)
    assert not page.all("script")
    assert not any("onerror" in name for _, found in page.tags for name in found)
    assert page.text.count("alert(1)") > 10
    assert 'a" onerror="x' in page.text and LONG in page.text


def test_uncalibrated_probabilities_are_marked(report):
    page = report(sample_results(calibrated=False))
    assert "The probabilities on this page are not calibrated." in page.text
    assert "highest uncalibrated probability" in page.text
    assert "Do not read the probabilities as probabilities" in page.text
    assert "known told from unknown: AUROC 0.741" in page.text
    assert "No threshold was set: that takes" in page.text
    assert "No thresholds were set: that takes validation images." in page.text
    assert "None" not in page.text and "→" not in page.text


def test_clean_images_of_seen_semantics_alone(report):
    page = report(sample_results(unseen=[], full=False, open_set=False))
    assert "Only unaltered images were evaluated" in page.text
    assert "so nothing here says how the network does on other content" in page.text
    assert "--config.data.held_out_sources" in page.text
    assert "gets one of these names all the same" in page.text
    assert "synthetic images detected, clean" in page.text
    assert "always “synthetic”: 87.5 %" in page.text
    assert len(page.all("li")) == 4 + 13 + 12 + 7
    assert "unseen corruptions" not in page.text


def test_chosen_semantics_have_a_page_too(report):
    page = report(sample_results(group="chosen", unseen=[]))
    assert "chosen semantics" in page.text
    assert "These were chosen for the evaluation: airplane" in page.text


def test_far_sources_alone(report):
    results = sample_results()
    open_set = results["open_set"]
    for measures in open_set["scores"].values():
        measures["near"] = None
    open_set["rejected"]["near"] = None
    page = report(results)
    assert "far 70.0 %; of known sources 5.0 %" in page.text
    assert "Unknown: near" not in page.text


def test_gaps_are_dashes_and_said(report):
    results = sample_results()
    results["without_images"]["unseen"] = ["cips"]
    results["open_set"]["without_images"] = ["glide"]
    for group in ("unseen", "combined"):
        results["clean"][group]["recall"]["cips"] = None
        results["clean"][group] |= {"frechet_ratio": None, "frechet_note": "too few"}
    for cell in results["cells"]:
        cell |= {"nmi": None, "ece": None, "macro_f1_low": None}
    results["cells"][4] |= {k: None for k in results["cells"][4] if "accuracy" in k}
    results["mistakes"][1]["file"] = "mistakes/missing.png"
    page = report(results)
    assert "No unseen test images of cips" in page.text
    assert "No test images of the held-out glide." in page.text
    assert "no images" in page.text
    assert "Fréchet ratio, unseen semantics: too few." in page.text
    assert "–" in page.text and "None" not in page.text


def test_summary_says_where_the_network_fails(report):
    results = sample_results()
    results["open_set"]["attributed_to"] = {
        name: {s: float(s == "real") for s in results["sources"]}
        for name in ("stylegan2", "vqgan")
    }
    for cell in results["cells"]:
        least = 0.12 if cell["kind"] == "snow" else 0.2
        cell["attribution_accuracy_low"] = least
        cell["fpr_at_0.05"] = 0.997 if cell["kind"] == "nearest" else 0.1
    page = report(results)
    assert "in 5 of 111 conditions it is no better than guessing" in page.text
    assert "it attributes 100.0 % to “real”" in page.text
    assert "no better than guessing in 5 of 20 conditions" in page.text
    assert "most under nearest scaling, 99.7 %" in page.text


def test_commands_are_ready_for_a_shell(report):
    results = sample_results(full=False)
    results["run"]["workdir"] = "my runs/1"
    results["run"]["config"]["data"]["dir"] = "my data"
    results["data"]["name"] = "folder/my set"
    page = report(results)
    assert "rmjax report --workdir 'my runs/1' --evaluation full" in page.text
    assert "rmjax audit 'folder/my set' --data-dir 'my data'" in page.text
    assert "was made by rmjax prepare folder --data-dir 'my data' ;" in page.text
    assert "--workdir runs/again" in page.text


def test_perfect_network(report):
    results = sample_results()
    results["mistakes"] = []
    for found in results["clean"].values():
        found["confusion"] = [[5 * (i == j) for j in range(8)] for i in range(8)]
    page = report(results)
    assert "Every clean image was attributed to its source." in page.text


def test_data_sheet_and_audit_are_shown_where_they_are(report, tmp_path):
    results = sample_results(sources=["real", "gan"], full=False)
    folder = tmp_path / results["data"]["directory"]
    folder.mkdir(parents=True)
    groups = {"groups": 3}
    sheet = {
        "images": 20,
        "splits": {"train": 12, "test": 8},
        "sources": ["real", "gan"],
        "semantics": ["cat"],
        "counts": {s: {"cat": {"train": 6, "test": 4}} for s in ("real", "gan")},
        "sizes": {"different": 1},
        "formats": {"real": {"JPEG": 10}, "gan": {"PNG": 10}},
        "jpeg": {"real": {"frequent": {"75": 10}}},
        "duplicates": {"groups": 3, "across_splits": groups, "across_sources": groups},
        "unreadable": {},
        "missing": [],
    }
    (folder / "datasheet.json").write_text(json.dumps(sheet))
    file = tmp_path / "audit.json"
    file.write_text(json.dumps(AUDIT))
    page = report(results, audit=file)
    assert "JPEG (10)" in page.text and "75 (10)" in page.text
    assert "container 0.500 constant" in page.text
    assert "Audited: /old/data/mini/1.0.0, split train, test." in page.text


AUDIT = {
    "dataset": "/old/data/mini/1.0.0",
    "splits": ["train", "test"],
    "images": 20,
    "sources": {"real": 10, "gan": 10},
    "folds": 5,
    "chance": 0.5,
    "unreadable": 0,
    "cues": {"container": {"constant": True, "balanced_accuracy": 0.5, "leaks": False}},
}


def test_audits_of_other_data_are_not_shown(report, tmp_path):
    file = tmp_path / "audit" / "mini" / "audit.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(AUDIT | {"dataset": "data/other/1.0.0"}))
    results = sample_results(sources=["real", "gan", "vae"], full=False)
    page = report(results)
    assert "is of another data set: data/other/1.0.0" in page.text
    assert "container" not in page.text
    with pytest.raises(InputError, match="other/1.0.0, not data/mini/1.0.0"):
        write_report(tmp_path / "run", audit=file)
    file.write_text(json.dumps(AUDIT))
    page = Page(write_report(tmp_path / "run")["report"])
    assert "split train, test; without vae." in page.text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"schema_version": 2},
            "version 2; this rmjax reads .* version 1: run .* again",
        ),
        ({"schema": "other"}, "schema other, version 1"),
    ],
)
def test_results_of_another_version_are_refused(report, changes, message):
    with pytest.raises(InputError, match=message):
        report(sample_results() | changes)


def test_what_is_no_results_file_is_refused(tmp_path):
    folder = write_run(tmp_path, sample_results(full=False))
    for text in ("{", "[]", '{"schema"'):
        (folder / "results.json").write_text(text)
        with pytest.raises(InputError, match="results.json"):
            write_report(tmp_path)


def test_evaluations_are_chosen_by_name(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "run"
    with pytest.raises(InputError, match="no run in .*run$"):
        write_report(run)
    results = sample_results(unseen=[], full=False, open_set=False)
    write_run(run, results, "a")
    assert write_report(run)["report"].parent.name == "a"
    write_run(run, results, "b")
    with pytest.raises(InputError, match="several evaluations: .* a, b"):
        write_report(run)
    with pytest.raises(InputError, match="no evaluation 'c'; it has a, b"):
        write_report(run, evaluation="c")
    assert (
        main(["report", "--workdir", str(run), "--evaluation", "b", "--out", "o"]) == 0
    )
    assert "o/report.html" in capsys.readouterr().out
    assert (tmp_path / "o" / "report.html").is_file()


def test_audits_that_are_not_there_are_refused(tmp_path):
    write_run(tmp_path, sample_results(full=False))
    with pytest.raises(InputError, match="nowhere.json is missing"):
        write_report(tmp_path, audit=tmp_path / "nowhere.json")
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(InputError, match="not what rmjax audit writes"):
        write_report(tmp_path, audit=tmp_path / "a.json")


def test_nothing_is_left_where_nothing_can_be_written(tmp_path):
    write_run(tmp_path / "run", sample_results(full=False))
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="can't write to"):
        write_report(tmp_path / "run", out=tmp_path / "file")
    assert not list(tmp_path.rglob("*.part"))
