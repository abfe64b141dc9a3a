"""A training step without its engine: what the trainer's process costs, part by part, at the size of Table 3.

`python -m tests.benchmarks.control_plane FOLDER [PROMPTS [STEPS]]` runs `DynamoTrainer.fit` as it is: verl's
dataloader, replay buffer, advantages, metrics and dump, our rule, history, order and scope, and a real TransferQueue.
Rollouts and the model are made up: `FakeEngine` writes what vLLM and the actors would. Its time is told apart.

`docs/scale.md` has the shares at full size, 512 prompts, which is the default.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

from theory.base.runs import write_columns

N = 16
LONGEST = 8192
MEAN = 1000
RANKS = 8

PARTS = {
    "_next_train_batch": "prompts",
    "_submit_batch_to_rollout": "rule and history",
    "_balance_batch": "order and dealing",
    "_compute_old_log_prob": "old log-probabilities",
    "_compute_advantage": "advantages",
    "_scope": "scope",
    "_update_actor": "checks before the update",
    "_compute_metrics": "metrics and records",
    "_log_rollout_data": "dump",
    "_shutdown_dump_executor": "dump, written",
}
"""Methods of the trainer, and what each is called; time inside another part or the engine is not counted twice."""


class Clock:
    """Seconds by part; inside a part another one may run, whose time is its own."""

    def __init__(self) -> None:
        self.steps: list[Counter[str]] = []
        self.busy: list[Counter[str]] = []
        self.stack: list[str] = []
        self.last = time.perf_counter(), time.process_time()

    def _turn(self) -> None:
        now = time.perf_counter(), time.process_time()
        if self.stack and self.steps:
            for counter, end, start in zip((self.steps[-1], self.busy[-1]), now, self.last, strict=True):
                counter[self.stack[-1]] += end - start
        self.last = now

    def begin_step(self) -> None:
        self._turn()
        self.steps.append(Counter())
        self.busy.append(Counter())

    def timed(self, owner, name, part):
        function = getattr(owner, name)

        def wrapper(*args, **kwargs):
            self._turn()
            self.stack.append(part)
            try:
                return function(*args, **kwargs)
            finally:
                self._turn()
                self.stack.pop()

        setattr(owner, name, wrapper)


def made_lengths(rng, size):
    """Return lengths of responses: a long tail, a mean of about `MEAN`, one as long as can be."""
    lengths = np.clip(rng.lognormal(np.log(MEAN) - 0.32, 0.8, size).astype(int), 1, LONGEST)
    lengths[rng.integers(size)] = LONGEST
    return lengths


class FakeEngine:
    """Agent loops, vLLM, actors and weight sync; nothing is learnt."""

    reward_loop_worker_handles = ()

    def __init__(self) -> None:
        self.rng = np.random.default_rng(0)
        self._dispatch_info = {"actor": list(range(RANKS))}
        self.rows = 0

    def generate_sequences(self, batch):
        """Write trajectories as verl's agent loops do, a prompt at a time."""
        import transfer_queue as tq
        from tensordict.tensorclass import NonTensorStack
        from verl.utils.tensordict_utils import list_of_dict_to_tensordict

        counts = [int(x) for x in batch["__rollout_n__"]]
        lengths = iter(made_lengths(self.rng, sum(counts)))
        self.rows += sum(counts)
        for i, n in enumerate(counts):
            prompt = {k: v[i].data for k, v in batch.items() if isinstance(v, NonTensorStack)}
            uid, keys, rows, tags = prompt["uid"], [], [], []
            for session in range(n):
                length, ids = int(next(lengths)), torch.randint(0, 250, (int(self.rng.integers(100, 300)),))
                response = torch.randint(0, 250, (length,))
                scores = torch.zeros(length)
                scores[-1] = float(self.rng.random() < 0.4)
                whole = torch.cat((ids, response))
                row = prompt | {
                    "prompts": ids,
                    "responses": response,
                    "response_mask": torch.ones_like(response),
                    "loss_mask": torch.ones_like(response),
                    "input_ids": whole,
                    "position_ids": torch.arange(len(whole)),
                    "rollout_log_probs": -torch.rand(length),
                    "rm_scores": scores,
                    "num_turns": 2,
                    "session_id": session,
                    "multi_modal_inputs": {},
                    "extra_fields": {"reward_extra_info": {"acc": float(scores[-1]), "unverified": 0.0}},
                }
                keys.append(f"{uid}_{session}_0")
                rows.append(row)
                step = dict.fromkeys(("global_steps", "min_global_steps", "max_global_steps"), 0)
                sizes = {"prompt_len": len(ids), "response_len": length, "seq_len": len(whole)}
                tags.append({"status": "success", **sizes, **step})
            tq.kv_batch_put(keys=keys, fields=list_of_dict_to_tensordict(rows), tags=tags, partition_id="train")
            tq.kv_batch_put(keys=[uid], tags=[{"status": "finished"}], partition_id="train")

    def compute_log_prob(self, batch):
        """Write log-probabilities and statistics of whole sequences, as verl's workers do."""
        import transfer_queue as tq
        from tensordict import TensorDict

        from scale.plugin.engine import STATISTICS

        lengths = [tag["seq_len"] for tag in batch.tags]
        offsets = torch.tensor([0, *lengths]).cumsum(0)

        def nested(values):
            return torch.nested.nested_tensor_from_jagged(values, offsets)

        size = int(offsets[-1])
        fields = {"log_probs": nested(-torch.rand(size)), "entropy": nested(torch.rand(size))}
        fields |= {name: nested(0.1 + 0.8 * torch.rand(size)) for name in STATISTICS}
        content = TensorDict(fields, batch_size=len(batch))
        return tq.kv_batch_put(keys=batch.keys, partition_id=batch.partition_id, fields=content)

    def update_actor(self, batch):
        return {"metrics": {"grad_norm": [1.0], "mfu": [0.0], "pg_loss": [0.0]}}

    def set_loss_fn(self, loss):
        self.loss = loss

    def get_n_gpus(self):
        return RANKS

    def update_weights(self, *_):
        pass

    sleep_replicas = update_weights


def write_prompts(path, number):
    columns = {
        "data_source": ["made-up"] * number,
        "prompt": [[{"role": "user", "content": f"{i}: what is 1+1?"}] for i in range(number)],
        "reward_model": [{"style": "rule", "ground_truth": "2"}] * number,
        "extra_info": [{"index": i, "key": f"k{i}"} for i in range(number)],
    }
    write_columns(path, columns)


def run(folder, prompts=512, steps=2):
    """Return the seconds of every step by part, and what the trainer has done."""
    import ray
    import transfer_queue as tq
    from verl.trainer.ppo.v1 import get_trainer_cls

    from scale import tiny
    from scale.launch.configuration import compose

    tiny.make(folder / "tiny")
    write_prompts(folder / "train.parquet", prompts)
    config = compose(
        "tiny",
        out=folder / "run",
        overrides=[
            f"tiny_folder={folder / 'tiny'}",
            f"data.train_files={folder / 'train.parquet'}",
            f"data.train_batch_size={prompts}",
            f"data.max_response_length={LONGEST}",
            f"actor_rollout_ref.actor.ppo_mini_batch_size={max(prompts // 16, 1)}",
            f"actor_rollout_ref.rollout.n={N}",
            "dynamo.rollouts_low=8",
            "dynamo.rollouts_high=24",
            f"trainer.total_training_steps={steps}",
            "trainer.val_before_train=false",
            "trainer.test_freq=-1",
            "trainer.save_freq=-1",
            "trainer.logger=[]",
            f"trainer.rollout_data_dir={folder / 'dump'}",
        ],
    )
    ray.init(num_cpus=4, include_dashboard=False, object_store_memory=2**28, _temp_dir=f"/tmp/cp{time.time_ns()}")
    tq.init(config.transfer_queue)
    try:
        engine, clock = FakeEngine(), Clock()
        trainer = get_trainer_cls("dynamo")(config)
        trainer.global_steps = 0
        for part in (trainer._init_tokenizer, trainer._init_dataloader, trainer._init_dump_executor):
            part()
        for name in ("actor_rollout_wg", "checkpoint_manager", "reward_loop_manager", "resource_pool_manager"):
            setattr(trainer, name, engine)
        trainer.on_init_end()
        for name in ("generate_sequences", "compute_log_prob", "update_actor", "update_weights", "sleep_replicas"):
            clock.timed(engine, name, "engine")
        for name, part in PARTS.items():
            clock.timed(trainer, name, part)
        clock.timed(trainer.replay_buffer, "sample", "sampling")
        clock.timed(trainer, "fit", "rest")
        begin = trainer.on_step_begin
        trainer.on_step_begin = lambda: (clock.begin_step(), begin())
        trainer.fit(engine)
        left = tq.kv_list("train") or {}
    finally:
        tq.close()
        ray.shutdown()
    done = SimpleNamespace(trainer=trainer, rows=engine.rows, left=len(left.get("train", left)))
    return clock, done


def table(clock):
    """Return a line for every part of the last step: seconds, those of this process's processor, and its share."""
    step, busy = clock.steps[-1], clock.busy[-1]
    parts = sorted((x for x in step if x != "engine"), key=step.__getitem__, reverse=True)
    beside, processor = (sum(x[part] for part in parts) for x in (step, busy))
    lines = [f"{x:26} {step[x]:6.2f} s {busy[x]:6.2f} s {step[x] / beside:6.1%}" for x in parts]
    return [*lines, f"{'beside the engine':26} {beside:6.2f} s {processor:6.2f} s", f"engine {step['engine']:.2f} s"]


def main():
    folder, *rest = sys.argv[1:]
    Path(folder).mkdir(parents=True)
    clock, done = run(Path(folder).resolve(), *map(int, rest))
    print(*table(clock), sep="\n", flush=True)
    counts = {"rows": done.rows, "left": done.left, "known": len(done.trainer.history)}
    print(json.dumps({"step": clock.steps[-1], "verl": done.trainer.timing_raw["step"], **counts}))


if __name__ == "__main__":
    main()
