"""What a report says about an evaluation first: a sentence and four numbers.

All are of the subset of semantics that asks the most, as each says of itself.
"""

from rmjax.report.view import (
    DASH,
    KINS,
    SETS,
    at_chance,
    attributed_unknown,
    cells_of,
    change,
    decimal,
    guessing,
    harder,
    hardest,
    interval,
    least,
    majority,
    percent,
    rejected_unknown,
)

Card = dict[str, str]


def headline(results: dict) -> str:
    """Return in two sentences what the network can and cannot do."""
    subset, condition_set = hardest(results), harder(results)
    summary = results["summary"][subset]
    of = " of semantics that it was never trained on" if subset == "unseen" else ""
    text = (
        f"Shown unaltered images{of}, the network names the right one of "
        f"{len(results['sources'])} sources in {_accuracy(summary['clean'])} % of the "
        f"cases (guessing: {guessing(results)} %)"
    )
    if condition_set:
        text += (
            f"; under {SETS[condition_set]} in {_accuracy(summary[condition_set])} %"
        )
    lost, conditions = at_chance(results, subset) or (0, 0)
    if lost:
        text += f"; in {lost} of {conditions} conditions it is no better than guessing"
    return f"{text}. {_unknown_sentence(results)}"


def _unknown_sentence(results: dict) -> str:
    real = results["sources"][0]
    taken = attributed_unknown(results, real)
    if taken is None:
        return "An image from any other source gets one of these names all the same."
    text = (
        "Of images from sources that it does not know it attributes "
        f"{percent(taken)} % to “{real}”"
    )
    turned = percent(rejected_unknown(results))
    return f"{text}." if turned == DASH else f"{text}; it calls {turned} % unknown."


def cards(results: dict) -> list[Card]:
    """Return the four numbers that matter most: `label`, `value`, `note` of each."""
    subset, condition_set = hardest(results), harder(results)
    summary = results["summary"][subset]
    note = f"guessing: {guessing(results)} %"
    first = _share("attribution", "clean images", subset, summary["clean"], note)
    if condition_set:
        lost, conditions = at_chance(results, subset, condition_set) or (0, 0)
        note = "better than guessing in all conditions" if conditions else ""
        if lost:
            note = f"no better than guessing in {lost} of {conditions} conditions"
        second = _share(
            "attribution", SETS[condition_set], subset, summary[condition_set], note
        )
    else:
        name, share = majority(results)
        note = f"always “{name}”: {percent(share)} %"
        second = _share("detection", "clean images", subset, summary["clean"], note)
    third = _calibration_card(results, subset, condition_set)
    return [first, second, third, _last_card(results, subset)]


def _accuracy(figures: dict) -> str:
    return percent(figures["attribution_accuracy"])


def _share(what: str, images: str, subset: str, figures: dict, note: str) -> Card:
    ends = interval(figures, f"{what}_accuracy", "{low}–{high} %; ")
    note = (ends if ";" in ends else "") + note
    value = f"{percent(figures[f'{what}_accuracy'])} %"
    label = f"{what}, {images}, {subset} semantics"
    return {"label": label, "value": value, "note": note.removesuffix("; ")}


def _calibration_card(results: dict, subset: str, condition_set: str | None) -> Card:
    note = "never calibrated"
    if results["calibration"]:
        note = f"clean: {change(results, subset, 'clean', 'ece')} by calibration"
    if condition_set:
        note += f"; under {SETS[condition_set]} {change(results, subset, condition_set, 'ece')}"
    return {
        "label": f"calibration error, clean images, {subset} semantics",
        "value": decimal(cells_of(results, subset)[0]["ece"]),
        "note": f"{note} (0 is best)",
    }


def _last_card(results: dict, subset: str) -> Card:
    """Return what becomes of unknown sources, or else of real images."""
    real = results["sources"][0]
    taken = attributed_unknown(results, real)
    if taken is not None:
        return {
            "label": f"images of unknown sources attributed to “{real}”, clean "
            f"images, {next(iter(results['summary']))} semantics",
            "value": f"{percent(taken)} %",
            "note": _unknown_note(results["open_set"]),
        }
    point = next(iter((results["calibration"] or {}).get("operating_points", [])), None)
    if point:
        name = f"{point['fpr']:g}"
        clean = cells_of(results, subset)[0]
        return {
            "label": f"synthetic images detected, clean images, {subset} semantics",
            "value": f"{percent(clean[f'tpr_at_{name}'])} %",
            "note": f"where {percent(clean[f'fpr_at_{name}'])} % of the real images are "
            f"called synthetic (aim: {percent(point['fpr'], 0)} %)",
        }
    recalls = results["clean"][subset]["recall"]
    source = least(recalls)
    return {
        "label": f"source recognised least, clean images, {subset} semantics",
        "value": f"{percent(recalls[source])} %",
        "note": f"of the images of {source} are attributed to it",
    }


def _unknown_note(open_set: dict) -> str:
    shares = open_set["rejected"]
    if not shares:
        area = decimal(open_set["scores"]["max_probability"]["all"]["auroc"])
        return f"known told from unknown: AUROC {area} (0.5 is guessing)"
    kin = [f"{k} {percent(shares[k])} %" for k in KINS if shares[k] is not None]
    known = f"of known sources {percent(shares['known'])} %"
    return f"called unknown: {', '.join(kin)}; {known}"
