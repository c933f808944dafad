"""Which sources are trained on which semantics, where not each is on all of them.

A pair is a source and a semantic. Tables of pairs are bool `[sources, semantics]`: by
index of the selection's sources, and of the data set's semantics.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from rmjax.data.dataset import Selection, choose_evenly, take_rows
from rmjax.errors import InputError

KEY = "data.train_cells"


def pairs_with_images(selection: Selection, *splits: str) -> np.ndarray:
    """Return the table of the pairs that have images in one of the splits."""
    shape = len(selection.source_names), len(selection.dataset.semantic_names)
    table = np.zeros(shape, bool)
    for split in splits:
        if split in selection.labels:
            labels = selection.labels[split]
            table[labels["source"], labels["semantic"]] = True
    return table


def share_sources(selection: Selection) -> np.ndarray:
    """Return which share of a semantic's training images is of each source.

    Returns:
        float32 `[semantics, sources]`. A row is even where fewer than two sources have
        such images: of a source that is alone nothing could be learnt but by content.
    """
    labels, sources = selection.labels["train"], len(selection.source_names)
    counts = np.zeros((len(selection.dataset.semantic_names), sources), np.float32)
    np.add.at(counts, (labels["semantic"], labels["source"]), 1)
    counts[np.count_nonzero(counts, axis=1) < 2] = 1
    return counts / counts.sum(1, keepdims=True)


def name_pairs(selection: Selection, table: np.ndarray) -> dict[str, list[str]]:
    """Return the names of the semantics of each source's pairs, by source."""
    semantics = selection.dataset.semantic_names
    return {
        source: [semantics[i] for i in np.flatnonzero(row)]
        for source, row in zip(selection.source_names, table, strict=True)
    }


def name_semantics(selection: Selection, table: np.ndarray) -> tuple[str, ...]:
    """Return those of a selection's semantics that have a pair in a table."""
    columns = {n: table[:, i] for i, n in enumerate(selection.dataset.semantic_names)}
    return tuple(name for name in selection.semantic_names if columns[name].any())


def keep_pairs(selection: Selection, table: np.ndarray) -> Selection:
    """Keep the images and semantics of some pairs, in every split, and all sources."""
    rows = {
        split: np.flatnonzero(table[labels["source"], labels["semantic"]])
        for split, labels in selection.labels.items()
    }
    names = name_semantics(selection, table)
    return replace(take_rows(selection, rows), semantic_names=names)


def choose_pairs(
    selection: Selection, cells: Sequence[int | str], seed: int
) -> np.ndarray:
    """Choose the pairs to train on, among those with training images.

    Args:
        selection: of the sources and semantics that may be trained on.
        cells: nothing: all such pairs. One number: so many semantics of each source,
            drawn by `draw_pairs`. Or names, such as `real/cat`.
        seed: of the draw.

    Returns:
        A table of pairs.

    Raises:
        InputError: it is neither, a name stands for no pair with training images, or a
            source has no pair, or fewer than are to be drawn.
    """
    present = pairs_with_images(selection, "train")
    if not cells:
        return present
    names = [cell for cell in cells if isinstance(cell, str)]
    if len(names) == len(cells):
        return _read_pairs(selection, names, present)
    if names or len(cells) > 1:
        raise InputError(
            f"{KEY} = {tuple(cells)}: give one number, of semantics for each source, or "
            "pairs such as ('real/cat', 'gan/dog')"
        )
    count = int(cells[0])
    for source, row in zip(selection.source_names, present, strict=True):
        if row.sum() < count:
            raise InputError(
                f"{KEY} = {count}: source '{source}' has training images of "
                f"{row.sum()} of the seen semantics; give at most that"
            )
    return draw_pairs(present, count, seed)


def draw_pairs(present: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Draw semantics for each source, so that each goes to about as many sources.

    The sources come in random order; each takes the semantics that fewest of those
    before it took, and of equals any. In a complete grid the numbers of sources that
    any two semantics get differ by at most one.

    Args:
        present: table of the pairs to draw from, `count` or more of each source.
        count: semantics for each source.
        seed: of the draw.

    Returns:
        A table of pairs.
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    table = np.zeros_like(present)
    # Sorting uniform numbers shuffles alike in all versions of NumPy.
    for source in np.argsort(rng.random(len(present))):
        used, ties = table.sum(0), rng.random(present.shape[1])
        order = np.lexsort((ties, used))
        table[source, order[present[source, order]][:count]] = True
    return table


def _read_pairs(
    selection: Selection, names: Sequence[str], present: np.ndarray
) -> np.ndarray:
    """Return the table of named pairs; errors as for `choose_pairs`."""
    table = np.zeros_like(present)
    for name in names:
        row, column = _find_pair(selection, name)
        if not present[row, column]:
            raise InputError(f"{KEY}: '{name}' has no training images")
        table[row, column] = True
    bare = [
        source
        for source, row in zip(selection.source_names, table, strict=True)
        if not row.any()
    ]
    if bare:
        raise InputError(
            f"{KEY}: no pair of {', '.join(bare)}; name one of each source, such as "
            f"'{bare[0]}/{selection.semantic_names[0]}', or leave the source out"
        )
    return table


def _find_pair(selection: Selection, name: str) -> tuple[int, int]:
    """Return source and semantic of a pair; either name may hold slashes itself."""
    semantics = selection.dataset.semantic_names
    for row, source in enumerate(selection.source_names):
        for semantic in selection.semantic_names:
            if name == f"{source}/{semantic}":
                return row, semantics.index(semantic)
    source, _, semantic = name.partition("/")
    kind, among = "source", selection.source_names
    if source in among:
        kind, among = "semantic", selection.semantic_names
    wrong = source if kind == "source" else semantic
    raise InputError(
        f"{KEY}: '{name}': no {kind} '{wrong}' is trained on; give SOURCE/SEMANTIC, the "
        f"{kind} one of {', '.join(among)}"
    )


def equalize_sources(selection: Selection, seed: int) -> Selection:
    """Cut every source to as many training images as the one with the fewest has.

    What is left is spread over the semantics of a source as evenly as it can be. Other
    splits stay whole.

    Args:
        selection: whose training images to cut.
        seed: of the choice.
    """
    labels = selection.labels["train"]
    rows = [
        np.flatnonzero(labels["source"] == source)
        for source in range(len(selection.source_names))
    ]
    least = min(map(len, rows))
    kept = [own[choose_evenly(labels["semantic"][own], least, seed)] for own in rows]
    every = {split: np.arange(len(own)) for split, own in selection.records.items()}
    return take_rows(selection, every | {"train": np.sort(np.concatenate(kept))})
