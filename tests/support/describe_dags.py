"""Parse a DAG folder and print what is in it as one line of JSON.

usage: python -m tests.support.describe_dags DAGS_FOLDER
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import Any
from unittest import mock


def days(dag: Any) -> list[tuple[str, str]]:
    """The data intervals of a backfill from the 1st to the 2nd of March."""
    from airflow.serialization.serialized_objects import DagSerialization

    scheduled = DagSerialization.from_dict(DagSerialization.to_dict(dag))
    runs = scheduled.iter_dagrun_infos_between(datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 3, 2, tzinfo=UTC))
    return [(run.data_interval.start.isoformat(), run.data_interval.end.isoformat()) for run in runs]


def main(folder: str) -> None:
    from airflow.dag_processing.dagbag import DagBag
    from airflow.sdk import Connection, Variable

    lookups: list[str] = []
    with (
        mock.patch.object(Connection, "get", side_effect=lambda name: lookups.append(f"connection {name}")),
        mock.patch.object(Variable, "get", side_effect=lambda name, *_: lookups.append(f"variable {name}")),
    ):
        bag = DagBag(folder)
    dags = {}
    for dag_id, dag in bag.dags.items():
        tasks = {
            task.task_id: {
                "type": type(task).__name__,
                "owner": task.owner,
                "retries": task.retries,
                "pool": task.pool,
                "timeout": task.execution_timeout.total_seconds() if task.execution_timeout else 0,
                "upstream": sorted(task.upstream_task_ids),
                "outlets": [asset.name for asset in task.outlets],
            }
            for task in dag.tasks
        }
        dags[dag_id] = {
            "tags": sorted(dag.tags),
            "doc_md": dag.doc_md,
            "max_active_runs": dag.max_active_runs,
            "catchup": dag.catchup,
            "backfill": days(dag),
            "told": [
                getattr(callback, "__name__", "")
                for callback in (dag.on_success_callback, dag.on_failure_callback)
                if callback
            ],
            "deadlines": [
                [
                    type(each.reference).__name__,
                    each.interval.total_seconds(),
                    list(getattr(each.reference, "tables", ())),
                ]
                for each in dag.deadline or ()
            ],
            "timeout": dag.dagrun_timeout.total_seconds() if dag.dagrun_timeout else 0,
            "tasks": tasks,
        }
    print(json.dumps({"import_errors": bag.import_errors, "lookups": lookups, "dags": dags}))


if __name__ == "__main__":
    main(*sys.argv[1:])
