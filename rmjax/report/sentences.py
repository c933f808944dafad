"""What a report says about an evaluation, in sentences and four numbers.

The first of them are of the subset of semantics that asks the most, as each says of
itself.
"""

from collections.abc import Iterable

from rmjax.report.view import (
    CORRUPTED,
    DASH,
    KINS,
    SETS,
    alarms,
    at_chance,
    attributed_unknown,
    by_kind,
    cells_of,
    change,
    decimal,
    guessing,
    hardest_set,
    hardest_subset,
    interval,
    join,
    least,
    listed,
    main_subset,
    majority,
    mean,
    mean_of,
    percent,
    rejected_unknown,
    subsets,
    words,
)

HARM = 0.01  # of calibration error, that is worth saying
EXCESS = 0.05  # of attributions to a source, that is worth saying
FEW = 5  # real images that a threshold rests on

Card = dict[str, str]


def headline(results: dict) -> str:
    """Return in two sentences what the network can and cannot do."""
    subset, conditions = hardest_subset(results), hardest_set(results)
    summary = results["summary"][subset]
    of = " of semantics that it was never trained on" if subset == "unseen" else ""
    text = (
        f"Shown unaltered images{of}, the network names the right one of "
        f"{len(results['sources'])} sources in {_accuracy(summary['clean'])} % of the "
        f"cases (guessing: {guessing(results)} %)"
    )
    if conditions:
        text += f"; under {SETS[conditions]} in {_accuracy(summary[conditions])} %"
    lost, total = at_chance(results, subset) or (0, 0)
    if lost:
        text += f"; in {lost} of {total} conditions it is no better than guessing"
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
    subset, conditions = hardest_subset(results), hardest_set(results)
    summary = results["summary"][subset]
    note = f"guessing: {guessing(results)} %"
    first = _share("attribution", "clean images", subset, summary["clean"], note)
    if conditions:
        lost, total = at_chance(results, subset, conditions) or (0, 0)
        note = "better than guessing in all conditions" if total else ""
        if lost:
            note = f"no better than guessing in {lost} of {total} conditions"
        second = _share(
            "attribution", SETS[conditions], subset, summary[conditions], note
        )
    else:
        name, share = majority(results)
        note = f"always “{name}”: {percent(share)} %"
        second = _share("detection", "clean images", subset, summary["clean"], note)
    third = _calibration_card(results, subset, conditions)
    return [first, second, third, _last_card(results, subset)]


def _accuracy(figures: dict) -> str:
    return percent(figures["attribution_accuracy"])


def _share(what: str, images: str, subset: str, figures: dict, note: str) -> Card:
    ends = interval(figures, f"{what}_accuracy", "{low}–{high} %; ")
    note = (ends if ";" in ends else "") + note
    value = f"{percent(figures[f'{what}_accuracy'])} %"
    label = f"{what}, {images}, {subset} semantics"
    return {"label": label, "value": value, "note": note.removesuffix("; ")}


def _calibration_card(results: dict, subset: str, conditions: str | None) -> Card:
    note = "never calibrated"
    if results["calibration"]:
        note = f"clean: {change(results, subset, 'clean', 'ece')} by calibration"
    if conditions:
        note += (
            f"; under {SETS[conditions]} {change(results, subset, conditions, 'ece')}"
        )
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


def calibration_harm(results: dict) -> str:
    """Return a sentence where calibration made corrupted images worse, or nothing."""
    subset = hardest_subset(results)
    for conditions in CORRUPTED:
        before = mean_of(results, subset, conditions, "ece_uncalibrated")
        after = mean_of(results, subset, conditions, "ece")
        if before is not None and after is not None and after > before + HARM:
            return (
                f" Here calibration raised the error under {SETS[conditions]} ({subset} "
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
            f"the source (its 95 % interval reaches that): {join(known)}."
        )
    return text


def sets_sentence(results: dict) -> str:
    """Return what the sets of altered images are, by name where not all were taken."""
    named = {
        conditions: list(by_kind(c for c in results["cells"] if c["set"] == conditions))
        for conditions in SETS
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
    conditions, subset = hardest_set(results), hardest_subset(results)
    if conditions is None:
        return ""
    counts = results["confusion"][subset][conditions]
    total = max(sum(map(sum, counts)), 1)
    named = [sum(column) / total for column in zip(*counts, strict=True)]
    true = [sum(row) / total for row in counts]
    most = max(range(len(true)), key=lambda i: named[i] - true[i])
    if named[most] - true[most] < EXCESS:
        return ""
    return (
        f"Under {SETS[conditions]} ({subset} semantics) {percent(named[most])} % of all images "
        f"are attributed to “{results['sources'][most]}”; {percent(true[most])} % "
        "really are from it."
    )


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
        f"unknown {join([*kin, known])}."
    )


def known_rejected(results: dict) -> str:
    """Return how many altered images of known sources are called unknown."""
    subset = hardest_subset(results)
    sets = [name for name in CORRUPTED if name in results["summary"][subset]]
    told = _rates(results, subset, sets, "rejected") if results["calibration"] else ""
    if not told:
        return ""
    return f" Of images of known sources ({subset} semantics) it calls unknown: {told}."


def _rates(results: dict, subset: str, sets: Iterable[str], key: str) -> str:
    """Return a rate under each set of conditions, as far as it is defined."""
    rates = {SETS[name]: mean_of(results, subset, name, key) for name in sets}
    return join(
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
