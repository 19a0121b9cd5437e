"""Wall-clock time, processor time and peak memory of a command with everything it starts."""

from __future__ import annotations

import contextlib
import os
import resource
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

_SMALL = 10
"""MB of a process that is not worth a word, or has ended."""


@dataclass(frozen=True)
class Cost:
    """What a command took.

    Attributes:
        wall: seconds from start to end.
        cpu: seconds of processor time, children included.
        peak: largest sum of resident memory over the process tree, in MB, sampled every 20 ms.
        processes: largest resident memory of a single process, in MB, as the kernel keeps it, by its program's name.
    """

    wall: float
    cpu: float
    peak: float
    processes: Mapping[str, float] = field(default_factory=dict)

    def after(self, other: Cost) -> Cost:
        """What both took, one after the other."""
        names = {**other.processes, **self.processes}
        processes = {name: max(other.processes.get(name, 0), self.processes.get(name, 0)) for name in names}
        return Cost(self.wall + other.wall, self.cpu + other.cpu, max(self.peak, other.peak), processes)


def median(costs: Sequence[Cost]) -> Cost:
    """The median of each figure."""
    names = {name: None for cost in costs for name in cost.processes}
    return Cost(
        statistics.median(cost.wall for cost in costs),
        statistics.median(cost.cpu for cost in costs),
        statistics.median(cost.peak for cost in costs),
        {name: statistics.median(cost.processes.get(name, 0) for cost in costs) for name in names},
    )


def whole(steps: Mapping[str, Cost]) -> Cost:
    """What all steps of a way took together."""
    first, *others = steps.values()
    for each in others:
        first = each.after(first)
    return first


def _peak(process: psutil.Process) -> float:
    """The largest resident memory that a process ever had, in MB; the present one where the kernel does not tell."""
    try:
        status = Path(f"/proc/{process.pid}/status").read_text()
    except OSError:
        return float(process.memory_info().rss) / 1e6
    lines = (line.split() for line in status.splitlines() if line.startswith("VmHWM:"))
    return next((int(words[1]) * 1024 / 1e6 for words in lines), 0.0)


def _sample(process: psutil.Process, processes: dict[str, float]) -> float:
    """Resident memory of a process and all its descendants, in MB; each one's peak goes into `processes`."""
    total = 0
    for each in [process, *process.children(recursive=True)]:
        try:
            total += each.memory_info().rss
            name, largest = each.name(), _peak(each)
            if largest > _SMALL:
                processes[name] = max(processes.get(name, 0), largest)
        except psutil.NoSuchProcess:
            continue
    return total / 1e6


def _own(process: psutil.Process) -> float:
    """Memory of a process and all its descendants, in MB; what they share, as after a fork, counts once."""
    total = 0
    for each in [process, *process.children(recursive=True)]:
        with contextlib.suppress(psutil.Error):
            total += each.memory_full_info().pss
    return total / 1e6


def cpu_seconds(process: psutil.Process) -> float:
    """Processor time of a process and of what it started, the ended included."""
    total = 0.0
    for each in [process, *process.children(recursive=True)]:
        try:
            times = each.cpu_times()
        except psutil.Error:
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total


def end(process: psutil.Process) -> None:
    """End a process and all that it started: politely, after ten seconds by force."""
    with contextlib.suppress(psutil.NoSuchProcess):
        tree = [process, *process.children(recursive=True)]
        for kill in (psutil.Process.terminate, psutil.Process.kill):
            for each in tree:
                with contextlib.suppress(psutil.NoSuchProcess):
                    kill(each)
            _, tree = psutil.wait_procs(tree, timeout=10)


def observe(
    process: psutil.Process, ended: Callable[[], bool], limit: float, look: Callable[[], object] = lambda: None
) -> Cost:
    """What a process that is up takes until something has ended; its memory is looked at once a second.

    Args:
        process: measured with all that it started.
        ended: asked once a second.
        limit: seconds to wait.
        look: called five times a second.

    Raises:
        TimeoutError: it has not ended within the limit.
    """
    started, before, peak = time.monotonic(), cpu_seconds(process), 0.0
    asked = started
    while time.monotonic() - asked < 1 or not ended():
        if time.monotonic() - asked >= 1:
            asked, peak = time.monotonic(), max(peak, _own(process))
        if asked - started > limit:
            raise TimeoutError(f"not ended after {limit:.0f} s")
        look()
        time.sleep(0.2)
    return Cost(time.monotonic() - started, cpu_seconds(process) - before, peak)


def measure(command: Sequence[str], environment: Mapping[str, str] | None = None, limit: float = 3600) -> Cost:
    """Run a command to its end and measure it.

    Args:
        command: program and arguments.
        environment: in addition to that of this process.
        limit: seconds that it may take.

    Raises:
        subprocess.CalledProcessError: it failed.
        TimeoutError: it took longer, and was killed with all that it started.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.monotonic()
    output: list[str] = []
    with subprocess.Popen(
        command,
        env={**os.environ, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as child:
        reader = threading.Thread(target=lambda: output.extend(child.stdout or ()))  # a full pipe would stop the child
        reader.start()
        tree, peak = psutil.Process(child.pid), 0.0
        processes: dict[str, float] = {}
        while child.poll() is None:
            if time.monotonic() - started > limit:
                end(tree)
                raise TimeoutError(f"{command[0]} was killed after {limit:.0f} s")
            try:
                peak = max(peak, _sample(tree, processes))
            except psutil.NoSuchProcess:
                break
            time.sleep(0.02)
        child.wait()
        wall = time.monotonic() - started
        reader.join()
    if child.returncode:
        raise subprocess.CalledProcessError(child.returncode, command, "".join(output))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(wall, cpu, peak, processes)
