"""A data set whose sources are image transformations, to pre-train a fingerprint on.

Each image of another data set goes through one transformation, which is then its source:
`real` is none. A network that tells them apart has learnt to look at traces of processing
instead of content, without any generator.

References:
    Yang et al., Deepfake Network Architecture Attribution, AAAI 2022,
        https://arxiv.org/abs/2202.13417, section 3.3: 170 transformations of the same
        four families, compression, resampling, blur and noise
"""

import csv
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
from tqdm import tqdm

from rmjax.corruptions import RESHARING, SEVERITIES, corrupt, reshare
from rmjax.data.dataset import REAL, Dataset, Selection, select
from rmjax.data.images import decode_rgb
from rmjax.datasets import image_folder
from rmjax.prepare.manifest import SPLITS

# (key, image float [H, W, 3] in [0, 1]) -> such an image.
Transformation = Callable[[jax.Array, jax.Array], jax.Array]

_COLUMNS = ("path", "label", "dlabel", "source", "semantic", "group", "split")


def transformations() -> dict[str, Transformation]:
    """Return the transformations by name, `real`, which is none, first."""
    by_name: dict[str, Transformation] = {REAL: lambda key, image: image}
    for kind in ("jpeg", "bilinear", "nearest", "blur"):
        for value in RESHARING[kind].values:
            by_name[f"{kind}-{value:g}"] = partial(_reshare, name=kind, value=value)
    for severity in SEVERITIES:
        by_name[f"noise-{severity}"] = partial(
            corrupt, name="gaussian_noise", severity=severity, rounding=True
        )
    return by_name


def prepare(
    dataset: Dataset,
    name: str,
    data_dir: str | Path,
    *,
    sources: Sequence[str] = (),
    semantics: Sequence[str] = (),
    seed: int = 0,
) -> Path:
    """Make the data set `image_folder/<name>` of a data set's images, transformed.

    Args:
        dataset: whose images to take; their splits, semantics and groups stay.
        name: what to call the new one.
        data_dir: the folder that holds all prepared data sets.
        sources: take the images of these alone; empty: of all known ones.
        semantics: likewise. Leave out those that a test is to be of.
        seed: of which image goes through which transformation: as many through each.

    Returns:
        The folder of the data set.

    Raises:
        InputError: an unknown source or semantic, images under 32 px, or what
            `rmjax.datasets.image_folder.prepare` refuses.
    """
    chosen = select(dataset, sources or None, semantics or None)
    with tempfile.TemporaryDirectory() as folder:
        manifest = Path(folder) / "manifest.csv"
        with manifest.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, _COLUMNS)
            writer.writeheader()
            for split in (s for s in SPLITS if s in dataset.split_sizes):
                writer.writerows(_write_split(chosen, split, Path(folder), seed))
        return image_folder.prepare(name, data_dir, manifest=manifest)


def _write_split(
    chosen: Selection, split: str, folder: Path, seed: int
) -> Iterator[dict[str, object]]:
    """Write the images of a split, and yield their rows of the manifest."""
    names, size = list(transformations()), chosen.size(split)
    key = jax.random.fold_in(jax.random.key(seed), SPLITS.index(split))
    rng = np.random.default_rng((seed, SPLITS.index(split)))
    kinds = rng.permutation(np.arange(size) % len(names))
    labels, files = chosen.labels[split], chosen.dataset.files(split)
    (folder / split).mkdir()
    for i in tqdm(range(size), f"transforming {split}", unit="image", delay=1):
        (path, data), kind = files.read([int(chosen.records[split][i])])[0], kinds[i]
        image = jnp.asarray(decode_rgb(data, path), jnp.float32) / 255
        changed = _compiled(names[kind])(jax.random.fold_in(key, i), image)
        pixels = np.round(np.asarray(changed) * 255).astype(np.uint8)
        target = f"{split}/{i:07d}.png"
        Image.fromarray(pixels).save(folder / target)
        semantic = int(labels["semantic"][i])
        yield {
            "path": target,
            "label": int(kind),
            "dlabel": semantic,
            "source": names[kind],
            "semantic": chosen.dataset.semantic_names[semantic],
            "group": int(labels["group"][i]),
            "split": split,
        }


@cache
def _compiled(name: str) -> Transformation:
    return jax.jit(transformations()[name])


def _reshare(key: jax.Array, image: jax.Array, *, name: str, value: float) -> jax.Array:
    return reshare(image, name, value)
