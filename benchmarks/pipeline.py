"""`make bench-pipeline`: a run of the DAG jaffle_shop beside Sling and dbt by hand, on the sample shop.

usage: python -m benchmarks.pipeline [--runs 5]

By hand: `sling run` of one replication with the shop's three files (CSV to CSV, for Sling needs a DuckDB program for
more), then `dbt build` of the shop's models on the raw tables that a run has loaded, on a project that it has parsed
before. The DAG run extracts, compares, loads and builds the same with 18 tasks in a local Airflow that is up; its time
is from the trigger to its end, as Airflow tells them. The two take turns. A last table shows where the median run's
time went: when each task was ready, started and ended.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

import yaml
from rich.table import Table

from benchmarks.measure import Cost, measure
from benchmarks.models import Took, airflow_run
from benchmarks.run import CONSOLE
from include.elt.paths import DBT_PROJECT, ROOT, SAMPLE_DATA
from include.elt.settings import load_settings
from tests.support.real_airflow import RealAirflow, real_airflow, until

DAG = "jaffle_shop"


def by_hand(folder: Path, environment: Mapping[str, str]) -> Took:
    """Sling, then dbt, as a person would call them."""
    target = {f"file://{file}": {"object": f"file://{folder}/{file.name}"} for file in SAMPLE_DATA.glob("raw_*.csv")}
    replication = folder / "by_hand.yaml"
    content = {"source": "LOCAL", "target": "LOCAL", "defaults": {"mode": "full-refresh"}, "streams": target}
    replication.write_text(yaml.safe_dump(content))
    sling = [str(load_settings().sling()), "run", "-r", str(replication)]
    dbt = [str(Path(sys.executable).with_name("dbt")), "--no-use-colors", "build", "--select", "source:shop+"]
    dbt += ["--project-dir", str(DBT_PROJECT), "--profiles-dir", str(DBT_PROJECT), "--target", "duckdb"]
    dbt += ["--target-path", str(folder / "by_hand"), "--log-path", str(folder / "by_hand")]
    own = load_settings(duckdb_path=Path(environment["DUCKDB_PATH"])).dbt_environment()
    first = measure(sling, {"SLING_HOME_DIR": str(folder / "sling"), "SLING_DISABLE_TELEMETRY": "TRUE"})
    second = measure(dbt, {**own, "DO_NOT_TRACK": "1"})
    both: Cost = second.after(first)
    return Took(both.wall, both.cpu, 0)


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


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    CONSOLE.print(json.dumps({"cores": os.cpu_count(), "load": os.getloadavg()[0]}))
    took: dict[str, list[Took]] = {"Sling and dbt by hand": [], "a run of jaffle_shop": []}
    with tempfile.TemporaryDirectory(prefix="pipeline_") as scratch:
        folder = Path(scratch)
        environment = os.environ | {
            "DUCKDB_PATH": str(folder / "warehouse.duckdb"),
            "LAKE": str(folder / "lake"),
            "ARTIFACTS": str(folder / "artifacts"),
            "SHOP_FILES": str(SAMPLE_DATA),
        }
        deployment: Any = SimpleNamespace(folder=folder, root=ROOT, environment=environment)
        with real_airflow(deployment) as airflow:
            until(lambda: airflow.client.dag(DAG), 300, f"{DAG} is read")
            for number in range(options.runs + 1):
                one, other = airflow_run(airflow, DAG), by_hand(folder, environment)
                CONSOLE.print(f"round {number} of {options.runs}: DAG run {one}, by hand {other}", style="dim")
                if number:  # the first round warms up, and loads what dbt by hand reads
                    took["a run of jaffle_shop"].append(one)
                    took["Sling and dbt by hand"].append(other)
            steps = timeline(airflow)
    table = Table("way", "seconds", "of by hand", "CPU seconds", "of by hand", "task processes")
    table.title = f"the sample shop, median of {options.runs}"
    base = [median(getattr(each, name) for each in took["Sling and dbt by hand"]) for name in ("wall", "cpu")]
    for way, several in took.items():
        wall, cpu = (median(getattr(each, name) for each in several) for name in ("wall", "cpu"))
        workers = median(each.workers for each in several)
        ratios = f"{wall / base[0]:.2f}", f"{cpu / base[1]:.2f}"
        table.add_row(way, f"{wall:.2f}", ratios[0], f"{cpu:.2f}", ratios[1], f"{workers:.0f}")
    CONSOLE.print(table)
    CONSOLE.print(steps)


if __name__ == "__main__":
    main()
