"""Whole runs of verl and vLLM on the CPU: real Ray, FSDP2, vLLM, weight sync, checkpoints, failures.

Every run ends by a failure that is asked for, so that few runs show much.
"""

from __future__ import annotations

import json
import re
import shutil
import signal
import tempfile
from pathlib import Path

import numpy as np
import psutil
import pytest

from scale.plugin.metrics import METRICS
from scale.run.reports import read_progress
from scale.run.supervisor import GUARD
from tests.scale.conftest import ended_with_its_cause, eventually, learning, left, lines
from tests.scale.sockets import elsewhere
from theory.allocation import Problem, SuccessHistory, allocate, get_allocator
from theory.base import runs as run_format
from theory.base.files import read_json, write_json

# One process has all the runs: they share the machine's two cores badly.
pytestmark = [pytest.mark.needs_verl, pytest.mark.xdist_group("verl")]

AFTER = 4
"""Steps of the runs that are compared; an epoch has 3."""


@pytest.fixture(scope="module")
def dynamo(runs):
    """Six steps and more, until kill -9."""
    return runs.kill("dynamo", "dynamo.dump=true", after=6, steps=1000)


@pytest.fixture(scope="module")
def resumed(runs, dynamo):
    """Resume the same run as if it had been killed after three steps."""
    out = runs.folder / "resumed"
    shutil.copytree(dynamo / "checkpoints", out / "checkpoints", ignore=shutil.ignore_patterns("global_step_[4-9]*"))
    (out / "checkpoints" / "latest_checkpointed_iteration.txt").write_text("3")
    for name in ("metrics.jsonl", "allocation.jsonl"):
        shutil.copy(dynamo / name, out / name)
    return runs.fail("resumed", "loop", after=6)


@pytest.fixture(scope="module")
def ranks(runs):
    """Two ranks, with importance weights of sequences in verl's own loss: the sampler computes as the trainer does."""
    weights = "algorithm.rollout_correction.rollout_is=sequence"
    return runs.fail("ranks", "trainer", "trainer.n_gpus_per_node=2", weights, after=AFTER)


@pytest.fixture(scope="module")
def rounds(runs):
    """Roll out in rounds, with a loss in which tokens compete, on two ranks, and a sampler in another precision."""
    weights = ("algorithm.rollout_correction.rollout_is=token", "actor_rollout_ref.rollout.dtype=bfloat16")
    budget = ("actor_rollout_ref.rollout.n=12", "dynamo.rollouts_high=24", "trainer.n_gpus_per_node=2")
    method = ("--method", "kl-cov", "--allocator", "reinforce-ada")
    return runs.fail("rounds", "reward", *method, *budget, *weights, after=3)


def test_trainer_and_sampler_agree(dynamo):
    """After every step vLLM has the trained weights: its probabilities are the trainer's up to rounding."""
    for line in lines(dynamo):
        assert line["training/rollout_probs_diff_max"] < 1e-4


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "where", "part"),
    [("rounds", "agent loop", "reward"), ("resumed", "agent loop", "loop"), ("ranks", "trainer", "trainer")],
)
def test_a_failure_anywhere_ends_the_run_with_its_cause(name, where, part, request):
    """The agent loop asks for rewards, and reports their failures; a vLLM worker's is in `test_smoke.py`."""
    ended_with_its_cause(request.getfixturevalue(name), where, part)


@pytest.mark.long
def test_a_reward_that_is_no_number_ends_the_run(runs):
    """Stock too, and before anything is learnt from it: with the prompt's key and the function's name."""
    out, _ = runs.fail("nan", "nan", "--stock", after=1)
    said = runs.said("nan")
    assert re.search(r"expected a finite number, got score nan of a response\s+to prompt '\w{16}' by", said)
    assert "faults.py:compute_score" in said
    assert all(np.isfinite(x) for line in lines(out) for name, x in line.items() if name.startswith("actor/"))


def test_kill_9_leaves_nothing(dynamo):
    assert eventually(lambda: not left(dynamo))  # SIGTERM, three seconds, SIGKILL


def test_nobody_else_reaches_a_port(dynamo, runs):
    """Every socket of the run's processes waits on the loopback address, and refuses who comes by another one."""
    sockets = runs.sockets["dynamo"]
    (found,) = sockets.found.values()
    assert len(found) > 20, "Ray, TransferQueue, torch and vLLM listen"
    assert elsewhere(found) == set()
    assert sockets.reached == set()


def test_vllm_answers_nobody_without_the_key(dynamo, runs):
    """Of its HTTP server, which verl starts and never calls; the key is random, and nobody has it."""
    assert len(runs.sockets["dynamo"].guarded) == 1
    assert not runs.sockets["dynamo"].open


def test_budget_bounds_and_keys(dynamo):
    """Every step spends 8 x 8 within [4, 12], by the rule, from what the history knew of the prompt's key."""
    out = dynamo
    history, rule, seen = SuccessHistory(), get_allocator("dynamo"), set()
    rows = lines(out, "allocation.jsonl")
    for row in rows:
        counts = np.array(row["counts"])
        assert counts.sum() == 64
        assert counts.min() >= 4
        assert counts.max() <= 12
        problem = Problem(*history.counts(row["keys"]), 64, 4, 12)
        expected = allocate(rule, problem, np.random.default_rng(0))
        assert counts.tolist() == expected.tolist()
        history.update(row["keys"], row["successes"], row["counts"])
        seen |= set(row["keys"])
    assert len(seen) == 24, "three batches are an epoch; the second visits the same prompts in another order"
    assert any(len(set(row["counts"])) > 1 for row in rows)
    state = read_json(out / "checkpoints" / f"global_step_{rows[-1]['step']}" / "dynamo.json")
    saved = SuccessHistory()
    saved.load_state_dict(state["history"])
    assert [x.tolist() for x in saved.counts(sorted(seen))] == [x.tolist() for x in history.counts(sorted(seen))]


def test_R1_R2_rewards_belong_to_their_prompts(dynamo):
    """Verl's dumps, read by question: as many responses as allocated, and as many right as the history was told."""
    from scale import tiny

    out = dynamo
    keys = {x.question: x for x in tiny.prompts()}
    for row in lines(out, "allocation.jsonl"):
        dumped = [json.loads(line) for line in (out / "rollouts" / f"{row['step']}.jsonl").read_text().splitlines()]
        counts, successes = {}, {}
        for one in dumped:
            question = one["input"].splitlines()[1].strip()
            x = keys[question]
            assert one["gts"] == x.answer
            assert one["score"] == float(one["output"].strip() == x.answer)
            counts[x.key] = counts.get(x.key, 0) + 1
            successes[x.key] = successes.get(x.key, 0) + int(one["score"])
        for key, n, k in zip(row["keys"], row["counts"], row["successes"], strict=True):
            assert (counts[key], successes[key]) == (n, k)


@pytest.mark.long
def test_every_metric_of_ours_is_explained(dynamo, rounds):
    found = {name for out in (dynamo, rounds[0]) for line in lines(out) for name in line if "dynamo/" in name}
    assert found <= set(METRICS)
    assert len(found) >= 25
    for line in lines(dynamo):
        low, middle, high = (line[f"dynamo/compensation_q{q}"] for q in ("05", "50", "95"))
        assert 1 <= low <= middle <= high <= 1.4
        assert line["dynamo/rollouts_q25"] <= line["dynamo/rollouts_q75"]


@pytest.mark.long
def test_a_rule_in_rounds_is_charged_for_what_it_rolls_out(rounds):
    """The rule again, on the rewards of the dumped responses in their order; what it leaves is padding."""
    rounds, spent = rounds[0], []
    rows, updates = lines(rounds, "allocation.jsonl"), lines(rounds)
    for row in rows[: len(updates)]:
        dumped = [json.loads(line) for line in (rounds / "rollouts" / f"{row['step']}.jsonl").read_text().splitlines()]
        rewards = {}
        for one in dumped:
            name, number, _ = one["uid"].rsplit("_", 2)
            assert len(rewards.setdefault(name, [])) == int(number), "trajectories are numbered through the rounds"
            rewards[name].append(one["score"])
        rewards, done = [rewards[name] for name in sorted(rewards)], np.zeros(8, dtype=int)

        def observe(counts, rewards=rewards, done=done):
            new = [sum(x[start : start + n]) for x, start, n in zip(rewards, done, counts, strict=True)]
            done += counts
            return np.array(new)

        problem = Problem(np.zeros(8), np.zeros(8), 96, 4, 24)
        expected = allocate(get_allocator("reinforce-ada"), problem, np.random.default_rng(0), observe)
        assert row["counts"] == expected.tolist() == [len(x) for x in rewards]
        assert row["successes"] == [sum(x) for x in rewards]
        spent.append(sum(row["counts"]))
    assert max(spent) <= 96
    assert min(spent) < 96, "otherwise there is no padding"
    for line, total in zip(updates, spent, strict=True):
        assert line["dynamo/rollouts"] == total
        assert line["actor/dynamo/targeted"] > 0
        assert line["actor/grad_norm"] > 0


@pytest.mark.long
@pytest.mark.parametrize("name", ["ranks", "rounds"])
def test_importance_weights_reach_the_loss(name, request):
    """Those that verl computes are those that the workers multiply by: in verl's loss, and in ours with padding."""
    for line in lines(request.getfixturevalue(name)[0]):
        found = {kind: line[f"actor/dynamo/importance_{kind}"] for kind in ("mean", "min", "max")}
        assert found["mean"] == pytest.approx(line["rollout_corr/rollout_is_mean"], abs=1e-3)
        assert found["min"] <= found["mean"] <= found["max"]
        assert abs(found["max"] - 1) < 1e-4 if name == "ranks" else 1.0005 < found["max"] <= 2
        if name == "rounds":
            assert found["max"] == pytest.approx(line["rollout_corr/rollout_is_max"], rel=1e-6)
            assert found["min"] == pytest.approx(line["rollout_corr/rollout_is_min"], rel=1e-6)


def modulated(out):
    """Return the dumped micro-batches."""
    import torch

    return [torch.load(path) for path in sorted((out / "modulated").glob("*.pt"))]


def test_R4_advantages_of_unequal_groups(dynamo):
    """Recomputed by hand for every group: (r - mean) / (sample std + 1e-6), constant over a response's tokens."""
    out = dynamo
    found, expected = [], []
    for row in lines(out, "allocation.jsonl"):
        for n, k in zip(row["counts"], row["successes"], strict=True):
            rewards = np.array([1.0] * k + [0.0] * (n - k))
            values = (rewards - rewards.mean()) / (rewards.std(ddof=1) + 1e-6)
            expected += values.tolist()
    for part in modulated(out):
        mask = part["mask"]
        assert (part["advantages"] == part["advantages"][:, :1] * mask).all()
        found += part["advantages"][:, 0].tolist()
    # The dump may hold a step more than the records, under way when the run was ended.
    found = found[: len(expected)]
    np.testing.assert_allclose(sorted(found), sorted(expected), atol=2e-6)


def test_modulated_advantages_are_theorys(dynamo):
    """The tensors of a real run through `theory.losses.modulation` in float64."""
    from theory.losses import Modulation, Scope, modulate
    from theory.policy import TokenStatistics

    out = dynamo
    parts = modulated(out)
    assert len(parts) >= 12
    changed = 0
    for part in parts:
        double = {name: x.double() for name, x in part.items() if name not in ("mask", "scope")}
        stats = TokenStatistics(*(double[name] for name in TokenStatistics._fields))
        result = modulate(
            double["advantages"],
            stats,
            part["mask"],
            Modulation(),
            coefficient=double["coefficient"],
            scope=Scope(**part["scope"]),
        )
        np.testing.assert_allclose(part["shaped"], result.advantages, atol=1e-5)
        changed += int((part["shaped"] != part["advantages"]).sum())
    assert changed > 0


def test_statistics_are_those_of_the_model(dynamo, runs):
    """Of the first mini-batch, from the logits of the untrained model in Transformers, in float64."""
    import torch
    from transformers import AutoModelForCausalLM

    from theory.policy import token_statistics

    part = modulated(dynamo)[0]
    model = AutoModelForCausalLM.from_pretrained(runs.folder / "results" / "scale" / "tiny" / "model").double()
    for row, mask in enumerate(part["mask"]):
        prompt, response = (part[name][row][part[name][row] >= 0] for name in ("prompts", "responses"))
        with torch.no_grad():
            logits = model(torch.cat([prompt, response])[None]).logits[0, len(prompt) - 1 : -1]
        expected = token_statistics(logits, response)
        for name, x in expected._asdict().items():
            np.testing.assert_allclose(part[name][row][mask], x, atol=2e-5, err_msg=name)


def test_normalisers_are_those_of_the_rollout_batch(dynamo):
    """One scope per step for all of its mini-batches, and it contains what they measured before the first update."""
    out = dynamo
    scopes = [tuple(part["scope"].values()) for part in modulated(out)]
    assert scopes[0::2] == scopes[1::2][: len(scopes[0::2])]
    assert len(set(scopes)) >= 6
    first = modulated(out)[0]
    entropy = first["entropy"][first["mask"]]
    assert float(entropy.min()) >= first["scope"]["entropy_min"] - 1e-6
    assert float(entropy.max()) <= first["scope"]["entropy_max"] + 1e-6


@pytest.mark.long
@pytest.mark.twin
def test_R9_a_killed_run_resumes_to_the_same_numbers(resumed, dynamo):
    """Six steps in one go are three, a kill and three: history, allocation, rollouts and updates, to the last digit."""
    expected, found = learning(dynamo), learning(resumed[0])
    for step in range(1, 7):
        assert {name: found[step][name] for name in expected[step]} == expected[step]
    assert [line["step"] for line in lines(resumed[0])][:6] == list(range(1, 7))
    assert lines(resumed[0], "allocation.jsonl")[:6] == lines(dynamo, "allocation.jsonl")[:6]


@pytest.mark.long
@pytest.mark.twin
def test_two_ranks_are_one(ranks, dynamo):
    """Two data-parallel workers, each with its own vLLM: the same rollouts, the same updates up to rounding."""
    expected, found = learning(dynamo), learning(ranks[0])
    for step in range(1, AFTER + 1):
        for name in ("critic/score/mean", "dynamo/rollouts_max", "dynamo/degenerate_groups"):
            assert found[step][name] == expected[step][name], (step, name)
        for name in ("actor/pg_loss", "actor/grad_norm", "actor/entropy", "actor/dynamo/compensation_mean"):
            assert found[step][name] == pytest.approx(expected[step][name], rel=1e-3, abs=1e-5), (step, name)


@pytest.mark.long
def test_a_finished_run_is_in_the_projects_format(resumed, tmp_path):
    """From the records of a real run."""
    import pyarrow.parquet as pq

    from scale.run import records

    for name in ("metrics.jsonl", "allocation.jsonl"):
        shutil.copy(resumed[0] / name, tmp_path / name)
    config = read_json(resumed[0] / "config.json")
    config["trainer"]["total_training_steps"] = 6
    write_json(tmp_path / "config.json", config)
    records.Records(tmp_path).truncate(6)
    records.finish(tmp_path, 1.0)
    table = pq.read_table(tmp_path / "metrics.parquet")
    assert table["step"].to_pylist() == list(range(1, 7))
    assert set(table["seed"].to_pylist()) == {1}
    found = json.loads((tmp_path / "versions.json").read_text())
    assert found["verl"] == "0.9.1"
    assert found["seeds"] == [1]
    assert json.loads((tmp_path / "config.json").read_text())["dynamo"]["method"] == "dynamo"
    assert run_format.read_run(tmp_path).metrics.num_rows == 6


@pytest.mark.long
@pytest.mark.parametrize("driver", [False, True], ids=["caller and guard", "caller, guard and driver"])
def test_kill_9_of_several_leaves_nothing(driver, runs, monkeypatch):
    """Neither Ray's processes nor their folder and sockets; the other combinations are in `test_kills.py`."""
    import psutil

    with tempfile.TemporaryDirectory(prefix="t", dir="/tmp") as folder:  # Sockets need a short path.
        monkeypatch.setenv("TMPDIR", folder)
        name = f"killed-{driver}"
        process, out = runs.start(name, steps=1000)
        runs.wait_for(process, name, 1)
        (guard,) = [child for child in psutil.Process(process.pid).children() if str(GUARD) in child.cmdline()]
        drivers = [child for child in guard.children() if "scale.launch.driver" in child.cmdline()]
        assert len(left(out)) > 10
        for each in [process, guard, *drivers[: int(driver)]]:
            each.kill()
        process.wait()
        assert eventually(lambda: not left(out))
        # What torch compiles is for the next run; the locks of verl and a file of vLLM stay, however a run ends.
        assert eventually(
            lambda: not [x for x in Path(folder).iterdir() if x.name.startswith("dynamo") or x.is_socket()]
        )


# Runs that end and go on by themselves

PATIENT = """
import dataclasses, sys
from scale.launch import limits
made = limits.limits_of
limits.limits_of = lambda *x: dataclasses.replace(made(*x), phases={"rollouts": 20.0})
from scale.__main__ import main
sys.exit(main(sys.argv[1:]))
"""
"""`python -m scale` whose rollouts may be silent for 20 seconds; the first ones wait for imports of their workers."""

SELDOM = {
    "trainer.save_freq": 1000,
    "checkpoints.keep_exports": 1,
    "trainer.max_actor_ckpt_to_keep": 1,
    "actor_rollout_ref.actor.checkpoint.save_contents": "[model,optimizer,extra,hf_model]",
}


@pytest.fixture(scope="module")
def stops(runs):
    """Six steps: SIGTERM during the second update and during the fourth rollouts; kill -9 in the sixth step."""
    said = []

    def start(*arguments, **options):
        return runs.start("stops", *arguments, steps=6, **options)[0]

    def phase(process, step, name):
        runs.wait_for(process, "stops", step)
        assert eventually(lambda: (read_progress(out) or {}).get("phase") == name, 120), runs.said("stops")

    def ends(process, status):
        assert process.wait(timeout=240) == status, runs.said("stops")
        assert eventually(lambda: not left(out))
        saved = sorted({x.parts[-3] for x in (out / "checkpoints").glob("global_step_*/actor/*.pt")})
        said.append((runs.said("stops"), [line["step"] for line in lines(out)], saved))

    out = runs.folder / "stops"
    out.mkdir()
    (out / "fail-slow").touch()
    process = start(changes=SELDOM, program=("-c", PATIENT))
    phase(process, 1, "update")
    process.send_signal(signal.SIGTERM)
    ends(process, 75)
    process = start(changes=SELDOM)
    phase(process, lines(out)[-1]["step"] + 1, "rollouts")
    process.send_signal(signal.SIGTERM)
    ends(process, 75)
    process = start("--restarts", "1", changes=SELDOM | {"trainer.save_freq": 2})
    phase(process, 5, "rollouts")
    (out / "fail-slow").unlink()
    workers = [x for x in map(psutil.Process, left(out)) if "WorkerDict" in " ".join(x.cmdline())]
    workers[0].kill()
    ends(process, 0)
    return out, said


@pytest.mark.long
def test_sigterm_saves_the_last_finished_step(stops):
    """During an update that of the update, during rollouts that before them."""
    (first, steps, saved), (second, later, saved_later), _ = stops[1]
    assert steps == list(range(1, len(steps) + 1))
    assert later == [*steps, len(steps) + 1]
    assert saved == [f"global_step_{steps[-1]}"], "of all steps, since the first one's is deleted"
    assert saved_later == [f"global_step_{later[-1]}"]
    for text in (first, second.removeprefix(first)):
        assert "stopped as asked after" in text
        assert "the same command resumes" in " ".join(text.split())


@pytest.mark.long
def test_a_run_whose_worker_is_killed_goes_on_by_itself(stops):
    said = " ".join(stops[1][2][0].split())
    assert "restart 1 of 1 from global_step_4 in 10 s" in said
    assert "6 steps, " in said


@pytest.mark.long
def test_a_run_that_was_stopped_and_killed_is_one_run(stops, dynamo):
    """The same numbers as of a run in one go, to the last digit, and each step once."""
    expected, found = learning(dynamo), learning(stops[0])
    assert [line["step"] for line in lines(stops[0])] == list(range(1, 7))
    for step in range(1, 7):
        assert {name: found[step][name] for name in expected[step]} == expected[step]
    assert lines(stops[0], "allocation.jsonl") == lines(dynamo, "allocation.jsonl")[:6]


@pytest.mark.long
def test_exports_stay_and_can_be_evaluated(stops):
    from scale.evaluation.exports import require_unchanged, resolve_checkpoint

    folder = stops[0] / "checkpoints"
    assert stops[1][2][2] == ["global_step_6"]
    assert sorted(x.parts[-4] for x in folder.glob("*/actor/huggingface/*.safetensors")) == [
        "global_step_4",
        "global_step_6",
    ]
    kept = resolve_checkpoint(folder / "global_step_4")
    require_unchanged(kept.export)
    assert kept.step == 4
    hashed = read_json(stops[0] / "versions.json")["files"]
    assert "checkpoints/global_step_4/actor/huggingface/model.safetensors" in hashed
    assert "checkpoints/global_step_4/dynamo.json" in hashed
