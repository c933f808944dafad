"""Photographs of frost, for the corruption of that name."""

from pathlib import Path

import numpy as np

from rmjax.data.image_files import read_bytes, walk_images
from rmjax.data.images import centre, decode_rgb, resize_shorter
from rmjax.errors import InputError


def load_panes(folder: str | Path, size: int) -> np.ndarray:
    """Load photographs of frost for images of `size` px.

    Smaller ones are enlarged to 1.1 times that, as the reference does; of larger ones
    the middle stays that all have in common.

    Returns:
        float32 `[photographs, side, side, 3]` in [0, 1].

    Raises:
        InputError: no images there, or one that can't be read.
    """
    folder = Path(folder)
    paths = walk_images(folder) if folder.is_dir() else ()
    files = [folder / path for path in paths if len(path.parts) == 1]
    if not files:
        raise InputError(
            f"no photographs of frost in {folder}: give a folder with images"
        )
    least = int(np.ceil(1.1 * size))
    panes = [decode_rgb(read_bytes(file), str(file)) for file in files]
    panes = [
        p if min(p.shape[:2]) >= least else resize_shorter(p, least) for p in panes
    ]
    side = min(min(pane.shape[:2]) for pane in panes)
    return np.stack([centre(pane, side) for pane in panes]).astype(np.float32) / 255
