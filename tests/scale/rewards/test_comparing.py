"""Reading and comparing in the worker: what replaces parts of Math-Verify, and that it is in force."""

from __future__ import annotations

from importlib.util import find_spec
from types import SimpleNamespace

import pytest

if find_spec("math_verify") is None:
    pytest.skip("needs Math-Verify", allow_module_level=True)

import sympy
from hypothesis import given, settings, strategies as st
from math_verify import grader

from scale.rewards import comparing
from scale.rewards.comparing import equal, read, same


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("sympy_numeric_eq", "same"),
        ("sympy_compare_symbols", "_same_symbols"),
        ("sympy_deep_compare_set_and_tuple", "_same_elements"),
        ("sympy_compare_sets", "_same_sets"),
        ("sympy_solve_and_compare", "_same_solutions"),
        ("sympy_expr_eq", "_same_answers"),
    ],
)
def test_what_is_replaced_is_called(name, ours, monkeypatch):
    """Math-Verify calls these functions by their names in its module; another version may not."""
    assert getattr(grader, name) is getattr(comparing, ours)

    def stop(*_, **__):
        raise InterruptedError

    calls = {
        "sympy_numeric_eq": ("2x+1", "1+2x+0"),
        "sympy_compare_symbols": ("x", "y"),
        "sympy_deep_compare_set_and_tuple": (r"\{1,2\}", r"\{1,3\}"),
        "sympy_compare_sets": ("[1,2]", "[1,3]"),
        "sympy_solve_and_compare": ("2x=4", "x=3"),
        "sympy_expr_eq": ("1", "2"),
    }
    monkeypatch.setattr(grader, name, stop)
    try:
        equal(*calls[name])
        caught = name == "sympy_solve_and_compare"  # Math-Verify catches what this raises
    except InterruptedError:
        caught = True
    assert caught


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        ("0.1", sympy.Rational(1, 10)),
        (r"9.28 \times 10^2", sympy.Integer(928)),
        ("2(3)", sympy.Integer(6)),
        (r"2\frac{1}{2}", sympy.Rational(5, 2)),
        (r"2\frac12", sympy.Rational(5, 2)),
        ("2.5(4)", sympy.Integer(10)),
        ("10^-3", sympy.Rational(1, 1000)),
        (r"12.5\%", sympy.Rational(1, 8)),
        ("3i^2", sympy.Integer(-3)),
        (r"\sqrt\pi", sympy.sqrt(sympy.pi)),
    ],
)
def test_read(answer, value):
    from scale.rewards.spelling import plain

    found = read(plain(answer), True).doit()
    assert found == value
    assert not found.has(sympy.Float)


@pytest.mark.parametrize(
    "answer", ["2 3", r"1,2,\ldots", "{}", "5 = 6 = 5", r"\frac{1}{0}", r"5 \approx 6", r"\frac{1}{"]
)
def test_unreadable(answer):
    with pytest.raises(Exception):  # noqa: B017  latex2sympy has no type of its own
        read(answer, True)


def test_symbols():
    """The letter i is a number or a symbol, I and E are symbols; M is not m."""
    assert read("i", True) == sympy.I
    assert read("i", False).is_Symbol
    assert read("I", True).is_Symbol
    assert read("E", True).is_Symbol
    assert read("e", True) == sympy.E
    assert read("M", True) != read("m", True)
    assert read("E_{1}", True) == read("E_1", True)
    assert read("52_8", True) != read("52_9", True)


@given(st.fractions(), st.fractions())
def test_rational_numbers_are_compared_exactly(one, other):
    comparing._leeway.rounded = False
    assert same(sympy.Rational(one), sympy.Rational(other)) == (one == other)


@settings(deadline=None, max_examples=30)
@given(st.integers(-60, 60), st.integers(1, 50), st.integers(0, 60))
def test_the_size_does_not_matter(power, root, other):
    """Numbers are equal or not whatever factor both have; the factor is no power of ten alone."""
    scale = sympy.Rational(10) ** power * sympy.sqrt(7)
    assert same(scale * sympy.sqrt(root), scale * sympy.sqrt(other)) == (root == other)


@pytest.mark.parametrize(
    ("decimal", "number", "equal_to"),
    [
        ("0.333333", sympy.Rational(1, 3), True),
        ("0.333334", sympy.Rational(1, 3), False),
        ("0.33333", sympy.Rational(1, 3), False),
        ("33333.3", sympy.Rational(100000, 3), True),
        ("0.000333333", sympy.Rational(1, 3000), True),
        ("0.00033333", sympy.Rational(1, 3000), False),
        ("-1.41421", -sympy.sqrt(2), True),
        ("1.41422", sympy.sqrt(2), False),
        ("0.1250001", sympy.Rational(1, 8), False),
        ("141421", 100000 * sympy.sqrt(2), False),
    ],
)
def test_decimals_of_endless_numbers(decimal, number, equal_to):
    """Six digits, correctly rounded; a number with finitely many decimals has no other."""
    comparing._leeway.rounded = True
    assert same(number, sympy.Rational(decimal)) is equal_to
    assert same(sympy.Rational(decimal), number) is equal_to


def test_a_rounded_number_is_written_as_a_decimal():
    """A fraction of integers is exact."""
    assert equal(r"\frac{1}{3}", "0.333333")
    assert not equal(r"\frac{1}{3}", r"\frac{333333}{1000000}")


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("(x+1)^2", "x^2+2x+1", True),
        ("(x+1)^2", "x^2+2x+1+10^{-20}", False),
        (r"\sqrt{x^2}", "x", False),
        (r"\sqrt{x^2}", "|x|", True),
        (r"\frac{x}{y}", r"\frac{y}{x}", False),
        ("xy", "yx", True),
        (r"\sin 2x", r"2\sin x\cos x", True),
        ("f(x)+1", "1+f(x)", True),
        ("f(x)+1", "f(x)", False),
        (r"\ln(x^2)", r"2\ln x", True),
        (r"\sqrt{\frac{1}{n}}", r"\frac{1}{\sqrt{n}}", True),
        ("0<x<1", "1>x>0", True),
        ("0<x<1", "1>x>-1", False),
        ("0<x<1", "0,1", False),
        ("(1,2)", r"\{1,2\}", False),
        (r"\{1,2,3\}", "(1,2,3)", False),
        (r"\angle ABC", r"\angle ACB", False),
        (r"\max(x,y)", "x", False),
        (r"\lfloor\frac{n}{2}\rfloor", r"\lfloor\frac{n}{3}\rfloor", False),
        (r"\lfloor\frac{2n-1}{5}\rfloor", r"\lfloor\frac{2n-2}{5}\rfloor", False),
        (r"mn-\lfloor m/2\rfloor", r"nm-\lfloor\frac{m}{2}\rfloor", True),
        (r"\binom{n}{2}", r"\frac{n(n-1)}{2}", True),
        ("n!", r"\frac{(n+1)!}{n+1}", True),
        (r"\frac{d!}{2k(d-k)!}", r"\frac{d!}{3k(d-k)!}", False),
        (r"\frac{d!}{2k(d-k)!}", r"\frac{d!}{k(d-k)!2}", True),
        (r"\gamma^{2}-1", r"\gamma^{3}-1", False),
        (r"\gamma^2 m", r"m\gamma^{2}", True),
        ("16,3,1,1", "16,3,1", False),
        ("16,3,1,1", "1,16,1,3", True),
        ("-2,-2", "-2", False),
    ],
)
def test_expressions(one, other, expected):
    assert equal(one, other) is expected


def test_a_hidden_zero():
    assert same(sympy.sqrt(2) * sympy.sqrt(3) - sympy.sqrt(6), sympy.Integer(0))
    assert same(sympy.sqrt(sympy.Integer(5) + 2 * sympy.sqrt(6)) - sympy.sqrt(2) - sympy.sqrt(3), sympy.Integer(0))
    assert not same(sympy.Rational(1, 10**60), sympy.Integer(0))
    assert not same(sympy.sqrt(2) / 10**60, sympy.Integer(0))


def test_the_fast_way_of_reading_is_the_full_one(monkeypatch):
    """ANTLR's fast prediction reads as its full one does, wherever it reads at all."""
    fast = [read(x, True) for x in comparing.USUAL]
    read.cache_clear()
    full = comparing.PredictionMode.LL
    monkeypatch.setattr(comparing, "PredictionMode", SimpleNamespace(SLL=full, LL=full))
    assert [read(x, True) for x in comparing.USUAL] == fast
    read.cache_clear()
