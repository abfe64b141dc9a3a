"""The embedded setting: a tiny Qwen2, its tokenizer and an arithmetic task of mixed difficulty, made in seconds.

The model is warmed up on sums whose stated results are right only some of the time, less often for harder sums: it then
knows how to add and is unsure, so that success rates differ widely over prompts and reinforcement has what to learn
from. Held-out prompts are in the warm-up but not in `train.parquet`.

`compute_score` is the reward function that verl calls. Nothing heavy is imported before it is needed.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
from pathlib import Path
from typing import Any, NamedTuple

LEVELS = {"two digits": 0.85, "with tens": 0.5, "three digits": 0.25}
"""Kinds of sums, and how often the warm-up states the right result: 3 + 4, 27 + 4, 3 + 4 + 5."""

NUM_TRAIN, NUM_HELD_OUT = 320, 64

HIDDEN, LAYERS, HEADS = 64, 2, 2  # a head of 32: vLLM's CPU attention has no smaller one

STEPS, BATCH, LEARNING_RATE = 500, 128, 4e-3

MANIFEST = "manifest.json"

VERSION = 1


class Sum(NamedTuple):
    """A prompt: its text, its result, and its level."""

    question: str
    answer: str
    level: str

    @property
    def key(self) -> str:
        """Hash of the text."""
        return hashlib.sha256(self.question.encode()).hexdigest()[:16]


def compute_score(
    data_source: str, solution_str: str, ground_truth: str, extra_info: dict[str, Any] | None = None, **kwargs: Any
) -> float:
    """Return 1.0 if the response, without surrounding space, is the result, else 0.0.

    Examples
    --------
    >>> compute_score("tiny-arithmetic", " 12 ", "12"), compute_score("tiny-arithmetic", "012", "12")
    (1.0, 0.0)
    """
    return float(solution_str.strip() == ground_truth)


def sums() -> list[Sum]:
    """Return every sum of the task.

    Examples
    --------
    >>> len(sums()), sums()[0]
    (1500, Sum(question='0+0', answer='0', level='two digits'))
    """
    digits = range(10)
    found = [((a, b), "two digits") for a in digits for b in digits]
    found += [((a, b), "with tens") for a in range(10, 50) for b in digits]
    found += [((a, b, c), "three digits") for a in digits for b in digits for c in digits]
    return [Sum("+".join(map(str, terms)), str(sum(terms)), level) for terms, level in found]


def split(seed: int) -> tuple[list[Sum], list[Sum]]:
    """Return the prompts to train on and those held out, disjoint, all levels alike in both."""
    rng = random.Random(seed)
    by_level = {level: [x for x in sums() if x.level == level] for level in LEVELS}
    train: list[Sum] = []
    held_out: list[Sum] = []
    for number, members in enumerate(by_level.values()):
        rng.shuffle(members)
        first = NUM_HELD_OUT // len(by_level) + (number < NUM_HELD_OUT % len(by_level))
        held_out += members[:first]
        train += members[first : first + NUM_TRAIN // len(by_level) + (number < NUM_TRAIN % len(by_level))]
    spare = [x for x in by_level["three digits"] if x not in train and x not in held_out]
    train += spare[: NUM_TRAIN - len(train)]
    rng.shuffle(train)
    return train, held_out


def make(folder: Path, *, seed: int = 0) -> dict[str, Any]:
    """Make `model/`, `train.parquet` and `val.parquet`, or find them made; returns the manifest.

    Parameters
    ----------
    folder
        Where; made whole or not at all. What a killed call left is made again.
    seed
        Of the prompts, the weights and the warm-up; the same seed makes the same files.

    Raises
    ------
    ValueError
        If the folder holds something else.
    """
    folder = Path(folder)
    asked = {"version": VERSION, "seed": seed, "levels": LEVELS, "steps": STEPS}
    if (folder / MANIFEST).exists():
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text())
        if {name: manifest.get(name) for name in asked} == asked:
            return manifest
        raise ValueError(f"{folder}: expected the tiny setting of seed {seed}, got another; choose another folder")
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder}: expected an empty folder or the tiny setting, got other files")
    partial = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        train, held_out = split(seed)
        _write_prompts(partial / "train.parquet", train, 0)
        _write_prompts(partial / "val.parquet", held_out, len(train))
        manifest = asked | warm_up(partial / "model", [*train, *held_out], seed)
        (partial / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
        if folder.exists():
            folder.rmdir()
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return manifest


def _write_prompts(path: Path, members: list[Sum], first: int) -> None:
    """Write prompts in verl's schema."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [
        {
            "data_source": "tiny-arithmetic",
            "prompt": [{"role": "user", "content": x.question}],
            "ability": "math",
            "reward_model": {"style": "rule", "ground_truth": x.answer},
            "extra_info": {"index": first + number, "key": x.key, "level": x.level},
        }
        for number, x in enumerate(members)
    ]
    pq.write_table(pa.Table.from_pylist(rows), path)


TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tokenizer() -> Any:
    """Return a tokenizer of bytes with Qwen's chat tokens; every text has one spelling and none is unknown."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={symbol: number for number, symbol in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    found = PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>"],
    )
    found.chat_template = TEMPLATE
    return found


def warm_up(folder: Path, members: list[Sum], seed: int) -> dict[str, Any]:
    """Train a new model on the task, save it with its tokenizer, and return quantiles of its success rates by level."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    chat = tokenizer()
    threads, generator = torch.get_num_threads(), random.Random(seed + 1)
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    # As many embeddings as tokens: vLLM masks what the tokenizer cannot spell, and would then sample from another policy.
    config = Qwen2Config(
        vocab_size=len(chat),
        hidden_size=HIDDEN,
        intermediate_size=2 * HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS // 2,
        max_position_embeddings=128,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=chat.eos_token_id,
        pad_token_id=chat.pad_token_id,
    )
    model = Qwen2ForCausalLM(config).float()
    every = sums()
    prompts = {x.key: _prompt(chat, x) for x in every}
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=STEPS, pct_start=0.1)
    try:
        for _ in range(STEPS):
            chosen = [every[generator.randrange(len(every))] for _ in range(BATCH)]
            answers = [_stated(x, generator) for x in chosen]
            tokens, labels = _batch(chat, [prompts[x.key] for x in chosen], answers)
            loss = model(input_ids=tokens, labels=labels).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        with torch.no_grad():
            tokens, labels = _batch(chat, [prompts[x.key] for x in members], [x.answer for x in members])
            log_pi = model(input_ids=tokens).logits[:, :-1].log_softmax(-1)
            labels = labels[:, 1:]
            chosen_log_pi = log_pi.gather(-1, labels.clamp(min=0).unsqueeze(-1))[..., 0]
            rates = torch.where(labels >= 0, chosen_log_pi, 0.0).sum(-1).exp()
    finally:
        torch.set_num_threads(threads)
    model.save_pretrained(folder)
    chat.save_pretrained(folder)
    at = torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95])
    groups = {level: rates[torch.tensor([x.level == level for x in members])] for level in LEVELS} | {"all": rates}
    return {
        "parameters": sum(x.numel() for x in model.parameters()),
        "success_rates": {name: [round(x, 4) for x in group.quantile(at).tolist()] for name, group in groups.items()},
    }


def _prompt(chat: Any, x: Sum) -> list[int]:
    messages = [{"role": "user", "content": x.question}]
    text = chat.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    found: list[int] = chat(text).input_ids
    return found


def _stated(x: Sum, rng: random.Random) -> str:
    """Return the result that the warm-up states: the right one as often as `LEVELS` says, or one near it."""
    if rng.random() < LEVELS[x.level]:
        return x.answer
    right = int(x.answer)
    return str(rng.choice([n for n in range(max(right - 5, 0), right + 6) if n != right]))


def _batch(chat: Any, prompts: list[list[int]], answers: list[str]) -> tuple[Any, Any]:
    """Return tokens padded on the right, and labels that are -100 but for the answer and its end."""
    import torch

    rows = [
        (prompt, [*chat(answer).input_ids, chat.eos_token_id]) for prompt, answer in zip(prompts, answers, strict=True)
    ]
    length = max(len(prompt) + len(answer) for prompt, answer in rows)
    tokens = torch.full((len(rows), length), chat.pad_token_id)
    labels = torch.full((len(rows), length), -100)
    for number, (prompt, answer) in enumerate(rows):
        end = len(prompt) + len(answer)
        tokens[number, :end] = torch.tensor([*prompt, *answer])
        labels[number, len(prompt) : end] = torch.tensor(answer)
    return tokens, labels
