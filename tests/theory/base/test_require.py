"""theory.base.require: every refusal names the argument, what was expected and what came."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import numpy as np
import pytest
import torch

from theory.base import require


@pytest.mark.parametrize(
    "value", [10**400, -(10**400), np.inf, -np.inf, np.nan, True, "1", None, Fraction(1, 2), 3.5, 1.0]
)
def test_in_range_refuses(value):
    with pytest.raises(ValueError, match=r"^alpha: expected a (finite )?number"):
        require.in_range("alpha", value, 1.0, 3.0, open_low=True)


def test_in_range_returns_a_float():
    for value in (2, 2.0, np.float32(2), np.int8(2)):
        got = require.in_range("alpha", value, 2.0, 3.0)
        assert type(got) is float
        assert got == 2.0


@pytest.mark.parametrize("value", [1.0, np.float64(1), True, "1", None, -1])
def test_count_refuses(value):
    with pytest.raises(ValueError, match=r"^budget: expected an integer"):
        require.count("budget", value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "non-empty 1-D array"),
        ([[1.0]], "non-empty 1-D array"),
        ([1.0, np.nan], "got nan at index 1"),
        ([2.0, -1.0], r"finite values in \[0.0, inf\], got -1.0 at index 1"),
        ([True], "numbers, got dtype bool"),
        (["a"], "numbers, got dtype"),
        ([[1.0], [1.0, 2.0]], "an array, got list"),
        ([1 + 2j], "numbers, got dtype complex128"),
    ],
)
def test_vector_refuses(value, message):
    with pytest.raises(ValueError, match=message) as refusal:
        require.vector("weights", value, low=0.0)
    assert str(refusal.value).startswith("weights: expected ")


@pytest.mark.parametrize("value", [2**63, 2**64 - 1])
def test_integers_beyond_64_bits_do_not_wrap_around(value):
    with pytest.raises(ValueError, match=f"n: expected integers >= 0 of at most 64 bits, got {value}"):
        require.integers("n", np.array([1, value], dtype=np.uint64))
    assert require.integers("n", np.array([2**63 - 1], dtype=np.uint64)).tolist() == [2**63 - 1]


def test_libraries_do_not_mix():
    with pytest.raises(ValueError, match="expected one array library, got a: numpy, b: torch"):
        require.namespace(a=np.zeros(1), b=torch.zeros(1))
    with pytest.raises(ValueError, match="b: expected an array, got list"):
        require.namespace(a=np.zeros(1), b=[0.0])


def test_unknown_and_unhashable_names():
    for name in ("gpro", ["grpo"], None):
        with pytest.raises(ValueError, match="method: expected one of grpo, dynamo, got"):
            require.one_of("method", name, ("grpo", "dynamo"))


def looked_at():
    """Return whether values are looked at."""
    try:
        require.values("x", np.array([-1.0]), "values >= 0", lambda x: x >= 0)
    except ValueError:
        return True
    return False


def test_trust_ends_with_its_block_and_stays_in_its_thread():
    assert looked_at()
    with require.trusted():
        assert not looked_at()
        with require.trusted():
            assert not looked_at()
        assert not looked_at()
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(looked_at).result()
    assert looked_at()
    with pytest.raises(KeyError), require.trusted():
        raise KeyError
    assert looked_at()
    assert not require.trusted()(looked_at)()
    assert looked_at()


@pytest.mark.parametrize("as_array", [np.asarray, torch.asarray])
@pytest.mark.parametrize("value", [1, 1.5, np.float64(1.5), np.float32(1.5), np.int8(1)])
def test_a_number_becomes_an_array_like_the_largest(as_array, value):
    """Of its library, dtype and shape, wherever it stands; other values are left as they are."""
    one, three = as_array(np.zeros((), np.float32)), as_array(np.zeros(3, np.float32))
    for given in ({"a": value, "b": one, "c": three}, {"a": value, "b": three, "c": one}):
        found = require.alike(**given)
        assert {(type(x), x.dtype, tuple(x.shape)) for x in found} == {(type(three), three.dtype, (3,))}
        assert found[0].tolist() == [float(value)] * 3
    for left in (True, "1", None, [1.5], 1j, Fraction(1, 2)):
        assert require.alike(a=left, b=three)[0] is left
    assert require.alike(a=value, b=as_array(np.zeros(3, int)))[0] is value


def test_an_array_of_another_library_is_left_alone():
    for one, three in ((torch.tensor(1.5), np.zeros(3)), (np.array(1.5), torch.zeros(3))):
        assert require.alike(a=one, b=three)[0] is one


def test_a_number_beyond_the_dtype_is_named():
    for value in (1e39, -1e39, np.inf, np.nan, 10**400):
        with pytest.raises(ValueError, match=r"^a: expected a finite number in"):
            require.alike(a=value, b=np.zeros(3, np.float32))
