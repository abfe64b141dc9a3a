"""A real evaluation: two vLLMs on the CPU, killed in the middle, resumed by one; and samples against probabilities."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow.parquet as pq
import pytest

from scale import tiny
from scale.evaluation import evaluate, generate, problems
from tests.scale.conftest import eventually, left
from tests.scale.evaluation.made_runs import ROOT, command, parquet, result, run_folder
from tests.scale.sockets import Sockets, elsewhere
from theory.base.files import read_line

psutil = pytest.importorskip("psutil")

# One process has all vLLM engines: they share the machine's cores badly.
pytestmark = [pytest.mark.needs_verl, pytest.mark.long, pytest.mark.xdist_group("verl")]

SAMPLES = 128


class Real:
    """A run whose checkpoint is the tiny model, evaluated on two files: one is a part of the other, reversed."""

    def __init__(self, folder):
        self.folder = folder
        tiny.make(folder / "tiny")
        self.run = run_folder(folder, "run", f"tiny_folder={folder / 'tiny'}")
        export = self.run / "checkpoints" / "global_step_4" / "actor" / "huggingface"
        shutil.rmtree(export)
        shutil.copytree(folder / "tiny" / "model", export)
        self.rows = pq.read_table(folder / "tiny" / "val.parquet").to_pylist()
        part = [{**row, "data_source": "part"} for row in self.rows[20::-2]]
        self.out = folder / "out"
        self.data = [folder / "tiny" / "val.parquet", parquet(folder / "part.parquet", part)]

    def start(self, *arguments):
        command = [
            sys.executable,
            "-m",
            "scale",
            "evaluate",
            self.run,
            "--data",
            *self.data,
            "--samples",
            SAMPLES,
            "--out",
            self.out,
            *arguments,
        ]
        environ = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        with (self.folder / "said.txt").open("ab") as said:
            return subprocess.Popen(list(map(str, command)), cwd=self.folder, env=environ, stdout=said, stderr=said)

    def samples(self, name):
        path = self.out / "run-step4" / f"{name}-seed1" / generate.SAMPLES_FILE
        lines = path.read_text().splitlines()
        evaluation = read_line(lines[0], str(path))["evaluation"]
        found = generate.read_samples(path, problems.read_problems(self.data[name == "part"]), 1, evaluation)
        return {(x["key"], x["sample"]): x for x in found}

    @property
    def path(self):
        return self.out / "run-step4" / "val-seed1" / generate.SAMPLES_FILE

    def wait_for(self, process, size):
        """Wait until the file of samples has so many bytes."""
        deadline = time.monotonic() + 900  # on a machine with other work
        while time.monotonic() < deadline and process.poll() is None:
            if self.path.exists() and self.path.stat().st_size > size:
                return
            time.sleep(0.02)
        pytest.fail(f"{process.poll()}: {self.said()}")

    def engines(self):
        """Return the processes that hold a vLLM."""
        found = [psutil.Process(pid) for pid in left(self.out / "run-step4")]
        return [x for x in found if "scale.evaluation.engine" in " ".join(x.cmdline())]

    def left(self):
        """Return the processes of the evaluation that do not end."""
        return left(self.out / "run-step4") if not eventually(lambda: not left(self.out / "run-step4"), 900) else []

    def said(self):
        return (self.folder / "said.txt").read_text()


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """Kill one of two engines, start both again and kill the call, leave a torn line; one engine draws the rest."""
    found = Real(tmp_path_factory.mktemp("real"))
    process = found.start("--engines", 2)
    found.wait_for(process, 50_000)
    engines = found.engines()
    assert len(engines) == 2
    engines[0].kill()
    found.status, found.failure, found.left_by_engine = process.wait(900), found.said(), found.left()
    found.kept = found.path.read_bytes()
    with Sockets(found.out) as found.sockets:
        process = found.start("--engines", 2)
        found.wait_for(process, len(found.kept) + 100_000)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, found.said()
    found.left_by_call = found.left()
    found.killed = found.path.read_bytes()
    found.path.write_bytes(found.killed + b'{"key": "torn')
    assert found.start().wait() == 0, found.said()
    found.resumed = found.path.read_bytes()
    return found


def test_a_killed_engine_ends_the_call_by_its_name(real):
    assert real.status == 1
    assert re.search(r"engine [12] \(process \d+\) was ended by signal 9", " ".join(real.failure.split()))
    assert "the same command resumes" in real.failure
    assert real.left_by_engine == []


@pytest.mark.twin
def test_a_killed_evaluation_goes_on(real):
    """No process is left, nothing drawn is drawn again or lost, and all of it is there in the end."""
    assert real.left_by_call == []
    whole = real.killed[: real.killed.rfind(b"\n") + 1]
    assert 0 < real.kept.count(b"\n") < whole.count(b"\n") < 64 * SAMPLES
    assert whole.startswith(real.kept[: real.kept.rfind(b"\n") + 1])
    assert real.resumed.startswith(whole)
    assert real.resumed.count(b"\n") == 64 * SAMPLES
    assert len(real.samples("val")) == 64 * SAMPLES
    log = (real.out / "run-step4" / "log.txt").read_text()
    assert re.search(r"\d+ samples, \d+ tokens, [\d.]+ s, 2 of 2 engines", log)
    assert re.search(r"\d+ tokens/s by 1 engine,", real.said())


def test_two_engines_listen_on_the_loopback_address_alone(real):
    assert elsewhere({x for found in real.sockets.found.values() for x in found}) == set()
    assert real.sockets.reached == set()


@pytest.mark.twin
def test_samples_depend_on_seed_key_and_number_alone(real):
    """The same problems in another file, order and batch, by one engine, without a kill: the same responses and table.

    Two engines drew many of the others.
    """
    every, part = real.samples("val"), real.samples("part")
    assert len(part) == 11 * SAMPLES
    assert {at: x["text"] for at, x in part.items()} == {at: every[at]["text"] for at in part}
    assert len({x["text"] for x in every.values()}) > 20
    by_two = [read_line(x.decode(), "") for x in real.killed.splitlines()[:-1]]
    assert len({(x["key"], x["sample"]) for x in by_two} & part.keys()) > 100
    cells = result(real.out)["rows"][0]["cells"]
    mean = np.mean([every[at]["correct"] for at in part])
    assert cells["part"]["pass@1"]["value"] == pytest.approx(100 * mean, abs=1e-5)


@pytest.mark.twin
def test_rewards_are_those_of_training(real):
    answers = {row["extra_info"]["key"]: row["reward_model"]["ground_truth"] for row in real.rows}
    for (key, _), x in real.samples("val").items():
        assert x["correct"] == (tiny.compute_score("", x["text"], answers[key]) == 1.0)
        assert x["tokens"] <= 8


@pytest.mark.twin
def test_sampled_frequencies_are_the_models_probabilities(real):
    """Exact probability of the right answer and its end, from Transformers' logits, within 4 standard errors.

    For every problem, and for their mean, whose standard error is eight times smaller. Responses that are right but for
    surrounding space count as right; the model gives them less than 1e-4.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = real.run / "checkpoints" / "global_step_4" / "actor" / "huggingface"
    chat, policy = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder).float()
    samples = real.samples("val")
    exact, frequency = [], []
    for row in real.rows:
        text = chat.apply_chat_template(row["prompt"], tokenize=False, add_generation_prompt=True)
        prompt = chat(text).input_ids
        answer = [*chat(row["reward_model"]["ground_truth"]).input_ids, chat.eos_token_id]
        with torch.no_grad():
            log_pi = policy(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1].double().log_softmax(-1)
        exact.append(log_pi.gather(-1, torch.tensor(answer)[:, None]).sum().exp().item())
        frequency.append(np.mean([samples[row["extra_info"]["key"], i]["correct"] for i in range(SAMPLES)]))
    exact, frequency = np.array(exact), np.array(frequency)
    variance = exact * (1 - exact) / SAMPLES
    assert np.all(np.abs(frequency - exact) <= 4 * np.sqrt(variance))
    assert abs((frequency - exact).mean()) <= 4 * np.sqrt(variance.sum()) / len(exact)
    found = result(real.out)["rows"][0]["cells"]["tiny-arithmetic"]
    assert found["pass@1"]["value"] == pytest.approx(100 * frequency.mean(), abs=1e-5)
    assert found["pass@32"]["value"] == pytest.approx(100 * np.mean(1 - (1 - exact) ** 32), abs=4)


def test_the_table_of_a_finished_evaluation_needs_no_engine(real, monkeypatch):
    monkeypatch.setattr(evaluate, "_run", None)
    arguments = [real.run, "--data", *real.data, "--samples", SAMPLES, "--out", real.out]
    status, text = command(*arguments)
    assert status == 0
    assert "tiny-arithmetic" in text
