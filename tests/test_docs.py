"""The pages of docs/: built without a warning, every public name in them, every link leads somewhere."""

from __future__ import annotations

import ast
import os
import re
import resource
import subprocess
import sys
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PACKAGES = ("theory", "toy", "paper_figs")
MODULES = [
    path
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
    if not path.stem.startswith("_") or path.stem == "__init__"
]


def _name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _public(path: Path) -> set[str]:
    """Return the public names that a module defines, or `__all__`; read from the source, not as Sphinx reads them."""
    names: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found = {x.id for target in targets for x in ast.walk(target) if isinstance(x, ast.Name)}
            if "__all__" in found and node.value is not None:
                return set(ast.literal_eval(node.value))
            names |= found
    return {name for name in names if not name.startswith("_")}


class Page(HTMLParser):
    """The links of a page, and the places in it that links can lead to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.places: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id":
                self.places.add(value or "")
            elif name in ("href", "src") and value:
                self.links.add(value)


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the built pages."""
    if find_spec("sphinx") is None or find_spec("myst_parser") is None:
        reason = "Sphinx and myst-parser are not installed: make venv"
        if os.environ.get("CI", "").lower() in ("1", "true"):
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    out = tmp_path_factory.mktemp("docs")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", str(DOCS), str(out / "html")]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run = subprocess.run(
        [*command, "-d", str(out / "doctrees")], cwd=out, capture_output=True, text=True, timeout=600, check=False
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert seconds < 60, f"{seconds:.0f} seconds of one core"  # not of the clock: the machine may be busy
    return out / "html"


@pytest.fixture(scope="session")
def inventory(site: Path) -> dict[str, str]:
    """Return the kind of every documented object by its full name."""
    from sphinx.util.inventory import InventoryFile

    with (site / "objects.inv").open("rb") as file:
        loaded = InventoryFile.load(file, "", lambda base, path: path)
    entries = getattr(loaded, "data", loaded)
    return {name: kind for kind in entries if kind.startswith("py:") for name in entries[kind]}


@pytest.fixture(scope="session")
def pages(site: Path) -> dict[Path, Page]:
    """Return the pages by path."""
    return {path: Page(path.read_text()) for path in site.rglob("*.html")}


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_every_public_name_is_documented(path: Path, inventory: dict[str, str]):
    missing = {f"{_name(path)}.{name}" for name in _public(path)} - set(inventory)
    assert not missing
    assert inventory[_name(path)] == "py:module"


def test_every_module_of_scale_is_documented(inventory: dict[str, str]):
    modules = {_name(path) for path in (ROOT / "scale").glob("*.py") if path.stem not in ("__main__", "__init__")}
    assert modules <= set(inventory)
    # What derives from verl's classes, and is registered by its decorators, is documented whether verl is there or not.
    assert {"scale.trainer.DynamoTrainer", "scale.engine", "scale.config.DynamoConfig.resolved"} <= set(inventory)


def test_links(site: Path, pages: dict[Path, Page]):
    assert {"index.html", "theory.html", "toy.html", "scale.html", "paper_figs.html"} <= {p.name for p in pages}
    broken = []
    for path, page in pages.items():
        for link in page.links:
            url = urlsplit(link)
            if url.scheme in ("http", "https", "data", "mailto") or url.netloc:
                continue
            target = (path.parent / unquote(url.path)).resolve() if url.path else path
            found = target.is_file() and (
                not url.fragment or target not in pages or unquote(url.fragment) in pages[target].places
            )
            if not found:
                broken.append(f"{path.relative_to(site)}: {link}")
    assert not broken


@pytest.mark.parametrize("path", sorted(DOCS.glob("*.md")), ids=lambda path: path.name)
def test_references(path: Path, inventory: dict[str, str]):
    """A reference to an object that does not exist is no warning of Sphinx."""
    wanted = set(re.findall(r"\{py:\w+\}`~?([\w.]+)`", path.read_text()))
    assert wanted <= set(inventory)


def test_generated_parts_are_complete(site: Path):
    from scale.metrics import METRICS as SCALE
    from theory.claims import LEDGER
    from toy.metrics import METRICS as TOY
    from toy.sweeps import SWEEPS

    text = {name: (site / f"{name}.html").read_text() for name in ("theory", "toy", "scale")}
    for row in LEDGER:
        assert re.search(rf"<td><p>{row.id}</p></td>.*?<td><p>{row.recorded.value}</p></td>", text["theory"], re.S)
    for page, names in (("toy", [*TOY, *SWEEPS]), ("scale", [*SCALE, "history_discount"])):
        assert [name for name in names if f'<span class="pre">{name}</span>' not in text[page]] == []
    assert "generated:" not in "".join(text.values())
