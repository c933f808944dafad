"""What a report says about an evaluation first: a sentence and four numbers.

What is not defined is a dash.
"""

from collections.abc import Iterable, Sequence

from rmjax.report.figures import SETS, mean, words

CORRUPTED = ("unseen_corruptions", "seen_corruptions", "resharing")
DASH = "–"
HARM = 0.01  # of calibration error, that is worth saying
KINS = ("near", "far")  # of unknown sources


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


def main_group(results: dict) -> str:
    """Return the group of semantics that holds all images evaluated."""
    return next(g for g in ("combined", "chosen", "seen") if g in results["summary"])


def parts(results: dict) -> list[str]:
    """Return the groups of semantics that share no image."""
    return [group for group in results["summary"] if group != "combined"]


def cells_of(results: dict, group: str) -> list[dict]:
    """Return the cells of a group of semantics."""
    return [cell for cell in results["cells"] if cell["semantics"] == group]


def spoken(condition: str) -> str:
    """Return a condition such as `shot_noise:5` as it is spoken."""
    return words(condition).replace(":", " ")


def headline(results: dict) -> str:
    """Return one sentence on what the network can and cannot do."""
    group = _hardest(results)
    summary = results["summary"][group]
    count = len(results["sources"])
    clean = percent(summary["clean"]["attribution_accuracy"], 0)
    of = " of semantics that it was never trained on" if group == "unseen" else ""
    text = (
        f"Shown unaltered images{of}, the network names the right one of {count} "
        f"sources in {clean} % of the cases (guessing: {guessing(results)} %)"
    )
    harder = next((part for part in CORRUPTED if part in summary), None)
    if harder:
        worst = _worst(results, group, harder)
        text += (
            f"; under {SETS[harder]} in {percent(_accuracy(summary[harder]), 0)} %, at "
            f"worst ({spoken(worst['condition'])}) in {percent(_accuracy(worst), 0)} %"
        )
    turned = percent(rejected_unknown(results), 0)
    if turned != DASH:
        return (
            f"{text}; of images from sources that it does not know it calls {turned} % "
            "unknown."
        )
    return (
        f"{text}; an image from any other source gets one of these names all the same."
    )


def guessing(results: dict) -> str:
    """Return how often guessing names the right source, as per cent."""
    return f"{100 / len(results['sources']):.3g}"


def _hardest(results: dict) -> str:
    return "unseen" if "unseen" in results["summary"] else main_group(results)


def _worst(results: dict, group: str, part: str) -> dict:
    """Return the cell of a set of conditions with the least attribution accuracy."""
    own = [cell for cell in cells_of(results, group) if cell["set"] == part]
    return min(own, key=_accuracy)


def _accuracy(figures: dict) -> float | None:
    return figures["attribution_accuracy"]


def rejected_unknown(results: dict) -> float | None:
    """Return the share of images of held-out sources that are called unknown."""
    rejected = (results["open_set"] or {}).get("rejected")
    return rejected["all"] if rejected else None


def cards(results: dict) -> list[dict[str, str]]:
    """Return the four numbers that matter most: `label`, `value`, `note` of each."""
    group = _hardest(results)
    summary = results["summary"][group]
    found = [
        _card(
            f"attribution, clean images, {words(group)} semantics",
            summary["clean"],
            f"guessing: {guessing(results)} %",
        )
    ]
    harder = next((part for part in CORRUPTED if part in summary), None)
    if harder:
        worst = _worst(results, group, harder)
        least = percent(_accuracy(worst))
        note = f"worst: {least} % ({spoken(worst['condition'])})"
        found.append(_card(f"attribution, {SETS[harder]}", summary[harder], note))
    clean = cells_of(results, main_group(results))[0]
    note = "on clean images"
    if harder:
        note += f"; under {SETS[harder]} {decimal(error(results, harder))}"
    before = f"before {decimal(clean['ece_uncalibrated'])}"
    note += f"; {before if results['calibration'] else 'never calibrated'}"
    label, value = "calibration error", decimal(clean["ece"])
    found.append({"label": label, "value": value, "note": note})
    return [*found, _last_card(results, clean)]


def error(results: dict, part: str, end: str = "") -> float | None:
    """Return the calibration error of a set: the mean over values, then over kinds."""
    own = [c for c in cells_of(results, main_group(results)) if c["set"] == part]
    return mean_by_kind(own, f"ece{end}")


def mean_by_kind(cells: list[dict], key: str) -> float | None:
    """Return the mean over the values of each kind, then over kinds."""
    kinds = dict.fromkeys(cell["kind"] for cell in cells)
    return mean(mean(c[key] for c in cells if c["kind"] == kind) for kind in kinds)


def calibration_harm(results: dict) -> str:
    """Return a sentence where calibration made corrupted images worse, or nothing."""
    for part in CORRUPTED:
        before, after = (error(results, part, end) for end in ("_uncalibrated", ""))
        if None not in (before, after) and after > before + HARM:
            change = f"from {decimal(before)} to {decimal(after)}"
            return f" Here calibration raised the error under {SETS[part]} {change}."
    return ""


def _card(label: str, figures: dict, note: str) -> dict[str, str]:
    ends = interval(figures, "attribution_accuracy", "{low}–{high} %; ")
    note = (ends if ";" in ends else "") + note
    value = f"{percent(_accuracy(figures))} %"
    return {"label": label, "value": value, "note": note}


def _last_card(results: dict, clean: dict) -> dict[str, str]:
    """Return what there is on unknown sources, or else on telling real images."""
    open_set = results["open_set"]
    if open_set and open_set["rejected"]:
        shares = open_set["rejected"]
        kin = [f"{k} {percent(shares[k], 0)} %" for k in KINS if shares[k] is not None]
        known = f"of known sources {percent(shares['known'], 0)} %"
        return {
            "label": "images of unknown sources called unknown",
            "value": f"{percent(shares['all'])} %",
            "note": f"{', '.join(kin)}; {known}",
        }
    if open_set:
        return {
            "label": "known told from unknown, AUROC",
            "value": decimal(open_set["scores"]["max_probability"]["all"]["auroc"]),
            "note": "by the largest probability; 0.5 is guessing",
        }
    point = next(iter((results["calibration"] or {}).get("operating_points", [])), None)
    if point:
        name = f"{point['fpr']:g}"
        return {
            "label": "synthetic images detected, clean",
            "value": f"{percent(clean[f'tpr_at_{name}'])} %",
            "note": f"where {percent(clean[f'fpr_at_{name}'])} % of the real images are "
            "called synthetic",
        }
    value = interval(clean, "detection_accuracy", "{value} %")
    note = "real or synthetic, clean images"
    return {"label": "detection", "value": value, "note": note}


def worst_sentence(results: dict) -> str:
    """Return which condition is worst for the images of each group."""
    found = [
        f"{spoken(summary['worst']['condition'])} on {group} semantics "
        f"({percent(_accuracy(summary['worst']))} %)"
        for group, summary in results["summary"].items()
        if group != "combined"
    ]
    return f"Worst of all: {_and(found)}."


def unknown_called(results: dict) -> str:
    """Return what the threshold of familiarity is, and what falls below it."""
    reject = (results["calibration"] or {}).get("reject")
    rejected = results["open_set"]["rejected"]
    if not reject or not rejected:
        return "No threshold was set: that takes validation images."
    names = {
        "known": "of known sources",
        "known_unseen_semantics": "of known sources where the semantic is unseen",
        "near": "of near ones",
        "far": "of far ones",
    }
    found = [
        f"{percent(rejected[key])} % {name}"
        for key, name in names.items()
        if rejected[key] is not None
    ]
    return (
        f"The threshold used ({words(reject['score'])} {decimal(reject['threshold'])}) "
        f"was set for {percent(reject['fpr'], 0)} % of known validation images to fall "
        f"below it ({percent(reject['achieved'])} % do). Of the test images it calls "
        f"unknown {_and(found)}."
    )


def map_notes(results: dict) -> list[str]:
    """Return what is to be said of the Fréchet ratios."""
    return [
        f"Fréchet ratio, {group} semantics: {found['frechet_note']}."
        for group, found in results["clean"].items()
        if found["frechet_note"]
    ]


def names_without_images(results: dict) -> list[str]:
    """Return a sentence for each group in which sources have no test images."""
    found = [
        f"No {group} test images of {listed(names)}: not in that group's figures."
        for group, names in results["without_images"].items()
        if names
    ]
    names = (results["open_set"] or {}).get("without_images")
    if names:
        found.append(f"No test images of the held-out {listed(names)}.")
    return found


def listed(names: Sequence[str], most: int = 12) -> str:
    """Return names as a list in a sentence, the number alone of those past `most`."""
    more = [f"{len(names) - most} more"] if len(names) > most else []
    return _and([*names[:most], *more])


def _and(names: Iterable[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
