"""The house: chapters import one way, no circle, no private name from next door, one module in theory that does files.

The rules read the source, so that an import counts wherever it stands: in a function, for the type checker only, or in
the stub of a chapter's lazy names. Each rule is also shown to fail, on a small made-up house with one fault.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
PARTS = ("theory", "toy", "scale", "paper_figs")

CHAPTERS: Mapping[str, Mapping[str, str]] = {
    "theory": {
        "base": "",
        "policy": "base",
        "estimators": "base policy",
        "statistics": "base",
        "allocation": "base policy estimators statistics",
        "losses": "base policy",
        "methods": "base policy estimators allocation losses",
        "claims": "base policy estimators statistics allocation losses methods",
        "__main__": "__init__ base claims",
        "__init__": "",
    },
    "toy": {
        "worlds": "",
        "envs": "worlds",
        "training": "worlds",
        "experiments": "worlds training",
        "__main__": "worlds training experiments",
        "__init__": "worlds envs training experiments",
    },
    "scale": {
        "conf": "",
        "text": "",
        "manifest": "",
        "run": "text",
        "plugin": "text run",
        "launch": "text manifest run plugin",
        "data": "text manifest",
        "rewards": "text",
        "evaluation": "text manifest run plugin launch",
        "audit": "text run",
        "tiny": "text manifest run",
        "smoke": "text manifest run plugin launch data rewards evaluation audit tiny",
        "__main__": "text manifest run plugin launch data rewards evaluation audit tiny smoke",
        "__init__": "",
    },
}
"""What each chapter may import of its own package; one that does not stand here has no place."""

OPENS_FILES = "os shutil tempfile subprocess socket urllib pickle shelve sqlite3 gzip zipfile mmap pyarrow pandas"
READS_OR_WRITES = (
    "open read write read_text read_bytes write_text write_bytes mkdir rmdir touch unlink rename iterdir glob rglob "
    "load dump save savez savez_compressed savetxt loadtxt genfromtxt fromfile tofile memmap read_table write_table"
)
MAY_READ_OR_WRITE = ("theory.base.files", "theory.base.runs", "theory.base.terminal")


class Import(NamedTuple):
    """One module's use of another: `of` is the file's dotted path, a package's is its __init__; `name` may be empty."""

    by: str
    of: str
    name: str
    place: str


class House:
    """The modules below a root, and what they import of each other."""

    def __init__(self, root: Path) -> None:
        files = (path for part in (*PARTS, "tests") for path in sorted((root / part).rglob("*.py*")))
        self.sources = [
            (
                ".".join(path.relative_to(root).with_suffix("").parts),
                path.relative_to(root),
                ast.parse(path.read_text()),
            )
            for path in files
            if path.suffix in (".py", ".pyi")
        ]
        self.modules = {module for module, _, _ in self.sources}

    @cached_property
    def imports(self) -> list[Import]:
        return [each for source in self.sources for each in self._imports(*source)]

    def _imports(self, module: str, path: Path, tree: ast.Module) -> Iterator[Import]:
        bound: dict[str, str] = {}
        for node in ast.walk(tree):
            place = f"{path}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Import):
                for alias in node.names:
                    bound[alias.asname or alias.name.split(".")[0]] = (
                        alias.name if alias.asname else alias.name.split(".")[0]
                    )
                    yield from self._resolved(module, alias.name, place)
            elif isinstance(node, ast.ImportFrom):
                start = module.split(".")[: -node.level] if node.level else []
                source = ".".join([*start, *([node.module] if node.module else [])])
                for alias in node.names:
                    bound[alias.asname or alias.name] = f"{source}.{alias.name}"
                    yield from self._resolved(module, f"{source}.{alias.name}", place)
            elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
                for argument in node.args[:1]:
                    if isinstance(argument, ast.Constant):
                        yield from self._resolved(module, str(argument.value), place)
        for node in ast.walk(tree):
            names = []
            part: ast.AST = node
            while isinstance(part, ast.Attribute):
                names.append(part.attr)
                part = part.value
            if names and isinstance(part, ast.Name) and part.id in bound:
                dotted = ".".join([bound[part.id], *reversed(names)])
                yield from self._resolved(module, dotted, f"{path}:{part.lineno}")

    def _resolved(self, module: str, dotted: str, place: str) -> Iterator[Import]:
        """Find the file that a dotted name is of: the longest beginning of the name that is a module."""
        parts = dotted.split(".")
        for length in range(len(parts), 0, -1):
            for of in (".".join(parts[:length]), ".".join([*parts[:length], "__init__"])):
                if of in self.modules:
                    yield Import(module, of, ".".join(parts[length:]), place)
                    return


def parting(first: str, second: str) -> tuple[str, str, str] | None:
    """Return the folder in which two modules part, and the child of it that each is or is in."""
    a, b = first.split("."), second.split(".")
    for depth, (left, right) in enumerate(zip(a, b, strict=False)):
        if left != right:
            return ".".join(a[:depth]), left, right
    return None


def circles(house: House) -> list[str]:
    """Return circles among the files and folders of each folder."""
    graphs: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for each in house.imports:
        if parted := parting(each.by, each.of):
            folder, importer, imported = parted
            graphs[folder][importer].add(imported)
    problems = []
    for folder, graph in graphs.items():
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as error:
            problems.append(f"{folder}: {' <- '.join(error.args[1])}")
    return problems


def out_of_order(house: House, chapters: Mapping[str, Mapping[str, str]] = CHAPTERS) -> list[str]:
    """Return chapters without a place, and imports that the order of chapters does not have."""
    problems = {
        f"{part}.{child}: no place in the order of chapters"
        for part, child in (module.split(".")[:2] for module in house.modules)
        if part in chapters and child not in chapters[part]
    }
    for each in house.imports:
        folder, importer, imported = parting(each.by, each.of) or ("", "", "")
        if folder in chapters and imported not in chapters[folder].get(importer, "").split():
            problems.add(f"{each.place}: {importer} imports {imported}")
    return sorted(problems)


def across_parts(house: House) -> list[str]:
    """Return imports between toy, scale and paper_figs, and those by which theory would know of its users."""
    pairs = ((each, each.by.split(".")[0], each.of.split(".")[0]) for each in house.imports)
    return [
        f"{each.place}: {part} imports {other}"
        for each, part, other in pairs
        if part != "tests" and other not in (part, "theory")
    ]


def is_private(name: str) -> bool:
    return (
        name.startswith("_") and not name.startswith("__") and name not in ("_asdict", "_fields", "_make", "_replace")
    )


def folder_of(module: str) -> str:
    return module.rpartition(".")[0]


def private_imports(house: House) -> list[str]:
    """Return private names used outside their folder; a test may use those of the part that it tests."""
    problems = []
    for each in house.imports:
        path, names = each.of.split("."), each.name.split(".")
        private = next((depth for depth, part in enumerate(path) if is_private(part)), None)
        if private is not None:
            home = ".".join(path[:private])
            inside = each.by.split(".")[: private + 1] == path[: private + 1]
        else:
            home, inside = folder_of(each.of), not any(map(is_private, names))
        tests = each.by.split(".")[0] == "tests"
        tested = tests and (each.by.count(".") == 1 or each.by.split(".")[1] == path[0] or path[0] == "tests")
        if not inside and folder_of(each.by) != home and not tested:
            problems.append(f"{each.place}: {each.of}.{each.name}")
    return problems


def reading_or_writing(house: House, allowed: Sequence[str] = MAY_READ_OR_WRITE) -> list[str]:
    """Return places in theory, outside those allowed, that could touch a file."""
    modules, names = OPENS_FILES.split(), READS_OR_WRITES.split()
    problems = []
    for module, path, tree in house.sources:
        if module.split(".")[0] != "theory" or module in allowed:
            continue
        for node in ast.walk(tree):
            used: list[str] = []
            if isinstance(node, ast.Import):
                used = [alias.name for alias in node.names if alias.name.split(".")[0] in modules]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                opens = (node.module or "").split(".")[0] in modules
                used = [f"{node.module}.{alias.name}" for alias in node.names if opens or alias.name in names]
            elif isinstance(node, ast.Attribute) and node.attr in names:
                used = [ast.unparse(node)]
            elif isinstance(node, ast.Name) and node.id == "open":
                used = ["open"]
            problems += [f"{path}:{node.lineno}: {name}" for name in used]
    return problems


@pytest.fixture(scope="module")
def house() -> House:
    return House(ROOT)


@pytest.mark.parametrize("rule", [circles, out_of_order, across_parts, private_imports, reading_or_writing])
def test_the_house_keeps_the_rule(rule, house: House):
    assert rule(house) == []


def test_imports_are_seen(house: House):
    """Were nothing read, nothing could be wrong."""
    pairs = {(each.by, each.of) for each in house.imports}
    assert ("theory.claims.allocation", "theory.allocation.__init__") in pairs
    assert ("theory.allocation.__init__", "theory.allocation.history") in pairs  # in the stub


def built(root: Path, files: Mapping[str, str]) -> House:
    """Write a made-up house; files that are not named but needed are empty."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for folder in {folder for name in files for folder in Path(name).parents[:-1]}:
        (root / folder / "__init__.py").touch()
    return House(root)


SOUND = {
    "theory/base/require.py": "import math\n",
    "theory/base/runs.py": "import os\nopen(os.devnull)\n",
    "theory/policy/__init__.pyi": "from .softmax import log_softmax as log_softmax\n",
    "theory/policy/softmax.py": "from theory.base import require\nfrom theory.policy.entropy import _mean\n",
    "theory/policy/entropy.py": "_mean = None\n",
    "toy/worlds/tabular.py": "from theory.policy import log_softmax\n",
    "scale/rewards/scoring.py": "import theory.base.runs\n",
    "scale/data/prepare.py": "from theory import policy\npolicy.__doc__\n",
    "paper_figs/figure.py": "from paper_figs import style\n",
    "paper_figs/style.py": "",
    "tests/theory/test_entropy.py": "from theory.policy.entropy import _mean\n",
}
UPWARDS = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from theory.policy import log_softmax\n"
FAULTS = [
    (circles, "theory.policy: softmax", {"theory/policy/entropy.py": "from theory.policy.softmax import log_softmax"}),
    (circles, "theory.policy: ", {"theory/policy/softmax.py": "from theory.policy import log_softmax"}),
    (circles, "theory: ", {"theory/base/require.py": UPWARDS}),
    (circles, "paper_figs: ", {"paper_figs/style.py": "def late():\n    import paper_figs.figure"}),
    (circles, "toy.worlds: ", {"toy/worlds/a.py": "from . import b", "toy/worlds/b.py": "from .a import x"}),
    # No file imports one that imports it, but the folders do.
    (circles, "scale: ", {"scale/a/x.py": "import scale.b.x", "scale/b/y.py": "import scale.a.y", "scale/a/y.py": "",
                          "scale/b/x.py": ""}),
    (out_of_order, "require.py:3: base imports policy", {"theory/base/require.py": UPWARDS}),
    (out_of_order, "prepare.py:1: data imports rewards", {"scale/data/prepare.py": "import scale.rewards.scoring"}),
    (out_of_order, "toy.market: no place", {"toy/market.py": ""}),
    (across_parts, "tabular.py:1: toy imports scale", {"toy/worlds/tabular.py": "import scale.data.prepare"}),
    (across_parts, "require.py:1: theory imports toy", {"theory/base/require.py": "import toy"}),
    (across_parts, "style.py:3: paper_figs imports scale", {
        "paper_figs/style.py": "import importlib\n\nimportlib.import_module('scale.data.prepare')"
    }),
    (across_parts, "style.py:2: paper_figs imports toy", {"paper_figs/style.py": "def late():\n    from toy import x"}),
    (private_imports, "entropy._mean", {"toy/worlds/tabular.py": "from theory.policy.entropy import _mean"}),
    (private_imports, "entropy._mean", {"theory/methods.py": "from theory.policy import entropy\nentropy._mean"}),
    (private_imports, "theory._hidden", {"theory/_hidden.py": "", "scale/text.py": "from theory import _hidden"}),
    (private_imports, "theory._hidden.x", {"theory/_hidden.py": "", "toy/x.py": "from theory._hidden import x"}),
    (private_imports, "entropy._mean", {"tests/toy/test_x.py": "import theory.policy.entropy as e\ne._mean"}),
    (reading_or_writing, "entropy.py:1: open", {"theory/policy/entropy.py": "text = open('x').read"}),
    (reading_or_writing, "read_text", {"theory/policy/entropy.py": "from pathlib import Path\nPath('x').read_text()"}),
    (reading_or_writing, "np.load", {"theory/policy/entropy.py": "import numpy as np\nnp.load('x')"}),
    (reading_or_writing, "json.dump", {"theory/__main__.py": "import json\ndef f(x, file): json.dump(x, file)"}),
    (reading_or_writing, "numpy.savez", {"theory/claims/a.py": "from numpy import savez"}),
    (reading_or_writing, "pyarrow.parquet", {"theory/__main__.py": "import pyarrow.parquet as pq"}),
    (reading_or_writing, "os.replace", {"theory/base/require.py": "from os import replace"}),
]  # fmt: skip


@pytest.mark.parametrize("rule", [circles, out_of_order, across_parts, private_imports, reading_or_writing])
def test_a_sound_house_breaks_no_rule(rule, tmp_path: Path):
    assert rule(built(tmp_path, SOUND)) == []


@pytest.mark.parametrize(("rule", "message", "fault"), FAULTS)
def test_a_fault_is_seen(rule, message: str, fault: Mapping[str, str], tmp_path: Path):
    assert any(message in text for text in rule(built(tmp_path, {**SOUND, **fault})))


MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for part in PARTS
    for path in (ROOT / part).rglob("*.py")
)


@pytest.mark.parametrize(
    "part", [pytest.param(part, marks=pytest.mark.needs_verl if part == "scale" else ()) for part in PARTS]
)
def test_imports_run_one_way(part: str, tmp_path: Path):
    """In a fresh process, since this one has loaded everything."""
    environ = None
    if part == "scale":
        from scale.launch.start import cpu_environment

        environ = cpu_environment(tmp_path)
    modules = [name for name in MODULES if name.split(".")[0] == part]
    code = f"import sys, importlib; [importlib.import_module(m) for m in {modules!r}]; print(*sys.modules)"
    command = [sys.executable, "-W", "ignore", "-c", code]
    run = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in run.stdout.split()}
    assert loaded & set(PARTS) <= {part, "theory"}
    if part == "theory":
        assert not loaded & {"gymnasium", "matplotlib", "pandas", "seaborn", "verl", "vllm"}
