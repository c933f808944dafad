"""The folder of a run's checkpoints: which there are, and what becomes of others."""

import shutil
from pathlib import Path

# What a checkpoint is renamed to, so that it is none to any reader.
_DAMAGED, _REMOVED = "damaged", "removed"


def steps(folder: Path) -> list[int]:
    """Return the steps of all checkpoints, ascending; none where there is no folder."""
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted(int(path.name) for path in found if path.name.isdecimal())


def has_checkpoints(folder: Path) -> bool:
    """Tell whether a run saved any checkpoint in `folder`."""
    return bool(steps(folder))


def set_aside(folder: Path, step: int) -> str:
    """Rename a checkpoint, so that it is none any more, and return its new name."""
    name, number = f"{step}.{_DAMAGED}", 2
    while (folder / name).exists():
        name, number = f"{step}.{_DAMAGED}-{number}", number + 1
    (folder / str(step)).rename(folder / name)
    return name


def remove(folder: Path, step: int) -> None:
    """Remove a checkpoint; half-removed, it is none."""
    gone = folder / f"{step}.{_REMOVED}"
    (folder / str(step)).rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed process left half-written or half-removed."""
    for path in folder.iterdir():
        if ".orbax-checkpoint-tmp" in path.name or path.name.endswith(_REMOVED):
            shutil.rmtree(path, ignore_errors=True)
