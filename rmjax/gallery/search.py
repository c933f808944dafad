"""Which enrolled generator is an image most like, and is it like any? Pure functions.

Everything is in directions, unit vectors, and similarity is their cosine, -1 to 1.
Images of a generator are consecutive rows; `starts` says where each generator begins.

Neighbours of large galleries are found approximately by faiss (`pip install
rmjax[ann]`), by an inverted file (Sivic, Zisserman, Video Google, ICCV 2003; Douze et
al., The Faiss library, 2024, https://arxiv.org/abs/2401.08281): the directions are
divided into lists, and a query meets those of the nearest lists alone, uncompressed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.preprocessing import normalize

from rmjax.errors import InputError
from rmjax.evaluation.calibration import rejection_threshold

UNKNOWN = "unknown"  # the answer for an image that is like no enrolled generator
CHUNK = 2**26  # similarities at once, 256 MiB: bounds the memory
REJECT = 0.05  # the share of enrolled images that a threshold rejects, unless said
MAX_LEFT_OUT = 1000  # images that a threshold rests on; of more, so many by chance
NEAREST = 100  # images found per query: generators without one of them go unranked
LISTS_PER_ROOT = 4  # lists are so many times the root of the images, as faiss advises
TRAINING = 40  # images per list that the lists are fitted to; faiss warns below 39
PROBED = 512  # lists a query looks into: an eighth of those of a million images

# Function of queries `[Q, D]` and, if they are enrolled themselves, their rows `[Q]`,
# which are then left out, to the similarity with each generator, float32 `[Q, G]`;
# -inf where the generator has no other image.
Score = Callable[..., np.ndarray]


def neighbours(directions: np.ndarray, starts: np.ndarray) -> Score:
    """Compare with a generator's most similar image; exact, by brute force.

    Args:
        directions: of the enrolled images, float32 `[N, D]`.
        starts: the first row of each generator, ascending from 0, `[G]`.
    """

    def score(queries: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
        scores = np.empty((len(queries), len(starts)), np.float32)
        step = max(1, CHUNK // len(directions))
        for first in range(0, len(queries), step):
            chunk = slice(first, first + step)
            similarity = queries[chunk] @ directions.T
            if rows is not None:
                similarity[np.arange(len(similarity)), rows[chunk]] = -np.inf
            scores[chunk] = np.maximum.reduceat(similarity, starts, axis=1)
        return scores

    return score


def prototypes(directions: np.ndarray, starts: np.ndarray) -> Score:
    """Compare with a generator's prototype, the mean of its directions, normalised.

    Snell, Swersky, Zemel, Prototypical Networks for Few-shot Learning, NeurIPS 2017,
    https://arxiv.org/abs/1703.05175, there with Euclidean distance. Arguments as for
    `neighbours`.
    """
    sums = np.add.reduceat(directions, starts, axis=0)
    means = normalize(sums)  # of opposite images, whose sum is zero, it stays zero
    counts = np.diff(starts, append=len(directions))

    def score(queries: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
        scores = queries @ means.T
        if rows is not None:
            own = np.searchsorted(starts, rows, side="right") - 1
            rest = normalize(sums[own] - directions[rows])
            similarity = np.sum(queries * rest, axis=1)
            others = np.where(counts[own] > 1, similarity, -np.inf)
            scores[np.arange(len(rows)), own] = others
        return scores

    return score


BY: dict[str, Callable[[np.ndarray, np.ndarray], Score]] = {
    "neighbours": neighbours,
    "prototypes": prototypes,
}


def build_index(directions: np.ndarray, probed: int = PROBED) -> Any:
    """Return a faiss index of directions, float32 `[N, D]`.

    Args:
        directions: what is to be found.
        probed: lists a query looks into; with more it finds more and takes longer.

    Raises:
        InputError: faiss is not installed.
    """
    faiss = import_faiss()
    count, size = directions.shape
    lists = max(1, min(int(LISTS_PER_ROOT * count**0.5), count // TRAINING))
    quantizer = faiss.IndexFlatIP(size)
    index = faiss.IndexIVFFlat(quantizer, size, lists, faiss.METRIC_INNER_PRODUCT)
    index.cp.max_points_per_centroid = TRAINING
    directions = np.ascontiguousarray(directions, np.float32)
    index.train(directions)
    index.add(directions)
    index.nprobe = min(probed, lists)
    return index


def approximate(index: Any, starts: np.ndarray) -> Score:
    """Compare with a generator's most similar image of those that the index finds.

    Args:
        index: from `build_index`.
        starts: the first row of each generator, ascending from 0, `[G]`.

    Returns:
        A `Score`; generators of which no image is found have -inf.
    """

    def score(queries: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
        queries = np.ascontiguousarray(queries, np.float32)
        similarity, nearest = index.search(queries, min(NEAREST, index.ntotal))
        kept = nearest >= 0  # -1 fills up where the lists hold fewer
        if rows is not None:
            kept &= nearest != np.asarray(rows)[:, None]
        scores = np.full((len(queries), len(starts)), -np.inf, np.float32)
        generator = np.searchsorted(starts, nearest, side="right") - 1
        query = np.nonzero(kept)[0]
        np.maximum.at(scores, (query, generator[kept]), similarity[kept])
        return scores

    return score


def import_faiss() -> Any:
    """Return the module faiss; an InputError says how to install it."""
    try:
        import faiss
    except ImportError:
        raise InputError(
            "the approximate search needs faiss: pip install rmjax[ann]"
        ) from None
    return faiss


@dataclass(frozen=True)
class Threshold:
    """Below which similarity an image is of no enrolled generator, and what of that.

    Attributes:
        value: similarities below it are rejected; None where there is nothing to
            choose it by, and nothing is rejected.
        images: enrolled images that it rests on, each left out in turn; those of
            generators with one image can't be.
        rejected: the share of these that it rejects, [0, 1]; None without any.
        strangers: enrolled images of new generators that were asked about with their
            whole generator left out.
        accepted: the share of these that it takes for another generator's, [0, 1].
    """

    value: float | None
    images: int
    rejected: float | None
    strangers: int
    accepted: float | None


def choose_threshold(
    score: Score,
    directions: np.ndarray,
    starts: np.ndarray,
    share: float = REJECT,
    *,
    new: np.ndarray | None = None,
    max_images: int = MAX_LEFT_OUT,
) -> Threshold:
    """Choose the similarity below which at most `share` of the enrolled images are.

    Each image is asked about with itself left out of the gallery: it meets one image of
    its generator less than a new image would.

    Args:
        score: from one of `BY`, of the same images.
        directions: of the enrolled images, float32 `[N, D]`.
        starts: the first row of each generator, `[G]`.
        share: of enrolled images to reject, in (0, 1).
        new: which generators may stand for strangers, bool `[G]`; None: all. Those that
            the network was trained on are told apart better than any stranger is.
        max_images: of more images, so many, by chance but always the same.

    Raises:
        InputError: a share outside (0, 1), or no images.
    """
    if not 0 < share < 1:
        raise InputError(f"the share to reject is between 0 and 1; got {share}")
    counts = np.diff(starts, append=len(directions))
    rows = np.arange(len(directions))
    if len(rows) > max_images:
        rows = np.random.default_rng(0).choice(rows, max_images, replace=False)
    own = np.searchsorted(starts, rows, side="right") - 1
    scores = score(directions[rows], rows)
    known = scores.max(1)[counts[own] > 1]
    scores[np.arange(len(rows)), own] = -np.inf
    strange = scores.max(1)
    new = np.ones(len(starts), bool) if new is None else new
    strange = strange[(strange > -np.inf) & new[own]]
    if not len(known):
        return Threshold(None, 0, None, len(strange), None)
    value, rejected = rejection_threshold(known, share)
    accepted = float(np.mean(strange >= value)) if len(strange) else None
    return Threshold(value, len(known), rejected, len(strange), accepted)


def answer(
    scores: np.ndarray, names: Sequence[str], threshold: float | None, top: int
) -> list[dict]:
    """Say of each image which generator it is most like, or that it is unknown.

    Args:
        scores: similarity with each generator, `[Q, G]`; -inf where there is none.
        names: of the generators.
        threshold: below it an image is unknown; None rejects nothing.
        top: how many generators to list.

    Returns:
        For each image `answer`, a name or `UNKNOWN`, and `ranked`, the `top` most
        similar generators as `generator` and `similarity`, best first.
    """
    answers = []
    for row in scores:
        order = [i for i in np.argsort(-row, kind="stable")[:top] if row[i] > -np.inf]
        ranked = [{"generator": names[i], "similarity": float(row[i])} for i in order]
        best = ranked[0] if ranked else None
        if best is None or (threshold is not None and best["similarity"] < threshold):
            name = UNKNOWN
        else:
            name = best["generator"]
        answers.append({"answer": name, "ranked": ranked})
    return answers
