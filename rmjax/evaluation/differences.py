"""Runs beside each other: paired differences of the same images, with intervals."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import product
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from rmjax.errors import InputError
from rmjax.evaluation.bootstrap import (
    DRAWS,
    Resamples,
    draw_resamples,
    draw_sums,
    interval,
)
from rmjax.evaluation.results import BESIDE_SEEN, SETS, find_evaluation, read_results
from rmjax.utils.places import as_path, open_bytes

METRICS = ("attribution", "detection")
# What says which images were evaluated, and how.
KEYS = ("source", "semantic", "group", "split", "index", *BESIDE_SEEN, "conditions")


@dataclass(frozen=True)
class Evaluated:
    """One run's evaluation.

    Attributes:
        workdir: folder of the run.
        results: of its `results.json`.
        answers: arrays of its `predictions.npz`: `guess` `[conditions, N]` and `KEYS`.
    """

    workdir: str
    results: dict
    answers: dict[str, np.ndarray]


def read_runs(
    workdirs: Sequence[str | Path], evaluation: str | None = None
) -> list[Evaluated]:
    """Read the evaluations of runs that can be compared.

    Args:
        workdirs: folders of the runs.
        evaluation: which of their evaluations; None: `full`, or the only one.

    Raises:
        InputError: one is missing or can't be read, or they are not of the same
            images, sources and conditions.
    """
    runs = [read_run(workdir, evaluation) for workdir in workdirs]
    for other in runs[1:]:
        check_comparable(runs[0], other)
    return runs


def read_run(workdir: str | Path, evaluation: str | None = None) -> Evaluated:
    """Read the evaluation of a run; arguments and errors as in `read_runs`."""
    folder = find_evaluation(as_path(workdir), evaluation)
    results = read_results(folder)
    answers = _read_answers(folder / "predictions.npz", results)
    return Evaluated(str(workdir), results, answers)


def _read_answers(path: Path, results: dict) -> dict[str, np.ndarray]:
    """Return the arrays of `predictions.npz`, which are to be of these results."""
    try:
        with open_bytes(path) as raw, np.load(raw, allow_pickle=False) as file:
            # In a file of before there were new pairs there are none.
            older = {"new_pairs": np.zeros_like(file["unseen"])}
            answers = {
                key: (file if key in file else older)[key] for key in (*KEYS, "guess")
            }
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing: run `rmjax evaluate` again") from error
    except (OSError, EOFError, TypeError, ValueError, KeyError, BadZipFile) as error:
        raise InputError(
            f"{path} can't be read ({error}): run `rmjax evaluate` again"
        ) from error
    shape = len(answers["conditions"]), results["data"]["images"]
    conditions = {cell["condition"] for cell in results["cells"]}
    same = set(answers["conditions"].tolist()) == conditions
    if not same or answers["guess"].shape != shape:
        raise InputError(
            f"{path} is not of the same evaluation as results.json beside it: run "
            "`rmjax evaluate` again"
        )
    return answers


def check_comparable(first: Evaluated, other: Evaluated) -> None:
    """Check that two runs were evaluated on the same images.

    Raises:
        InputError: the images, the sources or the conditions differ.
    """
    pair = f"can't compare {first.workdir} and {other.workdir}"
    a, b = first.results, other.results
    if a["sources"] != b["sources"]:
        raise InputError(f"{pair}: {_other_sources(a['sources'], b['sources'])}")
    conditions = [run.answers["conditions"].tolist() for run in (first, other)]
    if conditions[0] != conditions[1]:
        raise InputError(
            f"{pair}: evaluated by the suites {a['evaluation']['suite']} and "
            f"{b['evaluation']['suite']}; evaluate both by the same"
        )
    same = all(np.array_equal(first.answers[k], other.answers[k]) for k in KEYS)
    if a["data"]["digest"] != b["data"]["digest"] or not same:
        trained = [results["data"].get("trained_pairs") for results in (a, b)]
        if None not in trained and trained[0] != trained[1]:
            raise InputError(
                f"{pair}: trained on other pairs of source and semantic, so that other "
                "images are new to them; compare runs with the same data.train_cells "
                "and data.seen_semantics"
            )
        raise InputError(
            f"{pair}: evaluated on different images of {a['data']['directory']} and "
            f"{b['data']['directory']}; evaluate both on the same"
        )


def _other_sources(first: Sequence[str], other: Sequence[str]) -> str:
    """Return how two lists of sources differ."""
    pairs = (("first", first, other), ("second", other, first))
    own = [
        f"the {name} alone knows {', '.join(s for s in here if s not in there)}"
        for name, here, there in pairs
        if set(here) - set(there)
    ]
    return "; ".join(own) or "they know the same sources in another order"


def differences(first: Evaluated, other: Evaluated, draws: int = DRAWS) -> list[dict]:
    """Compute how much more often the other run is right, with 95 % intervals.

    Both runs meet the same draws of groups of images. An interval is missing (None)
    where all draws agree: no image, or all of one group, tells the runs apart.

    Args:
        first: run to compare with.
        other: run on the same images.
        draws: of the bootstrap.

    Returns:
        For each subset of semantics, set of conditions and metric ("attribution",
        "detection") a dict of `semantics`, `set`, `metric`, the shares `first` and
        `other`, their `difference`, `low` and `high`, and whether every image is
        answered `alike`, rightly or wrongly.
    """
    right = {m: [right_by_set(run, m) for run in (first, other)] for m in METRICS}
    parts = parts_of(first)
    # One draw for all parts: a group of images may be in several.
    whole = draw_resamples(first.answers["group"], draws)
    subsets = {name: [name] for name in parts}
    if len(parts) > 1:
        subsets["combined"] = list(parts)
    rows = []
    for (subset, members), condition_set in product(
        subsets.items(), right["attribution"][0]
    ):
        chosen = np.concatenate([parts[name] for name in members])
        for metric, (a, b) in right.items():
            shares = [float(scores[condition_set][chosen].mean()) for scores in (a, b)]
            change = b[condition_set] - a[condition_set]
            drawn = [_draw(change, parts[member], whole) for member in members]
            total, sizes = reduce(np.add, drawn)
            with np.errstate(invalid="ignore"):  # a draw without such images
                low, high = interval(total / sizes)
            rows.append(
                {
                    "semantics": subset,
                    "set": condition_set,
                    "metric": metric,
                    "alike": not change[chosen].any(),
                    "first": shares[0],
                    "other": shares[1],
                    "difference": shares[1] - shares[0],
                    "low": low,
                    "high": high,
                }
            )
    return rows


def parts_of(run: Evaluated) -> dict[str, np.ndarray]:
    """Return the image numbers of each subset of semantics; they share none."""
    masks = {name: run.answers[name] for name in BESIDE_SEEN}
    names = [name for name in run.results["summary"] if name != "combined"]
    if len(names) == 1:
        return {names[0]: np.arange(len(masks["unseen"]))}
    masks["seen"] = ~np.any([*masks.values()], axis=0)
    return {name: np.flatnonzero(masks[name]) for name in names}


def right_by_set(run: Evaluated, metric: str) -> dict[str, np.ndarray]:
    """Return by set how often each image is answered rightly, in [0, 1].

    Means over the values of a kind, then over kinds, as in the summary.
    """
    truth, guess = run.answers["source"], run.answers["guess"]
    if metric == "detection":
        truth, guess = truth > 0, guess > 0
    right = dict(zip(run.answers["conditions"].tolist(), guess == truth, strict=True))
    kinds: dict[str, dict[str, list]] = {condition_set: {} for condition_set in SETS}
    conditions = {c["condition"]: (c["set"], c["kind"]) for c in run.results["cells"]}
    for condition, (condition_set, kind) in conditions.items():
        kinds[condition_set].setdefault(kind, []).append(right[condition])
    return {
        condition_set: np.mean(
            [np.mean(values, axis=0) for values in own.values()], axis=0
        )
        for condition_set, own in kinds.items()
        if own
    }


def _draw(values: np.ndarray, rows: np.ndarray, resamples: Resamples) -> np.ndarray:
    return draw_sums(values[rows], Resamples(resamples.code[rows], resamples.counts))


def cell_differences(first: dict, other: dict, subset: str) -> list[dict]:
    """Return the other's cells of a subset with the `difference` to the first's.

    Args:
        first: results to compare with.
        other: results by the same suite.
        subset: of semantics.
    """
    name = "attribution_accuracy"
    former = {(c["condition"], c["semantics"]): c[name] for c in first["cells"]}
    rows = []
    for cell in other["cells"]:
        if cell["semantics"] == subset:
            pair = cell[name], former.get((cell["condition"], subset))
            change = None if None in pair else pair[0] - pair[1]
            rows.append(cell | {"difference": change})
    return rows
