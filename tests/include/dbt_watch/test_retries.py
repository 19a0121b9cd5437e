"""What becomes of every task and table when a build fails, flickers, is cleared, killed or cancelled.

In a real Airflow: API server, scheduler with LocalExecutor, DAG processor and triggerer. The cases share it and come
one after the other, so they are one test; it ends with a table of what was expected and what was seen.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import psutil
import pytest

from tests.support import watched
from tests.support.real_airflow import RealAirflow, real_airflow, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

DAG = "watched"
NODES = "abcde"
SLOW = 50_000_000
"""Rows that keep model e busy for more than ten seconds, also on a quick computer."""


@dataclass
class Drill:
    """The Airflow, the project, and what was seen so far."""

    airflow: RealAirflow
    folder: Path
    table: list[tuple[str, str, str]] = field(default_factory=list)

    def start(self, **conf: Any) -> str:
        self.airflow.client.pause(DAG, paused=False)
        return self.airflow.client.trigger(DAG, conf)

    def run(self, **conf: Any) -> str:
        run_id = self.start(**conf)
        self.airflow.wait(DAG, run_id)
        return run_id

    def clear(self, run_id: str, *nodes: str, downstream: bool = False) -> None:
        body = {"dry_run": False, "dag_run_id": run_id, "only_failed": False, "include_downstream": downstream}
        body |= {"task_ids": [f"dbt.{node}" for node in nodes]} if nodes else {}
        self.airflow.client.call("POST", f"/dags/{DAG}/clearTaskInstances", json=body)
        self.airflow.wait(DAG, run_id)

    def tasks(self, run_id: str) -> dict[str, dict[str, Any]]:
        return {each["task_id"].removeprefix("dbt."): each for each in self.airflow.client.run(DAG, run_id).tasks()}

    def state(self, run_id: str, task: str) -> str:
        return str(self.tasks(run_id)[task]["state"])

    def built(self) -> dict[str, datetime]:
        """When each table was built."""
        with duckdb.connect(str(self.folder / "warehouse.duckdb"), read_only=True) as connection:
            names = {name for (name,) in connection.execute("select table_name from duckdb_tables()").fetchall()}
            there = [node for node in NODES if node in names]
            return {node: connection.execute(f"select max(built_at) from {node}").fetchall()[0][0] for node in there}

    def saw(self, case: str, run_id: str, before: dict[str, datetime], expected: str) -> None:
        """Compare the run, its tasks, their tries and their tables with what is expected.

        `expected` is a word per task: `a=ok` or `a=failed`, with the number of the try if it is not the first, with `+`
        where the table was built anew.
        """
        until(lambda: self.dbt() is None, 90, "no build holds the file")
        after = self.built()
        short = {"success": "ok", "upstream_failed": "upstream", "skipped": "skipped", "failed": "failed"}
        words = [f"run={short.get(self.airflow.client.run(DAG, run_id).state(), '?')}"]
        named = {name.removeprefix("dbt_"): each for name, each in self.tasks(run_id).items()}
        for name, each in sorted(named.items()):
            tries = each["try_number"] if each["try_number"] > 1 else ""
            anew = "+" if name in after and after[name] != before.get(name) else ""
            words.append(f"{name}={short.get(each['state'], each['state'])}{tries}{anew}")
        seen = " ".join(words)
        self.table.append((case, expected, seen))

    def log(self, run_id: str, task: str) -> str:
        return "\n".join(str(each) for each in self.airflow.client.run(DAG, run_id).log(f"dbt.{task}", 1))

    def dbt(self) -> psutil.Process | None:
        """The process that builds."""
        for process in self.airflow.process.children(recursive=True):
            try:
                handles = {Path(each.path) for each in process.open_files()}
            except psutil.Error:
                continue
            if self.folder / "warehouse.duckdb" in handles:
                return process
        return None

    def in_the_slow_model(self, run_id: str) -> psutil.Process:
        """Start nothing; wait until everything but model e is done, and return the process that builds it."""
        done = set(NODES) - {"e"}
        until(
            lambda: all(each["state"] == "success" for name, each in self.tasks(run_id).items() if name in done),
            180,
            "all but the slow model are done",
        )
        process = self.dbt()
        assert process is not None, "the slow model was not slow enough"
        return process

    def component(self, name: str) -> psutil.Process:
        """One of Airflow's components."""
        for process in self.airflow.process.children(recursive=True):
            try:
                words = " ".join(process.cmdline())
            except psutil.Error:
                continue
            if words.startswith(f"airflow {name}"):
                return process
        raise AssertionError(f"no {name}")

    def slow(self, rows: int = SLOW) -> None:
        (self.folder / "slow.csv").write_text(f"n\n{rows}\n")


@pytest.fixture(scope="module")
def drill(tmp_path_factory: pytest.TempPathFactory, new_deployment: Callable[[Path], Any]) -> Iterator[Drill]:
    folder = tmp_path_factory.mktemp("watched")
    watched.write_drill(folder)
    watched.write_dag(folder)
    deployment = new_deployment(folder)
    deployment.settings |= {
        "AIRFLOW__CORE__DAGS_FOLDER": str(folder / "dags"),
        "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "12",
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "45",  # longer than the API takes to come back
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "3",
    }
    with real_airflow(deployment) as airflow:
        until(lambda: airflow.client.dag(DAG), 120, "the DAG is read")
        yield Drill(airflow, folder)


def test_every_task_and_table_is_what_dbt_says(drill: Drill) -> None:
    calm, built = lambda: watched.calm(drill.folder), drill.built

    run = drill.run()
    drill.saw("clean", run, {}, "run=ok a=ok+ b=ok+ build=ok c=ok+ d=ok+ e=ok+")
    assert "compiled SQL" in drill.log(run, "d")
    assert "d_is_good" in drill.log(run, "d")
    assert "the project was parsed ahead of time" in drill.log(run, "dbt_build"), "whatever the path of the warehouse"
    events = drill.airflow.client.run(DAG, run).asset_events()
    assert sorted((event["name"], event["source_task_id"]) for event in events) == [
        ("test.c", "dbt.dbt_build"),
        ("test.e", "dbt.dbt_build"),
    ]

    before = built()
    drill.clear(run, "d")
    drill.saw("one task cleared", run, before, "run=ok a=ok b=ok build=ok c=ok d=ok2+ e=ok")

    before = built()
    drill.clear(run, "d", downstream=True)
    expected = "run=ok a=ok b=ok build=ok c=ok d=ok3+ e=ok2+"
    drill.saw("one task cleared with what follows", run, before, expected)
    assert built()["d"] < built()["e"], "one after the other"

    before = built()
    drill.clear(run)
    expected = "run=ok a=ok2+ b=ok2+ build=ok2 c=ok2+ d=ok4+ e=ok3+"
    drill.saw("whole run cleared: one build again", run, before, expected)

    before = built()
    run = drill.run(select="b")
    drill.saw("the form chooses b", run, before, "run=ok a=skipped b=ok+ build=ok c=skipped d=skipped e=skipped")

    (drill.folder / "b.csv").unlink()
    before = built()
    run = drill.run()
    expected = "run=failed a=ok+ b=failed build=ok2 c=upstream d=ok+ e=ok+"
    drill.saw("a model fails", run, before, expected)

    calm()
    before = built()
    drill.clear(run, "b", downstream=True)
    drill.saw("mended, cleared with what follows", run, before, "run=ok a=ok b=ok2+ build=ok2 c=ok+ d=ok e=ok")

    (drill.folder / "b.csv").unlink()
    before = built()
    run = drill.start()
    until(lambda: drill.state(run, "dbt_build") == "up_for_retry", 120, "the build is tried again")
    calm()
    a = built()["a"]
    drill.airflow.wait(DAG, run)
    drill.saw("flaky: the next try mends it", run, before, "run=ok a=ok+ b=ok+ build=ok2 c=ok+ d=ok+ e=ok+")
    assert built()["a"] == a, "what was built is not built again"

    (drill.folder / "bad.csv").write_text("n\n1\n")
    before = built()
    run = drill.run()
    drill.saw("a test fails", run, before, "run=failed a=ok+ b=ok+ build=ok2 c=ok+ d=failed+ e=upstream")
    calm()

    drill.slow()
    before = built()
    run = drill.start()
    drill.in_the_slow_model(run).kill()
    drill.slow(1)
    drill.airflow.wait(DAG, run)
    drill.saw("the build is killed (SIGKILL)", run, before, "run=ok a=ok+ b=ok+ build=ok2 c=ok+ d=ok+ e=ok+")
    results = (drill.folder / "dbt.dbt_build.2.json").read_text()
    assert '"model.watched.e"' in results
    assert '"model.watched.a"' not in results, "what was built is not built again"

    drill.slow()
    before = built()
    run = drill.start()
    process = drill.in_the_slow_model(run)
    worker = process.parent()
    assert worker is not None
    worker.kill()
    process.kill()
    drill.slow(1)
    drill.airflow.wait(DAG, run)
    drill.saw("its supervisor too (eviction)", run, before, "run=ok a=ok+ b=ok+ build=ok2 c=ok+ d=ok+ e=ok+")

    drill.slow()
    before = built()
    run = drill.start()
    drill.in_the_slow_model(run).kill()
    until(lambda: drill.state(run, "dbt_build") == "up_for_retry", 60, "the build is tried again")
    until(lambda: drill.dbt() is not None, 60, "the next try builds")
    drill.in_the_slow_model(run).kill()
    drill.airflow.wait(DAG, run)
    expected = "run=failed a=ok+ b=ok+ build=failed2 c=ok+ d=ok+ e=failed"
    drill.saw("the build is killed in each of its tries", run, before, expected)

    before = built()
    run = drill.start()
    drill.in_the_slow_model(run)
    drill.component("triggerer").kill()
    drill.airflow.wait(DAG, run)
    drill.saw("the triggerer is killed", run, before, "run=ok a=ok+ b=ok+ build=ok c=ok+ d=ok+ e=ok+")

    before = built()
    run = drill.start()
    drill.in_the_slow_model(run)
    os.kill(drill.component("api_server").pid, signal.SIGTERM)
    wait_through_restart(drill, run)
    drill.saw("the API server is restarted", run, before, "run=ok a=ok+ b=ok+ build=ok c=ok+ d=ok+ e=ok+")

    drill.slow(20 * SLOW)
    before = built()
    run = drill.start()
    process = drill.in_the_slow_model(run)
    drill.airflow.client.run(DAG, run).fail()
    until(lambda: drill.dbt() is None and not process.is_running(), 60, "dbt has stopped")
    drill.saw("the run is cancelled", run, before, "run=failed a=ok+ b=ok+ build=failed c=ok+ d=ok+ e=failed")

    width = max(len(case) for case, *_ in drill.table)
    for case, expected, seen in drill.table:
        print(f"{case:{width}}  {seen}" + ("" if seen == expected else f"\n{'':{width}}  expected: {expected}"))
    documented = (watched.ROOT / "docs" / "dbt.md").read_text(encoding="utf-8")
    assert [case for case, expected, _ in drill.table if f"| {case} | `{expected}` |" not in documented] == []
    assert [(case, seen) for case, _, seen in drill.table] == [(case, expected) for case, expected, _ in drill.table]


def wait_through_restart(drill: Drill, run_id: str) -> None:
    """Wait for the end of a run while the API may be away."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        try:
            if drill.airflow.client.run(DAG, run_id).state() in ("success", "failed"):
                return
        except Exception:  # noqa: BLE001  (it is being restarted)
            time.sleep(0.5)
        time.sleep(0.3)
    raise AssertionError(f"{run_id} has not ended")
