"""Decoded images kept in memory."""

import numpy as np


class ImageCache:
    """Decoded images kept in memory, up to a number of bytes.

    Decoding a 256-px PNG costs as much as training on a crop of it does on CPU.
    What has no room is decoded again each time: nothing is thrown out, because
    in a shuffled pass every image is as likely to come next as any other. Safe
    to share between threads; a worker process starts with an empty one.
    """

    def __init__(self, max_bytes: int):
        self.max_bytes = max_bytes
        self._images: dict[tuple, np.ndarray] = {}
        self._free = max_bytes

    def get(self, key: tuple) -> np.ndarray | None:
        return self._images.get(key)

    def put(self, key: tuple, image: np.ndarray) -> None:
        # Two threads may both see room for one last image: that is harmless.
        if image.nbytes <= self._free and key not in self._images:
            self._free -= image.nbytes
            self._images[key] = image

    def __reduce__(self):
        return ImageCache, (self.max_bytes,)
