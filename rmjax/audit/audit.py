"""A leakage audit: how well the source is told from what is no fingerprint.

Every cue is put to the same classifier, a forest and a logistic regression that average
their votes: the forest finds steps and combinations, the regression what is spread
thinly over a thumbnail.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.ensemble import ExtraTreesClassifier, VotingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

from rmjax.audit.real import compare_real
from rmjax.data.collected import Collected
from rmjax.data.dataset import REAL, Dataset, Selection, choose_evenly, select
from rmjax.data.facts import Facts, collect_facts
from rmjax.errors import InputError

MARGIN = 0.05  # balanced accuracy above measured chance that is never alarming
ERRORS = 5  # standard errors; few folds estimate these roughly
RULE = (
    "a cue leaks where the folds' mean balanced accuracy exceeds their mean with "
    f"permuted labels by more than {MARGIN} and by more than {ERRORS} standard errors, "
    "the larger of the two means'"
)


@dataclass(frozen=True)
class Cue:
    """Something beside the fingerprint that may tell the source.

    Attributes:
        features: function of facts to float32 `[images, features]`.
        advice: what to do where it does tell the source.
    """

    features: Callable[[Facts], np.ndarray]
    advice: str


def one_hot(*columns: np.ndarray) -> np.ndarray:
    """Return a feature for each value of each column: float32 `[n, values]`."""
    codes = [np.unique(column, return_inverse=True)[1] for column in columns]
    return np.concatenate(
        [np.eye(code.max() + 1, dtype=np.float32)[code] for code in codes], axis=1
    )


def _size(facts: Facts) -> np.ndarray:
    return np.stack([facts.width, facts.height], 1).astype(np.float32)


def _jpeg(facts: Facts) -> np.ndarray:
    quality = np.nan_to_num(facts.quality, nan=0)[:, None]
    return np.hstack([quality, facts.standard[:, None], one_hot(facts.subsampling)])


def _file_size(facts: Facts) -> np.ndarray:
    pixels = facts.width.astype(np.float64) * facts.height
    return np.log(np.stack([facts.bytes, facts.bytes / pixels], 1)).astype(np.float32)


def _thumbnail(facts: Facts) -> np.ndarray:
    return facts.thumbnail.reshape(len(facts), -1).astype(np.float32) / 255


def _everything(facts: Facts) -> np.ndarray:
    return np.hstack([CUES[name].features(facts) for name in CUES if name != "all"])


CUES: dict[str, Cue] = {
    "container": Cue(
        lambda facts: one_hot(facts.format, facts.mode),
        "keep files of one format and mode, or convert all to one; converting a JPEG "
        "to PNG leaves the traces of its compression in the pixels",
    ),
    "size": Cue(
        _size,
        "compare sources of one size (--sources, --semantics), or cut all to one size "
        "without resampling: resampling leaves traces that differ by factor",
    ),
    "JPEG": Cue(
        _jpeg,
        "keep files of one quality and subsampling, or send every image, of every "
        "source, through one and the same JPEG encoder before training",
    ),
    "file size": Cue(
        _file_size,
        "encode all sources alike and audit again; what is left then is smoothness, "
        "content, or an earlier compression of some sources",
    ),
    "semantic": Cue(
        lambda facts: one_hot(facts.semantic),
        "compare on semantics that every source has (--semantics), or balance the "
        "cells; otherwise the content is the answer",
    ),
    "thumbnail": Cue(
        _thumbnail,
        "match the scenes of the sources, or train on fine detail alone "
        "(--config.model.input=highpass, residual or dcthist)",
    ),
    "all": Cue(_everything, "see to the single cues first, then audit again"),
}


def audit(
    dataset: Dataset,
    *,
    splits: Sequence[str] | None = None,
    sources: Sequence[str] | None = None,
    semantics: Sequence[str] | None = None,
    folds: int = 5,
    seed: int = 0,
    max_images: int = 20_000,
    processes: int | None = None,
    show_progress: bool = True,
) -> dict:
    """Measure how well each cue tells the sources of a data set apart.

    Args:
        dataset: an open data set, or what `rmjax.data.collected.collect_labels` made of files.
        splits: which; None takes all.
        sources: which; None takes those that have images in the splits and semantics.
        semantics: which; None takes all.
        folds: of the cross-validation; a group of images is kept in one of them.
        seed: of the choice of images, the folds, the permutations, the classifiers.
        max_images: of more, so many are taken, the sources as evenly as they go.
        processes: that read images; None is one a core.
        show_progress: whether to draw progress bars.

    Returns:
        What was audited, `chance` (1 / sources); `real`, what `compare_real` returns,
        or nothing where no source is `real`; and `cues`: for each name what
        `audit_cue` returns and its `advice`.

    Raises:
        InputError: an unknown name, fewer than two sources, or a source with fewer
            images, or groups of images, than folds.
    """
    if folds < 2 or max_images < 1 or not 0 <= seed < 2**32:
        raise InputError(
            "give at least 2 folds, at least 1 image and a seed from 0 to 2^32 - 1; "
            f"got {folds}, {max_images} and {seed}"
        )
    splits = tuple(dataset.split_sizes if splits is None else dict.fromkeys(splits))
    if not splits:
        raise InputError(f"no splits given; there are {', '.join(dataset.split_sizes)}")
    for split in splits:
        dataset.labels(split)  # raises for an unknown one
    selection = _choose(dataset, splits, sources, semantics)
    names = selection.source_names
    records, labels = _sample(selection, splits, max_images, seed)
    _check_counts(names, labels, folds, "images")
    facts = collect_facts(dataset, splits, processes, records, show_progress)
    readable = facts.reason == ""
    facts = facts.take(readable)
    labels = labels[readable]
    _, first = np.unique(np.stack([labels, facts.group]), axis=1, return_index=True)
    _check_counts(names, labels[first], folds, "groups of readable images")
    return {
        "dataset": _place(dataset),
        "splits": list(splits),
        "sources": {name: int((labels == i).sum()) for i, name in enumerate(names)},
        "semantics": list(selection.semantic_names),
        "images": len(facts),
        "unreadable": int((~readable).sum()),
        "folds": folds,
        "seed": seed,
        "chance": 1 / len(names),
        "real": compare_real(facts, labels == 0) if names[0] == REAL else {},
        "rule": RULE,
        "cues": _audit_cues(facts, labels, names, folds, seed, show_progress),
    }


def audit_cue(
    features: np.ndarray,
    labels: np.ndarray,
    parts: Sequence[tuple[np.ndarray, np.ndarray]],
    seed: int = 0,
    tick: Callable[[], object] = lambda: None,
) -> dict:
    """Measure by cross-validation how well features tell labels.

    Args:
        features: float32 `[n, features]`.
        labels: int `[n]`, 0 to the number of labels - 1.
        parts: indices of the training and the test images of each fold.
        seed: of the permutations and the classifiers.
        tick: called after each of the 2 x folds fits.

    Returns:
        `constant`: whether all images agree in the features; nothing is fitted then.
        `accuracy`, and `balanced_accuracy`: the mean `recall` over the labels, of all
        images predicted when left out; `folds`: that of each fold; `permuted`: that
        of each fold where labels were permuted between the images, `measured_chance`
        their mean and `deviation` their standard deviation; `leaks`: see `RULE`.
    """
    count = labels.max() + 1
    if (features == features[0]).all():
        common = np.bincount(labels).max() / len(labels)
        even = {"accuracy": float(common), "balanced_accuracy": float(1 / count)}
        return {"constant": True, **even, "leaks": False}
    rng = np.random.default_rng(seed)
    predicted, folds, permuted = np.empty_like(labels), [], []
    for train, test in parts:
        predicted[test] = _fit_predict(features, labels, train, test, seed)
        folds.append(float(np.nanmean(_recalls(labels[test], predicted[test], count))))
        tick()
        mixed = rng.permutation(labels)
        guess = _fit_predict(features, mixed, train, test, seed)
        permuted.append(float(np.nanmean(_recalls(mixed[test], guess, count))))
        tick()
    recalls = _recalls(labels, predicted, count)
    chance, spread = np.mean(permuted), np.std(permuted, ddof=1)
    error = max(np.std(folds, ddof=1), spread) / len(folds) ** 0.5
    excess = np.mean(folds) - chance
    return {
        "constant": False,
        "accuracy": float(np.mean(predicted == labels)),
        "balanced_accuracy": float(recalls.mean()),
        "recall": recalls.tolist(),
        "folds": folds,
        "permuted": permuted,
        "measured_chance": float(chance),
        "deviation": float(spread),
        "leaks": bool(excess > max(MARGIN, ERRORS * error)),
    }


def _place(dataset: Dataset) -> str:
    if isinstance(dataset, Collected):
        return dataset.place
    return str(dataset.directory)


def _choose(
    dataset: Dataset,
    splits: Sequence[str],
    sources: Sequence[str] | None,
    semantics: Sequence[str] | None,
) -> Selection:
    """Select the sources; of None those that have images in splits and semantics."""
    chosen = select(dataset, sources, semantics)
    if sources is None:
        present = np.unique(_labels(chosen, splits))
        sources = [dataset.source_names[i] for i in present]
    if len(sources) < 2:
        raise InputError(
            f"{dataset.directory}: an audit compares two sources or more; among these "
            f"splits and semantics: {', '.join(sources) or 'none'}"
        )
    return select(dataset, sources, semantics)


def _labels(selection: Selection, splits: Sequence[str]) -> np.ndarray:
    return np.concatenate([selection.labels[split]["source"] for split in splits])


def _sample(
    selection: Selection, splits: Sequence[str], max_images: int, seed: int
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return the records to audit, by split, and the labels of all of them."""
    labels = _labels(selection, splits)
    mask = np.zeros(len(labels), bool)
    mask[choose_evenly(labels, max_images, seed)] = True
    ends = np.cumsum([selection.size(split) for split in splits])
    records = {
        split: selection.records[split][part]
        for split, part in zip(splits, np.split(mask, ends[:-1]), strict=True)
    }
    return records, labels[mask]


def _check_counts(names: tuple, labels: np.ndarray, folds: int, what: str) -> None:
    counts = np.bincount(labels, minlength=len(names))
    few = [f"{n} ({c})" for n, c in zip(names, counts, strict=True) if c < folds]
    if few:
        raise InputError(
            f"fewer {what} than {folds} folds: {', '.join(few)}; leave such sources out "
            "(--sources), or take fewer folds or more images (--folds, --max-images)"
        )


def _audit_cues(
    facts: Facts,
    labels: np.ndarray,
    names: Sequence[str],
    folds: int,
    seed: int,
    show_progress: bool,
) -> dict[str, dict]:
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    parts = list(splitter.split(labels, labels, facts.group))
    cues = {}
    total = 2 * folds * len(CUES)
    with tqdm(total=total, desc="fitting", disable=not show_progress) as bar:
        for number, (name, cue) in enumerate(CUES.items()):
            figures = audit_cue(cue.features(facts), labels, parts, seed, bar.update)
            if "recall" in figures:
                figures["recall"] = dict(zip(names, figures["recall"], strict=True))
            cues[name] = {**figures, "advice": cue.advice}
            bar.update(2 * folds * (number + 1) - bar.n)  # a constant cue has no fits
    return cues


def _classifier(seed: int) -> ClassifierMixin:
    forest = ExtraTreesClassifier(
        60,
        min_samples_leaf=3,
        max_features=0.2,
        class_weight="balanced",
        n_jobs=-1,
        random_state=seed,
    )
    linear = make_pipeline(
        StandardScaler(),
        LogisticRegression(C=0.01, max_iter=300, tol=1e-3, class_weight="balanced"),
    )
    return VotingClassifier([("forest", forest), ("linear", linear)], voting="soft")


def _fit_predict(features, labels, train, test, seed) -> np.ndarray:
    model = _classifier(seed).fit(features[train], labels[train])
    return model.predict(features[test])


def _recalls(labels: np.ndarray, predicted: np.ndarray, count: int) -> np.ndarray:
    """Return the share of each label's images that was found; nan without any."""
    total = np.bincount(labels, minlength=count).astype(np.float64)
    right = np.bincount(labels[labels == predicted], minlength=count)
    return np.divide(right, total, out=np.full(count, np.nan), where=total > 0)
