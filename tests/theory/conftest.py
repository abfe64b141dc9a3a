"""Backends and dtypes: every array-API function of `theory` is tested on NumPy and torch, float64 and float32."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch


@dataclass(frozen=True)
class Backend:
    """Puts NumPy data on a backend at a float dtype, and takes results back as float64 NumPy."""

    name: str
    dtype: str

    def __call__(self, x: Any) -> Any:
        """Return `x` on the backend; floats get the backend's dtype, other dtypes are kept."""
        array = np.asarray(x)
        if array.dtype.kind == "f":
            array = array.astype(self.dtype)
        return torch.tensor(array) if self.name == "torch" else array

    def numpy(self, x: Any) -> np.ndarray:
        """Return `x` as NumPy, floats as float64, after checking that the backend and the dtype were kept."""
        expected = torch.Tensor if self.name == "torch" else np.ndarray
        assert isinstance(x, (expected, np.generic)), f"{type(x)} on backend {self.name}"
        array = x.detach().numpy() if isinstance(x, torch.Tensor) else np.asarray(x)
        if array.dtype.kind == "f":
            assert array.dtype == np.dtype(self.dtype), f"dtype {array.dtype}, expected {self.dtype}"
            array = array.astype(np.float64)
        return array

    @property
    def rtol(self) -> float:
        """Relative tolerance of a well-conditioned result."""
        return 1e-12 if self.dtype == "float64" else 2e-5


@pytest.fixture(
    params=[("numpy", "float64"), ("numpy", "float32"), ("torch", "float64"), ("torch", "float32")],
    ids=lambda p: "-".join(p),
)
def backend(request: pytest.FixtureRequest) -> Backend:
    """Each of the four combinations of library and dtype."""
    return Backend(*request.param)


@pytest.fixture
def rng() -> np.random.Generator:
    """Return a generator with a fixed seed."""
    return np.random.default_rng(20260222)
