"""Tables as lines of text."""

from collections.abc import Mapping
from typing import Any


def format_table(
    title: str,
    columns: Mapping[str, tuple[str, str]],
    rows: Mapping[str, Mapping[str, Any]],
) -> list[str]:
    """Return a table's lines: names of rows to the left, figures to the right.

    Args:
        title: stands over the names of the rows.
        columns: by heading, the key of a figure and how to format it; a column is left
            out where no row has a figure for it.
        rows: by name, figures by key; the table is blank where one is missing or None.
    """
    texts = [[title, *rows]]
    for heading, (key, form) in columns.items():
        figures = [row.get(key) for row in rows.values()]
        if any(figure is not None for figure in figures):
            column = ["" if f is None else format(f, form) for f in figures]
            texts.append([heading, *column])
    widths = [max(map(len, column)) for column in texts]
    return [
        "  ".join([name.ljust(widths[0]), *map(str.rjust, line, widths[1:])]).rstrip()
        for name, *line in zip(*texts, strict=True)
    ]
