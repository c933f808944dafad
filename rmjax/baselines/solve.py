"""Fitting the heads of `rmjax.baselines.networks` to features.

Each function takes `Samples` and a grid of values of its one hyperparameter, and
yields for every value the parameters of its head, as NumPy arrays by name.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import solve

from rmjax.baselines.networks import MAX_NEIGHBOURS

# scikit-learn is imported where it is needed: who asks a run about images, whichever
# it is, need not wait for it.

Params = dict[str, np.ndarray]


@dataclass(frozen=True)
class Samples:
    """Features of training images, in batches.

    Attributes:
        count: images in all.
        size: features of an image.
        num_sources: sources; those of the images are 0 to `num_sources - 1`.
        components: principal components to find, where any are.
        batches: features float32 `[items, size]` and sources `[items]`, once.
        seed: of what is random in a fit.
    """

    count: int
    size: int
    num_sources: int
    components: int
    batches: Iterator[tuple[np.ndarray, np.ndarray]]
    seed: int = 0

    def collect(self) -> tuple[np.ndarray, np.ndarray]:
        """Return all features, float32 `[count, size]`, and sources `[count]`."""
        features = np.empty((self.count, self.size), np.float32)
        source = np.empty(self.count, np.int64)
        done = 0
        for some, of in self.batches:
            features[done : done + len(of)] = some
            source[done : done + len(of)] = of
            done += len(of)
        return features, source


def ridge(samples: Samples, penalties: Sequence[float]) -> Iterator[Params]:
    """Fit ridge regressions to one target per source: 1 for its images, -1 for others.

    Minimises |X W + b - Y|^2 + penalty |W|^2, whose solution for features and targets
    without their means is W = (X'X + penalty)^-1 X'Y = X' (XX' + penalty)^-1 Y; the
    smaller of both matrices is made once for all penalties.

    References:
        Frank et al., ICML 2020, https://arxiv.org/abs/2003.08685
        Hoerl, Kennard, Ridge Regression, Technometrics 1970
    """
    x, source = samples.collect()
    y = np.where(source[:, None] == np.arange(samples.num_sources), 1.0, -1.0)
    y = y.astype(np.float32)
    x_mean, y_mean = x.mean(0, dtype=np.float64), y.mean(0, dtype=np.float64)
    x -= x_mean.astype(np.float32)
    y -= y_mean.astype(np.float32)
    dual = len(x) < x.shape[1]
    gram = x @ x.T if dual else x.T @ x
    right = y if dual else x.T @ y
    diagonal = np.einsum("ii->i", gram)  # a view
    plain = diagonal.copy()
    for penalty in penalties:
        diagonal[:] = plain + np.float32(penalty)
        kernel = solve(gram, right, assume_a="pos")
        kernel = x.T @ kernel if dual else kernel
        yield {"kernel": kernel, "bias": y_mean - x_mean @ kernel}


def prnu(samples: Samples, _: Sequence[float]) -> Iterator[Params]:
    """Average the residuals of each source, without a mean and to length one.

    There is nothing to tune.

    References:
        Marra et al., Do GANs Leave Artificial Fingerprints?, MIPR 2019,
        https://arxiv.org/abs/1812.11842
    """
    sums = np.zeros((samples.num_sources, samples.size))
    for features, source in samples.batches:
        np.add.at(sums, source, features)
    # Of a sum as of a mean: only its direction is wanted.
    centred = sums - sums.mean(1, keepdims=True)
    length = np.linalg.norm(centred, axis=1, keepdims=True)
    yield {"fingerprints": (centred / np.maximum(length, 1e-30)).T}


def eigenfaces(samples: Samples, costs: Sequence[float]) -> Iterator[Params]:
    """Find principal components, and a linear support vector machine on them.

    Where there are fewer images or pixels than components, the rest are zeros.

    References:
        Turk, Pentland, Eigenfaces for Recognition, Journal of Cognitive Neuroscience
        1991; as a baseline of fingerprints: Frank et al., ICML 2020
    """
    from sklearn.decomposition import PCA
    from sklearn.svm import LinearSVC

    x, source = samples.collect()
    components = samples.components
    rank = min(components, *x.shape)
    pca = PCA(rank, svd_solver="randomized", random_state=samples.seed)
    coordinates = pca.fit_transform(x)
    axes = np.zeros((samples.size, components), np.float32)
    axes[:, :rank] = pca.components_.T
    for cost in costs:
        # The primal problem: there are more images than coordinates as a rule.
        svm = LinearSVC(C=cost, dual=False, random_state=samples.seed)
        svm.fit(coordinates, source)
        kernel, bias = svm.coef_.T, svm.intercept_
        if samples.num_sources == 2:  # one score, positive for the second
            kernel, bias = np.hstack([-kernel, kernel]), np.array([-1, 1]) * bias
        padded = np.zeros((components, samples.num_sources))
        padded[:rank] = kernel
        machine = {"kernel": padded, "bias": bias}
        yield {"mean": pca.mean_, "components": axes, **machine}


def probe(samples: Samples, costs: Sequence[float]) -> Iterator[Params]:
    """Fit multinomial logistic regressions to standardised features.

    `costs` are scikit-learn's C, the inverse of the L2 penalty. Mean and deviation of
    the features end up in kernel and bias.
    """
    from sklearn.linear_model import LogisticRegression

    x, source = samples.collect()
    mean, deviation = x.mean(0, dtype=np.float64), x.std(0, dtype=np.float64)
    deviation[deviation < 1e-12] = 1  # of a feature that never changes
    x = ((x - mean) / deviation).astype(np.float64)
    for cost in costs:
        fitted = LogisticRegression(C=cost, max_iter=1000).fit(x, source)
        kernel, bias = fitted.coef_.T, fitted.intercept_
        if samples.num_sources == 2:  # the logit of the second
            kernel, bias = np.hstack([0 * kernel, kernel]), np.append(0, bias)
        kernel = kernel / deviation[:, None]
        yield {"kernel": kernel, "bias": bias - mean @ kernel}


def knn(samples: Samples, counts: Sequence[float]) -> Iterator[Params]:
    """Keep the features, at length one, and let the nearest `counts` of them vote."""
    x, source = samples.collect()
    length = np.linalg.norm(x, axis=1, keepdims=True)
    x /= np.maximum(length, np.finfo(np.float32).tiny)
    ranks = np.arange(min(MAX_NEIGHBOURS, samples.count))
    for count in counts:
        votes = np.where(ranks < count, 1.0, 0.0)
        yield {"features": x, "source": source, "votes": votes}
