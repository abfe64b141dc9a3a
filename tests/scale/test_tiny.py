"""The tiny setting: its prompts, tokenizer, model and reward."""

from __future__ import annotations

import json
import re
from importlib.util import find_spec

import numpy as np
import pyarrow.parquet as pq
import pytest

from scale import tiny

# One process makes the folder once.
pytestmark = [pytest.mark.needs_verl, pytest.mark.xdist_group("tiny")]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny") / "made"
    return folder, tiny.make(folder)


def test_prompts_are_right_and_disjoint(made):
    """Every ground truth is the value of its question; no key twice, none in both files."""
    rows = {name: pq.read_table(made[0] / f"{name}.parquet").to_pylist() for name in ("train", "val")}
    assert {name: len(x) for name, x in rows.items()} == {"train": 155 - 64, "val": 64}
    keys, indices = [], []
    for row in [*rows["train"], *rows["val"]]:
        question = row["prompt"][0]["content"]
        first, sign, second = re.fullmatch(r"(\d)([+-])(\d)", question).groups()
        value = int(first) + int(second) if sign == "+" else int(first) - int(second)
        assert row["reward_model"] == {"ground_truth": str(value), "style": "rule"}
        keys.append(row["extra_info"]["key"])
        indices.append(row["extra_info"]["index"])
    assert len(set(keys)) == 155
    assert sorted(indices) == list(range(155))
    assert {row["extra_info"]["level"] for row in rows["val"]} == set(tiny.LEVELS)


def test_success_rates_differ_widely(made):
    """Some prompts nearly always right, some seldom; the order of the levels is that of the warm-up."""
    rates = made[1]["success_rates"]
    low, _, middle, _, high = rates["all"]
    assert low < 0.25
    assert 0.3 < middle < 0.7
    assert high > 0.8
    assert rates["sum"][2] > rates["difference"][2] > rates["sum with carry"][2]


def test_the_stated_rates_are_those_of_sampling(made):
    """By the model in Transformers: 200 responses to every held-out prompt, within 4 standard errors."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    chat = AutoTokenizer.from_pretrained(made[0] / "model")
    model = AutoModelForCausalLM.from_pretrained(made[0] / "model")
    rows = pq.read_table(made[0] / "val.parquet").to_pylist()
    texts = [chat.apply_chat_template(row["prompt"], tokenize=False, add_generation_prompt=True) for row in rows]
    tokens = torch.tensor([chat(text).input_ids for text in texts])
    torch.manual_seed(0)
    repeated = tokens.repeat_interleave(50, 0)
    out = model.generate(repeated, attention_mask=torch.ones_like(repeated), do_sample=True, top_k=0, max_new_tokens=6)
    found = [chat.decode(x[tokens.shape[1] :], skip_special_tokens=True) for x in out]
    score = [
        tiny.compute_score("", text, rows[i // 50]["reward_model"]["ground_truth"]) for i, text in enumerate(found)
    ]
    quantiles = made[1]["success_rates"]["all"]
    assert abs(np.mean(score) - np.mean(quantiles)) < 0.1
    assert 0.2 < np.mean(score) < 0.8


def test_tokenizer_spells_every_text(made):
    from transformers import AutoTokenizer

    chat = AutoTokenizer.from_pretrained(made[0] / "model")
    for text in ("3+4", "12\n", " a b", "Grüße, 世界 🙂"):
        assert chat.decode(chat(text).input_ids) == text
    assert len(chat("\n").input_ids) == 1
    assert chat.convert_tokens_to_ids("<|im_end|>") == chat.eos_token_id
    text = chat.apply_chat_template([{"role": "user", "content": "3+4"}], tokenize=False, add_generation_prompt=True)
    assert text == "<|im_start|>user\n3+4<|im_end|>\n<|im_start|>assistant\n"
    assert json.loads((made[0] / "model" / "config.json").read_text())["vocab_size"] == len(chat)


def test_the_same_seed_makes_the_same_files(made, tmp_path, monkeypatch):
    """Of the prompts to the byte; of the weights, after a short warm-up."""
    train, held_out = tiny.split(0)
    assert (train, held_out) == tiny.split(0)
    assert train != tiny.split(1)[0]
    monkeypatch.setattr(tiny, "RIGHT_STEPS", 2)
    monkeypatch.setattr(tiny, "UNSURE_STEPS", 2)
    weights = []
    for name in ("a", "b"):
        tiny.make(tmp_path / name)
        weights.append((tmp_path / name / "model" / "model.safetensors").read_bytes())
        assert (tmp_path / name / "train.parquet").read_bytes() == (made[0] / "train.parquet").read_bytes()
    assert weights[0] == weights[1]


def test_a_folder_is_made_whole_or_not_at_all(made, tmp_path, monkeypatch):
    monkeypatch.setattr(tiny, "warm_up", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        tiny.make(tmp_path / "x")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / ".x.partial").mkdir()  # of a killed call
    (tmp_path / ".x.partial" / "train.parquet").touch()
    with pytest.raises(ZeroDivisionError):
        tiny.make(tmp_path / "x")
    assert list(tmp_path.iterdir()) == []
    assert tiny.make(made[0])["seed"] == 0  # found, not made


def test_other_folders_are_refused(made, tmp_path):
    with pytest.raises(ValueError, match="expected the tiny setting asked for, got one that differs in seed"):
        tiny.make(made[0], seed=3)
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="expected an empty folder or the tiny setting, got other files"):
        tiny.make(tmp_path)
    (tmp_path / "tiny.manifest.json").write_text("{")
    with pytest.raises(ValueError, match=r"tiny.manifest.json: expected JSON that ends with its checksum"):
        tiny.make(tmp_path)


@pytest.mark.parametrize(
    ("response", "score"),
    [("7", 1.0), (" 7\n", 1.0), ("07", 0.0), ("7.", 0.0), ("7?", 0.0), ("", 0.0), ("77", 0.0), ("x" * 100_000, 0.0)],
)
def test_score(response, score):
    assert tiny.compute_score("tiny-arithmetic", response, "7", extra_info={"key": "k"}, more=1) == score
    assert find_spec("scale.tiny")
