"""Sessions of pytest in a copy of the tree; every fault has a process of its own, forked when the imports are done."""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import resource
import signal
import sys
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import coverage
import pytest
from hypothesis import HealthCheck, settings

PRELOADED = """numpy scipy.optimize scipy.stats torch pyarrow.parquet pyarrow.csv pyarrow.json pandas mpmath gymnasium
rich.table hypothesis.extra.numpy pytest_cov.plugin xdist.plugin pytest_benchmark.plugin anyio.pytest_plugin"""
OURS = ("theory", "toy", "scale", "paper_figs", "tests")
FOLDERS = ("tests/theory", "tests/toy", "tests/scale")
LEFT_OUT = ("tests/scale/plugin", "tests/scale/run/test_", "tests/scale/launch/test_", "tests/scale/test_")
KEPT = ("run/test_records", "launch/test_estimate", "test_text", "test_manifest", "test_doctests", "test_damaged_files")
STARTS_A_RUN = {"runs", "smoke", "real"}
MEMORY = 16 * 2**30
OWN_ERROR = 77


class Chosen:
    """Fix what hypothesis draws, leave out long tests, and take the tests or files asked for, in their order."""

    def __init__(self, tests: Sequence[str] | None = None) -> None:
        self.order = None if tests is None else {test: rank for rank, test in enumerate(tests)}
        self.failed: str | None = None

    @pytest.hookimpl(trylast=True)
    def pytest_configure(self) -> None:
        same = {"derandomize": True, "database": None, "deadline": None}
        settings.register_profile("fixed", suppress_health_check=list(HealthCheck), **same)
        settings.load_profile("fixed")

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        kept = [(self._rank(item), item) for item in items if self._is_quick(item)]
        items[:] = [item for rank, item in sorted(kept, key=lambda pair: pair[0]) if rank >= 0]

    def _rank(self, item: pytest.Item) -> int:
        if self.order is None:
            return 0
        return self.order.get(item.nodeid, self.order.get(item.nodeid.split("::")[0], -1))

    @staticmethod
    def _is_quick(item: pytest.Item) -> bool:
        name = item.nodeid
        started = STARTS_A_RUN & set(getattr(item, "fixturenames", ()))
        elsewhere = name.startswith(LEFT_OUT) and not any(f"tests/scale/{kept}" in name for kept in KEPT)
        return not (item.get_closest_marker("long") or started or elsewhere)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and self.failed is None:
            self.failed = report.nodeid

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed and self.failed is None:
            self.failed = f"{report.nodeid} (import)"


class Lines(Chosen):
    """Note which tests run which lines, how long each takes, and which do not pass."""

    def __init__(self, files: Sequence[str]) -> None:
        super().__init__()
        paths = [os.path.abspath(file) for file in files]
        self.coverage = coverage.Coverage(data_file=None, config_file=False, include=paths)
        self.seconds: dict[str, float] = defaultdict(float)
        self.bad: set[str] = set()

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self.coverage.switch_context(item.nodeid)
        start = time.process_time()
        yield
        self.seconds[item.nodeid] += time.process_time() - start
        self.coverage.switch_context("")

    @pytest.hookimpl(hookwrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any, request: Any) -> Iterator[None]:
        """Count what a fixture of a module runs for every test of the module."""
        shared = fixturedef.scope != "function"
        if shared:
            self.coverage.switch_context(request.node.nodeid.split("::")[0])
        yield
        if shared:
            self.coverage.switch_context(getattr(request, "_pyfuncitem", request.node).nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.outcome != "passed":
            self.bad.add(report.nodeid)

    def pytest_sessionfinish(self) -> None:
        self.coverage.stop()

    def result(self, root: Path) -> dict[str, Any]:
        """Return the tests that passed with their seconds, the others, and the contexts of every line."""
        data = self.coverage.get_data()
        lines = {str(Path(file).relative_to(root)): data.contexts_by_lineno(file) for file in data.measured_files()}
        seconds = {test: s for test, s in self.seconds.items() if test not in self.bad}
        return {"seconds": seconds, "bad": sorted(self.bad), "lines": lines}


class Server(Chosen):
    """Collect all tests once, and hand a function that runs some of them to `work`."""

    def __init__(self, work: Callable[[Callable[[Sequence[str]], str | None]], None]) -> None:
        super().__init__()
        self.work = work

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        items = {item.nodeid: item for item in session.items}

        def run(tests: Sequence[str]) -> str | None:
            chosen = [items[test] for test in tests if test in items]
            for item, following in zip(chosen, [*chosen[1:], None], strict=True):
                item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
                if self.failed is not None:
                    break
            return self.failed

        self.work(run)
        return True


def forked(root: Path, work: Callable[[], Any], cpu: float, wall: float) -> Any:
    """Return what a forked process makes in the copy: JSON, or "timeout", or "crash" with a status."""
    out = root.parent / f"result-{os.getpid()}.json"
    out.unlink(missing_ok=True)
    sys.stdout.flush()
    if not (pid := os.fork()):
        os.setpgid(0, 0)
        resource.setrlimit(resource.RLIMIT_CPU, (int(cpu) + 1, int(cpu) + 5))
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        try:
            out.write_text(json.dumps(work()))
            os._exit(0)
        except BaseException:
            (root.parent / "error.txt").write_text(traceback.format_exc())
        finally:
            os._exit(OWN_ERROR)
    end = time.monotonic() + wall
    while not os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) and time.monotonic() < end:
        time.sleep(0.02)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)  # what it has started, and itself if it hangs
    late, status = time.monotonic() >= end, os.waitpid(pid, 0)[1]
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGXCPU, signal.SIGKILL)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) == OWN_ERROR:
        raise RuntimeError((root.parent / "error.txt").read_text())
    if late or (killed and not out.exists()):
        return "timeout"
    return json.loads(out.read_text()) if out.exists() and not status else f"crash {status}"


def preload() -> None:
    """Import what the tests need and no fault touches."""
    for name in PRELOADED.split():
        importlib.import_module(name)


def enter(root: Path) -> None:
    """Make a forked process one of the copy, without what it has imported of ours."""
    for name in [name for name in sys.modules if name.split(".")[0] in OURS and not name.startswith("tests.mutants")]:
        del sys.modules[name]
    os.chdir(root)
    sys.path[:] = [str(root), *(path for path in sys.path if path not in ("", os.environ.get("PYTHONPATH")))]
    os.environ |= {"PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
    sys.dont_write_bytecode = True
    sys.modules.pop("tests", None)
    log = os.open(root.parent / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)


def pytest_main(plugin: Chosen, *arguments: str) -> int:
    """Run pytest with the project's settings."""
    options = ["-q", "-p", "no:cacheprovider", "--basetemp=../pytest"]
    options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
    return int(pytest.main([*options, *arguments], plugins=[plugin]))


def plant(path: Path, right: str, wrong: str) -> bool:
    """Give the functions of an imported module the faulty code; False if none of them is there."""
    pairs = list(_pairs(*(compile(text, str(path), "exec", dont_inherit=True) for text in (right, wrong))))
    found = False
    for function in [each for each in gc.get_objects() if type(each) is FunctionType]:
        if function.__code__.co_filename == str(path):
            for old, new in pairs:
                if function.__code__ == old and old.co_freevars == new.co_freevars:
                    function.__code__, found = new, True
                    break
    return found


def _pairs(old: CodeType, new: CodeType) -> Iterator[tuple[CodeType, CodeType]]:
    """Yield the code objects within two that differ."""
    inside = [[x for x in code.co_consts if isinstance(x, CodeType)] for code in (old, new)]
    for a, b in zip(*inside, strict=True):
        if a != b:
            yield a, b
            yield from _pairs(a, b)
