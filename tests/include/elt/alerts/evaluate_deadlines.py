"""What the deadlines come to on the metadata database that Airflow's settings name: hours from now, as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.models.asset import AssetEvent, AssetModel
from airflow.models.dagrun import DagRun
from airflow.models.deadline import Deadline
from airflow.models.deadline_alert import DeadlineAlert as AlertModel
from airflow.models.serialized_dag import SerializedDagModel
from airflow.sdk.definitions.callback import AsyncCallback
from airflow.sdk.definitions.deadline import DeadlineAlert
from airflow.serialization.decoders import decode_deadline_alert
from airflow.serialization.encoders import encode_deadline_alert
from airflow.serialization.enums import DagAttributeTypes, Encoding
from airflow.utils.session import create_session
from sqlalchemy import delete, func, insert, select

from include.elt.alerts.deadlines import RunQueued, TablesLoaded
from include.elt.alerts.run import tell_late_tables, tell_missed_deadline
from tests.support.metadata import Plan, fill

NOW = datetime.now(UTC)
LIMIT = timedelta(hours=36)
TABLES = ("raw.stream_0", "raw.stream_1")


def decoded(alert: DeadlineAlert) -> Any:
    """A deadline as the scheduler reads it from the database: through JSON and the list of plugins."""
    stored = json.loads(json.dumps(encode_deadline_alert(alert)))
    return decode_deadline_alert({Encoding.TYPE: DagAttributeTypes.DEADLINE_ALERT, Encoding.VAR: stored})


def main() -> None:
    found: dict[str, Any] = {}
    tables = DeadlineAlert(TablesLoaded(TABLES, int(LIMIT.total_seconds())), LIMIT, AsyncCallback(tell_late_tables))
    queued = DeadlineAlert(RunQueued(), timedelta(hours=2), AsyncCallback(tell_missed_deadline))
    with create_session() as session:
        fill(session, Plan(streams=2, models=0, loads=2, results=0, serialized=True))
        session.flush()
        runs = list(session.scalars(select(DagRun).order_by(DagRun.id)))
        ids = dict(session.execute(select(AssetModel.name, AssetModel.id)).all())

        def hours(alert: DeadlineAlert = tables) -> float | None:
            reference = decoded(alert)
            at = reference.reference.evaluate_with(
                session=session, interval=reference.interval, dag_id="dag_0", run_id=runs[-1].run_id
            )
            session.flush()
            return None if at is None else round((at - NOW).total_seconds() / 3600, 1)

        def loaded(*ago: float) -> None:
            session.execute(delete(AssetEvent))
            for table, each in zip(TABLES, ago, strict=False):
                at = NOW - timedelta(hours=each)
                row = {"asset_id": ids[table], "timestamp": at, "extra": {}, "source_dag_id": "dag_0"}
                session.execute(insert(AssetEvent.__table__), [row])

        def pending(state: str, names: str) -> None:
            session.execute(delete(Deadline))
            runs[0].state = state
            alert = AlertModel(
                reference={"reference_type": "TablesLoaded", "tables": names, "seconds": int(LIMIT.total_seconds())},
                interval={},
                callback_def={},
                serialized_dag_id=session.scalar(select(SerializedDagModel.id)),
            )
            session.add(alert)
            session.flush()
            session.add(Deadline(NOW + LIMIT, tables.callback, runs[0].id, alert.id, "dag_0"))
            session.flush()

        def left() -> int:
            return int(session.scalar(select(func.count(Deadline.id))) or 0)

        steps: list[tuple[str, Callable[[], object]]] = [("never loaded", lambda: loaded())]
        steps.append(("loaded 10 h and 20 h ago", lambda: loaded(10, 20)))
        steps.append(("the older one is late already", lambda: loaded(10, 40)))
        steps.append(("all are late already", lambda: loaded(37, 40)))
        for name, prepare in steps:
            prepare()
            found[name] = hours()
        loaded(10, 40)
        pending("running", ",".join(TABLES))
        found["a run goes on that has the deadline"] = hours()
        pending("failed", ",".join(TABLES))
        found["a failed run has it"], found["left of the failed run"] = hours(), left()
        pending("failed", "raw.other")
        hours()
        found["of other tables"] = left()
        runs[-1].queued_at = NOW
        session.flush()
        found["run queued"] = hours(queued)
        session.rollback()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
