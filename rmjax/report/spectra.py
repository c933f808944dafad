"""A picture of what generators leave in the spectra of their images, to be looked at."""

from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from tqdm import tqdm

from rmjax.data.dataset import Dataset, choose_evenly, select
from rmjax.data.images import centre, decode_rgb
from rmjax.datasets.attribution_mini import images as scenes
from rmjax.errors import InputError
from rmjax.inference.spectra import IMAGES, levels, mean_power
from rmjax.inputs import to_unit
from rmjax.report.figures import short
from rmjax.report.preview import save_sheet
from rmjax.simulate import simulate

COLUMNS = 8
_AT_ONCE = 4


def preview_generators(
    out_file: str | Path,
    *,
    count: int = 24,
    datasets: Sequence[Dataset] = (),
    size: int = 128,
    seed: int = 0,
    show_progress: bool = True,
) -> None:
    """Draw the mean residual spectra of simulated generators, and of real ones.

    A tile each, the lowest frequency in its middle. All generators render the same
    simulated scenes; first comes what their camera leaves.

    Args:
        out_file: the PNG to write.
        count: simulated generators.
        datasets: prepared ones, whose sources are drawn below.
        size: side in pixels of the images, or of the middle of larger ones.
        seed: of the scenes and the generators.
        show_progress: whether to draw a bar.

    Raises:
        InputError: a number out of range, or a source without an image of that size.
    """
    if count < 0 or size < 32 or size % 16:
        raise InputError(
            "give 0 generators or more, and a size that is a multiple of 16 from 32 on; "
            f"got {count} and {size}"
        )
    pictures = _draw_scenes(size, seed)
    tiles = {"camera": _mean_spectrum(pictures)}
    root = jax.random.key(seed)
    for number in tqdm(range(count), desc="generators", disable=not show_progress):
        images = _simulate(jax.random.fold_in(root, number), pictures)
        tiles[f"simulated {number + 1}"] = _mean_spectrum(images)
    for dataset in datasets:
        for source in dataset.source_names:
            tiles[source] = _mean_spectrum(_read(dataset, source, size, seed))
    save_sheet(_draw(tiles), out_file)


def _draw_scenes(size: int, seed: int) -> np.ndarray:
    """Draw photographs of simulated scenes, uint8 `[IMAGES, size, size, 3]`."""
    settings = scenes.Settings(seed=seed, size=size, entanglement=0.0)
    each = -(-IMAGES // len(scenes.SEMANTICS))
    blocks = [
        scenes.draw_block("real", semantic, 0, settings)[:each]
        for semantic in scenes.SEMANTICS
    ]
    return np.concatenate(blocks)[:IMAGES]


def _simulate(key: jax.Array, pictures: np.ndarray) -> np.ndarray:
    keys = jax.random.split(jax.random.fold_in(key, 1), len(pictures))
    parts = [
        _simulate_part(key, keys[i : i + _AT_ONCE], pictures[i : i + _AT_ONCE])
        for i in range(0, len(pictures), _AT_ONCE)
    ]
    return np.concatenate(parts)


@jax.jit
def _simulate_part(key: jax.Array, keys: jax.Array, pictures: jax.Array) -> jax.Array:
    return jnp.round(simulate(key, keys, to_unit(pictures)) * 255).astype(jnp.uint8)


def _read(dataset: Dataset, source: str, size: int, seed: int) -> np.ndarray:
    """Read the middles of a source's images, as many as `IMAGES`, of any split."""
    chosen = select(dataset, (source,))
    found: list[np.ndarray] = []
    for split, numbers in chosen.records.items():
        rows = choose_evenly(np.zeros(len(numbers), int), IMAGES - len(found), seed)
        for name, data in dataset.files(split).read([int(numbers[i]) for i in rows]):
            image = decode_rgb(data, name)
            if min(image.shape[:2]) >= size:
                found.append(centre(image, size))
    if not found:
        raise InputError(
            f"{dataset.directory}: no image of source {source!r} has {size} x {size} px; "
            "give a smaller --size"
        )
    return np.stack(found)


def _mean_spectrum(images: np.ndarray) -> np.ndarray:
    """Return the levels of the mean spectrum of images, as they are drawn."""
    return np.fft.fftshift(levels(np.asarray(mean_power(images))))


def _draw(tiles: dict[str, np.ndarray]) -> Figure:
    rows = -(-len(tiles) // COLUMNS)
    figure = Figure(figsize=(1.2 * COLUMNS, 1.4 * rows), layout="constrained")
    axes = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
    low, high = np.quantile(np.stack(list(tiles.values())), (0.01, 0.998))
    for axis in axes:
        axis.axis("off")
    for axis, (name, tile) in zip(axes, tiles.items(), strict=False):
        axis.imshow(tile, vmin=low, vmax=high, cmap="magma")
        axis.set_title(short(name), size=7, pad=2)
    return figure
