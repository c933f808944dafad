"""A network that many ask at once: decoding in a pool, the network in one thread."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import numpy as np
from starlette.exceptions import HTTPException

from rmjax.data.image_files import ImageFile
from rmjax.data.images import open_image
from rmjax.errors import InputError
from rmjax.gallery import attribute as by_gallery
from rmjax.gallery.ask import Asker
from rmjax.inference.attribute import (
    Judge,
    Reading,
    conclude,
    describe_model,
    judge,
    read_views,
)
from rmjax.inference.attributor import Attributor
from rmjax.inference.explain import explain
from rmjax.serve.device import Device
from rmjax.serve.limits import Limits
from rmjax.serve.metrics import Metrics
from rmjax.serve.shelf import NotEnrolled, Shelf
from rmjax.utils.locks import Busy
from rmjax.utils.processes import cores

TOP = 5  # generators that are listed, as of `rmjax attribute`

T = TypeVar("T")


class Service:
    """Answers about images.

    Args:
        model: the network.
        shelf: its gallery; None where there is none. A network without sources needs one.
        limits: of requests.
    """

    def __init__(self, model: Attributor, shelf: Shelf | None, limits: Limits):
        self.model = model
        self.limits = limits
        self.metrics = Metrics()
        self._shelf = shelf
        self._device = Device(model, self.metrics.batches.observe)
        self._pool = ThreadPoolExecutor(cores(), "read")

    def warm_up(self) -> None:
        """Compile the network before the first request has to wait for it."""
        self._device.warm_up()

    def close(self) -> None:
        """End the threads, when what was asked for is done."""
        self._pool.shutdown()
        self._device.close()

    async def describe(self) -> dict[str, Any]:
        """Return which network it is, and what can be asked, see `schemas.Model`."""
        limits = self.limits
        return describe_model(self.model) | {
            "sources": list(self.model.source_names),
            "gallery": _describe_gallery(await self._asker()),
            "limits": {
                "bytes": limits.max_bytes,
                "pixels": limits.max_pixels,
                "images": limits.max_images,
            },
            "explains": True,
        }

    async def attribute(self, files: Sequence[ImageFile]) -> dict[str, Any]:
        """Return the document of `rmjax attribute --json`, see `schemas.Answers`.

        Raises:
            HTTPException: the network has no sources, and nothing is enrolled.
        """
        asker = await self._asker()
        to_answer = self._judge(asker)

        async def answer(file: ImageFile) -> dict[str, Any]:
            reading = await self._in_pool(self._read_views, file)
            outputs = {}
            if reading.views:
                outputs = await asyncio.wrap_future(self._device.run(reading.views))
            return await self._in_pool(conclude, reading, outputs, to_answer)

        images = await self._for_each(answer, files)
        gallery = {"gallery": _describe_gallery(asker)} if asker else {}
        return {"model": describe_model(self.model), **gallery, "images": images}

    async def embed(self, files: Sequence[ImageFile]) -> dict[str, Any]:
        """Return fingerprints, see `schemas.Fingerprints`."""
        layer = self.model.layer

        async def embed_one(file: ImageFile) -> dict[str, Any]:
            try:
                pixels = await self._in_pool(self._read, file)
            except InputError as error:
                return {"image": file.name, "error": str(error)}
            outputs = await asyncio.wrap_future(self._device.run([pixels]))
            return {"image": file.name, "embedding": outputs[layer][0].tolist()}

        images = await self._for_each(embed_one, files)
        return {"model": describe_model(self.model), "layer": layer, "images": images}

    async def explain(self, file: ImageFile) -> dict[str, Any]:
        """Return where the evidence for an answer lies, see `schemas.Explanation`.

        Raises:
            HTTPException: the image can't be read.
        """
        self.metrics.images.inc()
        asker = None if self.model.source_names else await self._asker()
        if asker:
            call = partial(by_gallery.explain_by_gallery, asker, file.data, file.name)
        else:
            call = partial(explain, self.model, file.data, file.name)
        with _refusing(InputError):
            await self._in_pool(self._check_header, file)
            return await asyncio.wrap_future(self._device.call(call))

    def find_shelf(self) -> Shelf:
        """Return the gallery.

        Raises:
            HTTPException: there is none.
        """
        if self._shelf is None:
            raise HTTPException(
                404, "this server has no gallery: start it with --gallery DIR"
            )
        return self._shelf

    async def generators(self) -> dict[str, Any]:
        """Return what is enrolled, see `schemas.Generators`.

        Raises:
            HTTPException: there is no gallery.
        """
        self.find_shelf()
        asker = await self._asker()
        generators = asker.gallery.generators if asker else ()
        return {
            "generators": [
                {"name": g.name, "images": len(g.images), "trained": g.trained}
                for g in generators
            ]
        }

    async def enrol(self, name: str, files: Sequence[ImageFile]) -> dict[str, Any]:
        """Enrol images as a generator's, see `schemas.Enrolled`.

        Raises:
            HTTPException: there is no gallery, or they can't be.
        """
        shelf = self.find_shelf()
        self.metrics.images.inc(len(files))
        try:
            for file in files:
                await self._in_pool(self._check_header, file)
        except InputError as error:
            raise HTTPException(422, f"{error}; nothing was enrolled") from error
        call = self._device.call(partial(shelf.enrol, name, files))
        # Other errors are about this machine: they are in the log alone.
        with _refusing(NotEnrolled), _refusing(Busy, 503, {"Retry-After": "1"}):
            count = await asyncio.wrap_future(call)
        names = [file.name for file in files]
        return {"generator": name, "enrolled": names, "images": count}

    async def _for_each(
        self, function: Callable[[ImageFile], Any], files: Sequence[ImageFile]
    ) -> list[Any]:
        self.metrics.images.inc(len(files))
        return await asyncio.gather(*map(function, files))

    async def _in_pool(self, function: Callable[..., T], *arguments: Any) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, function, *arguments)

    async def _asker(self) -> Asker | None:
        return await self._in_pool(self._shelf.asker) if self._shelf else None

    def _judge(self, asker: Asker | None) -> Judge:
        """Return what makes answers of outputs."""
        if not self.model.source_names:
            if asker is None:
                raise HTTPException(
                    409,
                    f"{self.model.name} has no sources to name, and no generator is "
                    "enrolled: enrol images of some at /v1/gallery",
                )
            return partial(by_gallery.judge, asker, TOP)
        if self._shelf is None:
            return partial(judge, self.model)

        def judge_both(outputs: dict[str, np.ndarray]) -> dict[str, Any]:
            said = judge(self.model, outputs)
            return said | {"nearest": _nearest(asker, outputs) if asker else []}

        return judge_both

    def _check_header(self, file: ImageFile) -> None:
        open_image(file.data, file.name, self.limits.max_pixels)

    def _read(self, file: ImageFile) -> np.ndarray:
        self._check_header(file)
        return self.model.read(file.data, file.name)

    def _read_views(self, file: ImageFile) -> Reading:
        try:
            self._check_header(file)
        except InputError as error:
            return Reading(file.name, {"error": str(error)}, [])
        return read_views(self.model, file)


@contextmanager
def _refusing(
    kind: type[InputError], status: int = 422, headers: dict[str, str] | None = None
) -> Iterator[None]:
    """Answer errors of a kind with a status: they are not the server's own."""
    try:
        yield
    except kind as error:
        raise HTTPException(status, str(error), headers) from error


def _nearest(asker: Asker, outputs: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    (said,) = asker.compare(outputs["embedding"][:1], TOP)
    return said["ranked"]


def _describe_gallery(asker: Asker | None) -> dict[str, Any] | None:
    """Return what `rmjax attribute` says of a gallery, but for its folder."""
    return by_gallery.describe_gallery(asker) if asker else None
