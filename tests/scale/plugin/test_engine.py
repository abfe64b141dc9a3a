"""Token statistics of the engine, on the model's outputs as verl hands them over: packed, and padded on the right."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

pytest.importorskip("verl")
import torch
from tensordict import TensorDict
from transformers.modeling_outputs import CausalLMOutput
from verl.utils import tensordict_utils as tu
from verl.utils.torch_functional import entropy_from_logits_with_chunking as verls_entropy
from verl.workers.config import FSDPEngineConfig
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead

from scale.plugin.engine import LOOK_AHEAD, STATISTICS, TOKEN_STATISTICS, VERLS_ENTROPY, StatisticsEngine
from theory.policy import token_statistics

pytestmark = pytest.mark.needs_verl

LENGTHS, VOCABULARY = (3, 5, 2), 7


@pytest.mark.parametrize("packed", [True, False], ids=["packed", "padded"])
@pytest.mark.parametrize("unit", [True, False], ids=["temperature 1", "several temperatures"])
def test_statistics_are_those_of_the_policy_that_samples(packed, unit, monkeypatch):
    """At each sequence's own temperature; verl's outputs stay, and what fills up the rows is left out."""
    monkeypatch.setattr(FSDPEngineWithLMHead, "prepare_model_outputs", lambda self, *_: {"log_probs": "verl's"})
    draw = torch.Generator().manual_seed(0)
    logits = [torch.randn(n, VOCABULARY, generator=draw) for n in LENGTHS]
    temperature = torch.ones(3) if unit else torch.tensor([0.5, 1.0, 2.0])
    actions = torch.randint(VOCABULARY, (sum(LENGTHS),), generator=draw)
    given = {"temperature_is_one": unit}
    if packed:
        padded = torch.cat([*logits, torch.randn(4, VOCABULARY, generator=draw)])[None]
        each = temperature.repeat_interleave(torch.tensor(LENGTHS))
        given |= {"temperature_rmpad": torch.cat([each, torch.ones(4)]), "pad_size": 4}
        given["input_ids_rmpad_rolled"] = torch.cat([actions, torch.zeros(4, dtype=torch.int64)])
    else:
        padded = torch.nn.utils.rnn.pad_sequence(logits, batch_first=True, padding_value=9.0)
        given |= {"temperature": temperature, "input_ids_rmpad_rolled": actions}
    ids = torch.nested.as_nested_tensor([torch.zeros(n, dtype=torch.int64) for n in LENGTHS], layout=torch.jagged)
    engine = StatisticsEngine.__new__(StatisticsEngine)
    engine.use_ulysses_sp = False
    asked = TensorDict({"input_ids": ids}, batch_size=len(LENGTHS))
    tu.assign_non_tensor_data(asked, TOKEN_STATISTICS, True)
    found = engine.prepare_model_outputs(CausalLMOutput(logits=padded.clone()), given, asked, None)
    assert found.pop("log_probs") == "verl's"
    assert set(found) == set(STATISTICS)
    start = 0
    for i, (n, own) in enumerate(zip(LENGTHS, logits, strict=True)):
        expected = token_statistics(own / temperature[i], actions[start : start + n])
        start += n
        for name, x in zip(STATISTICS, expected[1:], strict=True):
            torch.testing.assert_close(found[name][i], x, rtol=1e-5, atol=1e-6, msg=name)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("padded", [0, 4], ids=["alone", "filled up"])
def test_verl_computes_an_entropy_only_where_it_has_a_gradient(padded, dtype):
    """Through verl's own code: elsewhere `entropy` is ours, equal to verl's; verl's other outputs stay."""
    draw = torch.Generator().manual_seed(1)
    num = sum(LENGTHS)
    logits = torch.randn(1, num + padded, 50, generator=draw).to(dtype).requires_grad_()
    rolled = torch.randint(50, (num + padded,), generator=draw)
    given = {"input_ids_rmpad_rolled": rolled, "temperature_rmpad": torch.ones(num + padded), "pad_size": padded}
    ids = torch.nested.as_nested_tensor([torch.zeros(n, dtype=torch.int64) for n in LENGTHS], layout=torch.jagged)
    engine = StatisticsEngine.__new__(StatisticsEngine)
    engine.use_ulysses_sp = False
    engine.engine_config = FSDPEngineConfig(strategy="fsdp2", entropy_from_logits_with_chunking=True)
    calls = []
    engine.compute_entropy_from_logits = lambda *x, **options: [calls.append(1), verls_entropy(*x, **options)][1]

    def outputs(statistics, entropy=True):
        asked = TensorDict({"input_ids": ids}, batch_size=len(LENGTHS))
        tu.assign_non_tensor(asked, **{TOKEN_STATISTICS: statistics, VERLS_ENTROPY: entropy})
        calls.clear()
        found = engine.prepare_model_outputs(CausalLMOutput(logits=logits), dict(given), asked, None)
        assert tu.get(asked, VERLS_ENTROPY) == entropy
        return found, len(calls)

    with torch.no_grad():
        (ours, without), (verls, alone) = outputs(True), outputs(False)
        assert "entropy" not in outputs(True, entropy=False)[0]
    assert (without, alone) == (0, 1)
    assert ours.keys() == verls.keys() | set(STATISTICS)
    assert torch.equal(ours["log_probs"].values(), verls["log_probs"].values())
    torch.testing.assert_close(ours["entropy"].values(), verls["entropy"].values(), rtol=1e-5, atol=1e-6)
    learnt, times = outputs(True)
    assert times == 1
    (gradient,) = torch.autograd.grad(learnt["entropy"].values().sum(), logits)
    assert gradient.abs().sum() > 0


def test_a_mini_batch_is_looked_at_ahead_where_the_data_ask_for_it(monkeypatch):
    """Before it is learnt from, and not where nothing is learnt."""
    seen = []

    def forward(self, data, loss, forward_only=False):
        seen.append((loss is not None, forward_only))
        return {"model_output": "outputs"}

    monkeypatch.setattr(FSDPEngineWithLMHead, "forward_backward_batch", forward)
    engine = StatisticsEngine.__new__(StatisticsEngine)
    engine.get_data_parallel_group = lambda: "group"
    loss = SimpleNamespace(prepare=lambda outputs, data, group: seen.append((outputs, group)))
    for asks, only, expected in (
        (True, False, [(False, True), ("outputs", "group"), (True, False)]),
        (True, True, [(True, True)]),
        (False, False, [(True, False)]),
    ):
        seen.clear()
        engine.forward_backward_batch({LOOK_AHEAD: asks}, loss, only)
        assert seen == expected
