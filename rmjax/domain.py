"""What images a network was trained on, and where another image lies outside of it."""

import io
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from rmjax.data.dataset import Selection
from rmjax.data.facts import ImageFacts, collect_facts, image_facts

if TYPE_CHECKING:
    from rmjax.inference import Attributor

SAMPLE = 256  # training images that are looked at
# JPEG qualities below this leave little of what generators leave in fine detail.
HEAVY = 60
# Of an image the network sees a window; below this share of it that is worth a word.
_SEEN_SHARE = 0.5


def describe_training(selection: Selection, split: str = "train") -> dict[str, Any]:
    """Describe a sample of the files that a network is trained on.

    Returns:
        `images` looked at, `formats` with their counts, `shorter_side` in pixels as
        `[least, greatest]`, and `jpeg_quality` likewise, None without JPEG files.
    """
    records = selection.records[split]
    step = max(len(records) // SAMPLE, 1)
    facts = collect_facts(
        selection.dataset,
        (split,),
        processes=1,
        records={split: records[::step][:SAMPLE]},
        show_progress=False,
    )
    sides = np.minimum(facts.width, facts.height)
    quality = facts.quality[~np.isnan(facts.quality)]
    return {
        "images": len(facts),
        "formats": dict(Counter(map(str, facts.format)).most_common()),
        "shorter_side": [int(sides.min()), int(sides.max())],
        "jpeg_quality": [int(quality.min()), int(quality.max())]
        if len(quality)
        else None,
    }


def warn_about(data: bytes, shown: tuple[int, int], model: "Attributor") -> list[str]:
    """Say where an image file lies outside of what a network was trained on.

    Args:
        data: the file, one that can be read.
        shown: height and width of what the network sees of it.
        model: the network.
    """
    facts = image_facts(data)
    known = model.training
    warnings = [] if known else ["what the network was trained on is not known"]
    if known and facts.format not in known["formats"]:
        formats = ", ".join(known["formats"])
        warnings.append(f"a {facts.format} file; trained on {formats}")
    warnings += _about_size(facts, shown, model)
    warnings += _about_compression(facts, known)
    if _frames(data) > 1:
        warnings.append("an animation: only its first frame is looked at")
    return warnings


def _about_size(
    facts: ImageFacts, shown: tuple[int, int], model: "Attributor"
) -> list[str]:
    warnings = []
    side, data = min(facts.width, facts.height), model.config.data
    low, high = model.training["shorter_side"] if model.training else (side, side)
    if not low <= side <= high:
        sizes = f"{low}" if low == high else f"{low} to {high}"
        warnings.append(f"its shorter side is {side} px; trained on {sizes} px")
    if data.eval_resize and side != data.eval_resize:
        warnings.append(
            f"scaled from {side} to {data.eval_resize} px, which rewrites fine detail"
        )
    scale = data.eval_resize / side if data.eval_resize else 1
    share = shown[0] * shown[1] / (facts.width * facts.height * scale**2)
    if share < _SEEN_SHARE:
        warnings.append(f"only its middle is looked at, {share:.0%} of its area")
    return warnings


def _about_compression(facts: ImageFacts, known: dict | None) -> list[str]:
    quality = facts.quality
    if np.isnan(quality):
        return []
    trained = (known or {}).get("jpeg_quality")
    if trained and quality < trained[0]:
        return [f"JPEG quality {quality:.0f}; trained on {trained[0]} to {trained[1]}"]
    if not trained and quality < HEAVY:
        return [f"heavily compressed: JPEG quality {quality:.0f}"]
    return []


def _frames(data: bytes) -> int:
    with Image.open(io.BytesIO(data)) as image:
        return getattr(image, "n_frames", 1)
