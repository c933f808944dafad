"""What a report looks at in results, and how it writes it; what is not defined is a dash."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from rmjax.evaluation.results import BESIDE_SEEN
from rmjax.evaluation.results import SETS as SET_NAMES

CORRUPTED = ("unseen_corruptions", "seen_corruptions", "resharing")
DASH = "–"
KINS = ("near", "far")  # of unknown sources
HARM = 0.01  # of calibration error, that is worth saying
EXCESS = 0.05  # of attributions to a source, that is worth saying
FEW = 5  # real images that a threshold rests on


NAMES = {  # spoken otherwise than they are spelt
    "jpeg": "JPEG (resharing)",
    "jpeg_compression": "JPEG (ImageNet-C)",
    "nearest": "nearest scaling",
    "bilinear": "bilinear scaling",
    "blur": "blur (resharing)",
    "flip": "mirrored",
    "knn": "k nearest neighbours",
}


def words(name: str) -> str:
    """Return the name of a kind, set or score as it is spoken."""
    return NAMES.get(name, name.replace("_", " "))


SETS = {name: words(name) for name in SET_NAMES}


def mean(values: Iterable[float | None]) -> float | None:
    """Return the mean of the values that are defined, None if none is."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def percent(share: float | None, digits: int = 1) -> str:
    """Return a share as per cent, without the sign."""
    return DASH if share is None else f"{100 * share:.{digits}f}"


def decimal(value: float | None) -> str:
    """Return a number with three decimals."""
    return DASH if value is None else f"{value:.3f}"


def interval(figures: dict, name: str, show: str = "{value} ({low}–{high})") -> str:
    """Return a share of `figures` as per cent with its 95 % interval, if it has one."""
    value, low, high = (figures.get(name + end) for end in ("", "_low", "_high"))
    if value is None or low is None or high is None:
        return percent(value)
    ends = {"value": value, "low": low, "high": high}
    return show.format(**{key: percent(share) for key, share in ends.items()})


def main_subset(results: dict) -> str:
    """Return the subset of semantics that holds all images evaluated."""
    return next(g for g in ("combined", "chosen", "seen") if g in results["summary"])


def subsets(results: dict) -> list[str]:
    """Return the subsets of semantics that share no image."""
    return [subset for subset in results["summary"] if subset != "combined"]


def cells_of(results: dict, subset: str) -> list[dict]:
    """Return the cells of a subset of semantics."""
    return [cell for cell in results["cells"] if cell["semantics"] == subset]


def spoken(condition: str) -> str:
    """Return a condition such as `shot_noise:5` as it is spoken."""
    kind, _, value = condition.partition(":")
    return f"{words(kind)} {value}".rstrip()


def guessing(results: dict) -> str:
    """Return how often guessing names the right source, as per cent."""
    return f"{100 / len(results['sources']):.3g}"


def hardest_subset(results: dict) -> str:
    """Return the subset of semantics that asks the most of the network."""
    return beside_seen(results["summary"]) or main_subset(results)


def beside_seen(subsets: Collection[str]) -> str | None:
    """Return which subset is furthest from what was trained on; None if it was all."""
    return next((name for name in reversed(BESIDE_SEEN) if name in subsets), None)


def gap(
    summary: Mapping[str, dict],
    subset: str,
    metric: str = "attribution_accuracy",
    conditions: str = "clean",
) -> float | None:
    """Return a share on seen semantics minus that on a subset; None without either.

    Args:
        summary: by subset of semantics, as in `results.json`.
        subset: key of it, such as "unseen".
        metric: which share.
        conditions: set of conditions.
    """
    if subset == "seen" or not {"seen", subset} <= summary.keys():
        return None
    seen, other = (summary[own][conditions][metric] for own in ("seen", subset))
    return None if seen is None or other is None else seen - other


def hardest_set(results: dict) -> str | None:
    """Return the set of altered images that asks the most, None if there is none."""
    summary = results["summary"][main_subset(results)]
    return next((name for name in CORRUPTED if name in summary), None)


def at_chance(
    results: dict, subset: str, conditions: str | None = None
) -> tuple[int, int] | None:
    """Count the altered conditions in which the source is named as if by guessing.

    Args:
        results: of an evaluation.
        subset: of semantics.
        conditions: set of conditions; None: all but clean.

    Returns:
        In how many of how many conditions the interval reaches down to guessing;
        None if none has an interval.
    """
    lows = [
        cell["attribution_accuracy_low"]
        for cell in cells_of(results, subset)
        if cell["set"] != "clean" and conditions in (None, cell["set"])
    ]
    lows = [low for low in lows if low is not None]
    chance = 1 / len(results["sources"])
    return (sum(low <= chance for low in lows), len(lows)) if lows else None


def majority(results: dict) -> tuple[str, float]:
    """Return which of "real" and "synthetic" is more frequent, and its share."""
    counts = [sum(row) for row in results["clean"][main_subset(results)]["confusion"]]
    real = counts[0] / max(sum(counts), 1)
    return ("real", real) if real > 0.5 else ("synthetic", 1 - real)


def rejected_unknown(results: dict) -> float | None:
    """Return the share of images of held-out sources that are called unknown."""
    rejected = (results["open_set"] or {}).get("rejected")
    return rejected["all"] if rejected else None


def attributed_unknown(results: dict, source: str) -> float | None:
    """Return the share of images of held-out sources that are attributed to one."""
    open_set = results["open_set"] or {"held_out": {}}
    counts = {name: about["images"] for name, about in open_set["held_out"].items()}
    shares = {name: open_set["attributed_to"][name][source] for name in counts}
    known = [n for n, share in shares.items() if counts[n] and share is not None]
    total = sum(counts[name] for name in known)
    return sum(counts[n] * shares[n] for n in known) / total if total else None


def by_kind(cells: Iterable[dict]) -> dict[str, list[dict]]:
    """Return cells by kind of condition."""
    kinds: dict[str, list[dict]] = {}
    for cell in cells:
        kinds.setdefault(cell["kind"], []).append(cell)
    return kinds


def mean_of(results: dict, subset: str, conditions: str, key: str) -> float | None:
    """Return a number of a set: the mean over values, then over kinds."""
    own = [cell for cell in cells_of(results, subset) if cell["set"] == conditions]
    return mean(mean(cell[key] for cell in kind) for kind in by_kind(own).values())


def change(results: dict, subset: str, conditions: str, key: str) -> str:
    """Return a number of a set before and after calibration, or the one there is."""
    before = decimal(mean_of(results, subset, conditions, f"{key}_uncalibrated"))
    after = decimal(mean_of(results, subset, conditions, key))
    return f"{before} → {after}" if results["calibration"] else before


def least(shares: Mapping[Any, float | None]) -> Any:
    """Return the key of the least share that is defined; None if none is."""
    known = {key: share for key, share in shares.items() if share is not None}
    return min(known, key=lambda key: known[key]) if known else None


def under(results: dict, subset: str, sets: Iterable[str], key: str) -> str:
    """Return a rate under each of the sets of conditions, as far as it is defined."""
    rates = {SETS[name]: mean_of(results, subset, name, key) for name in sets}
    told = [f"{percent(v)} % under {k}" for k, v in rates.items() if v is not None]
    return listed(told)


def kinds_by_set(results: dict) -> dict[str, list[str]]:
    """Return the kinds of conditions of each set, as they are spoken."""
    return {
        name: list(map(words, by_kind(c for c in results["cells"] if c["set"] == name)))
        for name in SETS
    }


def harm(results: dict) -> tuple[str, float, float] | None:
    """Return where calibration made corrupted images worse; None if nowhere.

    Returns:
        Set of conditions, calibration error before and after.
    """
    for name in CORRUPTED:
        before = mean_of(results, hardest_subset(results), name, "ece_uncalibrated")
        after = mean_of(results, hardest_subset(results), name, "ece")
        if before is not None and after is not None and after > before + HARM:
            return name, before, after
    return None


def drawn_to(results: dict) -> tuple[str, float, float] | None:
    """Return which source altered images are taken for far too often, if any.

    Returns:
        The source, the share attributed to it, and that which is from it.
    """
    conditions = hardest_set(results)
    if conditions is None:
        return None
    counts = results["confusion"][hardest_subset(results)][conditions]
    total = max(sum(map(sum, counts)), 1)
    named = [sum(column) / total for column in zip(*counts, strict=True)]
    true = [sum(row) / total for row in counts]
    most = max(range(len(true)), key=lambda i: named[i] - true[i])
    if named[most] - true[most] < EXCESS:
        return None
    return results["sources"][most], named[most], true[most]


def lowest_recall(results: dict) -> tuple[str, str, float] | None:
    """Return the source, semantic and share that is least; None without images."""
    rows = results["clean"][main_subset(results)]["recall_by_semantic"]
    shares = {(s, m): share for m, row in rows.items() for s, share in row.items()}
    least_of = least(shares)
    return (*least_of, shares[least_of]) if least_of else None


def worst_alarms(results: dict, point: dict) -> tuple[str, float] | None:
    """Return the kind with the most false alarms at a point, and their rate, if any."""
    key = f"fpr_at_{point['fpr']:g}"
    cells = [c for c in cells_of(results, main_subset(results)) if c["set"] != "clean"]
    rates = {kind: mean(c[key] for c in own) for kind, own in by_kind(cells).items()}
    known = {kind: rate for kind, rate in rates.items() if rate is not None}
    return max(known.items(), key=lambda item: item[1]) if known else None


def sure(probability: float) -> str:
    """Return a probability as per cent; what is not 1 does not look it."""
    text = percent(probability)
    return ">99.9" if text == "100.0" and probability < 1 else text


def alarms(point: dict) -> str:
    """Return how many real validation images are called synthetic, of how many."""
    count = round(point["achieved"] * point["real_images"])
    return f"{count or 'none'} of {point['real_images']:,}"


def listed(names: Sequence[str], most: int = 12) -> str:
    """Return names as a list in a sentence, the number alone of those past `most`."""
    more = [f"{len(names) - most} more"] if len(names) > most else []
    *first, last = [*names[:most], *more] or [""]
    return f"{', '.join(first)} and {last}" if first else last
