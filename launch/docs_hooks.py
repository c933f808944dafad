"""What of the documentation site is not a file in docs/, as hooks of MkDocs.

The README is the first page. Other files of the repository that a page links to, and
what those link to, become pages under `repository/`, so that a link works on GitHub and
in the site. Notebooks become pages as they were last run. `commands.md` is what the command line says of itself, and a page
`api/MODULE.md` of the navigation is made from the docstrings of that module.
"""

import io
import json
import os
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import redirect_stdout, suppress
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
# The target of a Markdown link to a file, without the anchor.
_LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)#\s]+)")
_LEXERS = {".py": "python", ".sh": "bash", ".sbatch": "bash", ".toml": "toml"}


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the pages that are made here."""
    written = [f"docs/{page.src_uri}" for page in files.documentation_pages()]
    books = [p.relative_to(ROOT).as_posix() for p in ROOT.glob("docs/**/*.ipynb")]
    linked = linked_files(["README.md", *written, *books])
    made = {place(path): _read_page(path) for path in [*linked, *books]}
    made["commands.md"] = describe_commands()
    for module in _modules(config.nav):
        made[f"api/{module}.md"] = f"# {module}\n\n::: {module}\n"
    # What is only linked to need not be in the navigation.
    inclusion = InclusionLevel.NOT_IN_NAV
    for uri, content in made.items():
        page = File.generated(config, uri, content=content, inclusion=inclusion)
        files.append(page)
    return files


def on_page_markdown(markdown: str, *, page: Page, **_) -> str:
    """Point the links of a page to where the site has their targets.

    Raises:
        PluginError: A target does not exist.
    """
    uri = page.file.src_uri
    path = "README.md" if uri == "index.md" else f"docs/{uri}"
    path = path.removeprefix("docs/repository/")
    if not (ROOT / path).is_file():
        path = re.sub(r"\.md$", ".ipynb", path)
    if not (ROOT / path).is_file():  # made here, without links
        return markdown
    folder = posixpath.dirname(uri)
    return _LINK.sub(
        lambda link: posixpath.relpath(place(_resolve(path, link[0])), folder or "."),
        markdown,
    )


def place(path: str) -> str:
    """Return where the site has a file of the repository, relative to docs/."""
    if path == "README.md":
        return "index.md"
    if path.startswith("docs/"):
        return re.sub(r"\.ipynb$", ".md", path.removeprefix("docs/"))
    return f"repository/{path}" + ("" if path.endswith(".md") else ".md")


def linked_files(paths: Iterable[str]) -> Iterator[str]:
    """Yield the files outside docs/ among some, and all that these lead to.

    Args:
        paths: Relative to the repository, as are those that are yielded.

    Raises:
        PluginError: A page links to what does not exist.
    """
    queue, seen = list(paths), set()
    while queue:
        path = queue.pop()
        if path in seen or not (ROOT / path).is_file():
            continue
        seen.add(path)
        if not path.startswith("docs/"):
            yield path
        if path.endswith((".md", ".ipynb")):
            text = _read_page(path)
            queue += [_resolve(path, link) for link in _LINK.findall(text)]


def describe_commands() -> str:
    """Return a page of what `rmjax COMMAND --help` prints, for all commands."""
    from rmjax.cli.main import COMMANDS

    os.environ["COLUMNS"] = "78"  # the width of a page: argparse wraps its help to it
    return "\n".join(
        f"{'#' * (len(words) + 1)} {' '.join(['rmjax', *words])}\n\n"
        f"~~~~text\n{_help(words)}~~~~\n"
        for words in [(), *_names(COMMANDS)]
    )


def _names(commands: Mapping, *words: str) -> Iterator[tuple[str, ...]]:
    from rmjax.cli.parser import Group

    for name, command in commands.items():
        yield (*words, name)
        if isinstance(command, Group):
            yield from _names(command.commands, *words, name)


def _help(words: Iterable[str]) -> str:
    from rmjax.cli.main import main

    text = io.StringIO()
    with redirect_stdout(text), suppress(SystemExit):
        main([*words, "--help"])
    return text.getvalue()


def _modules(nav: object) -> Iterator[str]:
    """Yield the modules of the pages `api/MODULE.md` of a navigation."""
    if isinstance(nav, str):
        if nav.startswith("api/"):
            yield nav.removeprefix("api/").removesuffix(".md")
    elif nav:
        for part in nav.values() if isinstance(nav, dict) else nav:
            yield from _modules(part)


def _resolve(path: str, link: str) -> str:
    """Return which file of the repository a file's link is to; of a folder, its README."""
    target = posixpath.normpath(posixpath.join(posixpath.dirname(path), link))
    for name in (target, f"{target}/README.md", f"{target}/__init__.py"):
        if (ROOT / name).is_file():
            return name
    raise PluginError(f"{path}: the link to {link} has no target")


def _read_notebook(text: str) -> str:
    """Return a notebook as Markdown, with what its cells printed and drew."""
    parts = []
    for cell in json.loads(text)["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(f"~~~~python\n{source}\n~~~~")
        for output in cell["outputs"]:
            data = output.get("data", {})
            if "image/png" in data:
                code = "".join(data["image/png"].split())
                parts.append(f"![what the cell draws](data:image/png;base64,{code})")
            else:
                text = "".join(output.get("text", data.get("text/plain", "")))
                parts.append(f"~~~~text\n{text.rstrip()}\n~~~~")
    return "\n\n".join(parts) + "\n"


def _read_page(path: str) -> str:
    text = (ROOT / path).read_text("utf-8")
    if path.endswith(".ipynb"):
        return _read_notebook(text)
    if path.endswith(".md"):  # those of data sets, which TFDS reads, have no title
        title = "" if text.startswith("# ") else f"# {Path(path).parent.name}\n\n"
        return title + text
    lexer = _LEXERS.get(Path(path).suffix, "text")
    unsearched = "---\nsearch:\n  exclude: true\n---\n\n"
    return f"{unsearched}# {path}\n\n~~~~{lexer}\n{text}~~~~\n"
