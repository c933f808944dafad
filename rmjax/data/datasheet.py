"""A data set's datasheet: what is in it, in figures, as JSON and to be read."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from rmjax.data.dataset import Dataset
from rmjax.data.facts import Facts
from rmjax.utils.files import replacing, write_json
from rmjax.utils.places import path_of

LISTED = 20  # duplicate groups of a kind; all are counted
PATHS = 10  # of one group
COMMON = 10  # most frequent sizes and qualities

KINDS = {
    "within_split": "within a split",
    "across_splits": "across splits",
    "across_sources": "across sources",
}


def datasheet(
    dataset: Dataset,
    facts: Facts,
    expected_per_cell: int | None = None,
    missing: Sequence[str] = (),
) -> dict:
    """Describe a data set in figures that can be written as JSON.

    Args:
        dataset: an open data set.
        facts: of its images, or of some splits (`rmjax.data.facts.collect_facts`).
        expected_per_cell: images that each source should have of each semantic, all
            splits together; None expects nothing.
        missing: paths of images that should be there and are not.

    Returns:
        `counts` by source, semantic and split, `sizes`, `bytes`, `formats`, `modes`
        and `jpeg` of the readable images, `duplicates` by content hash, `unreadable`
        paths with reasons, `missing` paths, and `uneven_cells`, whose count is not the
        expected.
    """
    # The copies below need no thumbnails, the largest column.
    facts = replace(facts, thumbnail=facts.thumbnail[:, :0])
    counts = _counts(dataset, facts)
    fine = facts.reason == ""
    readable = facts if fine.all() else facts.take(fine)
    bad = facts.take(~fine)
    return {
        "dataset": "/".join(dataset.directory.parts[-3:]),
        "images": len(facts),
        "splits": {
            name: int((facts.split == i).sum())
            for i, name in enumerate(facts.split_names)
        },
        "sources": list(dataset.source_names),
        "semantics": list(dataset.semantic_names),
        "counts": _named_counts(dataset, facts, counts),
        "expected_per_cell": expected_per_cell,
        "uneven_cells": _uneven(dataset, counts.sum(2), expected_per_cell),
        "sizes": _sizes(readable),
        "bytes": _spread(readable.bytes),
        "formats": _by_source(dataset, readable, readable.format),
        "modes": _by_source(dataset, readable, readable.mode),
        "jpeg": _jpeg(dataset, readable),
        "duplicates": _duplicates(dataset, facts),
        "unreadable": dict(zip(bad.path.tolist(), bad.reason.tolist(), strict=True)),
        "missing": list(missing),
    }


def find_duplicates(facts: Facts) -> list[np.ndarray]:
    """Return the groups of images with the same bytes.

    Returns:
        For each content that occurs twice or more the image numbers, ascending; the
        groups in the order of their first images.
    """
    order = np.lexsort((facts.digest[:, 1], facts.digest[:, 0]))  # keeps ties in order
    content = facts.digest[order]
    new = np.flatnonzero((content[1:] != content[:-1]).any(1)) + 1
    ends = np.concatenate([new, [len(facts)]])
    starts = np.concatenate([[0], new])
    repeated = ends - starts > 1
    pairs = zip(starts[repeated], ends[repeated], strict=True)
    return sorted((order[a:b] for a, b in pairs), key=lambda group: group[0])


def write_datasheet(sheet: dict, directory: str | Path) -> tuple[Path, Path]:
    """Write `datasheet.json` and `datasheet.md` into a data set's folder.

    Args:
        sheet: what `datasheet` returns.
        directory: such as `dataset.directory`.

    Returns:
        The paths of the two.

    Raises:
        InputError: the folder can't be written to.
    """
    directory = path_of(directory)
    figures, text = directory / "datasheet.json", directory / "datasheet.md"
    with replacing(text) as scratch:
        scratch.write_text(format_datasheet(sheet), encoding="utf-8")
        write_json(figures, sheet)
    return figures, text


def format_datasheet(sheet: dict) -> str:
    """Return a datasheet as Markdown."""
    splits, sizes = list(sheet["splits"]), sheet["sizes"]
    parts = [f"# Datasheet of {sheet['dataset']}", ""]
    whole = ", ".join(f"{name} {count}" for name, count in sheet["splits"].items())
    parts += [f"{sheet['images']} images: {whole}.", ""]
    parts += [f"## Images of a source and semantic ({' / '.join(splits)})", ""]
    parts += _table(["source", *sheet["semantics"]], _count_rows(sheet))
    if sheet["expected_per_cell"] is not None:
        uneven, expected = len(sheet["uneven_cells"]), sheet["expected_per_cell"]
        parts += [f"{uneven} cells do not hold the expected {expected} images.", ""]
        parts += [
            f"- {cell['source']}, {cell['semantic']}: {cell['images']}"
            for cell in sheet["uneven_cells"]
        ] + [""]
    parts += ["## Files", ""]
    parts += [f"- sizes ({sizes['different']} different): {_listed(sizes['frequent'])}"]
    for name in ("width", "height"):
        parts.append(f"- {name}: {_range(sizes[name])} px")
    parts += [f"- bytes: {_range(sheet['bytes'])}", ""]
    rows = [
        (
            source,
            _listed(sheet["formats"][source]),
            _listed(sheet["modes"][source]),
            *_jpeg_cells(sheet["jpeg"].get(source)),
        )
        for source in sheet["sources"]
    ]
    names = ["source", "formats", "modes", "JPEG quality (images)", "chroma"]
    parts += _table([*names, "standard tables"], rows)
    parts += _duplicate_lines(sheet["duplicates"])
    for title in ("unreadable", "missing"):
        parts += _problem_lines(title, sheet[title])
    return "\n".join(parts).rstrip() + "\n"


def _counts(dataset: Dataset, facts: Facts) -> np.ndarray:
    """Count images: `[sources, semantics, splits]`."""
    shape = (
        len(dataset.source_names),
        len(dataset.semantic_names),
        len(facts.split_names),
    )
    cell = np.ravel_multi_index((facts.source, facts.semantic, facts.split), shape)
    return np.bincount(cell, minlength=np.prod(shape)).reshape(shape)


def _named_counts(dataset: Dataset, facts: Facts, counts: np.ndarray) -> dict:
    return {
        source: {
            semantic: dict(zip(facts.split_names, counts[i, j].tolist(), strict=True))
            for j, semantic in enumerate(dataset.semantic_names)
        }
        for i, source in enumerate(dataset.source_names)
    }


def _uneven(dataset: Dataset, totals: np.ndarray, expected: int | None) -> list[dict]:
    if expected is None:
        return []
    return [
        {
            "source": dataset.source_names[i],
            "semantic": dataset.semantic_names[j],
            "images": int(totals[i, j]),
        }
        for i, j in np.argwhere(totals != expected)
    ]


def _spread(values: np.ndarray) -> dict | None:
    """Return the range, median and sum of numbers; None where there are none."""
    if not len(values):
        return None
    return {
        "least": int(values.min()),
        "median": float(np.median(values)),
        "greatest": int(values.max()),
        "sum": int(values.sum(dtype=np.int64)),
    }


def _sizes(facts: Facts) -> dict:
    pairs = np.stack([facts.width, facts.height], 1)
    sizes, count = np.unique(pairs, axis=0, return_counts=True)
    top = np.argsort(-count, kind="stable")[:COMMON]
    frequent = {f"{sizes[i, 0]}x{sizes[i, 1]}": int(count[i]) for i in top}
    spreads = {name: _spread(getattr(facts, name)) for name in ("width", "height")}
    return {"different": len(sizes), "frequent": frequent, **spreads}


def _by_source(dataset: Dataset, facts: Facts, values: np.ndarray) -> dict[str, dict]:
    return {
        name: dict(Counter(map(str, values[facts.source == i])).most_common())
        for i, name in enumerate(dataset.source_names)
    }


def _jpeg(dataset: Dataset, facts: Facts) -> dict[str, dict]:
    """Describe the JPEG files of each source that has any."""
    described = {}
    for i, name in enumerate(dataset.source_names):
        own = facts.take((facts.source == i) & ~np.isnan(facts.quality))
        if len(own):
            quality = own.quality.astype(int)
            spread = _spread(quality) or {}
            spread.pop("sum")
            texts = map(str, quality.tolist())
            described[name] = {
                "images": len(own),
                "standard_tables": int(own.standard.sum()),
                "quality": spread,
                "frequent": dict(Counter(texts).most_common(COMMON)),
                "subsampling": dict(Counter(own.subsampling.tolist()).most_common()),
            }
    return described


def _duplicates(dataset: Dataset, facts: Facts) -> dict:
    """Count groups of equal files, by kind; a group may be of several kinds."""
    groups = find_duplicates(facts)
    kinds: dict[str, list[np.ndarray]] = {kind: [] for kind in KINDS}
    for group in groups:
        splits, sources = np.unique(facts.split[group]), np.unique(facts.source[group])
        if len(splits) < len(group):
            kinds["within_split"].append(group)
        if len(splits) > 1:
            kinds["across_splits"].append(group)
        if len(sources) > 1:
            kinds["across_sources"].append(group)

    def describe(group: np.ndarray) -> dict:
        images = [
            {
                "path": str(facts.path[i]),
                "split": facts.split_names[facts.split[i]],
                "source": dataset.source_names[facts.source[i]],
            }
            for i in group[:PATHS]
        ]
        return {"count": len(group), "images": images}

    listed = {
        kind: {"groups": len(chosen), "first": [describe(g) for g in chosen[:LISTED]]}
        for kind, chosen in kinds.items()
    }
    repeats = sum(len(group) - 1 for group in groups)
    return {"groups": len(groups), "repeats": repeats, **listed}


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines] + [""]


def _count_rows(sheet: dict) -> list[list[str]]:
    def cell(counts: dict[str, int]) -> str:
        return " / ".join(map(str, counts.values())) if any(counts.values()) else "-"

    return [
        [source, *map(cell, cells.values())]
        for source, cells in sheet["counts"].items()
    ]


def _listed(counts: dict) -> str:
    return ", ".join(f"{name} ({count})" for name, count in counts.items()) or "-"


def _range(spread: dict | None) -> str:
    if spread is None:
        return "-"
    return f"{spread['least']} to {spread['greatest']}, median {spread['median']:g}"


def _jpeg_cells(jpeg: dict | None) -> list[str]:
    if jpeg is None:
        return ["-", "-", "-"]
    tables = f"{jpeg['standard_tables']} of {jpeg['images']}"
    return [_listed(jpeg["frequent"]), _listed(jpeg["subsampling"]), tables]


def _duplicate_lines(duplicates: dict) -> list[str]:
    whole = (
        f"{duplicates['groups']} contents occur more than once: {duplicates['repeats']} images "
        "repeat an earlier one."
    )
    lines = ["## Duplicates", "", whole, ""]
    for kind, words in KINDS.items():
        groups = duplicates[kind]
        lines.append(f"- {words}: {groups['groups']}")
        for group in groups["first"]:
            paths = [f"`{i['path']}` ({i['split']})" for i in group["images"]]
            more = group["count"] - len(paths)
            lines.append(f"  - {' = '.join(paths)}{f' and {more} more' * bool(more)}")
    return [*lines, ""]


def _problem_lines(title: str, problems: dict[str, str] | Sequence[str]) -> list[str]:
    lines = [f"## {title.capitalize()} images: {len(problems)}", ""]
    for path in list(problems)[:LISTED]:
        reason = f": {problems[path]}" if isinstance(problems, dict) else ""
        lines.append(f"- `{path}`{reason}")
    if len(problems) > LISTED:
        lines.append(f"- and {len(problems) - LISTED} more, see datasheet.json")
    return [*lines, ""]
