"""Whom an image is grouped with for mixing: by chance, or by source and semantic."""

from collections.abc import Callable
from functools import partial

import numpy as np

from rmjax.utils.choose import check_choice

# (first members int `[groups]`, members of a group, generator) -> the other members
# `[groups, members - 1]`; all are places in the selection.
Choose = Callable[[np.ndarray, int, np.random.Generator], np.ndarray]


def draw_any(
    first: np.ndarray, members: int, rng: np.random.Generator, *, total: int
) -> np.ndarray:
    """Draw from all of `total` images."""
    return rng.integers(total, size=(len(first), members - 1))


class AlikePartner:
    """Draws images that share one label with the first and differ in another.

    Where there is none, the other label may be the same too.

    Args:
        same: the label to share, int `[images]`.
        other: the label to differ in, int `[images]`.
    """

    def __init__(self, same: np.ndarray, other: np.ndarray):
        self.order = np.lexsort((other, same))
        self.ends = _ends(same[self.order])[np.argsort(self.order)]
        cells = same * (int(other.max()) + 1) + other
        self.cells = _ends(cells[self.order])[np.argsort(self.order)]

    def __call__(
        self, first: np.ndarray, members: int, rng: np.random.Generator
    ) -> np.ndarray:
        (start, stop), (left, right) = self.ends[first].T, self.cells[first].T
        # The cell of the first one is a hole in the run of those that share its label.
        hole = np.where(right - left < stop - start, right - left, 0)
        size = (stop - start - hole)[:, None]
        drawn = rng.integers(size, size=(len(first), members - 1))
        place = start[:, None] + drawn
        place += np.where(place >= left[:, None], hole[:, None], 0)
        return self.order[place]


class FactorialPartners:
    """Draws the other three of two sources crossed with two semantics.

    After the first, (a, p), come (a, q), (b, p) and (b, q) in this order. Where no
    semantic q is there for a and some b that has p, q is p; where no other source has
    p, b is a.

    Args:
        source: int `[images]`.
        semantic: int `[images]`.
    """

    def __init__(self, source: np.ndarray, semantic: np.ndarray):
        self.source, self.semantic = source, semantic
        shape = int(source.max()) + 1, int(semantic.max()) + 1
        cells = source * shape[1] + semantic
        self.order = np.argsort(cells, kind="stable")
        counts = np.bincount(cells, minlength=shape[0] * shape[1]).reshape(shape)
        self.counts, self.starts = (
            counts,
            (counts.cumsum() - counts.ravel()).reshape(shape),
        )
        self.crossings = {
            (a, p): _crossings(counts > 0, a, p)
            for a, p in np.argwhere(counts).tolist()
        }

    def __call__(
        self, first: np.ndarray, members: int, rng: np.random.Generator
    ) -> np.ndarray:
        rows = []
        for a, p in zip(self.source[first], self.semantic[first], strict=True):
            choices = self.crossings[int(a), int(p)]
            b, q = choices[rng.integers(len(choices))]
            cells = (a, b, b), (q, p, q)
            rows.append(self.starts[cells] + rng.integers(self.counts[cells]))
        return self.order[np.array(rows)]


def _crossings(present: np.ndarray, a: int, p: int) -> list[tuple[int, int]]:
    """Return sources b and semantics q to cross a cell with, as few steps back as need be."""
    others = [b for b in np.flatnonzero(present[:, p]).tolist() if b != a]
    own = np.flatnonzero(present[a]).tolist()
    full = [(b, q) for b in others for q in own if q != p and present[b, q]]
    crossed = full or [(b, p) for b in others] or [(a, q) for q in own if q != p]
    return crossed or [(a, p)]


def _ends(values: np.ndarray) -> np.ndarray:
    """Return for each of sorted values where the run of its equals begins and ends."""
    return np.stack(
        [np.searchsorted(values, values, side) for side in ("left", "right")], axis=1
    )


# Functions of source and semantic, int `[images]` each.
PARTNERS: dict[str, Callable[[np.ndarray, np.ndarray], Choose]] = {
    "any": lambda source, semantic: partial(draw_any, total=len(source)),
    "same_source": lambda source, semantic: AlikePartner(source, semantic),
    "same_semantic": lambda source, semantic: AlikePartner(semantic, source),
    "factorial": FactorialPartners,
}


def make_partners(name: str, source: np.ndarray, semantic: np.ndarray) -> Choose:
    """Return what draws the partners called `name` for images of these labels.

    Args:
        name: key of `PARTNERS`.
        source: int `[images]`.
        semantic: int `[images]`.

    Raises:
        InputError: no such partners.
    """
    check_partners(name)
    return PARTNERS[name](source, semantic)


def check_partners(name: str) -> None:
    """Raise an InputError that lists the choices, for a name that is none of them."""
    check_choice("mix.partners", name, PARTNERS)
