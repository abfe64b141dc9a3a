"""Engines beside each other: real processes and their real loop around a stand-in for vLLM, which takes long to load.

`test_evaluate_real.py` has vLLM itself.
"""

from __future__ import annotations

import os
from collections import Counter, deque
from concurrent.futures import ThreadPoolExecutor

import pytest

from scale.evaluation import dealing, generate
from scale.evaluation.engine import Load, Request
from scale.run.reports import RUN_FOLDER, read_failures, read_progress
from tests.scale.evaluation.made_runs import ROOT
from theory.base.files import read_line, write_json

psutil = pytest.importorskip("psutil")

pytestmark = [pytest.mark.needs_verl, pytest.mark.versionless]

VLLM = '''\
"""Draws one token a step for each of four requests, and tells of the first, of every third and of the last.

A response depends on the seed alone. Fails as FAULT says.
"""
import os, signal, sys, time
from types import SimpleNamespace as Some

SamplingParams = Some
fault, _, name = os.environ.get("FAULT", "").partition(" in ")
mine = sys.argv[-1].startswith(name) if name else False
folder = os.environ["DYNAMO_RUN_FOLDER"]
there = os.path.join(folder, "fault is there")


def fail():
    if fault == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if fault == "raises":
        raise MemoryError("no room on the GPU")
    if fault == "leaves":
        os._exit(0)
    if fault == "torn":  # a message of 1000 bytes that ends after three
        os.write(int(sys.argv[1]), (1000).to_bytes(4, "big") + b"abc")
        os.kill(os.getpid(), signal.SIGKILL)
    if fault == "hangs":
        time.sleep(1000)
    if fault == "spins":
        time.sleep(0.1)
        return []


class LLM:
    def __init__(self, **arguments):
        if mine:
            open(there, "w").close()
        while fault and not os.path.exists(there):  # it must have its share
            time.sleep(0.01)
        if mine and fault in ("never loads", "loads too late"):
            time.sleep(1000)
        open(os.path.join(folder, f"{sys.argv[-1]} is ready"), "w").close()
        self.llm_engine, self.waiting, self.drawn = self, [], 0
        self.vllm_config = Some(scheduler_config=Some(max_num_seqs=4))

    def add_request(self, name, prompt, sampling):
        assert prompt == {"prompt_token_ids": [7]}
        self.waiting.append([name, sampling.seed, 0])

    def step(self):
        while sum(x.endswith("is ready") for x in os.listdir(folder)) < int(os.environ.get("TOGETHER", 1)):
            time.sleep(0.01)
        time.sleep(0.02 if mine else 0.2 if fault not in ("", "loads too late") else 0.002)
        if mine and self.drawn >= 60 and (found := fail()) is not None:
            return found
        outputs = []
        for request in self.waiting[:4]:
            request[2] += 1
            name, seed, count = request
            self.drawn += 1
            end = count == 1 + seed % 7
            output = Some(token_ids=[1] * count, text=f"text {seed}", finish_reason="stop" if end else None)
            if end or count % 3 == 1:
                outputs.append(Some(request_id=name, outputs=[output], finished=end))
        self.waiting = [x for x in self.waiting if x[2] < 1 + x[1] % 7]
        return outputs
'''

PROBLEMS, SAMPLES = 5, 8


@pytest.fixture
def spec(tmp_path, monkeypatch):
    """Return the specification of two evaluations of 5 problems, 8 samples each, on three engines."""
    for name in ("modules", "run"):
        (tmp_path / name).mkdir()
    (tmp_path / "modules" / "vllm.py").write_text(VLLM)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'modules'}{os.pathsep}{ROOT}")
    monkeypatch.setenv(RUN_FOLDER, str(tmp_path / "run"))
    monkeypatch.setattr(generate, "scorers", lambda *of: ThreadPoolExecutor(1, "", generate._start_scoring, of[:2]))
    monkeypatch.setattr(generate, "_load", lambda _, them: Load({}, [({}, [[7]] * len(x.problems)) for x in them]))
    found = {"reward": "pkg://scale.tiny:compute_score", "reward_arguments": {}, "scorers": 1, "devices": [""] * 3}
    found["evaluations"] = []
    for name in "ab":
        (tmp_path / name).mkdir()
        keys = [f"{name}{number}" for number in range(PROBLEMS)]
        problems = [{"key": x, "benchmark": "b", "prompt": [], "answer": x, "extra_info": {}} for x in keys]
        one = {"folder": str(tmp_path / name), "evaluation": name, "samples": SAMPLES, "problems": problems, "seed": 1}
        found["evaluations"].append(one)
    return found


def run(tmp_path, spec, **changes):
    write_json(tmp_path / "spec.json", {**spec, **changes})
    generate.main(str(tmp_path / "spec.json"))


def samples(tmp_path):
    """Return the samples of both evaluations, each of which must be there once, and whole."""
    found = {}
    for name in "ab":
        for line in (tmp_path / name / generate.SAMPLES_FILE).read_text().splitlines(keepends=True):
            x = read_line(line.removesuffix("\n"), name)
            assert line.endswith("\n")
            assert (x["evaluation"], x["key"], x["sample"]) not in found
            assert (x["text"], x["tokens"]) == (f"text {x['seed']}", 1 + x["seed"] % 7)
            found[x["evaluation"], x["key"], x["sample"]] = x
    return found


def children():
    return [x for x in psutil.Process().children() if "scale.evaluation.engine" in " ".join(x.cmdline())]


def test_three_engines_draw_what_one_draws(tmp_path, spec, monkeypatch, capsys):
    """All samples, once each and alike; every engine has a part of the work, and none is left."""
    drawn = Counter()
    wait = dealing.Engines.wait

    def watched(engines):
        events = wait(engines)
        drawn.update(len(x.running) > 0 and x.name for x in engines.engines)
        return events

    monkeypatch.setattr(dealing.Engines, "wait", watched)
    monkeypatch.setenv("TOGETHER", "3")
    run(tmp_path, spec)
    three = samples(tmp_path)
    assert len(three) == 2 * PROBLEMS * SAMPLES
    assert drawn.keys() - {False} == {"engine 1", "engine 2", "engine 3"}
    progress = read_progress(tmp_path / "run")
    tokens = sum(x["tokens"] for x in three.values())
    assert (progress["step"], progress["tokens"], progress["ready"]) == (len(three), tokens, 3)
    assert f"{len(three)} samples, {tokens} tokens, " in capsys.readouterr().out
    for name in "ab":
        (tmp_path / name / generate.SAMPLES_FILE).unlink()
    run(tmp_path, spec, devices=[""])
    assert samples(tmp_path) == three
    assert children() == []


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("killed", r"engine 2 \(process \d+\) was ended by signal 9, as the kernel sends it when memory is short"),
        pytest.param("torn", r"engine 2 \(process \d+\) was ended by signal 9", marks=pytest.mark.long),
        pytest.param("leaves", r"engine 2 \(process \d+\) ended with exit status 0", marks=pytest.mark.long),
        ("raises", r"engine 2 \(process \d+\) ended with exit status 1"),
        ("hangs", r"engine 2 \(process \d+\) drew no token for [\d.]+ s"),
        pytest.param("spins", r"engine 2 \(process \d+\) drew no token for [\d.]+ s", marks=pytest.mark.long),
        ("never loads", r"engine 2 \(process \d+\) has not loaded the model in [\d.]+ s"),
    ],
)
def test_an_engine_that_fails_ends_the_call_by_its_name(tmp_path, spec, monkeypatch, fault, message):
    """What is stored stays; without the fault the same call goes on, and draws nothing twice."""
    wait = dealing.Engines.wait

    def impatient(engines):
        """Lower the limits as soon as it is the second alone that is silent: here all are slow at times."""
        first, second, third = (x.silent for x in engines.engines)
        silent = fault in ("hangs", "spins", "never loads") and second > 1 + max(first, third)
        for name in ("STUCK", "LOADING") if silent else ():
            monkeypatch.setattr(dealing, name, second - 0.5)
        return wait(engines)

    monkeypatch.setattr(dealing.Engines, "wait", impatient)
    monkeypatch.setenv("FAULT", f"{fault} in engine 2")
    with pytest.raises(RuntimeError, match=message):
        run(tmp_path, spec)
    first = read_failures(tmp_path / "run")[0]
    told = ("engine 2", "no room on the GPU") if fault == "raises" else ("generation", "engine 2")
    assert first.where == told[0]
    assert told[1] in first.message
    stored = samples(tmp_path)
    assert 0 < len(stored) < 2 * PROBLEMS * SAMPLES or fault == "never loads"
    assert children() == []
    before = {name: (tmp_path / name / generate.SAMPLES_FILE).read_bytes() for name in "ab"}
    monkeypatch.delenv("FAULT")
    monkeypatch.setattr(dealing.Engines, "wait", wait)
    monkeypatch.setattr(dealing, "LOADING", 600.0)
    monkeypatch.setattr(dealing, "STUCK", 600.0)
    run(tmp_path, spec)
    after = {name: (tmp_path / name / generate.SAMPLES_FILE).read_bytes() for name in "ab"}
    assert all(after[name].startswith(before[name]) for name in "ab")
    assert len(samples(tmp_path)) == 2 * PROBLEMS * SAMPLES


def test_an_engine_that_loads_too_late_is_not_waited_for(tmp_path, spec, monkeypatch):
    """The others have drawn everything."""
    monkeypatch.setattr(dealing, "LEAVING", 900.0)
    monkeypatch.setenv("FAULT", "loads too late in engine 2")
    run(tmp_path, spec)
    assert len(samples(tmp_path)) == 2 * PROBLEMS * SAMPLES
    assert children() == []


class Idle(dealing.Engine):
    """An engine without a process, which remembers what it is given."""

    def __init__(self, room):
        self.room, self.running, self.silent = room, set(), 0.0

    def send(self, message):
        assert len(self.running) >= len(message) > 0


@pytest.mark.parametrize(
    ("jobs", "rooms", "given"),
    [
        (1000, (64, 64), (72, 72)),  # an eighth more than they draw at once
        (100, (64, 64, 64), (34, 34, 32)),  # the first to be ready leaves the others their share
        (100, (64, 0, 64), (34, 0, 34)),
        (2, (64, 64, 64), (1, 1, 0)),
        (1, (0, 1), (0, 1)),
    ],
)
def test_work_is_shared_evenly(jobs, rooms, given):
    engines = dealing.Engines([])
    engines.engines = [Idle(room) for room in rooms]
    queue = deque(Request(0, 0, sample, 0) for sample in range(jobs))
    engines.deal(queue)
    assert tuple(len(x.running) for x in engines.engines) == given
    assert len(queue) == jobs - sum(given)


def test_engines_have_devices_ports_and_caches_of_their_own(monkeypatch):
    """And the loopback address; a port that is set for all would be opened twice."""
    monkeypatch.setenv("VLLM_PORT", "5000")
    monkeypatch.setenv("VLLM_CACHE_ROOT", "/cache")
    found = dealing.environments(["0,1", "MIG-GPU-1/2/3", "GPU-x"])
    assert [x["CUDA_VISIBLE_DEVICES"] for x in found] == ["0,1", "MIG-GPU-1/2/3", "GPU-x"]
    assert len({x["VLLM_PORT"] for x in found} | {"5000"}) == 4
    assert [x["VLLM_CACHE_ROOT"] for x in found] == ["/cache/gpu-0,1", "/cache/gpu-MIG-GPU-1-2-3", "/cache/gpu-GPU-x"]
    assert {x["VLLM_HOST_IP"] for x in found} == {"127.0.0.1"}
    (alone,) = dealing.environments(["3"])
    assert (alone["CUDA_VISIBLE_DEVICES"], alone["VLLM_CACHE_ROOT"]) == ("3", "/cache")
    assert dealing.environments(["", ""])[1]["VLLM_HOST_IP"] == "127.0.0.1"
