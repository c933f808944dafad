"""How well a gallery tells sources that a run held out of training, from K images each.

Of test images, K of each source by chance are enrolled and all others asked about,
several times over. Beside it what the same network says with parameters that were never
trained, and what guessing would give.
"""

from collections.abc import Sequence
from itertools import product
from pathlib import Path

import jax
import numpy as np

from rmjax.errors import InputError
from rmjax.evaluation.predict import Part, make_runner
from rmjax.experiment import parallel
from rmjax.experiment.build import build_model, network_input
from rmjax.experiment.data import ExperimentData, open_data
from rmjax.gallery.search import REJECT, choose_threshold, neighbours, prototypes
from rmjax.gallery.store import SPACES
from rmjax.inference.attributor import Attributor, load_run
from rmjax.utils.checks import check_at_least
from rmjax.utils.table import format_table

# Whose images are enrolled and asked about.
SETTINGS = {
    "alone": "held-out sources among themselves",
    "beside": "held-out sources beside the trained ones",
}
# The figures of `measure_draw`, and what they are called in the table.
COLUMNS = {
    "rank1_neighbours": "Rank-1 near",
    "rank1_prototypes": "prototypes",
    "map": "mAP",
    "trained_rank1": "trained R-1",
    "rejected": "rejected",
    "accepted": "accepted",
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
    check_at_least(1, k=min(ks, default=0), draws=draws)
    model = load_run(workdir)
    if data_dir:
        model.config.data.dir = data_dir
    data = open_data(model.config)
    if data.held_out is None or len(data.held_out.source_names) < 2:
        raise InputError(
            f"{workdir} held fewer than two sources out of training: train with "
            "--config.data.held_out_sources=\"('a', 'b')\""
        )
    held_out = data.held_out, data.held_out_splits
    directions, source = _embed(model, data, held_out, seed)
    held_names = data.held_out.source_names
    names = (*held_names, *data.sources)
    counts = np.bincount(source, minlength=len(names)).tolist()
    sizes = dict(zip(names, counts, strict=True))
    few = [f"{name} ({size})" for name, size in sizes.items() if size <= max(ks)]
    if few:
        raise InputError(
            f"--k {max(ks)} leaves no test image to ask about of {', '.join(few)}"
        )
    held = np.arange(len(held_names))
    rows = []
    for setting in SETTINGS:
        chosen = np.isin(source, held) | (setting == "beside")
        for k, ((features, space), units) in product(ks, directions.items()):
            row = {"setting": setting, "k": k, "features": features, "space": space}
            rows.append(
                row | _repeat(units[chosen], source[chosen], held, k, draws, seed)
            )
    return {
        "held_out": {name: sizes[name] for name in held_names},
        "trained": {name: sizes[name] for name in data.sources},
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
        means = [values[of & (truth == s)].mean() for s in np.unique(truth[of])]
        return float(np.mean(means)) if means else None

    others = near.copy()
    others[np.arange(len(own)), own] = -np.inf
    right = near.argmax(1) == own
    relevant = owner[None] == truth[:, None]
    figures = {
        "rank1_neighbours": share(right, ours),
        "rank1_prototypes": share(mean.argmax(1) == own, ours),
        "map": share(average_precision(queries @ gallery.T, relevant), ours),
        "trained_rank1": share(right, ~ours),
        "rejected": None,
        "accepted": None,
    }
    threshold = choose_threshold(score, gallery, starts).value
    if threshold is not None:
        figures["rejected"] = share(near.max(1) < threshold, ours)
        figures["accepted"] = share(others.max(1) >= threshold, ours)
    return figures


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
        lines.append(
            f"{title}; mean and spread (one deviation) of {results['draws']} draws"
        )
        table = {}
        for row in results["rows"]:
            if row["setting"] == setting:
                k, guess = row["k"], row["chance"]
                # Under the means, not under the deviations beside them.
                rank1, precision = (f"{guess[n]:.3f}{'':8}" for n in ("rank1", "map"))
                table[f"{k:>3} chance"] = {
                    "rank1_neighbours": rank1,
                    "rank1_prototypes": rank1,
                    "map": precision,
                }
                table[f"{k:>3} {row['features']}, {row['space']}"] = _texts(row)
        columns = {title: (name, "") for name, title in COLUMNS.items()}
        lines += [*format_table("  K features, space", columns, table), ""]
    return "\n".join(lines[:-1])


def _texts(row: dict) -> dict[str, str]:
    texts = {}
    for name in COLUMNS:
        mean, deviation = row["mean"][name], row["std"][name]
        if mean is None:
            texts[name] = "-"
        elif name in ("rejected", "accepted"):
            texts[name] = f"{mean:.2f}"
        else:
            texts[name] = f"{mean:.3f} ({deviation:.3f})"
    return texts


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
    measured = []
    for draw in range(draws):
        rng = np.random.default_rng((seed, draw))
        enrolled = [rng.permutation(np.flatnonzero(source == s))[:k] for s in present]
        measured.append(
            measure_draw(directions, source, held, np.concatenate(enrolled))
        )
    mean: dict[str, float | None] = {}
    std: dict[str, float | None] = {}
    for name in measured[0]:
        values = [f for figures in measured if (f := figures[name]) is not None]
        mean[name] = float(np.mean(values)) if values else None
        std[name] = float(np.std(values)) if values else None
    return {"chance": chance(len(present), k), "mean": mean, "std": std}


def draw_variables(model: Attributor, seed: int) -> dict:
    """Return random variables of a network, as before its training, on its devices."""
    network = build_model(model.config, len(model.source_names))
    like = network_input(model.config)
    zeros = np.zeros(like.shape, like.dtype)
    fresh = jax.jit(network.init)(jax.random.key(seed), zeros)
    return parallel.place(dict(fresh), model.devices)


def _embed(
    model: Attributor, data: ExperimentData, held_out: Part, seed: int
) -> tuple[dict[tuple[str, str], np.ndarray], np.ndarray]:
    """Return directions of all test images, by features and space, and their sources.

    Held-out sources are numbered first, then the trained ones.
    """
    runner = make_runner(model.config, len(data.sources), model.devices)
    parameters = {"trained": model.variables, "random": draw_variables(model, seed)}
    directions = {}
    for features, variables in parameters.items():
        held = runner.predict(variables, held_out)
        seen = runner.predict(variables, (data.seen, ("test",)))
        known = runner.predict(variables, (data.seen, ("val",)))
        embedding = np.concatenate([held.embedding, seen.embedding])
        for name, fit in SPACES.items():
            space = fit(known.embedding, known.source)
            directions[features, name] = space.directions(embedding)
    first = len(held_out[0].source_names)
    return directions, np.concatenate([held.source, first + seen.source])
