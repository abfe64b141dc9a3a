"""Checkpoints: every way to name one, and those that cannot be evaluated."""

from __future__ import annotations

import functools
import json
import re

import pytest

from scale.evaluation import exports
from scale.plugin.config import DynamoConfig
from tests.scale.evaluation.made_runs import good, refused, run_folder
from theory.base.files import read_json, write_json
from theory.methods import METHODS

# Configurations are composed once in a process.
pytestmark = [pytest.mark.needs_verl, pytest.mark.xdist_group("evaluate")]


def test_checkpoints_that_cannot_be_evaluated(tmp_path):
    arguments = good(tmp_path)
    run = arguments[0]
    actor = run / "checkpoints" / "global_step_4" / "actor"
    file = actor / "huggingface" / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    refused(f"model.safetensors: expected {len(whole)} bytes, got {len(whole) - 1}", *arguments)
    file.write_bytes(whole + b"9")
    refused(f"model.safetensors: expected {len(whole)} bytes, got {len(whole) + 1}", *arguments)
    file.write_bytes(b"\xff" * 20)
    refused("model.safetensors: expected a whole file of weights", *arguments)
    file.unlink()
    how = f"merge --backend fsdp --local_dir {actor} --target_dir {actor / 'huggingface'}"
    refused("save_contents=[model,optimizer,extra,hf_model], or make it now: python -m verl.model_merger", *arguments)
    refused(how, *arguments)
    file.write_bytes(whole)
    state = {"method": METHODS["grpo"].to_dict(), "history": {"discount": 1.0}}
    write_json(actor.parent / "dynamo.json", state)
    refused(
        "expected a checkpoint of the method dynamo, got one that differs in title",
        *arguments,
    )
    (run / "config.json").unlink()
    refused("expected config.json beside its checkpoints, got none", *arguments)
    refused("no-such: expected the folder of a run, a checkpoint or a model, got none", "no-such", *arguments[1:])
    (tmp_path / "other").mkdir()
    refused(
        "other: expected the folder of a run, a checkpoint or a model, got other", tmp_path / "other", *arguments[1:]
    )
    (tmp_path / "new" / "checkpoints").mkdir(parents=True)
    refused("new: expected a run with a checkpoint, got none yet", tmp_path / "new", *arguments[1:])


def weights(*ends, metadata=None, length=None, data=None):
    """Return a file of weights of one byte each: length of the header, header, data."""
    names = [f"{'wW'[i % 2]}{i}" for i in range(len(ends))]
    header = {x: {"dtype": "U8", "shape": [1], "data_offsets": [0, end]} for x, end in zip(names, ends, strict=True)}
    text = json.dumps(header | ({} if metadata is None else {"__metadata__": metadata})).encode()
    data = bytes(max(ends, default=0)) if data is None else data
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (weights(), None),
        (weights(1, 2), None),
        (weights(1, 2, 3), None),
        (weights(3, 1, 2), None),
        (weights(1, metadata={"format": "pt"}), None),
        (weights(1, data=b""), "bytes, got"),
        (weights(1, data=b"12"), "bytes, got"),
        (weights(1, length=0), "a whole file of weights"),
        (weights(1, length=2**40), "a whole file of weights, got too few bytes"),
        (weights(length=10), "18 bytes, got 10"),
        (weights(1.0, data=b"1"), "a whole file of weights, got offsets that are no integers"),
        (weights(True, data=b"1"), "a whole file of weights, got offsets that are no integers"),
        (b"", "a whole file of weights"),
    ],
)
def test_a_file_of_weights_is_as_long_as_its_header_says(tmp_path, content, message):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(content)
    if message is None:
        assert exports.resolve_checkpoint(tmp_path).export == tmp_path
        return
    with pytest.raises(ValueError, match=f"model.safetensors: expected .*{message}"):
        exports.resolve_checkpoint(tmp_path)


@pytest.mark.parametrize("place", [0, 2**22 + 7, 2**23 - 1])
def test_other_weights_at_either_end_or_in_the_middle_are_another_model(tmp_path, place):
    """Of a file of 8 MiB; its name, its length and the configuration count too."""
    (tmp_path / "config.json").write_text("{}")
    path = tmp_path / "pytorch_model.bin"
    path.write_bytes(bytes(2**23))
    before = exports.fingerprint(tmp_path)
    with path.open("rb+") as file:
        file.seek(place)
        file.write(b"1")
    changed = exports.fingerprint(tmp_path)
    path.write_bytes(bytes(2**23))
    assert exports.fingerprint(tmp_path) == before != changed
    path.write_bytes(bytes(2**23 + 1))
    assert exports.fingerprint(tmp_path) != before
    path.write_bytes(bytes(2**23))
    (tmp_path / "config.json").write_text("{ }")
    assert exports.fingerprint(tmp_path) != before


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("allocator", "gvm"),
        ("alpha", 0.2),
        ("sharpness", 5.0),
        ("threshold", 0.5),
        ("aggregation", "prompt-mean"),
        ("history_discount", 0.5),
        ("scope", "mini-batch"),
    ],
)
def test_a_method_is_named_with_what_differs_from_it(tmp_path, name, value):
    settings = DynamoConfig(method="dynamo", seed=3, **{name: value})
    assert exports.Checkpoint("x", tmp_path, {}, 1, settings).method == f"DynaMO ({name} {value})"


def test_every_way_to_name_a_checkpoint_finds_the_same_export(tmp_path):
    run = run_folder(tmp_path, "run", "dynamo.method=kl-cov", "dynamo.seed=7")
    folder = run / "checkpoints" / "global_step_4"
    found = [exports.resolve_checkpoint(x) for x in (run, folder, folder / "actor", folder / "actor" / "huggingface")]
    assert {x.export for x in found} == {folder / "actor" / "huggingface"}
    assert {(x.name, x.method, x.seed, x.step) for x in found} == {("run-step4", "KL-COV", 7, 4)}
    other = run_folder(tmp_path, "other", "dynamo.allocator=neyman", "dynamo.alpha=0.2")
    assert exports.resolve_checkpoint(other).method == "DynaMO (allocator neyman, alpha 0.2)"


def test_a_run_is_of_stock_grpo_by_true_alone_and_without_the_state_of_a_method(tmp_path):
    run = run_folder(tmp_path, "run")
    state, config = run / "checkpoints" / "global_step_4" / "dynamo.json", read_json(run / "config.json")
    config["dynamo"]["stock"] = "false"
    write_json(run / "config.json", config)
    with pytest.raises(ValueError, match=r"config\.json: .* dynamo\.stock: expected true or false, got 'false'"):
        exports.resolve_checkpoint(run)
    config["dynamo"]["stock"] = True
    write_json(run / "config.json", config)
    with pytest.raises(ValueError, match=rf"{state}: expected none in a run of stock GRPO"):
        exports.resolve_checkpoint(run)
    state.unlink()
    assert exports.resolve_checkpoint(run).method == "GRPO (stock)"


POSITIONS = "actor_rollout_ref.model.override_config.max_position_embeddings"


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        (exports.MODEL, None, "the path of a model as"),
        (exports.MODEL, "", "the path of a model as"),
        (exports.MODEL, "/", "the path of a model as"),
        (exports.MODEL, 7, "a value of type str as"),
        ("actor_rollout_ref", None, "the path of a model as"),
        ("data.max_response_length", 0, "an integer from 1 and below 2^31 as"),
        ("data.max_response_length", 10**30, "an integer from 1 and below 2^31 as"),
        ("data.max_response_length", True, "a value of type int as"),
        (POSITIONS, -1, "an integer from 1 and below 2^31 as"),
        ("actor_rollout_ref.rollout.tensor_model_parallel_size", 2**31, "an integer from 1 and below 2^31 as"),
    ],
)
def test_settings_that_no_run_has_are_named(tmp_path, name, value, expected):
    run = run_folder(tmp_path, "run")
    config = read_json(run / "config.json")
    *parents, last = name.split(".")
    functools.reduce(dict.__getitem__, parents, config)[last] = value
    write_json(run / "config.json", config)
    shown = exports.MODEL if name == "actor_rollout_ref" else name
    with pytest.raises(ValueError, match=re.escape(f"config.json: expected {expected} {shown}, got {value!r:.80}")):
        exports.resolve_checkpoint(run)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("Qwen/Qwen2.5-Math-7B", "Qwen2.5-Math-7B"),
        ("/runs/tiny/model", "tiny"),
        ("model", "model"),
        ("/model", "model"),
    ],
)
def test_a_model_is_named_by_the_last_telling_part_of_its_path(tmp_path, path, name):
    config = {"actor_rollout_ref": {"model": {"path": path}}}
    assert exports.Checkpoint("x", tmp_path, config, 1, DynamoConfig()).model == name
