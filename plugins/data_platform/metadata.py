"""What the page asks Airflow's metadata database: a fixed number of bounded queries, however much there is."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, NamedTuple

from airflow.models.asset import AssetActive, AssetEvent, AssetModel, TaskOutletAssetReference
from airflow.models.dag import DagModel
from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from airflow.utils.sqlalchemy import UtcDateTime
from sqlalchemy import ColumnElement, Executable, and_, func, literal, or_, select
from sqlalchemy.orm import Session, aliased

from include.elt.completeness import KEY as COMPLETENESS
from include.elt.results import KEY as RESULTS
from include.elt.results import TREND, unpacked

HISTORY = 20
"""Loads of a stream that are shown."""

TRENDS = 12
"""Runs of dbt whose durations are shown."""

LIMIT = 5000
"""Streams or models in one answer."""

EXTRACT, LOAD = "extract", "load"
"""Names of a stream's two tasks (include/elt/tasks.py)."""

PROBLEM = "problem"
"""XCom of a failed extract or load task that says why (include/elt/tasks.py)."""

REPORT = "health_report"
"""DAG that counts the tables (dags/health_report.py)."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Table:
    """A raw table: an asset that a load task brings forth, and who owns the DAG."""

    asset_id: int
    name: str
    dag_id: str
    task_id: str
    owners: str | None

    @property
    def extract_task(self) -> str:
        """The task before it."""
        return f"{self.task_id.rpartition('.')[0]}.{EXTRACT}"


class Sizes(NamedTuple):
    """Rows that came with a load, and rows of the table after it."""

    loaded: int | None
    total: int | None


@dataclass(frozen=True)
class Event:
    """A committed load, as its asset event tells it."""

    asset_id: int
    at: datetime
    run_id: str | None
    extra: dict[str, Any]


@dataclass(frozen=True)
class LastRun:
    """The newest run of a DAG."""

    id: int
    dag_id: str
    run_id: str
    state: str
    started_at: datetime | None
    ended_at: datetime | None


@dataclass(frozen=True)
class Results:
    """Results of dbt, or just the trend of them, that one task told."""

    dag_run_id: int
    dag_id: str
    run_id: str
    at: datetime
    content: dict[str, Any]
    task_id: str


@dataclass(frozen=True)
class Count:
    """What the daily report counted of a table, and when.

    Attributes:
        at: when it was counted.
        rows: its rows; None for a table that is gone, or was never there.
        updated_at: when it had been loaded or built.
        before: its rows on the days, or after the loads, before; the newest first.
    """

    at: datetime
    rows: int | None
    updated_at: datetime | None
    before: tuple[int, ...]


class Metadata:
    """The queries of one request.

    Args:
        session: on the metadata database.
        readable: DAGs that the user may read; nothing of others leaves this class.
        dag_id: only this DAG.
        run_id: only this run; several DAGs may have one of that id.
    """

    def __init__(
        self, session: Session, readable: Collection[str], dag_id: str | None = None, run_id: str | None = None
    ) -> None:
        self._session = session
        self._readable = readable
        self._dag_id = dag_id
        self._run_id = run_id

    def tables(self) -> list[Table]:
        """The raw tables that DAGs of today load, by name."""
        query = (
            select(
                AssetModel.id,
                AssetModel.name,
                TaskOutletAssetReference.dag_id,
                TaskOutletAssetReference.task_id,
                DagModel.owners,
            )
            .where(*self._of_streams(), DagModel.dag_id == TaskOutletAssetReference.dag_id)
            .order_by(AssetModel.name)
            .limit(LIMIT)
        )
        return [Table(*row) for row in self._rows(query) if row[2] in self._readable]

    def history(self) -> dict[int, list[Sizes]]:
        """Rows of the last `HISTORY` loads by asset id, the newest first.

        Each table is asked for the time of its twentieth last load, by index: one row per load, however old they are.
        """
        earlier = aliased(AssetEvent)
        cutoff = (
            select(earlier.timestamp)
            .where(earlier.asset_id == AssetModel.id)
            .order_by(earlier.timestamp.desc())
            .limit(1)
            .offset(HISTORY - 1)
            .scalar_subquery()
        )
        query = (
            select(
                AssetEvent.asset_id,
                AssetEvent.source_dag_id,
                AssetEvent.extra["rows_loaded"].as_string(),
                AssetEvent.extra["rows_total"].as_string(),
            )
            .join(AssetModel, AssetModel.id == AssetEvent.asset_id)
            .where(
                *self._of_streams(),
                AssetEvent.timestamp >= func.coalesce(cutoff, literal(_EPOCH, UtcDateTime)),
            )
            .order_by(AssetEvent.asset_id, AssetEvent.timestamp.desc())
        )
        found: dict[int, list[Sizes]] = {}
        for asset_id, dag_id, *rows in self._rows(query):
            if dag_id in self._readable:
                found.setdefault(asset_id, []).append(
                    Sizes(*(None if number is None else int(float(number)) for number in rows))
                )
        return found

    def loads(self, table: str) -> list[Event]:
        """The last `HISTORY` loads of one raw table, the newest first."""
        query = (
            select(
                AssetEvent.asset_id,
                AssetEvent.timestamp,
                AssetEvent.source_run_id,
                AssetEvent.extra,
                AssetEvent.source_dag_id,
            )
            .join(AssetModel, AssetModel.id == AssetEvent.asset_id)
            .where(*self._of_streams(), AssetModel.name == table)
            .order_by(AssetEvent.timestamp.desc())
            .limit(HISTORY)
        )
        return [
            Event(row[0], row[1], row[2], _mapping(row[3])) for row in self._rows(query) if row[4] in self._readable
        ]

    def latest(self) -> dict[int, Event]:
        """The newest load of each raw table (of the run, where one is asked for) with all that it told, by asset id."""
        other = aliased(AssetEvent)
        of_asset = select(other.id).where(other.asset_id == AssetModel.id).order_by(other.timestamp.desc()).limit(1)
        if self._run_id is not None:  # events have no index by run; the time bounds how many are looked at
            made = select(func.min(DagRun.created_at)).where(*self._of_run(DagRun.dag_id, DagRun.run_id))
            of_asset = of_asset.where(
                other.timestamp >= made.scalar_subquery(), *self._of_run(other.source_dag_id, other.source_run_id)
            )
        newest = of_asset.scalar_subquery()
        query = (
            select(
                AssetEvent.asset_id,
                AssetEvent.timestamp,
                AssetEvent.source_run_id,
                AssetEvent.extra,
                AssetEvent.source_dag_id,
            )
            .join(AssetModel, AssetModel.id == AssetEvent.asset_id)
            .where(*self._of_streams(), AssetEvent.id == newest)
        )
        return {
            row[0]: Event(row[0], row[1], row[2], _mapping(row[3]))
            for row in self._rows(query)
            if row[4] in self._readable
        }

    def last_runs(self, dag_ids: Iterable[str]) -> dict[str, LastRun]:
        """The newest run of each DAG, or the one that is asked for."""
        wanted = set(dag_ids)
        query = select(
            DagRun.id, DagRun.dag_id, DagRun.run_id, DagRun.state, DagRun.start_date, DagRun.end_date
        ).order_by(DagRun.dag_id)
        if self._run_id is not None:
            query = query.where(*self._of_run(DagRun.dag_id, DagRun.run_id))
        else:
            other = aliased(DagRun)
            newest = select(func.max(other.id)).where(other.dag_id == DagModel.dag_id).scalar_subquery()
            query = query.join(DagModel, DagModel.dag_id == DagRun.dag_id).where(DagRun.id == newest)
        return {
            row[1]: LastRun(row[0], row[1], row[2], str(row[3]), row[4], row[5])
            for row in self._rows(query)
            if row[1] in wanted
        }

    def task_states(self, runs: Iterable[LastRun]) -> dict[tuple[str, str], str | None]:
        """State of each extract and load task of these runs, by DAG and task."""
        chosen = [and_(TaskInstance.dag_id == run.dag_id, TaskInstance.run_id == run.run_id) for run in runs]
        if not chosen:
            return {}
        query = select(TaskInstance.dag_id, TaskInstance.task_id, TaskInstance.state).where(
            or_(*chosen), or_(TaskInstance.task_id.like(f"%.{EXTRACT}"), TaskInstance.task_id.like(f"%.{LOAD}"))
        )
        return {(row[0], row[1]): None if row[2] is None else str(row[2]) for row in self._rows(query)}

    def problems(self, runs: Iterable[LastRun]) -> dict[tuple[str, str], tuple[str, str]]:
        """Kind and text of why tasks of these runs failed, by DAG and task."""
        ids = [run.id for run in runs]
        if not ids:
            return {}
        query = (
            select(XComModel.dag_id, XComModel.task_id, XComModel.value)
            .where(XComModel.key == PROBLEM, XComModel.dag_run_id.in_(ids))
            .limit(LIMIT)
        )
        return {(row[0], row[1]): _problem(row[2]) for row in self._rows(query)}

    def starts(self, dag_ids: Collection[str], after: datetime) -> list[tuple[str, datetime]]:
        """When runs of some DAGs began after a time, the earliest first."""
        if not dag_ids:
            return []
        query = (
            select(DagRun.dag_id, DagRun.start_date)
            .where(DagRun.dag_id.in_(dag_ids), DagRun.start_date > after)
            .order_by(DagRun.start_date)
            .limit(LIMIT)
        )
        return [(row[0], row[1]) for row in self._rows(query)]

    def trends(self) -> list[Results]:
        """Seconds and failures by node of dbt in the last `TRENDS` runs of each DAG, the newest first.

        Several tasks of a run may have told some.
        """
        found = (
            select(XComModel.dag_run_id, XComModel.dag_id)
            .where(XComModel.key == TREND, *self._of_run(XComModel.dag_id, XComModel.run_id))
            .group_by(XComModel.dag_run_id, XComModel.dag_id)
            .order_by(XComModel.dag_run_id.desc())
            .limit(LIMIT)
        )
        chosen: dict[str, list[int]] = {}
        for run, dag_id in self._rows(found):
            if dag_id in self._readable and len(chosen.setdefault(dag_id, [])) < TRENDS:
                chosen[dag_id].append(run)
        return self._told(TREND, [run for runs in chosen.values() for run in runs])

    def results(self, dag_run_ids: Collection[int]) -> list[Results]:
        """What dbt did in some runs, the newest first."""
        return self._told(RESULTS, dag_run_ids)

    @cached_property
    def counts(self) -> dict[str, Count]:
        """What the daily report counted last, by table; nothing where one run is asked for: it says nothing of that."""
        if REPORT not in self._readable or self._run_id is not None:
            return {}
        query = (
            select(XComModel.timestamp, XComModel.value)
            .where(XComModel.key == COMPLETENESS, XComModel.dag_id == REPORT)
            .order_by(XComModel.timestamp.desc())
            .limit(1)
        )
        found = {}
        for at, value in self._rows(query):
            for line in (unpacked(value) or {}).get("lines", []):
                updated = line.get("updated_at")
                found[str(line["table"])] = Count(
                    at, line["rows"], datetime.fromisoformat(updated) if updated else None, tuple(line["before"])
                )
        return found

    def _told(self, key: str, dag_run_ids: Collection[int]) -> list[Results]:
        if not dag_run_ids:
            return []
        query = (
            select(
                XComModel.dag_run_id,
                XComModel.dag_id,
                XComModel.run_id,
                XComModel.timestamp,
                XComModel.value,
                XComModel.task_id,
            )
            .where(XComModel.key == key, XComModel.dag_run_id.in_(dag_run_ids))
            .order_by(XComModel.dag_run_id.desc(), XComModel.timestamp.desc())
        )
        return [
            Results(row[0], row[1], row[2], row[3], content, row[5])
            for row in self._rows(query)
            if row[1] in self._readable and (content := unpacked(row[4])) is not None
        ]

    def _rows(self, query: Executable) -> Iterable[Any]:
        rows: Iterable[Any] = self._session.execute(query)
        return rows

    def _of_streams(self) -> list[ColumnElement[bool]]:
        """Conditions: assets that a load task of a DAG of today brings forth."""
        of_dag = [TaskOutletAssetReference.dag_id == self._dag_id] if self._dag_id is not None else []
        return [
            TaskOutletAssetReference.asset_id == AssetModel.id,
            TaskOutletAssetReference.task_id.like(f"%.{LOAD}"),
            AssetActive.name == AssetModel.name,
            AssetActive.uri == AssetModel.uri,
            *of_dag,
        ]

    def _of_run(self, dag_column: Any, run_column: Any) -> list[ColumnElement[bool]]:
        """Conditions: of the DAG, or the run of it, that is asked for."""
        conditions = [] if self._dag_id is None else [dag_column == self._dag_id]
        return conditions if self._run_id is None else [*conditions, run_column == self._run_id]


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _problem(value: object) -> tuple[str, str]:
    """Kind and text of a problem; some versions of Airflow keep an XCom as JSON in JSON."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return "", str(value)
    if not isinstance(value, dict):
        return "", str(value or "")
    return str(value.get("kind") or ""), str(value.get("text") or "")
