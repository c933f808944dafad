"""A trained run, loaded, to be asked about any images."""

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from rmjax.baselines.networks import Fitted
from rmjax.data.image_files import as_text, read_bytes
from rmjax.data.images import convert_rgb, decode_rgb, resize
from rmjax.errors import InputError
from rmjax.experiment import parallel
from rmjax.experiment.build import (
    build_model,
    build_resize,
    make_eval_step,
    network_input,
    variable_shapes,
)
from rmjax.experiment.checkpoints import load_variables
from rmjax.experiment.run import CHECKPOINTS, load_facts, load_run_config
from rmjax.experiment.step import HEADS
from rmjax.inference.calibration import UNCALIBRATED, Calibration, load_calibration
from rmjax.inference.exported import SHIPPED, digest_of, read_exported
from rmjax.inference.spectra import load_spectra
from rmjax.models.repmix import RepMix
from rmjax.pretrained.addresses import is_address
from rmjax.pretrained.files import WEIGHTS, is_exported, is_run
from rmjax.pretrained.folders import is_transformer
from rmjax.pretrained.hub import download
from rmjax.pretrained.weights import IMAGENET, read_weights
from rmjax.utils.choose import check_choice
from rmjax.utils.files import fetched
from rmjax.utils.places import absolute, as_path, is_remote

# Every input transform and the stages of every network need so many pixels.
MIN_SIDE = 16
# Sides of an image to each other; what is longer is cut at its ends.
MAX_ASPECT = 16

_PATH = str | os.PathLike
_SINGLE = str | os.PathLike | bytes | bytearray | memoryview | Image.Image | Mapping
# Also a file that is open for reading bytes, and what NumPy makes an array of, such as
# an array of JAX.
ImageLike = str | Path | bytes | bytearray | memoryview | Image.Image | np.ndarray


@dataclass(frozen=True)
class Attributor:
    """A trained network with what it needs to read images and name sources.

    Attributes:
        name: what to call it: the folder, the file or the address that it was loaded
            from, or `fingerprint` for the network that ships.
        config: of the run that trained it.
        source_names: the sources it tells apart; the first is `real`. Empty for a
            network that makes fingerprints alone, and for a bare backbone such as
            ImageNet's.
        variables: its parameters and batch statistics, on `devices`.
        devices: where it runs.
        checkpoint: the training step it is of.
        calibration: what turns its logits into probabilities.
        provenance: where converted weights come from, and what is from the Hub; None
            for a run that was trained here.
        training: what its training images are like, see `rmjax.inference.domain`; None where
            that is not known.
        spectra: the mean spectra of its sources, see `rmjax.inference.spectra`; None
            where `rmjax evaluate` has stored none.
        features: what made the features that it was trained on, see
            `rmjax.data.features.FeatureTable.network`; None where that were images.
        extractor: the network that makes them, where it is at hand: images go through it
            first.
    """

    name: str
    config: ConfigDict
    source_names: tuple[str, ...]
    variables: dict
    devices: parallel.Devices
    checkpoint: int
    calibration: Calibration
    provenance: dict | None = None
    training: dict | None = None
    spectra: dict | None = None
    features: dict | None = None
    extractor: "Attributor | None" = None
    _steps: dict = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def model(self) -> RepMix | Fitted:
        """The network itself, a Linen module: `model.apply(variables, inputs)`."""
        return build_model(self.config, len(self.source_names))

    @property
    def layer(self) -> str:
        """The activation that serves as fingerprint where none is named.

        The embedding, unless that is the logits of a classifier of something else.
        """
        layout = (self.provenance or {}).get("layout")
        return "pool" if layout == IMAGENET else "embedding"

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the parameters and batch statistics, in hexadecimal.

        Of a head on features, of those of the network that makes them as well.
        """
        own = digest_of(self.variables)
        if self.extractor is None:
            return own
        return hashlib.sha256(f"{self.extractor.digest} {own}".encode()).hexdigest()

    @property
    def image_config(self) -> ConfigDict:
        """What the config of the network that sees the images says of them."""
        return self.extractor.image_config if self.extractor else self.config.data

    def embed(
        self,
        images: Sequence[ImageLike],
        batch_size: int = 64,
        *,
        layer: str | None = None,
    ) -> np.ndarray:
        """Return the fingerprints of images, float32 `[len(images), 256]`.

        Args:
            images: paths, encoded bytes, images of Pillow, files open for reading, or
                uint8 arrays `[H, W, 3]`, of any sizes.
            batch_size: images that run at once.
            layer: another activation of the network, such as `pool`; maps and tokens
                are averaged over their places, `[len(images), channels]`.

        Raises:
            InputError: one of them can't be read, or there is no such layer.
        """
        layer = layer or self.layer
        return self.run(self._read_all(images), batch_size, layer=layer)[layer]

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

        Raises:
            InputError: an image can't be read, or the network knows no sources.
        """
        if not self.source_names:
            raise InputError(
                f"{self.name} knows no sources, it can only embed; train with "
                "--config.model.init to give it some"
            )
        outputs = self.run(self._read_all(images), batch_size)
        best = outputs["attribution"].argmax(-1)
        return {
            "embedding": outputs["embedding"],
            **self.calibration.probabilities(outputs),
            "source": np.array(self.source_names)[best],
            "calibrated": self.calibration.images > 0,
        }

    def channels(self, layer: str) -> int:
        """Return how many numbers an activation has, averaged over places.

        Raises:
            InputError: there is no such layer.
        """
        size = self.features["size"] if self.features else None
        inputs = network_input(self.config, size)
        outputs = jax.eval_shape(self.model.apply, self.variables, inputs)
        choices = [name for name in outputs if name not in HEADS]
        check_choice("layer", layer, choices)
        return outputs[layer].shape[-1]

    def read(self, image: ImageLike, name: str = "") -> np.ndarray:
        """Decode one image and bring it to the size that the run was evaluated at.

        A smaller image than that stays as it is: the network is convolutional up to
        its pool.

        Args:
            image: as for `embed`.
            name: what error messages call it; a path for itself.

        Returns:
            uint8 `[H, W, 3]`.

        Raises:
            InputError: it can't be read, or has fewer than `MIN_SIDE` pixels a side.
        """
        return resize_and_cut(decode(image, name), self.image_config)

    def run(
        self,
        pixels: Sequence[np.ndarray],
        batch_size: int | Sequence[int] = 64,
        *,
        layer: str | None = None,
    ) -> dict[str, np.ndarray]:
        """Run the network on images that `read` made, of any shapes.

        Args:
            pixels: the images.
            batch_size: images that run at once, at most; or the sizes that batches may
                have, ascending, each of which is compiled once for images of a shape.
            layer: as for `embed`.

        Returns:
            The `layer` (the fingerprint for None) `[N, channels]`; where there are
            heads, the `attribution` and `detection` logits.

        Raises:
            InputError: there is no such layer, or a batch of no images.
        """
        if isinstance(batch_size, int):
            sizes: Sequence[int] = [min(batch_size, max(len(pixels), 1))]
        else:
            sizes = batch_size
        if sizes[0] < 1:
            raise InputError(f"batch size {batch_size}: give at least 1")
        parallel.check_process()
        step = self._step(layer or self.layer)
        if self.extractor is not None and self.features is not None:
            seen = self.features["layer"]
            pixels = [*self.extractor.run(pixels, batch_size, layer=seen)[seen]]
        unit = len(self.devices)
        sizes = [-(-size // unit) * unit for size in sizes]
        results: dict[str, np.ndarray] = {}
        for rows in equal_shapes(pixels, sizes[-1]):
            first = pixels[rows[0]]
            size = next(size for size in sizes if size >= len(rows))
            batch = np.zeros((size, *first.shape), first.dtype)
            batch[: len(rows)] = [pixels[i] for i in rows]
            sharded = parallel.shard({"image": batch}, self.devices)
            outputs = parallel.fetch(step(self.variables, sharded))
            for name, values in outputs.items():
                whole = np.zeros((len(pixels), *values.shape[1:]), values.dtype)
                results.setdefault(name, whole)[rows] = values[: len(rows)]
        return results

    def _read_all(self, images: Sequence[ImageLike]) -> list[np.ndarray]:
        single = (
            getattr(images, "ndim", 4) < 4 and getattr(images, "dtype", "") == np.uint8
        )
        if single or isinstance(images, _SINGLE) or not isinstance(images, Iterable):
            raise InputError(
                f"give a list of images, not a single {type(images).__name__}"
            )
        pixels = [
            self.read(image, "" if isinstance(image, _PATH) else f"image {number}")
            for number, image in enumerate(images)
        ]
        if not pixels:
            raise InputError("no images given")
        return pixels

    def _step(self, layer: str):
        if layer not in self._steps:
            if layer != self.layer:  # that one every network has
                self.channels(layer)
            self._steps[layer] = make_eval_step(
                self.config, len(self.source_names), self.devices, (layer,)
            )
        return self._steps[layer]


def load(
    workdir: str | Path | None = None,
    *,
    checkpoint: str | int = "best",
    num_devices: int | None = None,
) -> Attributor:
    """Load the run in `workdir` to embed and attribute images.

    Args:
        workdir: folder of an `rmjax train` or `rmjax convert`, or of what `rmjax push`
            wrote, or its address `hf:owner/name` on the Hub; None for the network
            `fingerprint` that ships with rmjax, which knows no sources.
        checkpoint: "best" by validation loss, "last", or a step.
        num_devices: devices to use, all for None.

    Raises:
        InputError: there is no such run or checkpoint, or it can't be fetched; or it is
            a head on features, and the network that makes them is not where it was.
    """
    parallel.check_process()
    if workdir is None:
        return _load_exported(SHIPPED, SHIPPED.stem, num_devices, checkpoint)
    if is_address(workdir):
        snapshot = download(workdir)
        if not is_exported(snapshot.folder / WEIGHTS):
            raise InputError(
                f"{workdir}: no run of rmjax, but other weights: `rmjax convert` makes "
                "a run of them"
            )
        model = load(snapshot.folder, checkpoint=checkpoint, num_devices=num_devices)
        return _named(model, workdir, snapshot.provenance)
    run = load_run(workdir, checkpoint=checkpoint, num_devices=num_devices)
    if run.features is None or run.extractor is not None:
        return run
    return replace(run, extractor=_load_extractor(run.name, run.features, num_devices))


def load_run(
    workdir: str | Path,
    *,
    checkpoint: str | int = "best",
    num_devices: int | None = None,
) -> Attributor:
    """Load the run in `workdir` as it was trained: on images, or on stored features.

    Arguments and errors as for `load`, but that no other network is needed.
    """
    parallel.check_process()
    workdir = as_path(workdir)
    if is_exported(workdir / WEIGHTS) and not (workdir / CHECKPOINTS).exists():
        name = absolute(workdir).name
        model = _load_exported(workdir / WEIGHTS, name, num_devices, checkpoint)
        model = replace(model, spectra=load_spectra(workdir))
        newer = load_calibration(workdir, model.checkpoint)  # of `rmjax evaluate` there
        return replace(model, calibration=newer) if newer.images else model
    config = load_run_config(workdir)
    facts = load_facts(workdir)
    names, features = tuple(facts["source_names"]), facts.get("features")
    devices = parallel.choose_devices(num_devices)
    size = features["size"] if features else None
    shapes = variable_shapes(config, len(names), size)
    like = parallel.place_shapes(shapes, devices)
    variables, step = load_variables(workdir / CHECKPOINTS, like, checkpoint)
    return Attributor(
        name=absolute(workdir).name,
        config=config,
        source_names=names,
        variables=variables,
        devices=devices,
        checkpoint=step,
        calibration=load_calibration(workdir, step),
        provenance=facts.get("provenance"),
        training=facts.get("training"),
        spectra=load_spectra(workdir),
        features=features,
    )


def _load_extractor(
    name: str, features: dict[str, Any], num_devices: int | None
) -> Attributor:
    """Load the network whose features a head was trained on.

    Raises:
        InputError: it is not there, or is another one by now.
    """
    path, digest = features["weights"], features["model_sha256"]
    try:
        network = load_pretrained(path, num_devices=num_devices)
        if network.digest != digest:
            raise InputError(f"what is there has SHA-256 {network.digest[:12]}")
    except InputError as error:
        raise InputError(
            f"{name} is a head on features, layer {features['layer']} of the network "
            f"{path or features['model']} with SHA-256 {digest[:12]}, and needs that to "
            f"see images: {error}"
        ) from error
    return network


def load_pretrained(
    path: str | Path | None = None,
    *,
    layout: str = "auto",
    sources: Sequence[str] = (),
    num_devices: int | None = None,
) -> Attributor:
    """Load weights that others trained, or those of a run.

    Args:
        path: a `.pth`, `.ckpt` or `.safetensors` file in one of
            `rmjax.pretrained.weights.LAYOUTS`, or a folder that holds it as
            `model.safetensors`; the folder of a vision transformer, see
            `rmjax.pretrained.folders`; a file of `rmjax export`; a folder or None, as
            for `load`; or the address of one of these on the Hub, `hf:owner/name`.
        layout: of a file; "auto" tells by its content.
        sources: names of a file's classes, see `rmjax.pretrained.weights.read_weights`.
        num_devices: devices to use, all for None.

    Raises:
        InputError: the file or folder can't be read or fetched, or holds another
            network.
    """
    if path is not None and is_address(path):
        snapshot = download(path)
        model = load_pretrained(
            snapshot.folder, layout=layout, sources=sources, num_devices=num_devices
        )
        return _named(model, path, snapshot.provenance)
    if path is None:
        return load(path, num_devices=num_devices)
    path = as_path(path)
    if is_remote(path) and path.is_file():
        with fetched(path) as file:
            return load_pretrained(
                file, layout=layout, sources=sources, num_devices=num_devices
            )
    if is_run(path) and not is_transformer(path):
        return load(path, num_devices=num_devices)
    if is_remote(path):
        raise InputError(
            f"{path}: no run; weights that others trained are read from files, and from "
            "folders of this machine"
        )
    parallel.check_process()
    if layout == "auto" and not sources and path.is_file() and is_exported(path):
        return _load_exported(path, path.name, num_devices)
    weights = read_weights(path, layout=layout, sources=sources)
    devices = parallel.choose_devices(num_devices)
    return Attributor(
        name=path.name,
        config=weights.config,
        source_names=weights.source_names,
        variables=parallel.place(weights.variables, devices),
        devices=devices,
        checkpoint=0,
        calibration=UNCALIBRATED,
        provenance=weights.provenance,
    )


def _named(
    model: Attributor, address: str | Path, provenance: dict[str, str]
) -> Attributor:
    """Say of a network from the Hub where it is from."""
    provenance = (model.provenance or {}) | provenance
    return replace(model, name=str(address), provenance=provenance)


def _load_exported(
    path: Path, name: str, num_devices: int | None, checkpoint: str | int = "best"
) -> Attributor:
    fields = read_exported(path)
    if str(checkpoint) not in ("best", str(fields["checkpoint"])):
        raise InputError(
            f"checkpoint '{checkpoint}': {name} has one alone, {fields['checkpoint']}"
        )
    devices = parallel.choose_devices(num_devices)
    return _placed({"name": name} | fields, devices)


def _placed(fields: dict[str, Any], devices: parallel.Devices) -> Attributor:
    variables = parallel.place(fields["variables"], devices)
    if fields["extractor"]:
        fields = fields | {"extractor": _placed(fields["extractor"], devices)}
    return Attributor(**fields | {"variables": variables, "devices": devices})


def decode(image: ImageLike, name: str = "") -> np.ndarray:
    """Return an image's pixels at its own size, uint8 `[H, W, 3]`.

    Raises:
        InputError: it can't be read, is an array of another kind, or has fewer than
            `MIN_SIDE` pixels a side; `name`, or its path, is in the message.
    """
    if isinstance(image, _PATH):
        name = name or as_text(image)
        image = read_bytes(image, name)
    name = name or "image"
    if hasattr(image, "read"):
        image = image.read()
    if isinstance(image, bytes | bytearray | memoryview):
        pixels = decode_rgb(bytes(image), name)
    elif isinstance(image, Image.Image):
        pixels = convert_rgb(image, name)
    else:
        pixels = _check_array(image, name)
    height, width = pixels.shape[:2]
    if min(height, width) < MIN_SIDE:
        raise InputError(
            f"{name}: {width}x{height} px is too small, give at least {MIN_SIDE} a side"
        )
    return pixels


def _check_array(image: Any, name: str) -> np.ndarray:
    kind = type(image).__name__
    if not hasattr(image, "__array__"):
        raise InputError(
            f"{name}: {kind} is no image: give a path, encoded bytes, an image of Pillow, "
            "or a uint8 array [H, W, 3]"
        )
    try:
        array = np.asarray(image)
    except Exception as error:  # of other libraries: arrays on a device, say
        raise InputError(f"{name}: no array of NumPy from {kind} ({error})") from error
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[-1] != 3:
        raise InputError(
            f"{name}: an image array must be uint8 [H, W, 3], not {array.dtype} "
            f"{list(array.shape)} ({kind}); scale floats to 0..255, and give grey or "
            "transparent ones as an image of Pillow"
        )
    return array


def resize_and_cut(image: np.ndarray, data: ConfigDict) -> np.ndarray:
    """Bring pixels `[H, W, 3]` to the size that a run is evaluated at, or smaller."""
    image = cut_ends(image)
    resizing = build_resize(data, data.eval_resize)
    if resizing is not None:
        image = resize(image, resizing)
    cut = _middle(image, data.eval_size)
    # A view would keep the whole of a large photograph in memory.
    return cut.copy() if cut.size < image.size else cut


def shown_box(shape: tuple[int, int], data: ConfigDict) -> list[float]:
    """Say which part of an image `resize_and_cut` shows the network.

    Args:
        shape: height and width of the image.
        data: as there.

    Returns:
        Left, top, right and bottom, in pixels of the image.
    """
    kept = [min(n, MAX_ASPECT * min(shape)) for n in shape]  # as of `cut_ends`
    resizing = build_resize(data, data.eval_resize)
    if resizing is None:
        scales = [1.0, 1.0]
    elif resizing.squash:
        scales = [resizing.side / n for n in kept]
    else:
        scales = [resizing.side / min(kept)] * 2
    height, width = (
        min(n, data.eval_size / scale) for n, scale in zip(kept, scales, strict=True)
    )
    top, left = (shape[0] - height) / 2, (shape[1] - width) / 2
    return [left, top, left + width, top + height]


def cut_ends(image: np.ndarray) -> np.ndarray:
    """Cut the ends off an image that is longer than `MAX_ASPECT` allows.

    Scaling would make it huge, and JPEG files hold no more than 65,535 pixels a side.
    """
    return _middle(image, MAX_ASPECT * min(image.shape[:2]))


def _middle(image: np.ndarray, most: int) -> np.ndarray:
    """Cut an image so that no side is longer than `most`."""
    height, width = (min(n, most) for n in image.shape[:2])
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return image[top : top + height, left : left + width]


def equal_shapes(pixels: Sequence[np.ndarray], batch_size: int) -> Iterator[list[int]]:
    """Yield the row numbers of batches whose images have one shape."""
    by_shape = defaultdict(list)
    for row, image in enumerate(pixels):
        by_shape[image.shape].append(row)
    for rows in by_shape.values():
        for start in range(0, len(rows), batch_size):
            yield rows[start : start + batch_size]
