"""The path of a benchmark run, by its one command: prepare, train two methods, evaluate, audit, draw."""

from __future__ import annotations

import json

import pyarrow.parquet as pq
import pytest

from scale.tiny import SOURCE
from tests.scale.conftest import (
    SMOKE_METHODS as METHODS,
    SMOKE_SECRETS,
    SMOKE_STEPS as STEPS,
    ended_with_its_cause,
    learning,
    lines,
)
from tests.scale.sockets import elsewhere
from theory.base import runs as run_format
from theory.methods import METHODS as TABLE

# One process has these runs.
pytestmark = [pytest.mark.needs_verl, pytest.mark.long, pytest.mark.xdist_group("smoke")]

TITLES = {"stock": "GRPO (stock)", "dynamo": TABLE["dynamo"].title}


@pytest.fixture(scope="module")
def neutral(runs, smoke):
    """DynaMO with alpha 0 and uniform allocation, on what `smoke` trains on."""
    sizes = {
        "data.train_batch_size": 32,
        "data.train_max_samples": -1,
        "actor_rollout_ref.actor.ppo_mini_batch_size": 16,
        "dynamo.modules": "[tests.scale.ideas]",
    }
    files = {"data.train_files": smoke[0] / "data" / f"{SOURCE}.parquet", "tiny_folder": smoke[0] / "tiny"}
    return runs.fail("neutral", "worker", "--method", "neutral", after=STEPS, changes=sizes | files)


def test_data_are_prepared_from_the_hubs_schema(smoke):
    out, said, _ = smoke
    kept = pq.read_table(out / "data" / "dapo-math-17k.parquet")
    source = pq.read_table(out / "source" / "dapo-math-17k.parquet")
    conflicts = (out / "data" / "dapo-math-17k.conflicts.jsonl").read_text().splitlines()
    assert source.num_rows == 2 * kept.num_rows + 2
    assert len(conflicts) == 1
    assert "expected 17,398 problems" in said


def test_every_method_trains_on_them(smoke):
    out, *_ = smoke
    learnt = {}
    for method in METHODS:
        run = run_format.read_run(out / "scale" / f"{method}-seed1")
        assert run.config["dynamo"]["stock"] == (method == "stock")
        assert run.config["dynamo"]["method"] == ("grpo" if method == "stock" else method)
        assert run.metrics["step"].to_pylist() == list(range(STEPS + 1)), "0 is the validation before"
        learnt[method] = run.metrics["actor/grad_norm"].to_pylist()
        assert len(set(learnt[method][1:])) == STEPS
    assert learnt["stock"] != learnt["dynamo"]


def test_alpha_0_and_uniform_allocation_is_stock_grpo(neutral, smoke):
    """To the last digit: loss, gradient norm, clipping, rewards, advantages, lengths; verl's entropy up to rounding."""
    expected, found = learning(smoke[0] / "scale" / "stock-seed1"), learning(neutral[0])
    for step in range(1, STEPS + 1):
        common = {name: x for name, x in expected[step].items() if name in found[step]}
        assert {"actor/pg_loss", "actor/grad_norm", "actor/entropy", "critic/score/mean"} <= set(common)
        entropy = common.pop("actor/entropy")
        assert found[step]["actor/entropy"] == pytest.approx(entropy, rel=1e-5)
        assert {name: found[step][name] for name in common} == common


def test_trainer_and_sampler_agree(smoke):
    """After every step vLLM has the weights that verl's own trainer has trained."""
    for line in lines(smoke[0] / "scale" / "stock-seed1")[1:]:
        assert line["training/rollout_probs_diff_max"] < 1e-4


def test_a_failure_of_a_vllm_worker_ends_the_run_with_its_cause(neutral):
    ended_with_its_cause(neutral, "vLLM worker", "worker")


def test_trackers_get_every_metric(smoke):
    """Verl's TensorBoard logger: the same numbers as the records, ours among them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = smoke[0] / "scale" / "dynamo-seed1"
    events = EventAccumulator(str(run / "tensorboard")).Reload()
    last = lines(run)[-1]
    assert set(last) - {"step"} <= set(events.Tags()["scalars"])
    for name in ("dynamo/rollouts_max", "actor/dynamo/compensation_mean", "actor/entropy"):
        assert events.Scalars(name)[-1].value == pytest.approx(last[name], rel=1e-6), name


def test_checkpoints_are_evaluated_in_the_shape_of_table_1(smoke):
    """Two checkpoints, two sampling seeds each, beside nothing published: the paper has no tiny model."""
    out, *_ = smoke
    rows = json.loads((out / "scale" / "evaluation" / "table.json").read_text())["rows"]
    found = [(row["model"], row["method"], row["source"]) for row in rows]
    assert found == [("tiny", TITLES[name], "measured") for name in METHODS]
    problems = pq.read_table(out / "tiny" / "val.parquet").to_pylist()
    answers = {x["extra_info"]["key"]: x["reward_model"]["ground_truth"] for x in problems}
    for name, row in zip(METHODS, rows, strict=True):
        folder = out / "scale" / "evaluation" / f"{name}-seed1-step{STEPS}"
        drawn = [sample for seed in (1, 2) for sample in lines(folder / f"val-seed{seed}", "samples.jsonl")]
        assert len(drawn) == 2 * 32 * len(answers)
        right = [sample["text"].strip() == answers[sample["key"]] for sample in drawn]
        assert row["cells"]["tiny-arithmetic"]["pass@1"]["value"] == pytest.approx(100 * sum(right) / len(right))


def test_nobody_else_reaches_a_port_of_any_run(smoke):
    """Stock, DynaMO and the evaluation of both, from their start to their end."""
    _, _, sockets = smoke
    runs = {*(f"{name}-seed1" for name in METHODS), *(f"{name}-seed1-step{STEPS}" for name in METHODS)}
    assert {x.name for x in sockets.found} == runs
    for run, found in sockets.found.items():
        assert found, run
        assert elsewhere(found) == set(), run
    assert sockets.reached == set()


def test_the_runs_are_audited(smoke):
    """The audit's rollouts and successes are those that the trainer recorded."""
    out, *_ = smoke
    for method in METHODS:
        run = out / "scale" / f"{method}-seed1"
        table = pq.read_table(run / "audit" / "audit.parquet").to_pylist()
        scores = [line["critic/score/mean"] for line in lines(run)[1:]]
        assert sum(x["rollouts"] for x in table) == 256 * STEPS
        assert sum(x["successes"] for x in table) == pytest.approx(256 * sum(scores))
        assert (run / "audit" / "audit.png").stat().st_size > 10_000
    counted = lines(run, "allocation.jsonl")
    assert sum(x["rollouts"] for x in table) == sum(sum(x["counts"]) for x in counted)
    assert sum(x["successes"] for x in table) == sum(sum(x["successes"]) for x in counted)


def test_a_figure_is_drawn(smoke):
    out, *_ = smoke
    (entry,) = json.loads((out / "figures" / "index.json").read_text())["items"]
    assert entry["name"] == "fig5_dynamics"
    for name in entry["files"].values():
        assert (out / "figures" / name).stat().st_size > 1_000


def test_an_export_is_a_model(smoke):
    """Transformers loads it, and its weights have moved."""
    import torch
    from transformers import AutoModelForCausalLM

    export = smoke[0] / "scale" / "dynamo-seed1" / "checkpoints" / f"global_step_{STEPS}" / "actor" / "huggingface"
    trained, initial = (AutoModelForCausalLM.from_pretrained(x) for x in (export, smoke[0] / "tiny" / "model"))
    pairs = [(a, b) for a, b in zip(trained.parameters(), initial.parameters(), strict=True)]
    assert all(torch.isfinite(a).all() for a, _ in pairs)
    assert any(not torch.equal(a, b) for a, b in pairs)


def test_no_file_has_a_secret_of_the_environment(smoke):
    """Neither of a run, nor of the evaluation and the audit."""
    files = [path for path in smoke[0].rglob("*") if path.is_file()]
    assert {"config.json", "log.txt", "versions.json"} <= {path.name for path in files}
    secrets = [x.encode() for x in SMOKE_SECRETS.values()]
    assert [path for path in files if any(x in path.read_bytes() for x in secrets)] == []
