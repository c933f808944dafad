"""What a preparation leaves while it is at work, for another to go on with."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rmjax.errors import InputError
from rmjax.prepare.survey import Survey
from rmjax.prepare.write import REPORTS
from rmjax.utils.files import remove_tree, replace_text

MADE_FROM = "made_from.txt"  # stays beside the finished data
_SURVEY = "survey.json"


def begin(folder: Path, made_from: str, resume: bool) -> list[Survey] | None:
    """Make the folder of a data set ready to be written to.

    Args:
        folder: holds nothing, or what a killed preparation has left.
        made_from: differs for other images, names or splits.
        resume: keep what is there, instead of removing it.

    Returns:
        The surveys of `save_survey` where there is something to go on with.

    Raises:
        InputError: what is there was made from other images.
    """
    survey = folder / REPORTS / _SURVEY
    if resume and survey.exists():
        if (folder / MADE_FROM).read_text(encoding="utf-8") != made_from:
            raise InputError(
                f"{folder} was begun from other images, labels or splits; to start anew, "
                "leave --resume out"
            )
        return _read_survey(survey)
    remove_tree(folder)
    (folder / REPORTS).mkdir(parents=True)
    replace_text(folder / MADE_FROM, made_from)
    return None


def save_survey(folder: Path, surveys: Sequence[Survey]) -> None:
    """Leave surveys without their hashes, which have been checked."""
    found = [
        [
            [[*key, count] for key, count in part.counts.items()],
            *(part.unusable, sorted(part.stated)),
        ]
        for part in surveys
    ]
    replace_text(folder / REPORTS / _SURVEY, json.dumps(found))


def _read_survey(file: Path) -> list[Survey]:
    none = np.empty(0, np.int64)
    return [
        Survey(
            Counter({tuple(key): count for *key, count in counts}),
            unusable,
            *(none, none, none),
            stated=frozenset(stated),
        )
        for counts, unusable, stated in json.loads(file.read_text(encoding="utf-8"))
    ]
