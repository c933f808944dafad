"""A picture of every corruption of an image, to be looked at, and how such are written."""

from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
from matplotlib.figure import Figure

from rmjax.corruptions import NAMES, SEVERITIES, check_names, corrupt
from rmjax.corruptions.registry import MIN_SIZE
from rmjax.data.image_files import read_bytes
from rmjax.data.images import centre, decode_rgb, resize_shorter
from rmjax.errors import InputError
from rmjax.evaluation.robustness import kind_key


def preview_corruptions(
    image_file: str | Path,
    out_file: str | Path,
    *,
    names: tuple[str, ...] = NAMES,
    size: int = 224,
    seed: int = 0,
) -> None:
    """Draw an image under each corruption (rows) and severity (columns).

    Args:
        image_file: the image; its middle is taken, after resizing.
        out_file: the PNG to write.
        names: which corruptions.
        size: side in pixels that it is corrupted at; lengths depend on it.
        seed: of the random draws.

    Raises:
        InputError: an unknown name, an image that can't be read, or too small a size.
    """
    check_names(names)
    if size < MIN_SIZE:
        raise InputError(f"size = {size} px: give at least {MIN_SIZE}")
    image = centre(
        resize_shorter(decode_rgb(read_bytes(image_file), str(image_file)), size), size
    )
    pixels = jnp.asarray(image, jnp.float32) / 255
    width = len(SEVERITIES) + 1
    figure = Figure(figsize=(1.25 * width + 0.9, 1.25 * len(names)))
    figure.subplots_adjust(0.9 / (1.25 * width + 0.9), 0, 1, 1, 0.03, 0.03)
    axes = figure.subplots(len(names), width, squeeze=False)
    run = jax.jit(corrupt, static_argnames=("name", "rounding"))
    for row, name in zip(axes, names, strict=True):
        key = kind_key(name, seed)
        tiles = [image / 255] + [
            run(key, pixels, name=name, severity=severity, rounding=True)
            for severity in SEVERITIES
        ]
        for axis, tile in zip(row, tiles, strict=True):
            axis.imshow(np.asarray(tile), vmin=0, vmax=1)
            axis.axis("off")
        label = name.replace("_", "\n")
        row[0].text(
            -0.06,
            0.5,
            label,
            ha="right",
            va="center",
            size=8,
            transform=row[0].transAxes,
        )
    for axis, title in zip(axes[0], ("original", *map(str, SEVERITIES)), strict=True):
        axis.set_title(
            title, size=8, y=0.84, color="white", bbox={"color": "#0008", "pad": 1}
        )
    save_sheet(figure, out_file)


def save_sheet(figure: Figure, out_file: str | Path) -> None:
    """Write a figure to look at, in the format that the file's name says.

    Raises:
        InputError: no such folder, or no such format.
    """
    try:
        with matplotlib.rc_context({"savefig.dpi": 120, "text.parse_math": False}):
            figure.savefig(out_file)
    except (OSError, ValueError) as error:
        raise InputError(f"can't write {out_file}: {error}") from error
