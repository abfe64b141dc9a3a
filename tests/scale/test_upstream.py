"""What of verl and vLLM ours builds on has been read, in the versions of both environments; a change is named."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest

from scale.launch.versions import TESTED
from tests.scale import upstream
from tests.scale.upstream import ROOT, Source, Upstream, changes, overridden, plain

pytestmark = pytest.mark.needs_verl

OURS = ("_exit", "_target_", "_asdict", "_replace")
"""Private by their spelling only: Python's, and keys of configurations."""

THEIRS = """
class Trainer:
    '''Trains.'''

    def step(self, batch):
        '''Learn from a batch.'''
        return self.learn(batch)  # and nothing else

    def learn(self, batch):
        return sum(batch)

if True:
    def start(address):
        return address

TABLE = {"a": 1}
"""


def command(*words):
    """Run `python -m tests.scale.upstream` as a person does: it imports every module of ours."""
    environ = os.environ | {"PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-m", "tests.scale.upstream", *map(str, words)]
    return subprocess.run(words, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)


def package(folder, text=THEIRS):
    """Write a package `verl` with one module, which the package hands on."""
    (folder / "verl").mkdir(parents=True)
    (folder / "verl" / "__init__.py").write_text("from .parts import Trainer as Handed\n")
    (folder / "verl" / "parts.py").write_text(text)
    return Upstream(folder)


@pytest.mark.long
@pytest.mark.twin
def test_all_that_ours_builds_on_has_been_read():
    """A failure names what has to be read, and what of ours it concerns; then `--accept`."""
    done = command()
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]


@pytest.mark.long
def test_a_change_of_verl_is_named_with_what_of_ours_it_concerns(tmp_path):
    """Two lines of verl's own source are changed in a copy: one of a method that ours override, one of another."""
    theirs = upstream.HERE.folder / "verl"
    shutil.copytree(theirs, tmp_path / "verl", ignore=shutil.ignore_patterns("__pycache__"))
    path = tmp_path / "verl" / "trainer" / "ppo" / "v1" / "trainer_base.py"
    text = path.read_text()
    for name in ("_save_checkpoint", "_log_rollout_data"):
        start = text.index(f"    def {name}(")
        end = text.index("    def ", start + 8)
        text = text[:start] + text[start:end].replace("self.", "self.other_") + text[end:]
    path.write_text(text.replace("    def fit(self", "    # what nothing of ours reads\n    def fit(self"))
    done = command("--against", tmp_path)
    assert done.returncode == 1
    found = [x.split(":")[0].split(" has")[0].split(".")[-1] for x in done.stdout.splitlines() if " has changed" in x]
    assert found == ["_log_rollout_data", "_save_checkpoint"], done.stdout + done.stderr[-2000:]
    assert "scale.plugin.trainer.Dynamo overrides it" in done.stdout


@pytest.mark.parametrize(
    ("before", "after", "changed"),
    [
        ("# and nothing else", "# a comment", []),
        ("'''Learn from a batch.'''", "'''Other words.'''", []),
        ("self.learn(batch)", "self.learn( batch )", []),
        ("self.learn(batch)", "self.learn(batch, 2)", ["Trainer.step"]),
        ("sum(batch)", "max(batch)", ["Trainer.learn", "Handed.learn"]),
        ("def step(self, batch)", "def step(self, batch, more=None)", ["Trainer.step"]),
        ("return address", "return 'localhost'", ["start"]),
        ('"a": 1', '"a": 2', ["TABLE"]),
        ("def start", "def begin", ["start"]),
    ],
)
def test_only_what_a_program_does_counts(tmp_path, before, after, changed):
    assert before in THEIRS
    names = ["parts.Trainer.step", "parts.Trainer.learn", "Handed.learn", "parts.start", "parts.TABLE"]
    names = [f"verl.{x}" for x in names]
    one, two = package(tmp_path / "one"), package(tmp_path / "two", THEIRS.replace(before, after))
    assert all(one.digest(x) for x in names)
    different = [x for x in names if one.digest(x) != two.digest(x)]
    assert [x.removeprefix("verl.").removeprefix("parts.") for x in different] == changed


def test_a_module_or_nothing_has_no_source(tmp_path):
    found = package(tmp_path)
    assert [found.digest(x) for x in ("verl", "verl.parts", "verl.parts.absent", "verl.absent.Trainer")] == [None] * 4


def test_what_a_mix_in_overrides_is_found():
    """The mix-in has no base of theirs; what stands after it in the class that mixes it does."""

    class Base:
        def step(self):
            pass

        def stop(self):
            pass

    class Trainer(Base):
        def step(self):
            pass

    class MixIn:
        def step(self):
            pass

        def stop(self):
            pass

        def other(self):
            pass

    Base.__module__, Trainer.__module__ = "verl.base", "verl.trainer"
    for each in (Base, Trainer, MixIn):
        each.__qualname__ = each.__name__
    found = {name for name, ours in overridden([type("Ours", (MixIn, Trainer), {})]) if ours.endswith(".MixIn")}
    assert found == {"verl.base.Base.step", "verl.base.Base.stop", "verl.trainer.Trainer.step"}


@pytest.mark.parametrize(
    ("line", "replaced", "others"),
    [
        ("base.start = ours", {"verl.parts.base.start"}, set()),
        ("base.TABLE['a'] = ours", {"verl.parts.base.TABLE"}, set()),
        ("Handed.step = ours", {"verl.parts.Trainer.step"}, set()),
        ("vllm.model.utils.gemm = ours", {"vllm.model.utils.gemm"}, set()),
        ("importlib.import_module('verl.parts').TABLE['a'] = ours", {"verl.parts.TABLE"}, set()),
        ("del base.start", {"verl.parts.base.start"}, set()),
        ("setattr(base, 'start', ours)", {"verl.parts.base.start"}, set()),
        ("object.__setattr__(self.config, 'forward', ours)", set(), {"forward"}),
        ("self.buffer.interval = ours", set(), {"interval"}),
        ("group.info['actor'] = ours", set(), {"info"}),
        ("self.own = base.start", set(), set()),
    ],
)
def test_what_ours_sets_is_found(line, replaced, others):
    start = "import importlib\nimport vllm.model\nfrom verl.parts import base, Trainer as Handed\n"
    source = Source(start + line, "ours")
    assert source.replaced() == replaced
    assert source.set_on_others() == others


def test_what_nothing_shows_is_declared():
    """Every private name of others that the plug-in uses, and every attribute that it sets on objects of others."""
    sources = [x for x in upstream.sources() if x.name.startswith(("scale.plugin.", "scale.launch."))]
    own = {name for source in sources for name in source.defined()} | set(OURS)
    private = {name for source in sources for name in source.private()} - own
    plugin = [x for x in sources if x.name.startswith("scale.plugin.")]
    private |= {name for source in plugin for name in source.set_on_others()} - own - {"loader"}  # of Python's
    private |= {"agent_loop_workers_class", "zmq_handle"}  # which ours set on themselves, for methods of their bases
    known = json.loads(upstream.STORED.read_text())
    words = [f"{name} {why}" for name, why in upstream.RELIED_ON.items()] + [x for each in known.values() for x in each]
    assert len(private) >= 8
    for name in sorted(private):
        assert any(name in text for text in words), f"{name}: say in RELIED_ON what of theirs reads or defines it"


def test_both_sets_of_versions_have_been_read():
    read = upstream.stored()
    for versions in TESTED.values():
        for package in ("ray", "torch", "verl", "vllm"):
            assert f"{package} {versions[package]}" in read
    assert all(x is not None for each in read.values() for x in each.values())


def test_what_is_new_gone_or_changed_is_said():
    ours = {name: {"scale.plugin.x overrides it"} for name in ("verl.a", "verl.b", "verl.c", "verl.d")}
    before = {"verl.a": "1", "verl.b": "1", "verl.d": "1", "verl.e": "1"}
    after = {"verl.a": "1", "verl.b": "2", "verl.c": "1", "verl.d": None}
    assert changes(before, after, ours) == [
        "verl.b has changed: scale.plugin.x overrides it",
        "verl.c has not been read: scale.plugin.x overrides it",
        "verl.d is not there: scale.plugin.x overrides it",
        "verl.e is no longer built on",
    ]


def test_every_python_reads_the_same():
    """The text of a tree has nothing that a newer Python adds, such as empty lists of type parameters."""
    import ast

    function = ast.parse("def f(x: int = 1) -> str:\n    'Say.'\n    return f'{x!r:>3}'").body[0]
    assert plain(function) == (
        "FunctionDef(name='f',args=arguments(args=[arg(arg='x',annotation=Name(id='int'))],"
        "defaults=[Constant(value=1)]),body=[Return(value=JoinedStr(values=[FormattedValue("
        "value=Name(id='x'),conversion=114,format_spec=JoinedStr(values=[Constant(value='>3')]))]))],"
        "returns=Name(id='str'))"
    )
