"""verl finds the plug-in by itself, and other uses of verl do not notice it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from scale.launch import cpu_environment

pytestmark = pytest.mark.needs_verl

ROOT = Path(__file__).parents[3]


def python(code, **environ):
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], cwd="/", env=os.environ | environ, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.split("\n")[-2]


def test_verl_loads_it_and_nothing_heavy():
    """Importing verl imports the finder and the CPU's platform, which is not chosen unasked."""
    code = "import sys, verl; print(*sorted(m for m in sys.modules if m.split('.')[0] in ('scale', 'theory', 'vllm')))"
    assert python(code) == "scale scale.plugin scale.plugin.cpu"
    code = "import verl.utils.device as d; print(d.get_device_name())"
    assert python(code) == "cuda"  # verl's own answer where there is no accelerator
    assert python(code, VERL_PLATFORM="cpu") == "cpu"
    assert python(code, VERL_USE_EXTERNAL_PLUGINS="none") == "cuda"


def test_import_costs_milliseconds():
    """What the plug-in adds to `import verl`, which is seconds; NumPy alone would be 0.1, and torch more than 1."""
    code = "import time, verl; s = time.process_time(); import scale.plugin; print(time.process_time() - s)"
    assert float(python(code, VERL_USE_EXTERNAL_PLUGINS="none")) < 0.5


def test_it_hands_on_the_statistics_and_loads_them_only_then():
    code = (
        "import sys, scale.plugin; before = 'torch' in sys.modules\n"
        "from scale.plugin import chunked_token_statistics as f\n"
        "print(before, 'torch' in sys.modules, f.__module__, hasattr(scale.plugin, 'no_such_name'))"
    )
    assert python(code) == "False True scale.plugin.token_statistics False"


def test_trainers_and_engines_are_registered():
    code = (
        "from verl.trainer.ppo.v1 import get_trainer_cls as t\n"
        "from verl.workers.engine import EngineRegistry as e\n"
        "engines = e._engines['language_model']\n"
        "print(t('dynamo').__name__, t('stock-seeded').__name__, t('sync').__name__,\n"
        "  t('dynamo-ahead').__name__, t('stock-seeded-ahead').__name__,\n"
        "  engines['fsdp2'][('cuda', 'nvidia')].__name__, engines['fsdp']['cuda'].__name__,\n"
        "  e.get_engine_cls('language_model', 'fsdp2').__name__)"
    )
    expected = "DynamoTrainer StockTrainer PPOTrainerSync DynamoAhead StockAhead "
    expected += "StatisticsEngine FSDPEngineWithLMHead StatisticsEngine"
    assert python(code, VERL_PLATFORM="cpu") == expected


def test_runs_side_by_side_share_no_socket(tmp_path):
    """Ray's job, after which verl names it, is the same in every Ray of its own; a run has it in its own folder."""
    table = "from verl.workers.rollout import base; print(base._ROLLOUT_REGISTRY['vllm', 'async'].split('.')[-1])"
    assert python(table) == "ServerAdapter"
    code = """
from verl.workers.rollout.base import get_rollout_class
from scale.plugin.vllm_worker import ServerAdapter, WorkerExtension
ServerAdapter.__init__ = lambda self: setattr(self, "zmq_handle", "ipc:///tmp/rl-colocate-zmq-0-replica-0-rank-0.sock")
WorkerExtension.__new__ = lambda cls: object.__new__(cls)
other = WorkerExtension(); other.model_runner, other.local_rank = None, 0
print(get_rollout_class("vllm")().zmq_handle, other._get_zmq_handle())
"""
    run = {"DYNAMO_RUN_ID": "one", "RAY_TMPDIR": "/tmp/one"}
    ends = python(code, **cpu_environment(tmp_path) | run).split()
    assert ends == ["ipc:///tmp/one/rl-colocate-zmq-0-replica-0-rank-0.sock"] * 2


def test_the_platform_has_all_that_verl_asks_of_a_device():
    """Every attribute of the device module and every method of the platform, called."""
    code = """
import inspect, re, pathlib, verl, torch
from verl.plugin.platform import get_platform
p = get_platform()
root = pathlib.Path(verl.__file__).parent
used = {m for f in root.rglob("*.py") for m in re.findall(r"get_torch_device\\(\\)\\.([a-zA-Z_]+)", f.read_text())}
print(sorted(n for n in used if not hasattr(p.device_module, n)), inspect.isabstract(type(p)),
  p.current_device(), p.communication_backend_name(), p.device_module.mem_get_info())
"""
    assert python(code, VERL_PLATFORM="cpu") == "[] False cpu gloo (0, 0)"
