"""The pages of docs/: built without a warning, every public name in them, every link leads somewhere.

Commands that they quote are parsed, or run where they are quick; numbers that they quote are computed again.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import os
import pkgutil
import re
import shlex
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from scale.__main__ import COMMANDS

pytestmark = pytest.mark.xdist_group("docs")  # one process builds the pages

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
GLOSSARY = DOCS / "glossary.md"
each_page = pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
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
            if "__all__" in found and isinstance(node.value, ast.Call):
                return set()  # a chapter, whose names are explained where they are defined
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
        self.formulas = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.formulas += tag == "math"
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
    run = subprocess.run(
        [*command, "-d", str(out / "doctrees")], cwd=out, capture_output=True, text=True, timeout=600, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""
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
    modules = {_name(path) for path in (ROOT / "scale").rglob("*.py") if path.stem not in ("__main__", "__init__")}
    assert modules <= set(inventory)
    # What derives from verl's classes, and is registered by its decorators, is documented whether verl is there or not.
    assert {
        "scale.plugin.synchronous.DynamoTrainer",
        "scale.plugin.engine",
        "scale.plugin.config.DynamoConfig.resolved",
    } <= set(inventory)


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


@each_page
def test_references(path: Path, inventory: dict[str, str]):
    """A reference to an object that does not exist is no warning of Sphinx."""
    wanted = set(re.findall(r"\{py:\w+\}`~?([\w.]+)`", path.read_text()))
    assert wanted <= set(inventory)


def test_generated_parts_are_complete(site: Path):
    from scale.plugin.metrics import METRICS as SCALE
    from theory.claims import LEDGER
    from toy.experiments.sweeps import SWEEPS
    from toy.training.metrics import METRICS as TOY

    text = {name: (site / f"{name}.html").read_text() for name in ("theory", "toy", "scale")}
    for row in LEDGER:
        assert re.search(rf"<td><p>{row.id}</p></td>.*?<td><p>{row.recorded.value}</p></td>", text["theory"], re.S)
    for page, names in (("toy", [*TOY, *SWEEPS]), ("scale", [*SCALE, "history_discount"])):
        assert [name for name in names if f'<span class="pre">{name}</span>' not in text[page]] == []
    assert "generated:" not in "".join(text.values())
    assert "with --jobs 1" in text["toy"]  # two hyphens, no dash


def test_chapters_name_what_they_hand_on(site: Path):
    import theory.losses

    text = (site / "theory.html").read_text()
    section = text.split('id="theory-losses"')[1].split("</section>")[0]
    assert all(f">{name}</span>" in section for name in theory.losses.__all__)


def test_every_fault_of_peers_has_its_tests():
    """A fault without a test ends the build of the pages; tests of a number without a sentence are noticed here."""
    explained = re.findall(
        r"^## R(\d+)\n\n\S.*\n\n<!-- generated: tests of R\1 -->$", (DOCS / "faults.md").read_text(), re.M
    )
    assert explained == [str(number) for number in range(1, 17)]
    names = [
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"def (test_(?:R\d+_)+)", path.read_text())
    ]
    assert {number for name in names for number in re.findall(r"R(\d+)_", name)} == set(explained)


@each_page
def test_mathematics_is_rendered(path: Path, site: Path, pages: dict[Path, Page]):
    """As MathML: what cannot be converted is a warning of the build, and no script is needed to see it."""
    source = re.sub(r"```.*?```|`[^`\n]*`", "", path.read_text(), flags=re.S)
    page = site / f"{path.stem}.html"
    assert pages[page].formulas == len(re.findall(r"\$\$.+?\$\$|\$[^$\n]+\$", source, re.S))
    assert path.stem != "theory" or pages[page].formulas > 50
    assert re.findall(r"<script[^>]*src=.(?:https?:)?//", page.read_text()) == []


@pytest.mark.parametrize("path", [*PAGES, *ROOT.glob("*.md"), *ROOT.glob("*/README.md")], ids=lambda path: path.name)
def test_lines_are_short(path: Path):
    """Up to 120 characters, except rows of a table, which cannot be wrapped, and lines with an address."""
    long = [line for line in path.read_text().splitlines() if len(line) > 120]
    assert [line for line in long if not line.startswith(("|", "│")) and "https://" not in line] == []


# The glossary


README = (ROOT / "README.md").read_text()
TERMS = dict(re.findall(r"^## ([^\n]+)\n\n(.+?)\n(?=\n## |\Z)", GLOSSARY.read_text(), re.M | re.S))
"""What the glossary says of each term."""

OF_THE_FIELD = (
    "advantage", "allocation", "budget", "entropy change", "extremes", "GRPO", "interval", "ledger", "logits",
    "modulation", "pass@1", "prompt-mean", "RLOO", "RLVR", "rollout", "score", "seed", "token-mean", "verdict", "world",
)  # fmt: skip
"""What a newcomer may not know; those that README uses have to be explained."""


def test_glossary_is_alphabetical():
    assert 30 <= len(TERMS) <= 60
    assert list(TERMS) == sorted(TERMS, key=str.lower)
    assert all(len(text) > 80 for text in TERMS.values())


def test_names_in_the_glossary_can_be_imported():
    names = re.findall(r"`((?:theory|toy|scale|paper_figs)\.[\w.]+)`", GLOSSARY.read_text())
    assert len(names) > 30
    for name in names:
        assert pkgutil.resolve_name(name) is not None


def test_terms_of_readme_are_in_the_glossary():
    used = [term for term in OF_THE_FIELD if re.search(rf"\b{term}", README, re.I)]
    assert len(used) > 12
    glossary = GLOSSARY.read_text().lower()
    assert [term for term in used if term.lower() not in glossary] == []
    linked = re.findall(r"docs/glossary\.md#([\w-]+)", README)
    places = {re.sub(r"[^\w -]", "", term.lower()).replace(" ", "-") for term in TERMS}
    assert len(linked) > 4
    assert set(linked) <= places


# Commands


def blocks(path: Path, *languages: str) -> list[str]:
    """Return the code blocks of a page."""
    return re.findall(rf"^```(?:{'|'.join(languages)})\n(.*?)^```", path.read_text(), re.M | re.S)


def commands(path: Path) -> list[str]:
    """Return the commands of a page: the lines of its blocks, and `python ...` or `make ...` in the text."""
    lines = [line for block in blocks(path, "bash") for line in block.replace("\\\n", " ").splitlines()]
    lines += re.findall(r"`((?:python|make) [^`]*)`", re.sub(r"```.*?```", "", path.read_text(), flags=re.S))
    return [command for line in lines if (command := re.sub(r"(^|\s+)#.*", "", line))]


QUOTED = [(path.name, line) for path in PAGES for line in commands(path)]
OF_PYTHON = [(page, line) for page, line in QUOTED if line.startswith("python -m ")]
OF_SHELL = {"python3", "source", "pip", "sbatch", "tensorboard", "make", "python", "nft"}


class Parsed(Exception):
    """The command line was understood."""


def parsed(monkeypatch: pytest.MonkeyPatch, words: list[str]) -> argparse.Namespace:
    """Return what a `python -m PACKAGE ...` understands of its words, and start nothing."""
    real = argparse.ArgumentParser.parse_args

    def only_parse(self, args=None, namespace=None):
        raise Parsed(real(self, args, namespace))

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", only_parse)
    with pytest.raises(Parsed) as said:
        importlib.import_module(f"{words[2]}.__main__").main(words[3:])
    return said.value.args[0]


def test_commands_are_found():
    without = {"index.md", "faults.md", "mutants.md", "provenance.md", "statistics.md", "what-can-go-wrong.md"}
    assert Counter(page for page, _ in OF_PYTHON).keys() >= {path.name for path in PAGES} - without
    assert {shlex.split(line)[0] for _, line in QUOTED} <= OF_SHELL
    assert {words[2] for _, line in OF_PYTHON if (words := shlex.split(line))} == {
        "theory",
        "toy",
        "scale",
        "paper_figs",
        "paper_figs.findings",
    }


@pytest.mark.parametrize(("page", "line"), OF_PYTHON)
def test_command_parses(monkeypatch: pytest.MonkeyPatch, page: str, line: str):
    args = parsed(monkeypatch, shlex.split(line))
    if getattr(args, "cell", None):
        from scale.launch.experiments import get_cell

        get_cell(args.experiment, args.cell)


def test_an_option_that_is_not_there_is_noticed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        parsed(monkeypatch, shlex.split("python -m scale audit log.csv --prompt-key id"))
    assert "--prompt-key" in capsys.readouterr().err


@each_page
def test_options_of_the_text_are_there(path: Path, capsys: pytest.CaptureFixture[str]):
    named = set(re.findall(r"`(--[a-z][a-z-]*)", path.read_text()))
    for package, *command in (["theory"], ["toy", "run"], *(["scale", name] for name in COMMANDS)):
        with pytest.raises(SystemExit):
            importlib.import_module(f"{package}.__main__").main([*command, "--help"])
    assert named <= set(re.findall(r"--[a-z][a-z-]*", capsys.readouterr().out))


@pytest.mark.needs_verl
@pytest.mark.parametrize(("page", "line"), [(page, line) for page, line in OF_PYTHON if " train " in line])
def test_training_passes_a_dry_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, page: str, line: str):
    from scale.__main__ import main

    monkeypatch.chdir(tmp_path)
    words = [word for word in shlex.split(line)[3:] if word != "--dry-run"]
    assert main([*words, "--dry-run"]) == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("line", [line for _, line in QUOTED if line.startswith("make ")])
def test_target_of_make(line: str):
    words = shlex.split(line)
    run = subprocess.run([*words, "--dry-run"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def test_scripts_pass_on_what_train_understands(monkeypatch: pytest.MonkeyPatch):
    lines = [shlex.split(line) for _, line in QUOTED if line.startswith("sbatch ")]
    assert lines
    for _, script, *words in lines:
        assert re.search(r'-m scale train --cluster 2x8-a100( --restarts \d)? "\$@"', (ROOT / script).read_text())
        parsed(monkeypatch, ["python", "-m", "scale", "train", "--cluster", "2x8-a100", *words])
