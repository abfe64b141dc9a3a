"""Plant a seeded sample of faults, one at a time, and see whether the tests that run the faulty line notice.

`python -m tests.mutants --size 400 --seed 0 --folder build/mutants`: a copy of the tree is made there, and the run goes
on from where it was stopped. A fault is killed if a test fails that passes without it, or if the tests do not end.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from tests.mutants import faults, session

ROOT = Path(__file__).parents[2]
MANY = 8
"""Files of tests that one process imports, after the first."""
MOST = 12.0
"""Seconds of tests for one fault, counted without it; a fault that needs more survives."""
AGAIN = 6
"""Files of tests by which a survivor is judged again."""
NO_TESTS = 5
KEPT = "without-the-fault.json"
NOT_THERE = "the function is not there"
FIELDS = tuple(field.name for field in fields(faults.Fault))


def copy(folder: Path) -> Path:
    """Return a fresh copy of the files that git knows or would add."""
    root = folder / "tree"
    shutil.rmtree(root, ignore_errors=True)
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0"):
        if name and (ROOT / name).is_file():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, root / name)
    return root


def measure(root: Path, only: Sequence[str]) -> dict[str, Any]:
    """Run all tests once without a fault: which lines each runs, and how long it takes."""

    def work() -> dict[str, Any]:
        session.enter(root)
        plugin = session.Lines(faults.files(root))
        plugin.coverage.start()
        session.pytest_main(plugin, *(only or session.FOLDERS))
        return plugin.result(root)

    found = session.forked(root, work, cpu=7200, wall=24 * 3600)
    assert isinstance(found, dict), f"{found}: see {root.parent}/output.txt and error.txt"
    return found


def mirrored(path: str) -> str:
    """Return the folder and the beginning of the file in which the tests of a module stand."""
    part = Path(path)
    return f"tests/{part.parent}/test_{part.stem.strip('_')}"


def tests_of(fault: faults.Fault, lines: dict[str, Any]) -> list[list[str]]:
    """Return the tests that run a fault's line, by file, fastest first: its own file before the others."""
    by_line = lines["lines"].get(fault.path, {})
    wanted = by_line if fault.at_import else [str(line) for line in fault.statement]
    contexts = {context for line in wanted for context in by_line.get(line, ())} - {""}
    own = mirrored(fault.path)
    if fault.at_import or not contexts:
        contexts |= {test for test in lines["seconds"] if test.startswith(own)}
    by_file: dict[str, list[str]] = defaultdict(list)
    for test in sorted(lines["seconds"], key=lines["seconds"].get):
        if contexts & {test, test.split("::")[0]}:
            by_file[test.split("::")[0]].append(test)
    return sorted(by_file.values(), key=lambda tests: (not tests[0].startswith(own), time_of(tests, lines)))


def time_of(tests: Iterable[str], lines: dict[str, Any]) -> float:
    """Return the seconds that tests took without a fault."""
    return sum(lines["seconds"][test] for test in tests)


def batches(files: list[list[str]], lines: dict[str, Any], most: float) -> Iterator[list[str]]:
    """Yield the tests of a file, then those of `MANY` at once, up to `most` seconds of tests."""
    spent = 0.0
    for some in (files[:1], *(files[start : start + MANY] for start in range(1, len(files), MANY))):
        batch = []
        for test in (test for tests in some for test in tests):
            spent += lines["seconds"][test]
            if spent <= most or not batch:
                batch.append(test)
        if batch:
            yield batch
        if spent > most:
            return


@contextlib.contextmanager
def planted(root: Path, fault: faults.Fault) -> Iterator[tuple[str, str]]:
    """Write a fault into the copy, for as long as its tests run; yield the right text and the wrong one."""
    path, kept = root / fault.path, root.parent / KEPT
    right, when = path.read_text(), path.stat()
    wrong = fault.source(right)
    assert wrong is not None, fault
    kept.write_text(json.dumps([fault.path, right, [when.st_atime_ns, when.st_mtime_ns]]))
    path.write_text(wrong)
    try:
        yield right, wrong
    finally:
        restore(root)


def restore(root: Path) -> None:
    """Take a fault out of the copy, also one that a killed run has left, and keep the time that caches go by."""
    kept = root.parent / KEPT
    if kept.exists():
        name, right, when = json.loads(kept.read_text())
        (root / name).write_text(right)
        os.utime(root / name, ns=tuple(when))
        kept.unlink()


def judged(fault: faults.Fault, texts: tuple[str, str], found: Any) -> dict[str, Any]:
    """Return the record of a fault: what stopped its tests, if anything."""
    outcome = "survived" if found is None else "timeout" if found == "timeout" else "killed"
    return {**asdict(fault), "diff": faults.changed(*texts), "outcome": outcome, "by": found}


def judge(root: Path, fault: faults.Fault, tests: Iterable[list[str]], lines: dict[str, Any]) -> dict[str, Any]:
    """Run batches of tests, each with fresh imports, until one fails."""
    found = None
    with planted(root, fault) as texts:
        for batch in tests:
            files = list(dict.fromkeys(test.split("::")[0] for test in batch))

            def work(batch: list[str] = batch, files: list[str] = files) -> str | None:
                session.enter(root)
                plugin = session.Chosen(batch)
                status = session.pytest_main(plugin, "-x", *files)
                return plugin.failed or (f"status {status}" if status not in (0, NO_TESTS) else None)

            seconds = sum(s for test, s in lines["seconds"].items() if {test, test.split("::")[0]} & set(batch))
            if found := session.forked(root, work, cpu=60 + 3 * seconds, wall=3600 + 30 * seconds):
                break
    return judged(fault, texts, found)


def serve(root: Path, todo: list[faults.Fault], lines: dict[str, Any], results: Path, folders: Sequence[str]) -> None:
    """Judge faults in the bodies of functions: their code is exchanged in a process that has collected all tests."""

    def each(run: Callable[[Sequence[str]], str | None]) -> None:
        for fault in todo:
            tests = [test for batch in batches(tests_of(fault, lines), lines, MOST) for test in batch]
            with planted(root, fault) as texts:

                def work(tests: list[str] = tests, fault: faults.Fault = fault, texts: Any = texts) -> Any:
                    try:
                        return run(tests) if session.plant(root / fault.path, *texts) else [NOT_THERE]
                    except SyntaxError as error:  # a warning of the compiler, which is an error in tests
                        return str(error)

                seconds = time_of(tests, lines)
                found = session.forked(root, work, cpu=20 + 3 * seconds, wall=3600 + 30 * seconds)
            if found != [NOT_THERE]:
                report(results, judged(fault, texts, found))

    def work() -> None:
        session.enter(root)
        session.pytest_main(session.Server(each), *(folders or session.FOLDERS))

    print(session.forked(root, work, cpu=10**6, wall=10**6))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser("python -m tests.mutants", description=__doc__)
    parser.add_argument("--size", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "mutants")
    parser.add_argument("--again", action="store_true", help="judge the survivors again, in a fresh copy")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the result into docs/mutants.json")
    parser.add_argument("--tests", nargs="*", default=[], help="folders of tests, for a trial")
    asked = parser.parse_args(arguments)
    folder = asked.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("FUZZ_EXAMPLES", "10")
    session.preload()
    root, measured = folder / "tree", folder / "lines.json"
    if not measured.exists():
        root = copy(folder)
        measured.write_text(json.dumps(measure(root, asked.tests)))
    lines = json.loads(measured.read_text())
    restore(root)
    print(f"{len(lines['seconds'])} tests, {sum(lines['seconds'].values()):.0f} s; not passed: {lines['bad']}")
    results = folder / f"seed-{asked.seed}.jsonl"
    if asked.again:
        judge_again(folder, results, lines)
    else:
        judge_all(root, sampled(root, asked.size, asked.seed), lines, results, asked.tests)
    records = final(results)
    survivors = [record for record in records if record["outcome"] == "survived"]
    print(f"{len(survivors)} of {len(records)} survive")
    for record in survivors:
        print(f"{record['path']}:{record['line']}", *record["diff"], sep="\n  ")
    if asked.write:
        at_first = sum(record["outcome"] == "survived" for record in read(results))
        write(asked.write, f"seed {asked.seed}", at_first, records)


def write(path: Path, name: str, at_first: int, records: list[dict[str, Any]]) -> None:
    """Put a sample's result into the file from which the page is made; reasons that stand there stay."""
    samples = json.loads(path.read_text()) if path.exists() else {}
    known = {(x["path"], *x["diff"]): x["why"] for sample in samples.values() for x in sample["survivors"]}
    survivors = [
        {key: record[key] for key in ("path", "line", "diff")}
        | {"why": known.get((record["path"], *record["diff"]), "")}
        for record in sorted(records, key=lambda record: (record["path"], record["line"]))
        if record["outcome"] == "survived"
    ]
    timeouts = sum(record["outcome"] == "timeout" for record in records)
    samples[name] = {"faults": len(records), "at first": at_first, "timeouts": timeouts, "survivors": survivors}
    path.write_text(json.dumps(samples, indent=1) + "\n")


def judge_all(
    root: Path, drawn: list[faults.Fault], lines: dict[str, Any], results: Path, folders: Sequence[str]
) -> None:
    """Judge what is left of a sample: first the faults in bodies of functions, then those of imports."""
    for serves in (True, False):
        seen = {fault_of(record) for record in read(results)}
        todo = [fault for fault in drawn if fault not in seen]
        if serves:
            serve(root, [fault for fault in todo if not fault.at_import], lines, results, folders)
        else:
            for fault in todo:
                report(results, judge(root, fault, batches(tests_of(fault, lines), lines, MOST), lines))


def judge_again(folder: Path, results: Path, lines: dict[str, Any]) -> None:
    """Judge the survivors again in a fresh copy of the tree, by all tests of the files that ran their lines."""
    root = copy(folder / "again")
    for old in final(results):
        if old["outcome"] != "survived":
            continue
        fault = faults.again(root, old["path"], old["operator"], old["line"], old["diff"])
        if fault is None:
            found = {"outcome": "gone"}
        else:
            names = [tests[0].split("::")[0] for tests in tests_of(fault_of(old), lines)]
            files = [[name] for name in names[:AGAIN]] or [[f"{mirrored(fault.path)}.py"]]
            new = judge(root, fault, files, lines)
            found = {name: new[name] for name in ("outcome", "by")}
        report(again_of(results), {**old, **found})


def again_of(results: Path) -> Path:
    """Return the file with the later judgements of a sample."""
    return results.with_name(f"again-{results.name}")


def final(results: Path) -> list[dict[str, Any]]:
    """Return the last judgement of every fault of a sample."""
    latest = {fault_of(record): record for record in (*read(results), *read(again_of(results)))}
    return list(latest.values())


def sampled(root: Path, size: int, seed: int) -> list[faults.Fault]:
    """Return the sample, drawn once: to list all faults takes long."""
    file = root.parent / f"sample-{seed}-{size}.json"
    if not file.exists():
        file.write_text(json.dumps([asdict(fault) for fault in faults.sample(root, size, seed)]))
    return [fault_of(record) for record in json.loads(file.read_text())]


def fault_of(record: dict[str, Any]) -> faults.Fault:
    """Return the fault that a record is of."""
    return faults.Fault(**{name: tuple(x) if isinstance(x := record[name], list) else x for name in FIELDS})


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def report(path: Path, result: dict[str, Any]) -> None:
    with path.open("a") as file:
        file.write(json.dumps(result) + "\n")
    print(*(result[name] for name in ("outcome", "path", "line", "diff", "by")), flush=True)


if __name__ == "__main__":
    sys.exit(main())
