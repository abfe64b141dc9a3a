"""The folder of a run from elsewhere is data, not code: nothing that it names is run unless the caller says so."""

from __future__ import annotations

import sys

import pytest

from scale.evaluation import exports, planning
from tests.scale.evaluation.made_runs import REWARD, ROOT, command, fill, good, parsed, refused, run_folder
from theory.base.files import read_json, write_json

# Configurations are composed once in a process.
pytestmark = [pytest.mark.needs_verl, pytest.mark.xdist_group("evaluate")]


def changed(run, **values):
    """Change a run's configuration, as whoever made the folder can."""
    config = read_json(run / "config.json")
    for name, value in values.items():
        *parts, last = name.split("__")
        node = config
        for part in parts:
            node = node[part]
        node[last] = value
    write_json(run / "config.json", config)


def code(path):
    """Write a module that leaves a trace when it is run; returns the trace."""
    trace = path.with_suffix(".ran")
    body = "def f(solution_str, **_):\n    return float(solution_str == 'x')\n"
    path.write_text(f"import pathlib\npathlib.Path({str(trace)!r}).touch()\n{body}")
    return trace


def test_a_reward_that_a_run_names_is_not_run(tmp_path):
    run, *arguments = good(tmp_path)
    trace = code(tmp_path / "evil.py")
    changed(run, reward__custom_reward_function__path=str(tmp_path / "evil.py"))
    changed(run, reward__custom_reward_function__name="f")
    message = f"reward: expected a run with a reward function of this package, got {tmp_path}/evil.py:f in"
    refused(message, run, *arguments)
    fill([run, *arguments, "--reward", REWARD], lambda *_: {"correct": True})
    refused(message, run, *arguments)  # nothing is left to do
    assert command(run, *arguments, "--reward", REWARD)[0] == 0
    assert not trace.exists()
    refused("expected an evaluation with the same settings, got one with reward", run, *arguments, "--trust-run")
    assert trace.exists()


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/home/else/scale/tiny.py", "f"),
        ("/home/else/tiny.py", "compute_score"),
        ("/home/else/myscale/tiny.py", "compute_score"),
        ("scale/rewards/scoring.py.py", "compute_score"),
    ],
)
def test_only_the_functions_of_this_package_are_its_own(tmp_path, path, name):
    run, *arguments = good(tmp_path)
    changed(run, reward__custom_reward_function__path=path, reward__custom_reward_function__name=name)
    refused(f"got {path}:{name} in the configuration of run-step4", run, *arguments)


@pytest.mark.parametrize("end", ["scale/rewards/scoring.py", "scale/tiny.py"])
def test_this_packages_rewards_are_our_own_wherever_the_run_had_them(tmp_path, end):
    """A file of that name in the run's folder is not run: it may be another."""
    run, *arguments = good(tmp_path)
    (tmp_path / end).parent.mkdir(parents=True)
    trace = code(tmp_path / end)
    changed(run, reward__custom_reward_function__path=str(tmp_path / end))
    changed(run, reward__custom_reward_function__name="compute_score")
    (item,) = planning.plan(parsed(run, *arguments))[0]
    assert item.settings["reward"]["name"] == f"pkg://{end[:-3].replace('/', '.')}:compute_score"
    assert (ROOT / end).exists()
    assert not trace.exists()


def test_modules_that_a_run_names_are_not_imported(tmp_path, monkeypatch):
    """The present folder is on Python's path: `runs.evil.module` is a file of a run's folder."""
    run, *arguments = good(tmp_path)
    trace = code(tmp_path / "evil_module.py")
    monkeypatch.syspath_prepend(tmp_path)
    changed(run, dynamo__modules=["evil_module"])
    refused("expected a run without modules of its own, got ['evil_module']; --trust-run imports", run, *arguments)
    assert not trace.exists()
    assert exports.resolve_checkpoint(run, trust=True).seed == 1
    assert trace.exists()
    assert sys.modules.pop("evil_module")


def test_a_configuration_is_plain_data(tmp_path, monkeypatch):
    """OmegaConf's resolvers would tell a run's folder what is in our environment, and YAML's tags run code."""
    monkeypatch.setenv("SECRET", "hunter2")
    run, *arguments = good(tmp_path)
    changed(run, data__apply_chat_template_kwargs={"x": "${oc.env:SECRET}"})
    (item,) = planning.plan(parsed(run, *arguments))[0]
    assert item.settings["template"] == {"x": "${oc.env:SECRET}"}
    (run / "verl.yaml").write_text("!!python/object/apply:os.system ['touch ran']")
    assert planning.plan(parsed(run, *arguments))[0]
    (run / "config.json").unlink()
    refused("expected config.json beside its checkpoints, got none", run, *arguments)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("data__max_response_length", "8"),
        ("data__max_response_length", True),
        ("data__apply_chat_template_kwargs", ["x"]),
        ("reward__custom_reward_function__path", 7),
        ("reward__custom_reward_function__reward_kwargs", "x"),
        ("actor_rollout_ref__model__path", []),
        ("trainer__device", {}),
        ("dynamo", [1]),
        ("dynamo", {"method": ["x"]}),
        ("dynamo", {"no_such": 1}),
        ("dynamo", {"seed": -1}),
    ],
)
def test_values_of_a_wrong_kind_name_the_file(tmp_path, name, value):
    run, *arguments = good(tmp_path)
    changed(run, **{name: value})
    refused(f"{run / 'config.json'}: expected ", run, *arguments)


def test_an_export_that_a_finished_run_vouches_for_is_the_one_that_is_loaded(tmp_path, monkeypatch):
    from scale.evaluation import evaluate
    from scale.run import records

    run, *arguments = good(tmp_path)
    changed(run, trainer__total_training_steps=4)
    for step in range(1, 5):
        records.Records(run).append(step, {"x": 1.0})
    records.finish(run, 1.0)
    drawn = []
    monkeypatch.setattr(evaluate, "_run", lambda *given: drawn.append(given) or 1)
    assert command(run, *arguments)[0] == 1
    assert len(drawn) == 1
    export = run / "checkpoints" / "global_step_4" / "actor" / "huggingface"
    whole = (export / "model.safetensors").read_bytes()
    (export / "model.safetensors").write_bytes(whole[:-3] + b"9" + whole[-2:])
    fresh = [*arguments[:-1], tmp_path / "fresh"]
    refused(f"{export / 'model.safetensors'}: expected the file whose SHA-256 is in", run, *fresh)
    (export / "model.safetensors").write_bytes(whole)
    (export / "tokenizer.py").write_text("")
    refused(f"{export / 'tokenizer.py'}: expected only files that", run, *arguments)
    (export / "tokenizer.py").unlink()
    (run / "checkpoints" / "global_step_4" / "dynamo.json").write_text("{}")
    refused("dynamo.json: expected the file whose SHA-256 is in", run, *arguments)
    other = run_folder(tmp_path, "unfinished", "dynamo.seed=2")
    assert command(other, *arguments)[0] == 1
    assert len(drawn) == 2
