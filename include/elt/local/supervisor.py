"""Starting the components, starting them again when they die, and leaving nothing behind."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from include.elt.local import sessions, signals
from include.elt.local.components import Component, Started
from include.elt.local.errors import StartError
from include.elt.local.guard import Guard
from include.elt.paths import shown

MAX_RESTARTS = 5
"""Restarts of one component within `RESTART_WINDOW` before we give up on it."""

RESTART_WINDOW = 600.0
"""Seconds."""

TASK_GRACE = 5.0
"""Seconds that running tasks have to clean up and to report."""

GRACE = 1.0
"""Seconds that everything else has to end by itself; the metadata database survives a kill."""


class Supervisor:
    """The components of one command. A context manager: left in whatever way, no process is left.

    Args:
        components: what to run.
        logs: folder for what they print, one file each.
        tell: prints a line for the user.
    """

    def __init__(self, components: Sequence[Component], logs: Path, tell: Callable[[str], None]) -> None:
        self._components = {component.name: component for component in components}
        self._logs = logs
        self._tell = tell
        self._guard: Guard | None = None
        self._running: dict[str, Started] = {}
        self._sessions: set[int] = set()
        self._task_sessions: set[int] = set()
        self._restarts: defaultdict[str, deque[float]] = defaultdict(deque)

    def __enter__(self) -> Self:
        with signals.held():
            self._guard = Guard()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with signals.held():
            self.stop()
            if self._guard is not None:
                self._guard.__exit__(kind, error, trace)

    @property
    def sessions(self) -> frozenset[int]:
        """Sessions of everything that was started."""
        return frozenset(self._sessions)

    def pids(self) -> dict[str, int]:
        """Process ids of the components."""
        return {name: process.pid for name, process in self._running.items()}

    def log(self, name: str) -> Path:
        """The file with what a component prints."""
        return self._logs / f"{name}.log"

    def start(self) -> None:
        """Start all components, with new log files."""
        for name in self._components:
            self.log(name).unlink(missing_ok=True)
            self._launch(name)

    def watch(self, session: int) -> None:
        """End this session too, whatever happens. For a process that is started next to the components."""
        self._sessions.add(session)
        if self._guard is not None:
            self._guard.watch(session)

    def check(self) -> None:
        """Start again what has died. To be called every second or so.

        Raises:
            StartError: a component dies again and again.
        """
        for name, process in list(self._running.items()):
            code = process.poll()
            if code is None:
                continue
            restarts = self._restarts[name]
            now = time.monotonic()
            while restarts and now - restarts[0] > RESTART_WINDOW:
                restarts.popleft()
            if len(restarts) >= MAX_RESTARTS:
                raise StartError(
                    f"{name} ended {MAX_RESTARTS + 1} times{self._last_words(name)}; see {shown(self.log(name))}"
                )
            restarts.append(now)
            self._tell(f"{name} ended ({_reason(code)}), starting it again")
            self._components[name].clear_up(process.pid)
            self._forget_empty_sessions()
            self._launch(name)

    def _forget_empty_sessions(self) -> None:
        """The kernel may give the number of a session that has ended to processes which are not ours."""
        for session in [each for each in self._sessions if not sessions.members({each})]:
            self._sessions.discard(session)
            if self._guard is not None:
                self._guard.forget(session)

    def stop(self) -> None:
        """End every process of every component, those of earlier lives included."""
        running = list(self._running.values())
        self._running.clear()
        sessions.end(self._sessions & self._task_sessions, TASK_GRACE)
        left = sessions.end(self._sessions, GRACE)
        for process in running:
            process.poll()  # nobody else asks for its exit code, and it would stay as a zombie
        if left:
            self._tell(f"could not end {', '.join(map(str, left))}")

    def _launch(self, name: str) -> None:
        self._components[name].prepare()
        with signals.held():
            process = self._components[name].launch(self.log(name))
            self._running[name] = process
            if self._components[name].runs_tasks:
                self._task_sessions.add(process.pid)
            self.watch(process.pid)

    def _last_words(self, name: str) -> str:
        """The last line that a component printed, for the message."""
        try:
            lines = [line.strip() for line in self.log(name).read_text(errors="replace").splitlines() if line.strip()]
        except OSError:
            return ""
        return f" ({lines[-1][:200]})" if lines else ""


def _reason(code: int) -> str:
    """An exit code in words."""
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def wait_for(condition: Callable[[], bool], supervisor: Supervisor, seconds: float, poll: float = 0.1) -> bool:
    """Wait for something while the components are looked after.

    Returns:
        Whether it came true in time.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        supervisor.check()
        time.sleep(poll)
    return True
