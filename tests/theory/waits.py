"""Which operations of `theory` would make a program wait for its GPU."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

THEORY = str(Path(__file__).parents[2] / "theory")

NUMBERS = ("_local_scalar_dense", "item", "equal", "is_nonzero")
SHAPES = ("nonzero", "masked_select", "unique", "_unique", "_unique2", "unique_dim", "unique_consecutive", "bincount")
"""Operations whose result is a number, and those whose result has a shape that depends on the values."""


class Waits(TorchDispatchMode):
    """Collects the operations that wait, as long as a function of `theory` is running."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        place = _place()
        if place and _waits(func, args, kwargs):
            self.found.append(f"{func} at {place}")
        return func(*args, **kwargs)


def _waits(func: Any, args: Any, kwargs: Any) -> bool:
    name = func._schema.name.removeprefix("aten::")
    if name in NUMBERS + SHAPES:
        return True
    if name.rstrip("_") in ("index", "index_put"):
        return any(x is not None and x.dtype in (torch.bool, torch.uint8) for x in args[1])
    if name in ("_to_copy", "copy_"):
        source = args[0] if name == "_to_copy" else args[1]
        target = kwargs.get("device") if name == "_to_copy" else args[0].device
        return target is not None and torch.device(target).type == "cpu" and _device(source) != "cpu"
    return False


def _device(x: Any) -> str:
    return next(part.device.type for part in tree_flatten(x)[0] if isinstance(part, torch.Tensor))


def _place() -> str | None:
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_filename.startswith(THEORY):
            return f"{frame.f_code.co_filename.removeprefix(THEORY)}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return None
