"""verl's own training loop over steps that take no time: beats, and a request to stop in every phase of a step."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("verl")
from omegaconf import OmegaConf
from torchdata.stateful_dataloader import StatefulDataLoader
from verl.trainer.ppo.utils import create_rl_sampler
from verl.trainer.ppo.v1 import trainer_base
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync

from scale.plugin import phases
from scale.plugin.phases import Phased, clear
from scale.run import records
from scale.run.reports import STEPPING, STOPPED, read_progress

pytestmark = pytest.mark.needs_verl

PROMPTS, BATCH, STEPS = 20, 4, 7


class Buffer:
    """verl's interface: prompts are finished one after the other."""

    def __init__(self):
        self.finished_keys = {x: set() for x in ("train", "val")}
        self.failure_keys, self.pending_keys, self.running_keys = ({"train": (), "val": ()} for _ in range(3))

    def _wait_for_next_poll(self, partition, last):
        return last

    def sample(self, global_steps, partition_id, batch_size):
        for number in range(batch_size):
            self.finished_keys[partition_id] = set(range(number))
            self._wait_for_next_poll(partition_id, 0.0)
        return SimpleNamespace(keys=[], tags=[], partition_id=partition_id, extra_info={}), {}


class Steps(PPOTrainerSync):
    """verl's synchronous trainer without workers: its weight is a sum over the prompts that it has seen."""

    def __init__(self, folder, hook):
        self.hook, self.folder, self.weight, self.saves = hook, folder, 0, []
        self.config = OmegaConf.create(
            {
                "trainer": {
                    "default_local_dir": str(folder / "checkpoints"),
                    "logger": [],
                    "project_name": "x",
                    "experiment_name": "x",
                    "val_before_train": True,
                    "save_freq": 100,
                    "test_freq": 2,
                    "total_epochs": 99,
                    "max_actor_ckpt_to_keep": 2,
                    "critic_warmup": 0,
                    "default_hdfs_dir": None,
                    "del_local_ckpt_after_load": False,
                    "resume_mode": "auto",
                },
                "checkpoints": {"first": 0, "keep_exports": 0},
                "global_profiler": {"steps": None, "profile_continuous_steps": False},
                "algorithm": {},
                "data": {"train_batch_size": BATCH},
                "actor_rollout_ref": {"rollout": {"temperature": 1.0}, "actor": {}},
            }
        )
        self.parameter_sync_step, self.total_training_steps, self.steps_per_epoch = 1, STEPS, PROMPTS // BATCH
        self.use_reference_policy, self.use_critic = True, False
        self.reward_loop_manager = SimpleNamespace(reward_loop_worker_handles=[])
        does = ("abort_replicas", "sleep_replicas", "update_weights")
        self.checkpoint_manager = SimpleNamespace(**{x: self.note(x) for x in does})
        sampler = create_rl_sampler(OmegaConf.create({"shuffle": True, "seed": 1}), range(PROMPTS))
        self.train_dataloader = StatefulDataLoader(range(PROMPTS), BATCH, sampler=sampler)
        self.train_dataloader_it = None
        self.replay_buffer = self._build_replay_buffer()
        self._init_dump_executor()
        self.done_by_manager = []

    trainer_mode, global_steps = "sync", 0

    def note(self, name):
        return lambda *args: self.done_by_manager.append(name)

    def _build_replay_buffer(self):
        return Buffer()

    def prepare_step(self):
        self.train_dataloader_it = self.train_dataloader_it or iter(self.train_dataloader)
        try:
            self.batch = next(self.train_dataloader_it).tolist()
        except StopIteration:
            self.train_dataloader_it = iter(self.train_dataloader)
            self.batch = next(self.train_dataloader_it).tolist()
        return {}

    def _same(self, batch, metrics=None):
        return batch

    _balance_batch = _compute_old_log_prob = _compute_ref_log_prob = _compute_advantage = _same

    def _update_actor(self, batch, metrics):
        self.weight = (31 * self.weight + sum((i + 1) * x for i, x in enumerate(self.batch))) % 10**9
        metrics["weight"] = self.weight
        return batch

    def _validate(self):
        self.replay_buffer.sample(self.global_steps, "val", BATCH)
        return {"validated": self.weight}

    def _compute_metrics(self, batch, metrics, *args, **kwargs):
        return None

    def _load_checkpoint(self):
        super()._load_checkpoint()
        if self.global_steps:
            path = self.folder / "checkpoints" / f"global_step_{self.global_steps}" / "actor" / "weight"
            self.weight = json.loads(path.read_text())

    @property
    def actor_rollout_wg(self):
        def save_checkpoint(folder, _, step, max_ckpt_to_keep):
            self.saves.append(step)
            assert max_ckpt_to_keep is None
            Path(folder).mkdir(parents=True)
            (Path(folder) / "weight").write_text(json.dumps(self.weight))

        return SimpleNamespace(save_checkpoint=save_checkpoint, load_checkpoint=lambda **_: None)

    checkpoint_callback = SimpleNamespace(on_save=lambda **_: None)


class Trainer(Phased, Steps):
    """Our mix-in over it, with the records of a run."""

    def begin(self, phase, **values):
        super().begin(phase, **values)
        self.hook(self, phase)

    def _compute_metrics(self, batch, metrics, *args, **kwargs):
        records.Records(self.folder).append(self.global_steps, {k: float(v) for k, v in metrics.items()})
        self.done(self.global_steps, reward=0.5)


@pytest.fixture
def train(tmp_path, monkeypatch):
    """Train in a folder until the end, or until a hook asks to stop."""
    monkeypatch.setattr(phases, "LOOK_EVERY", 0.0)
    monkeypatch.setattr(trainer_base.tq, "kv_clear", lambda **_: None)
    monkeypatch.setattr(trainer_base, "Tracking", lambda **_: SimpleNamespace(log=lambda **_: None))
    monkeypatch.setattr(trainer_base, "SkipManager", SimpleNamespace(init=lambda _: None, set_step=lambda _: None))

    def run(name, hook=lambda *_: None, **settings):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        monkeypatch.setenv("DYNAMO_RUN_FOLDER", str(folder))
        (folder / "stop").unlink(missing_ok=True)
        made = Trainer(folder, hook)
        for key, value in settings.items():
            OmegaConf.update(made.config, key, value)
        made._load_checkpoint()
        made.fit(None)
        return made

    return run


def lines(made):
    return records.read_metrics(made.folder / "metrics.jsonl")


def stop_at(phase, step):
    """Ask a run to stop when a phase begins in a step."""

    def hook(made, begun):
        if begun == phase and made.global_steps == step:
            (made.folder / "stop").touch()

    return hook


def test_every_phase_of_a_step_is_told(train):
    told = []
    made = train("whole", lambda made, phase: told.append((made.global_steps, phase)), **{"trainer.save_freq": 3})
    of_step = list(dict.fromkeys(phase for step, phase in told if step == 6))
    expected = [x for x in STEPPING if x != "records"]
    assert of_step == [*expected, "records"]
    assert [phase for step, phase in told if step == 0][:3] == ["vLLM", "checkpoint loading", "first look"]
    assert sum(told.count((6, phase)) > 1 for phase in ("rollouts", "validation")) == 2, "with every finished prompt"
    assert made.saves == [3, 6, 7]
    assert read_progress(made.folder)["step"] == STEPS


@pytest.mark.parametrize("step", [1, 6])
@pytest.mark.parametrize("phase", STEPPING)
def test_a_run_that_is_stopped_in_any_phase_goes_on_as_if_it_had_not_been(train, phase, step):
    """In the first step, and in one of the second epoch after which it validates and saves."""
    whole = train("whole")
    first = train("parts", stop_at(phase, step), **{"trainer.save_freq": 6})
    if (phase == "checkpoint" and step != 6) or (phase == "validation" and step % 2):
        assert read_progress(first.folder)["phase"] != STOPPED, "there is no such phase"
        return
    assert read_progress(first.folder)["phase"] == STOPPED
    at_once = phase == "rollouts"
    assert first.steps_done == step - at_once
    assert records.latest_checkpoint(first.folder) == (
        first.folder / "checkpoints" / f"global_step_{first.steps_done}" if first.steps_done else None
    )
    again = train("parts")
    assert lines(again) == lines(whole)
    assert again.weight == whole.weight
    assert len(set(first.saves)) == len(first.saves)


def test_a_trainer_that_rolls_out_ahead_is_stopped_after_a_step(train, monkeypatch):
    """It saves where verl does: the rollouts under way, which it would abort later, are part of its checkpoint."""
    monkeypatch.setattr(Steps, "trainer_mode", "colocate_async")
    monkeypatch.setattr(trainer_base.tq, "kv_list", lambda *_: None)
    monkeypatch.setattr(trainer_base.tq, "save_checkpoint", lambda *_, **__: None)
    for phase, step, last in (("rollouts", 3, 3), ("update", 3, 3), ("validation", 4, 5)):
        told = []

        def hook(made, begun, phase=phase, step=step, told=told):
            stop_at(phase, step)(made, begun)
            told.append((made.global_steps, begun))

        made = train(f"ahead-{phase}", hook)
        assert (made.steps_done, made.saves) == (last, [last])
        assert (last + 1, "rollouts") not in told
        assert "abort_replicas" not in made.done_by_manager


def test_the_gpus_are_the_trainers_while_it_saves(train):
    """Requests are aborted first: vLLM would sleep only when all are answered."""
    made = train("parts", stop_at("rollouts", 3))
    assert made.done_by_manager[-2:] == ["abort_replicas", "sleep_replicas"]
    assert made.saves == [2]


def test_a_run_that_has_a_checkpoint_of_its_last_step_saves_no_other(train):
    made = train("parts", stop_at("rollouts", 4), **{"trainer.save_freq": 3})
    assert made.saves == [3]
    again = train("parts", stop_at("first look", 3))
    assert (again.saves, read_progress(again.folder)["phase"]) == ([], STOPPED)


def test_chains_of_stops_lose_nothing(train):
    """Ten runs, each stopped at random moments until it is through."""
    whole, chance = train("whole"), random.Random(7)
    for number in range(10):
        for _ in itertools.count():
            hook = stop_at(chance.choice(STEPPING), chance.randint(1, STEPS))
            made = train(f"chain{number}", hook)
            if read_progress(made.folder)["phase"] != STOPPED:
                break
        assert lines(made) == lines(whole)


def test_the_first_checkpoint_is_early_and_changes_nothing(train):
    whole, early = train("whole"), train("early", **{"checkpoints.first": 2})
    assert (whole.saves, early.saves) == ([7], [2, 7])
    assert lines(early) == lines(whole)
    assert train("same", **{"checkpoints.first": 2, "trainer.save_freq": 2}).saves == [2, 4, 6, 7]
    assert train("never", **{"checkpoints.first": 2, "trainer.save_freq": -1}).saves == []


# What is kept


def checkpoints(folder, *steps):
    for step in steps:
        export = folder / f"global_step_{step}" / records.EXPORT
        export.mkdir(parents=True)
        (export / "model.safetensors").write_text(str(step))
        (export.parent / "model_rank_0.pt").write_text(str(step))
        (export.parent / "fsdp").mkdir()
        (folder / f"global_step_{step}" / phases.QUEUE).mkdir()
        (folder / f"global_step_{step}" / records.STATE).write_text("{}")
        (folder / records.LATEST).write_text(str(step))


def kept(folder):
    """Return the steps whose weights, and whose exports, are there."""
    return [
        sorted(int(x.parts[depth].rpartition("_")[2]) for x in folder.glob(f"global_step_*/{pattern}"))
        for depth, pattern in ((-3, "actor/*.pt"), (-4, "actor/huggingface/*"))
    ]


def test_every_kth_export_stays_where_it_is(tmp_path):
    folder = tmp_path / "checkpoints"
    checkpoints(folder, 1, 2, 4, 6, 8)
    clear(folder, 2, 4)
    assert kept(folder) == [[6, 8], [4, 6, 8]]
    assert all((folder / f"global_step_{step}" / records.STATE).exists() for step in (1, 2, 4, 6, 8))
    assert [x.name for x in (folder / "global_step_4" / "actor").iterdir()] == ["huggingface"]
    assert sorted(x.parent.name for x in folder.glob(f"*/{phases.QUEUE}")) == ["global_step_6", "global_step_8"]
    checkpoints(folder, 10, 12)
    clear(folder, 1, 0)
    assert kept(folder) == [[12], [12]]


def test_what_a_killed_save_has_left_is_not_counted(tmp_path):
    """Only complete checkpoints count, so that the last one is never deleted; nor are folders of other names."""
    folder = tmp_path / "checkpoints"
    checkpoints(folder, 2, 4, 6)
    (folder / records.LATEST).write_text("4")
    (folder / "global_step_x").mkdir()
    clear(folder, 1, 0)
    assert kept(folder) == [[4, 6], [4, 6]]
    clear(tmp_path / "none", 1, 0)


def test_a_failure_while_it_saves_is_one(train, monkeypatch):
    monkeypatch.setattr(Trainer, "_save_checkpoint", lambda self: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        train("parts", stop_at("rollouts", 3))
