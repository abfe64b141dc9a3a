"""Secrets of the environment reach no file: neither a failure's text nor the log, whoever prints them."""

from __future__ import annotations

import re
import sys
import textwrap

import pytest

from scale.launch import start
from scale.run import reports, secrets, supervise
from tests.scale.launch.conftest import compose


@pytest.fixture
def launch():
    return pytest.importorskip("scale.launch")


SECRETS = {
    "WANDB_API_KEY": "wandb-4d1f0c7b9e",
    "HF_TOKEN": "hf_QwErTyUiOp",
    "MY_DEPLOY_KEY": "-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG9w0\n-----END KEY-----",
    "db_password": "correct horse battery",
    "AWS_SECRET_ACCESS_KEY": "aws/secret+ABCDEFGH",
    "OPENAI_APIKEY": "sk-abcdefgh12345",
}


def set_all(monkeypatch):
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)


def found_in(folder):
    """Return the files of a folder that have a secret, or a line of one."""
    lines = [line.encode() for value in SECRETS.values() for line in value.splitlines()]
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    return [path.name for path in files if any(line in path.read_bytes() for line in lines)]


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        *((name, True) for name in (*SECRETS, "GH_TOKEN", "CLIENT_SECRET", "API_KEY_2")),
        *((name, False) for name in ("TOKENIZERS_PARALLELISM", "KEYBOARD", "HF_HOME", "PATH")),
    ],
)
def test_which_names_are_secrets(name, secret):
    assert secrets.is_secret(name) == secret


def test_short_values_and_paths_are_no_secrets(tmp_path):
    """They would put stars into any text."""
    key = tmp_path / "id_ed25519"
    key.write_text("")
    assert secrets.secrets_of({"A_KEY": "yes", "SSH_KEY": str(key), "HOME": "/home/somebody"}) == []


def test_a_failure_is_told_without(tmp_path, monkeypatch):
    set_all(monkeypatch)
    monkeypatch.setenv(reports.RUN_FOLDER, str(tmp_path))
    monkeypatch.setattr(reports, "require_current", lambda: None)
    with pytest.raises(ValueError, match="hf_QwErTyUiOp"), reports.reported("reward"):
        raise ValueError(f"401 for {SECRETS['HF_TOKEN']}, {SECRETS['MY_DEPLOY_KEY']}")
    (failure,) = reports.read_failures(tmp_path)
    assert failure.message.startswith("401 for *************, ***")
    assert found_in(tmp_path) == []


PRINTS = """
    import os, sys, time
    print("before", flush=True)
    for name in {names!r}:
        print(name, "is", os.environ[name], "!", file=sys.stderr, flush=True)
    time.sleep(1)
    print("after", flush=True)
"""


@pytest.mark.needs_verl
def test_what_a_run_prints_is_taken_out_of_its_log(launch, tmp_path, monkeypatch):
    """With a program in place of verl, which prints what it must not."""
    set_all(monkeypatch)
    config, out, heard = compose(launch, tmp_path), tmp_path / "run", []
    program = tmp_path / "prints.py"
    program.write_text(textwrap.dedent(PRINTS.format(names=list(SECRETS))))
    real = start.supervise
    monkeypatch.setattr(start, "supervise", lambda command, **more: real([sys.executable, str(program)], **more))
    outcome = launch.train(config, out, launch.Limits(60, 60), heard.append)
    assert outcome.reason == "finished"
    log = (out / "log.txt").read_text()
    assert log.lstrip().startswith("before")
    assert log.splitlines()[-1] == "after"
    assert "HF_TOKEN is ************* !" in log
    assert "HF_TOKEN is ************* !" in heard
    assert found_in(out) == []


def test_every_supervised_command_is_told_without(tmp_path, monkeypatch):
    """An evaluation's too. A line that is told in parts, and one that has no end, are lines."""
    set_all(monkeypatch)
    code = """
        import os, time
        out = lambda text: (print(text, end="", flush=True), time.sleep(0.5))
        token = os.environ["HF_TOKEN"]
        out("first\\n" + token[:5])
        out(token[5:] + " and more\\n" + os.environ["MY_DEPLOY_KEY"] + "\\nlast " + token)
    """
    (tmp_path / "log.txt").write_text("of an earlier run\n")
    heard = []
    command = [sys.executable, "-c", textwrap.dedent(code)]
    outcome = supervise(command, folder=tmp_path, deadline=60, silence=60, echo=heard.append)
    assert found_in(tmp_path) == []
    log = (tmp_path / "log.txt").read_text().splitlines()
    assert log[:3] == ["of an earlier run", "first", "************* and more"]
    assert log[-1] == "last *************"
    assert heard == log[1:] == list(outcome.lines)


@pytest.mark.needs_verl
def test_the_cause_of_an_end_has_none(launch, tmp_path, monkeypatch):
    """It is printed, and a batch job's output is a file."""
    set_all(monkeypatch)
    real, code = start.supervise, "import os; raise SystemExit('401 for ' + os.environ['HF_TOKEN'])"
    monkeypatch.setattr(start, "supervise", lambda command, **more: real([sys.executable, "-c", code], **more))
    outcome = launch.train(compose(launch, tmp_path), tmp_path / "run", launch.Limits(60, 60))
    assert outcome.cause().endswith("its last output: 401 for *************")


@pytest.mark.needs_verl
@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("ray_kwargs.ray_init.runtime_env.env_vars.WANDB_API_KEY=0123", "env_vars.WANDB_API_KEY"),
        ("trainer.rollout_data_dir=x-hf_QwErTyUiOp", "trainer.rollout_data_dir"),
        ("data.apply_chat_template_kwargs.key=sk-abcdefgh12345", "apply_chat_template_kwargs.key"),
    ],
)
def test_a_configuration_has_none(launch, tmp_path, monkeypatch, override, key):
    set_all(monkeypatch)
    with pytest.raises(ValueError, match=f"{re.escape(key)}: expected no secret, since the configuration is printed"):
        launch.check(compose(launch, tmp_path, override), tmp_path / "run", files=False)
