"""Whether a run still moves: the CPU time and the input and output of its processes, its GPUs, its log.

A run that moves may still be stuck. A hung collective of NCCL keeps its GPU and a core at 100 %, and so does a process
that waits in a loop. So what is measured here gives a silent run more time, but not for ever (`supervise`).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from scale.run.guard import processes

CORES = 0.2
"""Cores that one process uses, from which on it moves; processes that wait, Ray's among them, use less."""

BYTES = 1e6
"""Bytes a second that one process reads and writes, from which on it moves: it may load or save without computing."""

LONGEST = 20.0
"""Seconds to wait for `nvidia-smi`."""

GPU = 5.0
"""Utilisation of a GPU in per cent, from which on it moves."""


class Sample(NamedTuple):
    """What is counted of a run at a time: CPU seconds and bytes by process, the log's bytes, and GPUs in per cent."""

    time: float
    used: dict[Any, tuple[float, float]]
    log: int
    gpus: tuple[float, ...]


@dataclass(frozen=True)
class Moved:
    """What moved between two samples.

    Attributes
    ----------
    seconds : Time between them.
    processes : Processes of the run on this machine.
    busiest : Number and name of the one that used the most CPU, and the cores that it used.
    transfer : Most bytes a second that a process read and wrote.
    gpus : Utilisation of this machine's GPUs, per cent, the larger of both times; empty without `nvidia-smi`.
    log : Bytes that the log grew by.
    """

    seconds: float
    processes: int
    busiest: tuple[str, float]
    transfer: float
    gpus: tuple[float, ...]
    log: int

    @property
    def moving(self) -> bool:
        """Return whether anything moved."""
        return self.busiest[1] >= CORES or self.transfer >= BYTES or max(self.gpus, default=0.0) >= GPU or self.log > 0

    def __str__(self) -> str:
        """Return the evidence in words."""
        gpus = f"GPUs at {', '.join(f'{x:.0f}' for x in self.gpus)} %" if self.gpus else "no GPU was seen"
        name, cores = self.busiest
        return (
            f"in the last {self.seconds:.0f} s, of {self.processes} processes the busiest ({name}) used {cores:.2f} "
            f"cores, none moved more than {self.transfer / 1e6:.1f} MB/s, {gpus}, and the log grew by {self.log} bytes"
        )


def sample(run_id: str, log: Callable[[], int]) -> Sample:
    """Count what a run has used so far."""
    import psutil

    used: dict[Any, tuple[float, float]] = {}
    for process in processes(run_id):
        with contextlib.suppress(psutil.Error, OSError):
            times = process.cpu_times()
            used[process] = (times.user + times.system, _transferred(process))
    return Sample(time.monotonic(), used, log(), gpu_use())


def _transferred(process: Any) -> float:
    import psutil

    with contextlib.suppress(psutil.Error, OSError, AttributeError):  # None on macOS
        count = process.io_counters()
        return float(count.read_chars + count.write_chars + count.read_bytes + count.write_bytes)
    return 0.0


def moved(first: Sample, last: Sample) -> Moved:
    """Return what moved between two samples; a process that began in between counts from 0."""
    import psutil

    seconds = max(last.time - first.time, 1e-9)
    rates = {}
    for process, (cpu, count) in last.used.items():
        cpu_before, before = first.used.get(process, (0.0, 0.0))
        rates[process] = ((cpu - cpu_before) / seconds, (count - before) / seconds)
    name, cores = "none", 0.0
    if rates:
        busiest = max(rates, key=lambda process: rates[process][0])
        name, cores = str(busiest.pid), rates[busiest][0]
        with contextlib.suppress(psutil.Error, OSError):
            name = f"{busiest.pid}, {' '.join(busiest.cmdline())[:60] or busiest.name()}"
    gpus = [max(pair) for pair in zip(first.gpus, last.gpus, strict=False)]
    transfer = max((rate for _, rate in rates.values()), default=0.0)
    return Moved(seconds, len(rates), (name, cores), transfer, tuple(gpus), last.log - first.log)


def gpu_use() -> tuple[float, ...]:
    """Return the utilisation of the GPUs that this process may use, per cent; empty if `nvidia-smi` is not there.

    Other jobs' work on the same GPUs counts too.
    """
    if shutil.which("nvidia-smi") is None:
        return ()
    command = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
    if visible := os.environ.get("CUDA_VISIBLE_DEVICES"):
        command.append(f"--id={visible}")
    with contextlib.suppress(OSError, ValueError):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        try:
            said, _ = process.communicate(timeout=LONGEST)
        except subprocess.TimeoutExpired:
            process.kill()
            if process.stdout:
                process.stdout.close()
            with contextlib.suppress(subprocess.TimeoutExpired):  # One that the driver holds cannot be killed.
                process.wait(1.0)
            return ()
        if process.returncode == 0:
            return tuple(float(line) for line in said.split() if line)
    return ()
