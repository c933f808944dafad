"""Fingerprints as a step of a scikit-learn `Pipeline`."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin

from rmjax.inference.attributor import Attributor, ImageLike, load_pretrained
from rmjax.utils.places import as_path, state_of


class FingerprintTransformer(TransformerMixin, BaseEstimator):
    """Turns images into fingerprints of a trained network; learns nothing itself.

    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from rmjax.inference.transformer import FingerprintTransformer

    classifier = make_pipeline(FingerprintTransformer("runs/mine"), LogisticRegression())
    classifier.fit(paths, labels)

    It can be cloned, pickled and searched over as any other; the network is not a part
    of it, but loaded once a process, and again when its file or folder has changed.

    Parameters:
        path: folder of a run, or a file of weights, as for `rmjax.load_pretrained`;
            None for the fingerprint network that ships with rmjax.
        layer: the activation; the fingerprint for None.
        batch_size: images that run at once.
    """

    def __init__(
        self,
        path: str | None = None,
        layer: str | None = None,
        batch_size: int = 64,
    ):
        self.path = path
        self.layer = layer
        self.batch_size = batch_size

    def fit(self, X: Sequence[ImageLike], y: Any = None) -> Self:
        """Load the network; the images are not looked at.

        Raises:
            InputError: there is no such run, or layer.
        """
        self.get_feature_names_out()
        return self

    def transform(self, X: Sequence[ImageLike]) -> np.ndarray:
        """Return fingerprints `[images, channels]`, float32.

        Args:
            X: images as for `Attributor.embed`; a column of them, of a data frame or
                an array, will do.

        Raises:
            InputError: an image can't be read, or this process was forked from one in
                which JAX runs.
        """
        if hasattr(X, "to_numpy"):  # a data frame of one column, or a column
            X = X.to_numpy()
        if isinstance(X, np.ndarray) and X.dtype.kind in "OSU":
            X = X.ravel()
        return self._network().embed(list(X), self.batch_size, layer=self.layer)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Return `embedding0`, `embedding1`, ..."""
        model = self._network()
        layer = self.layer or model.layer
        names = [f"{layer}{i}" for i in range(model.channels(layer))]
        return np.array(names, object)

    def __sklearn_is_fitted__(self) -> bool:
        """Tell scikit-learn that there is nothing to learn."""
        return True

    def _network(self) -> Attributor:
        if self.path is None:
            return _load(None, ())
        path = as_path(self.path)
        files = (path, *path.glob("*")) if path.exists() else ()
        return _load(path, tuple(state_of(file) for file in files if file.exists()))


@lru_cache(maxsize=2)
def _load(path: Path | None, changed: tuple) -> Attributor:
    """Load a network once for all folds of a search; `changed` tells when it was."""
    return load_pretrained(path)
