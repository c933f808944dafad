"""What a training run leaves in its workdir besides checkpoints, and reads back."""

import logging
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from rmjax.errors import InputError
from rmjax.experiment.checkpoints import saved_steps
from rmjax.experiment.config import (
    CONFIG_FILE,
    Changes,
    apply_changes,
    default_config,
    flatten,
    from_json,
)
from rmjax.experiment.ranges import check_values
from rmjax.utils.files import read_json, write_json
from rmjax.utils.locks import NoLocks, locked
from rmjax.utils.places import reason
from rmjax.utils.versions import package_versions

logger = logging.getLogger(__name__)

RUN_FILE = "run.json"
CHECKPOINTS = "checkpoints"

# What may differ when a run is taken up again, and between its processes: nothing that
# its figures depend on.
_FREE_KEYS = {
    "data.dir",
    "data.cache_mib",
    "data.workers",
    "fit.memory_gib",
    "model.remat",
    "num_epochs",
    "num_devices",
    "eval_batch_size",
    "log_every_steps",
    "checkpoint_every_steps",
    "keep_best",
}


def start_workdir(
    workdir: Path,
    config: ConfigDict,
    sources: Sequence[str],
    semantics: Sequence[str],
    *,
    provenance: dict[str, Any] | None = None,
    training: dict[str, Any] | None = None,
    features: Mapping[str, Any] | None = None,
) -> None:
    """Write config, class names and package versions; once something is saved, compare.

    `provenance` says where weights that were not trained here come from, `training`
    what the images are like that others are trained on, `features` what made the
    features that take their place, see `rmjax.data.features.FeatureTable.network`.

    Raises:
        InputError: the workdir belongs to another config, other classes or features of
            another network, or can't be written to.
    """
    _check_same(workdir, config, sources)
    if _has_saved(workdir):
        check_network(workdir, load_facts(workdir).get("features"), features)
    facts = {
        "source_names": list(sources),
        "semantic_names": list(semantics),
        "provenance": provenance,
        "training": training,
        "features": features,
        "python": platform.python_version(),
        "versions": package_versions(),
    }
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        write_json(workdir / RUN_FILE, facts)
        # Last: where this file is, the others are.
        write_json(workdir / CONFIG_FILE, config.to_dict())
    except OSError as error:
        raise InputError(f"can't write {error.filename}: {reason(error)}") from error


@contextmanager
def hold_workdir(workdir: Path) -> Iterator[None]:
    """Keep a workdir to this training until the end of the block, and make it.

    Where the file system, or the store, knows no locks, it is left to the user, with a warning.

    Raises:
        InputError: another training works there, or it can't be written to.
    """
    busy = (
        f"{workdir}: another training is at work there; wait for it, or choose another "
        "--workdir"
    )
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(workdir / ".lock", busy))
        except NoLocks as error:
            logger.warning("%s; see to it that no other training works there", error)
        yield


def run_facts(config: ConfigDict) -> dict[str, Any]:
    """Return the config's leaves, by dotted key, that figures depend on."""
    # Training by gradient has no use for the number of images to fit to.
    free = _FREE_KEYS | (set() if config.fit.name else {"fit.images"})
    return {k: v for k, v in flatten(config).items() if k not in free}


def change_free(config: ConfigDict, changes: Changes) -> ConfigDict:
    """Return a run's config with changes of what its figures don't depend on.

    Args:
        config: of the run.
        changes: such as `--config.data.workers=2`, see `Changes`.

    Raises:
        InputError: no such key, a value of another type or out of its range, or a key
            that figures depend on.
    """
    changed = apply_changes(config, changes, "of the run")
    key = first_difference(run_facts(config), run_facts(changed))
    if key is not None:
        raise InputError(
            f"--config.{key}: figures depend on it, so it is as the run was trained; "
            f"what can be changed is {', '.join(sorted(_FREE_KEYS))}"
        )
    check_values(changed)
    return changed


def whole_facts(config: ConfigDict) -> dict[str, Any]:
    """Return what the figures of a finished run depend on: its length as well."""
    return run_facts(config) | {"num_epochs": config.num_epochs}


def first_difference(old: dict[str, Any], new: dict[str, Any]) -> str | None:
    """Return the first key that two configs' facts don't share; None if they agree."""
    keys = {**old, **new}
    return next((key for key in keys if old.get(key) != new.get(key)), None)


def load_run_config(workdir: Path) -> ConfigDict:
    """Return the config of the run in `workdir`.

    Raises:
        InputError: there is no run, or a damaged one.
    """
    path = workdir / CONFIG_FILE
    return parse_config(_read(path), str(path))


def parse_config(data: dict[str, Any], where: str) -> ConfigDict:
    """Return a run's config of what JSON made of it.

    Args:
        data: the JSON object.
        where: it was read from, for error messages.

    Raises:
        InputError: it is of another version of rmjax, or has wrong values.
    """
    config = from_json(data)
    absent = [key for key in flatten(default_config()) if key not in flatten(config)]
    if absent:
        raise InputError(
            f"{where}: made by another version of rmjax, as it has no key {absent[0]}; "
            "train anew"
        )
    try:
        check_values(config)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    return config


def load_facts(workdir: Path) -> dict[str, Any]:
    """Return what `start_workdir` wrote beside the config.

    `source_names` in order, `provenance`, `training`, `features`, and versions.

    Raises:
        InputError: there is no run, or a damaged one.
    """
    return _read(workdir / RUN_FILE)


def load_source_names(workdir: Path) -> list[str]:
    """Return the names of the classes that the run in `workdir` knows, in order."""
    return load_facts(workdir)["source_names"]


def check_config(workdir: Path, config: ConfigDict) -> None:
    """Check that the run in `workdir`, if it has saved anything, can be gone on with.

    Raises:
        InputError: it belongs to another config, or is damaged.
    """
    if not _has_saved(workdir):
        return
    old, new = run_facts(load_run_config(workdir)), run_facts(config)
    key = first_difference(old, new)
    if key is not None:
        raise InputError(
            f"{workdir} belongs to another config: {key} is {old.get(key)!r} "
            f"there and {new.get(key)!r} here; choose another --workdir"
        )


def check_network(
    workdir: Path, known: Mapping[str, Any] | None, found: Mapping[str, Any] | None
) -> None:
    """Check that stored features are made as those that the run was trained on.

    Args:
        workdir: of the run.
        known: what made these, see `rmjax.data.features.FeatureTable`; None for images.
        found: what made those that are there now.

    Raises:
        InputError: it was another network or layer.
    """
    if known is None or found is None:
        return
    for key in ("model_sha256", "layer", "size"):
        if known[key] != found[key]:
            raise InputError(
                f"{workdir} was trained on features whose {key} is {known[key]}, and "
                f"that of the table is now {found[key]}"
            )


def _check_same(workdir: Path, config: ConfigDict, sources: Sequence[str]) -> None:
    check_config(workdir, config)
    known = load_source_names(workdir) if _has_saved(workdir) else list(sources)
    if known != list(sources):
        raise InputError(
            f"{workdir} was trained on the sources {', '.join(known)}, the data now "
            f"has {', '.join(sources)}; choose another --workdir"
        )


def _has_saved(workdir: Path) -> bool:
    """Tell whether there is a run in `workdir` that its config is to be kept for."""
    return (workdir / CONFIG_FILE).exists() and bool(saved_steps(workdir / CHECKPOINTS))


def _read(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise InputError(
            f"no run in {path.parent}: {path.name} is missing; give the --workdir "
            "of an `rmjax train`"
        )
    return read_json(path)
