"""Deadlines: a run that takes too long, and a raw table or mart that becomes too old, are told when it happens.

Airflow's scheduler keeps the deadlines of each run and calls back in the triggerer when one has passed. It asks the
classes below when a run is made; plugins/deadlines_plugin.py makes them known to it. Airflow's own reference to the
time when a run was queued is not used: with it, clearing a task of a failed run ends in an error (Airflow 3.3.2, issue
70368).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from airflow.sdk.definitions.callback import AsyncCallback
from airflow.sdk.definitions.deadline import BaseDeadlineReference, DeadlineAlert

PROCESS_CONTEXT = "_AIRFLOW_PROCESS_CONTEXT"
"""Variable that Airflow sets to `client` in a process of the DAG processor before it reads a DAG file."""

_ENDED = ("success", "failed")


@dataclass(eq=False)
class RunQueued(BaseDeadlineReference):
    """The time when a run was queued."""

    required_kwargs = frozenset({"dag_id", "run_id"})

    def _evaluate_with(self, *, session: Any, dag_id: str, run_id: str) -> datetime:
        from airflow.models.dagrun import DagRun
        from sqlalchemy import select

        queued = session.scalar(select(DagRun.queued_at).where(DagRun.dag_id == dag_id, DagRun.run_id == run_id))
        return queued or datetime.now(UTC)


@dataclass(eq=False)
class TablesLoaded(BaseDeadlineReference):
    """The time of the last load of that one of some tables that becomes too old first.

    A table that is too old already when a run is made was told with the run before, and does not count.

    Attributes:
        tables: names of their assets.
        seconds: how old they may be.
    """

    tables: tuple[str, ...] = ()
    seconds: int = 0

    required_kwargs = frozenset({"dag_id", "run_id"})

    def serialize_reference(self) -> dict[str, Any]:
        """As it stands in the metadata database."""
        return {"reference_type": self.reference_name, "tables": ",".join(self.tables), "seconds": self.seconds}

    @classmethod
    def deserialize_reference(cls, reference_data: dict[str, Any]) -> TablesLoaded:
        """Back from there."""
        return cls(tuple(reference_data["tables"].split(",")), int(reference_data["seconds"]))

    def _evaluate_with(self, *, session: Any, dag_id: str, run_id: str) -> datetime | None:
        """The time, or None where no deadline is needed: every table is too old already, or a run that goes on has it.

        A run that has ended without loading its tables keeps its deadline, until the next run takes it over: whatever
        happens, a table has one.
        """
        from airflow.models.asset import AssetEvent, AssetModel
        from airflow.models.dagrun import DagRun
        from airflow.models.deadline import Deadline
        from sqlalchemy import func, select

        now = datetime.now(UTC)
        loads = (
            select(AssetModel.name, func.max(AssetEvent.timestamp))
            .join(AssetEvent, AssetEvent.asset_id == AssetModel.id)
            .where(AssetModel.name.in_(self.tables))
            .group_by(AssetModel.name)
        )
        loaded: dict[str, datetime] = dict(session.execute(loads).all())
        times = [loaded.get(table, now) for table in self.tables]
        left = [at for at in times if at + timedelta(seconds=self.seconds) > now]
        if not left:
            return None
        others = (
            select(Deadline, DagRun.state)
            .join(DagRun, DagRun.id == Deadline.dagrun_id)
            .where(DagRun.dag_id == dag_id, DagRun.run_id != run_id, ~Deadline.missed)
        )
        same = [(each, str(state)) for each, state in session.execute(others) if self._is_of(each.deadline_alert)]
        if any(state not in _ENDED for _, state in same):
            return None
        for each, _ in same:
            session.delete(each)
        return min(left)

    def _is_of(self, alert: Any) -> bool:
        """Whether a row of Airflow's is a deadline of such tables, with the same limit."""
        said = alert.reference if alert is not None else {}
        if said.get("reference_type") != self.reference_name:
            return False
        return said.get("seconds") == self.seconds and not set(self.tables).isdisjoint(said["tables"].split(","))


class Promise(NamedTuple):
    """What a task of a DAG promises about a table: that it is never older than some seconds."""

    task_id: str
    owner: str
    seconds: int


def wanted() -> bool:
    """Whether this process is one whose DAG objects may have deadlines: the DAG processor, where they count.

    `dag.test()` and `airflow dags test` of Airflow 3.3.2 end with an AttributeError for a DAG that has one
    (dagrun.py:1270).
    """
    return os.environ.get(PROCESS_CONTEXT) == "client"


def run_deadline(after: timedelta) -> DeadlineAlert | None:
    """A DAG's deadline for each of its runs: one that has not ended in time is told, and goes on.

    Args:
        after: time from when the run was queued.
    """
    if not wanted():
        return None
    from include.elt.alerts.run import tell_missed_deadline

    callback = AsyncCallback(tell_missed_deadline, {"seconds": after.total_seconds()})
    return DeadlineAlert(reference=RunQueued(), interval=after, callback=callback, name="run")


def keep_fresh(dag: Any, promises: Mapping[str, Promise]) -> None:
    """Give a DAG a deadline for each limit of the tables that it makes.

    Args:
        dag: the DAG.
        promises: by asset of the table, e.g. `raw.raw_orders`.
    """
    if not wanted() or not promises:
        return
    from include.elt.alerts.run import tell_late_tables

    alerts = []
    for each in dag.deadline or ():
        if isinstance(each.reference, TablesLoaded):  # what is late together is told together
            told = each.callback.kwargs["tables"]
            promises = {
                table: Promise(task, owner, each.reference.seconds) for table, (task, owner) in told.items()
            } | dict(promises)
        else:
            alerts.append(each)
    for seconds in sorted({each.seconds for each in promises.values()}):
        mine = {table: each for table, each in sorted(promises.items()) if each.seconds == seconds}
        tables = {table: [each.task_id, each.owner] for table, each in mine.items()}
        alerts.append(
            DeadlineAlert(
                reference=TablesLoaded(tuple(mine), seconds),
                interval=timedelta(seconds=seconds),
                callback=AsyncCallback(tell_late_tables, {"tables": tables, "seconds": seconds}),
                name=f"tables not older than {span(seconds)}",
            )
        )
    dag.deadline = alerts


def span(seconds: float) -> str:
    """A time span as people say it, e.g. `36 hours`."""
    for size, word in ((24 * 3600, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size and seconds % size == 0 and (seconds >= 3 * size or size < 24 * 3600):
            count = int(seconds // size)
            return f"{count} {word}{'s' if count != 1 else ''}"
    return f"{seconds:g} seconds"
