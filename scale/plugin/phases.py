"""What a trainer tells the supervisor while it works, and how it ends when it is asked to: a mix-in over verl's.

Every part of a step begins with a beat that names its phase. While rollouts are awaited, each prompt that is finished
is a beat too. So silence is silence of a part, and its limit can be that part's own (`scale.launch.limits`).

A run that is asked to stop (`scale.run.asked_to_stop`) ends with a checkpoint of the last step that it has finished:

- while it waits for rollouts, at once. The weights are still those of that step, and so is the history. The data
  loader's state is put aside before a batch is drawn. The rollouts under way are given up, and drawn again later;
- in any other part of a step, when the step and its records are finished.

A trainer that rolls out ahead saves where verl does, before the new weights reach vLLM, and ends after that step: its
rollouts under way are part of the checkpoint.
"""

from __future__ import annotations

import copy
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from scale.plugin.config import of_checkpoints
from scale.run import asked_to_stop, beat, records
from scale.run.reports import STOPPED, STOPPING

LOOK_EVERY = 1.0
"""Seconds between two looks for a request to stop, and between two beats of the same phase."""

QUEUE = "transfer_queue"
"""verl's folder of a checkpoint with the prompts and responses that no step has learnt from."""

SETTERS = {"actor_rollout_wg": "model", "reward_loop_manager": "vLLM"}
"""Attributes that verl sets between two parts of its start, and the phase that begins then."""


class StopRequested(BaseException):
    """Leaves verl's loop from wherever rollouts are awaited; no failure, so no `Exception`."""


if TYPE_CHECKING:
    from verl.trainer.ppo.v1.trainer_base import PPOTrainer
else:
    PPOTrainer = object  # A mix-in; importing verl's would import `scale.plugin.trainer`, which imports this.


class Phased(PPOTrainer):  # type: ignore[misc]  # verl is untyped
    """Mix-in over a trainer of verl."""

    train_dataloader: Any
    phase = ""

    steps_done = 0
    """The last step that is done, by this run or an earlier one."""

    training = False
    """Whether the first step has begun."""

    shown: Mapping[str, float] = {}
    """Numbers to show with every beat: those of the last step."""

    drawn_from: Any = None
    """State of the data loader at the end of that step, before the next batch was drawn."""

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name in SETTERS and not self.training:
            self.begin(SETTERS[name])

    # Phases

    def begin(self, phase: str, **values: float) -> None:
        """Tell the supervisor that a phase begins, or how far it is."""
        self.phase = phase
        beat(self.steps_done, phase, **self.shown, **values)

    def done(self, step: int, **values: float) -> None:
        """Tell the supervisor that a step is done, with numbers to show from now on."""
        self.steps_done, self.shown = step, values
        self.begin("records")

    def _init_tokenizer(self) -> None:
        self.begin("data")
        super()._init_tokenizer()

    def _init_resource_pool_mgr(self) -> None:
        self.begin("workers")
        super()._init_resource_pool_mgr()

    def _load_checkpoint(self) -> None:
        self.begin("checkpoint loading")
        super()._load_checkpoint()
        self.steps_done = self.global_steps

    def on_init_end(self) -> None:
        """Let the weights reach vLLM."""
        self.begin("first weights")
        super().on_init_end()
        self.begin("agent loops")

    def _build_replay_buffer(self) -> Any:
        return self.watched(super()._build_replay_buffer())

    def watched(self, buffer: Any) -> Any:
        """Return a buffer of verl whose waits are looked at."""
        wait = buffer._wait_for_next_poll

        def look_and_wait(partition: str, *args: Any, **kwargs: Any) -> Any:
            self.look(partition)
            return wait(partition, *args, **kwargs)

        buffer._wait_for_next_poll = look_and_wait
        return buffer

    def look(self, partition: str) -> None:
        """Say how many prompts are finished, if that has changed; leave verl's loop if the run is asked to stop."""
        now = time.monotonic()
        if now - self.looked < LOOK_EVERY:
            return
        self.looked = now
        alone = self.trainer_mode == "sync" if partition == "train" else not self.training
        if alone and asked_to_stop():
            raise StopRequested
        buffer = self.replay_buffer
        finished = len(buffer.finished_keys[partition]) + len(buffer.failure_keys[partition])
        if finished != self.finished:
            self.finished = finished
            of = finished + len(buffer.pending_keys[partition]) + len(buffer.running_keys[partition])
            self.begin(self.phase, prompts=finished, prompts_of=of)

    looked, finished = 0.0, 0

    def _validate(self) -> Any:
        self.finished = 0
        self.begin("validation" if self.training else "first look")
        return super()._validate()

    def on_step_begin(self) -> None:
        """Put the data loader's state aside; end here if the run is asked to stop."""
        super().on_step_begin()
        self.training, self.finished = True, 0
        if self.train_dataloader_it is not None:  # Before the first batch there is nothing to save.
            self.drawn_from = copy.deepcopy(self.train_dataloader.state_dict())
        if asked_to_stop() and (self.trainer_mode == "sync" or self.saved == self.steps_done):
            raise StopRequested
        self.begin("rollouts")

    def on_sample_end(self) -> None:
        """Let vLLM give its memory back."""
        self.begin("rewards")
        super().on_sample_end()

    def _compute_old_log_prob(self, *args: Any, **kwargs: Any) -> Any:
        self.begin("old log-probs")
        return super()._compute_old_log_prob(*args, **kwargs)

    def _compute_ref_log_prob(self, *args: Any, **kwargs: Any) -> Any:
        self.begin("reference")
        return super()._compute_ref_log_prob(*args, **kwargs)

    def _compute_advantage(self, *args: Any, **kwargs: Any) -> Any:
        self.begin("advantages")
        return super()._compute_advantage(*args, **kwargs)

    def _update_actor(self, *args: Any, **kwargs: Any) -> Any:
        self.begin("update")
        return super()._update_actor(*args, **kwargs)

    def on_step_end(self) -> None:
        """Save a first checkpoint early, when verl saves its own, and let the new weights reach vLLM."""
        first, every = of_checkpoints(self.config, "first"), self.config.trainer.save_freq
        early = every > 0 and self.global_steps == first
        if (early or (self.trainer_mode != "sync" and asked_to_stop())) and self.saved != self.global_steps:
            self._save_checkpoint()
        self.begin("weight sync")
        super().on_step_end()

    # Checkpoints

    saved: int | None = None
    """The step of this process's last checkpoint."""

    def _save_checkpoint(self) -> None:
        """Save, and delete older checkpoints than verl is told to keep, but for exports that stay."""
        self.begin("checkpoint" if self.phase != STOPPING else STOPPING)
        trainer = self.config.trainer
        keep = trainer.get("max_actor_ckpt_to_keep")
        every = of_checkpoints(self.config, "keep_exports") * trainer.save_freq
        folder = Path(trainer.default_local_dir)
        if keep:
            clear(folder, max(keep - 1, 1), every)
            trainer.max_actor_ckpt_to_keep = None  # verl would delete exports too, and knows none of an earlier start
        super()._save_checkpoint()
        self.saved = self.global_steps
        if keep:
            trainer.max_actor_ckpt_to_keep = keep
            clear(folder, keep, every)

    # The end on demand

    def fit(self, agent_loop_manager: Any) -> None:
        """Train as verl does, or until the run is asked to stop."""
        try:
            super().fit(agent_loop_manager)
        except StopRequested:
            self._stop()

    def _stop(self) -> None:
        self.begin(STOPPING)
        latest = records.latest_checkpoint(Path(self.config.trainer.default_local_dir).parent)
        if self.steps_done and (latest is None or latest.name != f"global_step_{self.steps_done}"):
            # The GPUs' memory is the trainer's while it saves: as before a weight sync, in verl's order.
            self.checkpoint_manager.abort_replicas()
            self.checkpoint_manager.sleep_replicas()
            self.global_steps = self.steps_done
            loader, self.train_dataloader = self.train_dataloader, SimpleNamespace(state_dict=lambda: self.drawn_from)
            self._save_checkpoint()
            self.train_dataloader = loader
        self._shutdown_dump_executor()
        self.begin(STOPPED)


def clear(folder: Path, keep: int, every: int) -> None:
    """Delete the weights of all complete checkpoints but the last `keep`, and keep exports at multiples of `every`.

    Only steps up to that of the last complete checkpoint are looked at. If `every` is not positive, no export stays.
    """
    latest = records.latest_checkpoint(folder.parent)
    if latest is None:
        return
    steps = {int(x.name.removeprefix("global_step_")): x for x in folder.glob("global_step_*") if _is_step(x.name)}
    old = sorted((step for step in steps if step <= int(latest.name.removeprefix("global_step_"))), reverse=True)[keep:]
    for step in old:
        shutil.rmtree(steps[step] / QUEUE, ignore_errors=True)
        actor, export = steps[step] / records.EXPORT.parts[0], steps[step] / records.EXPORT
        if every > 0 and step % every == 0 and export.is_dir():
            for path in actor.iterdir():
                if path != export:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
        else:
            shutil.rmtree(actor, ignore_errors=True)


def _is_step(name: str) -> bool:
    return name.removeprefix("global_step_").isdigit()
