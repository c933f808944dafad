"""Templates of Jinja that lie in a package's folder `templates`."""

from jinja2 import Environment, PackageLoader, StrictUndefined


def package_environment(package: str, *, autoescape: bool = True) -> Environment:
    """Return what a package's templates are rendered in; an unknown name is an error.

    Args:
        package: such as `rmjax.report`.
        autoescape: whether text is escaped for HTML.
    """
    return Environment(
        loader=PackageLoader(package),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=not autoescape,
    )
