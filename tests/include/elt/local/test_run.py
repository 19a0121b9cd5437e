"""The run command against a made-up Airflow: what it waits for, what it says, how it ends."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from include.elt.local import run as run_module
from include.elt.local import signals
from include.elt.local.__main__ import main
from include.elt.local.environment import Home, Keys
from include.elt.local.progress import Task
from include.elt.local.run import TaskOrder
from include.elt.local.server import Airflow

NOW = "2999-01-01T00:00:00Z"


class FakeRun:
    def __init__(self, airflow: "FakeClient", dag_id: str, run_id: str) -> None:
        self.airflow, self.dag_id, self.run_id = airflow, dag_id, run_id

    def state(self) -> str:
        state = self.airflow.states.pop(0) if len(self.airflow.states) > 1 else self.airflow.states[0]
        if isinstance(state, BaseException):
            raise state
        return state

    def fail(self) -> None:
        self.airflow.done.append(f"fail {self.run_id}")

    def tasks(self) -> list[dict[str, Any]]:
        return self.airflow.instances

    def log(self, task_id: str, try_number: int, map_index: int = -1) -> list[dict[str, Any]]:
        return [{"event": f"why {task_id} failed", "level": "error"}]

    def asset_events(self) -> list[dict[str, Any]]:
        return []


class FakeClient:
    """An Airflow in which `states` are what a run answers one after the other; `done` is what it was told to do."""

    def __init__(self) -> None:
        self.known: dict[str, Any] | None = {"last_parsed_time": NOW, "is_paused": True, "fileloc": "/dags/d.py"}
        self.errors: list[dict[str, Any]] = []
        self.unfinished: list[str] = []
        self.states: list[Any] = ["running", "success"]
        self.instances = [{"task_id": "a", "state": "success", "try_number": 1, "duration": 1.0, "map_index": -1}]
        self.done: list[str] = []

    def dag(self, dag_id: str) -> dict[str, Any] | None:
        return self.known

    def dags(self) -> list[dict[str, Any]]:
        return [{"dag_id": "other", "last_parsed_time": NOW}]

    def import_errors(self) -> list[dict[str, Any]]:
        return self.errors

    def unfinished_runs(self, dag_id: str) -> list[str]:
        return self.unfinished

    def tasks(self, dag_id: str) -> list[dict[str, Any]]:
        return [{"task_id": "a", "downstream_task_ids": []}]

    def pause(self, dag_id: str, paused: bool) -> None:
        self.done.append(f"paused {paused}")

    def trigger(self, dag_id: str, conf: dict[str, Any]) -> str:
        self.done.append(f"trigger {conf}")
        return "manual__1"

    def run(self, dag_id: str, run_id: str) -> FakeRun:
        return FakeRun(self, dag_id, run_id)


class FakeSupervisor:
    def check(self) -> None:
        pass

    def log(self, name: str) -> Path:
        return Path(f"/logs/{name}.log")


@pytest.fixture
def airflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeClient:
    client = FakeClient()
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("AIRFLOW__CORE__DAGS_FOLDER", str(tmp_path))
    monkeypatch.setenv("DUCKDB_PATH", str(tmp_path / "w.duckdb"))
    monkeypatch.setenv("ARTIFACTS", str(tmp_path / "artifacts"))
    monkeypatch.setattr(run_module, "POLL", 0.01)
    monkeypatch.setattr(run_module, "SETTLED", 0.3)

    @contextmanager
    def running(home: Home, keys: Keys, *_: object, **__: object) -> Iterator[Airflow]:
        yield Airflow(home, "http://test", client, FakeSupervisor(), datetime.now(UTC))  # type: ignore[arg-type]

    monkeypatch.setattr(run_module, "running_airflow", running)
    return client


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    def call(*arguments: str) -> tuple[int, str]:
        code = main(["run", *arguments])
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    return call


def test_success(airflow: FakeClient, command: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    code, output = command("--conf", '{"x": 1}')
    assert code == 0
    assert "1/1 ok a 1.0s" in output
    assert output.splitlines()[-1].startswith("run success, ")
    assert airflow.done == ["paused False", "trigger {'x': 1}", "paused True"]
    assert not (tmp_path / "home" / "unpaused_by_run").exists()


def test_failure(airflow: FakeClient, command: Callable[..., tuple[int, str]]) -> None:
    airflow.states = ["failed"]
    airflow.instances = [
        {"task_id": f"t{n}", "state": "failed", "try_number": 1, "duration": 1.0, "map_index": -1} for n in range(7)
    ]
    code, output = command()
    assert code == 1
    assert "why t0 failed" in output
    assert "t6 failed too; log: " in output
    assert output.splitlines()[-1].startswith("run failed, ")
    assert "fail manual__1" not in airflow.done


def test_a_dag_that_the_user_has_unpaused_stays_so(
    airflow: FakeClient, command: Callable[..., tuple[int, str]]
) -> None:
    assert airflow.known is not None
    airflow.known["is_paused"] = False
    assert command()[0] == 0
    assert airflow.done == ["trigger {}"]


def test_a_run_that_takes_too_long_is_given_up(airflow: FakeClient, command: Callable[..., tuple[int, str]]) -> None:
    airflow.states = ["running"]
    code, output = command("--timeout", "0.05")
    assert code == 1
    assert "given up after 0 s (--timeout)" in output
    assert airflow.done[-2:] == ["fail manual__1", "paused True"]


@pytest.mark.parametrize(("number", "code"), [(2, 130), (15, 143)])
def test_a_signal_gives_the_run_up(
    airflow: FakeClient, command: Callable[..., tuple[int, str]], number: int, code: int
) -> None:
    airflow.states = ["running", signals.Interrupted(number)]
    assert command()[0] == code
    assert airflow.done[-2:] == ["fail manual__1", "paused True"]


def test_an_api_that_is_away_for_a_moment_does_not_matter(
    airflow: FakeClient, command: Callable[..., tuple[int, str]]
) -> None:
    airflow.states = [httpx.ConnectError("refused"), "success"]
    assert command()[0] == 0


def test_a_run_of_an_interrupted_command_is_given_up_first(
    airflow: FakeClient, command: Callable[..., tuple[int, str]]
) -> None:
    airflow.unfinished = ["manual__0"]
    code, output = command()
    assert code == 0
    assert airflow.done[0] == "fail manual__0"
    assert "run manual__0 of an earlier command" in output


def test_a_broken_dag_file_is_shown_at_once(
    airflow: FakeClient, command: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "SETTLED", 600)
    airflow.known = {"last_parsed_time": "2020-01-01T00:00:00Z", "is_paused": True, "fileloc": "/dags/d.py"}
    airflow.errors = [{"filename": "d.py", "timestamp": NOW, "stack_trace": "ImportError: no such thing\n"}]
    started = time.monotonic()
    code, output = command()
    assert code == 2
    assert "d.py cannot be imported:\nImportError: no such thing" in output
    assert time.monotonic() - started < 30


def test_an_error_of_an_earlier_airflow_does_not_count(
    airflow: FakeClient, command: Callable[..., tuple[int, str]]
) -> None:
    airflow.errors = [{"filename": "d.py", "timestamp": "2020-01-01T00:00:00Z", "stack_trace": "old"}]
    assert command()[0] == 0


def test_a_dag_that_is_not_there_is_named_with_those_that_are(
    airflow: FakeClient, command: Callable[..., tuple[int, str]]
) -> None:
    airflow.known = None
    code, output = command("--dag", "nope")
    assert code == 2
    assert f"there is no DAG nope in {os.environ['AIRFLOW__CORE__DAGS_FOLDER']}; there are other" in output


def test_a_refused_setting_is_printed_as_it_is(
    airflow: FakeClient, command: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EXTRACT_SLOTS", "many")
    code, output = command()
    assert code == 2
    assert output.startswith("EXTRACT_SLOTS='many' is refused")


@pytest.mark.parametrize("conf", ["{", "[1]"])
def test_a_conf_that_is_no_object_is_refused(
    airflow: FakeClient, capsys: pytest.CaptureFixture[str], conf: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["run", "--conf", conf])
    assert ended.value.code == 2
    assert "--conf" in capsys.readouterr().err
    assert airflow.done == []


def test_tasks_come_in_the_order_in_which_they_run() -> None:
    class Edges:
        def tasks(self, dag_id: str) -> list[dict[str, Any]]:
            edges = {"shop.a.extract": ["shop.a.load"], "shop.a.load": ["dbt.m.run"], "dbt.m.run": ["dbt.m.test"]}
            return [
                {"task_id": task, "downstream_task_ids": edges.get(task)}
                for task in ("dbt.m.test", "dbt.m.run", "shop.a.load", "shop.a.extract")
            ]

    order = TaskOrder(Edges(), "d")  # type: ignore[arg-type]
    tasks = [Task(name) for name in ("dbt.m.run", "dbt.m.test", "shop.a.load", "shop.a.extract")]
    assert [task.id for task in order.sorted(tasks)] == ["shop.a.extract", "shop.a.load", "dbt.m.run", "dbt.m.test"]
