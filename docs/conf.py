"""Sphinx: a page for each part. What the code says itself is read from the code, when the pages are built.

A line `<!-- generated: NAME -->` of a page is replaced by the Markdown that `GENERATED[NAME]` makes.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import pkgutil
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, fields
from functools import partial
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from scipy.stats import binomtest
from sphinx import addnodes
from sphinx.util import logging

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

ABSENT = ("verl", "vllm", "ray", "tensordict", "transfer_queue", "hydra", "omegaconf")
"""What `scale` extends. Taken for absent where it is installed, too: pages are the same everywhere, and built fast."""


class Absent(ModuleType):
    """A module that is not there, or anything in it: a base class that adds nothing, a decorator that changes nothing.

    Sphinx's own mocks would take the place of what they decorate.
    """

    __path__: Sequence[str] = ()

    def __getattr__(self, name: str) -> Absent:
        if name.startswith("_") and name != "__ray_metadata__":
            raise AttributeError(name)
        return Absent(f"{self.__name__}.{name}")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return args[0] if args and (inspect.isclass(args[0]) or inspect.isfunction(args[0])) else self

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[Any, ...]:
        return ()


class Absence(MetaPathFinder, Loader):
    """Finds an `Absent` for every module of `ABSENT`."""

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> ModuleSpec | None:
        return ModuleSpec(fullname, self, is_package=True) if fullname.split(".")[0] in ABSENT else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return Absent(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        pass


sys.meta_path.insert(0, Absence())

from paper_figs.figure import items  # noqa: E402
from scale.__main__ import COMMANDS  # noqa: E402
from scale.plugin.config import DynamoConfig  # noqa: E402
from scale.plugin.metrics import METRICS  # noqa: E402
from theory import __version__  # noqa: E402
from theory.allocation import ALLOCATORS, ORACLES, spends_in_rounds  # noqa: E402
from theory.claims import LEDGER, Author, Claim, Verdict  # noqa: E402
from theory.methods import METHODS  # noqa: E402
from toy.experiments import DEFAULT, HORIZONS, SWEEPS  # noqa: E402
from toy.training import TrainConfig, metrics as toy_metrics  # noqa: E402
from toy.worlds import WORLDS  # noqa: E402

project = "dynamo-testbed"
version = release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

html_math_renderer = "mathml"
myst_update_mathjax = False
smartquotes = False  # `--` is an option

default_role = "py:obj"  # `name` in a docstring
autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
maximum_signature_line_length = 88
napoleon_google_docstring = False
# The fields of a class are explained in its docstring; as entries of their own they would be there twice.
napoleon_custom_sections = [("Attributes", "params_style")]

html_theme = "alabaster"
html_title = f"{project} {release}"
html_copy_source = False
html_theme_options = {"page_width": "1100px", "fixed_sidebar": True, "description": "Theory, worlds and glue of DynaMO"}

logger = logging.getLogger(__name__)

LONGEST_VALUE = 80
"""Characters of a constant's value that are shown; longer ones are left to the source."""


def cell(text: object) -> str:
    """Return plain text as a table's cell: `code` stays, all else is shown as it is."""
    parts = re.split(r"(`[^`]*`)", str(text))
    return "".join(p.replace("|", r"\|") if p[:1] == "`" else re.sub(r"([\\*_\[\]<>|$~^])", r"\\\1", p) for p in parts)


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table; cells are plain text."""
    lines = [heads, ["---"] * len(heads), *([cell(x) for x in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def summary(thing: object) -> str:
    """Return the first sentence of a docstring."""
    return (inspect.getdoc(thing) or "").split("\n\n")[0].replace("\n", " ")


def apart(docstring: str) -> str:
    """Return a docstring whose entries `name : text` have the text on a line of its own, as napoleon wants it."""
    return re.sub(r"^(\w[\w, *]*) : (.+)$", r"\1\n    \2", docstring, flags=re.M)


def settings(cls: type) -> str:
    """Return the fields of a dataclass with their defaults, and what its docstring says of them."""
    docstring = apart(inspect.getdoc(cls) or "")
    section = re.search(r"^Attributes\n-+\n(.*?)(?=^\w+\n-+$|\Z)", docstring, re.M | re.S)
    assert section, cls
    entries = re.findall(r"^(\w.*)\n((?:[ ]+.*\n?|\n)+)", section[1], re.M)
    fields_left = {f.name: f for f in fields(cls)}
    rows = []
    for names, text in entries:
        each = names.split(", ")
        defaults = ", ".join(_default(fields_left.pop(name)) for name in each)
        rows.append((", ".join(f"`{name}`" for name in each), defaults, " ".join(text.split())))
    assert not fields_left, f"{cls.__name__}: nothing is said of {', '.join(fields_left)}"
    return table(("setting", "default", "what it is"), rows)


def _default(field: Field[Any]) -> str:
    if field.default is not MISSING:
        return f"`{field.default!r}`"
    return "required" if field.default_factory is MISSING else f"`{field.default_factory()!r}`"


def described(heads: Sequence[str], texts: Mapping[str, str]) -> str:
    """Return names and what they are."""
    return table(heads, ((f"`{name}`", text) for name, text in texts.items()))


def rules() -> str:
    """Return the allocation rules."""
    return table(
        ("rule", "what it does", "kind"),
        (
            (f"`{name}`", summary(type(rule)), "oracle" if name in ORACLES else "in rounds" * spends_in_rounds(rule))
            for name, rule in ALLOCATORS.items()
        ),
    )


def methods() -> str:
    """Return the methods and their parts."""
    parts = ("allocator", "advantage", "shaping", "loss", "entropy_bonus", "token_selection")
    return table(
        ("method", "title", "source", *parts),
        (
            (f"`{name}`", method.title, method.source, *(_part(getattr(method, part)) for part in parts))
            for name, method in METHODS.items()
        ),
    )


def _part(value: object) -> str:
    return "" if value is None else f"`{value}`" if isinstance(value, str) else f"`{type(value).__name__}`"


def ledger() -> str:
    """Return the rows of the ledger, as recorded, by who made the claim."""
    return table(
        ("row", "claim", "said by", "where", "judged for", "recorded verdict"),
        (
            (row.id, row.statement, row.said_by.value, row.source, row.regime, _recorded(row))
            for author in Author
            for row in LEDGER
            if row.said_by is author
        ),
    )


def _recorded(row: Claim) -> str:
    return row.recorded.value + " (by construction)" * row.by_construction


def sweeps() -> str:
    """Return the sweeps, those of `make reproduce` marked."""
    return table(
        ("sweep", "what is varied", "reproduces, or asks", "runs", "measures"),
        (
            (
                f"`{name}`" + " †" * (name in DEFAULT),
                sweep.title,
                sweep.reproduces,
                len(sweep.cells),
                ", ".join(f"`{measure}`" for measure in sweep.measures if measure not in HORIZONS)
                + ", `HORIZONS`" * (HORIZONS[0] in sweep.measures),
            )
            for name, sweep in SWEEPS.items()
        ),
    )


def worlds() -> str:
    """Return the worlds with their settings."""
    return table(
        ("world", "population", "settings"),
        (
            (
                f"`{name}`",
                f"`{type(world).__name__}`",
                ", ".join(f"`{f.name}={getattr(world, f.name)!r}`" for f in fields(world)),
            )
            for name, world in WORLDS.items()
        ),
    )


def modules(package: str) -> Iterator[str]:
    """Yield the names of a package's public modules, its own first."""
    yield package
    for module in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
        if not any(part.startswith("_") for part in module.name.split(".")):
            yield module.name


def constants(module: str) -> Iterator[tuple[str, str, str]]:
    """Yield the constants of a module, their values as they are written, and what is said of them."""
    body = ast.parse(inspect.getsource(importlib.import_module(module))).body
    for node, following in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value:
            said = following.value if isinstance(following, ast.Expr) else None
            said = said.value if isinstance(said, ast.Constant) else ""
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                for each in target.elts if isinstance(target, ast.Tuple) else [target]:
                    if isinstance(each, ast.Name) and not each.id.startswith("_"):
                        yield each.id, ast.unparse(node.value), inspect.cleandoc(said)


def left_out(name: str) -> Iterator[tuple[str, str, str]]:
    """Yield what autodoc passes over in a module, its value or "", and what is said of it.

    These are constants without a docstring, those of its own modules that it offers, and rows of the ledger.
    """
    module = importlib.import_module(name)
    for constant, value, said in constants(name):
        if not said:
            yield constant, value, ""
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, ast.FunctionDef) and isinstance(row := getattr(module, node.name), Claim):
            said = (ast.get_docstring(node) or "").replace("\n", " ")
            yield node.name, "", f"Row {row.id}: {row.statement} ({row.source}). {said}"
        elif isinstance(node, ast.ImportFrom) and f"{node.module}".startswith(f"{name}."):
            offered = {alias.name for alias in node.names} & set(getattr(module, "__all__", ()))
            yield from (constant for constant in constants(str(node.module)) if constant[0] in offered)


def inert(text: str) -> str:
    """Return plain text for reStructuredText: `code` stays, all else is shown as it is."""
    return re.sub(r"(`[^`]*`)|([|*\\_])", lambda m: m[1] or "\\" + m[2], text)


def handed_on(name: str) -> list[str]:
    """Return where the names are defined that a chapter hands on; nothing for another module."""
    chapter = importlib.import_module(name)
    if not Path(str(chapter.__file__)).with_suffix(".pyi").exists():
        return []
    stub = ast.parse(Path(str(chapter.__file__)).with_suffix(".pyi").read_text())
    return [
        f"{name}.{node.module}.{x.name}"
        for node in stub.body
        if isinstance(node, ast.ImportFrom) and node.module
        for x in node.names
    ]


def api(package: str) -> str:
    """Return a section for each module of a package; what a chapter hands on is explained where it is defined."""
    lines = []
    for name in modules(package):
        names = handed_on(name)
        lines += [f"### {name}", "", "```{eval-rst}", f".. automodule:: {name}", *["   :no-members:"] * bool(names), ""]
        if names:
            lines += [f"Names: {', '.join(f':py:obj:`~{x}`' for x in names)}.", ""]
        for thing, value, said in left_out(name):
            shown = [f"   :value: {value}"] * (0 < len(value) <= LONGEST_VALUE)
            lines += [f".. py:data:: {thing}", *shown, "", f"   {inert(said)}", ""]
        lines += ["```", ""]
    return "\n".join(lines)


def guides() -> str:
    """Return the pages that are no part's."""
    names = (
        "findings",
        "glossary",
        "statistics",
        "laptop-to-a100s",
        "audit",
        "provenance",
        "what-can-go-wrong",
        "faults",
        "mutants",
    )
    return "\n".join(name for name in names if (HERE / f"{name}.md").exists())


def tests_of(number: int) -> str:
    """Return the tests named after a fault's number, `test_R<number>_...`."""
    names = [
        f"`{path.relative_to(HERE.parent)}::{name}`"
        for path in sorted((HERE.parent / "tests").rglob("test_*.py"))
        for name in re.findall(r"^ *def (test_(?:R\d+_)+\w+)\(", path.read_text(), re.M)
        if f"R{number}_" in name
    ]
    assert names, f"R{number}: no test is named after it"
    return "\n".join(f"- {name}" for name in names)


def mutants() -> str:
    """Return the result of `make mutants`: counts of every sample, and its survivors."""
    counts, survivors = [], []
    for name, sample in json.loads((HERE / "mutants.json").read_text()).items():
        size, left = sample["faults"], sample["survivors"]
        counts.append((name, size, sample["timeouts"], *(_share(x, size) for x in (sample["at first"], len(left)))))
        survivors += [
            (name, f"`{x['path']}:{x['line']}`", *(f"`{line[2:]}`" for line in (x["diff"][0], x["diff"][-1])), x["why"])
            for x in left
        ]
    heads = ("sample", "faults", "ended by a time limit", "survived at first", "survives now")
    return f"{table(heads, counts)}\n\n{table(('sample', 'place', 'line', 'with the fault', 'why'), survivors)}"


def _share(count: int, size: int) -> str:
    interval = binomtest(count, size).proportion_ci(method="exact")
    return f"{count}: {count / size:.1%} [{interval.low:.1%}, {interval.high:.1%}]"


def meanings(kind: type[Author] | type[Verdict], heading: str) -> str:
    """Return what each author, or each verdict, of the ledger means."""
    body = ast.parse(inspect.getsource(kind)).body[0].body  # type: ignore[attr-defined]
    said = [ast.literal_eval(node.value) for node in body if isinstance(node, ast.Expr)][1:]
    return table((heading, "what it means"), ((x.value, text) for x, text in zip(kind, said, strict=True)))


NAME = ("metric", "what it is")
GENERATED: dict[str, Callable[[], str]] = {
    "authors": partial(meanings, Author, "said by"),
    **{f"tests of R{number}": partial(tests_of, number) for number in range(1, 17)},
    **{f"api {package}": partial(api, package) for package in ("theory", "toy", "scale", "paper_figs")},
    **{
        f"toy metrics {part}": partial(described, NAME, getattr(toy_metrics, part))
        for part in ("POLICY", "STEP", "DIAGNOSTICS")
    },
    "guides": guides,
    "items": lambda: table(
        ("name", "kind", "title", "needs"),
        (
            (f"`{name}`", type(item).__name__.lower(), item.title, f"`{item.made_by or 'make reproduce'}`")
            for name, item in items().items()
        ),
    ),
    "ledger": ledger,
    "methods": methods,
    "mutants": mutants,
    "rules": rules,
    "scale commands": partial(described, ("command", "what it does"), COMMANDS),
    "scale metrics": partial(described, NAME, METRICS),
    "scale settings": partial(settings, DynamoConfig),
    "sweeps": sweeps,
    "toy settings": partial(settings, TrainConfig),
    "verdicts": partial(meanings, Verdict, "verdict"),
    "worlds": worlds,
}


def expand(app: Any, docname: str, source: list[str]) -> None:
    """Replace the marked lines of a page."""
    source[0] = re.sub(r"^<!-- generated: (.+) -->$", lambda mark: GENERATED[mark[1]](), source[0], flags=re.M)


def plain(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Keep formulas of docstrings as they are written: |x| no substitution, a * b no emphasis; blocks after a colon."""
    lines[:] = apart("\n".join(lines)).split("\n")
    literal = False
    for i, line in enumerate(lines):
        indented = line.startswith(" ")
        literal = literal and (indented or not line)
        if literal or line.lstrip().startswith((">>>", "...")):
            continue
        lines[i] = re.sub(r"(`[^`]*`)|([|*\\])", lambda m: m[1] or "\\" + m[2], line)
        following = [*lines[i + 1 : i + 3], "", ""]
        if line.endswith(":") and not indented and not following[0] and following[1].startswith(" "):
            lines[i] += ":"
            literal = True


def shorten(app: Any, doctree: nodes.document) -> None:
    """Drop the values of constants that are pages long."""
    for signature in doctree.findall(addnodes.desc_signature):
        for node in list(signature.findall(addnodes.desc_annotation)):
            if node.astext().lstrip().startswith("=") and len(node.astext()) > LONGEST_VALUE:
                signature.remove(node)


def formula(translator: Any, node: nodes.math | nodes.math_block) -> None:
    """Write a formula as MathML: it needs no script and no network, and what cannot be converted is a warning."""
    block = isinstance(node, nodes.math_block)
    try:
        translator.body.append(tex2mathml(node.astext(), as_block=block))
    except MathError as error:
        logger.warning("%s: %s", node.astext(), error, location=node)
    raise nodes.SkipNode


def setup(app: Any) -> None:
    """Connect the functions above."""
    app.add_html_math_renderer("mathml", (formula, None), (formula, None))
    app.connect("source-read", expand)
    app.connect("autodoc-process-docstring", plain, priority=400)  # before napoleon
    app.connect("doctree-read", shorten)
