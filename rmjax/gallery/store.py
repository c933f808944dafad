"""A gallery of fingerprints: enrol, remove, keep in a folder.

The folder holds `gallery.json`, which is written last and names the other files by a
digest of their contents: `fingerprints-*.npy`, directions float32 `[N, D]`,
`space-*.npy`, the space's centre and matrix as one array float32 `[1 + D, D]`, and
where one was made `index-*.faiss` (`approximate.py`).
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from rmjax.errors import InputError
from rmjax.gallery.search import UNKNOWN
from rmjax.gallery.space import Space
from rmjax.utils import locks
from rmjax.utils.files import write_json

FILE = "gallery.json"
VERSION = 1


@dataclass(frozen=True)
class Generator:
    """A generator that is enrolled.

    Attributes:
        name: what it is called.
        trained: whether the network was trained on it.
        images: name and SHA-256 of each enrolled image file.
    """

    name: str
    trained: bool
    images: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Gallery:
    """Enrolled generators and the directions of their images.

    Attributes:
        network: digest of the network whose fingerprints these are.
        space: what made directions of them.
        generators: those enrolled.
        directions: of their images, one generator after the other, float32 `[N, D]`.
    """

    network: str
    space: Space
    generators: tuple[Generator, ...]
    directions: np.ndarray

    @property
    def names(self) -> list[str]:
        """Return the names of the generators."""
        return [generator.name for generator in self.generators]

    @property
    def starts(self) -> np.ndarray:
        """Return the first row of each generator, int `[G]`."""
        counts = [len(generator.images) for generator in self.generators]
        return np.cumsum([0, *counts])[: len(counts)]

    @property
    def new(self) -> np.ndarray:
        """Return whether each generator is one that was not trained on, bool `[G]`."""
        return np.array([not generator.trained for generator in self.generators], bool)


def empty_gallery(network: str, space: Space) -> Gallery:
    """Return a gallery without generators."""
    return Gallery(network, space, (), np.empty((0, len(space.centre)), np.float32))


def enrol(
    gallery: Gallery,
    name: str,
    images: Sequence[tuple[str, str]],
    embedding: np.ndarray,
    *,
    trained: bool = False,
) -> Gallery:
    """Return the gallery with images of a generator added to those it has.

    Args:
        gallery: what to add to.
        name: of the generator.
        images: name and SHA-256 of each file.
        embedding: their fingerprints, `[len(images), D]`.
        trained: whether the network was trained on the generator.

    Raises:
        InputError: a name that can't be one, no images, an image that is enrolled
            already or comes twice, or a fingerprint without direction.
    """
    check_name(gallery, name, trained=trained)
    if not images:
        raise InputError(f"no images of {name}: give one or more")
    seen = {sha: (g.name, file) for g in gallery.generators for file, sha in g.images}
    for file, sha in images:
        if sha in seen:
            owner, other = seen[sha]
            raise InputError(
                f"{file} is the same file as {other}, enrolled as {owner}: enrol an "
                "image once"
            )
        seen[sha] = name, file
    directions = gallery.space.directions(embedding)
    if name not in gallery.names:
        new = Generator(name, trained, tuple(images))
        rows = np.concatenate([gallery.directions, directions])
        return replace(gallery, generators=(*gallery.generators, new), directions=rows)
    at = gallery.names.index(name)
    old = gallery.generators[at]
    end = gallery.starts[at] + len(old.images)
    generators = list(gallery.generators)
    generators[at] = replace(old, images=(*old.images, *images))
    return replace(
        gallery,
        generators=tuple(generators),
        directions=np.concatenate(
            [gallery.directions[:end], directions, gallery.directions[end:]]
        ),
    )


def check_name(gallery: Gallery, name: str, *, trained: bool) -> None:
    """Check that images may be enrolled under a name.

    Raises:
        InputError: an empty or reserved name, one of several lines, or one that the
            other kind of generator, trained or not, has.
    """
    if not name.strip() or not name.isprintable() or name == UNKNOWN:
        raise InputError(
            f"{name!r} can't be the name of a generator: give printable text other "
            f"than '{UNKNOWN}'"
        )
    kinds = {generator.name: generator.trained for generator in gallery.generators}
    if kinds.get(name, trained) != trained:
        raise InputError(f"{name} is enrolled already, as a source of the other kind")


def remove(gallery: Gallery, names: Sequence[str]) -> Gallery:
    """Return the gallery without some generators.

    Raises:
        InputError: one of them is not enrolled.
    """
    strangers = [name for name in names if name not in gallery.names]
    if strangers:
        raise InputError(
            f"{', '.join(strangers)}: not enrolled; enrolled are "
            f"{', '.join(gallery.names) or 'none'}"
        )
    keep = [name not in names for name in gallery.names]
    counts = [len(generator.images) for generator in gallery.generators]
    kept = (g for g, stays in zip(gallery.generators, keep, strict=True) if stays)
    return replace(
        gallery,
        generators=tuple(kept),
        directions=gallery.directions[np.repeat(np.array(keep, bool), counts)],
    )


def save_gallery(folder: Path, gallery: Gallery) -> None:
    """Write a gallery; until that is done, the folder's old one stays whole.

    Raises:
        InputError: the folder can't be written to.
    """
    space = np.concatenate([gallery.space.centre[None], gallery.space.matrix])
    try:
        folder.mkdir(parents=True, exist_ok=True)
        written = {
            "space": {"name": gallery.space.name, **_save(folder, "space", space)},
            "fingerprints": _save(folder, "fingerprints", gallery.directions),
        }
        write_json(
            folder / FILE,
            {
                "version": VERSION,
                "network": gallery.network,
                **written,
                "generators": [vars(generator) for generator in gallery.generators],
            },
        )
        current = [part["sha256"][:16] for part in written.values()]
        for kind in ("space", "fingerprints", "index"):
            for path in folder.glob(f"{kind}-*"):
                if path.stem.removeprefix(f"{kind}-") not in current:
                    path.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: can't be written ({error.strerror})") from error


def load_gallery(folder: Path) -> Gallery:
    """Read the gallery in a folder.

    Raises:
        InputError: there is none, or it is damaged or of another version.
    """
    path = folder / FILE
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(
            f"no gallery in {folder}: make one with `rmjax gallery add`"
        ) from None
    except (OSError, ValueError) as error:
        raise _damaged(path, error) from error
    if not isinstance(data, dict) or data.get("version") != VERSION:
        raise InputError(
            f"{path}: not a gallery of version {VERSION}; make it anew with this rmjax"
        )
    try:
        space = _load(folder, data["space"])
        gallery = Gallery(
            network=data["network"],
            space=Space(data["space"]["name"], space[0], space[1:]),
            generators=tuple(_generator(entry) for entry in data["generators"]),
            directions=_load(folder, data["fingerprints"]),
        )
    except (KeyError, TypeError, ValueError, OSError, IndexError) as error:
        raise _damaged(path, error) from error
    images = sum(len(generator.images) for generator in gallery.generators)
    if gallery.directions.shape != (images, len(gallery.space.centre)):
        raise _damaged(path, f"{images} images, but another number of fingerprints")
    return gallery


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep a folder's gallery to this process while it is changed.

    Raises:
        InputError: another process is changing it, or the folder is not a gallery's.
    """
    try:
        if not (folder / FILE).exists() and any(_foreign(folder)):
            raise InputError(
                f"{folder} holds something else: choose a new or empty folder"
            )
    except OSError as error:
        raise InputError(f"{folder}: can't be read ({error.strerror})") from error
    busy = f"{folder} is being changed by another command: wait for it"
    with locks.locked(folder / ".lock", busy):
        yield


def digest(data: bytes | np.ndarray) -> str:
    """Return the SHA-256 of bytes or of an array's contents."""
    if isinstance(data, np.ndarray):
        data = np.ascontiguousarray(data).reshape(-1).view(np.uint8)
    return hashlib.sha256(data).hexdigest()


def _foreign(folder: Path) -> Iterator[str]:
    """Yield what lies in a folder and is none of a gallery's files."""
    for entry in os.scandir(folder) if folder.exists() else ():
        if not entry.name.startswith((".lock", "space-", "fingerprints-", FILE)):
            yield entry.name


def _save(folder: Path, kind: str, array: np.ndarray) -> dict:
    sha = digest(array)
    path = folder / f"{kind}-{sha[:16]}.npy"
    if not path.exists():
        temporary = path.with_suffix(".part")
        with temporary.open("wb") as file:
            np.save(file, np.ascontiguousarray(array, np.float32))
        os.replace(temporary, path)
    return {"file": path.name, "sha256": sha}


def _load(folder: Path, entry: Mapping[str, str]) -> np.ndarray:
    path = folder / Path(entry["file"]).name
    array = np.load(path, allow_pickle=False)
    if array.dtype != np.float32 or array.ndim != 2 or digest(array) != entry["sha256"]:
        raise ValueError(f"{path.name} is not what was written")
    return array


def _generator(entry: Mapping) -> Generator:
    images = tuple((str(name), str(sha)) for name, sha in entry["images"])
    name = str(entry["name"])
    if not images or not name.isprintable():
        raise ValueError(f"{name!r} has no images, or is no name")
    return Generator(name, bool(entry["trained"]), images)


def _damaged(path: Path, error: object) -> InputError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return InputError(
        f"{path}: damaged ({reason}); enrol the images anew in another folder"
    )
