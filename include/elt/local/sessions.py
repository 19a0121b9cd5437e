"""Ending whole sessions of processes.

Each component of Airflow leads a session of its own. Its tasks sit in other process groups and outlive their parent,
but the session stays the same for all of them, and for what they start in turn.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Collection, Iterable

import psutil

IDLE_WORKER = "<idle>"
"""What a LocalExecutor worker without a task has in its title."""

_POLL = 0.05


def members(sessions: Collection[int]) -> list[psutil.Process]:
    """The live processes of these sessions."""
    found = []
    for pid in psutil.pids():
        try:
            if os.getsid(pid) in sessions:
                process = psutil.Process(pid)
                if process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        except (OSError, psutil.Error):
            continue  # gone in the meantime, or not ours
    return found


def send(processes: Iterable[psutil.Process], number: signal.Signals) -> None:
    """Signal processes; those that are gone do not matter."""
    for process in processes:
        try:
            process.send_signal(number)
        except psutil.Error:
            continue


def end(sessions: Collection[int], grace: float, kill_wait: float = 5.0) -> list[int]:
    """End every process of these sessions: ask, wait, then kill.

    Args:
        sessions: session ids.
        grace: seconds between the request and the kill.
        kill_wait: seconds to wait for the killed ones to be gone.

    Returns:
        The process ids that are still there, which are in an uninterruptible wait of the kernel.
    """
    for number, seconds in ((signal.SIGTERM, grace), (signal.SIGKILL, kill_wait)):
        left = members(sessions)
        send(left, number)
        deadline = time.monotonic() + seconds
        while left and time.monotonic() < deadline:
            time.sleep(_POLL)
            left = members(sessions)
            if number is signal.SIGKILL:
                send(left, number)  # what was forked after the list was made
    return [process.pid for process in left]


def end_idle_workers(session: int) -> None:
    """End what a killed scheduler leaves idle. Workers with a task go on: they report to the API by themselves."""
    for process in members({session}):
        try:
            if process.pid == session or IDLE_WORKER in " ".join(process.cmdline()):
                process.kill()
        except psutil.Error:
            continue
