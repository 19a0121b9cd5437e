"""The commands as a person starts them, with a real Airflow on a small folder of DAGs."""

import os
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from include.elt.paths import ROOT

pytestmark = pytest.mark.slow

DAGS = """
import os, subprocess, time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from airflow.sdk import DAG, Asset, task, task_group

common = {"schedule": "@daily", "start_date": datetime(2026, 1, 1), "catchup": False, "max_active_runs": 1}

with DAG("tiny", **common):

    @task_group
    def orders():
        @task
        def extract():
            return 3

        @task(outlets=[Asset("raw.orders")], pool="warehouse")
        def load(rows, *, outlet_events):
            outlet_events[Asset("raw.orders")].extra = {
                "stream": "orders", "table": "raw.orders", "mode": "full-refresh", "rows_read": rows,
                "rows_loaded": rows, "rows_rejected": 0, "bytes": 17, "seconds": 0.1, "watermark": None,
            }

        load(extract())

    orders()

with DAG("failing", **common):

    @task
    def wrong():
        raise ValueError("row 12 is not a number")

    wrong()

with DAG("long", **common):

    @task(retries=1, retry_delay=timedelta(seconds=1))
    def wait(folder):
        child = subprocess.Popen(["sleep", "600"], process_group=0)
        Path(folder, "started").write_text(f"{os.getpid()} {child.pid}")
        while not Path(folder, "go").exists():
            time.sleep(0.1)
        child.kill()

    wait("{{ dag_run.conf['folder'] }}")
"""


def until(condition: Callable[[], object], seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not come true"
        time.sleep(0.1)


class Command:
    """A command that was started, and every process that belongs to it."""

    def __init__(self, place: Path, *arguments: str, **environ: str) -> None:
        (place / "plugins").mkdir(exist_ok=True)
        self.output_file = place / f"{time.monotonic_ns()}.out"
        clean = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
        with self.output_file.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "include.elt.local", *arguments],
                cwd=ROOT,
                env=clean
                | {
                    "AIRFLOW_HOME": str(place / "home"),
                    "AIRFLOW__CORE__DAGS_FOLDER": str(place / "dags"),
                    "AIRFLOW__CORE__PLUGINS_FOLDER": str(place / "plugins"),
                    "AIRFLOW__CORE__PARALLELISM": "2",
                    "DUCKDB_PATH": str(place / "warehouse.duckdb"),
                    "LAKE": str(place / "lake"),
                    "ARTIFACTS": str(place / "artifacts"),
                }
                | environ,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.family: set[psutil.Process] = set()

    @property
    def output(self) -> str:
        return self.output_file.read_text()

    def look_around(self) -> set[psutil.Process]:
        """Remember all descendants, and what shares a session with them."""
        self.family |= set(psutil.Process(self.process.pid).children(recursive=True))
        found = {os.getsid(process.pid) for process in self.family if process.is_running()}
        for pid in psutil.pids():
            with suppress(OSError, psutil.Error):
                if os.getsid(pid) in found and pid != self.process.pid:
                    self.family.add(psutil.Process(pid))
        return self.family

    def alive(self) -> list[str]:
        """What is still there of it."""
        left = []
        for process in self.family:
            with suppress(psutil.Error):
                if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                    left.append(f"{process.pid} {' '.join(process.cmdline())}")
        return left

    def wait(self, seconds: float = 120) -> int:
        return self.process.wait(seconds)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of DAGs and an AIRFLOW_HOME that the tests of this file share, one after the other."""
    folder = tmp_path_factory.mktemp("airflow")
    (folder / "dags").mkdir()
    (folder / "dags" / "small.py").write_text(textwrap.dedent(DAGS))
    return folder


@pytest.fixture
def start(place: Path) -> Iterator[Callable[..., Command]]:
    commands = []

    def begin(*arguments: str, **environ: str) -> Command:
        commands.append(Command(place, *arguments, **environ))
        return commands[-1]

    yield begin
    for command in commands:
        if command.process.poll() is None:
            command.process.terminate()
            command.wait(30)


@pytest.fixture
def conf(tmp_path: Path) -> str:
    return f'{{"folder": "{tmp_path}"}}'


def rows(place: Path, query: str, *values: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(place / "home" / "airflow.db")) as connection:
        return connection.execute(query, values).fetchall()


def runs(place: Path) -> set[object]:
    """Ids of all runs so far."""
    if not (place / "home" / "airflow.db").exists():
        return set()
    return {run_id for (run_id,) in rows(place, "select run_id from dag_run")}


def paused(place: Path, dag_id: str) -> object:
    return rows(place, "select is_paused from dag where dag_id = ?", dag_id)[0][0]


def test_a_run_that_succeeds(place: Path, start: Callable[..., Command]) -> None:
    before = (
        {run for (run,) in rows(place, "select run_id from dag_run")} if (place / "home/airflow.db").exists() else set()
    )
    run = start("run", "--dag", "tiny")
    until(lambda: "run manual" in run.output or run.process.poll() is not None)
    run.look_around()
    assert run.wait() == 0, run.output
    until(lambda: not run.alive(), 5)
    assert "2/2 ok orders.load" in run.output
    stream = next(line for line in run.output.splitlines() if line.split()[:2] == ["orders", "ok"])
    assert stream.split() == ["orders", "ok", "full-refresh", "3", "0", "17", "0.10"]
    assert run.output.splitlines()[-1].startswith("run success, ")
    assert len(runs(place) - before) == 1, "a scheduled run besides the one that was asked for"
    assert paused(place, "tiny"), "its schedule would begin with the next start"
    open_files = [
        file for file in (place / "home").iterdir() if file.is_file() and stat.S_IMODE(file.stat().st_mode) & 0o077
    ]
    assert [file.name for file in open_files if file.name != "migrated.json"] == []


def test_a_run_that_fails_says_why(start: Callable[..., Command]) -> None:
    run = start("run", "--dag", "failing")
    assert run.wait() == 1, run.output
    assert "1/1 FAILED wrong" in run.output
    assert "ValueError: row 12 is not a number" in run.output
    assert "task_id=wrong/attempt=1.log" in run.output
    assert run.output.splitlines()[-1].startswith("run failed, ")


@pytest.mark.parametrize(("how", "code"), [(signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_a_command_that_is_stopped_in_mid_task_leaves_nothing(
    place: Path, start: Callable[..., Command], conf: str, tmp_path: Path, how: signal.Signals, code: int
) -> None:
    run = start("run", "--dag", "long", "--conf", conf)
    until((tmp_path / "started").exists)
    until(lambda: len((tmp_path / "started").read_text().split()) == 2)
    run.look_around()
    workers = {int(pid) for pid in (tmp_path / "started").read_text().split()}
    assert workers <= {process.pid for process in run.family}
    assert len({os.getsid(process.pid) for process in run.family}) > 3
    ours = {connection.laddr.ip for process in run.family for connection in listening(process)}
    assert ours == {"127.0.0.1"}
    run.process.send_signal(how)
    assert run.wait(30) == code, run.output
    until(lambda: not run.alive(), 15)
    if how is signal.SIGTERM:
        assert rows(place, "select state from dag_run where dag_id = 'long' and state in ('running', 'queued')") == []
        assert paused(place, "long")
    else:
        assert (place / "home" / "unpaused_by_run").read_text() == "long", "the next start would not pause it again"


def listening(process: psutil.Process) -> list[Any]:
    with suppress(psutil.Error):
        return [each for each in process.net_connections("inet") if each.status == psutil.CONN_LISTEN]
    return []


def test_a_scheduler_that_is_killed_in_mid_task_does_not_cost_the_run(
    place: Path, start: Callable[..., Command], conf: str, tmp_path: Path
) -> None:
    run = start("run", "--dag", "long", "--conf", conf)
    until((tmp_path / "started").exists)
    scheduler = [
        process for process in run.look_around() if process.cmdline()[:2] == ["airflow scheduler --skip-serve-logs"]
    ]
    scheduler = scheduler or [
        each for each in run.family if " ".join(each.cmdline()).strip().startswith("airflow scheduler")
    ]
    scheduler[0].kill()
    until(lambda: "scheduler ended (signal 9), starting it again" in run.output)
    (tmp_path / "go").touch()
    until(lambda: run.process.poll() is not None or not run.look_around())
    assert run.wait() == 0, run.output
    until(lambda: not run.alive(), 5)
    assert "1/1 ok wait" in run.output
    assert "try 2" not in run.output


def test_up_serves_this_computer_only_and_one_command_at_a_time(place: Path, start: Callable[..., Command]) -> None:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    up = start("up", AIRFLOW_PORT=str(port))
    until(lambda: "Ctrl-C stops it" in up.output or up.process.poll() is not None)
    assert up.process.poll() is None, up.output
    up.look_around()
    url = f"http://127.0.0.1:{port}"
    assert url in up.output
    assert httpx.get(url, follow_redirects=True).status_code == 200
    words = up.output.split()
    login = {"username": words[words.index("user") + 1], "password": words[words.index("password") + 1]}
    assert httpx.post(f"{url}/auth/token", json=login).status_code == 201
    assert httpx.post(f"{url}/auth/token", json=login | {"password": "wrong"}).status_code == 401
    assert httpx.get(f"{url}/api/v2/dags").status_code == 401
    health = httpx.get(f"{url}/api/v2/monitor/health").json()
    assert {part["status"] for part in health.values()} == {"healthy"}
    assert {each.laddr.ip for process in up.family for each in listening(process)} == {"127.0.0.1"}

    second = start("run", "--dag", "tiny")
    assert second.wait(30) == 2
    assert f"process {up.process.pid} is using" in second.output
    assert len(second.output.splitlines()) == 1
    test = start("airflow", "dags", "test", "tiny")
    assert test.wait(30) == 2
    assert f"process {up.process.pid} runs Airflow" in test.output

    up.process.send_signal(signal.SIGINT)
    assert up.wait(30) == 130
    until(lambda: not up.alive(), 5)


def test_any_airflow_command_has_the_same_environment(place: Path, start: Callable[..., Command]) -> None:
    version = start("airflow", "config", "get-value", "core", "dags_folder")
    assert version.wait() == 0, version.output
    assert version.output.strip().splitlines()[-1] == str(place / "dags")
