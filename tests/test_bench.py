"""What the benchmarks share: rounds, other people's packages, tables, checks."""

import json
import logging
import os

import pytest

from rmjax.bench import common
from rmjax.errors import InputError
from rmjax.utils.checks import check_at_least
from rmjax.utils.table import format_table


def test_figures_are_medians_of_rounds_that_take_turns():
    calls = iter(range(6))

    def measure():
        return {"a": {"s": next(calls)}, "b": {"s": next(calls)}}

    medians = common.median_of_rounds(measure, repeats=3, label="rounds")
    assert medians == {"a": {"s": 2}, "b": {"s": 3}}


def test_slow_calls_are_timed_once_after_a_warm_up():
    calls = []
    assert common.seconds_per_call(lambda: calls.append(1), seconds=0) > 0
    assert len(calls) == 2


def test_processes_for_packages_that_run():
    with common.processes_with(("json", "numpy"), os.getpid, 1) as processes:
        assert processes.submit(os.getpid).result() != os.getpid()


def test_packages_that_are_missing_or_do_not_run(caplog):
    with common.processes_with(("no_such_package",), os.getpid, 1) as processes:
        assert processes is None
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        with common.processes_with(("json",), json.loads, 1) as processes:
            assert processes is None
    assert "json" in caplog.text and "argument" in caplog.text


def test_tables_align_figures_and_leave_empty_columns_out():
    columns = {"ms": ("ms", ".1f"), "ratio": ("ratio", ".2f"), "share": ("part", ".0%")}
    rows = {"a long name": {"ms": 1234.5, "part": 0.5}, "b": {"ms": 1, "part": None}}
    assert format_table("title", columns, rows) == [
        "title            ms  share",
        "a long name  1234.5    50%",
        "b               1.0",
    ]


def test_numbers_that_are_too_small_are_named():
    check_at_least(1, images=1, sizes=(2, 3))
    with pytest.raises(InputError, match="repeats = 0"):
        check_at_least(1, images=4, repeats=0)
    with pytest.raises(InputError, match=r"sizes = \(2, 1\)"):
        check_at_least(2, sizes=(2, 1))
