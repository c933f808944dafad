"""How well an extractor's fingerprints recognise generators, on any prepared data set.

Three questions, clean and under each condition: are two images of one generator
(`verification.py`), which of some enrolled ones made an image, and is it any of them
(`identification.py`)? Fingerprints stand beside the features of `features.py`.

For verification all images go through the condition. Enrolled images stay clean, and
those asked about go through it: who enrols has the generator's own images.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
from tqdm import tqdm

from rmjax.evaluation.bootstrap import Resamples, draw_resamples
from rmjax.evaluation.robustness import Condition, Corrupter, parse_suite
from rmjax.gallery.features import FEATURES, SPACES
from rmjax.gallery.identification import (
    CONTENT,
    FIGURES,
    REJECTION_FIGURES,
    Draw,
    Labels,
    choose_rejection_k,
    draw_contents,
    identify,
    reject,
)
from rmjax.gallery.images import AT_ONCE, BenchmarkImages
from rmjax.gallery.verification import Pairs, choose_pairs, verify
from rmjax.inference.attributor import Attributor, load_pretrained
from rmjax.utils.checks import check_at_least
from rmjax.utils.choose import check_choice
from rmjax.utils.table import format_table
from rmjax.utils.versions import own_version

SUITE = "clean,jpeg:75,bilinear:0.5,blur:1"
KS = (1, 5, 10, 50)


def benchmark_extractor(
    workdir: str | Path | None,
    data: str,
    *,
    data_dir: str | Path = "data",
    sources: Sequence[str] | None = None,
    ks: Sequence[int] = KS,
    draws: int = 20,
    bootstrap: int = 200,
    suite: str = SUITE,
    features: Sequence[str] | None = None,
    seed: int = 0,
    show_progress: bool = True,
) -> dict:
    """Measure an extractor on a data set's images, all splits together.

    Args:
        workdir: folder of a run, or a file of weights; None: the weights that ship.
        data: name of a prepared data set.
        data_dir: the folder that holds it.
        sources: of it; None: all.
        ks: images of each source that a gallery enrols.
        draws: of what is enrolled.
        bootstrap: draws of an interval.
        suite: conditions, as `parse_suite` reads them.
        features: of `FEATURES`; None: all.
        seed: of all draws and of random parameters.
        show_progress: whether to draw a bar.

    Returns:
        A dict ready for JSON: what was measured and how; `images` by source, of
        `available`; pairs of the `same` and of `different` sources; `rejection_k`; and
        `rows`, each a `condition`, `features`, `space` (of `SPACES`), `verification`
        (see `verify`), `identification` (a list, see `identify`) and `rejection` (see
        `reject`; None where no source can be left out).

    Raises:
        InputError: no such extractor, data set, source, feature or condition; fewer
            than two sources, a source without images, or none of which two images
            show different content; or an image that can't be read or is too small.
    """
    check_at_least(1, k=min(ks, default=0), draws=draws, bootstrap=bootstrap)
    names = list(dict.fromkeys(FEATURES if features is None else features))
    for name in names:
        check_choice("feature", name, FEATURES)
    conditions = parse_suite(suite)
    images = BenchmarkImages(data_dir, data, sources)
    plan = make_plan(images.labels, ks, draws, bootstrap, seed)
    model = load_pretrained(workdir)
    rows = _measure_all(plan, images, model, conditions, names, seed, show_progress)
    for row in rows:
        if row["rejection"]:
            left_out = row["rejection"]["left_out"].items()
            row["rejection"]["left_out"] = {images.sources[s]: v for s, v in left_out}
    same = plan.pairs.same
    return {
        "rmjax": own_version(),
        "workdir": None if workdir is None else str(workdir),
        "extractor": model.name,
        "checkpoint": model.checkpoint,
        "parameters": model.digest,
        "data": data,
        "directory": str(images.directory),
        "images": images.count(images.labels.source),
        "available": images.available,
        "semantics": len(np.unique(images.labels.semantic)),
        "groups": len(np.unique(images.labels.group)),
        "pairs": {"same": int(same.sum()), "different": int((~same).sum())},
        "middle": images.side,
        "k": list(plan.ks),
        "rejection_k": plan.rejection_k,
        "draws": draws,
        "bootstrap": bootstrap,
        "suite": [str(condition) for condition in conditions],
        "features": names,
        "seed": seed,
        "rows": rows,
    }


def _measure_all(
    plan: "Plan",
    images: BenchmarkImages,
    model: Attributor,
    conditions: Sequence[Condition],
    names: list[str],
    seed: int,
    show_progress: bool,
) -> list[dict]:
    """Return a row for each condition, feature and space it is compared in."""
    corrupter = Corrupter(model.config, model.devices)
    extractors = {n: FEATURES[n].make(model, images.side, seed) for n in names}
    spaces = [(name, space) for name in names for space in FEATURES[name].spaces]
    clean: dict[tuple[str, str], np.ndarray] = {}
    rows = []
    steps = len(conditions) * (len(range(0, len(images), AT_ONCE)) + len(spaces))
    with tqdm(total=steps, unit="step", disable=not show_progress) as bar:
        for condition in conditions:
            bar.set_description(f"{condition}: images")
            parts: dict[str, list] = {name: [] for name in names}
            for pixels in images.read(corrupter, condition, model.devices):
                for name, extract in extractors.items():
                    parts[name].append(extract(pixels))
                bar.update()
            made = {name: np.concatenate(parts.pop(name)) for name in names}
            for name, space in spaces:
                bar.set_description(f"{condition}: {name}")
                asked = SPACES[space](made[name])
                enrolled = clean.setdefault((name, space), asked)  # clean comes first
                row = {"features": name, "space": space, "condition": str(condition)}
                rows.append(row | measure_feature(plan, asked, enrolled))
                bar.update()
    return rows


@dataclass(frozen=True)
class Plan:
    """What is drawn once, so that all features and conditions meet the same.

    Attributes:
        labels: of the images.
        pairs: that verification looks at.
        draws: of galleries.
        ks: images of each source that these enrol.
        rejection_k: those that unknown generators are asked about with, see
            `choose_rejection_k`.
        resamples: of the images.
    """

    labels: Labels
    pairs: Pairs
    draws: list[Draw]
    ks: tuple[int, ...]
    rejection_k: int | None
    resamples: Resamples


def make_plan(
    labels: Labels, ks: Sequence[int], draws: int, bootstrap: int, seed: int
) -> Plan:
    """Draw what features are measured by; arguments as for `benchmark_extractor`.

    Raises:
        InputError: no two images of one source, or of two, show different content.
    """
    pairs = choose_pairs(labels.source, labels.semantic, labels.group)
    ks = tuple(sorted(set(ks)))
    drawn = draw_contents(labels, draws, seed)
    resamples = draw_resamples(labels.group, bootstrap, seed)
    rejection_k = choose_rejection_k(labels, drawn, ks)
    return Plan(labels, pairs, drawn, ks, rejection_k, resamples)


def measure_feature(plan: Plan, asked: np.ndarray, enrolled: np.ndarray) -> dict:
    """Measure one feature under one condition.

    Args:
        plan: what to measure it by.
        asked: of all images under the condition, unit vectors `[N, D]`.
        enrolled: of the same images, clean.

    Returns:
        `verification`, `identification` and `rejection`, see `benchmark_extractor`.
    """
    among = asked @ asked.T
    clean = among if asked is enrolled else enrolled @ enrolled.T
    found = among if asked is enrolled else asked @ enrolled.T
    where = plan.labels, plan.draws
    identified = [identify(found, clean, *where, k, plan.resamples) for k in plan.ks]
    k = plan.rejection_k
    return {
        "verification": verify(among, plan.pairs, plan.resamples),
        "identification": [*chain(*identified)],
        "rejection": None if k is None else reject(found, *where, k),
    }


def format_benchmark(results: dict) -> str:
    """Return the figures as lines of text, by condition."""
    counts = ", ".join(f"{name} {n}" for name, n in results["images"].items())
    total = sum(results["images"].values())
    lines = [f"{total} images, {results['semantics']} semantics: {counts}"]
    if total < (available := sum(results["available"].values())):
        lines.append(f"chosen evenly by source from {available} images")
    lines.append("brackets: 95 % by bootstrap; +-: deviation over draws of the gallery")
    for condition in results["suite"]:
        rows = {
            f"{row['features']}, {row['space']}": row
            for row in results["rows"]
            if row["condition"] == condition
        }
        of_pairs = {name: _pair_texts(row) for name, row in rows.items()}
        k = results["rejection_k"]
        columns = {"AUC": ("auc", ""), "EER": ("eer", "")}
        columns |= {n.upper(): (n, "") for n in REJECTION_FIGURES}
        title = "pairs" + (f"; unknown generators, K = {k}" if k else "")
        lines += ["", f"{condition}", *format_table(title, columns, of_pairs)]
        lines += ["", *_identification_lines(rows)]
    return "\n".join(lines)


def _pair_texts(row: dict) -> dict[str, str]:
    figures, rejection = row["verification"], row["rejection"] or {}
    texts = {name: _text(figures[name]) for name in ("auc", "eer")}
    return texts | {
        name: f"{rejection[name]['mean']:.3f} +-{rejection[name]['std']:.3f}"
        for name in REJECTION_FIGURES
        if rejection
    }


def _identification_lines(rows: dict[str, dict]) -> list[str]:
    """Return a table of images of other content, Rank-1 of enrolled content beside it."""
    table: dict[str, dict] = {}
    reasons = []
    for name, row in rows.items():
        for cell in row["identification"]:
            k, content = cell["k"], cell["content"]
            if "reason" in cell:
                reasons.append(f"K = {k}, {CONTENT[content]}: {cell['reason']}")
                continue
            guess = {n: f"{p:.3f}{'':17}" for n, p in cell["chance"].items()}
            chance = dict.fromkeys((*FIGURES[:2], "enrolled"), guess["rank1"])
            table.setdefault(f"{k:>3} chance", {"map": guess["map"], **chance})
            line = table.setdefault(f"{k:>3} {name}", {})
            if content == "enrolled":
                line["enrolled"] = _text(cell[FIGURES[0]])
                continue
            least, most = cell["sources"]
            line |= {figure: _text(cell[figure]) for figure in FIGURES}
            line["std"] = f"{cell[FIGURES[0]]['std']:.3f}"
            line["sources"] = f"{least}" if least == most else f"{least}-{most}"
            line["asked"] = cell["asked"]
    columns = {
        "Rank-1 near": (FIGURES[0], ""),
        "+-": ("std", ""),
        "prototypes": (FIGURES[1], ""),
        "mAP": (FIGURES[2], ""),
        "sources": ("sources", ""),
        "asked": ("asked", ""),
        "enrolled content, near": ("enrolled", ""),
    }
    by_k = dict(sorted(table.items(), key=lambda entry: int(entry[0].split()[0])))
    lines = format_table("  K features, space", columns, by_k) if table else []
    return [*lines, *dict.fromkeys(reasons)]


def _text(figure: dict) -> str:
    low, high = figure["interval"]
    reach = 17 * " " if low is None else f" [{low:.3f}, {high:.3f}]"
    return f"{figure['mean']:.3f}{reach}"
