"""What a step of decoding pays for draws by seed and position (`--benchmark-enable -s` tells): ours against vLLM's own.

Passes over arrays of requests x vocabulary, softmax apart, and kernels as large as that, by reading the code:

=====================  ======  ======  =======  ====================================================
                       reads   writes  kernels  more arrays of that size
=====================  ======  ======  =======  ====================================================
vLLM, no seed          3       2       3        the noise
vLLM, seeds            3       2       2 + B    the noise, filled by a kernel for each of B requests
ours                   1       0       1        none; 50 small kernels, over B rows or their blocks
=====================  ======  ======  =======  ====================================================

At 1,024 requests and 152,000 words, such an array has 620 MB. No GPU was used: what these numbers come to there is
untried. On a CPU (one core, 64 requests, a busy machine) ours took 0.02 s, and vLLM's 1.1 to 1.8 s with and without
seeds. There the noise itself is slow, and how many calls draw it matters little.
"""

from __future__ import annotations

import time

import pytest

pytest.importorskip("vllm")
import torch
from vllm.v1.sample.ops.topk_topp_sampler import random_sample

from scale.plugin.vllm_sampling import draw, streams, uniforms

pytestmark = pytest.mark.needs_verl

VOCABULARY = 151_936


def seconds(function):
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


@pytest.mark.benchmark(group="sampling")
def test_draws(benchmark):
    requests = 4 if benchmark.disabled else 64
    probabilities = torch.randn(requests, VOCABULARY).softmax(-1)
    started, positions = streams(torch.arange(requests)), torch.full((requests,), 1000, dtype=torch.int32)
    generators = {i: torch.Generator().manual_seed(i) for i in range(requests)}
    ways = {
        "ours": lambda: draw(probabilities, uniforms(started, positions)),
        "vLLM, seeds": lambda: random_sample(probabilities.clone(), generators),
        "vLLM, no seed": lambda: random_sample(probabilities.clone(), {}),
    }
    found = {name: min(seconds(way) for _ in range(1 if benchmark.disabled else 5)) for name, way in ways.items()}
    benchmark.extra_info |= found
    print({name: f"{1e3 * x:.1f} ms, {x / found['ours']:.1f} times ours" for name, x in found.items()})
    benchmark.pedantic(ways["ours"], rounds=1)
