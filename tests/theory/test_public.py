"""Rules that hold for every public name of `theory`: docstrings with a doctest, a fuzz test, no stray imports."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import numpy as np
import pytest
import torch

import theory
from tests.theory.fuzzing import leaves

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


def calls(module: ModuleType, function: FunctionType) -> list[inspect.BoundArguments]:
    """Return the arguments of the calls in a function's doctest, where they are as they should be."""
    signature, found = inspect.signature(function), []

    def recorder(*args: Any, **kwargs: Any) -> Any:
        found.append(signature.bind(*args, **kwargs))
        return function(*args, **kwargs)

    names = {**vars(module), function.__name__: recorder}
    for test in doctest.DocTestFinder(recurse=False).find(function, function.__name__, module=module, globs=names):
        doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(test)
    return found


def one_value(x: Any) -> Iterator[Any]:
    """Yield the first value of an array as a number, as NumPy's scalar, and as an array and a tensor []."""
    value = np.asarray(x).reshape(-1)[0]
    yield from (value.item(), value, np.asarray(value), torch.tensor(value.item()))
    if value.dtype.kind == "f":
        yield from (int(value), np.float32(value))


def is_numeric(x: Any) -> bool:
    """Return whether an argument is a non-empty array of numbers or booleans, or nested lists of them."""
    try:
        return isinstance(x, np.ndarray | list) and np.asarray(x).dtype.kind in "biuf" and np.size(x) > 0
    except ValueError:  # lists of several lengths
        return False


def outcome(function: FunctionType, arguments: Mapping[str, Any]) -> Any:
    """Return what a function returns; None for a ValueError, which must name an argument."""
    bound = inspect.signature(function).bind(**arguments)
    try:
        return function(*bound.args, **bound.kwargs)
    except ValueError as error:
        assert re.match(r"[\w, \[\]]+: expected ", str(error)), error
        return None


@pytest.mark.parametrize(("module", "function"), FUNCTIONS)
def test_one_value_in_place_of_an_array_is_taken_or_named(module: ModuleType, function: FunctionType):
    """Where it is taken, the result is that of an array filled with this value."""
    filled_alike = function.__name__ != "holm"  # One p-value is a family of one, not one of many that are equal.
    for call in calls(module, function):
        for name, x in call.arguments.items():
            for value in one_value(x) if is_numeric(x) else ():
                result = outcome(function, {**call.arguments, name: value})
                filled = np.full_like(np.asarray(x), value)
                expected = None if result is None else outcome(function, {**call.arguments, name: filled})
                if expected is not None and filled_alike:
                    for one, other in zip(leaves(result), leaves(expected), strict=True):
                        np.testing.assert_allclose(*np.broadcast_arrays(one, other), rtol=1e-6)


TAKE_NUMBERS = {
    "update_coefficient": "advantage ratio",
    "first_order": "coefficient",
    "first_order_sequence": "coefficient",
    "exact": "coefficient",
    "instability": "coefficient",
    "compensation": "entropy advantages",
    "stabilization": "instability",
    "entropy_advantages": "advantages entropy",
    "w_reinforce": "correct",
}
"""Arrays of any shape, for which a number may stand; those of the functions that convert what they get are not here."""


@pytest.mark.parametrize("name", TAKE_NUMBERS)
def test_a_number_is_taken_for_an_array(name: str):
    ((module, function),) = (param.values for param in FUNCTIONS if param.values[1].__name__ == name)
    call = calls(module, function)[0]
    for argument in TAKE_NUMBERS[name].split():
        for value in one_value(call.arguments[argument]):
            if not isinstance(value, torch.Tensor) or len(call.arguments) == 1:
                assert outcome(function, {**call.arguments, argument: value}) is not None


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
