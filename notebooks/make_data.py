"""Take what notebooks 7 and 8 read from a finished run of verl: `python notebooks/make_data.py RUN`.

The committed data are of this run, four minutes on two cores:

    python -m scale train --method dynamo --steps 12 --out results/scale/tiny-dynamo-1 dynamo.dump=true \
        data.train_batch_size=8 data.train_max_samples=24 actor_rollout_ref.actor.ppo_mini_batch_size=4 \
        trainer.rollout_data_dir=results/scale/tiny-dynamo-1/rollouts trainer.test_freq=-1 \
        trainer.val_before_train=false trainer.save_freq=12
    python notebooks/make_data.py results/scale/tiny-dynamo-1
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import torch

from theory.base.files import hashes, parse_json, read_json, write_json

TARGET = Path(__file__).resolve().parent / "data" / "verl_run"

COPIED = ("allocation.jsonl", "metrics.parquet")

STEP, MINIBATCHES = 11, 2
"""The step whose mini-batches are kept, each a micro-batch of its own here, and the mini-batches of a step."""

FOLDERS = re.compile(r'"/[^"]*/((?:scale|results|checkpoints|ray)(?:/[^"]*)?)"')
"""Absolute paths, down to a folder that says what is meant."""


def make(run: Path) -> None:
    """Write `TARGET` anew."""
    dumps = sorted((run / "modulated").glob("*.pt"), key=lambda path: int(path.stem.rsplit("-", 1)[1]))
    steps = len((run / "allocation.jsonl").read_text().splitlines())
    if len(dumps) != steps * MINIBATCHES:
        raise ValueError(
            f"{run / 'modulated'}: expected {MINIBATCHES} files per step, got {len(dumps)} in {steps} steps"
        )
    shutil.rmtree(TARGET, ignore_errors=True)
    TARGET.mkdir(parents=True)
    for name in COPIED:
        shutil.copyfile(run / name, TARGET / name)
    shutil.copytree(run / "rollouts", TARGET / "rollouts")
    config = FOLDERS.sub(r'"\1"', json.dumps(read_json(run / "config.json")))
    write_json(TARGET / "config.json", parse_json(config, "config.json"))
    versions = read_json(run / "versions.json")
    write_json(TARGET / "versions.json", {**versions, "files": hashes(TARGET, ["config.json", "metrics.parquet"])})
    for number, path in enumerate(dumps[(STEP - 1) * MINIBATCHES : STEP * MINIBATCHES], 1):
        found = torch.load(path, weights_only=True)
        scope = {f"scope_{name}": value for name, value in found.pop("scope").items()}
        tensors = {name: x.numpy() for name, x in found.items() if not name.startswith("token_")}
        np.savez_compressed(TARGET / f"minibatch_{STEP}_{number}.npz", **tensors, **scope)


if __name__ == "__main__":
    make(Path(sys.argv[1]))
