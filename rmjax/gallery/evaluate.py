"""How well a gallery tells sources that a run held out of training, from K images each.

Of test images, K of each source by chance are enrolled and all others asked about,
several times over. Beside it what the same network says with parameters that were never
trained, and what guessing would give.
"""

from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from rmjax.errors import InputError
from rmjax.evaluation.predict import make_runner
from rmjax.experiment import parallel
from rmjax.experiment.build import build_model, network_input
from rmjax.experiment.data import ExperimentData, open_data
from rmjax.gallery.search import REJECT, choose_threshold, neighbours, prototypes
from rmjax.gallery.space import SPACES
from rmjax.inference.attributor import Attributor, load

# Whose images are enrolled and asked about.
SETTINGS = {
    "alone": "held-out sources among themselves",
    "beside": "held-out sources beside the trained ones",
}


def evaluate_gallery(
    workdir: str | Path,
    *,
    ks: Sequence[int] = (1, 5, 10),
    draws: int = 20,
    seed: int = 0,
    data_dir: str | None = None,
) -> dict:
    """Measure galleries of held-out sources, alone and beside the trained ones.

    Args:
        workdir: folder of a run whose config has `data.held_out_sources`.
        ks: how many images of each source are enrolled.
        draws: how many times they are chosen anew.
        seed: of the choices and of the random parameters.
        data_dir: where the data set lies, if not where the run found it.

    Returns:
        A dict ready for JSON: `held_out` and `trained`, test images by source; `draws`,
        `seed`, `reject`; `rows`, each a `setting` of `SETTINGS`, `k`, `features`
        (`trained` or `random`) and `space`, `chance` (`rank1`, `map`), and `mean` and
        `std`, over draws, of the figures of `measure_draw`.

    Raises:
        InputError: no such run or data, fewer than two held-out sources with images, or
            a K that leaves no image of a source to ask about.
    """
    if draws < 1 or not ks or min(ks) < 1:
        raise InputError(f"k = {list(ks)}, draws = {draws}: give at least 1")
    model = load(workdir)
    if data_dir:
        model.config.data.dir = data_dir
    data = open_data(model.config)
    if data.held_out is None or len(data.held_out.source_names) < 2:
        raise InputError(
            f"{workdir} held fewer than two sources out of training: train with "
            "--config.data.held_out_sources=\"('a', 'b')\""
        )
    embedding, source = _embed(model, data, seed)
    names = (*data.held_out.source_names, *data.sources)
    held = np.arange(len(data.held_out.source_names))
    sizes = _check_sizes(names, np.bincount(source, minlength=len(names)), max(ks))
    rows = [
        {"setting": setting, "k": k, "features": features, "space": space}
        | _repeat(directions[chosen], source[chosen], held, k, draws, seed)
        for setting in SETTINGS
        for chosen in [np.isin(source, held) | (setting == "beside")]
        for k in ks
        for (features, space), directions in embedding.items()
    ]
    return {
        "held_out": {n: sizes[n] for n in data.held_out.source_names},
        "trained": {n: sizes[n] for n in data.sources},
        "draws": draws,
        "seed": seed,
        "reject": REJECT,
        "rows": rows,
    }


def measure_draw(
    directions: np.ndarray, source: np.ndarray, held: np.ndarray, enrolled: np.ndarray
) -> dict[str, float | None]:
    """Measure one gallery by all images that are not in it.

    Args:
        directions: of all images, unit vectors float32 `[N, D]`.
        source: of all images, int `[N]`.
        held: the held-out sources.
        enrolled: rows `[M]` of the enrolled images, the same number of each source.

    Returns:
        Of images of held-out sources, each source counting alike: `rank1_neighbours`
        and `rank1_prototypes`, the share whose most similar generator is their own;
        `map`, the mean average precision of the enrolled images of their own source
        among all, by similarity. `trained_rank1`: the first for images of the other
        sources; None without any. At the threshold for `REJECT`, by neighbours:
        `rejected`, the share of held-out sources' images called unknown, and
        `accepted`, the share that is not with their own source left out; None where
        K is 1, which leaves no threshold.
    """
    enrolled = enrolled[np.argsort(source[enrolled], kind="stable")]
    gallery, owner = directions[enrolled], source[enrolled]
    present, starts = np.unique(owner, return_index=True)
    asked = np.setdiff1d(np.arange(len(source)), enrolled)
    queries, truth = directions[asked], source[asked]
    score = neighbours(gallery, starts)
    near, mean = score(queries), prototypes(gallery, starts)(queries)
    own = np.searchsorted(present, truth)
    ours = np.isin(truth, held)

    def share(values: np.ndarray, of: np.ndarray) -> float | None:
        parts = [values[of & (truth == s)].mean() for s in np.unique(truth[of])]
        return float(np.mean(parts)) if parts else None

    threshold = choose_threshold(score, gallery, starts).value
    others = near.copy()
    others[np.arange(len(own)), own] = -np.inf
    known = near.argmax(1) == own
    relevant = owner[None] == truth[:, None]
    return {
        "rank1_neighbours": share(known, ours),
        "rank1_prototypes": share(mean.argmax(1) == own, ours),
        "map": share(average_precision(queries @ gallery.T, relevant), ours),
        "trained_rank1": share(known, ~ours),
        "rejected": None if threshold is None else share(near.max(1) < threshold, ours),
        "accepted": None
        if threshold is None
        else share(others.max(1) >= threshold, ours),
    }


def average_precision(similarity: np.ndarray, relevant: np.ndarray) -> np.ndarray:
    """Return the average precision of each query, `[Q]` in [0, 1].

    The mean, over a query's relevant images, of the share of relevant ones among those
    that rank as high or higher.

    Args:
        similarity: with each enrolled image, `[Q, M]`; ties rank in their order.
        relevant: whether each should be found, bool `[Q, M]`; one at least of each row.
    """
    order = np.argsort(-similarity, axis=1, kind="stable")
    hits = np.take_along_axis(relevant, order, axis=1)
    precision = np.cumsum(hits, axis=1) / np.arange(1, hits.shape[1] + 1)
    return np.sum(precision * hits, axis=1) / hits.sum(1)


def chance(generators: int, k: int) -> dict[str, float]:
    """Return what ranking `k` images of each generator by chance is expected to give.

    `rank1` is one in `generators`. `map`: an image is at each rank alike often, and
    those above it are of its generator as often as the others are.
    """
    images = generators * k
    above = np.arange(images)
    more = (k - 1) / max(images - 1, 1)
    return {
        "rank1": 1 / generators,
        "map": float(np.mean((1 + above * more) / (above + 1))),
    }


def format_gallery_evaluation(results: dict) -> str:
    """Return the figures as lines of text."""
    lines = []
    for setting, title in SETTINGS.items():
        rows = [row for row in results["rows"] if row["setting"] == setting]
        lines += [
            f"{title}; mean and spread (one deviation) of {results['draws']} draws",
            f"{'K':>3} {'features':<9}{'space':<10}{'Rank-1 near':>14}"
            f"{'prototypes':>14}{'mAP':>14}{'trained R-1':>14}{'rejected':>10}"
            f"{'accepted':>10}",
        ]
        for k in dict.fromkeys(row["k"] for row in rows):
            guess = next(row for row in rows if row["k"] == k)["chance"]
            lines.append(
                f"{k:>3} {'chance':<19}{guess['rank1']:>9.3f}     "
                f"{guess['rank1']:>9.3f}     {guess['map']:>9.3f}"
            )
            lines += [_format_row(row) for row in rows if row["k"] == k]
        lines.append("")
    return "\n".join(lines[:-1])


def _format_row(row: dict) -> str:
    mean, std = row["mean"], row["std"]
    line = f"{row['k']:>3} {row['features']:<9}{row['space']:<10}"
    for name in ("rank1_neighbours", "rank1_prototypes", "map", "trained_rank1"):
        figure = "-" if mean[name] is None else f"{mean[name]:.3f} ({std[name]:.3f})"
        line += f"{figure:>14}"
    for name in ("rejected", "accepted"):
        line += f"{'-' if mean[name] is None else format(mean[name], '.2f'):>10}"
    return line


def _repeat(
    directions: np.ndarray,
    source: np.ndarray,
    held: np.ndarray,
    k: int,
    draws: int,
    seed: int,
) -> dict:
    """Measure several draws; those of a greater `k` contain those of a smaller."""
    present = np.unique(source)
    found = []
    for draw in range(draws):
        rng = np.random.default_rng((seed, draw))
        parts = [rng.permutation(np.flatnonzero(source == s))[:k] for s in present]
        found.append(measure_draw(directions, source, held, np.concatenate(parts)))
    values = {
        name: [f[name] for f in found if f[name] is not None] for name in found[0]
    }
    return {
        "chance": chance(len(present), k),
        "mean": {n: float(np.mean(v)) if v else None for n, v in values.items()},
        "std": {n: float(np.std(v)) if v else None for n, v in values.items()},
    }


def _embed(
    model: Attributor, data: ExperimentData, seed: int
) -> tuple[dict[tuple[str, str], np.ndarray], np.ndarray]:
    """Return directions of all test images, by features and space, and their sources.

    Held-out sources are numbered first, then the trained ones.
    """
    runner = make_runner(model.config, len(data.sources), model.devices)
    network = build_model(model.config, len(data.sources))
    like = network_input(model.config)
    zeros = np.zeros(like.shape, like.dtype)
    fresh = jax.jit(network.init)(jax.random.key(seed), zeros)
    parameters = {
        "trained": model.variables,
        "random": parallel.place(dict(fresh), model.devices),
    }
    found = {}
    for features, variables in parameters.items():
        held = runner.predict(variables, (data.held_out, data.held_out_splits))
        seen = runner.predict(variables, (data.seen, ("test",)))
        known = runner.predict(variables, (data.seen, ("val",)))
        embedding = np.concatenate([held.embedding, seen.embedding])
        for name, fit in SPACES.items():
            space = fit(known.embedding, known.source)
            found[features, name] = space.directions(embedding)
    first = len(data.held_out.source_names)
    return found, np.concatenate([held.source, first + seen.source])


def _check_sizes(names: Sequence[str], counts: np.ndarray, most: int) -> dict[str, int]:
    """Return the test images of each source, if they are more than are enrolled."""
    few = [f"{n} ({c})" for n, c in zip(names, counts, strict=True) if c <= most]
    if few:
        raise InputError(
            f"--k {most} leaves no test image to ask about of {', '.join(few)}"
        )
    return dict(zip(names, map(int, counts), strict=True))
