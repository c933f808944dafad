"""Tables as lines of text."""

from collections.abc import Iterable, Sequence
from itertools import zip_longest


def format_table(rows: Iterable[Sequence[str]]) -> list[str]:
    """Return a line per row: the first column to the left, all others to the right.

    Columns are as wide as their widest entry, and two spaces apart. Rows may differ in
    length.
    """
    rows = list(rows)
    widths = [max(map(len, texts)) for texts in zip_longest(*rows, fillvalue="")]
    lines = []
    for label, *figures in rows:
        columns = [label.ljust(widths[0]), *map(str.rjust, figures, widths[1:])]
        lines.append("  ".join(columns).rstrip())
    return lines
