"""Sentences, tables and commands of a report, without drawing it."""

import json

import numpy as np
from results_sample import sample_results

from rmjax.experiment.config import load_config
from rmjax.report.origin import train_command
from rmjax.report.page import make_environment
from rmjax.report.tables import confusions_table
from rmjax.report.view import sure


def say(name, results):
    """What a page says in one of its sentences, or several."""
    template = make_environment().get_template("sentences.html.jinja")
    return str(getattr(template.module, name)(results))


def test_the_gaps_are_named_first():
    results = sample_results(new_pairs=True)
    for subset, share in (("unseen", 0.8), ("new_pairs", 0.737)):
        results["summary"][subset]["clean"]["attribution_accuracy"] = share
    results["summary"]["seen"]["clean"]["attribution_accuracy"] = 0.96
    text = say("headline", results)
    assert "16.0" in text and "22.3" in text and "96.0 %" in text
    del results["summary"]["unseen"], results["summary"]["new_pairs"]
    assert " gap" not in say("headline", results)


def test_better_than_guessing_is_said_in_words():
    results = sample_results(sources=["real", *(f"gan {i}" for i in range(30))])
    assert say("chance", results).endswith("is better than guessing.")
    assert "better than guessing in all conditions" in say("cards", results)
    assert "no better" not in say("headline", results)


def test_kinds_that_were_not_evaluated_are_not_claimed():
    results = sample_results()
    assert "15 of ImageNet-C’s 19 kinds that training" in say("altered", results)
    kept = ("clean", "fog", "snow", "flip")
    results["cells"] = [c for c in results["cells"] if c["kind"] in kept]
    text = say("altered", results)
    assert "Seen corruptions here are fog, of the 15 kinds" in text
    assert "Unseen corruptions here are snow, of the four" in text
    assert text.endswith("web, here: mirrored.")


def test_what_altered_images_are_taken_for_is_said():
    results = sample_results()
    counts = [[40 * (j == 2) for j in range(8)] for _ in range(8)]
    results["confusion"]["unseen"]["unseen_corruptions"] = counts
    text = say("drawn_to", results)
    assert "100.0 % of all images are attributed to “dcgan”; 12.5 % really are" in text
    results["confusion"]["unseen"]["unseen_corruptions"] = np.eye(8, dtype=int).tolist()
    assert say("drawn_to", results) == ""


def test_confusions_of_one_source_do_not_crowd_out_the_others():
    results = sample_results()
    counts = [[5 * (i == 0 or i == j) for j in range(8)] for i in range(8)]
    counts[3][4] = 1
    results["clean"]["combined"]["confusion"] = counts
    rows = confusions_table(results)["rows"]
    assert [row[0] for row in rows] == ["stylegan", "real", "real"]


def test_nearly_certain_does_not_look_certain():
    assert [sure(p) for p in (0.99954, 0.9994, 1)] == [">99.9", "99.9", "100.0"]


def test_train_command_gives_that_config_back():
    config = load_config(
        "attribution_mini", ["--config.data.unseen_semantics=('a b',)"]
    )
    run = {"config": json.loads(config.to_json()), "workdir": "my runs/1"}
    command = train_command(run)
    assert command == (
        "rmjax train --config attribution_mini --workdir runs/again "
        "'--config.data.unseen_semantics=('\"'\"'a b'\"'\"',)'"
    )
    assert train_command({"config": {"colour": 1}, "workdir": "x"}) is None
