"""What a report says about an evaluation, in words; what is not defined is a dash."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from rmjax.evaluation.results import SETS as SET_NAMES

CORRUPTED = ("unseen_corruptions", "seen_corruptions", "resharing")
DASH = "–"
HARM = 0.01  # of calibration error, that is worth saying
EXCESS = 0.05  # of attributions to a source, that is worth saying
FEW = 5  # real images that a threshold rests on
KINS = ("near", "far")  # of unknown sources


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


def hardest(results: dict) -> str:
    """Return the subset of semantics that asks the most of the network."""
    return "unseen" if "unseen" in results["summary"] else main_subset(results)


def harder(results: dict) -> str | None:
    """Return the set of altered images that asks the most, None if there is none."""
    summary = results["summary"][main_subset(results)]
    return next(
        (condition_set for condition_set in CORRUPTED if condition_set in summary), None
    )


def at_chance(
    results: dict, subset: str, condition_set: str | None = None
) -> tuple[int, int] | None:
    """Count the altered conditions in which the source is named as if by guessing.

    Args:
        results: of an evaluation.
        subset: of semantics.
        condition_set: set of conditions; None: all but clean.

    Returns:
        In how many of how many conditions the interval reaches down to guessing;
        None if none has an interval.
    """
    lows = [
        cell["attribution_accuracy_low"]
        for cell in cells_of(results, subset)
        if cell["set"] != "clean" and condition_set in (None, cell["set"])
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


def mean_by_kind(cells: Iterable[dict], key: str) -> float | None:
    """Return the mean over the values of each kind, then over kinds."""
    return mean(mean(cell[key] for cell in own) for own in by_kind(cells).values())


def mean_of(results: dict, subset: str, condition_set: str, key: str) -> float | None:
    """Return a number of a set: the mean over values, then over kinds."""
    own = [cell for cell in cells_of(results, subset) if cell["set"] == condition_set]
    return mean_by_kind(own, key)


def change(results: dict, subset: str, condition_set: str, key: str) -> str:
    """Return a number of a set before and after calibration, or the one there is."""
    before = decimal(mean_of(results, subset, condition_set, f"{key}_uncalibrated"))
    after = decimal(mean_of(results, subset, condition_set, key))
    return f"{before} → {after}" if results["calibration"] else before


def least(shares: Mapping[Any, float | None]) -> Any:
    """Return the key of the least share that is defined; None if none is."""
    known = {key: share for key, share in shares.items() if share is not None}
    return min(known, key=lambda key: known[key]) if known else None


def calibration_harm(results: dict) -> str:
    """Return a sentence where calibration made corrupted images worse, or nothing."""
    subset = hardest(results)
    for condition_set in CORRUPTED:
        before = mean_of(results, subset, condition_set, "ece_uncalibrated")
        after = mean_of(results, subset, condition_set, "ece")
        if before is not None and after is not None and after > before + HARM:
            return (
                f" Here calibration raised the error under {SETS[condition_set]} ({subset} "
                f"semantics) from {decimal(before)} to {decimal(after)}."
            )
    return ""


def chance_sentence(results: dict) -> str:
    """Return what guessing comes to, and in how many conditions that is all."""
    name, share = majority(results)
    text = (
        f"Guessing names the right source in {guessing(results)} %; always answering "
        f"“{name}” is right about real or synthetic in {percent(share)} %."
    )
    counts = {subset: at_chance(results, subset) for subset in subsets(results)}
    known = [f"{c[0]} of {c[1]} on {g} semantics" for g, c in counts.items() if c]
    if known and not any(c[0] for c in counts.values() if c):
        text += " In every altered condition the network is better than guessing."
    elif known:
        text += (
            " Altered conditions in which the network is no better than guessing at "
            f"the source (its 95 % interval reaches that): {_and(known)}."
        )
    return text


def sets_sentence(results: dict) -> str:
    """Return what the sets of altered images are, by name where not all were taken."""
    named = {
        condition_set: list(
            by_kind(c for c in results["cells"] if c["set"] == condition_set)
        )
        for condition_set in SETS
    }
    seen, unseen, shared = (
        listed(list(map(words, named[p]))) for p in named if p != "clean"
    )
    told = []
    if seen:
        own = f"{seen}, of the 15 kinds of ImageNet-C that training may use"
        if len(named["seen_corruptions"]) == 15:
            own = "the 15 of ImageNet-C’s 19 kinds that training may use"
        if results["run"]["config"].get("corrupt", {}).get("rate") == 0:
            own += " (this network was trained without any)"
        told.append(f"Seen corruptions here are {own}.")
    if unseen:
        own = "the four kinds of ImageNet-C kept for testing"
        if len(named["unseen_corruptions"]) != 4:
            own = f"{unseen}, of {own}"
        told.append(f"Unseen corruptions here are {own}.")
    if shared:
        what = "what happens to an image on its way through the web"
        told.append(f"Resharing is {what}, here: {shared}.")
    return " ".join(told)


def drawn_to(results: dict) -> str:
    """Return which source altered images are taken for far too often, or nothing."""
    condition_set, subset = harder(results), hardest(results)
    if condition_set is None:
        return ""
    counts = results["confusion"][subset][condition_set]
    total = max(sum(map(sum, counts)), 1)
    named = [sum(column) / total for column in zip(*counts, strict=True)]
    true = [sum(row) / total for row in counts]
    most = max(range(len(true)), key=lambda i: named[i] - true[i])
    if named[most] - true[most] < EXCESS:
        return ""
    return (
        f"Under {SETS[condition_set]} ({subset} semantics) {percent(named[most])} % of all images "
        f"are attributed to “{results['sources'][most]}”; {percent(true[most])} % "
        "really are from it."
    )


def sure(probability: float) -> str:
    """Return a probability as per cent; what is not 1 does not look it."""
    text = percent(probability)
    return ">99.9" if text == "100.0" and probability < 1 else text


def lowest_recall(results: dict) -> str:
    """Return which cell of source and semantic is attributed rightly least often."""
    rows = results["clean"][main_subset(results)]["recall_by_semantic"]
    shares = {(s, m): share for m, row in rows.items() for s, share in row.items()}
    cell = least(shares)
    return (
        f"lowest: {cell[0]}, {cell[1]}, {percent(shares[cell])} %"
        if cell
        else "no images"
    )


def unknown_called(results: dict) -> str:
    """Return what the threshold of familiarity is, and what falls below it."""
    reject = (results["calibration"] or {}).get("reject")
    rejected = results["open_set"]["rejected"]
    if not reject or not rejected:
        return "No threshold was set: that takes validation images."
    kin = [
        f"{percent(rejected[key])} % of {key} ones"
        for key in KINS
        if rejected[key] is not None
    ]
    known = f"{percent(rejected['known'])} % of known sources"
    if rejected["known_unseen_semantics"] is not None:
        unseen = percent(rejected["known_unseen_semantics"])
        known += f" ({unseen} % where the semantic is unseen)"
    return (
        f"The threshold used ({words(reject['score'])} {decimal(reject['threshold'])}) "
        f"was set for {percent(reject['fpr'], 0)} % of known validation images to fall "
        f"below it ({percent(reject['achieved'])} % do). Of the test images it calls "
        f"unknown {_and([*kin, known])}."
    )


def known_rejected(results: dict) -> str:
    """Return how many altered images of known sources are called unknown."""
    subset = hardest(results)
    sets = [name for name in CORRUPTED if name in results["summary"][subset]]
    told = _rates(results, subset, sets, "rejected") if results["calibration"] else ""
    if not told:
        return ""
    return f" Of images of known sources ({subset} semantics) it calls unknown: {told}."


def _rates(results: dict, subset: str, sets: Iterable[str], key: str) -> str:
    """Return a rate under each set of conditions, as far as it is defined."""
    rates = {SETS[name]: mean_of(results, subset, name, key) for name in sets}
    return _and(
        [f"{percent(v)} % under {k}" for k, v in rates.items() if v is not None]
    )


def worst_alarms(results: dict, point: dict) -> str:
    """Return where an operating point gives the most false alarms."""
    subset, key = main_subset(results), f"fpr_at_{point['fpr']:g}"
    cells = [cell for cell in cells_of(results, subset) if cell["set"] != "clean"]
    rates = {
        kind: mean(cell[key] for cell in own) for kind, own in by_kind(cells).items()
    }
    worst = least({kind: -rate for kind, rate in rates.items() if rate is not None})
    if worst is None:
        return ""
    told = _rates(results, subset, dict.fromkeys(cell["set"] for cell in cells), key)
    return (
        f"Aim {percent(point['fpr'], 0)} %, real images called synthetic: "
        f"{told}; most under {words(worst)}, {percent(rates[worst])} %."
    )


def few_real(point: dict) -> str:
    """Return a warning where a threshold rests on very few real images, or nothing."""
    images = point["real_images"]
    if point["fpr"] * images >= FEW:
        return ""
    return (
        f"The aim of {percent(point['fpr'], 0)} % rests on {images:,} real validation "
        f"images: it means no more than that {alarms(point)} is called synthetic."
    )


def alarms(point: dict) -> str:
    """Return how many real validation images are called synthetic, of how many."""
    count = round(point["achieved"] * point["real_images"])
    return f"{count or 'none'} of {point['real_images']:,}"


def listed(names: Sequence[str], most: int = 12) -> str:
    """Return names as a list in a sentence, the number alone of those past `most`."""
    more = [f"{len(names) - most} more"] if len(names) > most else []
    return _and([*names[:most], *more])


def _and(names: Sequence[str]) -> str:
    *first, last = names or [""]
    return f"{', '.join(first)} and {last}" if first else last
