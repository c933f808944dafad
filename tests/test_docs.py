"""The documentation: all links lead somewhere, and the site needs no other host."""

import importlib.util
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parents[1]
pytest.importorskip("mkdocs", reason="the site needs pip install rmjax[docs]")


@pytest.fixture(scope="module")
def hooks():
    path = ROOT / "launch" / "docs_hooks.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built as `launch/docs.sh` builds it."""
    pytest.importorskip("material", reason="the site needs pip install rmjax[docs]")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict"]
    built = subprocess.run(
        [*command, "--site-dir", str(folder)], cwd=ROOT, capture_output=True, text=True
    )
    assert built.returncode == 0, built.stderr
    return folder


def pages():
    return sorted(p.relative_to(ROOT).as_posix() for p in ROOT.glob("docs/**/*.md"))


def test_every_link_between_files_has_a_target(hooks):
    found = list(hooks.linked_files(["README.md", *pages()]))
    assert "launch/README.md" in found and "configs/repmix.py" in found


def test_a_link_without_a_target_ends_the_build(hooks, tmp_path, monkeypatch):
    monkeypatch.setattr(hooks, "ROOT", tmp_path)
    (tmp_path / "README.md").write_text("[there](there.py) and [not](docs/not.md)")
    (tmp_path / "there.py").write_text("")
    with pytest.raises(hooks.PluginError, match=r"README\.md: .*docs/not\.md"):
        list(hooks.linked_files(["README.md"]))


def test_links_are_rewritten_to_where_the_site_has_their_targets(hooks):
    page = SimpleNamespace(file=SimpleNamespace(src_uri="results/repmix.md"))
    text = "[a](../data.md#x) [b](../../configs/repmix.py) [c](https://x.org) [d](#y)"
    assert hooks.on_page_markdown(text, page=page) == (
        "[a](../data.md#x) [b](../repository/configs/repmix.py.md) "
        "[c](https://x.org) [d](#y)"
    )


def test_every_page_is_in_the_navigation():
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    listed = set(re.findall(r"^ +- (?:.*: )?(\S+\.md)", text, re.MULTILINE))
    assert {page.removeprefix("docs/") for page in pages()} <= listed


@pytest.mark.slow
def test_the_site_builds_strictly_and_loads_nothing_from_other_hosts(site):
    built = list(site.rglob("*.html"))
    assert len(built) > len(pages())
    notebook = (site / "notebooks" / "own_loop.html").read_text(encoding="utf-8")
    assert "data:image/png;base64," in notebook and "highlight" in notebook
    for path in built:
        reader = Loaded()
        reader.feed(path.read_text(encoding="utf-8"))
        assert reader.addresses, "a page has at least a stylesheet"
        away = [a for a in reader.addresses if re.match(r"(\w+:)?//", a)]
        assert not away, f"{path.name}: {away}"
    for path in site.rglob("*.css"):
        assert not re.search(r"(@import|url\()\W*(https?:)?//", path.read_text())


class Loaded(HTMLParser):
    """Collects the addresses of what a page loads by itself."""

    def __init__(self):
        super().__init__()
        self.addresses = []

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        if tag == "link" and attributes.get("rel") not in ("canonical", "next", "prev"):
            self.addresses.append(attributes["href"])
        elif tag != "a" and "src" in attributes:
            self.addresses.append(attributes["src"])
