"""Places of files: a path of this machine, or the address of one in a store.

An address has a scheme: `gs://`, `s3://`, `az://`, and others that fsspec knows.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from etils import epath

from rmjax.errors import InputError

if TYPE_CHECKING:
    import fsspec

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]+)://", re.IGNORECASE)
# What has to be installed for a scheme, where fsspec does not come with it.
_PACKAGES = {"gs": "rmjax[gcs]", "gcs": "rmjax[gcs]", "s3": "rmjax[s3]", "az": "adlfs"}


def is_remote(place: Any) -> bool:
    """Tell whether a place is an address in a store, not a path of this machine."""
    return bool(_SCHEME.match(str(place)))


def as_path(place: Any) -> Path:
    """Return a path that reads and writes where a place is.

    Args:
        place: text or a path.

    Returns:
        A `Path`; of an address an `epath.Path`, which has the same methods.

    Raises:
        InputError: the package that knows such addresses is not installed.
    """
    if not is_remote(place):
        return Path(place)
    filesystem(place)  # says what is missing
    return epath.Path(str(place))  # type: ignore[return-value]


def filesystem(place: Any) -> tuple["fsspec.AbstractFileSystem", str]:
    """Return the file system of a place, and the place's path in it.

    Raises:
        InputError: there is none for such addresses, or it is not installed.
    """
    import fsspec

    scheme = _SCHEME.match(str(place))
    try:
        return fsspec.core.url_to_fs(str(place))
    except ImportError as error:
        name = scheme[1] if scheme else "file"
        package = _PACKAGES.get(name, str(error))
        raise InputError(f"{place}: {name}:// needs: pip install {package}") from error
    except ValueError as error:
        raise InputError(f"{place}: {error}") from error
