"""Run a DAG with `dag.test()` in a process of its own and write down what became of it.

usage: python -m tests.support.dag_test DAG_ID CONF_JSON RESULT_FILE
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main(dag_id: str, conf: str, result: str) -> None:
    from airflow.dag_processing.dagbag import DagBag
    from airflow.models.asset import AssetEvent
    from airflow.utils.session import create_session
    from sqlalchemy import select

    bag = DagBag()
    assert not bag.import_errors, bag.import_errors
    run = bag.dags[dag_id].test(run_conf=json.loads(conf))
    with create_session() as session:
        events = session.scalars(select(AssetEvent).where(AssetEvent.source_run_id == run.run_id)).all()
        outcome = {
            "run_id": run.run_id,
            "state": str(run.state),
            "tasks": {ti.task_id: str(ti.state) for ti in run.get_task_instances(session=session)},
            "assets": {event.asset.name: event.extra for event in events},
        }
    Path(result).write_text(json.dumps(outcome))


if __name__ == "__main__":
    main(*sys.argv[1:])
