"""Runs on another device: with none at hand, on one that is made up, and on CUDA where it is.

The made-up device does what the CPU does, but like CUDA it refuses tensors of the CPU beside its own, and hides its
values from NumPy. Torch takes it for "meta", whose tensors have no values; here they have.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

from tests.theory.waits import Waits
from theory.base import require
from theory.losses import Modulation, modulate
from theory.methods import METHODS
from theory.policy import token_statistics
from toy.training import loop as trainers
from toy.training.config import OptimizerConfig
from toy.training.loop import get_device, train
from toy.training.step import step

AWAY = torch.device("meta")


class Away(torch.Tensor):
    """A tensor of the made-up device; `held` are its values."""

    held: torch.Tensor

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> Away:
        """Make one of the values that it holds."""
        made = torch.Tensor._make_wrapper_subclass(
            cls, held.shape, strides=held.stride(), dtype=held.dtype, device=AWAY, requires_grad=False
        )
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return on_one_device(func, args, kwargs or {})


class MadeUp(TorchDispatchMode):
    """Sends what is made on the device there too."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return on_one_device(func, args, kwargs or {})


class Asarray(TorchFunctionMode):
    """Makes `torch.asarray` a copy from the CPU, for it alone makes tensors without being dispatched."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.asarray and isinstance(args[0], Away):
            return args[0].to(kwargs.get("dtype") or args[0].dtype)
        if func is torch.asarray and kwargs.get("device") == AWAY:
            return func(*args, **{**kwargs, "device": "cpu"}).to(AWAY)
        return func(*args, **kwargs)


def on_one_device(func: Any, args: Any, kwargs: Any) -> Any:
    """Call an operation on the values of its tensors; they must be on one device, numbers apart."""
    tensors = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, torch.Tensor)]
    away = any(isinstance(x, Away) for x in tensors)
    target = kwargs.get("device")
    if func not in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default):
        here = [x for x in tensors if not isinstance(x, Away) and x.ndim > 0]
        if away and here:
            raise RuntimeError(f"{func}: expected all tensors on one device, got one of shape {tuple(here[0].shape)}")
    if target is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
        away = torch.device(target) == AWAY
    elif func is torch.ops.aten.copy_.default:
        away = isinstance(args[0], Away)
    args, kwargs = tree_map(lambda x: x.held if isinstance(x, Away) else x, (args, kwargs))
    found = func(*args, **kwargs)
    return tree_map(lambda x: Away(x) if away and isinstance(x, torch.Tensor) else x, found)


@pytest.fixture
def away(monkeypatch):
    """Let "cuda" be the made-up device."""
    monkeypatch.setattr(trainers, "get_device", lambda name: AWAY if name == "cuda" else torch.device(name))
    with MadeUp(), Asarray():
        yield


def test_the_made_up_device_refuses_tensors_of_the_cpu(away):
    mine = torch.arange(3, device=AWAY)
    assert mine.device == AWAY
    assert (mine + 1).cpu().tolist() == [1, 2, 3]
    with pytest.raises(RuntimeError, match="expected all tensors on one device"):
        mine + torch.arange(3)
    with pytest.raises((TypeError, RuntimeError)):
        mine.numpy()


@pytest.mark.parametrize("world", ["mixed", "skills"])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_runs_on_another_device(method, world, small, away):
    """To the bits of the CPU, for the made-up device computes as it does."""
    config = small(method, world, num_seeds=2, num_steps=2, diagnose_every=2 if method == "dynamo" else 0)
    found, expected = train(config, device="cuda"), train(config)
    np.testing.assert_array_equal(found.logits, expected.logits)
    for name, values in expected.metrics.items():
        np.testing.assert_array_equal(found.metrics[name], values, err_msg=name)


@pytest.mark.parametrize("mode", ["token-mean", "prompt-mean", "sequence-mean"])
@pytest.mark.parametrize("method", METHODS)
def test_no_function_of_theory_waits_for_the_device(method, mode, small, away):
    config = small(method, "skills", num_seeds=2, num_steps=1)
    config = replace(config, method=replace(config.method, aggregation=mode))
    trainer = trainers.Trainer(config, device="cuda")
    with Waits() as waits:
        step(trainer.setup, trainer.state)
    assert not waits.found


def test_waiting_would_be_noticed(away):
    """Each check of values waits where they are not trusted."""
    stats = token_statistics(torch.zeros((2, 3), device=AWAY), torch.zeros(2, dtype=torch.int64, device=AWAY))
    advantages = torch.ones(2, device=AWAY)
    with Waits() as waits:
        modulate(advantages, stats, advantages > 0, Modulation())
    assert len(waits.found) > 10
    with Waits() as waits, require.trusted():
        modulate(advantages, stats, advantages > 0, Modulation())
        assert not waits.found
        advantages[advantages > 0].cpu()
    assert not waits.found  # outside of `theory`


@pytest.mark.parametrize("mode", ["token-mean", "prompt-mean", "sequence-mean"])
def test_a_run_moves_between_devices(mode, small, away, tmp_path):
    config = small("dynamo", num_steps=4, optimizer=OptimizerConfig(name="adamw", learning_rate=0.1))
    config = replace(config, method=replace(config.method, aggregation=mode))
    train(replace(config, num_steps=2), out=tmp_path, device="cuda")
    np.testing.assert_array_equal(train(config, out=tmp_path).logits, train(config).logits)
    found = trainers.files.read_json(tmp_path / trainers.runs.VERSIONS_FILE)
    assert found["device"] == "cpu"
    assert [part["device"] for part in found["earlier"]] == ["cuda"]


def test_devices_are_checked_before_any_work(small, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="device: expected one of cpu, cuda, got 'tpu'"):
        train(small(), device="tpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="device: expected cpu, for torch finds no CUDA device, got cuda"):
        train(small(), out=tmp_path / "run", device="cuda")
    assert not (tmp_path / "run").exists()
    assert get_device("cpu") == torch.device("cpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("method", METHODS)
def test_cuda_agrees_up_to_rounding(method, small):
    config = small(method, num_steps=3)
    np.testing.assert_allclose(train(config, device="cuda").logits, train(config).logits, rtol=1e-7, atol=1e-7)
