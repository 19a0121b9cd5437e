"""Airflow's cost of a dbt project: DAG runs beside plain `dbt build`, and the parse of the DAG file.

usage: python -m benchmarks.models [--models 200 1000] [--runs 3] [--ways ours watcher local] [--all] [--limit SECONDS]
       [--parse] [--parses 1000]

Generated projects: layers of a fifth of the models each, every model a table that reads two of the layer before, with
two data tests. The ways take turns, in one Airflow with LocalExecutor and PostgreSQL as its metadata database.
Wall-clock time of a DAG run is what Airflow says of it; processor time is that of all of Airflow, tasks included.
Task processes are those that were seen while the run lasted.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

import psutil
from rich.table import Table

from benchmarks.measure import measure, observe
from benchmarks.run import CONSOLE, STEP
from tests.support import watched
from tests.support.postgres import running_server
from tests.support.real_airflow import RealAirflow, real_airflow, until

LAYERS = 5
DAGS = {
    "ours": "from tests.support.watched import declare\n\ndag = declare({folder!r}, 'ours', retries=1)\n",
    "watcher": "from benchmarks.models import cosmos\n\ndag = cosmos({folder!r}, 'watcher')\n",
    "local": "from benchmarks.models import cosmos\n\ndag = cosmos({folder!r}, 'local')\n",
}
"""DAG file per way."""

USUAL = {"watcher": 200, "local": 8}
"""The most models with which each of Cosmos' own ways is run unasked; beyond, a run takes an hour or many."""

SMALL = 50
"""Models up to which Cosmos' own ways are warmed up and repeated; beyond they have one run."""


@dataclass(frozen=True)
class Took:
    """What one run took: seconds, CPU seconds, the number of task processes that were seen, peak memory in MB."""

    wall: float
    cpu: float
    workers: int
    peak: float


def generate(folder: Path, count: int) -> None:
    """A dbt project of so many models and twice as many tests."""
    width = max(1, count // LAYERS)
    models, columns = {}, []
    for number in range(count):
        layer, place = divmod(number, width)
        name = f"m{number:04}"
        if layer:
            first, second = ((layer - 1) * width + (place + step) % width for step in (0, 1))
            left, right = (f"{{{{ ref('m{parent:04}') }}}}" for parent in (first, second))
            models[name] = f"select a.id, a.x + b.x as x from {left} as a join {right} as b using (id)"  # noqa: S608
        else:
            models[name] = f"select i as id, i * {number} as x from range(1000) as t(i)"  # noqa: S608
        columns.append(f"- {{name: {name}, columns: [{{name: id, data_tests: [unique, not_null]}}]}}")
    watched.write_project(folder, models, {}, "models:\n" + "\n".join(columns) + "\n")


def cosmos(folder: str, way: str) -> Any:
    """The same project as Cosmos makes a DAG of it, in its execution mode LOCAL or WATCHER."""
    import pendulum
    from airflow.sdk import DAG
    from cosmos.airflow.task_group import DbtTaskGroup
    from cosmos.config import ExecutionConfig, ProfileConfig, ProjectConfig, RenderConfig
    from cosmos.constants import ExecutionMode, InvocationMode, LoadMode, TestBehavior

    place = Path(folder)
    project = place / "dbt"
    pool: dict[str, Any] = {"pool": "warehouse"}
    mode = ExecutionMode.WATCHER if way == "watcher" else ExecutionMode.LOCAL
    more: dict[str, Any] = {"setup_operator_args": pool} if way == "watcher" else {}
    with DAG(way, schedule=None, start_date=pendulum.datetime(2026, 1, 1), catchup=False) as dag:
        DbtTaskGroup(
            group_id="dbt",
            project_config=ProjectConfig(
                dbt_project_path=project,
                manifest_path=project / "target" / "manifest.json",
                install_dbt_deps=False,
                env_vars={"WATCHED_WAREHOUSE": str(place / "warehouse.duckdb")},
            ),
            profile_config=ProfileConfig(watched.PROFILE, "dev", profiles_yml_filepath=project / "profiles.yml"),
            execution_config=ExecutionConfig(execution_mode=mode, invocation_mode=InvocationMode.DBT_RUNNER, **more),
            render_config=RenderConfig(
                load_method=LoadMode.DBT_MANIFEST, test_behavior=TestBehavior.AFTER_EACH, emit_datasets=False
            ),
            operator_args={"install_deps": False, **({"poke_interval": 1} if way == "watcher" else pool)},
        )
    return dag


def plain(folder: Path) -> Took:
    """`dbt build` by hand, on a project that was built and parsed the same way before."""
    project = folder / "dbt"
    words = [str(Path(sys.executable).with_name("dbt")), "--no-use-colors", "build", "--project-dir", str(project)]
    words += ["--profiles-dir", str(project), "--target-path", str(folder / "by_hand")]
    cost = measure(words, {"WATCHED_WAREHOUSE": str(folder / "warehouse.duckdb"), "DO_NOT_TRACK": "1"})
    return Took(cost.wall, cost.cpu, 0, cost.peak)


def airflow_run(airflow: RealAirflow, dag_id: str, limit: float = 3600) -> Took:
    """One DAG run.

    Args:
        airflow: where.
        dag_id: its DAG.
        limit: seconds it may take.

    Raises:
        TimeoutError: it took longer; it was marked as failed.
        SystemExit: it did not succeed.
    """
    airflow.client.pause(dag_id, paused=False)
    run_id = airflow.client.trigger(dag_id, {})
    run = airflow.client.run(dag_id, run_id)
    workers: set[int] = set()
    try:
        cost = observe(
            airflow.process,
            lambda: run.state() in ("success", "failed"),
            limit,
            lambda: workers.update(_tasks(airflow.process)),
        )
    except TimeoutError:
        airflow.client.call("PATCH", f"/dags/{dag_id}/dagRuns/{run_id}", json={"state": "failed"})
        airflow.client.pause(dag_id, paused=True)
        until(lambda: not _tasks(airflow.process), 600, "the last task has stopped")
        raise
    if (state := run.state()) != "success":
        raise SystemExit(f"{dag_id} {run_id}: {state}")
    told = airflow.client.call("GET", f"/dags/{dag_id}/dagRuns/{run_id}")
    first, last = (datetime.fromisoformat(told[name]) for name in ("queued_at", "end_date"))
    return Took((last - first).total_seconds(), cost.cpu, len(workers), cost.peak)


def _tasks(process: psutil.Process) -> set[int]:
    """Processes that run a task."""
    found = set()
    for each in process.children(recursive=True):
        try:
            title = " ".join(each.cmdline())
            if title.startswith("airflow worker -- ") and "LocalExecutor" not in title:
                found.add(each.pid)
        except psutil.Error:
            continue
    return found


@contextmanager
def airflow_on(folder: Path, ways: list[str]) -> Iterator[RealAirflow]:
    """An Airflow with the DAGs of the ways."""
    (folder / "dags").mkdir()
    for way in ways:
        (folder / "dags" / f"{way}.py").write_text("# airflow\n" + DAGS[way].format(folder=str(folder)))
    environment = os.environ | {
        "AIRFLOW__CORE__DAGS_FOLDER": str(folder / "dags"),
        "AIRFLOW__CORE__PARALLELISM": "8",
        "AIRFLOW__CORE__MAX_ACTIVE_TASKS_PER_DAG": "5000",
        "PYTHONPATH": str(watched.ROOT),
        "DUCKDB_PATH": str(folder / "other.duckdb"),
        "ARTIFACTS": str(folder / "artifacts"),
        "LAKE": str(folder / "lake"),
        "DO_NOT_TRACK": "1",
    }
    deployment = SimpleNamespace(folder=folder, root=watched.ROOT, environment=environment)
    with running_server() as server:
        server.execute("create role airflow login superuser password 'airflow'")
        server.execute("create database airflow owner airflow")
        place = f"airflow:airflow@127.0.0.1:{server.port}/airflow"
        environment["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] = f"postgresql+psycopg://{place}"
        environment["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC"] = f"postgresql+psycopg_async://{place}"
        with real_airflow(deployment) as airflow:
            for way in ways:
                until(partial(airflow.client.dag, way), 300, f"{way} is read")
            yield airflow


def runs(count: int, repeat: int, ways: list[str], limit: float, left_out: list[str]) -> None:
    """The ways beside each other.

    Args:
        count: models.
        repeat: runs of each way, after one that warms up; of Cosmos' own ways one without it where models are many.
        ways: run in Airflow, in turns with plain dbt.
        limit: seconds that a run may take; a way that needs more is stopped and has no further ones.
        left_out: named in the table only.
    """
    with tempfile.TemporaryDirectory(prefix="models_") as scratch:
        folder = Path(scratch)
        generate(folder, count)
        plain(folder)  # warm
        took: dict[str, list[Took]] = {way: [] for way in ["dbt", *ways]}
        said = {way: f"left out; python -m benchmarks.models --models {count} --ways {way} --all" for way in left_out}
        with airflow_on(folder, ways) as airflow:
            for number in range(repeat + 1):
                for way in took:
                    once = way in USUAL and count > SMALL
                    if way in said or (once and number != repeat):
                        continue
                    CONSOLE.print(f"{count} models, round {number} of {repeat}: {way} …", style="dim")
                    try:
                        one = plain(folder) if way == "dbt" else airflow_run(airflow, way, limit)
                    except TimeoutError:
                        said[way] = f"stopped after {limit:.0f}"
                        continue
                    CONSOLE.print(f"    {one}", style="dim")
                    if number:  # the first round warms up
                        took[way].append(one)
        table = Table("way", "seconds", "of dbt build", "CPU seconds", "of dbt build", "task processes", "runs")
        table.title = f"{count} models, {2 * count} tests, medians"
        base = [median(getattr(each, name) for each in took["dbt"]) for name in ("wall", "cpu")]
        for way, several in took.items():
            if way in said:
                continue
            wall, cpu = (median(getattr(each, name) for each in several) for name in ("wall", "cpu"))
            workers = median(each.workers for each in several)
            ratios = f"{wall / base[0]:.2f}", f"{cpu / base[1]:.2f}"
            figures = f"{wall:.1f}", ratios[0], f"{cpu:.1f}", ratios[1], f"{workers:.0f}", f"{len(several)}"
            table.add_row(way, *figures)
        for way, why in said.items():
            table.add_row(way, why)
        CONSOLE.print(table)


def parses(counts: list[int], repeat: int) -> None:
    """The DAG file beside an empty one, each in a fresh process."""
    table = Table("DAG file", "seconds", "of empty", "CPU seconds", "of empty", title=f"parse, median of {repeat}")
    with tempfile.TemporaryDirectory(prefix="models_") as scratch:
        files = {"empty": Path(scratch) / "empty.py"}
        files["empty"].write_text("from airflow.sdk import DAG\n\nwith DAG('empty', schedule=None):\n    pass\n")
        for count in counts:
            folder = Path(scratch) / str(count)
            folder.mkdir()
            generate(folder, count)
            for way in ("ours", "watcher"):
                files[f"{count} models, {way}"] = file = folder / f"{way}.py"
                file.write_text("# airflow\n" + DAGS[way].format(folder=str(folder)))
        airflow = {"AIRFLOW_HOME": scratch, "AIRFLOW__CORE__LOAD_EXAMPLES": "False", "DO_NOT_TRACK": "1"}
        airflow |= {"AIRFLOW__COSMOS__CACHE_DIR": scratch, "AIRFLOW__COSMOS__ENABLE_TELEMETRY": "False"}
        costs: dict[str, list[Any]] = {name: [] for name in files}
        for number in range(repeat + 1):
            for name, file in files.items():
                cost = measure([*STEP, "parse", str(file)], airflow)
                if number:
                    costs[name].append(cost)
        base = [median(getattr(each, name) for each in costs["empty"]) for name in ("wall", "cpu")]
        for name, several in costs.items():
            wall, cpu = (median(getattr(each, what) for each in several) for what in ("wall", "cpu"))
            table.add_row(name, f"{wall:.2f}", f"{wall / base[0]:.2f}", f"{cpu:.2f}", f"{cpu / base[1]:.2f}")
    CONSOLE.print(table)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--models", type=int, nargs="+", default=[200])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--ways", nargs="+", default=["ours"], choices=list(DAGS))
    parser.add_argument("--all", action="store_true", help="Cosmos' own ways with however many models, too")
    parser.add_argument("--limit", type=float, default=3600, help="seconds after which a run is stopped (3600)")
    parser.add_argument("--parses", type=int, nargs="+", default=[], help="models of the parse table (as --models)")
    parser.add_argument("--parse", action="store_true", help="the parse of the DAG file only")
    options = parser.parse_args()
    CONSOLE.print(json.dumps({"cores": os.cpu_count(), "load": os.getloadavg()[0]}))
    if not options.parse:
        for count in options.models:
            fits = [way for way in options.ways if options.all or count <= USUAL.get(way, count)]
            left_out = [way for way in options.ways if way not in fits]
            runs(count, options.runs, fits, options.limit, left_out)
    parses(options.parses or options.models, options.runs)


if __name__ == "__main__":
    main()
