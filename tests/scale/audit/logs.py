"""A made run, and writers of its log in every format."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd

from scale.audit.log import blind_order
from scale.run.records import Records
from theory.allocation import Problem, SuccessHistory, allocate, get_allocator


def question(number):
    return f"What is {number} + {number}?\n"


def simulated(seed=0, rule="uniform", num_prompts=40, size=10, steps=16, mean=8):
    """Return a table of rollouts of a made run whose steps are allocated by a rule in [4, 12].

    The rule gets the prompts in the audit's order, so that its remainders and ties fall alike.
    """
    rng = np.random.default_rng(seed)
    p = rng.beta(0.7, 0.7, num_prompts)
    history, rows = SuccessHistory(), []
    epochs = [rng.permutation(num_prompts) for _ in range(-(-steps * size // num_prompts))]
    for step, batch in enumerate(np.concatenate(epochs)[: steps * size].reshape(steps, size), 1):
        batch = sorted(batch, key=lambda i: blind_order(question(i)))
        keys = [question(i) for i in batch]
        n = allocate(get_allocator(rule), Problem(*history.counts(keys), mean * size, 4, 12), rng)
        rewards = [rng.random(m) < np.clip(p[i] + 0.02 * step, 0, 1) for i, m in zip(batch, n, strict=True)]
        history.update(keys, [x.sum() for x in rewards], n)
        rows += [(step, key, float(x)) for key, group in zip(keys, rewards, strict=True) for x in group]
    return pd.DataFrame(rows, columns=["step", "prompt", "reward"])


def write_verl(table, folder, score="score", decode=lambda x: x):
    """Write dumps with the fields of verl's `_write_generations` (compared in a test below)."""
    folder.mkdir()
    for step, rows in table.groupby("step"):
        lines = [
            json.dumps(
                {
                    "input": x.prompt,
                    "output": "é" * 9,
                    "gts": "4",
                    score: decode(x.reward),
                    "step": step,
                    "uid": f"{i}_0_0",
                },
                ensure_ascii=False,
            )
            for i, x in enumerate(rows.itertuples())
        ]
        (folder / f"{step}.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def write_trl(table, folder, repeated=()):
    """Write `completions_<step>.parquet` as TRL's GRPOTrainer does: pandas, one column per reward function."""
    folder.mkdir(parents=True)
    for step, rows in table.groupby("step"):
        frame = pd.DataFrame(
            {
                "step": step,
                "prompt": rows.prompt,
                "completion": [f"{step}: {i}" for i in range(len(rows))],
                "accuracy_reward": rows.reward,
                "advantage": rows.reward - rows.reward.mean(),
            }
        ).reset_index(drop=True)
        frame.to_parquet(folder / f"completions_{step:05d}.parquet")
        if step in repeated:
            frame.assign(step=step + 1000).to_parquet(folder / f"completions_{step + 1000:05d}.parquet")
    return folder


def write_allocation(table, folder):
    records = Records(folder)
    for step, rows in table.groupby("step"):
        groups = rows.groupby("prompt", sort=False).reward
        records.allocation(
            int(step), list(groups.indices), groups.size().to_numpy(), groups.sum().to_numpy().astype(int)
        )
    (folder / "metrics.jsonl").write_text("{}\n")
    return folder


def write(table, kind, folder):
    """Write the log in a format; returns what to pass to the reader."""
    if kind == "verl":
        return write_verl(table, folder / "rollouts")
    if kind == "trl":
        write_trl(table, folder / "run" / "completions")
        return folder / "run"
    if kind == "allocation":
        return write_allocation(table, folder / "run")
    path = folder / f"log.{kind}"
    if kind == "csv":
        table.to_csv(path, index=False)
    elif kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in table.to_dict("records")))
    else:
        table.to_parquet(path, row_group_size=100)
    return path
