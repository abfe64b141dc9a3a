"""Rules that hold for every public name of `theory`: docstrings with a doctest, a fuzz test, no stray imports."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from pathlib import Path
from types import FunctionType, ModuleType

import pytest

import theory

ROOT = Path(__file__).parents[2]
INTERNAL = (
    "theory.__main__",
    "theory.base",
    "theory.claims",
    "theory.allocation.rules.",
    "theory.allocation.bounds",
    "theory.estimators.group_gradient",
    "theory.losses.checks",
)
"""Beginnings of modules that the chapters do not hand on; what they do is tested through those that call them."""

MODULES = [
    importlib.import_module(module.name)
    for module in pkgutil.walk_packages(theory.__path__, "theory.")
    if not module.name.startswith(INTERNAL)
]


def public(module: ModuleType) -> dict[str, object]:
    """Public functions and classes defined in a module."""
    return {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (inspect.isclass(value) or isinstance(value, FunctionType))
        and value.__module__ == module.__name__
    }


FUNCTIONS = [
    pytest.param(module, value, id=f"{module.__name__}.{name}")
    for module in MODULES
    for name, value in public(module).items()
    if isinstance(value, FunctionType)
]


@pytest.mark.parametrize(("module", "function"), FUNCTIONS)
def test_function_is_documented_and_fuzzed(module: ModuleType, function: FunctionType):
    doc = inspect.getdoc(function) or ""
    arguments = set(inspect.signature(function).parameters)
    if shared := re.search(r"Arguments (and result )?as in [^.]*", doc):
        chapter = importlib.import_module(module.__name__.rpartition(".")[0])
        functions = [getattr(chapter, name) for name in re.findall(r"`(\w+)`", shared[0])]
        assert arguments <= {name for other in functions for name in inspect.signature(other).parameters}
    assert shared or "Parameters\n" in doc or not arguments
    assert (shared and shared[1]) or "Returns\n" in doc
    assert doctest.DocTestParser().get_examples(doc)
    chapter = ROOT.joinpath("tests", *module.__name__.split(".")[:2])
    tests = chapter.rglob("test_*.py") if chapter.is_dir() else [chapter.with_name(f"test_{chapter.name}.py")]
    assert any(f"def test_fuzz_{function.__name__}(" in path.read_text() for path in tests)


STOCK = "not as above|out of range|unknown|(shapes|lengths|types) (differ|do not fit)|not (finite|an? (int|num))|As `"
"""What a Raises section repeats of the rule that every function checks its arguments and raises ValueError."""

SOURCES = sorted((ROOT / "theory").rglob("*.py"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_raises_sections_do_not_repeat_the_general_rule(path: Path):
    for section in re.findall(r"Raises\n +-+\n((?: +\S.*\n)+)", path.read_text()):
        assert not re.search(STOCK, section), section


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_classes_are_documented(module: ModuleType):
    for name, value in public(module).items():
        assert inspect.getdoc(value), name
        for attribute, method in vars(value).items() if inspect.isclass(value) else ():
            if not attribute.startswith("_") and isinstance(method, (FunctionType, property, classmethod)):
                assert inspect.getdoc(method), f"{name}.{attribute}"


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_doctests_run(module: ModuleType):
    result = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.failed == 0


def loaded(statement: str) -> set[str]:
    """Top-level modules that a fresh interpreter has loaded after a statement."""
    code = f"import sys; {statement}; print(*{{name.split('.')[0] for name in sys.modules}})"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(run.stdout.split())


CHAPTERS = [module for module in MODULES if hasattr(module, "__path__")]


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda module: module.__name__)
def test_chapters_hand_on_their_names(chapter: ModuleType):
    for name in chapter.__all__:
        assert hasattr(chapter, name), name


@pytest.mark.parametrize("chapter", [c for c in CHAPTERS if c.__name__.count(".") == 1], ids=lambda c: c.__name__)
def test_chapters_load_nothing_before_it_is_used(chapter: ModuleType):
    assert not {"torch", "scipy", "numpy"} & loaded(f"import {chapter.__name__}")


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_theory_imports_run_one_way_and_load_no_torch(module: ModuleType):
    others = {"toy", "scale", "paper_figs", "verl", "vllm", "gymnasium", "matplotlib", "seaborn", "pandas"}
    assert not (others | {"torch"}) & loaded(f"import {module.__name__}")
