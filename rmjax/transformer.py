"""Fingerprints as a step of a scikit-learn `Pipeline`."""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin

from rmjax.inference import Attributor, ImageLike, load_pretrained


class FingerprintTransformer(TransformerMixin, BaseEstimator):
    """Turns images into fingerprints of a trained network; learns nothing itself.

    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from rmjax.transformer import FingerprintTransformer

    classifier = make_pipeline(FingerprintTransformer("runs/mine"), LogisticRegression())
    classifier.fit(paths, labels)

    It can be cloned, pickled (without the network, which is loaded again where it is
    needed) and searched over as any other.

    Parameters:
        path: folder of a run, or a file of weights, as for `rmjax.load_pretrained`.
        layer: the activation; the fingerprint for None.
        batch_size: images that run at once.
    """

    def __init__(self, path: str, layer: str | None = None, batch_size: int = 64):
        self.path = path
        self.layer = layer
        self.batch_size = batch_size

    def fit(self, X: Sequence[ImageLike], y: Any = None) -> Self:
        """Load the network; the images are not looked at.

        Raises:
            InputError: there is no such run, or layer.
        """
        self._model = load_pretrained(self.path)
        layer = self.layer or self._model.layer
        self.n_features_out_ = self._model.channels(layer)
        return self

    def transform(self, X: Sequence[ImageLike]) -> np.ndarray:
        """Return fingerprints `[images, channels]`, float32.

        Args:
            X: paths, encoded bytes or uint8 arrays `[H, W, 3]`; a column of them, as
                a data frame gives one, will do.

        Raises:
            InputError: an image can't be read.
        """
        if hasattr(X, "to_numpy"):  # a data frame of one column, or a column
            X = np.ravel(X.to_numpy()).tolist()
        return self._network().embed(list(X), self.batch_size, layer=self.layer)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Return `embedding0`, `embedding1`, ..."""
        layer = self.layer or self._network().layer
        names = [f"{layer}{i}" for i in range(self.n_features_out_)]
        return np.array(names, object)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the network out: it stays where it is stored."""
        return {k: v for k, v in super().__getstate__().items() if k != "_model"}

    def __sklearn_is_fitted__(self) -> bool:
        """Tell scikit-learn that there is nothing to learn."""
        return True

    def _network(self) -> Attributor:
        if not hasattr(self, "_model"):
            self._model = load_pretrained(self.path)
        return self._model
