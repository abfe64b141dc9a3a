"""Limits of a run that follow from its estimate, and what counts as a restart."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from scale.launch.limits import DEADLINE, LEAST, MARGIN, Limits, in_time
from scale.launch.progress import PAUSE, Restarts
from scale.run import Failure, Outcome
from scale.run.reports import STARTING, STEPPING, STOPPING

pytestmark = [pytest.mark.needs_verl, pytest.mark.versionless]

BIG = ("qwen2.5-math-7b", "1x8-a100")


@pytest.fixture
def composed(launch, tmp_path):
    def make(*overrides, model=BIG):
        return launch.compose(*model, out=tmp_path, overrides=[f"data.val_files={tmp_path}/none.parquet", *overrides])

    return make


@pytest.mark.parametrize("model", [BIG, ("qwen2.5-math-7b", "1xh200"), ("qwen3-14b", "2x8-a100")], ids="-".join)
def test_no_part_of_a_run_is_allowed_less_than_it_is_expected_to_take(composed, launch, model):
    """A step of 10 to 130 minutes, and 14 to 190 days, are longer than limits that suit a laptop."""
    from scale.launch import estimate

    steps = "trainer.total_training_steps=2000"
    config = composed(steps, "trainer.test_freq=-1", "trainer.save_freq=-1", model=model)
    allowed, needs = launch.limits_of(config), estimate.needs(config)
    dear = {name: pair[1] for name, pair in needs["step_seconds"].items()}
    assert allowed.phases.keys() == {*STARTING, *STEPPING, STOPPING}
    assert min(allowed.phases.values()) == LEAST
    assert allowed.phases["rollouts"] >= MARGIN * dear["generation"]
    assert allowed.phases["update"] + allowed.phases["old log-probs"] >= MARGIN * dear["update"]
    assert allowed.deadline >= 1.5 * needs["steps"] * dear["step"] > DEADLINE
    assert allowed.grace >= dear["update"]


def test_a_validation_is_as_long_as_its_prompts_and_samples_make_it(composed, launch, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    def allowed(*overrides):
        return launch.limits_of(composed("estimate.response_length=[2000,2000]", *overrides)).phases["validation"]

    many, samples = "estimate.validation_prompts=2000", "actor_rollout_ref.rollout.val_kwargs.n"
    assert allowed(many, f"{samples}=64") > 1.5 * allowed(many, f"{samples}=32") > LEAST
    pq.write_table(pa.table({"x": range(30)}), tmp_path / "thirty.parquet")
    assert allowed(many, f"{samples}=32", f"data.val_files={tmp_path}/thirty.parquet") < allowed(many, f"{samples}=32")
    often = launch.limits_of(composed(many, "trainer.test_freq=1")).deadline
    assert often > launch.limits_of(composed(many, "trainer.test_freq=-1")).deadline


def test_a_checkpoint_is_as_long_as_its_bytes_make_it(composed, launch):
    """16 bytes a parameter with the export in float32: 122 GB at 7B, at 100 MB/s and three times."""
    config = composed()
    phases = launch.limits_of(config).phases
    assert phases["checkpoint"] == pytest.approx(MARGIN * 16 * 7615616512 / 100e6)
    assert phases[STOPPING] == phases["checkpoint"]  # a run that is asked to stop saves one, too
    contents = "actor_rollout_ref.actor.checkpoint.save_contents=[model,optimizer,extra]"
    assert launch.limits_of(composed(contents)).phases["checkpoint"] == pytest.approx(MARGIN * 12 * 7615616512 / 100e6)


def test_what_is_given_wins(composed, launch):
    given = launch.limits_of(composed(), 100.0, 7.0, 3.0, 2)
    assert given == Limits(100.0, 7.0, {}, 3.0, 2)
    assert launch.limits_of(composed(), silence=7.0).deadline == launch.limits_of(composed()).deadline


def test_without_an_estimate_limits_are_fixed(launch, tmp_path):
    tiny = launch.compose("tiny", "cpu", out=tmp_path, overrides=[f"tiny_folder={tmp_path}"])
    assert launch.limits_of(tiny) == Limits()
    assert "30 min in every phase; no estimate, so it is fixed" in said_of(tiny, Limits())


def said_of(config, allowed):
    from scale.launch import limits

    return limits.describe(config, allowed)


def test_a_dry_run_prints_all_limits(launch, composed):
    config = composed()
    allowed = launch.limits_of(config, restarts=3)
    said = said_of(config, allowed)
    for name, value in allowed.phases.items():
        assert value == LEAST or f"{name} {in_time(value)} (" in said
    assert f"deadline     {in_time(allowed.deadline)}; the run takes " in said
    assert f"({allowed.grace:.0f} s) from SIGTERM" in said
    assert said.endswith("restarts     3")
    assert "silence      7 s in every phase, as given" in said_of(config, launch.limits_of(config, silence=7.0))


@pytest.mark.parametrize("name", ["deadline", "silence", "grace"])
@pytest.mark.parametrize("value", [-1.0, math.nan])
def test_bad_limits_are_named(name, value):
    with pytest.raises(ValueError, match=f"{name}: expected"):
        Limits(**{name: value})


def test_bad_settings_of_checkpoints_are_named(composed, launch, tmp_path):
    for wrong in ("first=-1", "keep_exports=x"):
        with pytest.raises(ValueError, match=f"checkpoints.{wrong.split('=')[0]}: expected"):
            launch.check(composed(f"checkpoints.{wrong}"), tmp_path, files=False)


# Restarts


FAILED = Outcome("failed", 1, 9.0, (Failure("trainer", "OSError", "gone", "", 7, 1.0),), progress={"step": 5})


def test_a_run_that_failed_or_hung_is_started_again():
    restarts = Restarts(2)
    assert restarts.refusal(FAILED, None) is None
    hung = Outcome("silence", 143, 9.0, progress={"step": 5, "phase": "update"})
    assert restarts.refusal(hung, None) is None
    assert "started again 2 times without a new checkpoint" in restarts.refusal(FAILED, None)


@pytest.mark.parametrize("reason", ["finished", "stopped", "interrupted", "deadline"])
def test_what_is_no_failure_is_not_started_again(reason):
    assert Restarts(2).refusal(replace(FAILED, reason=reason), None) is not None
    assert Restarts(0).refusal(FAILED, None) == "no --restarts"


def test_the_same_end_twice_without_a_new_checkpoint_is_the_last():
    restarts = Restarts(9)
    assert restarts.refusal(FAILED, "global_step_4") is None
    assert "twice in the same way after step 5" in restarts.refusal(FAILED, "global_step_4")
    other = Restarts(9)
    for step in (5, 6, 5, 6):
        assert other.refusal(replace(FAILED, progress={"step": step}), None) is None


def test_a_new_checkpoint_sets_the_count_and_the_pause_back():
    restarts, pauses = Restarts(2), []
    for checkpoint, step in ((None, 1), (None, 2), ("a", 3), ("a", 4), ("b", 5), ("b", 6)):
        assert restarts.refusal(replace(FAILED, progress={"step": step}), checkpoint) is None
        pauses.append(restarts.pause)
    assert pauses == [PAUSE, 2 * PAUSE] * 3
    assert restarts.refusal(replace(FAILED, progress={"step": 7}), "b") is not None
