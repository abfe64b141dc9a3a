"""What a process of a run tells its supervisor."""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import os
import re
import sys
import threading
import time
from types import SimpleNamespace

import pytest

from scale.run import reports, supervisor
from scale.run.activity import Sample
from scale.run.guard import RUN_ID
from scale.run.records import Records
from scale.run.reports import beat, read_failures, read_progress, report_failure, reported
from scale.run.supervisor import Outcome, supervise


def test_the_first_report_comes_first_whatever_its_process_is_called(tmp_path, monkeypatch):
    monkeypatch.setenv("DYNAMO_RUN_FOLDER", str(tmp_path))
    for where, pid in (("first", 1234567), ("second", 8)):
        monkeypatch.setattr("os.getpid", lambda pid=pid: pid)
        report_failure(where, ValueError("x"))
    assert [failure.where for failure in read_failures(tmp_path)] == ["first", "second"]


def test_reports_in_order_of_time(tmp_path, monkeypatch):
    monkeypatch.setenv(reports.RUN_FOLDER, str(tmp_path))
    for i in range(12):
        report_failure(f"part {i}", ValueError("\ud800 é"))
    found = read_failures(tmp_path)
    assert [failure.where for failure in found] == [f"part {i}" for i in range(12)]
    assert (found[0].type, found[0].message, found[0].pid) == ("ValueError", "\ud800 é", os.getpid())
    assert abs(found[0].time - time.time()) < 60


@pytest.mark.parametrize("content", [b"", b"\xff", b"{", b"[]", b'{"where": "x"}'])
def test_damaged_report_is_named(content, tmp_path):
    path = tmp_path / "failures" / "17-3.json"
    path.parent.mkdir()
    path.write_bytes(content)
    (found,) = read_failures(tmp_path)
    assert found.type == "damaged report"
    assert str(path) in found.message
    assert str(path) in Outcome("failed", 0, 1.0, (found,)).cause()


class Unprintable(Exception):
    """Its text cannot be had."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


def test_report_failure_never_raises(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv(reports.RUN_FOLDER, str(tmp_path))
    report_failure("part", Unprintable())
    (tmp_path / "file").touch()
    monkeypatch.setenv(reports.RUN_FOLDER, str(tmp_path / "file"))
    report_failure("part", ValueError("x"))
    assert caplog.text.count("could not be reported") == 2


def test_report_outside_a_run_warns(monkeypatch, caplog):
    monkeypatch.delenv(reports.RUN_FOLDER, raising=False)
    with caplog.at_level(logging.WARNING):
        report_failure("reward", ValueError("lost"))
        beat(1)
    assert "reward failed outside a supervised run" in caplog.text
    assert "lost" in caplog.text


def test_reported_lets_exceptions_and_values_pass(tmp_path, monkeypatch):
    monkeypatch.setenv(reports.RUN_FOLDER, str(tmp_path))

    @reported("sync")
    def divide(a: float, b: float) -> float:
        """Divide."""
        return a / b

    @reported("async")
    async def divide_later(a: float, b: float) -> float:
        await asyncio.sleep(0)
        return a / b

    assert divide(1, b=2) == asyncio.run(divide_later(1, b=2)) == 0.5
    assert divide.__doc__ == "Divide."
    assert asyncio.iscoroutinefunction(divide_later)
    assert read_failures(tmp_path) == ()
    with pytest.raises(ZeroDivisionError):
        divide(1, 0)
    with pytest.raises(ZeroDivisionError):
        asyncio.run(divide_later(1, 0))
    assert [failure.where for failure in read_failures(tmp_path)] == ["sync", "async"]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, asyncio.CancelledError])
def test_an_interrupt_is_no_failure(kind, tmp_path, monkeypatch):
    monkeypatch.setenv(reports.RUN_FOLDER, str(tmp_path))
    with pytest.raises(kind), reported("part"):
        raise kind
    assert read_failures(tmp_path) == ()


def test_progress(tmp_path, monkeypatch):
    assert read_progress(tmp_path) is None
    monkeypatch.setenv(reports.RUN_FOLDER, str(tmp_path))
    beat(7, reward=math.nan, of=10)
    found = read_progress(tmp_path)
    assert found is not None
    assert (found["step"], found["of"]) == (7, 10)
    assert math.isnan(found["reward"])
    assert [path.name for path in tmp_path.iterdir()] == ["progress.json"]


@pytest.mark.parametrize("content", ["", "{", "[]", "{}"])
def test_damaged_progress_is_named(content, tmp_path):
    (tmp_path / "progress.json").write_text(content)
    with pytest.raises(ValueError, match=r"progress\.json: expected progress"):
        read_progress(tmp_path)


def test_what_is_left_of_an_earlier_run_writes_nothing(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv(reports.RUN_FOLDER, str(tmp_path))
    monkeypatch.setenv(RUN_ID, "earlier")
    (tmp_path / reports.CURRENT).write_text("earlier")
    beat(1)
    Records(tmp_path).append(1, {"a": 1.0})
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert len(before) == 3
    (tmp_path / reports.CURRENT).write_text("later")
    for write in (lambda: beat(999), lambda: Records(tmp_path).append(2, {"a": 2.0})):
        with pytest.raises(RuntimeError, match=f"^{tmp_path}: expected run earlier, got a later one, later"):
            write()
    report_failure("part", ValueError("x"))
    assert "could not be reported" in caplog.text
    (tmp_path / reports.CURRENT).write_text("earlier")
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_records_and_reports_follow_no_link(tmp_path, monkeypatch):
    monkeypatch.setenv(reports.RUN_FOLDER, str(tmp_path / "run"))
    (tmp_path / "run").mkdir()
    victim = tmp_path / "victim"
    victim.write_text("mine")
    partial = f".{reports.PROGRESS}.{os.getpid()}.{threading.get_ident()}"
    for name in (partial, reports.PROGRESS, reports.CURRENT, "metrics.jsonl", "log.txt"):
        (tmp_path / "run" / name).symlink_to(victim)
    beat(1)
    with pytest.raises(OSError, match="symbolic link"):
        Records(tmp_path / "run").append(1, {"a": 1.0})
    with pytest.raises(OSError, match="symbolic link"):
        supervise([sys.executable, "-c", ""], folder=tmp_path / "run", deadline=20, silence=20)
    assert victim.read_text() == "mine"


def test_a_cause_names_the_place_that_raised_and_how_many_followed(tmp_path, monkeypatch):
    """The innermost of several frames, of the first failure."""
    monkeypatch.setenv(reports.RUN_FOLDER, str(tmp_path))

    @reported("part")
    def outer():
        inner()

    def inner():
        raise ValueError("no such prompt")

    for _ in range(3):
        with pytest.raises(ValueError, match="no such prompt"):
            outer()
    found = read_failures(tmp_path)
    cause = Outcome("failed", 1, 61.4, found, progress={"step": 7}).cause()
    assert cause.startswith(
        f"failed after 61 s; the last step was 7; the part (process {os.getpid()}) raised ValueError"
    )
    (place,) = re.findall(r"\[(.*)\]", cause)
    assert place.endswith("in inner")
    assert cause.endswith("]; 2 more failures followed")


@pytest.mark.parametrize(
    ("code", "ended"), [(1, "exit status 1"), (128, "exit status 128"), (129, "signal 1"), (137, "signal 9")]
)
def test_a_cause_without_a_report_says_how_the_command_ended(code, ended):
    assert f"the command ended with {ended};" in Outcome("failed", code, 1.0, lines=("a", "b")).cause()
    assert Outcome("failed", code, 1.0, lines=("a", "b")).cause().endswith("its last output: b")


@pytest.mark.parametrize(("pause", "ended"), [(100.0, "deadline"), (4.0, "silence")])
def test_a_pause_of_the_whole_machine_is_no_silence(pause, ended, tmp_path, monkeypatch):
    """After Ctrl-Z, or a laptop's sleep, a run has its time for a step again; what is shorter counts."""
    looks = itertools.chain([0.0, 1.0, 2.0, 2.0 + pause], itertools.count(3.0 + pause))
    monkeypatch.setattr(supervisor.time, "monotonic", lambda: next(looks))
    monkeypatch.setattr(supervisor.select, "select", lambda *_: ([], [], []))
    still = Sample(0.0, {}, 0, ())
    monkeypatch.setattr(supervisor, "sample", lambda *_: still._replace(time=supervisor.time.monotonic()))
    tail = SimpleNamespace(read=lambda: None, size=0)
    watch = supervisor._Watch(tmp_path, "", tail, 110.0, 9.5, {})
    watch.last = 0.0
    assert watch.until_end(SimpleNamespace(stdout=tail), None, None, 0.0) == ended
    assert watch.last == (pause if pause > supervisor.STOPPED_FOR else 0.0)
