"""What is said of one image: its provenance, then the network's answer and its limits."""

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from rmjax.data.dataset import INCONCLUSIVE, REAL, UNKNOWN
from rmjax.data.image_files import ImageFile, read_file
from rmjax.data.images import decode_rgb
from rmjax.data.parts import Unusable
from rmjax.errors import InputError
from rmjax.inference.attributor import Attributor, cut_ends, decode
from rmjax.inference.domain import warn_about
from rmjax.provenance import CAVEAT, describe, find_provenance
from rmjax.utils.versions import own_version


def _jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality, subsampling="4:2:0")
    return decode_rgb(file.getvalue())


def _scaled(pixels: np.ndarray, share: float) -> np.ndarray:
    """Scale down and up again, bilinearly."""
    image = Image.fromarray(pixels)
    small = [max(round(n * share), 1) for n in image.size]
    for size in (small, image.size):
        image = image.resize(size, Image.Resampling.BILINEAR)
    return np.asarray(image)


# What the image might go through when it is shared once more: kinds of
# `rmjax.corruptions.RESHARING`, with a value of their range. Done by libraries and on the
# whole image, whose size is anything, where those would be compiled for each.
VIEWS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "flip": lambda pixels: pixels[:, ::-1],
    "jpeg:90": lambda pixels: _jpeg(pixels, 90),
    "jpeg:75": lambda pixels: _jpeg(pixels, 75),
    "bilinear:0.75": lambda pixels: _scaled(pixels, 0.75),
}


# Images whose views run together, at most.
_AT_ONCE = 8
# Sizes of batches: few, so that the network is compiled for few shapes, and small ones,
# so that a lone image is not made to wait for the batch of many.
BATCHES = tuple((1 + len(VIEWS)) * images for images in (1, 2, 4, _AT_ONCE))

# An image: its path, a file that was read, or what is wrong with it.
Asked = str | Path | ImageFile | Unusable

# Makes an answer of the outputs of `Attributor.run` for an image and each of `VIEWS`,
# rows in that order.
Judge = Callable[[dict[str, np.ndarray]], dict[str, Any]]


class Reading(NamedTuple):
    """An image that was read, to be answered.

    Attributes:
        image: its name.
        known: what its file tells: `file`, `provenance` and `warnings`, see
            `attribute`; or `error` alone.
        views: the image and each of `VIEWS`, as the network sees them, uint8
            `[H, W, 3]`; none of one that can't be read.
    """

    image: str
    known: dict[str, Any]
    views: list[np.ndarray]


def attribute(model: Attributor, images: Iterable[Asked]) -> Iterator[dict[str, Any]]:
    """Say of each image what it is and how far that can be trusted.

    Args:
        model: the network, with heads.
        images: paths, files that were read, or what is wrong with them.

    Yields:
        For each image a dict that JSON can hold. `image`, its name. Where it can't be
        read, `error` alone besides. Else `provenance`, see `rmjax.provenance`, and
        `file`, the same in words but for the caveat;
        `answer`: `real`, a source, `unknown` or `inconclusive`; `reason` for it;
        `synthetic`, the probability of being synthetic, were both equally likely
        before; `sources`, `[source, probability]` from the most probable on;
        `stability`: the share of `views` with the answer of the image itself, and
        those; `warnings`, where the image lies outside of what the network was
        trained on.

    Raises:
        InputError: the network knows no sources.
    """
    if not model.source_names:
        raise InputError(
            f"{model.name} knows no sources: give a run of `rmjax train`, or a RepMix"
        )
    return answer_each(model, images, partial(judge, model))


def answer_each(
    model: Attributor,
    images: Iterable[Asked],
    judge: Judge,
) -> Iterator[dict[str, Any]]:
    """Say of each image what its file tells, and what is made of the network's outputs.

    Args:
        model: the network.
        images: paths, files that were read, or what is wrong with them.
        judge: makes the answer.

    Yields:
        For each image `image`, its name, and either `error` or `file`, `provenance`
        and `warnings` as `attribute` has them, with what `judge` says.
    """
    remaining = iter(images)
    while block := list(islice(remaining, _AT_ONCE)):
        readings = [read_views(model, image) for image in block]
        outputs = run_together(model, [reading.views for reading in readings])
        for reading, rows in zip(readings, outputs, strict=True):
            yield conclude(reading, rows, judge)


def read_views(model: Attributor, image: Asked) -> Reading:
    """Read one image; what can't be read has its `error` as all that is known."""
    try:
        if isinstance(image, Unusable):
            raise InputError(f"{image.path}: {image.reason}")
        name, data = read_file(image)
        pixels = cut_ends(decode(data, name))
    except InputError as error:
        name = str(image)
        if isinstance(image, ImageFile | Unusable):
            name = image[0]
        return Reading(name, {"error": str(error)}, [])
    views = [model.read(pixels)]
    views += [model.read(view(pixels)) for view in VIEWS.values()]
    provenance = find_provenance(data)
    known = {
        "file": [line for line in describe(provenance) if line != CAVEAT],
        "provenance": asdict(provenance),
        "warnings": warn_about(data, views[0].shape[:2], model),
    }
    return Reading(name, known, views)


def run_together(
    model: Attributor, groups: Sequence[Sequence[np.ndarray]]
) -> list[dict[str, np.ndarray]]:
    """Run the network on groups of images at once, in batches of `BATCHES`.

    Args:
        model: the network.
        groups: images that `Attributor.read` made.

    Returns:
        For each group the outputs of `Attributor.run`; for one of no images, perhaps no
        outputs.
    """
    pixels = [image for group in groups for image in group]
    outputs = model.run(pixels, BATCHES)
    ends = np.cumsum([len(group) for group in groups])
    return [
        {name: rows[end - len(group) : end] for name, rows in outputs.items()}
        for group, end in zip(groups, ends, strict=True)
    ]


def conclude(
    reading: Reading, outputs: dict[str, np.ndarray], judge: Judge
) -> dict[str, Any]:
    """Put together what is said of an image, see `answer_each`."""
    said = judge(outputs) if reading.views else {}
    return {"image": reading.image} | reading.known | said


def describe_model(model: Attributor) -> dict[str, Any]:
    """Return which network it is: name, version, what its sources were calibrated on."""
    described = {
        "name": model.name,
        "checkpoint": model.checkpoint,
        "sha256": model.digest,
        "rmjax": own_version(),
        "provenance": model.provenance,
    }
    if not model.source_names:
        return described
    return described | {
        "calibrated": model.calibration.images > 0,
        "operating_points": list(model.calibration.operating_points),
        "reject": model.calibration.reject,
    }


def decide(model: Attributor, outputs: dict[str, np.ndarray]) -> list[tuple[str, str]]:
    """Return the answer for each image, and the reason for it.

    Args:
        model: the network, with heads.
        outputs: what `Attributor.run` says of the images.
    """
    chances = model.calibration.probabilities(outputs)
    rejected = np.zeros(len(chances["attribution"]), bool)
    if model.calibration.reject:
        rejected = model.calibration.rejects(outputs["attribution"])
    points = [point["threshold"] for point in model.calibration.operating_points]
    rows = zip(
        chances["detection"][:, 1], chances["attribution"], rejected, strict=True
    )
    return [_answer(model.source_names, *row, points) for row in rows]


def judge(model: Attributor, outputs: dict[str, np.ndarray]) -> dict[str, Any]:
    """Turn the logits of an image and of its views into an answer, as `attribute` has it."""
    chances = model.calibration.probabilities(outputs)
    synthetic, sources = chances["detection"][:, 1], chances["attribution"]
    said = decide(model, outputs)
    answer, reason = said[0]
    views = [
        {"view": name, "answer": other, "synthetic": float(chance)}
        for name, (other, _), chance in zip(VIEWS, said[1:], synthetic[1:], strict=True)
    ]
    order = np.argsort(-sources[0], kind="stable")
    return {
        "answer": answer,
        "reason": reason,
        "synthetic": float(synthetic[0]),
        "sources": [[model.source_names[i], float(sources[0, i])] for i in order],
        "stability": stability(answer, views),
        "views": views,
    }


def stability(answer: str, views: Sequence[dict[str, Any]]) -> float:
    """Return the share of views that have the answer of the image itself."""
    return float(np.mean([view["answer"] == answer for view in views]))


def _answer(
    names: Sequence[str],
    synthetic: float,
    sources: np.ndarray,
    rejected: bool,
    thresholds: Sequence[float],
) -> tuple[str, str]:
    """Return the answer for one image, and why it is that.

    Args:
        names: of the sources.
        synthetic: calibrated probability of being synthetic.
        sources: that of each source.
        rejected: whether the best of them is below the threshold for unknown sources.
        thresholds: of the operating points, none for a network without.
    """
    low, high = min(thresholds, default=0.5), max(thresholds, default=0.5)
    best = names[int(sources.argmax())]
    at = f"P(synthetic) = {synthetic:.3f}"
    if low <= synthetic < high:
        return (
            INCONCLUSIVE,
            f"{at} lies between the operating points {low:.3f} and {high:.3f}",
        )
    is_synthetic = synthetic >= high
    if rejected:
        return UNKNOWN, "no known source is probable enough, real images among them"
    if is_synthetic == (best == REAL):
        said = "synthetic" if is_synthetic else "real"
        return INCONCLUSIVE, f"detection says {said} ({at}), attribution {best}"
    if is_synthetic:
        return best, f"{at}, from {high:.3f} on it is called synthetic"
    return REAL, f"{at}, under {low:.3f} it is called real"
