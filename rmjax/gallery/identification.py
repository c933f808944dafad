"""Which generator made an image, and is it any that is enrolled? Draws of galleries.

A gallery enrols K images of each source, from half of the semantics. Images of the
other half show whether fingerprints carry over to content that no enrolled image has.

Reference: Owen, The pigeonhole bootstrap, Annals of Applied Statistics 2007,
https://arxiv.org/abs/0712.1111 (intervals that draw photographs and galleries anew)
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from rmjax.evaluation.bootstrap import Resamples, draw_resamples, interval
from rmjax.evaluation.openset import measure
from rmjax.gallery.evaluate import average_precision, chance

# Which images are asked about.
CONTENT = {"other": "other content than enrolled", "enrolled": "enrolled content"}
FIGURES = ("rank1_neighbours", "rank1_prototypes", "map")
REJECTION_FIGURES = ("auroc", "oscr", "fpr95")
REJECTION_K = 10  # at most, that unknown generators are asked about with


@dataclass(frozen=True)
class Labels:
    """What is known of N images, integers `[N]` each.

    Attributes:
        source: from 0.
        semantic: what they show.
        group: equal for a photograph and what was made from it.
    """

    source: np.ndarray
    semantic: np.ndarray
    group: np.ndarray


@dataclass(frozen=True)
class Draw:
    """What may be enrolled, in a random order.

    Attributes:
        enrollable: whether an image is of the half of semantics that is, bool `[N]`.
        rows: of each source the images of that half, in the order they are enrolled.
    """

    enrollable: np.ndarray
    rows: tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Enrolled:
    """A gallery, and who is asked.

    Attributes:
        sources: those that are enrolled, ascending, `[G]`.
        rows: of their images, one source after the other, `[G * K]`.
        starts: the first of each source in `rows`, `[G]`.
        asked: rows of images of these sources, of no enrolled group, `[Q]`.
    """

    sources: np.ndarray
    rows: np.ndarray
    starts: np.ndarray
    asked: np.ndarray


def draw_contents(labels: Labels, draws: int, seed: int) -> list[Draw]:
    """Draw half of the semantics, and an order of their images, several times.

    Groups have one order for all sources. Where sources share photographs they enrol
    the same ones, so that content favours none; and as many images as can be are of no
    enrolled group, and can be asked about.
    """
    semantics = np.unique(labels.semantic)
    groups, code = np.unique(labels.group, return_inverse=True)
    drawn = []
    for number in range(draws):
        rng = np.random.default_rng((seed, number))
        half = rng.permutation(semantics)[: max(len(semantics) // 2, 1)]
        enrollable = np.isin(labels.semantic, half)
        order = np.lexsort((rng.random(len(code)), rng.permutation(len(groups))[code]))
        order = order[enrollable[order]]
        own = labels.source[order]
        rows = tuple(order[own == source] for source in range(labels.source.max() + 1))
        drawn.append(Draw(enrollable, rows))
    return drawn


def enrol_first(labels: Labels, draw: Draw, k: int) -> Enrolled | None:
    """Enrol the first `k` images of each source that has so many; None below two."""
    sources = np.array([s for s, rows in enumerate(draw.rows) if len(rows) >= k])
    if len(sources) < 2:
        return None
    rows = np.concatenate([draw.rows[source][:k] for source in sources])
    asked = np.isin(labels.source, sources) & ~np.isin(labels.group, labels.group[rows])
    return Enrolled(sources, rows, np.arange(0, len(rows), k), np.flatnonzero(asked))


def identify(
    similarity: np.ndarray,
    clean: np.ndarray,
    labels: Labels,
    draws: Sequence[Draw],
    k: int,
    resamples: Resamples,
) -> list[dict]:
    """Measure galleries of `k` images of each source by all images that may be asked.

    Args:
        similarity: of asked images with enrolled ones, `[N, N]`.
        clean: of enrolled images among each other, `[N, N]`.
        labels: of the images.
        draws: from `draw_contents`.
        k: images of each source; a source with fewer is left out of a draw.
        resamples: of the images.

    Returns:
        Ready for JSON, for each of `CONTENT`: `k`, `content`; the `draws` that enrol two
        sources and leave an image to ask; least and most `sources` that have one, over
        these; `asked`, images asked at least once; `chance` of guessing; and for each
        of `FIGURES` `mean`, over each source's answers in all draws, then over sources;
        its `interval`, 95 % over groups of asked images and over draws; and `std`, the
        deviation over draws: what one gallery's choice of images does. `reason`, where
        no draw enrols and asks: then no figure.
    """
    size = (len(draws), len(labels.source))
    totals = {content: np.zeros((len(FIGURES), *size)) for content in CONTENT}
    asked = {content: np.zeros(size) for content in CONTENT}
    guesses = []
    for number, draw in enumerate(draws):
        gallery = enrol_first(labels, draw, k)
        if gallery is None:
            continue
        guesses.append(chance(len(gallery.sources), k))
        figures = _ask(similarity, clean, labels.source, gallery)
        of_enrolled = draw.enrollable[gallery.asked]
        for content in CONTENT:
            own = of_enrolled == (content == "enrolled")
            totals[content][:, number, gallery.asked[own]] = figures[:, own]
            asked[content][number, gallery.asked[own]] = 1
    reason = "every image is of an enrolled group: none is left to ask about"
    if not guesses:
        reason = f"in no draw have two sources {k} images of enrolled content"
        guesses.append({})
    guess = {n: float(np.mean([g[n] for g in guesses])) for n in guesses[0]}
    rows = []
    for content in CONTENT:
        row = {"k": k, "content": content}
        if asked[content].any():
            measured = _summarise(totals[content], asked[content], labels, resamples)
            rows.append(row | {"chance": guess} | measured)
        else:
            rows.append(row | {"reason": reason})
    return rows


def reject(
    similarity: np.ndarray, labels: Labels, draws: Sequence[Draw], k: int
) -> dict | None:
    """Measure how well a source that is not enrolled is told from those that are.

    In each draw each enrolled source in turn is taken out of the gallery. An image's
    score is its similarity with the nearest image left there; those asked are of other
    content than enrolled.

    Args:
        similarity: of asked images with enrolled ones, `[N, N]`.
        labels: of the images.
        draws: from `draw_contents`.
        k: images of each source.

    Returns:
        Ready for JSON: `k`; of each of `REJECTION_FIGURES`, see `openset.measure`,
        `mean`, over draws, then over sources left out, and `std`, the deviation over
        draws; `left_out`: by number of the source its mean `auroc`. None where no
        source can be left out.
    """
    measured: dict[int, list] = {}
    by_draw = []
    for draw in draws:
        gallery = enrol_first(labels, draw, k)
        if gallery is None:
            continue
        asked = gallery.asked[~draw.enrollable[gallery.asked]]
        near = np.maximum.reduceat(
            similarity[np.ix_(asked, gallery.rows)], gallery.starts, axis=1
        )
        truth = labels.source[asked]
        found = []
        for place, source in enumerate(gallery.sources):
            unknown = truth == source
            if not unknown.any() or unknown.all():
                continue
            rest = np.delete(gallery.sources, place)
            scores = np.delete(near, place, axis=1)
            right = rest[scores.argmax(1)] == truth
            best = scores.max(1)
            figures = measure(best[~unknown], right[~unknown], best[unknown])
            found.append([figures[name] for name in REJECTION_FIGURES])
            measured.setdefault(int(source), []).append(found[-1])
        if found:
            by_draw.append(np.mean(found, axis=0))
    if not measured:
        return None
    means = {source: np.mean(rows, axis=0) for source, rows in measured.items()}
    mean = np.mean([*means.values()], axis=0)
    std = np.std(by_draw, axis=0)
    spread = {
        name: {"mean": float(mean[i]), "std": float(std[i])}
        for i, name in enumerate(REJECTION_FIGURES)
    }
    left_out = {source: float(means[source][0]) for source in sorted(means)}
    return {"k": k, **spread, "left_out": left_out}


def choose_rejection_k(
    labels: Labels, draws: Sequence[Draw], ks: Sequence[int]
) -> int | None:
    """Return the largest of `ks` up to `REJECTION_K` that fits a draw; None without one.

    Where all are larger, the smallest of them.
    """
    few = [k for k in ks if k <= REJECTION_K] or [min(ks)]
    fits = [k for k in few if any(enrol_first(labels, draw, k) for draw in draws)]
    return max(fits, default=None)


def _ask(
    similarity: np.ndarray, clean: np.ndarray, source: np.ndarray, gallery: Enrolled
) -> np.ndarray:
    """Return `FIGURES` of each image that is asked, `[3, Q]` in [0, 1].

    As `search.neighbours` and `search.prototypes` answer, but of similarities: features
    may be far longer than images are many.
    """
    rows, starts = gallery.rows, gallery.starts
    found = similarity[np.ix_(gallery.asked, rows)]
    among = np.add.reduceat(clean[np.ix_(rows, rows)], starts, axis=1)
    # Of the sum of a source's directions, the square of its length.
    squares = np.diagonal(np.add.reduceat(among, starts, axis=0))
    lengths = np.sqrt(np.maximum(squares, np.finfo(np.float32).tiny))
    near = np.maximum.reduceat(found, starts, axis=1)
    mean = np.add.reduceat(found, starts, axis=1) / lengths
    truth = source[gallery.asked]
    right = [gallery.sources[scores.argmax(1)] == truth for scores in (near, mean)]
    precision = average_precision(found, source[rows] == truth[:, None])
    return np.stack([*right, precision])


def _summarise(
    totals: np.ndarray, asked: np.ndarray, labels: Labels, resamples: Resamples
) -> dict:
    """Return what `identify` says of images of one sort of content.

    Args:
        totals: figures by draw and image, zeros where it is not asked, `[3, D, N]`.
        asked: 1 where it is, once at least, `[D, N]`.
        labels: of the images.
        resamples: of the images.
    """
    draws, images = asked.shape
    groups, kinds = resamples.counts.shape[1], labels.source.max() + 1
    cell = labels.source * groups + resamples.code
    entries = (np.ones(images), (np.arange(images), cell))
    table = sparse.csr_array(entries, (images, kinds * groups))
    # How often each counts: once, then as drawn.
    drawn = draw_resamples(np.arange(draws), len(resamples.counts)).counts
    of_group = np.vstack([np.ones(groups), resamples.counts])
    of_draw = np.vstack([np.ones(draws), drawn])

    def by_source(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Sum over images, in each draw `[D, S]`; over all and as drawn `[1 + B, S]`."""
        cells = (values @ table).reshape(draws, kinds, groups)
        resampled = np.einsum("bg,dsg->bds", of_group, cells, optimize=True)
        return cells.sum(2), np.einsum("bd,bds->bs", of_draw, resampled)

    numbers = by_source(asked)
    sources = [int(n) for n in (numbers[0] > 0).sum(1) if n]
    ever = asked.any(0)
    row: dict = {
        "draws": len(sources),
        "sources": [min(sources), max(sources)],
        "asked": int(ever.sum()),
    }
    for name, values in zip(FIGURES, totals, strict=True):
        single, (mean, *samples) = map(_over_sources, by_source(values), numbers)
        # Precision is no share of images.
        shares = 0 if name == "map" else len(np.unique(labels.group[ever]))
        row[name] = {
            "mean": float(mean),
            "interval": interval(np.array(samples), shares),
            "std": float(np.nanstd(single)),
        }
    return row


def _over_sources(totals: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Return the mean over sources of their means, `[R]` of `[R, S]`; NaN without any."""
    there = numbers > 0
    means = np.divide(totals, numbers, out=np.zeros_like(totals), where=there)
    with np.errstate(invalid="ignore"):
        return means.sum(1) / there.sum(1)
