"""Train, validation and test splits made by group, and subsets."""

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace

from rmjax.errors import InputError
from rmjax.prepare.manifest import SPLITS, Manifest, Row
from rmjax.utils.choose import check_choice


def assign_splits(
    rows: Sequence[Row], seed: int, fractions: Sequence[float] = (0.8, 0.1, 0.1)
) -> tuple[Row, ...]:
    """Give every row a split: its own if all have one, else one made by group.

    Groups are taken in the order of a hash of seed and name, kind by kind (the
    sources and semantics that they show), and each goes to the split that is
    furthest behind its share. So the splits have the wanted sizes to within a
    group, are alike in content, and are the same on every machine.

    Args:
        rows: images, either all with a split or all without.
        seed: another seed gives other splits.
        fractions: shares of train, val and test; their sum is 1.

    Raises:
        InputError: some rows have a split and others have none, or wrong fractions.
    """
    unassigned = [row for row in rows if not row.split]
    if not unassigned:
        return tuple(rows)
    if len(unassigned) < len(rows):
        raise InputError(f"{unassigned[0].where}: no split, though other rows have one")
    check_fractions(fractions)
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[row.group].append(row)

    def order(group: str) -> tuple:
        kind = sorted({(row.semantic, row.source) for row in groups[group]})
        return kind, _hash(seed, group)

    lead = [0.0] * len(SPLITS)
    split_of = {}
    for group in sorted(groups, key=order):
        size = len(groups[group])
        # What each split lacks once this group is counted; the fraction breaks
        # ties, so that a first group goes to training.
        lead = [
            behind + size * share for behind, share in zip(lead, fractions, strict=True)
        ]
        choice = max(range(len(SPLITS)), key=lambda i: (lead[i], fractions[i]))
        lead[choice] -= size
        split_of[group] = SPLITS[choice]
    return tuple(replace(row, split=split_of[row.group]) for row in rows)


def take_subset(
    manifest: Manifest,
    sources: Sequence[str] = (),
    semantics: Sequence[str] = (),
    images_per_cell: int | None = None,
    seed: int = 0,
) -> Manifest:
    """Keep some sources and semantics, and so many images of each of their cells.

    A cell keeps the shares that its splits have. Which images stay depends on a hash
    of seed and path, so that a larger subset holds a smaller one.

    Args:
        manifest: images that have a split.
        sources: names to keep, in the order that there is; none keeps all.
        semantics: likewise.
        images_per_cell: of each source and semantic over all splits, rounded up in
            each split; None keeps all.
        seed: another seed keeps other images.

    Raises:
        InputError: an unknown name, or less than one image a cell.
    """
    names = _kept("source", sources, manifest.source_names)
    shown = _kept("semantic", semantics, manifest.semantic_names)
    if names[:1] != manifest.source_names[:1]:
        raise InputError(
            f"sources {', '.join(names)}: {manifest.source_names[0]} has to be among them, "
            "source 0, the real photographs"
        )
    if images_per_cell is not None and images_per_cell < 1:
        raise InputError(f"images_per_cell = {images_per_cell} is not 1 or more")
    cells: dict[tuple, list[Row]] = defaultdict(list)
    for row in manifest.rows:
        if row.source in names and row.semantic in shown:
            cells[row.source, row.semantic, row.split].append(row)
    if images_per_cell is not None:
        totals: Counter = Counter()
        for (*cell, _), rows in cells.items():
            totals[tuple(cell)] += len(rows)
        for (*cell, _), rows in cells.items():
            share = min(1, images_per_cell / totals[tuple(cell)])
            rows.sort(key=lambda row: _hash(seed, row.path))
            del rows[math.ceil(share * len(rows)) :]
    kept = {id(row) for rows in cells.values() for row in rows}
    left = tuple(row for row in manifest.rows if id(row) in kept)
    if not left:
        raise InputError(f"no image of {', '.join(names)} shows {', '.join(shown)}")
    return replace(manifest, rows=left, source_names=names, semantic_names=shown)


def _kept(kind: str, wanted: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    for name in wanted:
        check_choice(kind, name, known)
    return tuple(name for name in known if not wanted or name in wanted)


def _hash(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed}/{name}".encode(errors="surrogateescape")).digest()


def check_fractions(fractions: Sequence[float]) -> None:
    """Raise an InputError where these are no shares of train, val and test."""
    valid = len(fractions) == len(SPLITS) and min(fractions) >= 0 and fractions[0] > 0
    if not valid or not abs(sum(fractions) - 1) <= 1e-6:  # not: NaN
        raise InputError(
            f"split fractions {tuple(fractions)}: give shares of {', '.join(SPLITS)} that "
            "sum to 1, with some for train"
        )
