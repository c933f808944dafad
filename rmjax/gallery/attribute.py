"""What is said of one image by a network without sources: which generators are near."""

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np

from rmjax.gallery.ask import Asker
from rmjax.gallery.search import UNKNOWN
from rmjax.inference.attribute import VIEWS, Asked, answer_each, stability
from rmjax.inference.explain import Evidence, Outputs, explain_by


def attribute_by_gallery(
    asker: Asker, images: Iterable[Asked], top: int = 5
) -> Iterator[dict[str, Any]]:
    """Say of each image which enrolled generators it is near, and how stable that is.

    Args:
        asker: a gallery and its network.
        images: paths, files that were read, or what is wrong with them.
        top: how many generators to list.

    Yields:
        For each image a dict that JSON can hold, with `image`, and `error` or `file`,
        `provenance` and `warnings` as of `rmjax.inference.attribute.attribute`;
        `answer`, the most similar generator, or `unknown` below the gallery's
        threshold; `reason` for it; `ranked` as `search.answer` has it; `stability`: the
        share of `views` with the answer of the image itself, and those, each with its
        greatest `similarity`.
    """
    return answer_each(asker.model, images, partial(judge, asker, top))


def explain_by_gallery(asker: Asker, data: bytes, name: str) -> dict[str, Any]:
    """Say where in an image its similarity to the nearest generator lies.

    Arguments and errors as for `rmjax.inference.explain.explain`, and what that returns.
    """
    return explain_by(asker.model, data, name, partial(_for_generator, asker))


def describe_gallery(asker: Asker) -> dict[str, Any]:
    """Return how large a gallery is, its space, and its `search.Threshold`."""
    return {
        "generators": len(asker.gallery.generators),
        "images": len(asker.gallery.directions),
        "space": asker.gallery.space.name,
        "threshold": vars(asker.threshold),
    }


def _for_generator(asker: Asker, outputs: Outputs) -> Evidence:
    """Return the evidence for the generator that an image is most similar to."""
    said = asker.compare(outputs["embedding"], 1)[0]
    nearest = said["ranked"][0]["generator"]
    column = asker.gallery.names.index(nearest)

    def similarity(outputs: Outputs) -> np.ndarray:
        directions = asker.gallery.space.directions(outputs["embedding"])
        return asker.score(directions)[:, column]

    unit = f"similarity to {nearest} (cosine, -1 to 1)"
    return Evidence(said["answer"], nearest, unit, similarity)


def judge(asker: Asker, top: int, outputs: dict[str, np.ndarray]) -> dict[str, Any]:
    """Turn the fingerprints of an image and of its views into an answer, as above."""
    said, *others = asker.compare(outputs["embedding"], top)
    views = [
        {
            "view": name,
            "answer": other["answer"],
            "similarity": other["ranked"][0]["similarity"],
        }
        for name, other in zip(VIEWS, others, strict=True)
    ]
    similarity = said["ranked"][0]["similarity"]
    return {
        "answer": said["answer"],
        "reason": _reason(said["answer"], similarity, asker.threshold.value),
        "ranked": said["ranked"],
        "stability": stability(said["answer"], views),
        "views": views,
    }


def _reason(answer: str, similarity: float, threshold: float | None) -> str:
    if threshold is None:
        return f"the most similar, {similarity:.3f}; nothing was measured by which to reject"
    if answer == UNKNOWN:
        return f"near none: similarity {similarity:.3f}, under {threshold:.3f}"
    return f"similarity {similarity:.3f}, from {threshold:.3f} on it is near"
