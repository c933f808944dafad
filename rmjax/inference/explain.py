"""Why an image is answered as it is: where the evidence lies, and its spectrum."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.special import logsumexp

from rmjax.inference.attribute import BATCHES, decide
from rmjax.inference.attributor import Attributor, decode, shown_box
from rmjax.inference.spectra import (
    IMAGES,
    describe_spectrum,
    image_power,
    window_side,
)

GRID = 8  # cells of a map down and across; of tiles at most so many
MIN_TILES = 4  # an image with fewer tiles down or across gets a map by occlusion
# A patch is blurred and blended in: of grey, means, medians, noise and shuffled pixels,
# with hard and with soft edges, that had the strongest cell in the right half most often,
# on simulated images of which one source made one half and another the other.
_BLUR = 2.0  # pixels, the deviation of the blur: far more than the finest detail
_REACH = 1.5  # side of a patch, in cells: patches overlap
_TILES = {
    "method": "tiles",
    "how_to_read": "Each cell is a square of the image, attributed by itself: the higher "
    "its value, the more that square looks like the named source.",
    "not": "A low cell is not an edited place: smooth areas hardly say anything.",
}
_OCCLUSION = {
    "method": "occlusion",
    "how_to_read": "Fine detail was taken out of one cell at a time: the higher its "
    "value, the more of the evidence for the named source went with it.",
    "not": "It shows what this network looks at, not which part of the image was edited.",
}

Outputs = dict[str, np.ndarray]


@dataclass(frozen=True)
class Evidence:
    """What in a network's outputs speaks for an answer.

    Attributes:
        answer: about the image.
        of: the source or generator that a map is of; the most probable one where the
            answer names none.
        unit: of `measure`, in words.
        measure: how much speaks for it, of outputs of `Attributor.run` for N images,
            `[N]`.
    """

    answer: str
    of: str
    unit: str
    measure: Callable[[Outputs], np.ndarray]


def explain(model: Attributor, data: bytes, name: str) -> dict[str, Any]:
    """Say where in an image the evidence for its answer lies, and show its spectrum.

    Args:
        model: the network. Of one without sources there is no map here:
            `rmjax.gallery.attribute.explain_by_gallery` draws it.
        data: the encoded image.
        name: what to call it.

    Returns:
        A dict that JSON can hold: `image`, the name; `answer`, None without sources;
        `map`, None without sources, see `explain_by`; `spectrum`, see there.

    Raises:
        InputError: the image can't be read.
    """
    judge = partial(_for_source, model) if model.source_names else None
    return explain_by(model, data, name, judge)


def explain_by(
    model: Attributor,
    data: bytes,
    name: str,
    judge: Callable[[Outputs], Evidence] | None,
) -> dict[str, Any]:
    """Explain an image by whatever makes the answers.

    Args:
        model: the network.
        data: the encoded image.
        name: what to call it.
        judge: finds the answer and its evidence in the outputs of `Attributor.run` for
            the image; None draws no map.

    Returns:
        `image` and `answer`. `map`: `method`, `tiles` or `occlusion`; `rows`,
        `columns`, and the `values` of the cells, row by row, in `unit`s, for `of`;
        `box`, the part of the image that they cover, left, top, right, bottom in
        pixels. `spectrum`: `frequencies` in cycles per pixel; `image` and, by name,
        `sources`, the levels in decibels; `pictures`, likewise, as PNG in `data:`
        addresses; `images`, how many each source's mean is of; `note`, why there are no
        sources, or None. Both have `how_to_read` and `not`, a line each.

    Raises:
        InputError: the image can't be read.
    """
    image = decode(data, name)
    shown = model.read(image)
    answer, drawn = None, None
    if judge is not None:
        evidence = judge(model.run([shown], BATCHES))
        answer = evidence.answer
        drawn = _draw_map(model, image, shown, evidence)
    return {
        "image": name,
        "answer": answer,
        "map": drawn,
        "spectrum": _compare_spectrum(model, shown),
    }


def _for_source(model: Attributor, outputs: Outputs) -> Evidence:
    """Return the evidence for the most probable source of an image."""
    logits = outputs["attribution"][0]
    best = int(logits.argmax())

    def log_odds(outputs: Outputs) -> np.ndarray:
        scaled = outputs["attribution"] / np.float64(model.calibration.attribution)
        return scaled[:, best] - logsumexp(np.delete(scaled, best, axis=1), axis=1)

    name = model.source_names[best]
    unit = f"natural log-odds of {name} against the other sources"
    return Evidence(decide(model, outputs)[0][0], name, unit, log_odds)


def _draw_map(
    model: Attributor, image: np.ndarray, shown: np.ndarray, evidence: Evidence
) -> dict[str, Any]:
    """Map the evidence by tiles where they are many, otherwise by occlusion.

    Args:
        model: the network.
        image: uint8 `[H, W, 3]`.
        shown: what the network is shown of it, uint8 `[h, w, 3]`.
        evidence: for the answer.
    """
    config = model.image_config
    tiles = [n // config.crop for n in image.shape[:2]]
    # What is resampled has other fine detail than a tile of the file.
    if not config.eval_resize and min(tiles) >= MIN_TILES:
        rows, columns = (min(n, GRID) for n in tiles)
        parts = _cut_tiles(image, rows, columns, config.crop)
        values, unit = evidence.measure(model.run(parts, BATCHES)), evidence.unit
        said = _TILES
        box = [0, 0, image.shape[1], image.shape[0]]
    else:
        rows = columns = GRID
        parts = _occlude(shown)
        whole, *rest = evidence.measure(model.run([shown, *parts], BATCHES))
        values, unit = whole - np.array(rest), f"fall of the {evidence.unit}"
        said = _OCCLUSION
        box = [round(x, 1) for x in shown_box(image.shape[:2], config)]
    return {
        "rows": rows,
        "columns": columns,
        "values": np.round(values.reshape(rows, columns), 4).tolist(),
        "box": box,
        "of": evidence.of,
        "unit": unit,
        **said,
    }


def _cut_tiles(
    image: np.ndarray, rows: int, columns: int, side: int
) -> list[np.ndarray]:
    """Cut a square out of the middle of each cell of a grid over an image."""
    height, width = image.shape[:2]
    tops = ((np.arange(rows) + 0.5) * height / rows - side / 2).astype(int)
    lefts = ((np.arange(columns) + 0.5) * width / columns - side / 2).astype(int)
    return [image[i : i + side, j : j + side] for i in tops for j in lefts]


def _occlude(image: np.ndarray) -> list[np.ndarray]:
    """Take the fine detail out of each cell of an image in turn.

    A patch of one colour would have edges, which are fine detail themselves; a blurred
    one, blended in, has none.
    """
    height, width = image.shape[:2]
    smooth = gaussian_filter(image.astype(np.float32), (_BLUR, _BLUR, 0))
    masks = _masks(height)[:, None, :, None, None] * _masks(width)[:, None, :, None]
    patches = image + masks * (smooth - image)
    return list(np.rint(patches).astype(np.uint8).reshape(-1, *image.shape))


def _masks(size: int) -> np.ndarray:
    """Return soft masks of the cells along one side, float32 `[GRID, size]` in [0, 1]."""
    cell = size / GRID
    centres = (np.arange(GRID)[:, None] + 0.5) * cell
    outside = np.abs(np.arange(size) + 0.5 - centres) - _REACH * cell / 2
    return np.clip(0.5 - outside / (cell / 2), 0, 1).astype(np.float32)


def _compare_spectrum(model: Attributor, shown: np.ndarray) -> dict[str, Any]:
    """Return the spectrum of what the network is shown beside the means of its sources."""
    side = window_side(min(shown.shape[:2]))
    stored, note = model.spectra, None
    if not model.source_names:
        note = "the network knows no sources to compare with"
    elif stored is None:
        note = (
            "`rmjax evaluate` stores the mean spectra of the sources: none are stored"
        )
    elif side < stored["side"]:
        note = f"too small to compare: the sources' spectra are of {stored['side']} px"
        stored = None
    else:
        side = stored["side"]
    own = describe_spectrum(image_power(shown, side))
    sources = stored["sources"] if stored else {}
    return {
        "frequencies": own["frequencies"],
        "image": own["levels"],
        "sources": {name: source["levels"] for name, source in sources.items()},
        "pictures": {
            "image": own["picture"],
            "sources": {name: source["picture"] for name, source in sources.items()},
        },
        "images": {name: source["images"] for name, source in sources.items()},
        "note": note,
        "how_to_read": "How strong fine detail is at each frequency, in decibels: a bend "
        "or peak that the image shares with one source alone speaks for that source.",
        "not": f"The sources' lines are means of up to {IMAGES} images: what an image "
        "shows moves its own line away from them, or close to the wrong one.",
    }
