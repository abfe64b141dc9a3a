"""The estimate against real models: parameters, operations, caches, optimiser state; and its limits."""

from __future__ import annotations

import dataclasses
import math
import re
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import given, strategies as st

from scale.launch import estimate, estimate_report
from scale.launch.estimate import GIB
from scale.launch.job import Assumptions, Hardware, Job, Shape
from tests.scale.launch.conftest import model_config

CONF = Path(estimate.__file__).parents[1] / "conf"
MODELS = ("qwen2.5-math-1.5b", "qwen2.5-math-7b", "qwen3-14b")
SHAPES = {name: Shape(**yaml.safe_load((CONF / "model" / f"{name}.yaml").read_text())["shape"]) for name in MODELS}
SMALL = {
    "qwen2": Shape(3, 64, 160, 4, 2, 16, 300, False, True, False, 128),
    "qwen2-tied": Shape(2, 48, 96, 3, 1, 16, 200, True, True, False, 128),
    "qwen3": Shape(2, 48, 96, 4, 2, 32, 200, False, False, True, 128),
}
A100 = Hardware("A100", 80.0, 312.0, 2039.0)
GIVEN = Assumptions(0.4, 0.5, 2.0, 30.0, 1.2, 200, 1000)
JOB = Job(
    nodes=1,
    gpus=8,
    tensor_parallel=2,
    prompts=512,
    rollouts=16,
    mini_batch=32,
    steps=100,
    validation=960,
    validate_every=5,
    max_prompt=2048,
    max_response=8192,
    micro_batch=16384,
    micro_batch_forward=16384,
    utilization=0.8,
    max_sequences=1024,
    params_rest=True,
    optimizer_rests=True,
    params_on_host=False,
    reference=False,
    checkpointing=True,
    chunked=True,
    entropy_bonus=False,
    tempered=False,
    gradients_whole=False,
    flash=True,
    passes=5,
    reserve_gib=4.0,
)


def build(shape, device="meta"):
    """Return Transformers' model of a shape."""
    transformers = pytest.importorskip("transformers")
    config = model_config(shape, attn_implementation="sdpa")
    with torch.device(device), torch.random.fork_rng():
        return transformers.AutoModelForCausalLM.from_config(config)


# By hand, for Qwen2.5-Math-1.5B: 28 layers of width 1,536 (MLP 8,960), 12 heads and 2 for keys of 128, 151,936 tokens

ONE = SHAPES["qwen2.5-math-1.5b"]
P = 1_543_714_304


LAYER = 2 * 40_192
EMBEDDING = 151_936 * 1_536
GATHERED = 2 * (EMBEDDING + 2 * 46_797_824)


def test_every_part_of_the_memory_by_hand():
    """A layer's activations have 6 x 1,536 + 3 x 8,960 + 2 x (12 + 4) x 128 = 40,192 values a token."""
    found = estimate.memory(JOB, ONE, A100)
    assert found["generation"] == {
        "weights": 4 * P / 8 / GIB,
        "AdamW": 8 * P / 8 / GIB,
        "vLLM": 64.0,
        "reserve": 4.0,
    }
    assert found["old policy"] == {
        "weights": 4 * P / 8 / GIB,
        "AdamW": 8 * P / 8 / GIB,
        "gathered layers": GATHERED / GIB,
        "logits": 2 * 16384 * 151_936 / GIB,
        "entropy": 12 * 2048 * 151_936 / GIB,
        "reserve": 4.0,
    }
    assert found["update"] == {
        "weights": 4 * P / 8 / GIB,
        "gradients": 4 * P / 8 / GIB,
        "AdamW": 8 * P / 8 / GIB,
        "gathered layers": 2 * GATHERED / GIB,
        "activations": 1.3125,
        "logits": 2 * 16384 * 151_936 / GIB,
        "statistics": 0.625,
        "reserve": 4.0,
    }


def test_what_options_change_in_the_memory_by_hand():
    def changed(**changes):
        return estimate.memory(dataclasses.replace(JOB, **changes), ONE, A100)

    found = changed(checkpointing=False, chunked=False, params_rest=False, optimizer_rests=False)
    assert found["generation"] == {"vLLM": 64.0, "reserve": 4.0}
    assert "AdamW" not in found["old policy"]
    assert found["update"]["activations"] == 28 * 1.2265625
    assert found["old policy"]["entropy"] == 12 * 16384 * 151_936 / GIB
    assert changed(micro_batch_forward=1024)["old policy"]["entropy"] == 12 * 1024 * 151_936 / GIB
    assert changed(micro_batch_forward=1024)["update"] == changed()["update"]
    bonus = changed(entropy_bonus=True)["update"]
    assert (bonus["logits"], bonus["entropy"]) == (4 * 16384 * 151_936 / GIB, 12 * 16384 * 151_936 / GIB)
    assert changed(gradients_whole=True)["update"]["gradients"] == 4 * P / GIB
    warm = changed(tempered=True)
    assert warm["update"]["logits"] == warm["old policy"]["logits"] == 4 * 16384 * 151_936 / GIB
    slow = changed(flash=False)
    assert slow["update"]["logits"] == 6 * 16384 * 151_936 / GIB
    assert slow["update"]["attention mask"] == slow["old policy"]["attention mask"] == 0.75
    wide = dataclasses.replace(ONE, vocabulary=1000)
    found = estimate.memory(JOB, wide, A100)["update"]
    assert found["a layer"] == 2 * 16384 * LAYER / GIB, "with few words the logits are smaller than a layer"
    assert {"logits", "statistics"}.isdisjoint(found)
    assert estimate.memory(JOB, wide, A100)["old policy"]["a layer"] == 16384 * LAYER / GIB


def test_memory_of_the_hosts_by_hand():
    for changes, values in (
        ({}, 0),
        ({"reference": True}, 4),
        ({"params_rest": False}, 4),
        ({"optimizer_rests": False}, 8),
        ({"params_rest": False, "optimizer_rests": False, "reference": True}, 16),
        ({"params_on_host": True}, 16),
        ({"params_on_host": True, "reference": True}, 20),
    ):
        assert estimate.host_gib(dataclasses.replace(JOB, **changes), ONE) == values * P / GIB
    resting = estimate.memory(dataclasses.replace(JOB, params_on_host=True), ONE, A100)
    assert {"weights", "gradients", "AdamW"}.isdisjoint(set().union(*resting.values()))


@pytest.mark.parametrize(
    ("changes", "at_once"),
    # 8 GPUs are 4 engines, with 2,048 of the 8,192 rollouts each. A token takes 2 x 2 x 28 x 2 x 128 B in the cache.
    [
        ({}, 1024),
        ({"max_sequences": 4096}, 2048),
        ({"max_sequences": 4096, "utilization": 0.1}, (2 * (8.0 - 4.0) * 2**30 - 2 * P) / 28_672 / 1200),
        ({"utilization": 0.0681}, 1.0),
    ],
)
def test_seconds_of_a_step_by_hand(changes, at_once):
    """Prompts of 200 tokens and responses of 1,000; the longest has 8,192. 40 % of 312 TFLOPS, 50 % of 2,039 GB/s."""
    operations, bandwidth = 124.8e12, 1019.5e9
    read = 2 * P + at_once * 700 * 28_672
    one_token = (read / bandwidth + at_once * ONE.forward_flops(700) / operations) / 2 + 0.002
    generation = 2048 * 1000 / at_once * one_token + 7192 * ((2 * P / bandwidth) / 2 + 0.002)
    update = 8192 * 1200 * ONE.forward_flops(600) * 5 / (8 * operations)
    job = dataclasses.replace(JOB, validation=0, **changes)
    expected = {"generation": generation, "update": update, "validation": 0, "step": 1.2 * (generation + update)}
    assert estimate.step_seconds(job, ONE, A100, GIVEN) == pytest.approx(expected, rel=1e-9)
    job = dataclasses.replace(job, validation=8192, validate_every=4)
    assert estimate.validation_seconds(job, ONE, A100, GIVEN) == pytest.approx(generation, rel=1e-9)
    found = estimate.step_seconds(job, ONE, A100, GIVEN)
    assert found["step"] == pytest.approx(1.2 * (generation + update + generation / 4), rel=1e-9)


def test_seconds_without_flash_attn_by_hand():
    """A token attends to the micro-batch, and its log-softmax takes 30 microseconds: old policy, forward, backward."""
    update = 8192 * 1200 / 8 * (ONE.forward_flops(16384) * 5 / 124.8e12 + 3 * 30e-6)
    found = estimate.step_seconds(dataclasses.replace(JOB, flash=False), ONE, A100, GIVEN)
    assert found["update"] == pytest.approx(update, rel=1e-9)
    plain = dataclasses.replace(JOB, flash=False, checkpointing=False, passes=4)
    assert estimate.step_seconds(plain, ONE, A100, GIVEN)["update"] == pytest.approx(
        8192 * 1200 / 8 * (ONE.forward_flops(16384) * 4 / 124.8e12 + 3 * 30e-6), rel=1e-9
    )


# Against real models


@pytest.mark.parametrize(
    ("name", "published"),
    # What the hub shows for the checkpoints' safetensors.
    list(zip(MODELS, (1_543_714_304, 7_615_616_512, 14_768_307_200), strict=True)),
)
def test_parameters_of_the_papers_models(name, published):
    assert SHAPES[name].parameters == published


@pytest.mark.needs_verl
@pytest.mark.parametrize("shape", [*SHAPES.values(), *SMALL.values()], ids=[*SHAPES, *SMALL])
def test_parameters_are_transformers(shape):
    model = build(shape)
    parameters = {id(p): p.numel() for p in model.parameters()}  # tied ones once
    assert sum(parameters.values()) == shape.parameters
    assert sum(p.numel() for p in model.model.layers[0].parameters()) == shape.layer_parameters


@pytest.mark.needs_verl
@pytest.mark.parametrize("name", ["qwen2.5-math-7b", "qwen3-14b", "qwen2.5-math-1.5b"])
def test_operations_are_what_torch_counts(name):
    """Pairs of tokens in attention are all counted; norms, biases and softmax are left out by torch, and small."""
    from torch.utils.flop_counter import FlopCounterMode

    shape, tokens = dataclasses.replace(SHAPES[name], layers=2), 512
    with FlopCounterMode(display=False) as counter:
        build(shape)(torch.zeros(1, tokens, dtype=torch.long, device="meta"))
    assert counter.get_total_flops() == pytest.approx(tokens * shape.forward_flops(tokens), rel=2e-4)


@pytest.mark.needs_verl
@pytest.mark.parametrize("shape", SMALL.values(), ids=SMALL)
def test_cache_is_that_of_transformers(shape):
    with torch.no_grad():
        cache = build(shape, "cpu").bfloat16()(torch.zeros(1, 7, dtype=torch.long), use_cache=True).past_key_values
    sizes = [x.numel() * x.element_size() for layer in cache.layers for x in (layer.keys, layer.values)]
    assert sum(sizes) == 7 * shape.cache_bytes


@pytest.mark.needs_verl
def test_training_state_is_that_of_a_real_optimizer():
    shape = SMALL["qwen2"]
    model = build(shape, "cpu")
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.zeros(1, 5, dtype=torch.long)).logits.sum().backward()
    optimizer.step()
    state = sum(x.numel() * x.element_size() for s in optimizer.state.values() for x in s.values() if x.ndim)
    gradients = sum(p.grad.numel() * p.grad.element_size() for p in model.parameters())
    found = estimate.memory(dataclasses.replace(JOB, gpus=1), shape, A100)["update"]
    assert found["AdamW"] * GIB == pytest.approx(state)
    assert found["gradients"] * GIB == pytest.approx(gradients)
    assert found["weights"] * GIB == pytest.approx(4 * shape.parameters)


@pytest.mark.needs_verl
@pytest.mark.parametrize("shape", [SMALL["qwen2"], SMALL["qwen3"]], ids=["qwen2", "qwen3"])
def test_activations_are_near_those_that_torch_keeps(shape):
    """What a layer keeps for its backward pass, in bfloat16 and without weights; right to a factor of two."""
    tokens, kept = 64, {}
    model = build(dataclasses.replace(shape, vocabulary=4), "cpu").bfloat16()
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def keep(x):
        if x.untyped_storage().data_ptr() not in weights:
            kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        model(torch.zeros(1, tokens, dtype=torch.long))
    job = dataclasses.replace(JOB, micro_batch=tokens, checkpointing=False)
    expected = estimate.memory(job, shape, A100)["update"]["activations"] * GIB
    assert 0.5 < sum(kept.values()) / expected < 2


@pytest.mark.needs_verl
def test_a_log_softmax_without_flash_attn_is_some_three_launches_a_token_and_pass():
    """What `estimate.row_us` stands for: verl takes the rows of bfloat16 logits one by one; views launch nothing."""
    from collections import Counter

    from torch.utils._python_dispatch import TorchDispatchMode
    from verl.utils.torch_functional import logprobs_from_logits_v2

    class Launches(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if not (function.is_view or function is torch.ops.aten.detach.default):
                found[function.overloadpacket.__name__] += 1
            return function(*args, **(kwargs or {}))

    logits = torch.randn(100, 7).bfloat16().requires_grad_()
    found = Counter()
    with Launches():
        log_prob = logprobs_from_logits_v2(logits, torch.zeros(100, dtype=torch.int64))
    assert {name: n for name, n in found.items() if n >= 100} == {"_log_softmax": 100, "gather": 100}
    found.clear()
    with Launches():
        log_prob.sum().backward()
    backward = {"new_zeros", "scatter_add", "_log_softmax_backward_data"}
    assert {name for name, n in found.items() if n >= 100} == backward


# Memory


def test_memory_by_hand():
    """7.6e9 parameters on eight GPUs: 4, 4 and 8 bytes of each, an eighth to a GPU."""
    found = estimate.memory(JOB, SHAPES["qwen2.5-math-7b"], A100)
    assert found["update"]["weights"] == pytest.approx(7_615_616_512 * 4 / 8 / 2**30)
    assert found["update"]["a layer"] == pytest.approx(2 * 16384 * 87_552 * 2 / 2**30), "more than the logits"
    assert found["generation"]["vLLM"] == 64.0
    assert sum(found["generation"].values()) == pytest.approx(64 + 4 + 7_615_616_512 * 12 / 8 / 2**30)


def test_what_is_on_the_host_is_not_on_the_gpu():
    shape = SHAPES["qwen2.5-math-7b"]
    resting = estimate.memory(dataclasses.replace(JOB, params_rest=False, optimizer_rests=False), shape, A100)
    assert set(resting["generation"]) == {"vLLM", "reserve"}
    assert resting["update"] == estimate.memory(JOB, shape, A100)["update"]
    never = estimate.memory(dataclasses.replace(JOB, params_on_host=True), shape, A100)
    assert not {"weights", "gradients", "AdamW"} & set(never["update"])
    assert estimate.host_gib(JOB, shape) == 0
    assert estimate.host_gib(dataclasses.replace(JOB, optimizer_rests=False), shape) == pytest.approx(
        8 * shape.parameters / GIB
    )


@given(gpus=st.sampled_from([8, 16, 32]), tokens=st.integers(10240, 65536), chunked=st.booleans())
def test_more_gpus_and_smaller_micro_batches_take_less_memory(gpus, tokens, chunked):
    job, shape = dataclasses.replace(JOB, micro_batch=tokens, chunked=chunked), SHAPES["qwen3-14b"]
    job = dataclasses.replace(job, micro_batch_forward=tokens)
    less = dataclasses.replace(job, gpus=2 * gpus, micro_batch=10240, micro_batch_forward=10240)
    for phase, parts in estimate.memory(dataclasses.replace(job, gpus=gpus), shape, A100).items():
        assert sum(estimate.memory(less, shape, A100)[phase].values()) <= sum(parts.values())


def test_a_cache_without_room_for_a_sequence():
    tight = dataclasses.replace(JOB, utilization=0.2, tensor_parallel=1)
    assert any("KV cache holds" in x for x in estimate_report.shortages(tight, SHAPES["qwen2.5-math-7b"], A100))


# Time


def test_time_in_its_limits():
    """With endless bandwidth decoding is multiplication only; with endless compute, reading only."""
    shape = SHAPES["qwen2.5-math-7b"]
    fast = dataclasses.replace(A100, bandwidth_gb_s=1e15)
    tokens = 512 * 16 * 1000
    prompt = dataclasses.replace(GIVEN, decoding_ms=0.0)
    found = estimate.step_seconds(JOB, shape, fast, prompt)
    peak = 0.4 * 312e12 * 8
    assert found["generation"] == pytest.approx(tokens * shape.forward_flops(700) / peak, rel=1e-6)
    assert found["update"] == pytest.approx(512 * 16 * 1200 * shape.forward_flops(600) * 5 / peak)
    one = dataclasses.replace(JOB, prompts=4, rollouts=1, validation=0)  # one sequence for each of the four engines
    endless = dataclasses.replace(A100, bf16_tflops=1e12)
    weights, cache = 2 * shape.parameters, 700 * shape.cache_bytes
    seconds = (1000 * (weights + cache) + 7192 * weights) / 2 / (0.5 * 2039e9)
    found = estimate.step_seconds(one, shape, endless, prompt)
    assert found["generation"] == pytest.approx(seconds, rel=1e-6)
    assert found["step"] == pytest.approx(1.2 * seconds, rel=1e-6)


@given(
    name=st.sampled_from(MODELS),
    prompt=st.integers(1, 2048),
    response=st.integers(1, 8192),
    share=st.floats(0.1, 1.0),
    gpus=st.sampled_from([8, 16]),
)
def test_time_follows_what_is_asked_for(name, prompt, response, share, gpus):
    shape, job = SHAPES[name], dataclasses.replace(JOB, gpus=gpus)
    given_ = Assumptions(share, share, 0.0, 0.0, 1.0, prompt, response)
    found = estimate.step_seconds(job, shape, A100, given_)
    assert all(math.isfinite(x) and x > 0 for x in found.values())
    assert found["step"] == pytest.approx(found["generation"] + found["update"] + found["validation"])
    slower = dataclasses.replace(given_, compute_share=share / 2, bandwidth_share=share / 2)
    assert estimate.step_seconds(job, shape, A100, slower)["step"] == pytest.approx(2 * found["step"])
    more = estimate.step_seconds(dataclasses.replace(job, gpus=2 * gpus), shape, A100, given_)
    assert found["update"] == pytest.approx(2 * more["update"])
    assert more["step"] < found["step"]


# From a configuration


@pytest.mark.needs_verl
def test_report_is_a_range_with_its_formulas(tmp_path):
    from scale import launch

    config = launch.compose("qwen2.5-math-7b", out=tmp_path, overrides=["estimate.response_length=[1000,2000]"])
    found = estimate.needs(config)
    assert (found["gpus"], found["rollouts_per_step"], found["optimizer_steps_per_step"]) == (8, 8192, 16)
    assert found["tokens"] == [1_638_400 * 1150, 1_638_400 * 2300]
    low, high = found["gpu_hours"]
    assert low < high / 2
    assert found["gpu_hours"] == pytest.approx([x * 200 * 8 / 3600 for x in found["step_seconds"]["step"]])
    text = estimate_report.report(config)
    for words in (
        "8,192 a step",
        "1,638,400 in 200 steps",
        "GiB a GPU",
        "GPU-hours",
        "4 P / N bytes",
        "response_length 1000 to 2000",
        "30 rollouts every 5 steps",
    ):
        assert words in text
    assert "flash-attn" not in text


@pytest.mark.needs_verl
def test_validation_is_that_of_the_files_if_they_are_there(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    from scale import launch

    pq.write_table(pa.table({"x": range(7)}), tmp_path / "val.parquet")
    for overrides, rollouts in (
        (["data.val_files=/nowhere.parquet", "estimate.validation_prompts=11"], 11),
        ([f"data.val_files={tmp_path / 'val.parquet'}"], 7),
        ([f"data.val_files=[{tmp_path / 'val.parquet'},{tmp_path / 'val.parquet'}]"], 14),
        ([f"data.val_files={tmp_path / 'val.parquet'}", "actor_rollout_ref.rollout.val_kwargs.n=3"], 21),
        (["trainer.test_freq=-1"], 0),
    ):
        config = launch.compose("qwen2.5-math-7b", out=tmp_path, overrides=overrides)
        assert estimate.needs(config)["validation_rollouts"] == rollouts
    assert estimate.needs(config)["validation_seconds"] == [0, 0]
    assert "validation   none" in estimate_report.report(config)


@pytest.mark.needs_verl
def test_options_that_change_memory_are_read(tmp_path):
    from scale import launch

    def job(*overrides):
        return Job.from_config(launch.compose("qwen2.5-math-7b", out=tmp_path, overrides=overrides))

    actor = "actor_rollout_ref.actor"
    plain = job()
    assert (plain.flash, plain.entropy_bonus, plain.gradients_whole) == (True, False, False)
    assert job("dynamo.method=entropy-loss").entropy_bonus
    assert job(f"{actor}.calculate_entropy=true").entropy_bonus
    assert job(f"{actor}.fsdp_config.use_no_sync_for_gradient_accumulation=true").gradients_whole
    assert not plain.tempered
    assert job("actor_rollout_ref.rollout.temperature=0.6").tempered
    assert job(f"{actor}.ppo_max_token_len_per_gpu=20000").micro_batch_forward == 20000
    config = launch.compose(
        "qwen2.5-math-7b",
        out=tmp_path,
        overrides=["+actor_rollout_ref.model.override_config.attn_implementation=sdpa"],
    )
    assert not Job.from_config(config).flash
    assert "row_us in each pass" in estimate_report.report(config)


@pytest.mark.needs_verl
@pytest.mark.parametrize(
    ("overrides", "passes"),
    [
        (["dynamo.method=grpo"], 5),
        (["dynamo.method=grpo", "dynamo.scope=mini-batch"], 5),
        (["dynamo.method=dynamo"], 5),
        (["dynamo.scope=mini-batch"], 6),
        (["dynamo.method=clip-cov"], 6),
        (["dynamo.method=fork-tokens"], 6),
        (["dynamo.aggregation=prompt-mean"], 6),
        (["dynamo.stock=true", "dynamo.method=kl-cov"], 5),
        (["actor_rollout_ref.actor.use_kl_loss=true"], 6),
        (["actor_rollout_ref.model.enable_gradient_checkpointing=false"], 4),
    ],
)
def test_passes_are_those_of_the_trainer(tmp_path, overrides, passes):
    """A forward, a backward pass as two, one for the old policy; and what tokens are compared by, where they are."""
    from scale import launch

    config = launch.compose("qwen2.5-math-7b", out=tmp_path, overrides=overrides)
    assert Job.from_config(config).passes == passes


@pytest.mark.needs_verl
@pytest.mark.parametrize(
    ("model", "cluster", "more"),
    [
        ("qwen3-14b", "1x8-a100", []),
        ("qwen3-14b", "1xh200", []),
        ("qwen2.5-math-7b", "1x8-a100", ["actor_rollout_ref.actor.ppo_max_token_len_per_gpu=131072"]),
    ],
)
def test_advice_holds(tmp_path, model, cluster, more):
    """What does not fit is refused, and every change that the message names makes it fit."""
    from scale import launch

    config = launch.compose(model, cluster, out=tmp_path, overrides=more)
    with pytest.raises(
        ValueError, match=r"memory: expected a configuration that fits into \d+ x .*, got one in"
    ) as error:
        launch.check(config, tmp_path, files=False)
    changes = str(error.value).split("it fits with ")[1].split(" | ")
    assert changes
    for change in changes:
        launch.check(
            launch.compose(model, cluster, out=tmp_path, overrides=[*more, *change.split()]), tmp_path, files=False
        )
    launch.check(
        launch.compose(model, cluster, out=tmp_path, overrides=[*more, "estimate.enforce=false"]), tmp_path, files=False
    )


@pytest.mark.needs_verl
def test_the_tiny_model_has_counts_only(tmp_path):
    from scale import launch

    config = launch.compose("tiny", out=tmp_path, overrides=["tiny_folder=/nowhere"])
    assert estimate.needs(config)["rollouts"] == 40 * 32 * 8
    assert "no estimate of memory and time" in estimate_report.report(config)


# Bad input


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: dataclasses.replace(SMALL["qwen2"], layers=0), "shape.layers: expected"),
        (lambda: dataclasses.replace(SMALL["qwen2"], hidden=1.5), "shape.hidden: expected"),
        (lambda: dataclasses.replace(A100, memory_gib=0.0), "hardware.memory_gib: expected"),
        (lambda: dataclasses.replace(GIVEN, compute_share=1.2), "estimate.compute_share: expected"),
        (lambda: dataclasses.replace(GIVEN, overhead=0.9), "estimate.overhead: expected"),
        (lambda: dataclasses.replace(GIVEN, decoding_ms=-1.0), "estimate.decoding_ms: expected"),
        (lambda: dataclasses.replace(GIVEN, row_us=math.inf), "estimate.row_us: expected"),
        (lambda: dataclasses.replace(GIVEN, response_length=math.nan), "estimate.response_length: expected"),
    ],
)
def test_bad_numbers(make, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make()


@pytest.mark.needs_verl
@pytest.mark.parametrize("value", ["0.3", "[0.3]", "[0.3,0.2,0.1]"])
def test_an_assumption_is_a_pair(tmp_path, value):
    from scale import launch

    config = launch.compose("qwen2.5-math-7b", out=tmp_path, overrides=[f"estimate.compute_share={value}"])
    with pytest.raises(ValueError, match=r"estimate.compute_share: expected two numbers, \[cheap, expensive\], got"):
        launch.check(config, tmp_path, files=False)
