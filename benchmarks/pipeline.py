"""`make bench-pipeline`: a run of the DAG jaffle_shop beside other ways to do the same, on the sample shop.

usage: python -m benchmarks.pipeline [--runs 5] [--only WORD ...]

Three CSV files go into raw tables of a DuckDB file, then dbt builds and tests the shop's models on them.

- By hand: `sling run` of one replication, then `dbt build`.
- dlt: a pipeline of dlt, then `dbt build`.
- Dagster: dagster-sling with the same replication and dagster-dbt, as `dagster asset materialize`, and as a job of a
  `dagster dev` that is up. By default Dagster runs each step in a process of its own; in one process it is quicker.
- A run of jaffle_shop in a local Airflow that is up.

Each way has a DuckDB file of its own and a dbt project that was parsed before, and is run once to warm up. They take
turns, and what is up stays up, idle, during the others' turns. A run in Airflow or in Dagster that is up lasts from the
trigger to its end as they tell them; processor time and memory are those of all their processes, and memory that these
share counts once. Each result is compared with that of the first way. A last table shows where the last DAG run's time
went: when each task was ready, started and ended.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import duckdb
import httpx
import psutil
import yaml
from rich.table import Table

from benchmarks.measure import Cost, cpu_seconds, end, measure, median, observe, whole
from benchmarks.models import airflow_run
from benchmarks.others import BENCHMARKS, UnavailableError, WrongResultError, programs
from benchmarks.run import CONSOLE
from include.elt.local.environment import free_port
from include.elt.paths import DBT_PROJECT, ROOT, SAMPLE_DATA
from include.elt.settings import load_settings
from tests.support.real_airflow import RealAirflow, real_airflow, until

DAG = "jaffle_shop"
HAND, DLT = "Sling and dbt by hand", "dlt and dbt by hand"
DAGSTER = "Dagster by its command line, in one process"
DAGSTER_UP, DAGSTER_UP_SHARED = "Dagster that is up", "Dagster that is up, steps in one process"
OURS = "a run of jaffle_shop, Airflow is up"
NAMES = (HAND, DLT, DAGSTER, DAGSTER_UP_SHARED, DAGSTER_UP, OURS)
IN_PROCESS: Mapping[str, Any] = {"execution": {"config": {"in_process": {}}}}
"""Run config of Dagster; by default each step is a process of its own, which imports everything anew."""

LIMIT = 600.0
"""Seconds that any one step may take."""

TYPES = {
    "raw_customers": {"id": "bigint"},
    "raw_orders": {"id": "bigint", "user_id": "bigint"},
    "raw_payments": {"id": "bigint", "order_id": "bigint", "amount": "bigint"},
}
"""What Sling has to be told: it takes small numbers for `integer`, and the contracts of the marts want `bigint`."""

PROOF = (
    "SELECT (SELECT count(*) FROM marts.customers),"
    " (SELECT sum(customer_lifetime_value) FROM marts.customers)::varchar,"
    " (SELECT count(*) FROM marts.orders), (SELECT sum(amount) FROM marts.orders)::varchar,"
    " (SELECT max(order_date) FROM marts.orders)::varchar"
)
"""What has to be equal in every warehouse."""


@dataclass(frozen=True)
class Place:
    """Where one way works.

    Attributes:
        folder: its own.
    """

    folder: Path

    @property
    def warehouse(self) -> Path:
        """The DuckDB file to write."""
        return self.folder / "warehouse.duckdb"

    def replication(self) -> Path:
        """A replication file from CSV to DuckDB, as a person would write it."""
        streams = {
            f"file://{file}": {"object": f"raw.{file.stem}", "columns": TYPES[file.stem]}
            for file in sorted(SAMPLE_DATA.glob("raw_*.csv"))
        }
        content = {"source": "FILES", "target": "WAREHOUSE", "defaults": {"mode": "full-refresh"}, "streams": streams}
        file = self.folder / "shop.yaml"
        file.write_text(yaml.safe_dump(content))
        return file

    def for_sling(self, duckdb_program: Path) -> dict[str, str]:
        """The environment of Sling, without the connections."""
        return {
            "DUCKDB_PATH": str(duckdb_program),
            "DUCKDB_USE_INSTALLED_EXTENSIONS": "true",
            "SLING_BINARY": str(load_settings().sling()),
            "SLING_HOME_DIR": str(self.folder),
            "SLING_TEMP_DIR": str(self.folder),
            "SLING_DISABLE_TELEMETRY": "TRUE",
        }


Way = Callable[[Place], dict[str, Cost]]
"""Does it and returns the cost of each step."""


def by_hand(place: Place) -> dict[str, Cost]:
    """`sling run`, then `dbt build`, as a person would call them."""
    target = {"type": "duckdb", "instance": str(place.warehouse), "copy_method": "csv_files"}
    environment = place.for_sling(programs("dlt") / "duckdb")
    connections = {"FILES": json.dumps({"type": "file"}), "WAREHOUSE": json.dumps(target)}
    sling = [environment["SLING_BINARY"], "run", "-r", str(place.replication())]
    return {"sling run": measure(sling, environment | connections, LIMIT), "dbt build": _dbt(place)}


def dlt(place: Place) -> dict[str, Cost]:
    """A pipeline of dlt, then `dbt build`."""
    command = [str(programs("dlt") / "python"), str(BENCHMARKS / "dlt_step.py"), "shop", str(place.warehouse)]
    environment = {"HOME": str(place.folder), "RUNTIME__DLTHUB_TELEMETRY": "false"}
    return {"dlt": measure([*command, str(SAMPLE_DATA)], environment, LIMIT), "dbt build": _dbt(place)}


def _dbt(place: Place) -> Cost:
    """`dbt build`; its target folder stays, so that only the first one parses the project."""
    target = str(place.folder / "target")
    words = [str(Path(sys.executable).with_name("dbt")), "--no-use-colors", "build", "--select", "source:shop+"]
    words += ["--project-dir", str(DBT_PROJECT), "--profiles-dir", str(DBT_PROJECT), "--target", "duckdb"]
    words += ["--target-path", target, "--log-path", target]
    own = load_settings(duckdb_path=place.warehouse).dbt_environment()
    return measure(words, {**own, "DO_NOT_TRACK": "1"}, LIMIT)


def _for_dagster(place: Place) -> dict[str, str]:
    """The environment of Dagster; its home and its dbt project are made first, and the project is parsed.

    Raises:
        UnavailableError: Dagster cannot be installed.
    """
    there = programs("dagster")
    project, home = place.folder / "dbt", place.folder / "home"
    environment = place.for_sling(there / "duckdb") | {
        "PATH": f"{there}{os.pathsep}{os.environ['PATH']}",
        "DAGSTER_HOME": str(home),
        "DBT_PROJECT": str(project),
        "DBT_SCHEMA_PREFIX": "",
        "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
        "DO_NOT_TRACK": "1",
        "REPLICATION": str(place.replication()),
        "WAREHOUSE": str(place.warehouse),
    }
    if not project.exists():
        home.mkdir()
        (home / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
        shutil.copytree(DBT_PROJECT, project, ignore=shutil.ignore_patterns("target", "logs"))
        # Sling and dbt are in one process here, and DUCKDB_PATH means something else to each of them.
        profiles = project / "profiles.yml"
        profiles.write_text(profiles.read_text().replace("env_var('DUCKDB_PATH'", "env_var('WAREHOUSE'"))
        words = ["--project-dir", str(project), "--profiles-dir", str(project), "--target", "duckdb"]
        measure([str(there / "dbt"), "parse", *words], environment, LIMIT)
    return environment


def dagster(place: Place) -> dict[str, Cost]:
    """All assets, by the command line, in one process."""
    environment = _for_dagster(place)
    words = ["asset", "materialize", "--select", "*", "-f", str(BENCHMARKS / "dagster_shop.py")]
    words += ["--config-json", json.dumps(IN_PROCESS)]
    return {"": measure([str(programs("dagster") / "dagster"), *words], environment, LIMIT)}


@dataclass(frozen=True)
class RealDagster:
    """A running `dagster dev`: web server, daemon, code server.

    Attributes:
        http: asks its GraphQL API.
        process: the command that it is.
    """

    http: httpx.Client
    process: psutil.Process

    def ask(self, query: str, **variables: Any) -> Any:
        """What the API answers.

        Raises:
            httpx.HTTPError: it does not answer, or refuses.
        """
        response = self.http.post("/graphql", json={"query": query, "variables": variables})
        response.raise_for_status()
        return response.json()["data"]

    def locations(self) -> list[dict[str, Any]]:
        """The loaded repositories; none while it is starting."""
        try:
            data = self.ask("{repositoriesOrError {... on RepositoryConnection {nodes {name location {name}}}}}")
        except httpx.HTTPError:
            return []
        return list(data["repositoriesOrError"].get("nodes", ()))

    def run(self, config: Mapping[str, Any], _: Place) -> dict[str, Cost]:
        """One run of the job.

        Args:
            config: Dagster's run config.

        Raises:
            SystemExit: it did not succeed.
            TimeoutError: it took too long.
        """
        [repository] = self.locations()
        selector = {
            "repositoryLocationName": repository["location"]["name"],
            "repositoryName": repository["name"],
            "jobName": "shop",
        }
        launched = self.ask(
            "mutation($given: ExecutionParams!) {launchRun(executionParams: $given)"
            " {__typename ... on LaunchRunSuccess {run {runId}}}}",
            given={"selector": selector, "runConfigData": config},
        )["launchRun"]
        if "run" not in launched:
            raise SystemExit(f"Dagster does not start the run: {launched}")
        run_id = launched["run"]["runId"]

        def state() -> dict[str, Any]:
            query = "query($id: ID!) {runOrError(runId: $id) {... on Run {status creationTime endTime}}}"
            return dict(self.ask(query, id=run_id)["runOrError"])

        cost = observe(self.process, lambda: state()["status"] in ("SUCCESS", "FAILURE", "CANCELED"), LIMIT)
        told = state()
        if told["status"] != "SUCCESS":
            raise SystemExit(f"Dagster's run {run_id}: {told['status']}")
        return {"": Cost(told["endTime"] - told["creationTime"], cost.cpu, cost.peak)}


@contextmanager
def real_dagster(place: Place) -> Iterator[RealDagster]:
    """A Dagster with the definitions of the shop, for as long as the block lasts.

    Raises:
        UnavailableError: it cannot be installed.
    """
    environment, port = _for_dagster(place), free_port()
    words = ["dev", "-f", str(BENCHMARKS / "dagster_shop.py"), "-h", "127.0.0.1", "-p", str(port)]
    with (place.folder / "dagster.log").open("w") as log:
        process = psutil.Popen(
            [str(programs("dagster") / "dagster"), *words],
            env=os.environ | environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False) as http:
                here = RealDagster(http, psutil.Process(process.pid))
                until(lambda: here.locations() or process.poll() is not None, 180, "Dagster is up")
                yield here
        finally:
            end(psutil.Process(process.pid))


def proven(place: Place, wanted: tuple[object, ...] | None) -> tuple[object, ...]:
    """The figures of the marts.

    Raises:
        WrongResultError: they are not those that are wanted, or there are no customers.
    """
    with duckdb.connect(str(place.warehouse), read_only=True) as sql:
        found = tuple(sql.execute(PROOF).fetchone() or ())
    if found[0] != 100 or found != (wanted or found):
        raise WrongResultError(f"wanted {wanted or '100 customers'}, but the marts hold {found}")
    return found


def timeline(airflow: RealAirflow) -> Table:
    """When each task of the last run was scheduled, started and ended, in seconds after the trigger."""
    last = airflow.runs(DAG, "manual")[-1]
    began = datetime.fromisoformat(last["queued_at"])

    def after(moment: str | None) -> str:
        return f"{(datetime.fromisoformat(moment) - began).total_seconds():.2f}" if moment else ""

    table = Table("task", "ready", "started", "ended", title=f"the last run, seconds; ended {after(last['end_date'])}")
    tasks = airflow.client.run(DAG, last["dag_run_id"]).tasks()
    for task in sorted(tasks, key=lambda each: str(each["end_date"])):
        moments = (task.get(name) for name in ("scheduled_when", "start_date", "end_date"))
        table.add_row(task["task_id"], *(after(moment) for moment in moments))
    return table


@contextmanager
def our_airflow(place: Place) -> Iterator[RealAirflow]:
    """An Airflow with this project's DAGs, for as long as the block lasts."""
    environment = os.environ | {
        "DUCKDB_PATH": str(place.warehouse),
        "LAKE": str(place.folder / "lake"),
        "ARTIFACTS": str(place.folder / "artifacts"),
        "SHOP_FILES": str(SAMPLE_DATA),
    }
    with real_airflow(SimpleNamespace(folder=place.folder, root=ROOT, environment=environment)) as airflow:
        until(lambda: airflow.client.dag(DAG), 300, f"{DAG} is read")
        yield airflow


def _ours(airflow: RealAirflow, _: Place) -> dict[str, Cost]:
    took = airflow_run(airflow, DAG, LIMIT)
    return {"": Cost(took.wall, took.cpu, took.peak)}


def _idle(process: psutil.Process, seconds: float = 10) -> float:
    """Processor seconds per second of something that is up and has nothing to do."""
    before = cpu_seconds(process)
    time.sleep(seconds)
    return (cpu_seconds(process) - before) / seconds


def compare(runs: int, only: list[str]) -> None:
    """Run every way several times, in turns, and print the medians and the last DAG run.

    Args:
        runs: how often, after one to warm up.
        only: words of which the name of a way holds one; all ways without any.

    Raises:
        SystemExit: a way failed, or took too long.
        WrongResultError: a way brought something else.
    """

    def chosen(name: str) -> bool:
        return not only or any(word in name for word in only)

    missing: dict[str, str] = {}
    running: dict[str, psutil.Process] = {}
    there: RealDagster | None = None
    with tempfile.TemporaryDirectory(prefix="pipeline_") as scratch, ExitStack() as up:
        places = {name: Place(Path(scratch) / str(number)) for number, name in enumerate(NAMES) if chosen(name)}
        for place in places.values():
            place.folder.mkdir()
        ways: dict[str, Way] = {HAND: by_hand, DLT: dlt, DAGSTER: dagster}
        airflow = up.enter_context(our_airflow(places[OURS])) if OURS in places else None
        if airflow:
            ways[OURS], running["Airflow"] = partial(_ours, airflow), airflow.process
        for name, config in ((DAGSTER_UP_SHARED, IN_PROCESS), (DAGSTER_UP, {})):
            if name not in places:
                continue
            places[name] = places.get(DAGSTER_UP_SHARED, places[name])  # one Dagster for both
            try:
                there = there or up.enter_context(real_dagster(places[name]))
                ways[name], running["Dagster"] = partial(there.run, config), there.process
            except UnavailableError as error:
                missing[name] = str(error)
        costs: dict[str, list[dict[str, Cost]]] = {name: [] for name in places}
        wanted: tuple[object, ...] | None = None
        for number in range(runs + 1):
            for name, place in places.items():
                if name in missing:
                    continue
                try:
                    steps = ways[name](place)
                except UnavailableError as error:
                    missing[name] = str(error)
                    continue
                except subprocess.CalledProcessError as error:
                    raise SystemExit(f"{name}: {error}\n{error.output}") from error
                wanted = proven(place, wanted)
                took = whole(steps)
                text = f"round {number} of {runs}, {name}: {took.wall:.2f} s, {took.cpu:.2f} CPU seconds"
                CONSOLE.print(text, style="dim")
                if number:  # the first round warms up
                    costs[name].append(steps)
        idle = {name: _idle(process) for name, process in running.items()}
        steps_of_ours = timeline(airflow) if airflow else None
    show(runs, costs, missing)
    CONSOLE.print(f"marts of every way: {wanted}")
    CONSOLE.print("idle: " + ", ".join(f"{name} {share:.2f} CPU seconds per second" for name, share in idle.items()))
    if steps_of_ours:
        CONSOLE.print(steps_of_ours)


def show(runs: int, costs: Mapping[str, list[dict[str, Cost]]], missing: Mapping[str, str]) -> None:
    """Print the table of the medians."""
    table = Table("way", "seconds", "of by hand", "CPU seconds", "of by hand", "peak MB")
    table.title = f"the sample shop, median of {runs}; every result proven equal"
    base = median([whole(each) for each in costs[HAND]]) if costs.get(HAND) else None
    for name, measured in costs.items():
        if not measured:
            table.add_row(name, missing.get(name, "not measured"))
            continue
        lines = {name: median([whole(each) for each in measured])}
        if len(measured[0]) > 1:
            lines |= {f"· {step}": median([each[step] for each in measured]) for step in measured[0]}
        for line, cost in lines.items():
            ratios = (f"{cost.wall / base.wall:.2f}", f"{cost.cpu / base.cpu:.2f}") if base else ("", "")
            table.add_row(line, f"{cost.wall:.2f}", ratios[0], f"{cost.cpu:.2f}", ratios[1], f"{cost.peak:.0f}")
    CONSOLE.print(table)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", nargs="+", default=[], metavar="WORD", help="ways with such a word")
    options = parser.parse_args()
    CONSOLE.print(json.dumps({"cores": os.cpu_count(), "load": os.getloadavg()[0]}))
    compare(options.runs, options.only)


if __name__ == "__main__":
    main()
