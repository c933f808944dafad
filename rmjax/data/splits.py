"""Train, validation and test splits made by group."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from rmjax.data.manifest import SPLITS, Row
from rmjax.errors import InputError


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
    _check_fractions(fractions)
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[row.group].append(row)

    def order(group: str) -> tuple:
        kind = sorted({(row.semantic, row.source) for row in groups[group]})
        return kind, hashlib.sha256(f"{seed}/{group}".encode()).digest()

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


def _check_fractions(fractions: Sequence[float]) -> None:
    valid = len(fractions) == len(SPLITS) and min(fractions) >= 0 and fractions[0] > 0
    if not valid or abs(sum(fractions) - 1) > 1e-6:
        raise InputError(
            f"split fractions {tuple(fractions)}: give shares of {', '.join(SPLITS)} that "
            "sum to 1, with some for train"
        )
