"""What computed something: to tell kept results from those of another code."""

import hashlib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path


@cache
def revision(modules: tuple[str, ...], libraries: tuple[str, ...]) -> str:
    """Return a SHA-256 of modules' source files and of libraries' versions.

    It is read once per process: the modules that run are those that were there when the
    process began.

    Args:
        modules: their full names; a package stands for all that is in it.
        libraries: names of installed distributions, such as `jaxlib`.
    """
    digest = hashlib.sha256()
    for name in modules:
        for path in _sources(name):
            digest.update(f"{name} {path.name} ".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    for name in libraries:
        digest.update(f"{name} {version(name)} ".encode())
    return digest.hexdigest()


def _sources(name: str) -> Iterator[Path]:
    """Yield the source files of a module, or of all modules of a package."""
    spec = find_spec(name)
    if spec is None:
        raise ModuleNotFoundError(f"no module {name}", name=name)
    for folder in spec.submodule_search_locations or ():
        yield from sorted(Path(folder).rglob("*.py"))
    if spec.submodule_search_locations is None and spec.origin:
        yield Path(spec.origin)
