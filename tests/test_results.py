"""Files of results: found, read, and refused in one line."""

import json

import pytest

from rmjax.errors import InputError
from rmjax.evaluation.results import find_evaluation, read_results, write_results


def make(workdir, *names):
    for name in names:
        folder = workdir / "evaluation" / name
        folder.mkdir(parents=True)
        content = {"schema": "rmjax-evaluation", "schema_version": 1}
        (folder / "results.json").write_text(json.dumps(content))
    return workdir


def test_the_full_evaluation_is_the_one_that_is_meant(tmp_path):
    workdir = make(tmp_path, "clean", "full")
    assert find_evaluation(workdir) == tmp_path / "evaluation" / "full"
    assert find_evaluation(workdir, "clean").name == "clean"


def test_the_only_evaluation_is_the_one_that_is_meant(tmp_path):
    assert find_evaluation(make(tmp_path, "fog-3")).name == "fog-3"


def test_of_several_evaluations_one_must_be_chosen(tmp_path):
    make(tmp_path, "clean", "unseen")
    with pytest.raises(InputError, match="choose --evaluation clean, unseen"):
        find_evaluation(tmp_path)
    with pytest.raises(InputError, match="no evaluation 'x'; it has clean, unseen"):
        find_evaluation(tmp_path, "x")


def test_without_any_the_command_is_named(tmp_path):
    with pytest.raises(InputError, match="no run in .*nope"):
        find_evaluation(tmp_path / "nope")
    with pytest.raises(InputError, match="make one with: rmjax evaluate --workdir"):
        find_evaluation(tmp_path)
    with pytest.raises(InputError, match="results.json is missing; make it with"):
        read_results(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "no results of an evaluation"),
        ("[]", "no results of an evaluation"),
        ('{"groups": {}}', "schema None, version None; this rmjax reads"),
        (
            '{"schema": "rmjax-evaluation", "schema_version": 2}',
            "version 2; this rmjax reads rmjax-evaluation, version 1: run `rmjax ev",
        ),
        (
            '{"schema": "rmjax-evaluation", "schema_version": 1, "run": {}}',
            "damaged: no 'evaluation'; run `rmjax evaluate` again",
        ),
    ],
)
def test_other_content_is_refused(tmp_path, content, message):
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(InputError, match=message):
        read_results(tmp_path)


def test_what_is_not_defined_is_empty_and_never_nan(tmp_path):
    results = {"cells": [{"a": 0.5, "b": None}, {"a": 1}]}
    write_results(tmp_path, results)
    assert (tmp_path / "results.csv").read_text() == "a,b\n0.5,\n1,\n"
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_results(tmp_path, {"cells": [{"a": float("nan")}]})
