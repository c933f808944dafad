"""Verify a prepared data set: decode everything, count, look for duplicates."""

from pathlib import Path

from rmjax.data.dataset import open_dataset
from rmjax.data.datasheet import datasheet, find_duplicates, write_datasheet
from rmjax.data.facts import collect_facts
from rmjax.errors import InputError
from rmjax.prepare.left_out import read_left_out
from rmjax.utils.places import as_path


def verify(
    directory: str | Path,
    expected_per_cell: int | None = None,
    processes: int | None = None,
) -> dict[str, Path]:
    """Examine every image of a data set and write its data sheet beside it.

    Args:
        directory: of a prepared data set.
        expected_per_cell: images that each source should have of each semantic; None
            expects nothing.
        processes: that decode; None uses every core.

    Returns:
        The files written, by kind.

    Raises:
        InputError: something is wrong: missing, unreadable or repeated images, or cells
            of other sizes than expected. The data sheet, written all the same, has it.
    """
    directory = as_path(directory)
    dataset = open_dataset(directory)
    facts = collect_facts(dataset, processes=processes)
    missing = [line.replace("\t", ": ") for line in read_left_out(directory)]
    sheet = datasheet(dataset, facts, expected_per_cell, missing)
    figures, text = write_datasheet(sheet, directory)
    problems = [
        f"{count} {what}"
        for what, count in (
            ("images left out", len(missing)),
            ("unreadable images", len(sheet["unreadable"])),
            ("contents that occur twice", len(find_duplicates(facts))),
            (f"cells without {expected_per_cell} images", len(sheet["uneven_cells"])),
        )
        if count
    ]
    if problems:
        raise InputError(f"{directory}: {', '.join(problems)}; see {text}")
    return {"datasheet": text, "figures": figures}
