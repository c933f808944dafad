"""Uploads: multipart forms, read within limits and kept in memory."""

import asyncio
import re
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

import python_multipart  # noqa: F401  # Starlette imports it where it is there
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from rmjax.data.image_files import ImageFile
from rmjax.errors import harmless
from rmjax.serve.limits import Limits

MAX_TEXT = 1000  # bytes of a field that is no file


@dataclass(frozen=True)
class Form:
    """What was sent.

    Attributes:
        files: by field.
        texts: likewise.
    """

    files: dict[str, list[ImageFile]]
    texts: dict[str, str]

    def images(self, field: str, most: int) -> list[ImageFile]:
        """Return the image files in a field.

        Raises:
            HTTPException: there are none, or more than `most`.
        """
        found = self.files.get(field, [])
        if not found:
            raise HTTPException(422, f"no image: send files in the field '{field}'")
        if len(found) > most:
            raise _too_many(most)
        return found


async def read_form(request: Request, limits: Limits) -> Form:
    """Read a request's form.

    No more of it is read than the limits allow, and nothing is written to disk.

    Raises:
        HTTPException: it is no multipart form, is broken or beyond a limit, or was not
            there in time.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "multipart/form-data":
        raise HTTPException(
            415, f"content type {harmless(kind) or 'missing'}: send multipart/form-data"
        )
    parser = _Parser(limits.max_images, request.headers, _read(request, limits))
    try:
        async with asyncio.timeout(limits.upload_seconds):
            data = await parser.parse()
    except TimeoutError:
        raise HTTPException(
            408, f"the request was not there within {limits.upload_seconds:g} s"
        ) from None
    except ClientDisconnect:
        raise HTTPException(400, "the request ended before its end") from None
    except MultiPartException as error:
        raise HTTPException(422, f"broken form: {harmless(error.message)}") from error
    if not parser.is_whole:
        raise HTTPException(422, "broken form: its last boundary is missing")
    form = Form({}, {})
    for field, value in data.multi_items():
        if isinstance(value, UploadFile):
            file = ImageFile(_last_part(value.filename or ""), await value.read())
            await value.close()
            form.files.setdefault(field, []).append(file)
        else:
            form.texts[field] = value
    return form


class _Parser(MultiPartParser):
    """Starlette's, which writes no file, and stops at too many."""

    spool_max_size = 0  # that no file is too large for, see `SpooledTemporaryFile`

    def __init__(self, max_images: int, *arguments: Any):
        super().__init__(*arguments, max_part_size=MAX_TEXT)
        self._max_images = max_images
        self._parts = 0
        self.is_whole = False

    def on_part_begin(self) -> None:
        self._parts += 1
        if self._parts > self._max_images + 1:  # one is the name of a generator
            raise _too_many(self._max_images)
        super().on_part_begin()

    def on_end(self) -> None:
        self.is_whole = True


async def _read(request: Request, limits: Limits) -> AsyncGenerator[bytes, None]:
    size = int(request.headers.get("content-length", 0))
    if size > limits.max_bytes:
        raise _too_large(limits)
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limits.max_bytes:
            raise _too_large(limits)
        yield chunk


def _too_large(limits: Limits) -> HTTPException:
    return HTTPException(
        413, f"the request is too large: send at most {limits.max_bytes:,} bytes"
    )


def _too_many(most: int) -> HTTPException:
    return HTTPException(413, f"too many images: send at most {most} in a request")


def _last_part(name: str) -> str:
    """Return a file's name without folders, of whatever system."""
    return harmless(re.split(r"[/\\]", name)[-1]) or "image"
