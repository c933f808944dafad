"""A trained run, loaded, to be asked about any images."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from rmjax import parallel
from rmjax.checkpoints import load_variables
from rmjax.data.images import decode_rgb, resize_shorter
from rmjax.errors import InputError
from rmjax.evaluation.calibration import Calibration, load_calibration
from rmjax.experiment import build_model, make_eval_step, network_input
from rmjax.run import CHECKPOINTS, load_config, load_source_names

ImageLike = str | Path | bytes | np.ndarray


@dataclass(frozen=True)
class Attributor:
    """A trained network with what it needs to read images and name sources.

    Attributes:
        config: of the run that trained it.
        source_names: the sources it tells apart; the first is `real`.
        variables: its parameters and batch statistics, on `devices`.
        devices: where it runs.
        checkpoint: the training step it is of.
        calibration: what turns its logits into probabilities.
    """

    config: ConfigDict
    source_names: tuple[str, ...]
    variables: dict
    devices: parallel.Devices
    checkpoint: int
    calibration: Calibration

    def embed(self, images: Sequence[ImageLike], batch_size: int = 64) -> np.ndarray:
        """Return the fingerprints of images, float32 `[len(images), 256]`.

        Args:
            images: paths, encoded bytes, or uint8 arrays `[H, W, 3]`, of any sizes.
            batch_size: images that run at once.

        Raises:
            InputError: one of them can't be read.
        """
        return self._run(images, batch_size)["embedding"]

    def predict(
        self, images: Sequence[ImageLike], batch_size: int = 64
    ) -> dict[str, np.ndarray | bool]:
        """Return what the network says of each image; arguments as for `embed`.

        Returns:
            `embedding` `[N, 256]`; `attribution`, the probability of each source
            `[N, num_sources]`; `detection`, the probabilities of real and synthetic
            `[N, 2]`, were both equally likely before; `source`, the name of the most
            probable source `[N]`; `calibrated`, whether these probabilities are (a run
            is calibrated when it is evaluated).
        """
        outputs = self._run(images, batch_size)
        best = outputs["attribution"].argmax(-1)
        synthetic = self.calibration.detect(outputs["detection"])
        return {
            "embedding": outputs["embedding"],
            "attribution": self.calibration.attribute(outputs["attribution"]),
            "detection": np.stack([1 - synthetic, synthetic], axis=-1),
            "source": np.array(self.source_names)[best],
            "calibrated": self.calibration.images > 0,
        }

    @cached_property
    def _step(self):
        return make_eval_step(self.config, len(self.source_names), self.devices)

    def _run(self, images: Sequence[ImageLike], batch_size: int) -> dict:
        if isinstance(images, str | bytes | Path):
            raise InputError("give a list of images, not a single one")
        pixels = [_read(image, self.config) for image in images]
        if not pixels:
            raise InputError("no images given")
        unit = len(self.devices)
        batch_size = -(-min(batch_size, len(pixels)) // unit) * unit
        results = {}
        for rows in _equal_shapes(pixels, batch_size):
            batch = np.zeros((batch_size, *pixels[rows[0]].shape), np.uint8)
            batch[: len(rows)] = [pixels[i] for i in rows]
            sharded = parallel.shard({"image": batch}, self.devices)
            outputs = parallel.fetch(self._step(self.variables, sharded))
            for name, values in outputs.items():
                whole = np.zeros((len(pixels), *values.shape[1:]), values.dtype)
                results.setdefault(name, whole)[rows] = values[: len(rows)]
        return results


def load(
    workdir: str | Path,
    *,
    checkpoint: str | int = "best",
    num_devices: int | None = None,
) -> Attributor:
    """Load the run in `workdir` to embed and attribute images.

    Args:
        workdir: folder of an `rmjax train`.
        checkpoint: "best" by validation loss, "last", or a step.
        num_devices: devices to use, all for None.

    Raises:
        InputError: there is no such run or checkpoint.
    """
    workdir = Path(workdir)
    config = load_config(workdir)
    names = tuple(load_source_names(workdir))
    devices = parallel.choose_devices(num_devices)
    model = build_model(config, len(names))
    shapes = jax.eval_shape(model.init, jax.random.key(0), network_input(config))
    like = parallel.place_shapes(shapes, devices)
    variables, step = load_variables(workdir / CHECKPOINTS, like, checkpoint)
    calibration = load_calibration(workdir, step)
    return Attributor(config, names, variables, devices, step, calibration)


def _read(image: ImageLike, config: ConfigDict) -> np.ndarray:
    """Decode one image and bring it to the size that the run was evaluated at.

    A smaller image than that stays as it is: the network is convolutional up to
    its pool.
    """
    if isinstance(image, str | Path):
        try:
            image = decode_rgb(Path(image).read_bytes(), str(image))
        except OSError as error:
            raise InputError(f"{image}: {error.strerror}") from error
    elif isinstance(image, bytes):
        image = decode_rgb(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3:
        raise InputError(
            f"an image array must be uint8 [H, W, 3], not {image.dtype} "
            f"{list(image.shape)}"
        )
    if config.data.eval_resize:
        image = resize_shorter(image, config.data.eval_resize)
    height, width = (min(n, config.data.eval_size) for n in image.shape[:2])
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return image[top : top + height, left : left + width]


def _equal_shapes(pixels: list[np.ndarray], batch_size: int) -> Iterator[list[int]]:
    """Yield the row numbers of batches whose images have one shape."""
    by_shape = defaultdict(list)
    for row, image in enumerate(pixels):
        by_shape[image.shape].append(row)
    for rows in by_shape.values():
        for start in range(0, len(rows), batch_size):
            yield rows[start : start + batch_size]
