"""A whole Airflow for a test, as `make up` starts it: API server, scheduler with LocalExecutor, DAG processor, …"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from include.elt.local.client import Client
from include.elt.local.environment import free_port


def until(condition: Callable[[], object], seconds: float, what: str) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {seconds:.0f} s"
        time.sleep(0.3)


@dataclass(frozen=True)
class RealAirflow:
    """A running Airflow that starts no scheduled run by itself.

    Attributes:
        url: of its API.
        client: logged in there.
        home: its AIRFLOW_HOME.
        root: the project.
        environment: what its commands are started with.
        process: the command that it is.
    """

    url: str
    client: Client
    home: Path
    root: Path
    environment: dict[str, str]
    process: psutil.Process

    @contextmanager
    def standing_still(self) -> Iterator[None]:
        """Airflow without a move: SQLite has one writer, and a command that writes much would find it busy."""
        others = self.process.children(recursive=True)
        for each in others:
            each.suspend()
        try:
            yield
        finally:
            for each in others:
                each.resume()

    def command(self, *words: str) -> str:
        """An `airflow` command; what it prints."""
        result = subprocess.run(
            [sys.executable, "-m", "include.elt.local", "airflow", *words],
            cwd=self.root,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    def trigger(self, dag_id: str, **conf: Any) -> str:
        """Run a DAG to its end; the run id."""
        until(lambda: self.client.dag(dag_id), 120, f"{dag_id} is read")
        self.client.pause(dag_id, paused=False)
        run_id = self.client.trigger(dag_id, conf)
        self.wait(dag_id, run_id)
        return run_id

    def wait(self, dag_id: str, run_id: str, seconds: float = 600) -> None:
        """Wait for the end of a run."""
        run = self.client.run(dag_id, run_id)
        until(lambda: run.state() in ("success", "failed"), seconds, f"the end of {run_id}")

    def states(self, dag_id: str, run_id: str) -> dict[str, str]:
        """State per task of a run."""
        return {task["task_id"]: str(task["state"]) for task in self.client.run(dag_id, run_id).tasks()}

    def extras(self, dag_id: str, run_id: str) -> dict[str, Any]:
        """What the run's tasks told about each asset."""
        return {event["name"]: event["extra"] for event in self.client.run(dag_id, run_id).asset_events()}

    def runs(self, dag_id: str, kind: str) -> list[dict[str, Any]]:
        """The runs of a DAG that were made in one way, e.g. `backfill`, the earliest interval first."""
        runs = self.client.pages(f"/dags/{dag_id}/dagRuns", "dag_runs", run_type=[kind])
        return sorted(runs, key=lambda run: str(run["data_interval_start"]))

    def clear(self, dag_id: str, run_id: str, task_ids: Sequence[str]) -> None:
        """Clear tasks of a run, and wait until it has ended again."""
        body = {"dry_run": False, "dag_run_id": run_id, "task_ids": list(task_ids), "only_failed": False}
        self.client.call("POST", f"/dags/{dag_id}/clearTaskInstances", json=body)
        self.wait(dag_id, run_id)


@contextmanager
def real_airflow(deployment: Any) -> Iterator[RealAirflow]:
    """Airflow on a deployment, for as long as the block lasts."""
    port = free_port()
    home = deployment.folder / "local"
    environment = deployment.environment | {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW_PORT": str(port),
        "AIRFLOW__SCHEDULER__USE_JOB_SCHEDULE": "False",
        "NO_COLOR": "1",
    }
    output = deployment.folder / "up.log"
    with output.open("a") as stream:
        up = subprocess.Popen(
            [sys.executable, "-m", "include.elt.local", "up"],
            cwd=deployment.root,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
        )
    try:
        until(lambda: "Ctrl-C stops it" in output.read_text() or up.poll() is not None, 180, "Airflow is up")
        assert up.poll() is None, output.read_text()
        url = f"http://127.0.0.1:{port}"
        [(user, password)] = json.loads((home / "passwords.json").read_text()).items()
        output.write_text("")  # it shows the login, which is none of a test's business
        with Client(url, user, password) as client:
            yield RealAirflow(url, client, home, deployment.root, environment, psutil.Process(up.pid))
    finally:
        if up.poll() is None:
            up.terminate()
            up.wait(60)


def pages(airflow: RealAirflow, dag_id: str, run_id: str) -> Iterator[tuple[str, str]]:
    """Everything that the API server tells of a run, as path and text: also logs, rendered fields and XComs."""
    [(user, password)] = json.loads((airflow.home / "passwords.json").read_text()).items()
    with httpx.Client(base_url=airflow.url, timeout=30, trust_env=False, follow_redirects=True) as http:
        token = http.post("/auth/token", json={"username": user, "password": password}).json()["access_token"]
        http.headers["Authorization"] = f"Bearer {token}"
        http.headers["Accept"] = "application/json"

        def get(path: str, **parameters: Any) -> Any:
            response = http.get(path, params=parameters)
            return response.status_code, response

        run = f"/api/v2/dags/{dag_id}/dagRuns/{run_id}"
        paths = [
            run,
            f"{run}/taskInstances",
            f"/api/v2/dags/{dag_id}/details",
            f"/api/v2/dagSources/{dag_id}",
            "/api/v2/assets/events",
            "/api/v2/connections",
            "/api/v2/variables",
            "/api/v2/config",
            "/api/v2/eventLogs",
            "/api/v2/importErrors",
            f"/ui/grid/runs/{dag_id}",
            f"/ui/grid/structure/{dag_id}",
        ]
        connections = airflow.client.call("GET", "/connections")["connections"]
        paths += [f"/api/v2/connections/{each['connection_id']}" for each in connections]
        for task in airflow.client.run(dag_id, run_id).tasks():
            instance = f"{run}/taskInstances/{task['task_id']}"
            paths += [instance, f"{instance}/tries", f"{instance}/xcomEntries"]
            paths += [f"{instance}/logs/{number}" for number in range(1, task["try_number"] + 1)]
            status, entries = get(f"{instance}/xcomEntries", limit=100)
            keys = [entry["key"] for entry in entries.json()["xcom_entries"]] if status == 200 else []
            paths += [f"{instance}/xcomEntries/{key}" for key in keys]
        for path in paths:
            status, response = get(path, limit=1000) if path.endswith("Logs") else get(path)
            if status != 403:  # what is closed to everyone tells nothing
                assert status == 200, (path, status, response.text[:300])
                yield path, response.text
