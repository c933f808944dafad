"""The versions of rmjax and of the libraries that its figures come from."""

from importlib.metadata import PackageNotFoundError, version

_LIBRARIES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain")


def own_version() -> str:
    """Return the version of rmjax; of a checkout that was not installed, none."""
    try:
        return version("rmjax")
    except PackageNotFoundError:
        return "0+unknown"


def package_versions() -> dict[str, str]:
    """Return the versions of rmjax and of the libraries, by name."""
    return {"rmjax": own_version()} | {name: version(name) for name in _LIBRARIES}
