"""Finding a config by name or path, and changing single keys of it."""

import runpy
from collections.abc import Sequence
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict, config_flags

from rmjax.configs.repmix import get_config
from rmjax.errors import InputError

SHIPPED = Path(__file__).parents[1] / "configs"


def default_config() -> ConfigDict:
    """Return the config that every other one changes: the published recipe."""
    return get_config()


def load_config(name: str, changes: Sequence[str] = ()) -> ConfigDict:
    """Load a config and apply changes to it.

    Args:
        name: a shipped config (`attribution_mini`) or the path of a Python file
            that defines `get_config()`.
        changes: arguments such as `--config.mix.level=3`; a value is read as the
            type of the one that it replaces, a tuple as `('a', 'b')`.

    Raises:
        InputError: no such config or key, or a value of another type.
    """
    path = _find(name)
    values = flags.FlagValues()
    arguments = ["rmjax", f"--config={path}"]
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=arguments)
    values(arguments)
    return apply_changes(values.config, changes, path.stem)


def apply_changes(
    config: ConfigDict, changes: Sequence[str], name: str = "of the weights"
) -> ConfigDict:
    """Return a config with changes applied, as for `load_config`.

    Raises:
        InputError: no such key, or a value of another type; `name` is in the message.
    """
    known = ", ".join(flatten(config))
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
    grid = runpy.run_path(str(path)).get("GRID")
    if grid is not None and not isinstance(grid, str):
        raise InputError(f"{path}: GRID is {grid!r}; give a text, as for --grid")
    return grid


def shipped_configs() -> list[str]:
    """Return the names of the configs that come with the package."""
    return sorted(
        path.relative_to(SHIPPED).with_suffix("").as_posix()
        for path in SHIPPED.rglob("*.py")
    )


def flatten(config: ConfigDict, prefix: str = "") -> dict[str, object]:
    """Return the config's leaves by dotted key."""
    flat = {}
    for key, value in config.items():
        if isinstance(value, ConfigDict):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat


def _find(name: str) -> Path:
    path = SHIPPED / f"{name}.py" if name in shipped_configs() else Path(name)
    if not path.is_file():
        raise InputError(
            f"no config '{name}': give the path of a Python file or one of "
            + ", ".join(shipped_configs())
        )
    try:
        compile(path.read_bytes(), path, "exec")
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(f"{path}: can't be read as Python ({error})") from error
    return path
