"""The components of Airflow, and how each is started.

All but the API server are forked from one process that has imported Airflow, Cosmos and dbt already (a fork server of
the standard library). That costs the imports once instead of four times, in time and in memory, and a component is
started again in a second. The API server takes longest and needs other imports: it starts on its own at the same time.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Protocol

import psutil

from include.elt.local import sessions
from include.elt.paths import ROOT

PRELOAD_LOG = "preload.log"

FORKS = sys.platform == "linux"
"""Elsewhere a fork without exec is not safe once system libraries are loaded."""


class Started(Protocol):
    """A process that leads a session of its own."""

    @property
    def pid(self) -> int:
        """Process id, and id of the session."""

    def poll(self) -> int | None:
        """The exit code, or None while it runs."""


def _end_session(session: int) -> None:
    """What stays of most components is of no use."""
    sessions.end({session}, grace=0)


@dataclass(frozen=True)
class Component:
    """One component.

    Attributes:
        name: as in `airflow <name>`.
        launch: starts it, its output appended to the given file. Returns at once.
        clear_up: ends what it leaves behind when it dies, given its session.
        prepare: called before `launch`; may take its time and be interrupted.
        runs_tasks: its tasks get time to clean up and to report before anything else ends.
    """

    name: str
    launch: Callable[[Path], Started]
    clear_up: Callable[[int], None] = _end_session
    prepare: Callable[[], None] = lambda: None
    runs_tasks: bool = False


def execute(*command: str) -> Callable[[Path], Started]:
    """A launch by executing a program."""

    def launch(log: Path) -> Started:
        with log.open("ab") as stream:
            return subprocess.Popen(
                command,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    return launch


class _Forked:
    """A child of the fork server as a `Started`."""

    def __init__(self, process: BaseProcess) -> None:
        self._process = process
        assert process.pid is not None  # noqa: S101  (it was started)
        self.pid: int = process.pid

    def poll(self) -> int | None:
        return self._process.exitcode


def fork_airflow(*arguments: str) -> Callable[[Path], Started]:
    """A launch of `airflow <arguments>` as a fork of the process that has everything imported."""

    def launch(log: Path) -> Started:
        context = multiprocessing.get_context("forkserver")
        process = context.Process(target=_airflow, args=(arguments, log), name=f"airflow-{arguments[0]}")
        process.start()
        return _Forked(process)

    return launch


@contextmanager
def fork_server() -> Iterator[None]:
    """Within the block there is a fork server. It begins to import at once, in this process's environment."""
    if not FORKS:
        yield
        return
    multiprocessing.get_context("forkserver").set_forkserver_preload(["include.elt.local.preloaded"])
    forkserver.ensure_running()
    try:
        yield
    finally:
        # It would end with this process, but only after taking all that it has imported apart.
        for child in psutil.Process().children():
            with suppress(psutil.Error):
                if any("multiprocessing.forkserver" in argument for argument in child.cmdline()):
                    child.kill()
                    child.wait(5)


def _await_fork_server() -> None:
    """Wait until the fork server can fork; a signal may interrupt this, and nothing is left behind by it."""
    process = multiprocessing.get_context("forkserver").Process(target=_nothing)
    process.start()
    process.join()


def _nothing() -> None:
    """What the fork server's first child does."""


def redirect_output(log: Path) -> None:
    """Let this process read nothing and write to a file, on the level of file descriptors."""
    sys.stdout.flush()
    sys.stderr.flush()
    nothing = os.open(os.devnull, os.O_RDONLY)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(nothing, 0)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(nothing)
    os.close(descriptor)


def _airflow(arguments: Sequence[str], log: Path) -> None:
    """In the forked process: become `airflow <arguments>`."""
    os.setsid()
    redirect_output(log)
    command = multiprocessing.parent_process()
    if command is None or not command.is_alive():
        return  # killed before it could tell anyone about this process
    # A child of a fork server would start its own children in the same way, each importing everything again; and the
    # scheduler heeds a signal only in a process of this name.
    multiprocessing.set_start_method("fork", force=True)
    multiprocessing.current_process().name = "MainProcess"
    sys.argv = ["airflow", *arguments]
    from airflow.__main__ import main
    from setproctitle import setproctitle

    setproctitle(f"airflow {' '.join(arguments)}")
    main()  # type: ignore[no-untyped-call]


def airflow_components() -> list[Component]:
    """All that a run needs. No log servers: everything is on this computer, and they would listen on every address."""
    scheduler = _forked("scheduler", "--skip-serve-logs")
    return [
        Component("api-server", _execute_airflow("api-server")),
        replace(scheduler, clear_up=sessions.end_idle_workers, runs_tasks=True),
        _forked("dag-processor"),
        _forked("triggerer", "--skip-serve-logs"),
    ]


def _forked(name: str, *options: str) -> Component:
    """A component that is forked where that is possible."""
    if FORKS:
        return Component(name, fork_airflow(name, *options), prepare=_await_fork_server)
    return Component(name, _execute_airflow(name, *options))


def _execute_airflow(*arguments: str) -> Callable[[Path], Started]:
    return execute(sys.executable, "-m", "include.elt.local.launch", *arguments)
