"""Draws of vLLM by seed and position: numbers, exact distributions, and engines that interrupt and mix requests."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("verl")
import scipy.stats
import torch

from scale.launch import cpu_environment
from scale.plugin.config import VLLM_ON_CPU
from scale.plugin.vllm_sampling import BLOCK, SeededSampler, draw, seed_rows, streams, uniforms

pytestmark = pytest.mark.needs_verl

ROOT = Path(__file__).parents[3]
MODULUS = 1 << 64
FALSE_ALARM = 1e-6
"""Probability that a chi-square test fails although all is right; seeds are fixed, so it passes always or never."""


def split_mix(x):
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x = (x ^ x >> shift) * factor % MODULUS
    return x ^ x >> 31


def expected(seed, number):
    """Return what `uniforms` promises, in Python's integers."""
    return (split_mix((split_mix(seed) + (number + 1) * 0x9E3779B97F4A7C15) % MODULUS) >> 11) * 2.0**-53


def test_numbers_are_splitmix64():
    """Published: the first outputs of the generator for the seed 1234567."""
    first = [split_mix((1234567 + (i + 1) * 0x9E3779B97F4A7C15) % MODULUS) for i in range(3)]
    assert first == [6457827717110365317, 3203168211198807973, 9817491932198370423]
    seeds, positions = [0, 1, 2**31 - 1, 2**62 + 3, 5], [0, 10239, 7, 2**31 - 1, 131071]
    found = uniforms(streams(torch.tensor(seeds)), torch.tensor(positions, dtype=torch.int32)).tolist()
    assert found == [expected(*x) for x in zip(seeds, positions, strict=True)]


@pytest.mark.parametrize("along", ["seed", "position"])
def test_neighbours_are_independent(along):
    """Pairs of neighbouring streams, and of neighbouring numbers of a stream: uniform over a grid of 32 x 32."""
    seeds, positions = (x.ravel() for x in torch.meshgrid(torch.arange(512), torch.arange(512), indexing="ij"))
    numbers = uniforms(streams(seeds), positions).view(512, 512).numpy()
    pair = (numbers[:-1], numbers[1:]) if along == "seed" else (numbers[:, :-1], numbers[:, 1:])
    counts, *_ = np.histogram2d(pair[0].ravel(), pair[1].ravel(), bins=32, range=[[0, 1]] * 2)
    assert scipy.stats.chisquare(counts.ravel()).pvalue > FALSE_ALARM


def measures(probabilities):
    """Return the share of random numbers that draw every token, by bisection over the multiples of 2^-53."""
    size = len(probabilities)
    rows, tokens = probabilities.expand(size, size), torch.arange(size)
    low, high = torch.zeros(size, dtype=torch.int64), torch.full((size,), 1 << 53)
    while (low < high).any():  # the first number that draws the token or a later one
        middle = (low + high) // 2
        there = draw(rows, middle.double() * 2.0**-53) >= tokens
        low, high = torch.where(there, low, middle + 1), torch.where(there, middle, high)
    return torch.diff(low, append=torch.tensor([1 << 53])).double() * 2.0**-53


@pytest.mark.parametrize("size", [2, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK, 1000])
@pytest.mark.parametrize("spread", [0.0, 4.0, 30.0])
def test_every_token_has_its_probability(size, spread):
    """Within the stated error, from 1 down to 1e-40, for tokens that top-p left out too."""
    torch.manual_seed(size)
    probabilities = (spread * torch.randn(size)).softmax(0)
    probabilities[torch.rand(size) < 0.2] = 0
    probabilities[-1] = 1e-12
    exact = probabilities.double() / probabilities.double().sum()
    found = measures(probabilities)
    assert ((found - exact).abs() <= 2e-6 * exact + 1e-15).all()
    assert (found[probabilities == 0] == 0).all()


def test_rare_tokens_behind_a_certain_one():
    """A float32 running sum would stand still at 1: 300 tokens of 1e-9 each have 3e-7 together."""
    probabilities = torch.cat((torch.ones(1), torch.full((300,), 1e-9)))
    found = measures(probabilities)
    assert torch.allclose(found[1:], torch.full((300,), 1e-9, dtype=torch.float64), rtol=2e-6, atol=1e-15)


def test_the_last_number_draws_a_token_that_can_be():
    last = torch.full((3,), 1 - 2.0**-53, dtype=torch.float64)
    rows = torch.rand(3, 2 * BLOCK + 5)
    rows[0, 700:] = rows[1, BLOCK:] = rows[2, 1:] = 0
    assert draw(rows, last).tolist() == [699, BLOCK - 1, 0]
    # An index out of range would end a device's process.
    assert draw(torch.full((1, 9), torch.nan), last[:1]).tolist() == [0]


def sampler(mode="raw_logprobs"):
    from vllm.v1.sample.ops.topk_topp_sampler import TopKTopPSampler

    return SeededSampler(TopKTopPSampler(mode))


@pytest.mark.parametrize(("k", "p"), [(None, None), (5, None), (None, 0.7), (20, 0.8)])
def test_chi_square_over_seeds(k, p):
    """Of 40,000 seeds at one position, after vLLM's own top-k and top-p."""
    from vllm.v1.sample.ops.topk_topp_sampler import apply_top_k_top_p

    torch.manual_seed(0)
    number, logits = 40_000, torch.randn(1, 50)
    limits = [None if x is None else torch.tensor([x]) for x in (k, p)]
    probabilities = apply_top_k_top_p(logits.clone(), *limits).softmax(-1).double().squeeze(0)
    made = sampler()
    made.numbers = uniforms(streams(torch.arange(number)), torch.tensor(77))
    rows = [None if x is None else x.expand(number).clone() for x in limits]
    counts = made(logits.repeat(number, 1), {}, *rows)[0].bincount(minlength=50)
    there = probabilities > 0
    assert counts[~there].sum() == 0
    assert there.sum() == 50 if k is p is None else 1 < there.sum() < 50
    shares = probabilities[there] / probabilities[there].sum()
    assert scipy.stats.chisquare(counts[there].numpy(), (number * shares).numpy(), sum_check=False).pvalue > FALSE_ALARM


@pytest.mark.parametrize("mode", ["raw_logprobs", "processed_logits", "processed_logprobs"])
def test_what_vllm_reports_is_what_it_reports_itself(mode):
    torch.manual_seed(1)
    logits, p = torch.randn(4, 30), torch.full((4,), 0.9)
    made = sampler(mode)
    want = made(logits.clone(), {}, None, p)[1]  # without numbers: vLLM's own
    made.numbers = uniforms(streams(torch.arange(4)), torch.arange(4))
    tokens, found = made(logits.clone(), {}, None, p)
    assert found is want is None or torch.equal(found, want)
    assert found is None or torch.isfinite(found.gather(1, tokens.unsqueeze(1))).all()


def test_a_row_does_not_depend_on_the_others():
    torch.manual_seed(2)
    rows, numbers = (3 * torch.randn(64, 5000)).softmax(1), torch.rand(64, dtype=torch.float64)
    tokens, order = draw(rows, numbers), torch.randperm(64)
    assert torch.equal(draw(rows[order], numbers[order]), tokens[order])
    assert torch.cat([draw(rows[i : i + 1], numbers[i : i + 1]) for i in range(64)]).equal(tokens)


def test_numbers_follow_their_requests():
    """As vLLM moves requests between rows; a request without a seed has numbers of its own, other ones every time."""
    seeds = {"a": 3, "b": 4}
    requests = {name: SimpleNamespace(sampling_params=SimpleNamespace(seed=seed)) for name, seed in seeds.items()}
    runner = SimpleNamespace(requests=requests, device="cpu", seq_lens=torch.tensor([10, 20, 0, 0], dtype=torch.int32))
    runner.input_batch = SimpleNamespace(req_ids=["a", "b"], sampling_metadata=object())
    made = sampler()
    assert made.numbers_of(runner).tolist() == [expected(3, 10), expected(4, 20)]
    runner.seq_lens += 1
    assert made.numbers_of(runner).tolist() == [expected(3, 11), expected(4, 21)]
    requests["c"] = SimpleNamespace(sampling_params=SimpleNamespace(seed=None))
    runner.input_batch = SimpleNamespace(req_ids=["b", "c"], sampling_metadata=object())
    found = [made.numbers_of(runner).tolist() for _ in range(2)]
    assert [x[0] for x in found] == [expected(4, 11)] * 2
    assert found[0][1] != found[1][1]


def test_speculative_decoding_is_refused():
    with pytest.raises(ValueError, match="speculative_config: expected none, since"):
        seed_rows(SimpleNamespace(use_v2_model_runner=False, speculative_config=object()))


MODEL = """
import sys
from transformers import Qwen2Config, Qwen2ForCausalLM
import torch

torch.manual_seed(0)
sizes = dict(vocab_size=3000, hidden_size=64, intermediate_size=64, num_hidden_layers=1)
heads = dict(num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=512)
model = Qwen2ForCausalLM(Qwen2Config(initializer_range=0.3, **sizes, **heads))
model.save_pretrained(sys.argv[1])
"""

ENGINE = """
import json, sys
import vllm

folder, blocks, budget = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
llm = vllm.LLM(folder, dtype="float32", enforce_eager=True, skip_tokenizer_init=True, max_model_len=256, block_size=32,
               max_num_seqs=24, max_num_batched_tokens=budget, num_gpu_blocks_override=blocks,
               enable_prefix_caching=False, disable_log_stats=False,
               worker_extension_cls="scale.plugin.evaluation_worker.EvaluationWorker")
prompts = {seed: [7 + seed % 5] * (30 + 17 * (seed % 3)) for seed in range(24)}

def drawn(seeds, length=60, begun=None):
    asked = [vllm.SamplingParams(seed=x, max_tokens=length - len(begun[x] if begun else ()), detokenize=False,
                                 ignore_eos=True, logprobs=0, top_p=0.9 if x % 2 else 1.0) for x in seeds]
    given = [{"prompt_token_ids": prompts[x] + (begun[x] if begun else [])} for x in seeds]
    outs = [out.outputs[0] for out in llm.generate(given, asked, use_tqdm=False)]
    logprobs = {x: [float(y[t].logprob) for t, y in zip(o.token_ids, o.logprobs)] for x, o in zip(seeds, outs)}
    return {x: (begun[x] if begun else []) + list(o.token_ids) for x, o in zip(seeds, outs)}, logprobs

seeds = list(prompts)
found = {"all": drawn(seeds), "reversed": drawn(seeds[::-1]), "some": drawn(seeds[5:9])}
found["in two turns"] = drawn(seeds, begun=drawn(seeds, 40)[0])
[preempted] = [x.value for x in llm.get_metrics() if x.name == "vllm:num_preemptions"]
print(json.dumps({"found": found, "preempted": preempted}))
"""


@pytest.fixture(scope="module")
def engines(tmp_path_factory):
    """Tokens and log-probabilities of 24 requests by a roomy engine, and by one that preempts and prefills in parts."""
    folder = tmp_path_factory.mktemp("vllm")
    environ = cpu_environment(folder / "environment") | VLLM_ON_CPU
    model = str(folder / "model")
    subprocess.run([sys.executable, "-c", MODEL, model], env=environ, check=True)

    def run(blocks, budget):
        words = [sys.executable, "-c", ENGINE, model, str(blocks), str(budget)]
        said = subprocess.run(words, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
        assert said.returncode == 0, said.stderr[-3000:]
        return json.loads(said.stdout.splitlines()[-1])

    return run(400, 4096), run(20, 48)


@pytest.mark.long
def test_a_token_depends_on_seed_and_position_alone(engines):
    """Not on neighbours, order of arrival, preemption, prefill in parts, turns, or the engine."""
    roomy, narrow = engines
    assert (roomy["preempted"], narrow["preempted"] > 0) == (0, True)
    tokens = roomy["found"]["all"][0]
    assert len({tuple(x) for x in tokens.values()}) == 24
    for engine in engines:
        for name, (found, _) in engine["found"].items():
            assert found == {seed: tokens[seed] for seed in found}, name


@pytest.mark.long
def test_reported_log_probabilities_are_those_of_the_tokens(engines):
    """The model's, found again when other requests are beside it: what the trainer takes a ratio of."""
    want = engines[0]["found"]["all"][1]
    for engine in engines:
        for found, logprobs in (engine["found"]["reversed"], engine["found"]["some"]):
            for seed in found:
                assert np.allclose(logprobs[seed], want[seed], atol=1e-4)
    assert -8 < np.mean([x for row in want.values() for x in row]) < -0.5
