"""The `rmjax serve` command."""

import os
from typing import Annotated

from rmjax.cli.gallery import GALLERY_FOLDER, NewGallery
from rmjax.cli.options import Weights
from rmjax.errors import InputError
from rmjax.serve.limits import Limits

TOKEN = "RMJAX_TOKEN"  # of the environment, which other users of a machine can't read


def serve_network(
    *,
    workdir: Weights = None,
    gallery: Annotated[NewGallery | None, "folder of a gallery"] = None,
    host: str = "127.0.0.1",
    port: int = 8888,
    token: str | None = None,
    limits: Limits,
) -> None:
    """A web server: a page to look at images with, and answers in JSON.

    It answers as `rmjax attribute`, `rmjax embed` and `rmjax gallery` do, until it is
    stopped; /docs lists what can be asked. Needs pip install 'rmjax[serve]'.

    Args:
        gallery: folder of a gallery, which images can be enrolled into (default: none; of
            a network without sources, gallery)
        host: address to listen at; any other than this machine's own needs a token
        port: of it; 0: any that is free
        token: that requests have to show (default: RMJAX_TOKEN of the environment)
    """
    try:
        from rmjax.serve.server import serve
    except ModuleNotFoundError as error:
        raise InputError(
            f"{error.name} is not installed: pip install 'rmjax[serve]'"
        ) from None

    serve(
        workdir,
        gallery=gallery,
        default_gallery=GALLERY_FOLDER,
        host=host,
        port=port,
        token=token or os.environ.get(TOKEN),
        limits=limits,
        say=lambda url: print(f"serving: {url}", flush=True),
    )
