"""What images a network was trained on, and where another image lies outside of it."""

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from rmjax.data.dataset import Selection
from rmjax.data.facts import header_quality
from rmjax.data.features import FeatureTable
from rmjax.data.images import open_image

if TYPE_CHECKING:
    from rmjax.inference.attributor import Attributor

SAMPLE = 256  # training images that are looked at
# JPEG qualities below this leave little of what generators leave in fine detail.
HEAVY = 60
# Of an image the network sees a window; below this share of it that is worth a word.
_SEEN_SHARE = 0.5


def describe_training(
    selection: Selection, split: str = "train"
) -> dict[str, Any] | None:
    """Describe a sample of the files that a network is trained on.

    Returns:
        None where these are not at hand, but stored features alone; else
        `images` looked at, `formats` with their counts, `shorter_side` in pixels as
        `[least, greatest]`, and `jpeg_quality` likewise, None without JPEG files.

    Raises:
        InputError: one of them is no image that can be read here: training would end
            at it.
    """
    if isinstance(selection.dataset, FeatureTable):
        return None
    records = selection.records[split]
    step = max(len(records) // SAMPLE, 1)
    files = selection.dataset.files(split)
    chosen = [int(number) for number in records[::step][:SAMPLE]]
    headers = [open_image(data, path) for path, data in files.read(chosen)]
    of_each = [header_quality(header)[0] for header in headers]
    qualities = [int(quality) for quality in of_each if not np.isnan(quality)]
    sides = [min(header.size) for header in headers]
    return {
        "images": len(headers),
        "formats": dict(Counter(header.format for header in headers).most_common()),
        "shorter_side": [min(sides), max(sides)],
        "jpeg_quality": [min(qualities), max(qualities)] if qualities else None,
    }


def warn_about(data: bytes, shown: tuple[int, int], model: "Attributor") -> list[str]:
    """Say where an image file lies outside of what a network was trained on.

    Args:
        data: the file, one that can be read.
        shown: height and width of what the network sees of it.
        model: the network.
    """
    header = open_image(data)
    known = model.training
    warnings = [] if known else ["what the network was trained on is not known"]
    if known and header.format not in known["formats"]:
        formats = ", ".join(known["formats"])
        warnings.append(f"a {header.format} file; trained on {formats}")
    warnings += _about_size(header.size, shown, model)
    warnings += _about_compression(header_quality(header)[0], known)
    if _has_more(header):
        warnings.append("several pictures or frames: only the first is looked at")
    return warnings


def _about_size(
    size: tuple[int, int], shown: tuple[int, int], model: "Attributor"
) -> list[str]:
    warnings = []
    side, data = min(size), model.image_config
    if not model.source_names:  # of no size: training pictures are rendered as crops
        if side < data.crop:
            text = f"its shorter side is {side} px; trained on crops of {data.crop} px"
            warnings.append(text)
    elif model.training:
        low, high = model.training["shorter_side"]
        if not low <= side <= high:
            sizes = f"{low}" if low == high else f"{low} to {high}"
            warnings.append(f"its shorter side is {side} px; trained on {sizes} px")
    if data.eval_resize and side != data.eval_resize:
        warnings.append(
            f"scaled from {side} to {data.eval_resize} px, which rewrites fine detail"
        )
    scale = data.eval_resize / side if data.eval_resize else 1
    share = shown[0] * shown[1] / (size[0] * size[1] * scale**2)
    if share < _SEEN_SHARE:
        warnings.append(f"only its middle is looked at, {100 * share:.2g}% of its area")
    return warnings


def _about_compression(quality: float, known: dict | None) -> list[str]:
    if np.isnan(quality):
        return []
    trained = (known or {}).get("jpeg_quality")
    if trained and quality < trained[0]:
        return [f"JPEG quality {quality:.0f}; trained on {trained[0]} to {trained[1]}"]
    if not trained and quality < HEAVY:
        return [f"heavily compressed: JPEG quality {quality:.0f}"]
    return []


def _has_more(header: Image.Image) -> bool:
    try:
        return getattr(header, "is_animated", False)
    except Exception:  # damaged behind the first one, which is sound
        return False
