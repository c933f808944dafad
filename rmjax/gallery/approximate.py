"""Neighbours of large galleries, approximately, by faiss (`pip install rmjax[ann]`).

An inverted file (Sivic, Zisserman, Video Google, ICCV 2003; Douze et al., The Faiss
library, 2024, https://arxiv.org/abs/2401.08281): the directions are parted into cells,
and a query meets those of the nearest cells alone, uncompressed.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np

from rmjax.errors import InputError
from rmjax.gallery.search import Score
from rmjax.gallery.store import digest

NEAREST = 100  # images found a query: generators without one among them go unranked
CELLS_PER_ROOT = 4  # cells are so many times the root of the images, as faiss advises
TRAINING = 40  # images a cell that the cells are fitted to; faiss warns below 39
PROBED = 512  # cells a query looks into: an eighth of those of a million images


def build_index(directions: np.ndarray, probed: int = PROBED) -> Any:
    """Return a faiss index of directions, float32 `[N, D]`.

    Args:
        directions: what is to be found.
        probed: cells a query looks into; more find more and take longer.

    Raises:
        InputError: faiss is not installed.
    """
    faiss = _faiss()
    count, size = directions.shape
    cells = max(1, min(int(CELLS_PER_ROOT * count**0.5), count // TRAINING))
    quantizer = faiss.IndexFlatIP(size)
    index = faiss.IndexIVFFlat(quantizer, size, cells, faiss.METRIC_INNER_PRODUCT)
    index.cp.max_points_per_centroid = TRAINING
    directions = np.ascontiguousarray(directions, np.float32)
    index.train(directions)
    index.add(directions)
    index.nprobe = min(probed, cells)
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
        similarity, found = index.search(queries, min(NEAREST, index.ntotal))
        kept = found >= 0  # -1 fills up where the cells hold fewer
        if rows is not None:
            kept &= found != np.asarray(rows)[:, None]
        scores = np.full((len(queries), len(starts)), -np.inf, np.float32)
        place = np.searchsorted(starts, found, side="right") - 1
        query = np.nonzero(kept)[0]
        np.maximum.at(scores, (query, place[kept]), similarity[kept])
        return scores

    return score


def stored_index(folder: Path, directions: np.ndarray) -> Any:
    """Return the index kept in a gallery's folder; build it where there is none.

    Raises:
        InputError: faiss is not installed, or the file can't be read or written.
    """
    faiss = _faiss()
    path = folder / f"index-{digest(directions)[:16]}.faiss"
    try:
        if path.exists():
            return faiss.read_index(str(path))
        index = build_index(directions)
        temporary = path.with_suffix(".part")
        faiss.write_index(index, str(temporary))
        os.replace(temporary, path)
    except (RuntimeError, OSError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: {reason}; remove it and ask again") from error
    return index


def _faiss() -> Any:
    try:
        import faiss
    except ImportError:
        raise InputError(
            "the approximate search needs faiss: pip install rmjax[ann]"
        ) from None
    return faiss
