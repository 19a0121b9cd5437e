"""A metadata database as after many runs, written without running anything: for tests and measurements of the page.

As a program it fills the database that Airflow's settings name: `python -m tests.support.metadata '{"streams": 5}'`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

NOW = datetime.now(UTC)
FAILED = {"stream": 3, "model": 5}
"""Which stream and which model fail in the last run of a seeded DAG."""

SHRUNK, GONE = 2, 1
"""Which model has a tenth of its rows, and which stream no table any more, where the tables were counted."""

EVIL = "<img src=x onerror=window.pwned=1>"
"""What must be shown as text, wherever it comes from."""


@dataclass
class Plan:
    """What to write: DAGs `dag_0`, `dag_1` … with an equal share of everything."""

    dags: int = 1
    streams: int = 5
    loads: int = 20
    models: int = 8
    results: int = 12
    serialized: bool = False
    counted: bool = False
    extra: dict[str, Any] = field(default_factory=dict)


def load_extra(stream: int, load: int) -> dict[str, Any]:
    """What the load task tells with its event."""
    rows = 1000 + 37 * stream + 11 * load
    return {
        "table": f"raw.stream_{stream}",
        "stream": f"stream_{stream}",
        "replication": "shop_files",
        "owner": "data-platform",
        "mode": "full-refresh",
        "rows_read": rows,
        "rows_loaded": rows - (2 if stream == 2 else 0),
        "rows_rejected": 2 if stream == 2 else 0,
        "rows_total": rows - (2 if stream == 2 else 0),
        "rows_inserted": rows,
        "rows_updated": 0,
        "rows_deleted": 0,
        "rows_duplicate": 0,
        "source_rows": None,
        "bytes": rows * 40,
        "seconds": 1.5 + stream / 100,
        "extract_seconds": 1.0,
        "watermark": "2026-01-01",
        "schema_hash": "0123456789abcdef",
        "schema_change": "it lacks the column colour string; it is added" if stream == 4 else "",
        "late_after": 36 * 3600,
        "stale_after": 5 * 24 * 3600,
        "tolerated": None,
        "repeated": False,
    }


def dbt_results(models: int, sources: Sequence[int], at: datetime, *, failing: bool, offset: int = 0) -> dict[str, Any]:
    """A summary as include.elt.results makes it."""
    nodes: list[dict[str, Any]] = []
    for number in range(models):
        of_source = number < len(sources)
        parent = f"source.jdbt.shop.stream_{sources[number % len(sources)]}"
        depends = [parent] if of_source else [f"model.jdbt.model_{offset + number // 2}"]
        node: dict[str, Any] = {
            "id": f"model.jdbt.model_{offset + number}",
            "type": "model",
            "name": f"model_{offset + number}",
            "depends_on": depends,
            "owner": "data",
            "description": EVIL if number == 1 else "One row per thing.",
            "relation": f"marts.model_{offset + number}",
            "tags": ["mart"],
            "layer": "marts",
            "materialized": "table",
            "status": "ok",
            "seconds": 0.25 + number / 1000,
            "tests": {"ok": 3},
            "freshness": "26 hours",
        }
        if failing and offset + number == FAILED["model"]:
            node |= {
                "tests": {"ok": 2, "failed": 1},
                "failed_tests": [
                    {
                        "name": "not_null_model_5_id",
                        "status": "failed",
                        "failures": 7,
                        "message": f"Got 7 results {EVIL}",
                    }
                ],
            }
        nodes.append(node)
    nodes.extend(
        {
            "id": f"source.jdbt.shop.stream_{number}",
            "type": "source",
            "name": f"shop.stream_{number}",
            "depends_on": [],
            "relation": f"raw.stream_{number}",
            "tests": {"ok": 2},
        }
        for number in sources
    )
    nodes.append(
        {
            "id": f"exposure.jdbt.shop_overview_{offset}",
            "type": "exposure",
            "name": "Shop overview",
            "depends_on": [nodes[models - 1]["id"]],
            "owner": "Data team",
            "url": "javascript:window.pwned=1",
        }
    )
    return {"generated_at": at.isoformat(), "seconds": 4.2, "nodes": nodes}


def _instance(dag_id: str, run_id: str, task_id: str, state: str, at: datetime) -> dict[str, Any]:
    return {
        "id": uuid4(),
        "dag_id": dag_id,
        "run_id": run_id,
        "task_id": task_id,
        "map_index": -1,
        "state": state,
        "pool": "default_pool",
        "pool_slots": 1,
        "start_date": at,
        "end_date": at,
        "try_number": 1,
    }


def fill(session: Any, plan: Plan) -> None:
    """Write it all; the last run of `dag_0` has a failed stream, a rejected row, a schema change and a failing test."""
    from airflow.models.asset import AssetActive, AssetEvent, AssetModel, TaskOutletAssetReference
    from airflow.models.dag import DagModel
    from airflow.models.dagbundle import DagBundleModel
    from airflow.models.dagrun import DagRun
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.xcom import XComModel
    from sqlalchemy import insert, select

    from include.elt.results import KEY, TREND, packed, trend

    def write(model: Any, rows: list[dict[str, Any]]) -> None:
        for start in range(0, len(rows), 500):
            session.execute(insert(model.__table__), rows[start : start + 500])

    write(DagBundleModel, [{"name": "seeded", "active": True}])
    runs = max(plan.loads, plan.results)
    assets: dict[str, dict[str, Any]] = {}
    for dag in range(plan.dags):
        dag_id = f"dag_{dag}"
        mine = range(dag, plan.streams, plan.dags)
        share = plan.models // plan.dags
        write(
            DagModel,
            [{"dag_id": dag_id, "bundle_name": "seeded", "is_stale": False, "is_paused": False, **_defaults()}],
        )
        made = list(_runs(dag_id, runs))
        write(DagRun, made)
        ids = dict(session.execute(select(DagRun.run_id, DagRun.id).where(DagRun.dag_id == dag_id)).all())
        table_rows = [
            {
                "name": f"raw.stream_{n}",
                "uri": f"elt://warehouse/raw/stream_{n}",
                "group": "warehouse",
                "extra": {},
                **_stamps(),
            }
            for n in mine
        ]
        write(AssetModel, table_rows)
        write(AssetActive, [{"name": row["name"], "uri": row["uri"]} for row in table_rows])
        asset_ids = dict(
            session.execute(
                select(AssetModel.name, AssetModel.id).where(AssetModel.name.in_([row["name"] for row in table_rows]))
            ).all()
        )
        write(
            TaskOutletAssetReference,
            [
                {
                    "asset_id": asset_ids[f"raw.stream_{n}"],
                    "dag_id": dag_id,
                    "task_id": f"shop.stream_{n}.load",
                    **_stamps(),
                }
                for n in mine
            ],
        )
        events, instances, xcoms = [], [], []
        for number, run in enumerate(made):
            last = number == len(made) - 1
            if number >= runs - plan.loads:
                for n in mine:
                    broken = last and n == FAILED["stream"]
                    if broken or n == 1_000_000:
                        continue
                    events.append(
                        {
                            "asset_id": asset_ids[f"raw.stream_{n}"],
                            "extra": load_extra(n, number) | (plan.extra if last else {}),
                            "source_task_id": f"shop.stream_{n}.load",
                            "source_dag_id": dag_id,
                            "source_run_id": run["run_id"],
                            "source_map_index": -1,
                            "timestamp": run["start_date"] + timedelta(seconds=30),
                        }
                    )
            if last:
                for n in mine:
                    broken = n == FAILED["stream"]
                    states = ("failed", "upstream_failed") if broken else ("success", "success")
                    for kind, state in zip(("extract", "load"), states, strict=True):
                        instances.append(
                            _instance(dag_id, run["run_id"], f"shop.stream_{n}.{kind}", state, run["start_date"])
                        )
                    if broken:
                        xcoms.append(
                            _xcom(
                                ids[run["run_id"]],
                                run,
                                f"shop.stream_{n}.extract",
                                "problem",
                                {"kind": "failed stream", "text": f"row 57 {EVIL}"},
                            )
                        )
            if number >= runs - plan.results and share:
                instances.append(_instance(dag_id, run["run_id"], "dbt.producer", "success", run["start_date"]))
                content = dbt_results(
                    share,
                    list(mine)[: min(share, 40)],
                    run["start_date"] + timedelta(seconds=60),
                    failing=number >= len(made) - 2,
                    offset=dag * share,
                )
                for key, value in ((KEY, content), (TREND, trend(content))):
                    xcoms.append(_xcom(ids[run["run_id"]], run, "dbt.producer", key, packed(value)))
        write(AssetEvent, events)
        write(TaskInstance, instances)
        write(XComModel, xcoms)
        assets |= {row["name"]: row for row in table_rows}
        if plan.serialized:
            session.flush()
            _serialize(dag_id, session)
    if plan.counted:
        _count(session, plan, write)


def _count(session: Any, plan: Plan, write: Any) -> None:
    """What the DAG health_report counted five minutes ago: streams and models on twenty days."""
    from airflow.models.dag import DagModel
    from airflow.models.dagrun import DagRun
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.xcom import XComModel
    from sqlalchemy import select

    from include.elt.completeness import KEY
    from include.elt.results import packed

    at, dag_id = NOW - timedelta(minutes=5), "health_report"
    tables = [(f"raw.stream_{n}", None if n == GONE else 500) for n in range(plan.streams)]
    tables += [(f"marts.model_{n}", 50 if n == SHRUNK else 500) for n in range(plan.models)]
    lines = [
        {
            "table": table,
            "rows": rows,
            "updated_at": (at - timedelta(hours=1)).isoformat(),
            "rows_usual": 500,
            "before": [500] * 20,
            "findings": [],
        }
        for table, rows in tables
    ]
    paused = {"bundle_name": "seeded", "is_stale": False, "is_paused": False}
    write(DagModel, [{"dag_id": dag_id, **paused, **_defaults()}])
    [run] = _runs(dag_id, 1)
    write(DagRun, [run])
    write(TaskInstance, [_instance(dag_id, run["run_id"], "measure", "success", at)])
    number = session.scalar(select(DagRun.id).where(DagRun.dag_id == dag_id))
    told = _xcom(number, run, "measure", KEY, packed({"lines": lines}))
    write(XComModel, [told | {"timestamp": at}])


def _serialize(dag_id: str, session: Any) -> None:
    """Make a DAG one that Airflow can start."""
    from airflow.models.serialized_dag import SerializedDagModel
    from airflow.providers.standard.operators.empty import EmptyOperator
    from airflow.sdk import DAG
    from airflow.serialization.serialized_objects import LazyDeserializedDAG

    with DAG(dag_id, schedule=None, start_date=NOW) as dag:
        EmptyOperator(task_id="nothing")
    SerializedDagModel.write_dag(LazyDeserializedDAG.from_dag(dag), bundle_name="seeded", session=session)


def _runs(dag_id: str, runs: int) -> Iterator[dict[str, Any]]:
    for number in range(runs):
        at = NOW - timedelta(hours=12 * (runs - 1 - number), minutes=10)
        last = number == runs - 1
        yield {
            "dag_id": dag_id,
            "run_id": f"scheduled__{at.isoformat()}",
            "state": "failed" if last and dag_id == "dag_0" else "success",
            "run_type": "scheduled",
            "logical_date": at,
            "start_date": at,
            "end_date": at + timedelta(seconds=90),
            "queued_at": at,
            "run_after": at,
            "created_at": at,
            "clear_number": 0,
        }


def _xcom(dag_run_id: int, run: Mapping[str, Any], task_id: str, key: str, value: Any) -> dict[str, Any]:
    return {
        "dag_run_id": dag_run_id,
        "task_id": task_id,
        "map_index": -1,
        "key": key,
        "dag_id": run["dag_id"],
        "run_id": run["run_id"],
        "value": value,
        "timestamp": run["start_date"] + timedelta(seconds=60),
    }


def _stamps() -> dict[str, datetime]:
    return {"created_at": NOW, "updated_at": NOW}


def _defaults() -> dict[str, Any]:
    return {
        "max_active_tasks": 16,
        "max_consecutive_failed_dag_runs": 0,
        "has_task_concurrency_limits": False,
        "has_import_errors": False,
        "timetable_type": "",
        "exceeds_max_non_backfill": False,
        "fail_fast": False,
        "timetable_partitioned": False,
        "timetable_periodic": False,
    }


def main() -> int:
    """Fill the database of Airflow's settings; the plan is the first argument, as JSON."""
    from airflow.utils.session import create_session

    with create_session() as session:
        fill(session, Plan(**json.loads(sys.argv[1])))
    return 0


if __name__ == "__main__":
    sys.exit(main())
