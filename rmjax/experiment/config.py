"""Finding a config by name or path, and changing single keys of it."""

import os
import runpy
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from rmjax.configs.repmix import get_config
from rmjax.errors import InputError
from rmjax.utils.files import read_json
from rmjax.utils.places import as_path

CONFIG_FILE = "config.json"  # of a run
SHIPPED = Path(__file__).parents[1] / "configs"

# To a config: arguments of the command line, such as `--config.mix.level=3`, where a value
# is read as the type of the one that it replaces, a tuple as `('a', 'b')`; or values by
# key, `{"mix.level": 3}`, which may be nested as the config is, `{"mix": {"level": 3}}`.
Changes = Sequence[str] | Mapping[str, object]


def default_config() -> ConfigDict:
    """Return the config that every other one changes: the published recipe."""
    return get_config()


def load_config(name: str | Path | ConfigDict, changes: Changes = ()) -> ConfigDict:
    """Load a config and apply changes to it.

    Args:
        name: a shipped config (`attribution_mini`), the path of a Python file that
            defines `get_config()`, or the folder of a run, whose own it is then; or a
            config, which stays as it is.
        changes: see `Changes`.

    Raises:
        InputError: no such config or key, a file that makes none, or a value of another
            type.
    """
    if isinstance(name, ConfigDict):
        return apply_changes(name, changes, "of the call")
    if not isinstance(name, str | os.PathLike):
        raise InputError(
            f"config {name!r}: give a ConfigDict, the path of a Python file, the folder "
            "of a run, or one of " + ", ".join(shipped_configs())
        )
    path = _find(str(name))
    if path.name == CONFIG_FILE:
        return apply_changes(from_json(read_json(path)), changes, f"of {name}")
    content = _run(path)
    if "get_config" not in content:
        raise InputError(f"{path}: no config, as it defines no get_config()")
    with _fault_of(path):
        config = content["get_config"]()
    if not isinstance(config, ConfigDict):
        raise InputError(
            f"{path}: get_config() returns {type(config).__name__}; give a ConfigDict"
        )
    return apply_changes(config, changes, path.stem)


def apply_changes(
    config: ConfigDict, changes: Changes, name: str = "of the weights"
) -> ConfigDict:
    """Return a config with changes applied, as for `load_config`.

    Raises:
        InputError: no such key, or a value of another type; `name` is in the message.
    """
    known = ", ".join(flatten(config))
    if isinstance(changes, Mapping):
        changes = [f"--config.{k}={v}" for k, v in flatten(changes).items()]
    values = flags.FlagValues()
    arguments = ["rmjax", *changes]
    try:
        config_flags.DEFINE_config_dict(
            "config",
            config.copy_and_resolve_references(),
            flag_values=values,
            sys_argv=arguments,
        )
        rest = values(arguments)[1:]
    except (flags.Error, AttributeError, KeyError) as error:
        reason = " ".join(str(error).strip("\"'").split())
        raise InputError(
            f"config {name}: can't apply {' '.join(changes)} ({reason}); "
            f"the keys are {known}"
        ) from error
    if rest:
        raise InputError(f"unknown argument '{rest[0]}'")
    return values.config


def load_grid(name: str) -> str | None:
    """Return the grid of a sweep that the config's file defines as `GRID`, if any.

    Args:
        name: of a config, as for `load_config`.

    Raises:
        InputError: there is no such config, or its `GRID` is no text.
    """
    path = _find(name)
    if path.name == CONFIG_FILE:
        return None
    grid = _run(path).get("GRID")
    if grid is not None and not isinstance(grid, str):
        raise InputError(f"{path}: GRID is {grid!r}; give a text, as for --grid")
    return grid


def shipped_configs() -> list[str]:
    """Return the names of the configs that come with the package."""
    return sorted(
        path.relative_to(SHIPPED).with_suffix("").as_posix()
        for path in SHIPPED.rglob("*.py")
    )


def flatten(
    config: ConfigDict | Mapping[str, object], prefix: str = ""
) -> dict[str, object]:
    """Return the leaves of a config, or of changes of one, by dotted key."""
    flat = {}
    for key, value in config.items():
        if isinstance(value, ConfigDict | Mapping):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat


def _find(name: str) -> Path:
    path = SHIPPED / f"{name}.py" if name in shipped_configs() else as_path(name)
    if path.is_dir() and (path / CONFIG_FILE).is_file():
        return path / CONFIG_FILE
    if not path.is_file():
        raise InputError(
            f"no config '{name}': give the path of a Python file, the folder of a run, "
            "or one of " + ", ".join(shipped_configs())
        )
    return path


def from_json(data: dict[str, Any]) -> ConfigDict:
    """Return the config of a run, of what JSON made of it: lists were tuples."""

    def tuples(data: dict[str, Any]) -> dict[str, Any]:
        return {
            key: tuples(value)
            if isinstance(value, dict)
            else tuple(value)
            if isinstance(value, list)
            else value
            for key, value in data.items()
        }

    return ConfigDict(tuples(data))


def _run(path: Path) -> dict[str, Any]:
    """Return what a config's file defines."""
    with _fault_of(path):
        return runpy.run_path(str(path))


@contextmanager
def _fault_of(path: Path) -> Iterator[None]:
    """Say in one line what a user's file raises, and where."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == str(path)]
        where = f", line {lines[-1]}" if lines else ""
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(f"{path}{where}: {reason}") from error
