"""A gallery of fingerprints: the space they are compared in, enrol, remove, keep.

Its folder holds `gallery.json`, which is written last and names the other files by a
digest of their contents: `fingerprints-*.npy`, directions float32 `[N, D]`,
`space-*.npy`, the space's centre and matrix as one array float32 `[1 + D, D]`, and
where one was made `index-*.faiss` (`search.py`).

Reference: Hastie, Tibshirani, Friedman, The Elements of Statistical Learning, 2nd ed.,
2009, 4.3.2 (sphering by the covariance within classes, `whitened`).
"""

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from rmjax.errors import InputError
from rmjax.evaluation.openset import fit_reference
from rmjax.gallery.search import UNKNOWN, build_index, import_faiss
from rmjax.utils import locks
from rmjax.utils.files import read_json, write_json

FILE = "gallery.json"
VERSION = 1


@dataclass(frozen=True)
class Space:
    """A map from fingerprints to directions.

    Attributes:
        name: one of `SPACES`.
        centre: what is subtracted, float32 `[D]`.
        matrix: what it is multiplied by from the right, float32 `[D, D]`.
    """

    name: str
    centre: np.ndarray
    matrix: np.ndarray

    def directions(self, embedding: np.ndarray) -> np.ndarray:
        """Return unit vectors, float32 `[N, D]`, for fingerprints `[N, D]`.

        Raises:
            InputError: another length than D, or one that has no direction: a number
                that is not finite, or all zeros.
        """
        embedding = np.asarray(embedding, np.float32)
        if embedding.ndim != 2 or embedding.shape[1] != len(self.centre):
            raise InputError(
                f"fingerprints of {list(embedding.shape)} do not fit a space of "
                f"{len(self.centre)} dimensions"
            )
        mapped = (embedding - self.centre) @ self.matrix
        length = np.linalg.norm(mapped, axis=1, keepdims=True)
        if not (np.isfinite(length) & (length > 0)).all():
            raise InputError("a fingerprint is not finite, or all zeros")
        return mapped / length


def cosine(embedding: np.ndarray, source: np.ndarray) -> Space:
    """Return the space of the fingerprints as they are; nothing is fitted."""
    size = np.shape(embedding)[1]
    return Space("cosine", np.zeros(size, np.float32), np.eye(size, dtype=np.float32))


def whitened(embedding: np.ndarray, source: np.ndarray) -> Space:
    """Fit the space in which images of one source vary alike in every direction.

    What varies much within known sources (content, say) counts little there, what
    hardly varies counts much. The covariance is that of `openset.fit_reference`.

    Args:
        embedding: fingerprints of known sources that were not trained on, `[M, D]`.
        source: their sources, int `[M]`.

    Raises:
        InputError: fewer than two fingerprints, or some are not finite.
    """
    fit = fit_reference(embedding, source, neighbours=1)
    return Space("whitened", fit.centre.astype("f4"), fit.whitening.astype("f4"))


# Function of (fingerprints `[M, D]` of known sources, their sources `[M]`).
SPACES: dict[str, Callable[[np.ndarray, np.ndarray], Space]] = {
    "cosine": cosine,
    "whitened": whitened,
}


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
    images: tuple[tuple[str, str], ...] = ()


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
                f"{file} is the same file as {Path(other).name}, enrolled as {owner}: "
                "enrol an image once"
            )
        seen[sha] = name, file
    generators = {generator.name: generator for generator in gallery.generators}
    old = generators.get(name, Generator(name, trained))
    generators[name] = replace(old, images=(*old.images, *images))
    # The row after the last image that the generator has; of a new one, the last.
    before = gallery.generators[: list(generators).index(name) + 1]
    row = sum(len(generator.images) for generator in before)
    directions = gallery.space.directions(embedding)
    return replace(
        gallery,
        generators=tuple(generators.values()),
        directions=np.insert(gallery.directions, row, directions, axis=0),
    )


def check_name(gallery: Gallery, name: str, *, trained: bool) -> None:
    """Check that images may be enrolled under a name.

    Raises:
        InputError: an empty or reserved name, one of several lines, or one that the
            other sort of generator, trained or not, has.
    """
    if not name.strip() or not name.isprintable() or name == UNKNOWN:
        raise InputError(
            f"{name!r} can't be the name of a generator: give printable text other "
            f"than '{UNKNOWN}'"
        )
    other = "new" if trained else "trained"
    if any(g.name == name and g.trained != trained for g in gallery.generators):
        raise InputError(f"{name} is enrolled already, as a {other} generator")


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
    kept = [g.name not in names for g in gallery.generators for _ in g.images]
    return replace(
        gallery,
        generators=tuple(g for g in gallery.generators if g.name not in names),
        directions=gallery.directions[np.array(kept, bool)],
    )


def save_gallery(folder: Path, gallery: Gallery) -> None:
    """Write a gallery; until that is done, the folder's old one stays whole.

    Raises:
        InputError: the folder can't be written to.
    """
    space = np.concatenate([gallery.space.centre[None], gallery.space.matrix])
    try:
        folder.mkdir(parents=True, exist_ok=True)
        arrays = {
            "space": {"name": gallery.space.name, **_save(folder, "space", space)},
            "fingerprints": _save(folder, "fingerprints", gallery.directions),
        }
        generators = [vars(generator) for generator in gallery.generators]
        facts = {"version": VERSION, "network": gallery.network}
        write_json(folder / FILE, {**facts, **arrays, "generators": generators})
        current = [entry["sha256"][:16] for entry in arrays.values()]
        for path in folder.glob("*-*"):
            title, _, key = path.stem.partition("-")
            if title in ("space", "fingerprints", "index") and key not in current:
                path.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: can't be written ({error.strerror})") from error


def load_gallery(folder: Path) -> Gallery:
    """Read the gallery in a folder.

    Raises:
        InputError: there is none, or it is damaged or of another version.
    """
    path = folder / FILE
    if not path.exists():
        raise InputError(
            f"no gallery in {folder}: make one with `rmjax gallery add NAME IMAGE...`"
        )
    data = read_json(path)
    if data.get("version") != VERSION:
        raise InputError(
            f"{path}: not a gallery of version {VERSION}; make it anew with this rmjax"
        )
    try:
        generators = tuple(_generator(entry) for entry in data["generators"])
        array = _load(folder, data["space"])
        space = Space(data["space"]["name"], array[0], array[1:])
        directions = _load(folder, data["fingerprints"])
        images = sum(len(generator.images) for generator in generators)
        if directions.shape != (images, len(space.centre)):
            raise ValueError(f"{images} images, but another number of fingerprints")
        return Gallery(data["network"], space, generators, directions)
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"{path}: damaged ({reason}); enrol the images anew in another folder"
        ) from error


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep a folder's gallery to this process while it is changed.

    The folder is made if need be, and removed if no gallery comes into it.

    Raises:
        InputError: another process is changing it, or the folder is not a gallery's.
    """
    is_new = not folder.exists()
    ours = (".lock", "space-", "fingerprints-", FILE)
    try:
        names = [] if is_new else os.listdir(folder)
    except OSError as error:
        raise InputError(f"{folder}: can't be read ({error.strerror})") from error
    if FILE not in names and not all(name.startswith(ours) for name in names):
        raise InputError(f"{folder} holds something else: choose a new or empty folder")
    busy = f"{folder} is being changed by another command: wait for it"
    with locks.locked(folder / ".lock", busy):
        try:
            yield
        finally:
            if is_new and os.listdir(folder) == [".lock"]:
                shutil.rmtree(folder)


def stored_index(folder: Path, directions: np.ndarray) -> Any:
    """Return the faiss index kept in a gallery's folder; build it where there is none.

    Raises:
        InputError: faiss is not installed, or the file can't be read or written.
    """
    faiss = import_faiss()
    path = folder / f"index-{digest(directions)[:16]}.faiss"
    try:
        if path.exists():
            return faiss.read_index(str(path))
        index = build_index(directions)
        temporary = path.with_suffix(".part")
        faiss.write_index(index, str(temporary))
        os.replace(temporary, path)
    except (RuntimeError, OSError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: {reason}; remove it and ask again") from error
    return index


def digest(data: bytes | np.ndarray) -> str:
    """Return the SHA-256 of bytes or of an array's contents."""
    if isinstance(data, np.ndarray):
        return hashlib.sha256(np.ascontiguousarray(data).reshape(-1).data).hexdigest()
    return hashlib.sha256(data).hexdigest()


def _save(folder: Path, title: str, array: np.ndarray) -> dict[str, str]:
    """Write an array as a file that is named by its contents; return what names it."""
    sha = digest(array)
    path = folder / f"{title}-{sha[:16]}.npy"
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
