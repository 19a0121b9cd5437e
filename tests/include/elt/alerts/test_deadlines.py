"""Deadlines: what a DAG gets, when Airflow's scheduler takes them as missed, and what is told then."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from include.elt.alerts import deadlines, run
from include.elt.alerts.deadlines import Promise, RunQueued, keep_fresh, run_deadline, span
from include.elt.paths import ROOT
from tests.support.receiver import Receiver, receiving

HOUR = 3600


@dataclass
class Dag:
    """As much of a DAG as has deadlines."""

    deadline: Any = field(default_factory=list)


@pytest.fixture
def processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process is one that reads DAG files for the scheduler."""
    monkeypatch.setenv(deadlines.PROCESS_CONTEXT, "client")


def test_only_the_dag_processor_makes_deadlines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(deadlines.PROCESS_CONTEXT, raising=False)
    dag = Dag()
    keep_fresh(dag, {"raw.a": Promise("a.load", "sales", HOUR)})

    assert run_deadline(timedelta(hours=1)) is None
    assert dag.deadline == []


@pytest.mark.usefixtures("processor")
def test_tables_with_one_limit_share_a_deadline_whoever_declares_them() -> None:
    dag = Dag([run_deadline(timedelta(hours=2))])
    keep_fresh(dag, {"raw.b": Promise("b.load", "sales", HOUR), "raw.a": Promise("a.load", "shop", 2 * HOUR)})
    keep_fresh(dag, {"marts.b": Promise("dbt.b", "data", HOUR)})

    first, *tables = dag.deadline
    assert isinstance(first.reference, RunQueued)
    assert [(each.reference.tables, each.interval) for each in tables] == [
        (("marts.b", "raw.b"), timedelta(hours=1)),
        (("raw.a",), timedelta(hours=2)),
    ]
    assert tables[0].callback.kwargs["tables"] == {"marts.b": ["dbt.b", "data"], "raw.b": ["b.load", "sales"]}


def test_a_span_reads_as_people_say_it() -> None:
    said = [span(seconds) for seconds in (45, 60, 5400, 36 * HOUR, 48 * HOUR, 5 * 24 * HOUR)]

    assert said == ["45 seconds", "1 minute", "90 minutes", "36 hours", "48 hours", "5 days"]


@pytest.mark.slow
def test_the_scheduler_finds_the_table_that_is_late_first(migrated_home: Path, tmp_path: Path) -> None:
    """In a process of its own, on a real metadata database, through Airflow's own code that stores a deadline."""
    home = tmp_path / "home"
    shutil.copytree(migrated_home, home)
    result = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("evaluate_deadlines.py"))],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
        | {
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
            "PYTHONPATH": str(ROOT),
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    hours = json.loads(result.stdout.splitlines()[-1])

    assert hours["never loaded"] == 36.0, "from when the run is made"
    assert hours["loaded 10 h and 20 h ago"] == 16.0, "the older one is late first"
    assert hours["the older one is late already"] == 26.0, "it was told before"
    assert hours["all are late already"] is None
    assert hours["a run goes on that has the deadline"] is None
    assert hours["a failed run has it"] == 26.0
    assert hours["left of the failed run"] == 0, "the new run takes it over"
    assert hours["of other tables"] == 1, "it is left alone"
    assert hours["run queued"] == 2.0


class StandInForTheTriggerer:
    """Answers the question for states of tasks as Airflow's triggerer does, without one."""

    def __init__(self, states: Mapping[str, str]) -> None:
        self.states = states

    async def asend(self, question: Any) -> Any:
        return SimpleNamespace(
            task_states={question.run_ids[0]: {task: self.states[task] for task in question.task_ids}}
        )


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    with receiving() as running:
        monkeypatch.setenv("ALERTS", "webhook:alerts")
        monkeypatch.setenv("AIRFLOW_CONN_ALERTS", json.dumps({"conn_type": "http", "host": running.url}))
        yield running


TABLES = {"raw.orders": ["shop.orders.load", "sales"], "marts.orders": ["dbt.orders", "data"]}


def missed(monkeypatch: pytest.MonkeyPatch, **states: str) -> None:
    """Call back as Airflow does."""
    from airflow.sdk.execution_time import task_runner

    found = {"shop.orders.load": states["load"], "dbt.orders": states["mart"]}
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", StandInForTheTriggerer(found), raising=False)
    context = {"dag_run": {"dag_id": "shop", "dag_run_id": "manual__1", "state": "failed"}}
    asyncio.run(run.tell_late_tables(TABLES, 36 * HOUR, context=context))


def test_all_that_is_late_is_one_message(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    missed(monkeypatch, load="failed", mart="upstream_failed")

    [body] = receiver.bodies
    assert (body["kind"], body["subject"], body["owner"]) == ("missed deadline", "2 tables", "data, sales")
    assert "more than 36 hours, which is how old it may be: raw.orders, marts.orders" in body["text"]


def test_what_the_run_has_made_is_not_told(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    missed(monkeypatch, load="success", mart="failed")
    missed(monkeypatch, load="success", mart="success")

    [body] = receiver.bodies
    assert (body["subject"], body["task_id"]) == ("marts.orders", "dbt.orders")


def test_a_table_can_be_silenced_by_its_name(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    from include.elt.alerts.silences import Silence

    silence = Silence(until="9999-12-31", reason="of a test", kind="missed deadline", subject="raw.*")  # type: ignore[arg-type]
    monkeypatch.setattr(run, "read_silences", lambda: [silence])
    missed(monkeypatch, load="failed", mart="failed")

    [body] = receiver.bodies
    assert body["subject"] == "marts.orders"
