"""Disk and memory of a node: what verl really writes, and how many of it are there at once."""

from __future__ import annotations

import json
import os
import shutil

import pytest

from scale.launch import room

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.needs_verl


@pytest.fixture
def manager(tmp_path, monkeypatch):
    """Return verl's own checkpoint manager around a small model on one rank."""
    import torch.distributed as dist
    from transformers import Qwen2Config, Qwen2ForCausalLM
    from verl.utils.checkpoint.fsdp_checkpoint_manager import FSDPCheckpointManager

    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    from torch.distributed.fsdp import fully_shard

    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = Qwen2Config(**sizes, num_key_value_heads=2, vocab_size=5000, tie_word_embeddings=False)
    config.architectures = ["Qwen2ForCausalLM"]
    config.dtype = torch.bfloat16
    mesh = dist.device_mesh.init_device_mesh("cpu", (1,))
    model = fully_shard(Qwen2ForCausalLM(config).float(), mesh=mesh)
    optimizer = torch.optim.AdamW(model.parameters())
    model(input_ids=torch.arange(8)[None], labels=torch.arange(8)[None]).loss.backward()
    optimizer.step()
    contents = ["model", "optimizer", "extra", "hf_model"]
    yield FSDPCheckpointManager(
        model, optimizer, checkpoint_config={"save_contents": contents, "load_contents": contents}
    )
    dist.destroy_process_group()


def size(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_a_checkpoint_is_as_large_as_verl_writes_it(manager, tmp_path):
    """With the export in float32, though its config.json says bfloat16; and as many are there as are counted."""
    parameters = sum(x.numel() for x in manager.model.parameters())
    contents = ["model", "optimizer", "extra", "hf_model"]
    there = []
    for step in (1, 2, 3, 4):
        folder = tmp_path / f"step_{step}"
        manager.save_checkpoint(str(folder), global_step=step, max_ckpt_to_keep=2)
        there.append(len(list(tmp_path.glob("step_*"))))
    assert (max(there), 0) == room.at_once(2, 4, 1) == (2, 0)
    found, expected = size(folder), room.checkpoint_bytes(parameters, contents)
    assert expected <= found < 1.05 * expected + 200_000
    export = folder / "huggingface"
    from safetensors import safe_open

    with safe_open(export / "model.safetensors", "pt") as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.float32}  # noqa: SIM118
    assert json.loads((export / "config.json").read_text())["dtype"] == "bfloat16"
    assert os.path.getsize(export / "model.safetensors") >= 4 * parameters


def test_how_many_are_there_at_once():
    """The only checkpoint stays until the next is there; without a limit all stay; without saving there is none."""
    assert [room.at_once(keep, 100, 10)[0] for keep in (1, 2, 3, None)] == [2, 2, 3, 10]
    assert room.at_once(3, 25, 10) == (3, 0)
    assert room.at_once(5, 10, 10) == (1, 0)
    assert room.at_once(2, 100, -1) == (0, 0)
    assert room.checkpoint_bytes(10, ["model", "extra"]) == 40


def test_the_first_checkpoint_and_the_exports_that_stay_are_counted():
    """Of 10 steps are saved the first and the last; of 2,000, models stay of every 100th but the last."""
    assert [room.at_once(2, 10, 20, first=first) for first in (0, 1, 10, 11)] == [(1, 0), (2, 0), (1, 0), (1, 0)]
    assert room.at_once(None, 100, 10, first=1) == (11, 0)
    assert room.at_once(2, 2000, 20, first=1, exports=5) == (2, 19)
    assert room.at_once(2, 2000, 20, exports=1) == (2, 98)


def test_exports_are_in_the_disk_that_a_run_needs(tmp_path):
    from scale import launch
    from scale.launch.job import model_and_gpu

    found = []
    for kept in (0, 5):
        words = ["trainer.total_training_steps=2000", f"checkpoints.keep_exports={kept}"]
        config = launch.compose("qwen2.5-math-7b", out=tmp_path, overrides=words)
        shape, _ = model_and_gpu(config)
        found.append(room.disk(config, shape))
    assert found[1] == pytest.approx(found[0] | {"exports": 19 * 4 * 7.615616512})


def test_a_folder_that_is_not_there_yet_has_the_room_of_its_disk(tmp_path):
    assert room.free_disk(tmp_path / "a" / "b") == pytest.approx(room.free_disk(tmp_path), rel=0.1)
    assert room.free_memory() > 0


def test_a_run_goes_on_where_its_own_checkpoints_fill_the_disk(tmp_path, monkeypatch):
    """400 GB had room for two checkpoints of 122 GB; they are there now, and the next one takes the place of one."""
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=156 * 10**9))
    needs, out = {"disk_gb": {"checkpoints": 244.0}}, tmp_path / "run"
    with pytest.raises(ValueError, match=r"run: disk: expected 244 GB free \(checkpoints 244\), got 156"):
        room.check(needs, out, here=False)
    for step in (20, 40):
        folder = out / "checkpoints" / f"global_step_{step}"
        folder.mkdir(parents=True)
        with (folder / "model.pt").open("wb") as file:
            file.truncate(122 * 10**9)
    room.check(needs, out, here=False)
