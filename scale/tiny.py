"""The embedded setting: a tiny Qwen2, its tokenizer and an arithmetic task of mixed difficulty, made in seconds.

The model is warmed up on sums and differences of digits: first on right results, until it knows most of them, then on
results that are right only some of the time, less often for harder kinds, so that it is unsure. Success rates then
differ widely over prompts, and reinforcement has what to learn from. Held-out prompts are in the warm-up but not in
`train.parquet`.

`compute_score` is the reward function that verl calls. Nothing heavy is imported before it is needed.
"""

from __future__ import annotations

import hashlib
import random
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from scale.manifest import TINY
from theory.base.files import LOCK_FILE, check_hashes, hashes, only_writer, read_json, write_json
from theory.base.runs import installed, write_columns

LEVELS = {"sum": 0.9, "difference": 0.4, "sum with carry": 0.1}
"""Kinds of prompts (3+4, 9-2, 7+8), and how often the second part of the warm-up states the right result."""

NUM_HELD_OUT = 64

HIDDEN, LAYERS, HEADS = 64, 2, 2  # a head of 32: vLLM's CPU attention has no smaller one

RIGHT_STEPS, UNSURE_STEPS = 200, 70

RIGHT_RATE, UNSURE_RATE = 4e-3, 2e-3

PATIENCE = 300.0
"""Seconds to wait for another process that makes the same; it takes some ten seconds."""

SOURCE = "dapo-math-17k"
"""The data set whose schema `write_source` imitates."""

VERSION = 2


class Prompt(NamedTuple):
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


def prompts() -> list[Prompt]:
    """Return every prompt of the task.

    Examples
    --------
    >>> len(prompts()), prompts()[0]
    (155, Prompt(question='0+0', answer='0', level='sum'))
    """
    digits = range(10)
    sums = [Prompt(f"{a}+{b}", str(a + b), "sum" if a + b < 10 else "sum with carry") for a in digits for b in digits]
    return sums + [Prompt(f"{a}-{b}", str(a - b), "difference") for a in digits for b in range(a + 1)]


def split(seed: int) -> tuple[list[Prompt], list[Prompt]]:
    """Return the prompts to train on and those held out, disjoint, drawn at random."""
    every = prompts()
    random.Random(seed).shuffle(every)
    return every[NUM_HELD_OUT:], every[:NUM_HELD_OUT]


MAKING = "making a tiny model and its task"


def make(folder: Path, *, seed: int = 0) -> dict[str, Any]:
    """Make `model/`, `train.parquet` and `val.parquet`, or find them made; returns the manifest.

    The folder is made whole or not at all: what a killed call left is made again, other files are a `ValueError`. The
    same seed, of the prompts, the weights and the warm-up, makes the same files.
    """
    asked = {
        "version": VERSION,
        "seed": seed,
        "levels": LEVELS,
        "sizes": [HIDDEN, LAYERS, HEADS, NUM_HELD_OUT],
        "warm_up": [RIGHT_STEPS, UNSURE_STEPS, RIGHT_RATE, UNSURE_RATE],
        "libraries": {name: installed(name) for name in ("torch", "transformers", "tokenizers")},
    }
    found = _made(folder, asked)
    if found is not None:
        return found
    partial = folder.with_name(f".{folder.name}.partial")
    try:
        with only_writer(partial, PATIENCE):
            for path in partial.iterdir():  # what a killed call left
                if path.name != LOCK_FILE:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            found = _made(folder, asked)  # by a call that was waited for
            try:
                return found if found is not None else _make(folder, partial / "whole", asked, seed)
            finally:
                shutil.rmtree(partial / "whole", ignore_errors=True)
    finally:
        with suppress(OSError):  # another call has it
            partial.rmdir()


def _made(folder: Path, asked: dict[str, Any]) -> dict[str, Any] | None:
    """Return the manifest of a folder that holds what is asked for, unchanged; None for an empty one."""
    path = folder / TINY
    if path.exists():
        manifest = read_json(path)
        different = ", ".join(name for name, value in asked.items() if manifest.get(name) != value)
        if different:
            raise ValueError(f"{path}: expected the tiny setting asked for, got one that differs in {different}")
        listed = manifest.get("files")
        if not isinstance(listed, dict) or not {"train.parquet", "val.parquet"} <= listed.keys():
            raise ValueError(f"{path}: expected the SHA-256 of the folder's files, got {listed!r:.80}")
        check_hashes(folder, listed, path)
        return manifest
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder}: expected an empty folder or the tiny setting, got other files")
    return None


def _make(folder: Path, partial: Path, asked: dict[str, Any], seed: int) -> dict[str, Any]:
    partial.mkdir()
    train, held_out = split(seed)
    _write_prompts(partial / "train.parquet", train, 0)
    _write_prompts(partial / "val.parquet", held_out, len(train))
    manifest = asked | warm_up(partial / "model", [*train, *held_out], seed)
    names = sorted(str(path.relative_to(partial)) for path in partial.rglob("*") if path.is_file())
    manifest["files"] = hashes(partial, names)
    write_json(partial / TINY, manifest)
    if folder.exists():
        folder.rmdir()
    partial.rename(folder)
    return manifest


def write_source(folder: Path, *, seed: int = 0) -> Path:
    """Write the prompts to train on as the hub has DAPO-Math-17k, with the seed of `make`; returns the file.

    Every row is there twice, and one problem has two answers.
    """
    train, held_out = split(seed)
    solved = [(x.question, x.answer) for x in train]
    odd = [(held_out[0].question, held_out[0].answer), (held_out[0].question, f"{held_out[0].answer}0")]
    rows = [
        {
            "data_source": "math_dapo",
            "prompt": [{"content": question, "role": "user"}],
            "ability": "MATH",
            "reward_model": {"ground_truth": answer, "style": "rule-lighteval/MATH_v2"},
            "extra_info": {"index": str(number)},
        }
        for number, (question, answer) in enumerate([*solved, *solved, *odd])
    ]
    path = folder / f"{SOURCE}.parquet"
    _write_rows(path, rows)
    return path


def _write_prompts(path: Path, members: list[Prompt], first: int) -> None:
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
    _write_rows(path, rows)


def _write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    write_columns(path, {name: [row[name] for row in rows] for name in rows[0]})


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
    chat = PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>"],
    )
    chat.chat_template = TEMPLATE
    return chat


def warm_up(folder: Path, members: list[Prompt], seed: int) -> dict[str, Any]:
    """Train a new model on the task, save it with its tokenizer, and return quantiles of its success rates by level."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()  # of writing one small file
    chat = tokenizer()
    threads, generator = torch.get_num_threads(), random.Random(seed + 1)
    torch.set_num_threads(1)
    # As many embeddings as tokens: vLLM masks what the tokenizer cannot spell, which would be another policy.
    config = Qwen2Config(
        vocab_size=len(chat),
        hidden_size=HIDDEN,
        intermediate_size=4 * HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        max_position_embeddings=128,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=chat.eos_token_id,
        pad_token_id=chat.pad_token_id,
        initializer_range=0.05,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Qwen2ForCausalLM(config).float()
    every = prompts()
    spelled = {x.key: _prompt(chat, x) for x in every}
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.0)
    try:
        for step in range(RIGHT_STEPS + UNSURE_STEPS):
            right = step < RIGHT_STEPS
            optimizer.param_groups[0]["lr"] = _rate(step)
            answers = [x.answer if right else _stated(x, generator) for x in every]
            tokens, labels = _batch(chat, list(spelled.values()), answers)
            loss = model(input_ids=tokens, labels=labels).loss
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        with torch.no_grad():
            tokens, labels = _batch(chat, [spelled[x.key] for x in members], [x.answer for x in members])
            log_pi = model(input_ids=tokens).logits[:, :-1].log_softmax(-1)
            labels = labels[:, 1:]
            chosen_log_pi = log_pi.gather(-1, labels.clamp(min=0).unsqueeze(-1))[..., 0]
            rates = torch.where(labels >= 0, chosen_log_pi, 0.0).sum(-1).exp()
    finally:
        torch.set_num_threads(threads)
    model.save_pretrained(folder)
    chat.save_pretrained(folder)
    shares = torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95])
    groups = {level: rates[torch.tensor([x.level == level for x in members])] for level in LEVELS} | {"all": rates}
    return {
        "parameters": sum(x.numel() for x in model.parameters()),
        "success_rates": {
            name: [round(x, 4) for x in group.quantile(shares).tolist()] for name, group in groups.items()
        },
    }


def _rate(step: int) -> float:
    """Return the learning rate: up, then level, then down to a fifth; and once more down for the second part."""
    if step >= RIGHT_STEPS:
        return UNSURE_RATE * (1 - 0.9 * (step - RIGHT_STEPS) / UNSURE_STEPS)
    return RIGHT_RATE * min((step + 1) / 30, 1.0, 1 - 0.8 * (step / RIGHT_STEPS - 0.6) / 0.4)


def _prompt(chat: Any, x: Prompt) -> list[int]:
    messages = [{"role": "user", "content": x.question}]
    text = chat.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return list(chat(text).input_ids)


def _stated(x: Prompt, rng: random.Random) -> str:
    """Return the result that the warm-up states: right as often as `LEVELS` says, else a near one or one misspelt."""
    if rng.random() < LEVELS[x.level]:
        return x.answer
    if rng.random() < 0.5:
        return x.answer + rng.choice("?!.")
    return str(rng.choice([n for n in range(max(int(x.answer) - 2, 0), int(x.answer) + 3) if n != int(x.answer)]))


def _batch(chat: Any, spelled: list[list[int]], answers: list[str]) -> tuple[Any, Any]:
    """Return tokens padded on the right, and labels that are -100 outside the answer and its end."""
    import torch

    rows = [
        (prompt, [*chat(answer).input_ids, chat.eos_token_id]) for prompt, answer in zip(spelled, answers, strict=True)
    ]
    length = max(len(prompt) + len(answer) for prompt, answer in rows)
    tokens = torch.full((len(rows), length), chat.pad_token_id)
    labels = torch.full((len(rows), length), -100)
    for number, (prompt, answer) in enumerate(rows):
        end = len(prompt) + len(answer)
        tokens[number, :end] = torch.tensor([*prompt, *answer])
        labels[number, len(prompt) : end] = torch.tensor(answer)
    return tokens, labels
