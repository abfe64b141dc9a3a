"""The settings of GPUs on four ranks over gloo: our engine and loss, on FSDP2 with Ulysses, beside one plain rank.

flash-attn is `tests.scale.flash_on_cpu`; Ray and vLLM are in `tests/scale/run/test_gpu_flags.py`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("verl")
import torch
import transformers

from scale import tiny

pytestmark = [pytest.mark.needs_verl, pytest.mark.long]

MODEL, ACTOR = "actor_rollout_ref.model", "actor_rollout_ref.actor"
METHOD = ("dynamo.method=dynamo", "dynamo.scope=mini-batch")
FLAGS = (
    f"{MODEL}.override_config.attn_implementation=flash_attention_2",
    f"{MODEL}.external_lib=tests.scale.flash_on_cpu",
    f"{MODEL}.enable_gradient_checkpointing=true",
    f"{ACTOR}.entropy_from_logits_with_chunking=true",
    f"{ACTOR}.entropy_checkpointing=true",
    f"{ACTOR}.ulysses_sequence_parallel_size=2",
    f"{ACTOR}.ppo_max_token_len_per_gpu=32",  # two micro-batches or more a rank
)
HALF = f"{ACTOR}.fsdp_config.mixed_precision.param_dtype=bf16"


def true_vocabulary(folder, source):
    """Write a model with the vocabulary of Qwen2.5 and one layer, beside the tiny task and its tokenizer."""
    folder.mkdir()
    for path in [*source.glob("*.parquet")]:
        (folder / path.name).write_bytes(path.read_bytes())
    torch.manual_seed(0)
    config = transformers.AutoConfig.from_pretrained(source / "model")
    config.vocab_size, config.num_hidden_layers, config.layer_types = 151_936, 1, config.layer_types[:1]
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder / "model")
    transformers.AutoTokenizer.from_pretrained(source / "model").save_pretrained(folder / "model")
    return folder


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Return what each setting gives."""
    folder = tmp_path_factory.mktemp("flags")
    tiny.make(folder / "tiny")
    small = (f"tiny_folder={folder / 'tiny'}", *METHOD)
    wide = (f"tiny_folder={true_vocabulary(folder / 'wide', folder / 'tiny')}", *METHOD)
    runs = {
        1: {"plain": small, "plain-wide": wide},
        4: {"flags": (*small, *FLAGS), "half": (*small, *FLAGS, HALF), "wide": (*wide, *FLAGS)},
    }
    for ranks, settings in runs.items():
        part = folder / f"{ranks}"
        part.mkdir()
        arguments = {"folder": str(part), "ranks": ranks, "settings": settings}
        (part / "arguments.json").write_text(json.dumps(arguments))
        command = [sys.executable, "-m", "tests.scale.plugin.ranks", str(part / "arguments.json")]
        environ = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=1200, check=False)
        assert done.returncode == 0, done.stderr[-4000:]
    return {
        name: torch.load(folder / f"{ranks}" / f"{name}.pt") for ranks, settings in runs.items() for name in settings
    }


@pytest.mark.parametrize(
    ("name", "like", "tolerance"),
    # float32 to rounding. bfloat16 has 8 bits: the logits of the tiny model, up to 10, have an error of .03.
    [("flags", "plain", 2e-5), ("wide", "plain-wide", 2e-5), ("half", "plain", 0.1)],
)
def test_every_token_is_as_on_one_plain_rank(found, name, like, tolerance):
    """Its probability, verl's entropy, and our three statistics, however sequences are packed, cut and gathered."""
    one, other = found[like]["tokens"], found[name]["tokens"]
    assert one.keys() == other.keys() == set(range(8))
    for row, values in one.items():
        assert len(values) == 5
        for key, x in values.items():  # the last token has none after it, and verl takes the next sequence's first one
            close = {"rtol": tolerance, "atol": tolerance, "msg": f"{name} {row} {key}"}
            torch.testing.assert_close(other[row][key][:-1], x[:-1], **close)


@pytest.mark.parametrize(
    ("name", "like", "tolerance"),
    # Random weights spread the gradient over 151,936 nearly equal probabilities, so that its sums cancel.
    [("flags", "plain", 1e-4), ("wide", "plain-wide", 3e-3), ("half", "plain", 0.1)],
)
def test_the_mini_batch_teaches_the_same(found, name, like, tolerance):
    """The loss, and every parameter's gradient by the norm of all: over micro-batches, Ulysses and ranks."""
    one, other = found[like], found[name]
    assert one["norm"] > 0.1
    assert one["grads"].keys() == other["grads"].keys()
    for key, x in one["grads"].items():
        assert (other["grads"][key] - x).norm() < tolerance * one["norm"], key  # a bias of keys has none but rounding
    assert other["norm"] == pytest.approx(one["norm"], rel=tolerance)
    for key, x in one["terms"].items():
        assert other["terms"][key] == pytest.approx(x, rel=tolerance, abs=tolerance), key
