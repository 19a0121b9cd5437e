"""Real processes, small ones: what is started is ended, whatever happens to whom."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from include.elt.local import sessions, signals
from include.elt.local.components import Component, execute
from include.elt.local.errors import StartError
from include.elt.local.supervisor import MAX_RESTARTS, Supervisor

STUBBORN = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
sleep = [sys.executable, "-c", "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"]
subprocess.Popen(sleep, process_group=0)
if os.fork() == 0:
    os.setpgid(0, 0)
    time.sleep(600)
print("ready", flush=True)
time.sleep(600)
"""
"""A component with a child in another process group and a fork in a third; none of them heeds a SIGTERM."""


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def supervise(tmp_path: Path, told: list[str]) -> Iterator[Callable[..., Supervisor]]:
    entered: list[Supervisor] = []

    def start(script: str, clear_up: Callable[[int], None] | None = None) -> Supervisor:
        options = {"clear_up": clear_up} if clear_up else {}
        component = Component("part", execute(sys.executable, "-c", script), **options)
        supervisor = Supervisor([component], tmp_path, told.append).__enter__()
        entered.append(supervisor)
        supervisor.start()
        return supervisor

    yield start
    for supervisor in entered:
        supervisor.__exit__(None, None, None)


def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not come true"
        time.sleep(0.05)


def said(supervisor: Supervisor, word: str) -> Callable[[], bool]:
    return lambda: supervisor.log("part").exists() and word in supervisor.log("part").read_text()


def test_grandchildren_in_other_groups_are_ended(supervise: Callable[..., Supervisor]) -> None:
    supervisor = supervise(STUBBORN)
    until(said(supervisor, "ready"))
    until(lambda: len(sessions.members(supervisor.sessions)) == 3)
    processes = sessions.members(supervisor.sessions)
    assert len({os.getpgid(process.pid) for process in processes}) == 3
    supervisor.stop()
    assert sessions.members(supervisor.sessions) == []
    assert not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in processes)


def test_tasks_report_before_the_rest_ends(tmp_path: Path) -> None:
    """The one that runs tasks needs the other, as a scheduler's tasks need the API."""
    server = f"""
import time
from pathlib import Path
while True:
    Path({str(tmp_path / "beat")!r}).write_text("alive")
    time.sleep(0.05)
"""
    worker = f"""
import signal, sys, time
from pathlib import Path
def report(*_):
    time.sleep(0.5)
    age = time.time() - Path({str(tmp_path / "beat")!r}).stat().st_mtime
    Path({str(tmp_path / "report")!r}).write_text("heard" if age < 0.3 else "nobody there")
    sys.exit()
signal.signal(signal.SIGTERM, report)
print("ready", flush=True)
time.sleep(600)
"""
    components = [
        Component("server", execute(sys.executable, "-c", server)),
        Component("part", execute(sys.executable, "-c", worker), runs_tasks=True),
    ]
    with Supervisor(components, tmp_path, print) as supervisor:
        supervisor.start()
        until(said(supervisor, "ready"))
        until((tmp_path / "beat").exists)
    assert (tmp_path / "report").read_text() == "heard"


def test_a_component_that_dies_is_started_again(supervise: Callable[..., Supervisor], told: list[str]) -> None:
    supervisor = supervise(STUBBORN)
    until(said(supervisor, "ready"))
    first = supervisor.pids()["part"]
    left = [each.pid for each in sessions.members({first}) if each.pid != first]
    os.kill(first, signal.SIGKILL)
    until(lambda: psutil.Process(first).status() == psutil.STATUS_ZOMBIE)
    supervisor.check()
    assert supervisor.pids()["part"] != first
    assert told == ["part ended (signal 9), starting it again"]
    assert not any(psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE for pid in left)
    assert first not in supervisor.sessions, "its number may come back as somebody else's"


def test_what_a_dead_scheduler_leaves_working_goes_on(supervise: Callable[..., Supervisor]) -> None:
    script = """
import subprocess, sys, time
for title in ("airflow worker -- <idle>", "airflow worker -- a task"):
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", title])
print("ready", flush=True)
time.sleep(600)
"""
    supervisor = supervise(script, sessions.end_idle_workers)
    until(said(supervisor, "ready"))
    first = supervisor.pids()["part"]
    os.kill(first, signal.SIGKILL)
    until(lambda: psutil.Process(first).status() == psutil.STATUS_ZOMBIE)
    supervisor.check()
    until(lambda: len(sessions.members({first})) == 1)
    assert sessions.members({first})[0].cmdline()[-1] == "airflow worker -- a task"
    supervisor.stop()
    assert sessions.members({first}) == []


def test_a_component_that_dies_again_and_again_is_given_up(
    supervise: Callable[..., Supervisor], told: list[str]
) -> None:
    supervisor = supervise("print('no disk'); raise SystemExit(3)")

    def given_up() -> bool:
        supervisor.check()
        return False

    with pytest.raises(StartError, match=rf"part ended {MAX_RESTARTS + 1} times \(no disk\); see .*part\.log"):
        until(given_up)
    assert told == ["part ended (exit code 3), starting it again"] * MAX_RESTARTS


def test_a_log_begins_anew_with_each_command(supervise: Callable[..., Supervisor], tmp_path: Path) -> None:
    (tmp_path / "part.log").write_text("from last week")
    supervisor = supervise("print('today', flush=True); import time; time.sleep(600)")
    until(said(supervisor, "today"))
    assert "last week" not in supervisor.log("part").read_text()


COMMAND = """
import sys, time
from pathlib import Path
from include.elt.local import signals
from include.elt.local.components import Component, execute
from include.elt.local.supervisor import Supervisor

folder = Path(sys.argv[1])
component = Component("part", execute(sys.executable, "-c", (folder / "part.py").read_text()))
try:
    with signals.as_exceptions(), Supervisor([component], folder, print) as supervisor:
        supervisor.start()
        while "ready" not in supervisor.log("part").read_text():
            time.sleep(0.05)
        print(*supervisor.sessions, flush=True)
        if sys.argv[2] == "end":
            raise SystemExit(0)
        if sys.argv[2] == "error":
            raise ValueError("an error")
        time.sleep(600)
except signals.Interrupted as interrupted:
    raise SystemExit(interrupted.exit_code)
"""


@pytest.mark.parametrize(
    ("how", "code"),
    [
        ("end", 0),
        ("error", 1),
        (signal.SIGINT, 130),
        (signal.SIGTERM, 143),
        (signal.SIGHUP, 129),
        (signal.SIGKILL, -9),
    ],
)
def test_nothing_is_left_whatever_ends_the_command(tmp_path: Path, how: str | signal.Signals, code: int) -> None:
    (tmp_path / "part.py").write_text(STUBBORN)
    command = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(COMMAND), str(tmp_path), str(how)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    assert command.stdout is not None
    watched = {int(word) for word in command.stdout.readline().split()}
    assert len(watched) == 1
    guard = [child for child in psutil.Process(command.pid).children() if "include.elt.local.guard" in child.cmdline()]
    assert len(guard) == 1
    if isinstance(how, signal.Signals):
        assert len(sessions.members(watched)) == 3
        command.send_signal(how)
    assert command.wait(20) == code
    until(lambda: not sessions.members(watched), 15)
    until(lambda: not guard[0].is_running() or guard[0].status() == psutil.STATUS_ZOMBIE)


def test_a_signal_waits_until_what_was_started_is_noted() -> None:
    noted: list[str] = []

    def start_something() -> None:
        with signals.as_exceptions():
            with signals.held():
                os.kill(os.getpid(), signal.SIGTERM)
                noted.append("started")
            noted.append("the signal was lost")

    with pytest.raises(signals.Interrupted) as interrupted:
        start_something()
    assert noted == ["started"]
    assert interrupted.value.exit_code == 143


def test_a_second_signal_does_not_interrupt_the_cleaning_up() -> None:
    cleaned: list[bool] = []

    def work() -> None:
        with signals.as_exceptions():
            try:
                os.kill(os.getpid(), signal.SIGTERM)
            finally:
                os.kill(os.getpid(), signal.SIGTERM)
                cleaned.append(True)

    with pytest.raises(signals.Interrupted):
        work()
    assert cleaned


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals.as_exceptions():
            os.kill(os.getpid(), signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
