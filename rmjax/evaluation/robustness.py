"""Suites of corruptions that a run is evaluated under, and the corrupted images.

A corrupted image depends on the image, the corruption and the image's number in its
split alone: not on the batch, the devices, or the run that is evaluated.
"""

import hashlib
import json
import os
import platform
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from rmjax.corruptions import (
    NAMES,
    RESHARING,
    SEEN,
    SEVERITIES,
    UNSEEN,
    check_resharing,
    corrupt,
    reshare,
)
from rmjax.corruptions.dispatch import map_images
from rmjax.data.dataset import Selection
from rmjax.errors import InputError
from rmjax.evaluation.results import SETS
from rmjax.experiment import parallel
from rmjax.experiment.build import build_resize, corruption_options
from rmjax.inputs import to_unit
from rmjax.utils.places import local_path, state_of
from rmjax.utils.revision import revision

# What corrupted images depend on beside the image files: code, and libraries.
IMAGE_CODE = (
    "rmjax.corruptions",
    "rmjax.data",
    "rmjax.inputs",
    "rmjax.evaluation.robustness",
)
IMAGE_LIBRARIES = ("jax", "jaxlib", "numpy", "Pillow", "simplejpeg", "imagecodecs")


@dataclass(frozen=True)
class Condition:
    """What happens to images before the network sees them.

    Attributes:
        name: one of the 19 corruptions, a kind of resharing, or "clean".
        value: severity, or the resharing's value; 0 for "clean".
    """

    name: str
    value: float

    def __str__(self) -> str:
        return self.name if self == CLEAN else f"{self.name}:{self.value}"

    @property
    def set(self) -> str:
        """Return which of the `SETS` it belongs to."""
        return next(name for name, kinds in SET_KINDS.items() if self.name in kinds)


CLEAN = Condition("clean", 0)
SET_KINDS = dict(
    zip(SETS, ((CLEAN.name,), SEEN, UNSEEN, tuple(RESHARING)), strict=True)
)


def _grid(names: tuple[str, ...]) -> tuple[Condition, ...]:
    return tuple(Condition(name, value) for name in names for value in SEVERITIES)


SUITES: dict[str, tuple[Condition, ...]] = {
    "clean": (CLEAN,),
    "seen": (CLEAN, *_grid(SEEN)),
    "unseen": (CLEAN, *_grid(UNSEEN)),
    "resharing": (
        CLEAN,
        *(Condition(name, v) for name, kind in RESHARING.items() for v in kind.values),
    ),
}
SUITES["full"] = tuple(
    dict.fromkeys((*SUITES["seen"], *SUITES["unseen"], *SUITES["resharing"]))
)

# What may stand before a value.
KINDS: dict[str, tuple[str, ...]] = {kind: (kind,) for kind in (*NAMES, *RESHARING)}
KINDS |= {"seen": SEEN, "unseen": UNSEEN}


def parse_suite(text: str) -> tuple[Condition, ...]:
    """Return the conditions of a suite, or of a list such as `unseen,fog:3,jpeg:75`.

    Clean images always come first. A name without a value stands for all its usual
    ones, and `seen:1` for all seen corruptions at severity 1.

    Raises:
        InputError: an unknown name, or a value out of range.
    """
    conditions = [CLEAN]
    for part in text.replace(" ", "").split(","):
        name = part.partition(":")[0]
        if part in SUITES:
            conditions += SUITES[part]
            continue
        if name not in KINDS:
            raise InputError(
                f"suite: unknown '{part}': choose {', '.join(SUITES)}, or list kinds as "
                f"NAME:VALUE,... of {', '.join(KINDS)}"
            )
        for kind in KINDS[name]:
            conditions += [Condition(kind, v) for v in _values(part, kind)]
    return tuple(dict.fromkeys(conditions))


def _values(part: str, kind: str) -> Iterator[float]:
    """Yield the values that a part of a suite, such as `fog:3`, names of a kind."""
    _, given, text = part.partition(":")
    if not given:
        yield from SEVERITIES if kind in NAMES else RESHARING[kind].values
        return
    try:
        value = float(text)
    except ValueError as error:
        raise InputError(f"suite: '{part}' is not NAME:VALUE") from error
    if kind in RESHARING:
        check_resharing(kind, value)
    elif value not in SEVERITIES:
        raise InputError(f"suite: severity of {kind}:{text} is not in 1..5")
    yield int(value) if value.is_integer() else value


def check_conditions(config: ConfigDict, conditions: Sequence[Condition]) -> None:
    """Check that what a config evaluates on can be brought under these conditions.

    Raises:
        InputError: stored features are to be corrupted.
    """
    if config.data.features and tuple(conditions) != (CLEAN,):
        raise InputError(
            f"suite: {conditions[-1]}: stored features are no images that could be "
            "corrupted; evaluate them clean, or train on the images"
        )


class Corrupter:
    """Turns sharded evaluation batches into corrupted ones, on their devices."""

    def __init__(
        self,
        config: ConfigDict,
        devices: parallel.Devices,
        cache_dir: str | Path | None = None,
    ):
        self._config = config
        self._devices = devices
        self._cache_dir = local_path(cache_dir) if cache_dir else None
        self._step = cache(self._compile)
        if self._cache_dir:
            _check_writable(self._cache_dir)

    def __call__(
        self, condition: Condition, batch: dict, file: Path | None = None
    ) -> jax.Array:
        """Return a batch's images under a condition, uint8, where the batch is.

        Args:
            condition: what happens to them.
            batch: `image`, `index` and `split` (the split's place in the data set), as
                `parallel.shard` leaves them.
            file: from `cache_file`: keeps the images, or has them from before.
        """
        if condition == CLEAN:
            return batch["image"]
        if file is not None and file.is_file():
            return parallel.shard(np.load(file), self._devices)
        static = 0 if condition.name in NAMES else condition.value
        step = self._step(condition.name, static)
        images = step(jnp.int32(condition.value), batch)
        if file is not None:
            _save(file, parallel.fetch(images))
        return images

    def cache_folder(
        self, selection: Selection, splits: tuple[str, ...], batch_size: int
    ) -> Path | None:
        """Say where the cache keeps the batches of these images; None without one."""
        if self._cache_dir is None:
            return None
        dataset = selection.dataset
        described = {
            "code": revision(IMAGE_CODE, IMAGE_LIBRARIES),
            "batch_size": batch_size,
            "part": (jax.process_index(), jax.process_count()),
            "size": self._config.data.eval_size,
            "resize": build_resize(self._config.data, self._config.data.eval_resize),
            "glass_swap": self._config.corrupt.glass_swap,
            "frost": describe_folder(self._config.corrupt.frost_dir),
            "dataset": dataset.directory.parts[-3:],
            "prepared": state_of(dataset.directory / "dataset_info.json"),
            "sources": selection.source_names,
            "semantics": selection.semantic_names,
            "splits": splits,
        }
        digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
        for split in splits:
            digest.update(selection.records[split].astype(np.int64).tobytes())
        name = f"{dataset.directory.parent.name}-{digest.hexdigest()[:12]}"
        return self._cache_dir / name

    def _compile(self, name: str, value: float) -> Callable:
        if name in RESHARING:
            step = partial(_reshare_batch, name=name, value=value)
        else:
            options = corruption_options(self._config, self._config.data.eval_size)
            options["rounding"] = True  # what comes out is stored in 8 bits
            step = partial(_corrupt_batch, name=name, options=options)
        return parallel.map_examples(step, self._devices)


def cache_file(folder: Path | None, condition: Condition, number: int) -> Path | None:
    """Name the file of a batch's images under a condition; None without a folder."""
    if folder is None or condition == CLEAN:
        return None
    return folder / str(condition).replace(":", "-") / f"{number:06d}.npy"


def describe_folder(folder: str) -> list[tuple[str, int]]:
    """List a folder's files and when they changed; nothing for no folder."""
    files = sorted(local_path(folder).glob("*")) if folder else []
    return [(str(file), file.stat().st_mtime_ns) for file in files]


def _check_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(f"can't write to {folder}: {error.strerror}") from error


def kind_key(name: str, seed: int = 0) -> jax.Array:
    """Return the random key of a kind of corruption, by its name alone.

    By its place among the others a new kind would change the draws of those after it.
    """
    return jax.random.fold_in(jax.random.key(seed), zlib.crc32(name.encode()))


def _corrupt_batch(
    severity: jax.Array, batch: dict[str, jax.Array], *, name: str, options: dict
) -> jax.Array:
    """Corrupt one replica's uint8 images, each by a key of its split and number."""
    key = jax.random.fold_in(kind_key(name), severity)
    keys = jax.vmap(partial(jax.random.fold_in, key))(batch["split"])
    keys = jax.vmap(jax.random.fold_in)(keys, batch["index"])

    def one(image: jax.Array, key: jax.Array) -> jax.Array:
        return corrupt(key, image, name, severity, **options)

    return _to_8bit(map_images(one, to_unit(batch["image"]), keys))


def _reshare_batch(
    severity: jax.Array, batch: dict[str, jax.Array], *, name: str, value: float
) -> jax.Array:
    return _to_8bit(reshare(to_unit(batch["image"]), name, value))


def _to_8bit(images: jax.Array) -> jax.Array:
    return jnp.round(images * 255).astype(jnp.uint8)


def _save(file: Path, images: np.ndarray) -> None:
    """Write images whole or not at all."""
    scratch = file.with_suffix(f".{platform.node()}.{os.getpid()}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with scratch.open("wb") as stream:
            np.save(stream, images)
        scratch.replace(file)
    except OSError as error:
        raise InputError(f"can't write to {file.parent}: {error.strerror}") from error
    finally:
        scratch.unlink(missing_ok=True)
